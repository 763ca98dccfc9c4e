# Made from ../_pool.py by scripts/async-python.
"""Pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._calls import Opening, result
from ._sandbox import AsyncSandbox, AsyncSession

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from .. import _blink
    from .._options import ClaimOptions
    from .._values import PoolStats


class AsyncPool:
    """As `blink.Pool`."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, pool: _blink.Pool) -> None:
        self._native = pool

    @property
    def name(self) -> str | None:
        """As `blink.Pool.name`."""
        return self._native.name

    def claim(self, **options: Unpack[ClaimOptions]) -> Opening[AsyncSandbox]:
        """As `blink.Pool.claim`."""
        return Opening(AsyncSandbox, self._native.claim(options))

    def claim_as(self, name: str, **options: Unpack[ClaimOptions]) -> Opening[AsyncSession]:
        """As `blink.Pool.claim_as`."""
        return Opening(AsyncSession, self._native.claim_as(name, options))

    async def ready(self) -> None:
        """As `blink.Pool.ready`."""
        await result(self._native.ready())

    async def stats(self) -> PoolStats:
        """As `blink.Pool.stats`."""
        return await result(self._native.stats())

    async def drain(self, timeout: float = 60.0) -> None:
        """As `blink.Pool.drain`."""
        await result(self._native.drain(timeout))

    @property
    def closed(self) -> bool:
        """As `blink.Pool.closed`."""
        return self._native.closed

    async def close(self) -> None:
        """As `blink.Pool.close`."""
        await result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
