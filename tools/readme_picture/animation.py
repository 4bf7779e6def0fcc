"""CSS animations on one common clock, so that a picture of many parts can start over as one."""

from __future__ import annotations

from collections.abc import Sequence


class Motion:
    """Collects the keyframes of everything that moves. What an element looks like without them is its last state.

    Every method returns the attributes to put on an element.

    Args:
        seconds: From one beginning to the next.
        first_frame: Where it is joined, in seconds, when the picture is opened. What shows one frame only, such as the
            preview of a link, shows this one.
    """

    def __init__(self, seconds: float, *, first_frame: float) -> None:
        self._seconds = seconds
        self._first_frame = first_frame
        self._names: dict[str, str] = {}

    def from_(self, at: float) -> str:
        """Visible from here to the end."""
        return self._step(f"0%{{opacity:0}}{self._percent(at)}{{opacity:1}}")

    def between(self, begin: float, end: float) -> str:
        """Visible for a while, and not in the end."""
        frames = f"{self._percent(begin)}{{opacity:1}}{self._percent(end)}{{opacity:0}}"
        return f'opacity="0" {self._step(frames)}'

    def grow(self, begin: float, end: float) -> str:
        """Grows from its left edge."""
        frames = f"0%,{self._percent(begin)}{{transform:scaleX(0)}}{self._percent(end)}{{transform:none}}"
        return self._play(frames, "linear", "transform-box:fill-box;transform-origin:left")

    def walk(self, steps: Sequence[tuple[float, float, float]], end: float) -> str:
        """Steps to (seconds, x, y), and is gone in the end."""
        frames = "".join(f"{self._percent(at)}{{opacity:1;transform:translate({x:g}px,{y:g}px)}}" for at, x, y in steps)
        return f'opacity="0" {self._step(f"{frames}{self._percent(end)}{{opacity:0}}")}'

    def fade(self) -> str:
        """Vanishes softly before it all begins again."""
        return self._play("0%,97%{opacity:1}99%,100%{opacity:0}", "linear")

    def css(self) -> str:
        """The style sheet, once everything has been collected."""
        keyframes = [f"@keyframes {name}{{{frames}}}" for frames, name in self._names.items()]
        return "\n".join([*keyframes, "@media(prefers-reduced-motion:reduce){*{animation:none!important}}", ""])

    def _step(self, frames: str) -> str:
        return self._play(frames, "step-end")

    def _play(self, frames: str, timing: str, *more: str) -> str:
        name = self._names.setdefault(frames, f"k{len(self._names)}")
        return f'style="{";".join([f"animation:{name} {self._clock} {timing} infinite", *more])}"'

    @property
    def _clock(self) -> str:
        return f"{self._seconds:g}s -{self._first_frame:g}s"

    def _percent(self, at: float) -> str:
        return f"{100 * at / self._seconds:.2f}".rstrip("0").rstrip(".") + "%"
