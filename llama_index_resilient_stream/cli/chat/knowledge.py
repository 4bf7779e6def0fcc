"""What the chat page's model knows: some questions, their answers, and what it says to any other question."""

from __future__ import annotations

from ..demo.corpus import PARAGRAPHS
from ..demo.scenarios import SCENARIOS

ANSWERS = {
    **{
        scenario.question: scenario.answer for scenario in SCENARIOS if "```" not in scenario.answer
    },  # the page shows plain text
    "Tell me the whole story.": "\n\n".join(PARAGRAPHS),
}


def answer_to(question: str) -> str:
    """All that will be said, if nothing breaks."""
    if question in ANSWERS:
        return ANSWERS[question]
    known = "\n".join(f"– {each}" for each in ANSWERS)
    return (
        f"“{question}” is a good question, but I am a very small model: a script behind a real socket, so that nobody "
        f"needs a key, and everything can be broken at will. These I can answer:\n\n{known}"
    )
