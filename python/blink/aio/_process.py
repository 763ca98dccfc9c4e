# Made from ../_process.py by scripts/async-python.
"""Programs that run in a sandbox, and their streams."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import SandboxDied
from ._calls import result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from typing_extensions import Self

    from .. import _blink
    from .._options import Data
    from .._values import ExitStatus, Output


class AsyncProcessOutput:
    """As `blink.ProcessOutput`. ``async for`` gives its chunks."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.OutputStream) -> None:
        self._native = native

    async def chunk(self) -> bytes:
        """As `blink.ProcessOutput.chunk`. A task that is cancelled meanwhile takes nothing away."""
        return await result(self._native.chunk())

    async def read(self) -> bytes:
        """As `blink.ProcessOutput.read`."""
        return b"".join([chunk async for chunk in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := (await self.chunk()):
            yield chunk

    @property
    def offset(self) -> int:
        """As `blink.ProcessOutput.offset`."""
        return self._native.offset

    async def close(self) -> None:
        """As `blink.ProcessOutput.close`."""
        await result(self._native.close())


class AsyncProcessInput:
    """As `blink.ProcessInput`."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.InputStream) -> None:
        self._native = native

    async def write(self, data: Data) -> None:
        """As `blink.ProcessInput.write`. A task that is cancelled meanwhile may have written a part."""
        await result(self._native.write(data))

    async def close(self) -> None:
        """As `blink.ProcessInput.close`."""
        await result(self._native.close())

    async def leave(self) -> None:
        """As `blink.ProcessInput.leave`."""
        await result(self._native.leave())


class AsyncProcess:
    """As `blink.Process`."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.Process) -> None:
        self._native = native

    @property
    def id(self) -> int:
        """As `blink.Process.id`."""
        return self._native.id

    @property
    def pid(self) -> int:
        """As `blink.Process.pid`."""
        return self._native.pid

    @property
    def stdin(self) -> AsyncProcessInput:
        """As `blink.Process.stdin`."""
        return AsyncProcessInput(self._native.stdin())

    @property
    def stdout(self) -> AsyncProcessOutput:
        """As `blink.Process.stdout`."""
        return AsyncProcessOutput(self._native.stdout())

    @property
    def stderr(self) -> AsyncProcessOutput:
        """As `blink.Process.stderr`."""
        return AsyncProcessOutput(self._native.stderr())

    async def wait(self, timeout: float | None = None) -> ExitStatus:
        """As `blink.Process.wait`."""
        return await result(self._native.wait(timeout))

    async def output(self) -> Output:
        """As `blink.Process.output`."""
        return await result(self._native.output())

    async def signal(self, signal: int, *, tree: bool = False) -> None:
        """As `blink.Process.signal`."""
        await result(self._native.signal(signal, tree))

    async def kill(self) -> None:
        """As `blink.Process.kill`."""
        await result(self._native.kill())

    async def resize(self, rows: int, cols: int) -> None:
        """As `blink.Process.resize`."""
        await result(self._native.resize(rows, cols))

    async def release(self) -> None:
        """As `blink.Process.release`."""
        await result(self._native.release())

    async def close(self) -> None:
        """As `blink.Process.close`."""
        await result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(SandboxDied):
            await self.release()

    def __repr__(self) -> str:
        return f"<blink.{type(self).__name__} {self.id}, pid {self.pid}>"
