"""The processes of a session, beside whoever has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._process import Process

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from . import _blink
    from ._values import ExitStatus, Isolation, ProcessInfo, ProcessLogs


class SessionProcesses:
    r"""The processes of a session that runs, from `Blink.session_processes`.

    Whoever has the session goes on, and keeps it. All methods may be called from several threads at once; they raise
    `SandboxDied` once the session's sandbox has ended.

    Examples
    --------
    >>> import blink
    >>> library = blink.Blink(isolation="namespace")
    >>> with library.session("server", warm=True) as session:
    ...     server = session.spawn(["sh", "-c", "echo up; exec sleep 60"])
    ...     up = server.stdout.chunk()
    ...     with library.session_processes("server") as processes:
    ...         for process in processes.list():
    ...             print(process.argv[0], processes.logs(process.id).stdout)
    ...             processes.kill(process.id)
    ...             print(processes.wait(process.id).signal)
    ...     session.remove()
    sh b'up\n'
    9
    """

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _blink.SessionProcesses) -> None:
        self._native = native

    @property
    def isolation(self) -> Isolation:
        """The isolation that they have."""
        return self._native.isolation

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._native.closed

    def list(self) -> list[ProcessInfo]:
        """List all processes that were spawned and not released, and those that someone is waiting for right now."""
        return self._native.list().wait()

    def logs(self, id: int) -> ProcessLogs:
        """Return what is kept of a process's output so far. Whoever is attached to it goes on.

        Raises
        ------
        NotFound
            It was released.
        """
        return self._native.logs(id).wait()

    def wait(self, id: int, timeout: float | None = None) -> ExitStatus:
        """Wait until a process has ended. Whoever is attached to it goes on.

        Parameters
        ----------
        id : int
            The process, as `list` or `Process.id` names it.
        timeout : float, optional
            Seconds after which waiting, not the program, ends.

        Raises
        ------
        ExecTimeout
            It has not ended by then. It goes on.
        NotFound
            It was released.
        """
        return self._native.wait(id, timeout).wait()

    def signal(self, id: int, signal: int) -> None:
        """Send a signal to a process's group.

        Raises
        ------
        InvalidArgument
            If it is not a signal.
        NotFound
            It was released.
        """
        self._native.signal(id, signal).wait()

    def kill(self, id: int) -> None:
        """Kill a process and everything that it has started.

        Raises
        ------
        NotFound
            It was released.
        """
        self._native.kill(id).wait()

    def attach(self, id: int, *, stdout_offset: int = 0, stderr_offset: int = 0) -> Process:
        """Attach to a process, as `Session.process` does: whoever was attached to it is not any more.

        Raises
        ------
        NotFound
            It was released.
        """
        return Process(self._native.attach(id, stdout_offset, stderr_offset).wait())

    def close(self) -> None:
        """Let go of them; they go on. No-op once it is closed.

        Calls that are under way in other threads fail with `SandboxDied`.
        """
        self._native.close().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<blink.{type(self).__name__}, {'closed' if self.closed else self.isolation}>"
