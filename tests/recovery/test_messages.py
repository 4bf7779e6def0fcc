"""What of a provider's message is shown: what helps, and nothing that was sent."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llama_index_resilient_stream.recovery.faults.messages import LONGEST, Sent, cleaned, provider_message

KEY = "sk-PLANTEDKEY0123456789abcdef"
HEADER = "hdr-PLANTEDHEADER-987"
PROMPT = "PLANTEDPROMPT tell me of the harbour. My patient, John Smith, has gout."
SENT = Sent([PROMPT], [KEY, HEADER], ["gpt-4o-mini-2024-07-18", "gpt-typo"])

SHOWN = {
    "model": "The model `gpt-typo` does not exist",
    "one-letter": "The model `x` does not exist",
    "parameter": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
    "temperature": "Invalid value for 'temperature': 5 is greater than the maximum of 2",
    "api-key": (
        "The api_key client option must be set either by passing api_key to the client or by setting the "
        "OPENAI_API_KEY environment variable"
    ),
    "context": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    "name-with-a-date": "Rate limit reached for gpt-4o-mini-2024-07-18 on tokens per min: Limit 30000, Used 29000.",
    "url": "You can find your API key at https://platform.openai.com/account/api-keys.",
    "field": "api_key: field required",
    "chinese": "模型不存在",
}


@pytest.mark.parametrize("text", SHOWN.values(), ids=SHOWN)
def test_helpful_error_text_is_shown(text: str) -> None:
    assert cleaned(text, SENT) == text


HIDDEN = {
    "everything": (
        f"Incorrect API key provided: {KEY}; header {HEADER}; your prompt was {PROMPT}",
        "Incorrect API key provided: …; header …; your prompt was ….",
    ),
    "masked-key": (
        "Incorrect API key provided: sk-te***************x. Check it.",
        "Incorrect API key provided: … Check it.",
    ),
    "bearer": ("Authorization: Bearer eyJhbGciOi.secret was refused", "Authorization: … was refused"),
    "unknown-key": ("The key abcdef0123456789abcdef is invalid", "The key … is invalid"),
    "google": ("API key not valid: AIzaSyD-secret-key.", "API key not valid: …"),
    "url": (
        "Client error '404 Not Found' for url 'https://user:hunter2@proxy.example.com:8080/v1?api_key=hunter2'",
        "Client error '404 Not Found' for url 'https://…proxy.example.com:8080/v1…'",
    ),
    "password": ("Login failed for password=hunter2", "Login failed for password=…"),
    "mail": ("The account ada@example.com has no credits", "The account … has no credits"),
    "organization": ("Limit reached in organization org-abc123", "Limit reached in organization …"),
    "name-from-the-prompt": ("The name 'John Smith' is not allowed", "The name '…' is not allowed"),
    "word-cut-short": ("Your input is not allowed: 'PLANTEDPROM...'", "Your input is not allowed: '…...'"),
    "upper-case": ("Your input was not allowed: JOHN SMITH", "Your input was not allowed: …"),
}


@pytest.mark.parametrize(("text", "shown"), HIDDEN.values(), ids=HIDDEN)
def test_prompts_and_secrets_are_left_out_of_messages(text: str, shown: str) -> None:
    assert cleaned(text, SENT) == shown


ECHOES = {
    "as-it-is": lambda prompt: prompt,
    "repr": repr,
    "json": json.dumps,
    "upper": str.upper,
    "one-line": lambda prompt: " ".join(prompt.split()),
    "beginning": lambda prompt: prompt[: len(prompt) // 2],
    "dashes": lambda prompt: "-".join(prompt.split()),
}
PROMPTS = {
    "english": "Tell Ada Lovelace about\nCalifornia's gardens",
    "german": "Erzähl mir von Müllers Größenwahn",
    "chinese": "请问张伟的电话是多少？",
    "thai": "สวัสดีครับคุณสมชาย",
    "ordinary-words": "please do not use the model for this request again",
    "number": "4111111111111111 belongs to Eve",
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_an_echo_of_the_prompt_in_any_form_is_left_out(prompt: str, echo: Any) -> None:
    shown = cleaned(f"The request was refused because of the input: {echo(prompt)}", Sent([prompt]))
    assert shown.startswith("The request was refused")
    rest = shown.removeprefix("The request was refused because of the input:").casefold()
    for word in (
        "ada",
        "lovelace",
        "california",
        "gardens",
        "müller",
        "größen",
        "erzähl",
        "张伟",
        "电话",
        "สม",
        "4111",
    ):
        assert word not in rest
    assert "please do not use" not in rest


words = st.text(string.ascii_letters + "äöü", min_size=4, max_size=12)


@given(sent=st.lists(words, min_size=1, max_size=12), more=st.lists(words, max_size=6), key=words, at=st.integers(0, 6))
def test_no_word_of_the_prompt_that_is_not_an_ordinary_one_comes_out(
    sent: list[str], more: list[str], key: str, at: int
) -> None:
    rare = [f"{word}zq" for word in sent]  # no word of English
    message = " ".join([*more[:at], *rare, *more[at:], key])
    shown = cleaned(message, Sent([" ".join(rare)], [key])).casefold()
    assume(shown)
    assert not [word for word in rare if word.casefold() in shown]
    assert len(shown) <= LONGEST + 1
    assert "\n" not in shown


def test_a_message_of_which_little_is_left_is_not_shown() -> None:
    assert cleaned("gout, Smith! 'harbour'", SENT) == ""
    assert cleaned("", SENT) == ""
    assert cleaned(" \n\t", SENT) == ""


def test_one_line_of_a_bounded_length() -> None:
    assert cleaned("The model failed.\nTraceback: secrets.py", SENT) == "The model failed."
    long = cleaned("The request failed. " * 10_000, SENT)
    assert len(long) <= LONGEST + 1
    assert long.endswith("…")


def test_a_secret_is_not_cut_in_two_before_it_is_looked_for() -> None:
    text = "The request failed. " * 9 + f"The header was {HEADER} here"
    assert "PLANTED" not in cleaned(text, SENT)


class Refused(Exception):
    def __init__(self, text: str, body: Any) -> None:
        super().__init__(text)
        self.body = body


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"message": "The model does not exist"}, "The model does not exist"),
        ({"error": {"message": "The model does not exist", "param": PROMPT}}, "The model does not exist"),
        ({"error": "The model does not exist"}, "The model does not exist"),
        (b'{"detail": "The model does not exist"}', "The model does not exist"),
        (None, "Error code: 404"),
        ({"input": PROMPT}, "Error code: 404"),
    ],
    ids=["message", "nested", "string", "bytes", "none", "no-message"],
)
def test_the_message_of_the_body_or_else_of_the_exception(body: Any, said: str) -> None:
    assert provider_message(Refused("Error code: 404", body), SENT) == said


def test_classifying_any_exception_raises_nothing() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert provider_message(Hostile(), SENT) == ""
    assert provider_message(None, SENT) == ""
