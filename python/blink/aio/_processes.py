# Made from ../_processes.py by scripts/async-python.
"""The processes of a session, beside whoever has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._calls import result
from ._process import AsyncProcess

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .. import _blink
    from .._values import ExitStatus, Isolation, ProcessInfo, ProcessLogs


class AsyncSessionProcesses:
    """As `blink.SessionProcesses`."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _blink.SessionProcesses) -> None:
        self._native = native

    @property
    def isolation(self) -> Isolation:
        """As `blink.SessionProcesses.isolation`."""
        return self._native.isolation

    @property
    def closed(self) -> bool:
        """As `blink.SessionProcesses.closed`."""
        return self._native.closed

    async def list(self) -> list[ProcessInfo]:
        """As `blink.SessionProcesses.list`."""
        return await result(self._native.list())

    async def logs(self, id: int) -> ProcessLogs:
        """As `blink.SessionProcesses.logs`."""
        return await result(self._native.logs(id))

    async def wait(self, id: int, timeout: float | None = None) -> ExitStatus:
        """As `blink.SessionProcesses.wait`."""
        return await result(self._native.wait(id, timeout))

    async def signal(self, id: int, signal: int) -> None:
        """As `blink.SessionProcesses.signal`."""
        await result(self._native.signal(id, signal))

    async def kill(self, id: int) -> None:
        """As `blink.SessionProcesses.kill`."""
        await result(self._native.kill(id))

    async def attach(self, id: int, *, stdout_offset: int = 0, stderr_offset: int = 0) -> AsyncProcess:
        """As `blink.SessionProcesses.attach`."""
        return AsyncProcess(await result(self._native.attach(id, stdout_offset, stderr_offset)))

    async def close(self) -> None:
        """As `blink.SessionProcesses.close`."""
        await result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<blink.{type(self).__name__}, {('closed' if self.closed else self.isolation)}>"
