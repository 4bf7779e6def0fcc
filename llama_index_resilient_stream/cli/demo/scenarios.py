"""What goes wrong in the demo: one question, one answer and one row of faults per scenario."""

from __future__ import annotations

from dataclasses import dataclass

from ...testing import FAULTS, WireFault


@dataclass(frozen=True)
class Scenario:
    """One question to two readers, whose servers break in the same way.

    `faults` are taken in turn, one per request; what comes after them is healthy. With `has_fallback` a second model
    stands ready as a fallback.
    """

    name: str
    title: str
    question: str
    answer: str
    faults: tuple[WireFault, ...]
    has_fallback: bool = False


def _behind(words: str, answer: str, fault: str) -> WireFault:
    """The fault, just behind these words of the answer."""
    return FAULTS[fault].at(answer.index(words) + len(words))


_MESSAGE = (
    "On 16 August 1858 Queen Victoria greeted President Buchanan over 2,000 miles of cable. Her 98 words took "
    "about sixteen hours to cross the ocean: every pulse arrived smeared into the next, and much had to be sent "
    "again. A letter by steamer took ten days. New York celebrated with fireworks, which set the roof of its City "
    "Hall on fire."
)

_FAILURE = (
    "The cable had been made in haste, and its copper core lay off centre in places. Wildman Whitehouse then worked "
    "it with induction coils of some 2,000 volts, where William Thomson had asked for weak currents and a mirror "
    "galvanometer to read them. The insulation gave way, and after some three weeks the cable was dead."
)

_VOYAGES = """\
Three voyages tell the story:

1. 1858: two ships join the ends in mid-ocean. It works for three weeks.
2. 1865: the cable parts 600 miles short of Newfoundland.
3. 1866: a new cable is landed, and the lost one is found.

```text
1858    0.1 words a minute
1866    8.0 words a minute
```

That is some eighty times as fast."""

_LOSS = (
    "The Great Eastern left Ireland in July 1865 with the whole cable in her tanks. Twice a fault was found by "
    "measuring along the wire, and twice the cable was hauled back and mended. On 2 August, during the third repair, "
    "it parted and sank in more than two miles of water. The crew hooked it several times, but each time the tackle "
    "broke before it reached the surface."
)

_RETURN = (
    "With the new cable of 1866 safely landed, the ship went back for the old one. She dragged her grapnels across "
    "the sea bed, and after some thirty attempts the cable of 1865 was lifted on board. A signal from Ireland "
    "answered. A new length was joined to the old end, and a week later there were two cables: one of them begun in "
    "one year, broken, and finished in the next."
)

SCENARIOS = (
    Scenario(
        "silent end",
        "The stream ends cleanly, but the model had not finished",
        "How long did the first transatlantic message take?",
        _MESSAGE,
        (_behind("took about six", _MESSAGE, "clean_eof"),),
    ),
    Scenario(
        "reset",
        "The connection is reset in mid-word",
        "Why did the cable of 1858 fail?",
        _FAILURE,
        (_behind("with induc", _FAILURE, "reset"),),
    ),
    Scenario(
        "stall",
        "The server falls silent inside a code block",
        "Which cable was laid when?",
        _VOYAGES,
        (_behind("1866    8", _VOYAGES, "stall"),),
    ),
    Scenario(
        "three faults",
        "An error event, a 503 at reconnect, and another reset",
        "How was the cable of 1865 lost?",
        _LOSS,
        (_behind("Twice a fault", _LOSS, "error_event_overloaded"), FAULTS["http_503"], FAULTS["reset"].at(150)),
    ),
    Scenario(
        "model down",
        "The model goes down for good; another one takes over",
        "How was it found again?",
        _RETURN,
        (_behind("after some thi", _RETURN, "reset"), *3 * (FAULTS["http_503"],)),
        has_fallback=True,
    ),
)
