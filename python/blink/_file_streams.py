"""Files of a sandbox or session that are read and written bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from . import _blink
    from ._options import Data


class FileReader:
    """A file that is read bit by bit, from `Files.reader`. Several threads may read: each chunk goes to one of them."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.FileReader) -> None:
        self._native = native

    def chunk(self) -> bytes:
        """Wait for the next bytes; none (``b""``) at the end, by which everything before is known to be right.

        Raises
        ------
        Corrupt
            The file did not arrive as it was sent.
        SandboxDied
            The sandbox ends first.
        """
        return self._native.chunk().wait()

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.chunk():
            yield chunk

    def close(self) -> None:
        """Give up what was not read. No-op once it is closed."""
        self._native.close().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileWriter:
    """A file that is written bit by bit, from `Files.writer`. It changes when that is finished, all at once.

    The end of a ``with`` block finishes it; an exception gives it up.
    """

    __slots__ = ("_native",)

    def __init__(self, native: _blink.FileWriter) -> None:
        self._native = native

    def write(self, data: Data) -> None:
        """Send bytes, or text in UTF-8; wait while the sandbox does not take them.

        After one that was interrupted, as by Ctrl-C, the file can only be given up.

        Raises
        ------
        NotFound
            For a missing folder.
        InvalidArgument
            It may not be written, it was finished or closed, or a write to it was interrupted.
        ResourceExhausted
            The disk is full.
        SandboxDied
            The sandbox has ended.
        """
        self._native.write(data).wait()

    def finish(self) -> None:
        """Make what was written the file's content.

        Raises
        ------
        BlinkError
            As for `write`. The file is as it was then.
        """
        self._native.finish().wait()

    def close(self) -> None:
        """Give it up, unless it is finished: the file stays as it was. No-op once it is finished or closed."""
        self._native.close().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.close()
