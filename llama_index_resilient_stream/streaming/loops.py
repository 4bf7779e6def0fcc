"""Which event loop we run on."""

from __future__ import annotations

import asyncio

from ..errors import ConfigurationError


def require_asyncio(what: str) -> None:
    """Raise ConfigurationError where no asyncio loop runs: under trio, or in a coroutine that is stepped by hand."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            f"{what} runs on asyncio only, and no asyncio loop is running here. Use asyncio.run(main()) or "
            f'anyio.run(main, backend="asyncio"). Under trio, use the synchronous twin in a thread: '
            f"await trio.to_thread.run_sync(lambda: list(llm.stream_chat(messages)))."
        ) from None
