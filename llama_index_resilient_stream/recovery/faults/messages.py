"""What a provider said about an error, in a form that may be shown and logged.

The message of the error body says best what to do: "The model `x` does not exist". It may also repeat what was sent:
the key, a header, the prompt. So a word of it is shown only where it cannot come from there:

1. Of the body the message is taken, or else the exception's own text; of that the first line, `LONGEST` characters.
2. Values that are known to be secret, and whatever looks like a key, a token, a credential or the query of a URL, are
   left out.
3. A word that was also sent is left out, unless it is an ordinary word of error messages (`_ORDINARY`) or the name of
   the model. Ordinary words are left out as well where four of them stand in a row just as they were sent.

A message of which less than half is left is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .exceptions import bodies, chain

LONGEST = 200
"""Characters of a message that are shown."""

_LEFT_OUT = "…"
_MOST_LOOKED_AT = 4_000
_PRIVATE = 0xE000  # the first character of Unicode's private use area
_IN_A_ROW = 4
_SHORTEST = 3  # characters of a word that could give something away
_SHORTEST_PART = 4  # the same, of a word that is only a part of one that was sent
_SHORTEST_SECRET = 4  # "x" and "EMPTY" are what local servers get as a key; a longer one is left out wherever it stands

_SECRETS = (
    # A header or a setting with its value; the scheme of an Authorization header is no value.
    re.compile(
        r"""(?P<kept>(?:api[-_ ]?key|access[-_ ]?key|\bkey|\btoken|secret|passwor[dt]|passwd|authorization|cookie
            |credentials?)["']?(?:\s+provided)?\s*[:=]\s*["']?)(?:(?:bearer|basic|token)\s+)?[^\s"',;\ue000-\uf8ff]+""",
        re.IGNORECASE | re.VERBOSE,
    ),
    re.compile(r"(?P<kept>\b(?:bearer|basic)\s+)[^\s\"',;]{4,}", re.IGNORECASE),
    re.compile(r"(?P<kept>\b[a-z][a-z0-9+.-]*://)[^\s/@]*@", re.IGNORECASE),
    re.compile(r"(?P<kept>\b[a-z][a-z0-9+.-]*://[^\s?#\"'`<>]*)[?#][^\s\"'`<>]*", re.IGNORECASE),
    re.compile(r"(?P<kept>)\b(?:sk|pk|rk|gsk|xai|hf|ghp|pplx|nvapi|org|proj)[-_][\w*.-]{3,}", re.IGNORECASE),
    re.compile(r"(?P<kept>)\b(?:AIza|AKIA|ASIA|eyJ|ya29\.)[\w.*-]*"),
    re.compile(r"(?P<kept>)[\w.+-]+@[\w-]+\.[\w.-]+"),
)
_LOOKS_LIKE_A_KEY = re.compile(r"(?=[\w+=*-]*\d)(?=[\w+=*-]*[^\W\d_])[\w+=*-]{20,}")
_UNSPACED = "぀-ヿ㐀-鿿가-힯฀-๿"  # scripts without spaces between words: each letter is taken for one
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_BETWEEN_WORDS = re.compile(r"[\W_]+")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True, slots=True)
class Sent:
    """What went to the provider, and must not come back in a message."""

    texts: Collection[str] = ()
    """Messages, prompts, keywords: no word of them is shown, unless it is an ordinary one."""
    secrets: Collection[str] = ()
    """Keys and headers: never shown."""
    names: Collection[str] = ()
    """Names of models: shown whatever else they are."""


class Explanation(Protocol):
    """What only whoever knows the user's call can say about an error."""

    def message(self, error: BaseException | None, answer: str) -> str:
        """What the provider said, in one line that is safe to show. `answer` is the text so far."""

    def is_callers(self, error: BaseException | None) -> bool:
        """Whether it is the caller's own bug, raised before anybody was asked."""


class NoExplanation:
    """Where nobody knows what was sent, nothing of a provider's message is shown."""

    def message(self, error: BaseException | None, answer: str) -> str:
        return ""

    def is_callers(self, error: BaseException | None) -> bool:
        return False


def provider_message(error: BaseException | None, sent: Sent) -> str:
    """What the provider said, in one line that is safe to show; "" where nothing of it is."""
    if error is None:
        return ""
    try:
        return next((message for text in _texts(error) if (message := cleaned(text, sent))), "")
    except Exception:  # whatever an exception's properties do
        return ""


def _texts(error: BaseException) -> list[str]:
    links = chain(error)
    said = [
        node.get(name) for link in links for node in bodies(link) for name in ("message", "Message", "detail", "error")
    ]
    return [text for text in said if isinstance(text, str)] or [str(link) for link in links]


def cleaned(text: str, sent: Sent) -> str:
    """The first line of `text` without what was sent and what looks like a secret."""
    line = _first_line(text)
    for secret in sorted(sent.secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            line = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _LEFT_OUT, line)
    marks = {name: chr(_PRIVATE + n) for n, name in enumerate(sorted(filter(None, sent.names), key=len, reverse=True))}
    for name, mark in marks.items():  # a private character in their place is no word, and looks like no secret
        line = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", mark, line)
    line = _without_sent(_without_secrets(line), (*sent.texts, *sent.secrets))
    for name, mark in marks.items():
        line = line.replace(mark, name)
    return _cut(line, LONGEST) if _says_something(line) else ""


def _first_line(text: str) -> str:
    text = text[:_MOST_LOOKED_AT]
    text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text).replace("\\n", " ").replace('\\"', '"')
    line = next((line for line in text.splitlines() if line.strip()), "")
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in line).split())
    return _cut(line, 2 * LONGEST)  # a secret is not to be cut in two before it is looked for


def _cut(line: str, length: int) -> str:
    return line if len(line) <= length else line[:length].rsplit(" ", 1)[0].rstrip(_LEFT_OUT) + _LEFT_OUT


def _without_secrets(line: str) -> str:
    for pattern in _SECRETS:
        line = pattern.sub(_without_value, line)
    return _LOOKS_LIKE_A_KEY.sub(_LEFT_OUT, line)


def _without_value(match: re.Match[str]) -> str:
    value = match[0][len(match["kept"]) :]
    return match[0] if value.casefold() in _ORDINARY else match["kept"] + _LEFT_OUT


def _without_sent(line: str, texts: Iterable[str]) -> str:
    words = list(_WORD.finditer(line))
    hidden = _hidden([word[0].casefold() for word in words], _Haystack(texts))
    for word, hide in reversed(list(zip(words, hidden, strict=True))):
        if hide:
            line = line[: word.start()] + _LEFT_OUT + line[word.end() :]
    return re.sub(rf"{_LEFT_OUT}(?:[\s,.;:!?'_/-]*{_LEFT_OUT})+", _LEFT_OUT, line)


def _hidden(words: Sequence[str], sent: _Haystack) -> list[bool]:
    """Which of the words of a message are not shown."""
    hidden = [word not in _ORDINARY and sent.has_part(word) for word in words]
    for start in range(len(words)):
        for count in (2, _IN_A_ROW):
            row = words[start : start + count]
            if len(row) == count and (count == _IN_A_ROW or _is_unspaced(row)) and sent.has_row(row):
                hidden[start : start + count] = [True] * count
    _spread(hidden, words, sent)
    hidden.reverse()
    _spread(hidden, words[::-1], sent, backwards=True)
    hidden.reverse()
    return hidden


def _spread(hidden: list[bool], words: Sequence[str], sent: _Haystack, *, backwards: bool = False) -> None:
    """Hide a word beside a hidden one, where the two were sent like that."""
    for here in range(1, len(words)):
        if hidden[here - 1] and not hidden[here]:
            pair = words[here - 1 : here + 1]
            hidden[here] = sent.has_row(pair[::-1] if backwards else pair)


def _is_unspaced(row: Sequence[str]) -> bool:
    return all("\u0e00" <= word <= "\uffff" and len(word) == 1 for word in row)


class _Haystack:
    """All words that were sent, in their order."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._text = f" {_BETWEEN_WORDS.sub(' ', ' '.join(texts).casefold())} "
        self._known: dict[str, bool] = {}  # prompts may be long: each word is looked for once

    def has_part(self, word: str) -> bool:
        """Whether it was sent as a word, or a longer one as a part of a word."""
        return len(word) >= _SHORTEST and (self._has_word(word) or (len(word) >= _SHORTEST_PART and word in self._text))

    def has_row(self, words: Sequence[str]) -> bool:
        """Whether these words were sent in a row."""
        if _is_unspaced(words):
            return "".join(words) in self._text
        return all(map(self._has_word, words)) and f" {' '.join(words)} " in self._text

    def _has_word(self, word: str) -> bool:
        if word not in self._known:
            self._known[word] = f" {word} " in self._text
        return self._known[word]


def _says_something(line: str) -> bool:
    shown = len(_WORD.findall(line))
    return shown > 0 and shown >= line.count(_LEFT_OUT)


_ORDINARY_WORDS = """
    about above accept accepted access account accounts active add added additional address after again all allowed
    already also and another any api apis are argument arguments array assistant attempt attempts audio auth
    authentication authorization authorized availability available bad balance base batch be because been before being
    below billing blocked body both busy but bytes call called calls can cannot capacity cause caused change chars
    characters chat check choose client clients close closed code codes come comes complete completion completions
    configuration configure configured connect connected connecting connection contact contain contains content contents
    context correct could count create created credential credentials credit credits current currently data day days
    default denied deployment deployments deprecated details did different directly disabled documentation does done
    due during each either element empty enable enabled encoding end endpoint engine enough ensure enter environment
    error errors exactly exceed exceeded exceeds excluded exist existing exists expected expired external extra failed
    failure feature field fields file files filter filtered find finish first following follows for forbidden format
    found free from full function functions gateway generate generated generation get give given greater group has have
    header headers help here host hour hours how http https identifier image images implemented inactive include
    included incorrect individual info information input inputs insufficient integer internal into invalid is item
    items its json key keys know known large larger later least left len length less lesser limit limited limits list
    load loaded loading local long longer longest look made make management many match max maximum may media memory
    message messages method min minimum minute minutes missing mode model models modify modified more most multiple must
    name names near need needed needs network new next none not null number numbers object occurred of off on one only
    open operation option options or order organization other our out output over overloaded own page parameter
    parameters parse parsed passed passing path pay payload payment peer per performed permission permissions permitted
    plan platform please policies policy pool positive possible post preview previous problem process processing project
    prompt prompts properties property provide provided provider providers proxy pull purchase quota range rate reach
    reached read receive received recheck reduce refer refused region rejected remaining remove removed repeated replace
    report request requested requests require required requires resource resources respond response responses rest
    result resulted results resume retired retry retrying role roles running safety same schema second seconds see seem
    seems send sent server servers service services set setting settings settle shape shortly should shut since size
    slow small smaller some something specified specify start started state status still stop stopped store stream
    streaming string strings subscription support supported supports system team temperature temporarily temporary
    text than that the their them then there these they this those through thus tier time timed timeout times token
    tokens too tool tools top total traffic try trying two type types unable unauthorized unavailable under unexpected
    unique unknown unsupported until update upgrade upstream url usage use used user users uses using valid validate
    validation value values variable variables version versions via violate violated violation visit wait was way we
    went were what when where whether which while who why will with within without would write wrong yet you your
"""
_ORDINARY = frozenset(_ORDINARY_WORDS.split())
"""They give nothing away, whoever wrote them."""
