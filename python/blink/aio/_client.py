# Made from ../_client.py by scripts/async-python.
"""The way in."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .._arguments import listening, native
from ._calls import Opening, result
from ._pool import AsyncPool
from ._processes import AsyncSessionProcesses
from ._sandbox import AsyncSandbox, AsyncSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from .._options import Argv, PoolOptions, RunOptions, SandboxOptions, SessionOptions, Text
    from .._values import (
        Image,
        IsolationChoice,
        Lineage,
        Output,
        PoolStats,
        Progress,
        RemovedImages,
        Report,
        SessionInfo,
        TransferProgress,
    )


class AsyncBlink:
    """As `blink.Blink`. Its home is opened by ``async with``, or by the first call."""

    __slots__ = ("__weakref__", "_native")

    def __init__(
        self,
        *,
        home: Text | None = None,
        isolation: IsolationChoice | None = None,
        offline: bool = False,
        mirrors: Mapping[str, str | list[str]] | None = None,
        insecure_registries: Iterable[str] = (),
        registry_ca: Text | None = None,
        credentials: Mapping[str, tuple[str, str]] | None = None,
        docker_config: Text | None = None,
        image_limit_bytes: int | None = None,
        budget: tuple[int | None, int | None] | None = None,
    ) -> None:
        self._native = native(
            home,
            isolation,
            offline,
            mirrors,
            insecure_registries,
            registry_ca,
            credentials,
            docker_config,
            image_limit_bytes,
            budget,
        )

    async def run(self, argv: Argv, **options: Unpack[RunOptions]) -> Output:
        """As `blink.Blink.run`."""
        return await result(self._native.run(argv, options))

    async def run_code(self, code: str, language: str = "python", **options: Unpack[RunOptions]) -> Output:
        """As `blink.Blink.run_code`."""
        return await result(self._native.run_code(code, language, options))

    def sandbox(self, **options: Unpack[SandboxOptions]) -> Opening[AsyncSandbox]:
        """As `blink.Blink.sandbox`."""
        return Opening(AsyncSandbox, self._native.sandbox(options))

    async def fetch_image(self, **options: Unpack[SandboxOptions]) -> None:
        """As `blink.Blink.fetch_image`."""
        await result(self._native.fetch_image(options))

    async def sandboxes(self) -> list[str]:
        """As `blink.Blink.sandboxes`."""
        return await result(self._native.sandboxes())

    def open(self, id: str) -> Opening[AsyncSandbox]:
        """As `blink.Blink.open`."""
        return Opening(AsyncSandbox, self._native.take_sandbox(id))

    def session(self, name: str, **options: Unpack[SessionOptions]) -> Opening[AsyncSession]:
        """As `blink.Blink.session`."""
        return Opening(AsyncSession, self._native.session(name, options))

    def import_session(
        self,
        name: str,
        archive: Text,
        *,
        import_progress: Callable[[TransferProgress], object] | None = None,
        **options: Unpack[SessionOptions],
    ) -> Opening[AsyncSession]:
        """As `blink.Blink.import_session`."""
        listening(options, import_progress)
        return Opening(AsyncSession, self._native.import_session(name, archive, options))

    def take_session(self, name: str, *, patience: float | None = None) -> Opening[AsyncSession]:
        """As `blink.Blink.take_session`."""
        return Opening(AsyncSession, self._native.take_session(name, patience))

    def pool(self, **options: Unpack[PoolOptions]) -> Opening[AsyncPool]:
        """As `blink.Blink.pool`."""
        return Opening(AsyncPool, self._native.pool(options))

    def open_pool(self, name: str) -> Opening[AsyncPool]:
        """As `blink.Blink.open_pool`."""
        return Opening(AsyncPool, self._native.open_pool(name))

    async def pools(self) -> list[PoolStats]:
        """As `blink.Blink.pools`."""
        return await result(self._native.pools())

    async def sessions(self) -> list[SessionInfo]:
        """As `blink.Blink.sessions`."""
        return await result(self._native.sessions())

    async def session_info(self, name: str) -> SessionInfo:
        """As `blink.Blink.session_info`."""
        return await result(self._native.session_info(name))

    async def session_lineage(self, name: str) -> Lineage:
        """As `blink.Blink.session_lineage`."""
        return await result(self._native.session_lineage(name))

    def session_processes(self, name: str) -> Opening[AsyncSessionProcesses]:
        """As `blink.Blink.session_processes`."""
        return Opening(AsyncSessionProcesses, self._native.session_processes(name))

    async def prune_sessions(self) -> int:
        """As `blink.Blink.prune_sessions`."""
        return await result(self._native.prune_sessions())

    async def pull(self, image: Text, *, progress: Callable[[Progress], object] | None = None) -> Image:
        """As `blink.Blink.pull`."""
        return await result(self._native.pull(image, progress))

    async def images(self) -> list[Image]:
        """As `blink.Blink.images`."""
        return await result(self._native.images())

    async def remove_image(self, name: str) -> RemovedImages:
        """As `blink.Blink.remove_image`."""
        return await result(self._native.remove_image(name))

    async def prune_images(self) -> RemovedImages:
        """As `blink.Blink.prune_images`."""
        return await result(self._native.prune_images())

    async def doctor(self) -> Report:
        """As `blink.Blink.doctor`."""
        return await result(self._native.doctor())

    @property
    def closed(self) -> bool:
        """As `blink.Blink.closed`."""
        return self._native.closed

    async def close(self) -> None:
        """As `blink.Blink.close`."""
        await result(self._native.close())

    async def __aenter__(self) -> Self:
        await result(self._native.open())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


_default_lock = threading.Lock()
_default: AsyncBlink | None = None


def default() -> AsyncBlink:
    """Return the library of the default home, opened once."""
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            _default = AsyncBlink()
        return _default


async def run(argv: Argv, **options: Unpack[RunOptions]) -> Output:
    """As `blink.run`."""
    return await default().run(argv, **options)


async def run_code(code: str, language: str = "python", **options: Unpack[RunOptions]) -> Output:
    """As `blink.run_code`."""
    return await default().run_code(code, language, **options)


async def doctor() -> Report:
    """As `blink.doctor`."""
    return await default().doctor()
