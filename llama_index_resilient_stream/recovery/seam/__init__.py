"""Joins a continuation to what was said, without repeating or losing a character."""

from .restart import Retelling
from .seam import Seam

__all__ = ["Retelling", "Seam"]
