"""Sandboxes and sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._connection import Connection
from ._files import Files
from ._process import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from . import _blink
    from ._options import Argv, CommandOptions, Text
    from ._values import (
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
    from .errors import BlinkError


class Environment:
    """What sandboxes and sessions can do alike. A session that does not run is started by whatever needs it."""

    __slots__ = ("_environment",)

    def __init__(self, environment: _blink.Environment) -> None:
        self._environment = environment

    def exec(self, argv: Argv, **options: Unpack[CommandOptions]) -> Output:
        r"""Run a program to its end and capture its output.

        A program that ends with another code than 0, or is killed when its time is over, raises nothing: the output says
        so. An exception meanwhile, such as that of Ctrl-C, kills it with everything that it has started.

        Parameters
        ----------
        argv : list of str
            The program and its arguments, which arrive as they are; there is no shell. A program without a slash is looked
            up in the sandbox's ``PATH``.
        **options
            Those of `CommandOptions`: ``env``, ``cwd``, ``user``, ``stdin``, ``timeout``, ``output_limit``, ``pty``.

        Raises
        ------
        InvalidArgument, NotFound
            For a command that cannot be right.
        ResourceExhausted
            It is too much to be given to a program.
        SandboxDied
            The sandbox has ended.

        Examples
        --------
        >>> import blink
        >>> with blink.Blink(isolation="auto").sandbox() as sandbox:
        ...     output = sandbox.exec(["sh", "-c", "echo $WHO; cat"], env={"WHO": "me"}, stdin="hello", timeout=10)
        >>> output.stdout
        b'me\nhello'
        """
        return self._environment.exec(argv, options).wait()

    def run_code(self, code: str, language: str = "python", **options: Unpack[CommandOptions]) -> Output:
        """Run code in a language, by the sandbox's own interpreter of it.

        Parameters
        ----------
        code : str
            At most 128 KiB, because it is an argument of the interpreter's: ``python3 -c``.
        language : str
            ``"python"`` (the default), ``"javascript"``, ``"ruby"``, ``"perl"``, ``"sh"`` or ``"bash"``.
        **options
            As for `exec`.

        Raises
        ------
        InvalidArgument
            For another language, and for code that is too long; otherwise as for `exec`.
        """
        return self._environment.run_code(code, language, options).wait()

    def spawn(self, argv: Argv, **options: Unpack[CommandOptions]) -> Process:
        """Start a program and stream its input and output.

        Parameters
        ----------
        argv : list of str
            As for `exec`.
        **options
            Those of `CommandOptions`; ``stdin=blink.PIPE`` gives it a pipe, `Process.stdin`.

        Raises
        ------
        InvalidArgument, NotFound, ResourceExhausted, SandboxDied
            As for `exec`.
        """
        return Process(self._environment.spawn(argv, options).wait())

    def process(self, id: int, *, stdout_offset: int = 0, stderr_offset: int = 0) -> Process:
        """Attach to a process that was spawned earlier, also by an earlier host process.

        Its output goes on at the offsets that the caller has, or at the oldest byte of its last MiB.

        Raises
        ------
        NotFound
            It was released, or its sandbox has ended since.
        """
        return Process(self._environment.process(id, stdout_offset, stderr_offset).wait())

    def processes(self) -> list[ProcessInfo]:
        """List the spawned processes that were not released."""
        return self._environment.processes().wait()

    @property
    def files(self) -> Files:
        """Its files."""
        return Files(self._environment.files())

    def connect_tcp(self, host: str, port: int) -> Connection:
        """Connect to a TCP port inside; `host` is an IP address or ``"localhost"``.

        Raises
        ------
        NotFound
            Nothing answers.
        """
        return Connection(self._environment.connect_tcp(host, port).wait())

    def connect_unix(self, path: Text) -> Connection:
        """Connect to a unix socket inside.

        Raises
        ------
        NotFound
            If there is none, or nothing answers.
        """
        return Connection(self._environment.connect_unix(path).wait())

    def published(self) -> list[PublishedPort]:
        """List its published ports in the order in which they were asked for, with the ports that the host really has."""
        return self._environment.published().wait()

    def agent(self) -> str:
        """Tell the name and version of the guest agent, such as ``"blink-guest 0.1.0"``.

        One that an earlier version of Blink has left running has that version's.
        """
        return self._environment.agent().wait()

    def ping(self) -> None:
        """Ask the guest agent for a sign of life.

        Raises
        ------
        SandboxDied
            The sandbox has ended.
        """
        self._environment.ping().wait()


class Sandbox(Environment):
    """A sandbox: an isolated environment with processes, files and a disk of its own, from `Blink.sandbox`.

    It is removed at the end of its ``with`` block, by `close`, when nothing refers to it any more, or when the
    interpreter ends; one that is ``detached`` goes on then, and only `remove` ends it. All methods may be called from
    several threads at once.

    Examples
    --------
    >>> import blink
    >>> with blink.Blink(isolation="auto").sandbox(memory_mib=512) as sandbox:
    ...     sandbox.files.write("/tmp/job.py", "print(sum(range(10)))")
    ...     print(sandbox.exec(["python3", "/tmp/job.py"], timeout=10).text, end="")
    45
    """

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _blink.Sandbox) -> None:
        super().__init__(native.environment())
        self._native = native

    @property
    def id(self) -> str:
        """Names it among all sandboxes of its home."""
        return self._native.id

    @property
    def isolation(self) -> Isolation:
        """The isolation that it really has."""
        return self._native.isolation

    @property
    def death(self) -> BlinkError | None:
        """Why it has ended by itself: what all calls in it raise then; `None` while it has not.

        Raises
        ------
        InvalidArgument
            It was closed or removed.
        """
        return self._native.death

    @property
    def closed(self) -> bool:
        """Whether it was closed or removed."""
        return self._native.closed

    def close(self) -> None:
        """End and remove it; one that is detached is let go of, and goes on. No-op once it is closed.

        Calls that are under way in other threads fail with `SandboxDied`.
        """
        self._native.close().wait()

    def remove(self) -> None:
        """Stop it and delete everything in it, even if it is detached. Does nothing if it is closed already."""
        self._native.remove().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<blink.{type(self).__name__} {self.id}, {'closed' if self.closed else self.isolation}>"


class Session(Environment):
    """A session: a named sandbox that outlives the process, from `Blink.session`.

    Threads, tasks and, in a namespace, processes can have one open at once, and use the same sandbox. At the end of
    its ``with`` block, or by `close`, the session is let go of, and its sandbox stopped, unless it is ``warm`` or
    somebody else uses it; its disk stays until it is removed. All methods may be called from several threads at once.
    A change that is interrupted, as by Ctrl-C, comes to its end in the background.

    Examples
    --------
    >>> import blink
    >>> library = blink.Blink(isolation="auto")
    >>> with library.session("notebook") as session:
    ...     session.files.write("/var/blink/memory/notes", "one")
    ...     begun = session.checkpoint("begun")
    ...     session.files.write("/var/blink/memory/notes", "two")
    ...     session.restore("begun")
    ...     print(session.files.read_text("/var/blink/memory/notes"))
    ...     session.remove()
    one
    """

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _blink.Session) -> None:
        super().__init__(native.environment())
        self._native = native

    @property
    def id(self) -> str:
        """Stays the same when it is renamed."""
        return self._native.id

    @property
    def was_created(self) -> bool:
        """Whether opening it has made it."""
        return self._native.was_created

    @property
    def declined(self) -> list[Declined]:
        """What the archive that it was imported from has asked for and was not given; empty for any other session."""
        return self._native.declined

    @property
    def closed(self) -> bool:
        """Whether it was closed or removed."""
        return self._native.closed

    def info(self) -> SessionInfo:
        """Say what there is to say about it."""
        return self._native.info().wait()

    def start(self) -> None:
        """Start it from its disk, or connect to its sandbox if that is running already."""
        self._native.start().wait()

    def stop(self) -> None:
        """Stop its sandbox; what its programs wrote to its disk stays. Does nothing if it is not running.

        Raises
        ------
        Busy
            Other processes use it, whom the message names.
        """
        self._native.stop().wait()

    def rename(self, name: str) -> None:
        """Give it another name.

        Raises
        ------
        InvalidArgument, AlreadyExists
        """
        self._native.rename(name).wait()

    def checkpoint(self, name: str, *, require_frozen: bool = False) -> Checkpoint:
        """Keep the disk as it is now, under a name.

        A session that runs is held still for the moment that it takes, and the answer says what the copy is worth.

        Parameters
        ----------
        name : str
            Letters, digits, ``-``, ``_`` and ``.``, at most 64.
        require_frozen : bool, optional
            Refuses a copy that is worth less than ``"frozen"``.

        Raises
        ------
        InvalidArgument, AlreadyExists, ResourceExhausted, SandboxDied
        Unsupported, Busy
            A disk that must be frozen cannot be.
        """
        return self._native.checkpoint(name, require_frozen).wait()

    def checkpoints(self) -> list[Checkpoint]:
        """List its checkpoints, in the order in which they were made."""
        return self._native.checkpoints().wait()

    def lineage(self) -> Lineage:
        """Return where it comes from, with the tree of its checkpoints."""
        return self._native.lineage().wait()

    def restore(self, checkpoint: str) -> None:
        """Put the disk back to what it was at a checkpoint; what it holds now is lost.

        A session that runs is stopped for that, and started again.

        Raises
        ------
        NotFound
        Busy
            Other processes use it, whom the message names.
        """
        self._native.restore(checkpoint).wait()

    def remove_checkpoint(self, checkpoint: str) -> None:
        """Forget a checkpoint. What others need of it stays until they are gone.

        Raises
        ------
        NotFound
        """
        self._native.remove_checkpoint(checkpoint).wait()

    def fork(self, name: str, *, checkpoint: str | None = None) -> Session:
        """Make a session that begins with this one's disk as it is now, or was at a checkpoint, and goes its own way.

        It has its own name, machine-id and host name. It is not started.

        Raises
        ------
        InvalidArgument, NotFound, AlreadyExists, ResourceExhausted, SandboxDied
        """
        return Session(self._native.fork(name, checkpoint).wait())

    def fork_many(self, names: Iterable[str]) -> list[Session]:
        """Make several forks at once, of the same state: all of them, or none.

        Raises
        ------
        InvalidArgument, AlreadyExists, ResourceExhausted, SandboxDied
        """
        return [Session(fork) for fork in self._native.fork_many(list(names)).wait()]

    def export(
        self,
        archive: Text,
        *,
        checkpoint: str | None = None,
        progress: Callable[[TransferProgress], object] | None = None,
    ) -> None:
        """Write its disk to one file, from which `Blink.import_session` makes a session, also on another machine.

        A session that runs goes on; the file holds its disk of one moment.

        Parameters
        ----------
        archive : str
            The file to write.
        checkpoint : str, optional
            The checkpoint whose disk it is; by default the disk as it is now.
        progress : callable, optional
            Called with a `TransferProgress` some ten times a second and at the end, in the thread or on the event loop that
            waits. What it raises is raised here; the export comes to its end in the background.

        Raises
        ------
        NotFound
            There is no such checkpoint.
        ResourceExhausted
            For a full disk, with nothing left behind.
        """
        self._native.export(archive, checkpoint, progress).wait()

    def export_oci(
        self,
        path: Text,
        *,
        checkpoint: str | None = None,
        progress: Callable[[TransferProgress], object] | None = None,
    ) -> None:
        """Write its disk as an image: a folder in OCI layout, or a tar of one if `path` ends in ``.tar``.

        Sandboxes and sessions of either isolation can be made from it, and other programs read it. The parameters are those
        of `export`.

        Raises
        ------
        Unsupported
            For a session of the image ``"host"``, whose programs are this machine's.
        InvalidArgument
            There is something at `path` already, other than a tar to replace.
        NotFound, ResourceExhausted
            As for `export`.
        """
        self._native.export_oci(path, checkpoint, progress).wait()

    def close(self) -> None:
        """Close it, and stop it unless it is warm or someone else uses it. Does nothing if it is closed already.

        Calls that are under way in other threads fail with `SandboxDied`.
        """
        self._native.close().wait()

    def remove(self, *, force: bool = False) -> None:
        """End it and remove its disk, its checkpoints and its name. Forks of it stay whole. No-op once it is closed.

        With `force` also while other processes have it open: their calls fail from then on.

        Raises
        ------
        Busy
            Other processes have it open, whom the message names; with `force`, another process changes it.
        """
        self._native.remove(force).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<blink.{type(self).__name__} {self.id}{', closed' if self.closed else ''}>"
