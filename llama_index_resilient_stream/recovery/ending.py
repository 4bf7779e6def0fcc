"""Whether a text can end where it ends, for models that were asked for the rest and say that there is none."""

from __future__ import annotations

import re

_ENDS = frozenset(".!?…。！？؟।॥")
_CLOSERS = "\"'»”’)]}）」』】》*_`~>"
_NO_END = re.compile(r"[ \t]*(?:\d+[.)]|\|[ \t:|-]+\|)")  # the number of a list item, the ruler of a table
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.MULTILINE)


def is_unfinished(text: str) -> bool:
    """Return whether `text` stops inside a code fence, a bracket, a sentence or a word, as far as its end shows.

    So does a table that has its head only, and a list behind the number of an item.

    A list or a heading may end without a full stop. It counts as unfinished: asking once more costs little.

        >>> is_unfinished("2. Choose a"), is_unfinished("That is all.")
        (True, False)
    """
    text = text.rstrip()
    if not text:
        return False
    if len(_FENCE.findall(text)) % 2 or _NO_END.fullmatch(text[text.rfind("\n") + 1 :]):
        return True
    if text.endswith(("```", "~~~", "|")):
        return False
    last = text.rsplit("\n\n", 1)[-1]
    if any(last.count(opening) > last.count(closing) for opening, closing in ("()", "[]", "{}", "（）", "「」")):
        return True
    bare = text.rstrip(_CLOSERS)
    closed = len(bare) < len(text) and text[-1] in ")]}）」』】》"
    return not (closed or bare[-1:] in _ENDS)
