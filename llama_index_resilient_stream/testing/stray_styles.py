"""What small models do when they are asked to go on, beside going on: styles for scripted models.

`STRAYING` names those after which the answer cannot be what it was to be, however it is joined: they leave the rest
out, or tell another one.
"""

from __future__ import annotations

import re

STRAYING = frozenset({"drifting_restart", "anchor_only", "new_turn", "next_number"})

_DRIFT = " something else, which was never said before, and with that it ends."
_THOUGHT = "<think>\nMy reply broke off. I copy its last words and write the rest.\n</think>\n\n"
_NEW_TURN = "You are welcome! Please let me know what else you would like me to look at."
_NUMBER = re.compile(r"^[ \t]*(\d{1,3})[.)][ \t]", re.MULTILINE)


def drifting_restart(text: str, partial_text: str, anchor: str) -> str:
    """Gives the answer again from its beginning, takes another way before it gets to the cut, and stops."""
    return partial_text[: max(1, len(partial_text) * 2 // 3)].rstrip() + _DRIFT


def anchor_only(text: str, partial_text: str, anchor: str) -> str:
    """Copies the anchor, as asked, and stops."""
    return anchor


def closing_mark(text: str, partial_text: str, anchor: str) -> str:
    """Sends the anchor, behind it a closing mark that nothing opened where a word ends there, then the rest."""
    rest = text[len(partial_text) :]
    return f"{anchor}>>>{rest}" if rest[:1].isspace() else anchor + rest


def shortened_anchor(text: str, partial_text: str, anchor: str) -> str:
    """Sends the anchor between marks, without its first word; then the rest."""
    return f"<<<{anchor.partition(' ')[2] or anchor}>>>{text[len(partial_text) :]}"


def thoughts_first(text: str, partial_text: str, anchor: str) -> str:
    """Thinks, between marks; then sends the anchor and the rest."""
    return _THOUGHT + anchor + text[len(partial_text) :]


def new_turn(text: str, partial_text: str, anchor: str) -> str:
    """Takes the answer for finished, and begins another turn."""
    return _NEW_TURN


def next_number(text: str, partial_text: str, anchor: str) -> str:
    """In a numbered list: leaves the item as it is, and goes on with the next one, number and all."""
    begun = _last_number(partial_text)
    following = (number for number in _NUMBER.finditer(text, len(partial_text)) if int(number[1]) == begun + 1)
    begin = next((number.start() for number in following), len(partial_text))
    return text[begin:]


def _last_number(partial_text: str) -> int:
    """The number of the list item in which it stops; -2 where it stops in none."""
    paragraph = partial_text[partial_text.rfind("\n\n") + 1 :]
    numbers = _NUMBER.findall(paragraph)
    return int(numbers[-1]) if numbers else -2
