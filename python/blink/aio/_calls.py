"""Calls of the library, to be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from .. import _blink

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType
    from typing import Any

T = TypeVar("T")

_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _blink.Mailbox] = WeakKeyDictionary()


def _mailbox(loop: asyncio.AbstractEventLoop) -> _blink.Mailbox:
    """Where the results for a loop arrive, which wake it."""
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        mailbox = _mailboxes[loop] = _blink.Mailbox()
        loop.add_reader(mailbox.fileno(), mailbox.deliver)
    return mailbox


async def result(call: _blink.Call[T]) -> T:
    """Wait for a call, and cancel it if the wait is interrupted."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    call.start(_mailbox(loop), future)
    try:
        return await future
    finally:
        call.cancel()


class _Closes(Protocol):
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


C = TypeVar("C", bound=_Closes)


async def _made(kind: Callable[[T], C], call: _blink.Call[T]) -> C:
    return kind(await result(call))


class Opening(Awaitable[C], Generic[C]):
    """What is being made: await it, or enter it with ``async with``, which closes it in the end."""

    __slots__ = ("_made", "_making")

    def __init__(self, kind: Callable[[T], C], call: _blink.Call[T]) -> None:
        self._making = _made(kind, call)

    def __await__(self) -> Generator[Any, None, C]:
        return self._making.__await__()

    async def __aenter__(self) -> C:
        self._made = await self._making
        return self._made

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._made.__aexit__(kind, error, trace)
