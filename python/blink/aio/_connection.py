# Made from ../_connection.py by scripts/async-python.
"""Connections into a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._calls import result

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .. import _blink
    from .._options import Data


class AsyncConnection:
    """As `blink.Connection`."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.Connection) -> None:
        self._native = native

    async def read(self, most: int = 65536) -> bytes:
        """As `blink.Connection.read`. A task that is cancelled meanwhile takes nothing away."""
        return await result(self._native.read(most))

    async def write(self, data: Data) -> None:
        """As `blink.Connection.write`. A task that is cancelled meanwhile may have written a part."""
        await result(self._native.write(data))

    async def end(self) -> None:
        """As `blink.Connection.end`."""
        await result(self._native.end())

    async def close(self) -> None:
        """As `blink.Connection.close`."""
        await result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
