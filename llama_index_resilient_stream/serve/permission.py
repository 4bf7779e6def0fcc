"""Whether a reader may read a generation, without telling whether there is one.

What is foreign and what never was are answered in the same way, and after the same time: `may_read` is asked in either
case, for what is not there with a ticket that belongs to nobody; and where a store may have lost a generation that its
worker puts back in a moment, both are waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..errors import ConfigurationError
from .endings import http_error
from .producer import BEAT
from .store import Ticket

logger = logging.getLogger("llama_index_resilient_stream")

_PUT_BACK = 3 * BEAT  # seconds in which a worker puts back what its store has lost


class Permission:
    """One reader's, for one generation. Asks in a task of its own, so that a slow hook holds up no heartbeat.

    Args:
        ticket_of: what is known of a generation.
        key: the generation.
        allows: asks the application.
        shared: whether a store is asked that may have lost it for a moment.
    """

    def __init__(
        self,
        ticket_of: Callable[[str], Awaitable[Ticket | None]],
        key: str,
        allows: Callable[[Ticket], Awaitable[bool]],
        *,
        shared: bool,
    ) -> None:
        self._ticket_of, self._key, self._allows, self._shared = ticket_of, key, allows, shared
        self._task: asyncio.Task[bool] | None = None

    async def granted(self, seconds: float) -> bool | None:
        """Whether it may; None when `seconds` are over and nobody knows yet.

        Raises:
            StoreUnreachableError: the next call asks again.
            Exception: an HTTP error of the application's framework, which the hook raised for its reader.
        """
        if self._task is None:
            self._task = asyncio.ensure_future(self._ask())
        await asyncio.wait([self._task], timeout=seconds)
        if not self._task.done():
            return None
        task, self._task = self._task, None
        return task.result()

    async def _ask(self) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + (_PUT_BACK if self._shared else 0)
        asked: set[bool] = set()
        while True:
            ticket = await self._ticket_of(self._key)
            if (found := ticket is not None) not in asked:
                asked.add(found)
                allowed = await self._answer(ticket or Ticket(self._key))
                if allowed and found:
                    return True
            if loop.time() >= until:
                return False
            await asyncio.sleep(BEAT / 2)

    async def _answer(self, ticket: Ticket) -> bool:
        try:
            return await self._allows(ticket)
        except ConfigurationError:
            raise
        except Exception as error:
            if http_error(error) is not None:
                raise
            # A ticket that belongs to nobody has no payload, which a hook may trip over.
            log = logger.debug if ticket.owner is None and ticket.payload is None else logger.error
            log("may_read failed, which counts as no", exc_info=error)
            return False

    async def leave(self) -> None:
        """Nobody waits for it any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
