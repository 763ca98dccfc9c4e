"""Programs that run in a sandbox, and their streams."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import SandboxDied

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from . import _blink
    from ._options import Data
    from ._values import ExitStatus, Output


class ProcessOutput:
    """One output stream of a running program: bytes as it writes them, chunk by chunk.

    The program blocks while nobody reads. Several threads may read: each chunk goes to one of them.
    """

    __slots__ = ("_native",)

    def __init__(self, native: _blink.OutputStream) -> None:
        self._native = native

    def chunk(self) -> bytes:
        """Wait for the next bytes; none (``b""``) at the end.

        Raises
        ------
        SandboxDied
            The sandbox ends first.
        """
        return self._native.chunk().wait()

    def read(self) -> bytes:
        """Read everything up to the end."""
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.chunk():
            yield chunk

    @property
    def offset(self) -> int:
        """How many bytes of the stream have been read: the offset at which to attach again later."""
        return self._native.offset

    def close(self) -> None:
        """Throw away what is still to come, so that the program is not held back. No-op once it is closed."""
        self._native.close().wait()


class ProcessInput:
    """The standard input of a running program."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.InputStream) -> None:
        self._native = native

    def write(self, data: Data) -> None:
        """Write bytes, or text in UTF-8; wait while the program does not take them.

        That the program reads no more is no error: its result tells.

        Raises
        ------
        SandboxDied
            The sandbox has ended.
        """
        self._native.write(data).wait()

    def close(self) -> None:
        """End the input, behind everything that was written. No-op once it is closed."""
        self._native.close().wait()

    def leave(self) -> None:
        """Let go of it without ending the input: whoever attaches to the process next can go on writing."""
        self._native.leave().wait()


class Process:
    """A running program, from ``spawn``.

    Its output arrives as it is written, and the program blocks while nobody reads it: read `stdout` and `stderr`, or
    close them to discard the rest. At the end of a ``with`` block it is killed, with everything that it started, and
    forgotten. Without one it keeps running when this object is gone, and ``process`` attaches to it again by its `id`.

    Examples
    --------
    >>> import blink
    >>> with blink.Blink(isolation="auto").sandbox() as sandbox:
    ...     with sandbox.spawn(["cat"], stdin=blink.PIPE) as process:
    ...         process.stdin.write("to and fro")
    ...         process.stdin.close()
    ...         print(process.stdout.read(), process.wait().exit_code)
    b'to and fro' 0
    """

    __slots__ = ("_native",)

    def __init__(self, native: _blink.Process) -> None:
        self._native = native

    @property
    def id(self) -> int:
        """Names the process for as long as its sandbox runs."""
        return self._native.id

    @property
    def pid(self) -> int:
        """Its process ID in the sandbox; 0 if it could not be started."""
        return self._native.pid

    @property
    def stdin(self) -> ProcessInput:
        """Its standard input, if it was spawned with ``stdin=blink.PIPE``."""
        return ProcessInput(self._native.stdin())

    @property
    def stdout(self) -> ProcessOutput:
        """Its standard output."""
        return ProcessOutput(self._native.stdout())

    @property
    def stderr(self) -> ProcessOutput:
        """Its standard error."""
        return ProcessOutput(self._native.stderr())

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Wait until it has ended and its output has been taken.

        Output of a stream that nobody has asked for is thrown away meanwhile, and its standard input ends, unless somebody
        has asked for that.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which waiting, not the program, ends.

        Raises
        ------
        ExecTimeout
            It has not ended by then. It goes on.
        SandboxDied
            The sandbox ends first.
        Busy
            Somebody else has attached to the process.
        """
        return self._native.wait(timeout).wait()

    def output(self) -> Output:
        """Wait until it has ended, and capture the output that has not been read yet, without a limit.

        Raises
        ------
        SandboxDied
            The sandbox ends first.
        Busy
            Somebody else has attached to the process.
        """
        return self._native.output().wait()

    def signal(self, signal: int, *, tree: bool = False) -> None:
        """Send a signal to its process group; with `tree`, to everything that it has started.

        Raises
        ------
        InvalidArgument
            If it is not a signal.
        NotFound
            It was released.
        """
        self._native.signal(signal, tree).wait()

    def kill(self) -> None:
        """Kill it and everything that it has started, also what has left its process group or session."""
        self._native.kill().wait()

    def resize(self, rows: int, cols: int) -> None:
        """Tell its terminal a new size. Without a terminal nothing happens."""
        self._native.resize(rows, cols).wait()

    def release(self) -> None:
        """Forget it: it is killed if it runs, and cannot be attached to any more. No-op once it is closed."""
        self._native.release().wait()

    def close(self) -> None:
        """Let go of it: the program goes on. No-op once it is closed."""
        self._native.close().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # With its sandbox it has ended as well.
        with suppress(SandboxDied):
            self.release()

    def __repr__(self) -> str:
        return f"<blink.{type(self).__name__} {self.id}, pid {self.pid}>"
