"""Which tool a model is to call, said in one provider's words, and said again in another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llama_index.core.llms.llm import LLM

from .keywords import warn_of

Mode = Literal["auto", "none", "required", "tool"]

_WORDS: dict[str, Mode] = {"auto": "auto", "none": "none", "required": "required", "any": "required"}


@dataclass(frozen=True)
class ToolChoice:
    """Whether a model may, must or must not call a tool, and which one."""

    mode: Mode = "auto"
    name: str = ""
    """Of the tool, where it is one."""
    said: bool = True
    """Whether the caller said so by a `tool_choice`; LlamaIndex's own flags are each class's to understand."""

    @property
    def tool_required(self) -> bool:
        """Whether some tool has to be called."""
        return self.mode in ("required", "tool")

    def put_into(self, keywords: dict[str, Any], llm: LLM) -> dict[str, Any]:
        """Return the keywords that a class made of the tools, with the choice in the words of its API."""
        if self.tool_required and any(cls.__name__ in _WITHOUT_CHOICE for cls in type(llm).__mro__):
            warn_of(llm, "tool_choice" if self.said else "tool_required")
            return keywords
        if not self.said or self.mode in ("auto", "required"):
            return keywords  # the class has done it, by `tool_required`
        put = next((_CLASSES[cls.__name__] for cls in type(llm).__mro__ if cls.__name__ in _CLASSES), None)
        if put is None:
            warn_of(llm, "tool_choice")
            return keywords
        return put(self, keywords)


def choice_of(tool_choice: Any, *, tool_required: bool = False) -> ToolChoice:
    """Read a `tool_choice` in the words of whichever API.

        choice_of({"type": "function", "function": {"name": "pay"}})   # ToolChoice("tool", "pay")

    Args:
        tool_choice: As the caller gave it: a word, the name of a tool, or a mapping of OpenAI's, Anthropic's or
            Bedrock's; None where nothing was said.
        tool_required: LlamaIndex's own flag, which counts where there is no choice.
    """
    if tool_choice is None:
        return ToolChoice("required" if tool_required else "auto", said=False)
    if isinstance(tool_choice, str):
        mode = _WORDS.get(tool_choice)
        return ToolChoice("tool", tool_choice) if mode is None else ToolChoice(mode)
    if not isinstance(tool_choice, Mapping):
        return ToolChoice("required" if tool_required else "auto")
    for inside in (tool_choice.get("function"), tool_choice.get("tool"), tool_choice):
        if isinstance(inside, Mapping) and isinstance(name := inside.get("name"), str):
            return ToolChoice("tool", name)
    return ToolChoice(_mode_in(tool_choice))


def _mode_in(choice: Mapping[str, Any]) -> Mode:
    """The word, which is a type in Anthropic's mappings and a key in Bedrock's."""
    words = [choice.get("type"), *choice]
    return next((_WORDS[word] for word in words if isinstance(word, str) and word in _WORDS), "auto")


def _openai(choice: ToolChoice, keywords: dict[str, Any]) -> dict[str, Any]:
    named = {"type": "function", "function": {"name": choice.name}}
    return {**keywords, "tool_choice": named if choice.mode == "tool" else choice.mode}


def _responses(choice: ToolChoice, keywords: dict[str, Any]) -> dict[str, Any]:
    named = {"type": "function", "name": choice.name}
    return {**keywords, "tool_choice": named if choice.mode == "tool" else choice.mode}


def _anthropic(choice: ToolChoice, keywords: dict[str, Any]) -> dict[str, Any]:
    made = dict(keywords.get("tool_choice") or {})
    if made.get("type") == "auto" and choice.mode == "tool":
        return keywords  # the class has refused to force a call, as it does while the model thinks
    if choice.mode == "none":
        return {**keywords, "tool_choice": {"type": "none"}}
    return {**keywords, "tool_choice": {**made, "type": "tool", "name": choice.name}}


def _google(choice: ToolChoice, keywords: dict[str, Any]) -> dict[str, Any]:
    config: Any = keywords.get("tool_config")
    calling = getattr(config, "function_calling_config", None)
    if calling is None:
        return keywords
    mode = type(calling.mode)("NONE" if choice.mode == "none" else "ANY")
    names = None if choice.mode == "none" else [choice.name]
    made = calling.model_copy(update={"mode": mode, "allowed_function_names": names})
    return {**keywords, "tool_config": config.model_copy(update={"function_calling_config": made})}


def _bedrock(choice: ToolChoice, keywords: dict[str, Any]) -> dict[str, Any]:
    tools = keywords.get("tools")
    if choice.mode == "none":  # for which its API has no word
        return {**keywords, "tools": None}
    if not isinstance(tools, Mapping) or "auto" in tools.get("toolChoice", {}):
        return keywords  # the model behind it cannot be made to call one
    return {**keywords, "tools": {**tools, "toolChoice": {"tool": {"name": choice.name}}}}


_CLASSES = {
    "OpenAI": _openai,
    "OpenAIResponses": _responses,
    "MistralAI": _openai,
    "Anthropic": _anthropic,
    "GoogleGenAI": _google,
    "BedrockConverse": _bedrock,
}
_WITHOUT_CHOICE = ("Ollama",)  # takes no notice of `tool_required`
