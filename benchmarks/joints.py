"""Is this joint clean? A program's judgement of where a continuation was joined to a cut answer, for `real_models.py`.

It compares with the answer that the same model gave when nobody cut it. A continuation need not be that answer word by
word: it is clean where it follows for 16 characters, or else shows none of the faults listed here.
"""

from __future__ import annotations

import difflib
import re

_FOLLOWS = 16
_SCRIPTS_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")
_COURTESY = re.compile(
    r"\W*(sure|certainly|of course|i'm sorry|i am sorry|sorry|i apologi[sz]e|apologies|thank|here('s| is| are)\b|"
    r"(let me |i'll |i will )?continu(e|ing)\b|the (missing|rest|text|reply|answer|continuation)\b|"
    r"your (reply|answer|text)\b|"
    r"natürlich|entschuldig|gerne|bien sûr|désolé|voici|claro|lo siento|aquí|当然|抱歉|好的|以下)",
    re.IGNORECASE,
)


def faults_of(said: str, new: str, rest: str) -> list[str]:
    """Name what is wrong with a joint. An empty list: it is clean.

    Args:
        said: What the reader had at the cut.
        new: What was shown after it.
        rest: What the uncut answer has in its place.
    """
    if not new.strip():
        return ["nothing new"] if rest.strip() else []
    if _common(new, rest) >= min(_FOLLOWS, len(rest)):
        return []
    found = {
        "mark": has_marks(new) and not has_marks(said + rest),
        "courtesy": _COURTESY.match(new) and not _COURTESY.match(rest),
        "begun anew": _begins_anew(said, new, rest),
        "told again": _is_told_again(said, new, rest),
        "left out": _leaves_out(new, rest),
        "word broken": _breaks_a_word(said, new, rest),
        "glued": _is_glued(said, new, rest),
        "white space": _has_wrong_space(said, new, rest),
        "fence again": said.count("```") % 2 == 1 and re.match(r"\s*```\w", new) is not None,
    }
    return [name for name, is_so in found.items() if is_so]


def has_marks(text: str) -> bool:
    """Whether marks stand in it that a wording might have put around an anchor."""
    return "<<<" in text or ">>>" in text or "{anchor}" in text


def _common(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _flat(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()


def _enough(new: str) -> int:
    """How many characters are no chance: fewer where a character is a word, more where the sentence goes on.

    Small models say the same again by themselves: "... for its markets. The city is also known for ...".
    """
    fits = not new[:1].isalnum() and not new.startswith("\n")
    if _SCRIPTS_WITHOUT_SPACES.search(new[:20]):
        return 20 if fits else 8
    return 60 if fits else 20


def _begins_anew(said: str, new: str, rest: str) -> bool:
    """The beginning of the answer, perhaps in other words."""
    begin, again = _flat(said)[:60], _flat(new)[: min(60, len(_flat(said)))]
    if len(again) < 12:
        return False
    return difflib.SequenceMatcher(None, begin, again).ratio() > 0.7 and not _flat(rest).startswith(again[:12])


def _is_told_again(said: str, new: str, rest: str) -> bool:
    """What stands in the answer already, where the uncut one does not say it twice."""
    head = _flat(new)[: _enough(new)]
    if len(head) >= _enough(new):
        return head in _flat(said) and not _flat(rest).startswith(head)
    return len(head) >= 8 and _flat(said).endswith(head)


def _leaves_out(new: str, rest: str) -> bool:
    """What the uncut answer says later."""
    head = " ".join(new.split())[: _enough(new)]
    return len(head) >= _enough(new) and " ".join(rest.split()).find(head) > 3


def _breaks_a_word(said: str, new: str, rest: str) -> bool:
    """The cut was inside a word, and what came does not make it the word that it was to be."""
    if not (said[-1:].isalnum() and rest[:1].isalnum()) or _SCRIPTS_WITHOUT_SPACES.search(said[-1:] + rest[:1]):
        return False
    return _first_word(new) != _first_word(rest)


def _is_glued(said: str, new: str, rest: str) -> bool:
    """Two words without a space between them."""
    if _SCRIPTS_WITHOUT_SPACES.search(said[-1:] + new[:1]):
        return False
    between_words = said[-1:].isalnum() and not rest[:1].isalnum()
    after_a_mark = said[-1:] in tuple(".,;:!?") and rest[:1].isspace()
    return (between_words or after_a_mark) and new[:1].isalnum()


def _has_wrong_space(said: str, new: str, rest: str) -> bool:
    """A space, a blank line or an indentation twice, or an indentation lost."""
    if said[-1:].isspace() and new[:1].isspace() and not rest[:1].isspace():
        return True
    return said[-1:] == "\n" and rest[:1] in (" ", "\t") and not new[:1].isspace()


def _first_word(text: str) -> str:
    match = re.match(r"\w*", text)
    return match.group() if match else ""
