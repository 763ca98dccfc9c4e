# Made from ../_file_streams.py by scripts/async-python.
"""Files of a sandbox or session that are read and written bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._calls import result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from typing_extensions import Self

    from .. import _blink
    from .._options import Data


class AsyncFileReader:
    """As `blink.FileReader`. ``async for`` gives its chunks."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.FileReader) -> None:
        self._native = native

    async def chunk(self) -> bytes:
        """As `blink.FileReader.chunk`. A task that is cancelled meanwhile takes nothing away."""
        return await result(self._native.chunk())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := (await self.chunk()):
            yield chunk

    async def close(self) -> None:
        """As `blink.FileReader.close`."""
        await result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncFileWriter:
    """As `blink.FileWriter`."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.FileWriter) -> None:
        self._native = native

    async def write(self, data: Data) -> None:
        """As `blink.FileWriter.write`. After a task that was cancelled meanwhile, the file can only be given up."""
        await result(self._native.write(data))

    async def finish(self) -> None:
        """As `blink.FileWriter.finish`."""
        await result(self._native.finish())

    async def close(self) -> None:
        """As `blink.FileWriter.close`."""
        await result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.finish()
        else:
            await self.close()
