"""Connections into a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from . import _blink
    from ._options import Data


class Connection:
    """A connection to a port or socket inside a sandbox: a byte stream in both directions."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.Connection) -> None:
        self._native = native

    def read(self, most: int = 65536) -> bytes:
        """Wait for the next bytes, at most so many; none (``b""``) at the end."""
        return self._native.read(most).wait()

    def write(self, data: Data) -> None:
        """Write bytes, or text in UTF-8; wait while the peer does not take them.

        Raises
        ------
        SandboxDied
            The peer takes no more, or the sandbox has ended.
        """
        self._native.write(data).wait()

    def end(self) -> None:
        """End the writing side: the peer reads to the end, and can go on writing."""
        self._native.end().wait()

    def close(self) -> None:
        """Close both sides. No-op once it is closed."""
        self._native.close().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
