# Made from ../_sandbox.py by scripts/async-python.
"""Sandboxes and sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._calls import Opening, result
from ._connection import AsyncConnection
from ._files import AsyncFiles
from ._process import AsyncProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from .. import _blink
    from .._options import Argv, CommandOptions, Text
    from .._values import (
        Checkpoint,
        Declined,
        Isolation,
        Lineage,
        Output,
        ProcessInfo,
        PublishedPort,
        SessionInfo,
        TransferProgress,
    )
    from ..errors import BlinkError


class AsyncEnvironment:
    """What sandboxes and sessions can do alike. A session that does not run is started by whatever needs it."""

    __slots__ = ("_environment",)

    def __init__(self, environment: _blink.Environment) -> None:
        self._environment = environment

    async def exec(self, argv: Argv, **options: Unpack[CommandOptions]) -> Output:
        """As `blink.Sandbox.exec`."""
        return await result(self._environment.exec(argv, options))

    async def run_code(self, code: str, language: str = "python", **options: Unpack[CommandOptions]) -> Output:
        """As `blink.Sandbox.run_code`."""
        return await result(self._environment.run_code(code, language, options))

    async def spawn(self, argv: Argv, **options: Unpack[CommandOptions]) -> AsyncProcess:
        """As `blink.Sandbox.spawn`."""
        return AsyncProcess(await result(self._environment.spawn(argv, options)))

    async def process(self, id: int, *, stdout_offset: int = 0, stderr_offset: int = 0) -> AsyncProcess:
        """As `blink.Sandbox.process`."""
        return AsyncProcess(await result(self._environment.process(id, stdout_offset, stderr_offset)))

    async def processes(self) -> list[ProcessInfo]:
        """As `blink.Sandbox.processes`."""
        return await result(self._environment.processes())

    @property
    def files(self) -> AsyncFiles:
        """As `blink.Sandbox.files`."""
        return AsyncFiles(self._environment.files())

    async def connect_tcp(self, host: str, port: int) -> AsyncConnection:
        """As `blink.Sandbox.connect_tcp`."""
        return AsyncConnection(await result(self._environment.connect_tcp(host, port)))

    async def connect_unix(self, path: Text) -> AsyncConnection:
        """As `blink.Sandbox.connect_unix`."""
        return AsyncConnection(await result(self._environment.connect_unix(path)))

    async def published(self) -> list[PublishedPort]:
        """As `blink.Sandbox.published`."""
        return await result(self._environment.published())

    async def agent(self) -> str:
        """As `blink.Sandbox.agent`."""
        return await result(self._environment.agent())

    async def ping(self) -> None:
        """As `blink.Sandbox.ping`."""
        await result(self._environment.ping())


class AsyncSandbox(AsyncEnvironment):
    """As `blink.Sandbox`."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _blink.Sandbox) -> None:
        super().__init__(native.environment())
        self._native = native

    @property
    def id(self) -> str:
        """As `blink.Sandbox.id`."""
        return self._native.id

    @property
    def isolation(self) -> Isolation:
        """As `blink.Sandbox.isolation`."""
        return self._native.isolation

    @property
    def death(self) -> BlinkError | None:
        """As `blink.Sandbox.death`."""
        return self._native.death

    @property
    def closed(self) -> bool:
        """As `blink.Sandbox.closed`."""
        return self._native.closed

    async def close(self) -> None:
        """As `blink.Sandbox.close`."""
        await result(self._native.close())

    async def remove(self) -> None:
        """As `blink.Sandbox.remove`."""
        await result(self._native.remove())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<blink.{type(self).__name__} {self.id}, {('closed' if self.closed else self.isolation)}>"


class AsyncSession(AsyncEnvironment):
    """As `blink.Session`."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _blink.Session) -> None:
        super().__init__(native.environment())
        self._native = native

    @property
    def id(self) -> str:
        """As `blink.Session.id`."""
        return self._native.id

    @property
    def was_created(self) -> bool:
        """As `blink.Session.was_created`."""
        return self._native.was_created

    @property
    def declined(self) -> list[Declined]:
        """As `blink.Session.declined`."""
        return self._native.declined

    @property
    def closed(self) -> bool:
        """As `blink.Session.closed`."""
        return self._native.closed

    async def info(self) -> SessionInfo:
        """As `blink.Session.info`."""
        return await result(self._native.info())

    async def start(self) -> None:
        """As `blink.Session.start`."""
        await result(self._native.start())

    async def stop(self) -> None:
        """As `blink.Session.stop`."""
        await result(self._native.stop())

    async def rename(self, name: str) -> None:
        """As `blink.Session.rename`."""
        await result(self._native.rename(name))

    async def checkpoint(self, name: str, *, require_frozen: bool = False) -> Checkpoint:
        """As `blink.Session.checkpoint`."""
        return await result(self._native.checkpoint(name, require_frozen))

    async def checkpoints(self) -> list[Checkpoint]:
        """As `blink.Session.checkpoints`."""
        return await result(self._native.checkpoints())

    async def lineage(self) -> Lineage:
        """As `blink.Session.lineage`."""
        return await result(self._native.lineage())

    async def restore(self, checkpoint: str) -> None:
        """As `blink.Session.restore`."""
        await result(self._native.restore(checkpoint))

    async def remove_checkpoint(self, checkpoint: str) -> None:
        """As `blink.Session.remove_checkpoint`."""
        await result(self._native.remove_checkpoint(checkpoint))

    def fork(self, name: str, *, checkpoint: str | None = None) -> Opening[AsyncSession]:
        """As `blink.Session.fork`."""
        return Opening(AsyncSession, self._native.fork(name, checkpoint))

    async def fork_many(self, names: Iterable[str]) -> list[AsyncSession]:
        """As `blink.Session.fork_many`."""
        return [AsyncSession(fork) for fork in await result(self._native.fork_many(list(names)))]

    async def export(
        self,
        archive: Text,
        *,
        checkpoint: str | None = None,
        progress: Callable[[TransferProgress], object] | None = None,
    ) -> None:
        """As `blink.Session.export`."""
        await result(self._native.export(archive, checkpoint, progress))

    async def export_oci(
        self, path: Text, *, checkpoint: str | None = None, progress: Callable[[TransferProgress], object] | None = None
    ) -> None:
        """As `blink.Session.export_oci`."""
        await result(self._native.export_oci(path, checkpoint, progress))

    async def close(self) -> None:
        """As `blink.Session.close`."""
        await result(self._native.close())

    async def remove(self, *, force: bool = False) -> None:
        """As `blink.Session.remove`."""
        await result(self._native.remove(force))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<blink.{type(self).__name__} {self.id}{(', closed' if self.closed else '')}>"
