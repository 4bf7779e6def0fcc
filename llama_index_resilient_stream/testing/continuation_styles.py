"""The ways in which models continue a cut answer, for scripted models, tests and the benchmark.

A continuation style takes the whole text, the part of it before the cut, and the anchor that was asked for. It returns
the continuation that such a model sends, up to the end of the text.

`OBEYING` names the styles that do what was asked, or carry on with the next character: with these the joined answer is
the text itself, to the last character. All others have been seen of models, some often and some seldom; those in
`stray_styles.py` of small ones that run on one's own machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from . import stray_styles

ContinuationStyle = Callable[[str, str, str], str]
"""(text, partial_text, anchor) -> continuation."""

OBEYING = frozenset({"anchor", "exact", "resent_space"})

COURTESIES = (
    "Sure! ",
    "Certainly, here is the rest:\n\n",
    "I apologize for the interruption. Continuing:\n\n",
    "Natürlich, ich mache genau dort weiter:\n\n",
    "Bien sûr, voici la suite :\n\n",
    "Claro, continúo donde me quedé:\n\n",
    "当然，以下是剩余部分：\n\n",
    "もちろんです。続きはこちらです：\n\n",
    "Конечно, продолжаю:\n\n",
    "بالتأكيد، إليك بقية الإجابة:\n\n",
)

LEFT_OFF = (
    "Sure, continuing from where I left off:\n\n",
    "Natürlich, ich fahre dort fort, wo ich unterbrochen wurde:\n\n",
    "Bien sûr, je reprends là où je me suis arrêté :\n\n",
    "Claro, continúo desde donde me quedé:\n\n",
    "当然，我从中断的地方继续：\n\n",
)

QUOTES = (('"', '"'), ("“", "”"), ("«", "»"), ("`", "`"), ("<<<", ">>>"), ("…", ""))

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)\n?", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?…؟।]+[\"'»”’)\]]*\s+|[。！？]+[」』”’）]*\s*|\n[ \t]*\n\s*")
_TABLE_HEAD = re.compile(r"^\|[^\n]*\|[ \t]*\n\|[ \t:|-]+\|[ \t]*\n", re.MULTILINE)


def find_anchor(partial_text: str, instruction: str) -> str:
    """Return the longest suffix of the partial text that occurs in the instruction: what a model was asked to repeat.

    It does not depend on the wording. Where no anchor was asked for, a letter or two may be found by chance.

    Args:
        partial_text: The answer up to the cut.
        instruction: The user's turn that asks for the rest.
    """
    found, missing = 0, min(len(partial_text), len(instruction)) + 1
    while missing - found > 1:  # every suffix of a suffix that occurs, occurs
        length = (found + missing) // 2
        if partial_text[len(partial_text) - length :] in instruction:
            found = length
        else:
            missing = length
    suffix = partial_text[len(partial_text) - found :]
    # The blank line in front of an anchor is none of it, though the partial text may have a line break there, too.
    before = instruction[: instruction.find(suffix)]
    while suffix.startswith("\n") and before.endswith("\n") and not before.endswith("\n\n"):
        suffix, before = suffix[1:], before + "\n"
    return suffix


def anchor(text: str, partial_text: str, anchor: str) -> str:
    """Sends what was asked for: the anchor and the rest."""
    return anchor + text[len(partial_text) :]


def exact(text: str, partial_text: str, anchor: str) -> str:
    """Carries on with the next character."""
    return text[len(partial_text) :]


def overlap(text: str, partial_text: str, anchor: str, *, length: int) -> str:
    """Repeats the last few characters, whatever was asked."""
    return text[max(0, len(partial_text) - length) :]


def restart(text: str, partial_text: str, anchor: str) -> str:
    """Gives the whole answer again."""
    return text


def restart_paragraph(text: str, partial_text: str, anchor: str) -> str:
    """Begins the paragraph again."""
    return text[partial_text.rfind("\n\n") + 2 if "\n\n" in partial_text else 0 :]


def restart_sentence(text: str, partial_text: str, anchor: str) -> str:
    """Begins the sentence again."""
    return text[max((end.end() for end in _SENTENCE_END.finditer(partial_text)), default=0) :]


def restart_line(text: str, partial_text: str, anchor: str) -> str:
    """Begins the line again."""
    return text[partial_text.rfind("\n") + 1 :]


def fence(text: str, partial_text: str, anchor: str) -> str:
    """Opens the code fence again that is still open, then carries on."""
    opened = _open_fence(partial_text)
    if opened is None:
        return text[len(partial_text) :]
    line = opened.group()
    return (line if line.endswith("\n") else line + "\n") + text[len(partial_text) :]


def fence_restart(text: str, partial_text: str, anchor: str) -> str:
    """Gives the whole code block again in which it was cut, fence and all."""
    opened = _open_fence(partial_text)
    return text[len(partial_text) if opened is None else opened.start() :]


def table_head(text: str, partial_text: str, anchor: str) -> str:
    """Repeats the head of the table in which it was cut, then carries on."""
    head = _open_table_head(partial_text)
    return head + text[len(partial_text) :]


def table_head_row(text: str, partial_text: str, anchor: str) -> str:
    """Repeats the head of the table in which it was cut, then begins the row again."""
    head = _open_table_head(partial_text)
    return head + text[partial_text.rfind("\n") + 1 if head else len(partial_text) :]


def echo(text: str, partial_text: str, anchor: str) -> str:
    """Sends back the prefix that it was sent, white space at its end stripped, as Mistral does; then the rest."""
    return text


def polite_anchor(text: str, partial_text: str, anchor: str) -> str:
    """Sends a courtesy, in one of several languages, then the anchor and the rest."""
    return _one_of(COURTESIES, partial_text) + anchor + text[len(partial_text) :]


def polite_exact(text: str, partial_text: str, anchor: str) -> str:
    """Says that it continues, then does."""
    return LEFT_OFF[0] + text[len(partial_text) :]


def polite_exact_translated(text: str, partial_text: str, anchor: str) -> str:
    """Says that it continues, in one of several languages, then does."""
    return _one_of(LEFT_OFF, partial_text) + text[len(partial_text) :]


def polite_overlap(text: str, partial_text: str, anchor: str, *, length: int) -> str:
    """Sends a courtesy, then the last few characters again."""
    return _one_of(COURTESIES, partial_text) + text[max(0, len(partial_text) - length) :]


def polite_restart(text: str, partial_text: str, anchor: str) -> str:
    """Sends a courtesy, then the whole answer again."""
    return _one_of(COURTESIES, partial_text) + text


def polite_fence(text: str, partial_text: str, anchor: str) -> str:
    """Inside a code fence: says that it continues, opens the fence again, carries on."""
    if _open_fence(partial_text) is None:
        return text[len(partial_text) :]
    return "Here is the rest of the code:\n\n" + fence(text, partial_text, anchor)


def quoted_anchor(text: str, partial_text: str, anchor: str) -> str:
    """Sends the anchor in quotation marks of some kind, then the rest."""
    opening, closing = QUOTES[len(partial_text) % len(QUOTES)]
    return opening + anchor + closing + text[len(partial_text) :]


def anchor_stripped(text: str, partial_text: str, anchor: str) -> str:
    """Sends the anchor without the white space around it, then the rest."""
    return anchor.strip() + text[len(partial_text) :]


def anchor_spaced(text: str, partial_text: str, anchor: str) -> str:
    """Sends a line break, the anchor with single spaces for all white space in it, then the rest."""
    words = " ".join(anchor.split())
    return "\n" + words + anchor[len(anchor.rstrip()) :] + text[len(partial_text) :]


def resent_space(text: str, partial_text: str, anchor: str) -> str:
    """Sends the white space again that was stripped from a prefill, then the rest."""
    return text[len(partial_text.rstrip()) :]


def near_restart(text: str, partial_text: str, anchor: str) -> str:
    """Gives the whole answer again, but one character differs. No join can be exact, and none may lose text."""
    middle = len(partial_text) // 2
    return text[:middle] + ("x" if text[middle : middle + 1] != "x" else "y") + text[middle + 1 :]


CONTINUATION_STYLES: dict[str, ContinuationStyle] = {
    "anchor": anchor,
    "exact": exact,
    "overlap16": partial(overlap, length=16),
    "overlap40": partial(overlap, length=40),
    "overlap64": partial(overlap, length=64),
    "restart": restart,
    "restart_paragraph": restart_paragraph,
    "restart_sentence": restart_sentence,
    "restart_line": restart_line,
    "fence": fence,
    "fence_restart": fence_restart,
    "table_head": table_head,
    "table_head_row": table_head_row,
    "echo": echo,
    "polite_anchor": polite_anchor,
    "polite_exact": polite_exact,
    "polite_exact_translated": polite_exact_translated,
    "polite_overlap40": partial(polite_overlap, length=40),
    "polite_restart": polite_restart,
    "polite_fence": polite_fence,
    "quoted_anchor": quoted_anchor,
    "anchor_stripped": anchor_stripped,
    "anchor_spaced": anchor_spaced,
    "resent_space": resent_space,
    "near_restart": near_restart,
    "drifting_restart": stray_styles.drifting_restart,
    "anchor_only": stray_styles.anchor_only,
    "closing_mark": stray_styles.closing_mark,
    "shortened_anchor": stray_styles.shortened_anchor,
    "thoughts_first": stray_styles.thoughts_first,
    "new_turn": stray_styles.new_turn,
    "next_number": stray_styles.next_number,
}


def _one_of(phrases: tuple[str, ...], partial_text: str) -> str:
    return phrases[len(partial_text) % len(phrases)]


def _open_fence(partial_text: str) -> re.Match[str] | None:
    """The line that opened the code fence in which `partial_text` ends."""
    opened: re.Match[str] | None = None
    for line in _FENCE.finditer(partial_text):
        if opened is None:
            opened = line
        elif line[1].startswith(opened[1]) and not line[2].strip():
            opened = None
    return opened if opened is not None and opened.group().endswith("\n") else None


def _open_table_head(partial_text: str) -> str:
    """The head of the Markdown table in which `partial_text` ends, with at least one row begun."""
    last = max(_TABLE_HEAD.finditer(partial_text), key=re.Match.start, default=None)
    rows = partial_text[last.end() :] if last else ""
    if last is None or not rows or not all(row.startswith("|") for row in rows.split("\n") if row):
        return ""
    return "" if "\n\n" in rows else last.group()
