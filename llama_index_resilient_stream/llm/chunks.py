"""LlamaIndex's responses to chunks for the core, and what the core shows back to LlamaIndex's responses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse

from ..callbacks import ResumeEvent
from ..compat.llama_index import assistant_message, blocks_of, copied, is_only_text, message_text, thoughts_of
from ..providers import server_of
from ..recovery.attributes import dig, first_of, read
from ..recovery.events import Chunk
from ..recovery.finish_reasons import OPEN, FinishReason, finish_reason_of, open_tool_call, usage_of
from ..recovery.machine import Recovery
from ..recovery.refusals import refusal_in_kwargs, refusal_of
from ..report import StreamStatus
from .mended import MendedContent, annotations_of, moved
from .tool_calls import arguments_are_whole, last_call_id, with_repaired_calls

RESET_KEY = "resilient_reset"
"""In a chunk's `additional_kwargs`: forget the text so far; `message.content` is the new telling."""
STATUS_KEY = "resilient_status"
"""In the last chunk's `additional_kwargs`, with `on_exhausted="partial"`: the `StreamStatus` of an answer given up."""
PARTIAL_KEY = "resilient_partial"
"""In `additional_kwargs` of a message in a chat memory: the answer is not whole; the value is its `StreamStatus`."""
UNVERIFIED_KEY = "resilient_unverified"
"""In `additional_kwargs` of a message in a chat memory: nothing shows that its parts belong together; see
`StreamReport.joints`."""
ESTIMATE_KEY = "usage_estimated"
"""In `additional_kwargs` beside merged token counts that are in part an estimate."""
_MARKS = frozenset({PARTIAL_KEY, UNVERIFIED_KEY})

Response = ChatResponse | CompletionResponse
Read = Callable[[Any], Chunk]


class Reader:
    """Reads the chunks of one attempt, one after another. Runs once per token.

    Args:
        mends_content: the class's last message may not say the whole text, which LlamaIndex's readers take it to do.
    """

    def __init__(self, *, mends_content: bool = False) -> None:
        self._mended = MendedContent() if mends_content else None
        self._puts_right = mends_content
        self._looks_closer = True  # at chunks with text, at the first one in any case
        self._has_deltas = False
        self._server_is_known = False
        self._length = 0
        self._thoughts = 0
        self._refusal = ""
        self._tools: str | None = None
        self._written: defaultdict[Any, str] = defaultdict(str)
        self._ids: dict[Any, Any] = {}  # of the calls that are written
        self._closed: set[Any] = set()

    def chat(self, response: ChatResponse) -> Chunk:
        """A chunk of a chat stream."""
        message = response.message
        extra = message.additional_kwargs
        if text := response.delta:
            self._has_deltas = True
        else:
            text = self._text_of(response)
        finish_reason = finish_reason_of(response.raw, extra)
        if finish_reason is None and response.additional_kwargs:
            finish_reason = finish_reason_of(None, response.additional_kwargs)
        tools = self._calls_of(response) if extra or not is_only_text(message) else None
        if self._puts_right:
            response = self._put_right(response, text, over=finish_reason is not None)
        if text and finish_reason is None:
            chunk = Chunk(text, response, True, None, tools)
            if self._looks_closer:
                self._look_closer(chunk)
            return chunk
        return self._more_than_text(text, response, finish_reason, tools)

    def _put_right(self, response: ChatResponse, text: str, *, over: bool) -> ChatResponse:
        if self._written:
            response = self._marked(response, over=over)
        return response if self._mended is None else self._mended(response, text, over=over)

    def _look_closer(self, chunk: Chunk) -> None:
        """At the first chunk with text, which shows its server as all that follow do, and at others with counts."""
        payload = chunk.payload
        if not self._server_is_known:
            self._server_is_known, chunk.server = True, server_of(payload.raw)
        counts = usage_of(payload.raw)
        self._looks_closer = counts is not None  # where the first one has some, as Gemini's, all have
        if counts is not None and counts.get("completion_tokens", 0) > 1:
            chunk.usage = counts
        else:
            chunk.usage = _of_the_question(counts or usage_of(payload.message.additional_kwargs))

    def _more_than_text(
        self, text: str, response: ChatResponse, finish_reason: FinishReason | None, tools: str | None
    ) -> Chunk:
        refusal = self._refuses_on(response.raw)
        thought = max(len(thought_of(response)), self._growth_of_thoughts(blocks_of(response.message)))
        # Calls are shown again on chunks that have nothing new, as on the one with the usage behind the finish reason.
        progress = self._calls_grow(tools) or bool(text or refusal or thought) or _is_delta(response.raw)
        usage = usage_of(response.raw)
        return Chunk(text, response, progress, finish_reason, tools, usage, refusal, thought=thought)

    def _calls_of(self, response: ChatResponse) -> str | None:
        """The fingerprint of the calls so far.

        LlamaIndex's Anthropic class repairs arguments while they come; what the model wrote is in its events alone.
        """
        calls = open_tool_call(response.message.additional_kwargs, blocks_of(response.message))
        if calls is None:
            return None
        piece = dig(response.raw, "delta", "partial_json")
        if isinstance(piece, str):
            index = read(response.raw, "index")
            self._written[index] += piece
            self._puts_right = True
            self._ids[index] = last_call_id(response.message)
        return calls if all(map(_may_be_whole, self._written.values())) else calls + OPEN

    def _marked(self, response: ChatResponse, *, over: bool) -> ChatResponse:
        """The chunk, with a mark on the arguments that are not whole yet.

        Nothing is the arguments of a tool without parameters, but only when its block is closed or the turn is over.
        """
        if read(response.raw, "type") == "content_block_stop":
            self._closed.add(read(response.raw, "index"))
        unfinished = {
            self._ids[index]
            for index, arguments in self._written.items()
            if not _may_be_whole(arguments) or not (arguments.strip() or over or index in self._closed)
        }
        return with_repaired_calls(response, unfinished) if unfinished else response

    def _text_of(self, response: ChatResponse) -> str:
        """What is new in a chunk without a delta."""
        return self._growth(message_text(response.message)) if response.delta is None and not self._has_deltas else ""

    def completion(self, response: CompletionResponse) -> Chunk:
        """A chunk of a completion stream."""
        text = response.delta
        if not text:
            text = "" if text == "" or self._has_deltas else self._growth(response.text)
        else:
            self._has_deltas = True
        finish_reason = finish_reason_of(response.raw, response.additional_kwargs)
        if text and finish_reason is None:
            chunk = Chunk(text, response, True)
            if not self._server_is_known:
                self._server_is_known, chunk.server = True, server_of(response.raw)
            return chunk
        progress = bool(text or thought_of(response)) or _is_delta(response.raw)
        return Chunk(text, response, progress, finish_reason, None, usage_of(response.raw))

    def _calls_grow(self, tools: str | None) -> bool:
        before, self._tools = self._tools, tools or self._tools
        return tools is not None and tools != before

    def _growth(self, whole: str) -> str:
        """What is new in a stream without deltas, whose every chunk has the whole text so far."""
        new, self._length = whole[self._length :], max(self._length, len(whole))
        return new

    def _growth_of_thoughts(self, blocks: Sequence[Any]) -> int:
        """By how many characters the thinking blocks have grown."""
        before = self._thoughts
        self._thoughts = sum(len(b.content or "") for b in blocks if type(b).__name__ == "ThinkingBlock")
        return max(0, self._thoughts - before)

    def _refuses_on(self, raw: Any) -> str:
        """What is new of a refusal."""
        refusal = refusal_of(raw, self._refusal) or ""
        self._refusal += refusal
        return refusal


def _may_be_whole(arguments: str) -> bool:
    bare = arguments.strip()
    return not bare or (bare.endswith("}") and arguments_are_whole(bare))  # spares parsing at every piece


def read_whole(response: Response) -> Chunk:
    """An answer that came all at once."""
    tools = None
    if isinstance(response, ChatResponse):
        extra, text = response.message.additional_kwargs, message_text(response.message)
        tools = open_tool_call(extra, blocks_of(response.message))
    else:
        extra, text = response.additional_kwargs, response.text
    raw = response.raw
    refusal = refusal_of(raw) or refusal_in_kwargs(extra) or ""
    return Chunk(text, response, True, finish_reason_of(raw, extra), tools, usage_of(raw), refusal)


def thought_of(response: Any) -> str:
    """What is new of the model's thoughts in a chunk; "" where nothing is."""
    extra = getattr(response, "additional_kwargs", None) or {}
    thought = extra.get("thinking_delta")
    if not thought:
        delta = read(first_of(read(getattr(response, "raw", None), "choices")), "delta")
        thought = dig(delta, "reasoning_content") or dig(delta, "reasoning")
    return thought if isinstance(thought, str) else ""


def _is_delta(raw: Any) -> bool:
    """Whether a chunk without text is progress all the same, in OpenAI's responses and Anthropic's messages."""
    kind = read(raw, "type")
    return isinstance(kind, str) and (kind.endswith(".delta") or kind == "content_block_delta")


def without_mark(message: ChatMessage) -> ChatMessage:
    """A message as it can be sent: older llms-openai copy `additional_kwargs` into the request."""
    if _MARKS.isdisjoint(message.additional_kwargs):
        return message
    kept = {name: value for name, value in message.additional_kwargs.items() if name not in _MARKS}
    return copied(message, additional_kwargs=kept)


class ChatPresenter:
    """Chunks of a healed answer as LlamaIndex's: one growing message, `delta` only what is new.

    It listens to its stream as any callback does, because the thoughts that led to the first part of a continued
    answer are in no chunk of the second.
    """

    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self._thoughts: list[Any] = []
        self._annotations: list[Any] = []
        self._cut: ChatMessage | None = None  # the last message of a turn whose calls are told again

    def on_resume(self, event: ResumeEvent) -> None:
        payload = self._recovery.last_payload
        if event.strategy == "replay":  # whose chunks are those of one stream that was never cut
            return
        if event.strategy == "restart":
            self._thoughts, self._annotations = [], []
            if self._cut is None and isinstance(payload, ChatResponse) and calls_in(payload.message):
                self._cut = payload.message
        elif isinstance(payload, ChatResponse):
            self._thoughts += thoughts_of(payload.message)
            self._annotations = self._all_annotations(payload, -2)  # the next attempt is in the report already

    def _all_annotations(self, payload: Any, attempt: int = -1) -> list[Any]:
        """Those of the parts before, and of one attempt's, whose positions count from its own beginning."""
        attempts = self._recovery.report.attempts
        before = sum(each.characters for each in attempts[:attempt])
        return [*self._annotations, *moved(annotations_of(payload), before - attempts[attempt].dropped)]

    def _with_calls_shown(self, cut: ChatMessage, new: ChatMessage | None, chunk: Chunk) -> ChatMessage | None:
        """While a turn that is told again agrees with what was shown of its calls, they do not shrink."""
        shown, repeated = calls_in(cut), calls_in(new) if new is not None else []
        agrees = len(repeated) <= len(shown) and all(
            name == shown_name and shown_arguments.startswith(arguments)
            for (name, arguments), (shown_name, shown_arguments) in zip(repeated, shown, strict=False)
        )
        if agrees and repeated != shown and chunk.finish_reason is None:
            return cut
        self._cut = None  # it has got further, says something else, or is over
        return new

    def __call__(self, chunk: Chunk) -> ChatResponse:
        payload, recovery = chunk.payload, self._recovery
        like: ChatMessage | None = payload.message if isinstance(payload, ChatResponse) else None
        if self._cut is not None:
            like = self._with_calls_shown(self._cut, like, chunk)
        message = assistant_message(recovery.answer, like)
        if self._thoughts:
            message.blocks = [*self._thoughts, *message.blocks]
        return ChatResponse(
            message=message,
            delta=chunk.text,
            raw=getattr(payload, "raw", None),
            logprobs=getattr(payload, "logprobs", None),
            additional_kwargs=self._extra(chunk),
        )

    def _extra(self, chunk: Chunk) -> dict[str, Any]:
        extra = _extra(chunk, self._recovery)
        if len(self._recovery.report.attempts) > 1 and (found := self._all_annotations(chunk.payload)):
            extra["annotations"] = found
        return extra


def _of_the_question(counts: dict[str, int] | None) -> dict[str, int] | None:
    """Of token counts that do not grow with the answer, the one that is right from the beginning.

    LlamaIndex's Anthropic class shows on every message what the first event said.
    """
    return {"prompt_tokens": counts["prompt_tokens"]} if counts and "prompt_tokens" in counts else None


def calls_in(message: ChatMessage) -> list[tuple[str, str]]:
    """The name and the arguments, as text, of each tool call in a message."""
    found = []
    for call in message.additional_kwargs.get("tool_calls") or ():
        inside = read(call, "function") or call
        found.append((str(read(inside, "name") or ""), str(read(inside, "arguments") or "")))
    for block in blocks_of(message):
        if type(block).__name__ == "ToolCallBlock":
            arguments = read(block, "tool_kwargs")
            found.append((str(read(block, "tool_name")), arguments if isinstance(arguments, str) else repr(arguments)))
    return found


def completion_presenter(recovery: Recovery) -> Callable[[Chunk], CompletionResponse]:
    """The same for completions."""

    def show(chunk: Chunk) -> CompletionResponse:
        payload = chunk.payload
        return CompletionResponse(
            text=recovery.answer,
            delta=chunk.text,
            raw=getattr(payload, "raw", None),
            logprobs=getattr(payload, "logprobs", None) if isinstance(payload, CompletionResponse) else None,
            additional_kwargs=_extra(chunk, recovery),
        )

    return show


def _extra(chunk: Chunk, recovery: Recovery) -> dict[str, Any]:
    extra = dict(getattr(chunk.payload, "additional_kwargs", None) or {})
    if chunk.usage:
        counts, estimated = recovery.usage.usage()
        extra.update(counts)
        if estimated:
            extra[ESTIMATE_KEY] = True
    if chunk.reset:
        extra[RESET_KEY] = True
    if chunk.payload is None and recovery.report.status is StreamStatus.INTERRUPTED:
        extra[STATUS_KEY] = str(recovery.report.status)
    return extra
