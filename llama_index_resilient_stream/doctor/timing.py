"""Bounds that show whether an answer was streamed, or held back and delivered at once."""

from __future__ import annotations

BLOCK_GAP = 0.05
"""Seconds. What arrives this close together is one block: TCP does not keep the sender's writes apart."""
HELD_BACK = 0.5
"""Seconds. An answer that is complete sooner was too quick to tell whether something held it back."""
