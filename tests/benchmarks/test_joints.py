"""The program that judges joints sees the faults that real models make, and none where there is none."""

from __future__ import annotations

import pytest

from benchmarks.joints import faults_of

SAID = "Lighthouses stand on rocks and cliffs. Their lamps turn slowly, so that sailors can count the fla"
REST = "shes and know which light it is. Some have foghorns as well."


@pytest.mark.parametrize(
    ("said", "new", "rest"),
    [
        pytest.param(SAID, REST, REST, id="as uncut"),
        pytest.param(SAID, "shes and know which lamp shines.", REST, id="as uncut at first"),
        pytest.param("They bake", " it in an oven.", " the dough for an hour.", id="another way to say it"),
        pytest.param("红茶是", "全发酵的茶，味道醇厚。", "一种很受欢迎的饮料。", id="no spaces between words"),
        pytest.param("The end.", "", "", id="nothing was missing"),
        pytest.param("la la la la la la", " la la la la la la", " la la la la la la", id="repeats itself by nature"),
        pytest.param(
            "return words.reverse",
            "();\n}\n```\n\nThis function reverses the words.",
            "().join(' ');\n}\n```\n\nThis function reverses the words.",
            id="shorter code, the same remark",
        ),
        pytest.param(
            "The city is also known for its markets. It has parks, and",
            " gardens. The city is also known for its old bridges.",
            " lakes. The city is also known for its old bridges.",
            id="a turn of phrase that comes twice",
        ),
        pytest.param("x = ", "1", "1", id="shorter than the judge looks"),
    ],
)
def test_clean(said: str, new: str, rest: str) -> None:
    assert faults_of(said, new, rest) == []


@pytest.mark.parametrize(
    ("said", "new", "rest", "fault"),
    [
        pytest.param(SAID, "", REST, "nothing new", id="nothing"),
        pytest.param(SAID, " \n", REST, "nothing new", id="white space"),
        pytest.param("Cork floats", "<<<Cork floats>>> on water.", " on water.", "mark", id="marks"),
        pytest.param("Cork floats", "\n\nSure, here is the rest: on water.", " on water.", "courtesy", id="courtesy"),
        pytest.param(
            "Three colours of the flag are red",
            "Three colors of the flag are red, white and blue.",
            ", white and blue.",
            "begun anew",
            id="the beginning in other words",
        ),
        pytest.param(SAID, "Their lamps turn slowly, so that", REST, "told again", id="the last sentence"),
        pytest.param(
            SAID,
            "\n\nSure! Lighthouses stand on rocks and cliffs. Their lamps turn slowly, so that sailors can",
            REST,
            "courtesy",
            id="a courtesy, then all of it",
        ),
        pytest.param(
            SAID,
            "\n\nTheir lamps turn slowly, so that sailors can count the flashes and know which light",
            REST,
            "told again",
            id="the last sentence as a new paragraph",
        ),
        pytest.param(SAID, "Some have foghorns as well.", REST, "left out", id="a later sentence"),
        pytest.param("count the fla", "gs and know", "shes and know", "word broken", id="another word"),
        pytest.param("count the fla", " and know", "shes and know", "word broken", id="half a word"),
        pytest.param("about a hundred", "The lamps are bright", " lamps shine", "glued", id="two words"),
        pytest.param("They shine.", "Ships see them", " Sailors see them", "glued", id="two sentences"),
        pytest.param("def f():\n", "return 1", "    return 1", "white space", id="indentation lost"),
        pytest.param("one ", " two", "three", "white space", id="two spaces"),
        pytest.param("```python\nx = 1\n", "```python\ny = 2", "y = 3", "fence again", id="fence"),
    ],
)
def test_not_clean(said: str, new: str, rest: str, fault: str) -> None:
    assert fault in faults_of(said, new, rest)
