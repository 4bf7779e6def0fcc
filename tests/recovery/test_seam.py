"""What the reader sees is the text: whatever the cut, the chunks, and the habit of the model."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from llama_index_resilient_stream.recovery.continuation import Strategy, anchor_of
from llama_index_resilient_stream.recovery.seam import RestartJoin, Seam, marks_around_anchor
from llama_index_resilient_stream.recovery.seam.matcher import AROUND
from llama_index_resilient_stream.recovery.seam.measures import NEAR
from llama_index_resilient_stream.recovery.seam.overlap import MOST_BEGINNINGS, MOST_WORK, WINDOW, PartialText
from llama_index_resilient_stream.recovery.seam.thoughts import MARKS as THOUGHT_MARKS
from llama_index_resilient_stream.testing.continuation_styles import CONTINUATION_STYLES, find_anchor
from llama_index_resilient_stream.testing.stray_styles import STRAYING

PROSE = (
    "The harbour master kept two clocks. One of them was right, the other one was loud. Visitors set their watches by "
    "the loud one, and for that reason ferries left either early or not at all.\n\n"
    "In spring a committee came to look into it. They measured, they wrote things down, they had lunch. “Nothing can "
    "be done,” said the chairwoman, “before we know what time it is.” That was in April. Since then nobody has asked."
)
MARKDOWN = (
    "Both ways work; the second one is shorter:\n\n"
    "```python\ndef mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n```\n\n"
    "| Function | Time | Memory |\n|---|---:|---:|\n| loop | 1.9 ms | 8 kB |\n| numpy | 0.1 ms | 80 kB |\n\n"
    "- [x] measured on a laptop\n- [ ] measured on the server, which will take until Thursday\n"
)
SCRIPTS = (
    "河边的茶馆每天五点开门，老板娘先把水烧开，再去喂猫。客人们坐下以后，很少有人说话。\n\n"
    "يفتح المقهى أبوابه قبل شروق الشمس، ويجلس الصيادون قرب النافذة. لا أحد يتحدث عن البحر هناك أبدا.\n\n"
    "Family 👨‍👩‍👧‍👦 trip 🏴󠁧󠁢󠁷󠁬󠁳󠁿 to 🇫🇷🇮🇹, a\u0301 la carte 👩🏾‍🍳 and z\u0323\u0307al\u0334go 🧑🏻‍🚀, then home again 🏡."
)
JSON = '{"id": 17, "tags": ["red", "round"], "size": {"width": 12.5, "height": 3}, "owner": null, "next": "/items/18"}'
LITANY = "Row the boat, row the boat,\n" * 12 + "and row it home."

TEXTS = {"prose": PROSE, "markdown": MARKDOWN, "scripts": SCRIPTS, "json": JSON, "litany": LITANY}


def anchor_for(said: str, strategy: Strategy) -> str:
    return {"ask": anchor_of(said), "prefill": said[len(said.rstrip()) :]}.get(strategy, "")


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def shown(said: str, continuation: str, *, strategy: Strategy = "ask", size: int = 10**9) -> str:
    seam = Seam(said, anchor_for(said, strategy), strategy=strategy)
    return "".join(map(seam.feed, pieces(continuation, size))) + seam.finish(complete=True)


def is_kept(said: str, rest: str, *, size: int, strategy: Strategy = "ask") -> bool:
    """Whether nothing is taken away from what follows exactly: all of it is shown, or none, to be asked for again."""
    seam = Seam(said, anchor_for(said, strategy), strategy=strategy)
    result = "".join(map(seam.feed, pieces(rest, size))) + seam.finish(complete=True)
    return result == ("" if seam.refused else rest) or (strategy == "ask" and result == " " + rest)


def ids(table: list[tuple[str, ...]]) -> list[str]:
    return [f"{row[0]}-{row[1]}" for row in table]


# The promise: the anchor, or exactly what follows.


@pytest.mark.parametrize("size", [1, 3, 10**9])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_obeyed_at_every_cut(text: str, size: int) -> None:
    for cut in range(1, len(text)):
        said, rest = text[:cut], text[cut:]
        anchor = anchor_of(said)
        assert shown(said, anchor + rest, size=size) == rest
        if not rest.startswith(anchor):
            assert shown(said, rest, size=size) == rest


SMALL = st.text("ab. \n", min_size=1, max_size=120)
NOISY = st.text("Aab `\"'|-*:.<>…\n\t ", min_size=1, max_size=160)
WORDS = st.lists(st.sampled_from(["the ", "The ", "old man. ", "said:\n", "to me, ", "sea"]), min_size=1, max_size=60)
ANY = st.text(min_size=1, max_size=120) | SMALL | NOISY | WORDS.map("".join)
CHUNKS = st.integers(1, 9)


@given(said=ANY, rest=ANY, size=CHUNKS, length=st.integers(1, 90))
@example(said="aaaa" * 30, rest="a" * 50, size=1, length=40)
@example(said="ab" * 40, rest="ab" * 40, size=3, length=40)
@example(said="000000012345 ", rest="000000012345", size=1, length=1)
def test_an_exact_anchor_is_always_taken_at_its_word(said: str, rest: str, size: int, length: int) -> None:
    assume(not rest.startswith(">>>"))  # the mark that may close an anchor
    anchor = said[-length:]
    seam = Seam(said, anchor)
    result = "".join(map(seam.feed, pieces(anchor + rest, size))) + seam.finish(complete=True)
    assert result == rest
    assert (seam.decision, seam.dropped) == ("anchor", len(anchor))


def repeats_at_once(said: str, rest: str) -> bool:
    """The one exception: what follows says again, at once and in full, a good deal of what was said last."""
    said, rest = said.rstrip(), rest.lstrip()
    wide = any(unicodedata.east_asian_width(char) in "WF" for char in said)
    return any(rest.startswith(said[-length:]) for length in range(8 if wide else 15, len(said) + 1))


def begins_with_thought(rest: str) -> bool:
    """The other exception: a thought is none of the answer."""
    return rest.lstrip().startswith(tuple(opening for opening, _ in THOUGHT_MARKS))


@settings(max_examples=300)
@given(said=SMALL, rest=SMALL, size=CHUNKS)
@example(said="a" * 17, rest="a" * 16, size=1)
@example(said="a" * 37 + ".\nb", rest="." + "a" * 37 + ".\nb", size=1)
def test_nothing_is_deleted_where_few_characters_make_up_the_text(said: str, rest: str, size: int) -> None:
    assume(not rest.startswith(anchor_of(said)))
    assert shown(said, rest, size=size) == rest


@settings(max_examples=300)
@given(said=ANY, rest=ANY, size=CHUNKS)
def test_nothing_is_deleted_that_does_not_repeat(said: str, rest: str, size: int) -> None:
    assume(not rest.startswith(anchor_of(said)) and not repeats_at_once(said, rest))
    assume(rest.strip(AROUND) != anchor_of(said).strip(AROUND) and not begins_with_thought(rest))
    assert is_kept(said, rest, size=size)


@given(said=ANY, rest=ANY, size=CHUNKS, strategy=st.sampled_from(["prefill", "append"]))
def test_nothing_is_deleted_from_a_bare_continuation(said: str, rest: str, size: int, strategy: Strategy) -> None:
    anchor = anchor_for(said, strategy)
    assume(not (anchor and rest.startswith(anchor)) and not repeats_at_once(said, rest))
    assume(not begins_with_thought(rest))
    assert is_kept(said, rest, size=size, strategy=strategy)


TELLING = [
    ("twice, after a comma", "She said that she would come, ", "that she would not come."),
    ("doubled name", "We went on. Bora ", "Bora is an island."),
    ("doubled syllable", "We saw it. The bar", "barian was asleep."),
    ("title", "## What to do next\n\n", "Continuing the work:\n\n- rest\n"),
    ("courteous character", 'He poured the tea and said: "', 'Sure! Here is the rest of the cake." She laughed.'),
    ("closing fence", "```python\nprint(1)\n", "```\n\nThat is all."),
    ("other fence", "Two files.\n\n```python\nprint(1)\n```\n\n", "```python\nprint(2)\n```\n"),
    ("equal cells", "| name | state |\n|---|---|\n| community ", "| community |\n"),
    ("periodic", "The song goes la la la la la la la la ", "la la la la la la la la la, and so on."),
    ("ruler", "Title\n-----------------------------", "-----------------------------\n"),
    ("zeros", "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ", "0, 0, 0, 0, 0, 0, 0, 0, 1"),
    ("brackets", "x = [[[[[[[[[[[[[[[[[", "[[[[[[[[[[[[[[[[[]]]]"),
    ("same line again", "I must not talk in class.\n" * 3, "I must not talk in class.\n" * 4 + "Done."),
    ("fences of little else", "```00\n", "```00\n"),
    ("CJK pair", "他站起来。研究", "研究就知道了。"),
]


@pytest.mark.parametrize("strategy", ["prefill", "append"])
def test_a_model_that_goes_on_in_one_text_opens_nothing_again(strategy: Strategy) -> None:
    for said, rest in (
        ("```F0\n000000000000ABCDE", "```F0\n"),
        ("| a | b |\n|---|---|\n| see above ", "| a | b |\n|---|---|\n"),
    ):
        assert shown(said, rest, strategy=strategy, size=1) == rest


@pytest.mark.parametrize(("said", "rest"), [row[1:] for row in TELLING], ids=[row[0] for row in TELLING])
def test_text_that_only_looks_repeated_is_kept(said: str, rest: str) -> None:
    assert shown(said, rest, strategy="append", size=1) == rest
    if not rest.startswith(anchor_of(said)):
        assert shown(said, rest, size=1) == rest


# Habits.

EXACT_IN_PROSE = [
    *("overlap16", "overlap40", "overlap64", "restart", "restart_paragraph", "echo", "resent_space"),
    *("polite_anchor", "polite_exact", "polite_overlap40", "polite_restart", "quoted_anchor", "anchor_spaced"),
]


def continue_in(habit: str, text: str, cut: int) -> tuple[str, str]:
    said = text[:cut]
    strategy: Strategy = "prefill" if habit in ("echo", "resent_space") else "ask"
    continuation = CONTINUATION_STYLES[habit](text, said, anchor_for(said, strategy))
    return said, shown(said, continuation, strategy=strategy, size=1)


@pytest.mark.parametrize("habit", EXACT_IN_PROSE)
@pytest.mark.parametrize("cut", [60, 83, 117, 200, 240, 298, 380, 405])
def test_habits_in_prose(habit: str, cut: int) -> None:
    said, result = continue_in(habit, PROSE, cut)
    assert said + result == PROSE


JOINS = [
    ("sentence", "restart_sentence", PROSE, "the other one was"),
    ("short sentence", "restart_sentence", PROSE, "In spring a committee came to look into it. The"),
    ("fence", "fence", MARKDOWN, "for value in"),
    ("fence at a line's end", "fence", MARKDOWN, "    total = 0.0\n"),
    ("code block", "fence_restart", MARKDOWN, "for value in"),
    ("announced fence", "polite_fence", MARKDOWN, "total +="),
    ("table head", "table_head", MARKDOWN, "| loop | 1.9"),
    ("table head and row", "table_head_row", MARKDOWN, "| loop | 1.9 ms"),
    ("indented line", "restart_line", MARKDOWN, "        total +="),
    ("list item", "restart_line", MARKDOWN, "- [ ] measured on the s"),
    ("inside a family", "overlap16", SCRIPTS, "Family 👨‍👩‍"),
    ("inside a flag", "overlap40", SCRIPTS, "🇫🇷🇮"),
    ("before an accent", "quoted_anchor", SCRIPTS, ", a"),
    ("before a skin tone", "anchor_spaced", SCRIPTS, "carte 👩"),
    ("Chinese sentence", "restart_sentence", SCRIPTS, "客人们坐下"),
    ("Arabic sentence", "restart_sentence", SCRIPTS, "لا أحد يت"),
    ("JSON", "overlap40", JSON, '"width": 12'),
    ("JSON again", "restart", JSON, '"owner": nu'),
]


@pytest.mark.parametrize("size", [1, 4, 10**9])
@pytest.mark.parametrize(("habit", "text", "until"), [row[1:] for row in JOINS], ids=[row[0] for row in JOINS])
def test_joins(habit: str, text: str, until: str, size: int) -> None:
    cut = text.index(until) + len(until)
    said = text[:cut]
    continuation = CONTINUATION_STYLES[habit](text, said, anchor_of(said))
    assert continuation != text[cut:]
    assert said + shown(said, continuation, size=size) == text


DECISIONS = [
    ("anchor", "anchor", 200),
    ("as_is", "exact", 200),
    ("answer", "restart", 200),
    ("paragraph", "restart_paragraph", 300),
    ("sentence", "restart_sentence", 178),
    ("overlap", "overlap64", 178),
    ("anchor", "polite_anchor", 200),
    ("announcement", "polite_exact", 200),
    ("answer", "polite_restart", 200),
]


@pytest.mark.parametrize(("decision", "habit", "cut"), DECISIONS, ids=ids(DECISIONS))
def test_decisions(decision: str, habit: str, cut: int) -> None:
    said = PROSE[:cut]
    continuation = CONTINUATION_STYLES[habit](PROSE, said, anchor_of(said))
    seam = Seam(said, anchor_of(said))
    result = seam.feed(continuation)
    assert (seam.settled, seam.decision, said + result) == (True, decision, PROSE)
    assert seam.dropped == len(continuation) - len(result)


def test_a_prefix_sent_back_is_an_echo() -> None:
    seam = Seam(PROSE[:90], "", strategy="append")
    assert (seam.feed(PROSE), seam.decision) == (PROSE[90:], "echo")


MARKS = ['"{}"', "“{}”", "«{}»", "`{}`", "<<<{}>>>", "…{}", "...{}", "\n\n{}", "**{}**", "> {}", '"{}', "「{}」"]


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize("cut", [90, 200, 203])
def test_an_anchor_between_marks(marks: str, cut: int) -> None:
    said, rest = PROSE[:cut], PROSE[cut:]
    assert shown(said, marks.format(anchor_of(said)) + rest, size=1) == rest


ANNOUNCEMENTS = [
    "Continuing:\n\n",
    "Here is the rest:\n\n",
    "Sure! Here's the continuation of my previous response:\n\n",
    "I apologize for the interruption. Let me continue:\n",
    "Certainly! I'll pick up where I left off: ",
    "**Continuing from where I left off:**\n\n",
    "Natürlich, hier ist der Rest:\n\n",
    "Bien sûr, voici la suite :\n\n",
    "Конечно, продолжаю:\n\n",
    "好的，以下是剩余部分：",
    "もちろんです。続きはこちらです：\n\n",
]


@pytest.mark.parametrize("announcement", ANNOUNCEMENTS)
def test_an_announcement_is_not_part_of_the_answer(announcement: str) -> None:
    said, rest = PROSE[:203], PROSE[203:]
    assert shown(said, announcement + rest, size=1) == rest
    assert shown(said, announcement + anchor_of(said) + rest, size=1) == rest


def test_white_space_behind_the_anchor_is_not_shown_twice() -> None:
    said = "It was a long way from there to the next village.\n\n"
    assert shown(said, said.strip() + "\n\nThey walked.") == "They walked."
    assert shown(said, said.strip() + "\nThey walked.") == "They walked."
    assert shown(said, '"' + anchor_of(said).strip() + '"\n\nThey walked.') == "They walked."


DRIFTS = [
    ("another word", "ask", PROSE[:250], PROSE[:180] + " but not this time, and so it takes another turn."),
    ("another word", "prefill", PROSE[:250], PROSE[:180] + " but not this time, and so it takes another turn."),
    ("behind a courtesy", "ask", PROSE[:250], "Sure! " + PROSE[:40] + "is out of order."),
    ("behind line breaks", "ask", PROSE[:250], "\n\n" + PROSE[:40] + "is out of order."),
    ("ends within it", "ask", PROSE[:250], PROSE[:36]),
    ("ends within it", "prefill", PROSE[:250], PROSE[:36]),
    ("a short one", "prefill", "The keeper of", "The keeper of the lighthouse is Ada."),
]


@pytest.mark.parametrize("shows_unverified", [True, False])
@pytest.mark.parametrize(("strategy", "said", "continuation"), [row[1:] for row in DRIFTS], ids=ids(DRIFTS))
def test_a_new_beginning_is_never_shown(
    strategy: Strategy, said: str, continuation: str, shows_unverified: bool
) -> None:
    for size in (1, 7, 10**9):
        seam = Seam(said, anchor_for(said, strategy), strategy=strategy, shows_unverified=shows_unverified)
        assert "".join(map(seam.feed, pieces(continuation, size))) + seam.finish(complete=True) == ""
        assert (seam.settled, seam.refused, seam.certainty) == (True, True, "unverified")
        assert seam.dropped == len(continuation)
        assert seam.feed("more") == ""


def test_a_refrain_is_no_new_beginning() -> None:
    refrain = "Row the boat, row the boat, all along the stream,\n"
    said = refrain + "and further.\n" + refrain + "and back.\n"
    assert shown(said, refrain[:-2] + " that carries us home.\n", size=1).endswith("home.\n")


CERTAINTIES = [
    ("verified", "ask", "anchor", {}),
    ("verified", "ask", "quoted_anchor", {}),
    ("verified", "ask", "polite_anchor", {}),
    ("aligned", "ask", "restart", {}),
    ("aligned", "ask", "restart_sentence", {}),
    ("aligned", "ask", "overlap64", {}),
    ("unverified", "ask", "exact", {}),
    ("unverified", "ask", "polite_exact", {}),
    ("aligned", "prefill", "exact", {}),
    ("verified", "prefill", "exact", {"writes_on": True}),
    ("verified", "append", "exact", {}),
]


@pytest.mark.parametrize("size", [1, 10**9])
@pytest.mark.parametrize(
    ("certainty", "strategy", "habit", "options"), CERTAINTIES, ids=["-".join(row[:3]) for row in CERTAINTIES]
)
def test_how_sure_a_join_is(
    certainty: str, strategy: Strategy, habit: str, options: dict[str, bool], size: int
) -> None:
    said, rest = PROSE[:178], PROSE[178:]
    continuation = CONTINUATION_STYLES[habit](PROSE, said, anchor_of(said))
    for shows_unverified in (True, False):
        seam = Seam(said, anchor_for(said, strategy), strategy=strategy, shows_unverified=shows_unverified, **options)
        result = "".join(map(seam.feed, pieces(continuation, size))) + seam.finish(complete=True)
        refused = certainty == "unverified" and not shows_unverified
        assert (seam.certainty, seam.refused, result) == (certainty, refused, "" if refused else rest)
        assert seam.dropped == len(continuation) - len(result)


def test_where_nothing_came_nothing_is_sure_or_refused() -> None:
    seam = Seam(PROSE[:90], anchor_of(PROSE[:90]), shows_unverified=False)
    assert seam.finish(complete=True) == ""
    assert (seam.certainty, seam.refused) == (None, False)


GLUED = [
    ("capital", "The keeper of the l", "Ada Morn.", " Ada Morn."),
    ("capital behind a digit", "at a distance of about 93", "The sun is blue.", " The sun is blue."),
    ("list number", "and harvest the ri", "8. Water them.", " 8. Water them."),
    ("a word that goes on", "The keeper of the l", "ighthouse.", "ighthouse."),
    ("camel case", "Use readLine or read", "All here.", "All here."),
    ("unit", "about 8 k", "B of memory.", "B of memory."),
    ("generation", "a modem for 5", "G networks.", "G networks."),
    ("space", "The keeper of the ", "Ada Morn.", "Ada Morn."),
    ("decimal", "pi is 3", ".14.", ".14."),
]


@pytest.mark.parametrize(("said", "continuation", "result"), [row[1:] for row in GLUED], ids=[row[0] for row in GLUED])
def test_two_words_are_never_glued(said: str, continuation: str, result: str) -> None:
    for size in (1, 10**9):
        assert shown(said, continuation, size=size) == result
        seam = Seam(said, strategy=Strategy.PREFILL)
        assert "".join(map(seam.feed, pieces(continuation, size))) + seam.finish(complete=True) == continuation
        assert seam.certainty == ("aligned" if result == continuation else "unverified")


MARKED = [
    ("closing mark alone", "{anchor}>>>{rest}"),
    ("closing mark behind the whole answer", "{said}>>>{rest}"),
    ("opening mark, shortened anchor", "<<<{end}{rest}"),
    ("both marks, shortened anchor", "<<<{end}>>>{rest}"),
    ("marks around everything", "<<<{anchor}{rest}>>>"),
    ("marks around everything, line break", "<<<{anchor}{rest}>>>\n"),
    ("marks around a shortened anchor and everything", "<<<{end}{rest}>>>"),
    ("shortened anchor without marks", "{end}{rest}"),
]


@pytest.mark.parametrize("marks", [("", ""), ("<<<", ">>>"), ("[[", "]]"), ("###", "###")], ids="".join)
@pytest.mark.parametrize("shape", [row[1] for row in MARKED], ids=[row[0] for row in MARKED])
def test_marks_around_the_anchor_never_reach_a_reader(shape: str, marks: tuple[str, str]) -> None:
    cut = PROSE.index(" not at all")
    said, rest = PROSE[:cut], PROSE[cut:]
    anchor = anchor_of(said)
    if marks[0]:
        shape = shape.replace("<<<", marks[0]).replace(">>>", marks[1])
    continuation = shape.format(anchor=anchor, said=said, end=anchor.split(" ", 2)[2], rest=rest)
    for size in (1, 4, 10**9):
        seam = Seam(said, anchor, marks=marks, shows_unverified=False)
        result = "".join(map(seam.feed, pieces(continuation, size))) + seam.finish(complete=True)
        assert (result, seam.settled, seam.refused) == (rest, True, False)
        assert seam.dropped == len(continuation) - len(rest)


def test_an_anchor_and_its_marks_add_nothing() -> None:
    anchor = anchor_of(PROSE[:178])
    for continuation in (anchor + ">>>", f"<<<{anchor}>>>"):
        assert shown(PROSE[:178], continuation, size=1) == ""


@pytest.mark.parametrize(
    ("said", "rest"),
    [
        ("Start Python in a terminal and then type at its prompt:\n", ">>> print(1)\n"),
        ("In this language the unsigned shift to the right is written x", ">>>1 or so."),
        ("The prompt >>> is shown. It is the prompt that ends with", ">>> and not another one."),
    ],
    ids=["prompt", "operator", "known to the text"],
)
def test_a_mark_that_is_text_is_kept_behind_the_anchor(said: str, rest: str) -> None:
    for size in (1, 10**9):
        assert shown(said, anchor_of(said) + rest, size=size) == rest


def test_a_cut_where_a_mark_may_come_loses_nothing() -> None:
    said = PROSE[:178]
    seam = Seam(said, anchor_of(said))
    assert seam.feed(f"<<<{anchor_of(said)} not until >>") + seam.finish(complete=False) == " not until "
    assert seam.leftover == ">>"


@pytest.mark.parametrize(
    ("wording", "marks"),
    [
        ("Go on: <<<{anchor}>>>", ("<<<", ">>>")),
        ("Copy [[{anchor}]], please.", ("[[", "]]")),
        ("Copy this:\n\n{anchor}", ("", "")),
        ("Copy {anchor}.", ("", "")),
        ("Go on.", ("", "")),
    ],
)
def test_the_marks_of_a_wording(wording: str, marks: tuple[str, str]) -> None:
    assert marks_around_anchor(wording) == marks


def test_no_habit_loses_anything_that_was_not_shown() -> None:
    for habit in sorted(CONTINUATION_STYLES):
        for cut in range(41, len(PROSE), 7):
            _, result = continue_in(habit, PROSE, cut)
            if habit not in ("anchor_stripped", "near_restart", *STRAYING):
                # The anchor lacks the white space which the rest begins with; a drift is asked for again.
                assert result.endswith(PROSE[cut:]), (habit, cut)


# Chunks, limits and ends.


@given(
    text=st.sampled_from(list(TEXTS.values())),
    habit=st.sampled_from(sorted(CONTINUATION_STYLES)),
    where=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_chunks_do_not_matter(text: str, habit: str, where: float, seed: int) -> None:
    said = text[: max(1, int(where * len(text)))]
    continuation = CONTINUATION_STYLES[habit](text, said, anchor_of(said))
    sizes, at, chunks = random.Random(seed), 0, []
    while at < len(continuation):
        chunks.append(continuation[at : at + sizes.choice([1, 1, 2, 5, 40])])
        at += len(chunks[-1])
    seam, whole = Seam(said, anchor_of(said)), Seam(said, anchor_of(said))
    result = "".join(map(seam.feed, chunks)) + seam.finish(complete=True)
    assert result == whole.feed(continuation) + whole.finish(complete=True)
    assert (seam.decision, seam.dropped, seam.most_held) == (whole.decision, whole.dropped, whole.most_held)


AGAIN = st.sampled_from(["anchor", "exact", "restart", "overlap40", "overlap64", "quoted_anchor", "polite_anchor"])


@settings(max_examples=200)
@given(first=AGAIN, second=AGAIN, cut=st.integers(60, 380), then=st.integers(0, 420), size=CHUNKS)
def test_cut_again_and_again(first: str, second: str, cut: int, then: int, size: int) -> None:
    said = PROSE[:cut]
    seam = Seam(said, anchor_of(said))
    continuation = CONTINUATION_STYLES[first](PROSE, said, anchor_of(said))[:then]
    said += "".join(map(seam.feed, pieces(continuation, size))) + seam.finish(complete=False)
    assert PROSE.startswith(said)
    assert said + shown(said, CONTINUATION_STYLES[second](PROSE, said, anchor_of(said)), size=size) == PROSE


CUT_SHORT = [
    ("nothing", "", "", ""),
    ("some of the anchor", PROSE[130:150], "", ""),
    ("new text", " zebras everywhere", " zebras everywhere", ""),
    ("may be either", "was", "", "was"),
    ("courtesy", "Sure! Here", "", "Sure! Here"),
]


@pytest.mark.parametrize(
    ("continuation", "given_out", "leftover"), [row[1:] for row in CUT_SHORT], ids=[row[0] for row in CUT_SHORT]
)
def test_a_cut_continuation(continuation: str, given_out: str, leftover: str) -> None:
    seam = Seam(PROSE[:175], PROSE[130:175])
    assert seam.feed(continuation) + seam.finish(complete=False) == given_out
    assert seam.leftover == leftover


def test_a_continuation_that_ends_within_the_anchor_was_the_rest() -> None:
    seam = Seam(PROSE[:175], PROSE[130:175])
    assert seam.feed(PROSE[130:150]) + seam.finish(complete=True) == PROSE[130:150]


def test_no_more_than_max_held_characters_is_held_back() -> None:
    text = "Certainly, " + "well and indeed " * 20
    seam = Seam(PROSE[:96], anchor_of(PROSE[:96]), max_held_characters=30)
    results = [seam.feed(char) for char in text]
    assert "".join(results) == text
    assert seam.most_held == 30


def test_nothing_is_held_back_for_long() -> None:
    ticks = count()
    seam = Seam(PROSE[:96], anchor_of(PROSE[:96]), max_held_seconds=3, clock=lambda: float(next(ticks)))
    assert "".join(map(seam.feed, "Certainly, ")) == "Certainly, "
    assert seam.settled


def test_neither_limit_applies_to_what_was_shown_already() -> None:
    said = PROSE + "\n\n" + MARKDOWN
    ticks = count()
    seam = Seam(said, anchor_of(said), max_held_characters=20, max_held_seconds=20, clock=lambda: float(next(ticks)))
    assert "".join(map(seam.feed, said + "New.")) == "New."


def test_an_exact_continuation_is_released_at_once() -> None:
    said = PROSE[:100]
    for cut in range(41, len(PROSE)):
        said = PROSE[:cut]
        seam = Seam(said, anchor_of(said))
        "".join(map(seam.feed, PROSE[cut:]))
        assert seam.most_held < 16


def test_very_long_answers_are_followed() -> None:
    words = random.Random(5)
    said = " ".join("".join(words.choices("etaoinshrdlu", k=words.randint(2, 9))) for _ in range(30_000))
    assert shown(said, said + " and so on", size=3) == " and so on"
    assert shown(said, "Sure! " + anchor_of(said) + " and so on", size=1) == " and so on"
    assert shown("same line of text again\n" * 8_000 + "end", "zebra", size=1) == "zebra"


def test_seam_without_earlier_text_passes_everything() -> None:
    seam = Seam("", "")
    assert seam.settled
    assert seam.feed("Hello") + seam.finish(complete=True) == "Hello"


# Work: a join must not hold up an event loop, whatever the text. Characters compared are counted, not seconds.

LONG = {
    "line breaks": "Some text.\n" + "\n" * 200_000,
    "line breaks, then a word": "Some text.\n" + "\n" * 200_000 + "end",
    "line breaks and tabs": "\t\n" * 100_000 + "a",
    "wide full stops": "。" * 200_000 + "河边",
    "dots": ". " * 100_000,
    "spaces": "x" + " " * 200_000 + "x",
    "one line": "I must not talk in class.\n" * 8_000,
    "one line, cut": "I must not talk in class.\n" * 8_000 + "I must",
    "fences": "```python\nx\n```\n" * 12_000 + "```python\nprint(1)\n",
    "table": "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 20_000,
}


@pytest.mark.parametrize("begins", ["end", "beginning", "preamble"])
@pytest.mark.parametrize("said", LONG.values(), ids=LONG)
def test_the_work_of_a_join_is_bounded(said: str, begins: str) -> None:
    partial = PartialText(said)
    repeat = {"end": said[-60:], "beginning": said[:300], "preamble": "Sure! " + "\n" * 20 + said[-60:]}[begins]
    for at in range(min(len(repeat), 20)):
        positions = partial.positions_of(repeat[at])
        assert len(positions) <= MOST_BEGINNINGS + NEAR
        partial.sift(positions)
    assert partial.work.done <= MOST_WORK
    assert len(partial._beginnings) <= 2 * (2 * WINDOW) + 1
    seam = Seam(said, anchor_of(said))
    result = "".join(map(seam.feed, pieces(repeat + " and the rest", 7))) + seam.finish(complete=True)
    assert seam.refused or result.endswith(" and the rest")


def test_without_work_left_nothing_is_deleted() -> None:
    said = "One good turn deserves another, they say. " * 3 + "And then it rained for a day"
    partial = PartialText(said)
    position = said.index("And then")
    assert partial.is_proof(position)
    partial = PartialText(said)
    partial.work.take(MOST_WORK)
    assert not partial.is_proof(position)


def test_ordinary_text_of_any_length_needs_no_work() -> None:
    words = random.Random(7)
    said = " ".join(
        "".join(words.choices("etaoinshrdlu", k=words.randint(2, 9))) + "." * (n % 9 == 0) for n in range(30_000)
    )
    partial = PartialText(said)
    partial.sift(partial.positions_of(said[0]))
    assert partial.is_proof(0)
    assert partial.work.done < 10 * len(said)


# The white space of a prefill.

PREFILLS = [
    ("sent again", "One, two, ", " three", "three"),
    ("not sent again", "One, two, ", "three", "three"),
    ("line break sent again", "One,\n\n", "\n\ntwo", "two"),
    ("indentation sent again", "if one:\n    ", "\n    two()", "two()"),
    ("more than was said", "if one:\n    ", "\n        two()", "    two()"),
    ("a different one", "One, two,\n", " three", " three"),
    ("nothing at the end", "One, two", " three", " three"),
]


@pytest.mark.parametrize(("said", "continuation", "rest"), [row[1:] for row in PREFILLS], ids=ids(PREFILLS))
def test_white_space_of_a_prefill(said: str, continuation: str, rest: str) -> None:
    for size in (1, 100):
        assert shown(said, continuation, strategy="prefill", size=size) == rest


# The helper for fake models.


@given(said=ANY, length=st.integers(1, 80))
def test_find_anchor(said: str, length: int) -> None:
    anchor = said[-length:]
    found = find_anchor(said, f"Please go on behind <<<{anchor}>>>.")
    assert found.endswith(anchor)
    assert said.endswith(found)


def test_find_anchor_takes_no_line_break_of_the_wording() -> None:
    wording = "Start by copying this text exactly:\n\n{}"
    assert find_anchor("\n" + "0" * 40, wording.format("0" * 40)) == "0" * 40
    assert find_anchor("\n" + "0" * 30, wording.format("\n" + "0" * 30)) == "\n" + "0" * 30


def test_find_anchor_without_one() -> None:
    assert find_anchor("abc", "Go on, please.") == ""
    assert find_anchor("", "Go on, please.") == ""


# Nothing true is deleted. What looks like a courtesy, an anchor or a repeat may be how the text goes on.

CODE = (
    "void setup() {\n"
    + "  digitalWrite(LED, HIGH);\n  delay(500);\n  digitalWrite(LED, LOW);\n  delay(500);\n" * 4
    + "}\n"
)
VALVES = "Is valve 1 of pump 1 shut?\nA: "
DOCSTRING = 'Help:\n\n```python\ndef mean(values):\n    """Give the mean of the values.\n\n'
HEAD = "| Item | Price |\n|---|---|\n"
TRUE_TEXT = [
    (
        "announcement",
        "Prices of last year hold. ",
        "Continuing from where we left off last year: tea costs 2, bread 3.",
    ),
    ("announcement in a list", "Rules:\n- ", "Continuing from where I left off:\n- Goodbye."),
    ("transcript", "Write it like this\n\n", "Sure, continuing from where I left off:\n\nDrain the tank first."),
    ("quoted transcript", 'She wrote: "', 'Sure, continuing from where I left off:\n\nDrain the tank."'),
    ("list of phrases", "- Of course, ", "I'll continue where I left off:\n- Goodbye."),
    ("yes/no list", VALVES, "Yes, it is shut.\n" + VALVES + "Yes, it is shut.\nEnd."),
    ("yes/no list, no", VALVES, "No problem.\n" + VALVES + "Yes.\nEnd."),
    ("yes/no list, the rest", VALVES, "Yes, the rest is shut.\n" + VALVES + "Yes.\nEnd."),
    ("questions", "Is valve 1 of pump 1 shut?\n", "Yes.\nIs valve 1 of pump 1 shut?\nYes.\nEnd."),
    ("camel case", CODE[:65], CODE[65:]),
    ("first camel case", "Now use the digital", "Write function.\nNow use the digital Write function.\nEnd."),
    ("nested fence", DOCSTRING, '```python\nmean([1, 2])\n```\n"""\n```\n'),
    ("fence in a comment", "```js\n/* Like this:\n", "```js\nmean([1, 2])\n```\n*/\n```\n"),
    ("fence in a document", "```markdown\n# How to do it with numbers\n", "```markdown\n# Nested\n```\n```\n"),
    ("table head on every page", HEAD + "| tea | 2 |\n", HEAD + "| jam | 4 |\n"),
    ("line twice", "Cold is the road.\nCarry the lantern over.\n", "Carry the lantern over.\nNobody follows.\n"),
    ("two lines twice", "Two.\nQ: Is it closed?\nA: It is locked.\n", "Q: Is it closed?\nA: It is locked.\nEnd."),
]


@pytest.mark.parametrize(("said", "rest"), [row[1:] for row in TRUE_TEXT], ids=[row[0] for row in TRUE_TEXT])
def test_true_text_is_shown_whole_or_asked_for_again(said: str, rest: str) -> None:
    for size in (1, 10**9):
        assert is_kept(said, rest, size=size)
        seam = Seam(said, anchor_of(said), shows_unverified=False)
        assert "".join(map(seam.feed, pieces(rest, size))) + seam.finish(complete=True) == ""
        assert seam.refused


def test_an_anchor_behind_a_line_break_in_repetitive_code() -> None:
    for cut in range(60, len(CODE) - 10):
        said, rest = CODE[:cut], CODE[cut:]
        result = shown(said, "\n" + anchor_of(said) + rest)
        assert result.endswith(rest) or result == rest, cut


# What adds nothing, or begins the answer anew.

TIRES = "1. **Check it**: use a tire with a different design, or a flat tire with a different size.\n\n2. **Remove the"
CITY = "El perro es muy rápido y capaz de descansar en el agua.\n\nJacky se encuentra en una ciudad muy"
SAID_BEFORE = [
    ("copied from before", TIRES, "tire with a different design, or a flat tire with a different size."),
    ("copied from before, Spanish", CITY, "muy rápido y capaz de descansar en el agua."),
    ("between quotation marks", TIRES, '"tire with a different design, or a flat"'),
    ("a short anchor between marks", "2. Choose a", "<<<2. Choose a>>>"),
    ("a short anchor in backticks", "2. Choose a", "`2. Choose a`"),
]


@pytest.mark.parametrize(
    ("said", "continuation"), [row[1:] for row in SAID_BEFORE], ids=[row[0] for row in SAID_BEFORE]
)
def test_what_stands_wholly_in_the_text_adds_nothing(said: str, continuation: str) -> None:
    for shows_unverified in (True, False):
        for size in (1, 10**9):
            seam = Seam(said, anchor_of(said), shows_unverified=shows_unverified)
            assert "".join(map(seam.feed, pieces(continuation, size))) + seam.finish(complete=True) == ""
            assert (seam.refused, seam.certainty, seam.dropped) == (False, None, len(continuation))


def test_a_copied_phrase_is_not_glued_to_the_last_word() -> None:
    for size in (1, 10**9):
        assert shown(TIRES, "tire with a different colour.", size=size) == " tire with a different colour."


@pytest.mark.parametrize("strategy", [Strategy.ASK, Strategy.PREFILL, Strategy.APPEND])
def test_no_space_breaks_a_word_where_no_anchor_was_asked_for(strategy: Strategy) -> None:
    seam = Seam("It runs on a Mac", "", strategy=strategy)
    assert seam.feed("Book and nothing else.") + seam.finish(complete=True) == "Book and nothing else."


KEEPS = "The lighthouse keeps ships away from rocks by using a system of pulleys. "
ANEW_LATER = [
    ("a beginning that is said again", KEEPS + "It is old. " + KEEPS + "The pulley", "", KEEPS[:60] + "levers."),
    ("behind a space", KEEPS + "It is old. " + KEEPS + "The pulley", " ", KEEPS[:60] + "levers."),
    ("glued, and short", "Three colours are red", "", "Three colours of it."),
]


@pytest.mark.parametrize(
    ("said", "space", "again"), [row[1:] for row in ANEW_LATER], ids=[row[0] for row in ANEW_LATER]
)
def test_a_beginning_within_a_sentence_is_never_shown(said: str, space: str, again: str) -> None:
    for size in (1, 10**9):
        seam = Seam(said, anchor_of(said))
        assert "".join(map(seam.feed, pieces(space + again, size))) + seam.finish(complete=True) == ""
        assert seam.refused


LEADS = [
    "Here is the complete text:\n\n",
    "Sure! Here is the full answer:\n",
    "The complete answer:\n\n",
    "Full text: ",
]
ITEMS = "1. Water\n2. Sunscreen\n3. Rope for the tent\n"


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("gap", [" ", "\n", "\n\n"], ids=repr)
@pytest.mark.parametrize("anchored", ["{}", '"{}"'], ids=["anchor", "quoted"])
def test_all_of_it_again_behind_the_anchor(lead: str, gap: str, anchored: str) -> None:
    said, rest = PROSE[:178], PROSE[178:]
    begun = anchored.format(anchor_of(said)) + gap + lead
    for size in (1, 10**9):
        assert shown(said, begun + PROSE, size=size) == rest
        seam = Seam(said, anchor_of(said))
        drift = begun + PROSE[:120] + "but it is another story."
        assert "".join(map(seam.feed, pieces(drift, size))) + seam.finish(complete=True) == ""
        assert seam.refused


def test_all_of_it_again_where_it_may_be_the_text_is_asked_for_again_and_then_shown() -> None:
    continuation = ITEMS + "\nHere is the complete text:\n\n" + ITEMS + "\nPlease go ahead."
    for size in (1, 10**9):
        seam = Seam(ITEMS, anchor_of(ITEMS), shows_unverified=False)
        assert "".join(map(seam.feed, pieces(continuation, size))) + seam.finish(complete=True) == ""
        seam = Seam(ITEMS, anchor_of(ITEMS))
        result = "".join(map(seam.feed, pieces(continuation, size))) + seam.finish(complete=True)
        assert anchor_of(ITEMS) + result == continuation[len(ITEMS) - len(anchor_of(ITEMS)) :]
        assert (seam.certainty, seam.decision) == ("unverified", "answer")


@given(said=ANY, rest=ANY, size=CHUNKS, writes_on=st.booleans())
def test_a_prefill_that_is_written_on_is_exact(said: str, rest: str, size: int, writes_on: bool) -> None:
    assume(said.strip() and not rest.lstrip().startswith(said[:30].strip()))
    seam = Seam(said, "", strategy=Strategy.PREFILL, writes_on=writes_on, shows_unverified=False)
    result = "".join(map(seam.feed, pieces(rest, size))) + seam.finish(complete=True)
    assert result == ("" if seam.refused else rest)
    assert not (writes_on and seam.refused)


ACCENTS = "The café opens at five, and the naïve owner of it waits for guests who come by the river"
DEVIATIONS = [
    ("a capital first", lambda anchor: anchor[:1].upper() + anchor[1:]),
    ("accents taken apart", lambda anchor: unicodedata.normalize("NFD", anchor)),
    ("in a fence", lambda anchor: f"```\n{anchor}\n```\n"),
    ("in backticks", lambda anchor: f"`{anchor}`"),
    ("bold", lambda anchor: f"**{anchor}**"),
    ("other line breaks", lambda anchor: anchor.replace(" ", "\r\n")),
    ("without its first word", lambda anchor: anchor.split(" ", 1)[1]),
]


@pytest.mark.parametrize("deviate", [row[1] for row in DEVIATIONS], ids=[row[0] for row in DEVIATIONS])
@pytest.mark.parametrize("text", [ACCENTS, unicodedata.normalize("NFD", ACCENTS)], ids=["composed", "taken apart"])
def test_an_anchor_with_a_small_deviation_is_recognized(deviate: Callable[[str], str], text: str) -> None:
    rest = ", as they say."
    for size in (1, 10**9):
        seam = Seam(text, anchor_of(text, 60), shows_unverified=False)
        result = "".join(map(seam.feed, pieces(deviate(anchor_of(text, 60)) + rest, size))) + seam.finish(complete=True)
        assert (result, seam.refused) == (rest, False)


@pytest.mark.parametrize("refrain", ["0123456789 ", "Row the boat and row it home ", "I must not talk, "], ids=repr)
def test_a_text_that_repeats_itself_is_verified_by_its_anchor(refrain: str) -> None:
    text = refrain * 12
    for cut in range(2 * len(refrain) + 5, 6 * len(refrain)):
        seam = Seam(text[:cut], anchor_of(text[:cut]), shows_unverified=False)
        assert seam.feed(anchor_of(text[:cut]) + text[cut:]) + seam.finish(complete=True) == text[cut:], cut
        assert seam.certainty == "verified"


TWICE = "好的，我会继续。今天天气很好，我们去公园散步。看看花，看看草，然后回家。好的，继续。以下是其余部分。"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(TWICE, id="Chinese"),
        pytest.param("はい、続きはこちらです。次の手順を説明します。はい、そうです。以下が残りです。", id="Japanese"),
        pytest.param("Useful phrases:\n- Sorry, I was cut off. The rest follows:\n- Sure, I will go on:\n", id="list"),
        pytest.param("The keeper of the lighthouse is Ada. She wrote: Here is the whole of it. ", id="quoted"),
    ],
)
@pytest.mark.parametrize("size", [1, 10**9])
def test_a_text_that_says_all_of_itself_again_goes_on_exactly_behind_its_anchor(text: str, size: int) -> None:
    for cut in range(12, 2 * len(text)):
        said, rest = (text * 3)[:cut], (text * 3)[cut:]
        assert shown(said, anchor_of(said) + rest, size=size) == rest, cut


LINES = "Carry the lantern over the hill.\n"


@pytest.mark.parametrize(
    ("said", "rest"),
    [
        pytest.param(f"Cold is the road.\n\n{LINES}", f"{LINES}Nobody follows.", id="a line that opens a paragraph"),
        pytest.param("[" + '{"id": null, "name": "unknown"}, ' * 4, '{"id": null, "name": "unknown"}]', id="records"),
        pytest.param("He said “no”", ". He said “no”. “No”, he said.", id="the whole of a short text"),
    ],
)
def test_what_a_text_says_more_than_once_may_come_once_more(said: str, rest: str) -> None:
    for size in (1, 10**9):
        assert shown(said, rest, size=size) == rest


def test_a_line_with_its_indentation_behind_the_same_indentation_is_a_repeat() -> None:
    said = "switch (key) {\n "
    assert shown(said, f"{said} case 0:\n    handle(event);") == " case 0:\n    handle(event);"


@pytest.mark.parametrize("again", ["", "\n", "\n\n", "\n\n\n", " "], ids=repr)
@pytest.mark.parametrize("piece", [1, 3, 100])
def test_a_restart_behind_white_space_alone_is_no_other_telling(again: str, piece: int) -> None:
    join, told = RestartJoin("\n\n"), again + "The cable."
    shown = "".join(join.feed(told[at : at + piece]) for at in range(0, len(told), piece)) + join.finish(complete=True)
    assert shown.lstrip() == "The cable."
    assert not join.reset
