"""The ways in which models go on after a cut, for fake models, tests and the benchmark.

A habit takes the whole text, what was said of it before the cut, and the anchor that was asked for. It gives the
continuation that a model with this habit sends, up to the end of the text.

`OBEYING` names the habits that do what they were asked, or simply carry on: with these the joined answer is the
text itself, to the last character. All others are the truth about models, more or less often.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

Habit = Callable[[str, str, str], str]

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


def find_anchor(said: str, instruction: str) -> str:
    """The longest suffix of `said` that occurs in the instruction: what a model was asked to repeat.

    It does not depend on the wording. Where no anchor was asked for, a letter or two may be found by chance.
    """
    found, missing = 0, min(len(said), len(instruction)) + 1
    while missing - found > 1:  # every suffix of a suffix that occurs, occurs
        length = (found + missing) // 2
        if said[len(said) - length :] in instruction:
            found = length
        else:
            missing = length
    return said[len(said) - found :]


def anchor(text: str, said: str, anchor: str) -> str:
    """Does what it was asked: the anchor, and the rest."""
    return anchor + text[len(said) :]


def exact(text: str, said: str, anchor: str) -> str:
    """Carries on with the next character."""
    return text[len(said) :]


def overlap(text: str, said: str, anchor: str, *, length: int) -> str:
    """Repeats the last few characters, whatever was asked."""
    return text[max(0, len(said) - length) :]


def restart(text: str, said: str, anchor: str) -> str:
    """Gives the whole answer again."""
    return text


def restart_paragraph(text: str, said: str, anchor: str) -> str:
    """Begins the paragraph again."""
    return text[said.rfind("\n\n") + 2 if "\n\n" in said else 0 :]


def restart_sentence(text: str, said: str, anchor: str) -> str:
    """Begins the sentence again."""
    return text[max((end.end() for end in _SENTENCE_END.finditer(said)), default=0) :]


def restart_line(text: str, said: str, anchor: str) -> str:
    """Begins the line again."""
    return text[said.rfind("\n") + 1 :]


def fence(text: str, said: str, anchor: str) -> str:
    """Opens the code fence again that is still open, then carries on."""
    opened = _open_fence(said)
    if opened is None:
        return text[len(said) :]
    line = opened.group()
    return (line if line.endswith("\n") else line + "\n") + text[len(said) :]


def fence_restart(text: str, said: str, anchor: str) -> str:
    """Gives the whole code block again in which it was cut, fence and all."""
    opened = _open_fence(said)
    return text[len(said) if opened is None else opened.start() :]


def table_head(text: str, said: str, anchor: str) -> str:
    """Repeats the head of the table in which it was cut, then carries on."""
    head = _open_table_head(said)
    return head + text[len(said) :]


def table_head_row(text: str, said: str, anchor: str) -> str:
    """Repeats the head of the table in which it was cut, then begins the row again."""
    head = _open_table_head(said)
    return head + text[said.rfind("\n") + 1 if head else len(said) :]


def echo(text: str, said: str, anchor: str) -> str:
    """Gives back the prefix it was sent, white space at its end stripped, as Mistral does; then the rest."""
    return text


def polite_anchor(text: str, said: str, anchor: str) -> str:
    """A courtesy, in one of several languages, then the anchor and the rest."""
    return _one_of(COURTESIES, said) + anchor + text[len(said) :]


def polite_exact(text: str, said: str, anchor: str) -> str:
    """Says that it continues, then does."""
    return LEFT_OFF[0] + text[len(said) :]


def polite_exact_translated(text: str, said: str, anchor: str) -> str:
    """Says that it continues, in one of several languages, then does."""
    return _one_of(LEFT_OFF, said) + text[len(said) :]


def polite_overlap(text: str, said: str, anchor: str, *, length: int) -> str:
    """A courtesy, then the last few characters again."""
    return _one_of(COURTESIES, said) + text[max(0, len(said) - length) :]


def polite_restart(text: str, said: str, anchor: str) -> str:
    """A courtesy, then the whole answer again."""
    return _one_of(COURTESIES, said) + text


def polite_fence(text: str, said: str, anchor: str) -> str:
    """Inside a code fence: says that it continues, opens the fence again, carries on."""
    if _open_fence(said) is None:
        return text[len(said) :]
    return "Here is the rest of the code:\n\n" + fence(text, said, anchor)


def quoted_anchor(text: str, said: str, anchor: str) -> str:
    """The anchor in quotation marks of some kind, then the rest."""
    opening, closing = QUOTES[len(said) % len(QUOTES)]
    return opening + anchor + closing + text[len(said) :]


def anchor_stripped(text: str, said: str, anchor: str) -> str:
    """The anchor without the white space around it, then the rest."""
    return anchor.strip() + text[len(said) :]


def anchor_spaced(text: str, said: str, anchor: str) -> str:
    """A line break before the anchor, and single spaces for every white space in it; then the rest."""
    words = " ".join(anchor.split())
    return "\n" + words + anchor[len(anchor.rstrip()) :] + text[len(said) :]


def resent_space(text: str, said: str, anchor: str) -> str:
    """Sends the white space again that was stripped from a prefill, then the rest."""
    return text[len(said.rstrip()) :]


def near_restart(text: str, said: str, anchor: str) -> str:
    """Gives the whole answer again, but one character differs. No join can be exact; none may lose anything."""
    middle = len(said) // 2
    return text[:middle] + ("x" if text[middle : middle + 1] != "x" else "y") + text[middle + 1 :]


HABITS: dict[str, Habit] = {
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
}


def _one_of(phrases: tuple[str, ...], said: str) -> str:
    return phrases[len(said) % len(phrases)]


def _open_fence(said: str) -> re.Match[str] | None:
    """The line that opened the code fence in which `said` ends."""
    opened: re.Match[str] | None = None
    for line in _FENCE.finditer(said):
        if opened is None:
            opened = line
        elif line[1].startswith(opened[1]) and not line[2].strip():
            opened = None
    return opened if opened is not None and opened.group().endswith("\n") else None


def _open_table_head(said: str) -> str:
    """The head of the Markdown table in which `said` ends, with at least one row begun."""
    last = max(_TABLE_HEAD.finditer(said), key=re.Match.start, default=None)
    rows = said[last.end() :] if last else ""
    if last is None or not rows or not all(row.startswith("|") for row in rows.split("\n") if row):
        return ""
    return "" if "\n\n" in rows else last.group()
