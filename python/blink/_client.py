"""The way in."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ._arguments import listening, native
from ._pool import Pool
from ._processes import SessionProcesses
from ._sandbox import Sandbox, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from ._options import Argv, PoolOptions, RunOptions, SandboxOptions, SessionOptions, Text
    from ._values import (
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


class Blink:
    r"""Everything begins here: a home, with its sandboxes, sessions and images.

    All methods may be called from several threads at once. Sandboxes and sessions do not end with it.

    Parameters
    ----------
    home : str, optional
        The folder for everything that Blink keeps; ``BLINK_HOME`` or ``~/.blink`` by default.
    isolation : str, optional
        The isolation of sandboxes that do not say: ``"microvm"`` (the default), ``"namespace"`` or ``"auto"``.
    offline : bool, optional
        Whether the network is never used: then images are those that are stored, and those of folders and files.
    mirrors : mapping of str to str or list of str, optional
        Addresses that are asked before a registry: ``{"docker.io": "https://mirror.example/path"}``.
    insecure_registries : iterable of str, optional
        Registries that are reached by plain HTTP; one on loopback needs no permission.
    registry_ca : str, optional
        A file with certificate authorities of your own, in PEM.
    credentials : mapping of str to (str, str), optional
        User and password for registries; others are those of ``docker login``.
    docker_config : str, optional
        A file that those are taken from, instead of docker's own ``config.json``.
    image_limit_bytes : int, optional
        Bytes that the layers of an image may have together, as they are stored and as they are unpacked; 16 GiB by
        default.
    budget : (int or None, int or None), optional
        What all sandboxes together may have that run for this `Blink`, of its pools and beside them: memory in MiB,
        counted by their limits, and their number; `None` is no limit.

    Raises
    ------
    InvalidArgument
        The home cannot be used.

    Examples
    --------
    >>> import blink
    >>> with blink.Blink(isolation="auto") as library:
    ...     library.run(["echo", "hello"]).text
    'hello\n'
    """

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
        self._native.open().wait()

    def run(self, argv: Argv, **options: Unpack[RunOptions]) -> Output:
        """Run one program in a sandbox of its own, which is gone afterwards.

        Parameters
        ----------
        argv : list of str
            The program and its arguments, which arrive as they are; there is no shell.
        **options
            Those of `CommandOptions` and `SandboxOptions`.

        Raises
        ------
        BlinkError
            As for `sandbox` and `Sandbox.exec`.

        Examples
        --------
        >>> import blink
        >>> blink.Blink(isolation="auto").run(["cat"], stdin=b"in and out", timeout=10).stdout
        b'in and out'
        """
        return self._native.run(argv, options).wait()

    def run_code(self, code: str, language: str = "python", **options: Unpack[RunOptions]) -> Output:
        """Run code in a sandbox of its own, by the sandbox's own interpreter.

        Parameters
        ----------
        code : str
            At most 128 KiB.
        language : str
            ``"python"`` (the default), ``"javascript"``, ``"ruby"``, ``"perl"``, ``"sh"`` or ``"bash"``.
        **options
            As for `run`.
        """
        return self._native.run_code(code, language, options).wait()

    def sandbox(self, **options: Unpack[SandboxOptions]) -> Sandbox:
        """Make and boot a sandbox.

        Parameters
        ----------
        **options
            Those of `SandboxOptions`.

        Raises
        ------
        InvalidArgument
            For options that cannot be right.
        Busy
            A port to publish is taken.
        IsolationUnavailable, ImageUnavailable
            The message names alternatives.
        ResourceExhausted
        ExecTimeout
            It does not boot in time.
        """
        return Sandbox(self._native.sandbox(options).wait())

    def fetch_image(self, **options: Unpack[SandboxOptions]) -> None:
        """Fetch a sandbox's image if it is not stored, so that `sandbox` with the same options finds it.

        What is stored under a name is good enough; `pull` asks the registry again. Given up half-way, what came so far is
        kept.

        Parameters
        ----------
        **options
            Those of `SandboxOptions`.

        Raises
        ------
        InvalidArgument, IsolationUnavailable, ImageUnavailable, ResourceExhausted
            As for `sandbox`, as far as they can be told before a boot.
        """
        self._native.fetch_image(options).wait()

    def sandboxes(self) -> list[str]:
        """List the ids of the sandboxes that were made detached and not removed."""
        return self._native.sandboxes().wait()

    def open(self, id: str) -> Sandbox:
        """Take up a detached sandbox that an earlier process has made. Its programs run as before.

        Raises
        ------
        NotFound
        Busy
            Another process has it, or a port to publish.
        SandboxDied
            It has ended.
        """
        return Sandbox(self._native.take_sandbox(id).wait())

    def session(self, name: str, **options: Unpack[SessionOptions]) -> Session:
        """Open the session with this name and start it, or create it if there is none.

        Parameters
        ----------
        name : str
            Letters, digits, ``-``, ``_`` and ``.``, at most 64.
        **options
            Those of `SessionOptions`.

        Raises
        ------
        InvalidArgument
            If the name is invalid, or if the session was created with other options.
        Busy
            Another process changes it, or has its micro-VM, which the message names; otherwise as for `sandbox`.
        """
        return Session(self._native.session(name, options).wait())

    def import_session(
        self,
        name: str,
        archive: Text,
        *,
        import_progress: Callable[[TransferProgress], object] | None = None,
        **options: Unpack[SessionOptions],
    ) -> Session:
        """Make a session whose disk is read from an archive that `Session.export` has written; it is not started.

        Parameters
        ----------
        name : str
            Its name.
        archive : str
            The file.
        import_progress : callable, optional
            Called with a `TransferProgress` as the archive is read; ``progress`` hears of its image.
        **options
            Those of `SessionOptions`, over what the archive says. It may be anybody's: it gets no more than the defaults,
            nothing is started, and nothing is fetched because it says so.

        Raises
        ------
        AlreadyExists
        Corrupt, Unsupported
            If it is not a complete archive, or was written by a later version; nothing is left behind.
        ImageUnavailable
            Its image is not stored; the message has the command that fetches it.
        """
        listening(options, import_progress)
        return Session(self._native.import_session(name, archive, options).wait())

    def take_session(self, name: str, *, patience: float | None = None) -> Session:
        """Take a session that is there, without starting it.

        Parameters
        ----------
        name : str
            Its name.
        patience : float, optional
            Seconds that another process that has it is waited for; 10 by default.

        Raises
        ------
        NotFound, Busy
        """
        return Session(self._native.take_session(name, patience).wait())

    def pool(self, **options: Unpack[PoolOptions]) -> Pool:
        """Make a pool: sandboxes that are booted before they are asked for.

        Its image is fetched and the commands of ``warmup`` run; then it begins to boot, which `Pool.ready` waits for.

        Parameters
        ----------
        **options
            Those of `PoolOptions`.

        Raises
        ------
        InvalidArgument
            For options that no pool can have, and a command of ``warmup`` that fails, with its output.
        ExecTimeout
            Such a command does not end.
        AlreadyExists
            Another process keeps a shared pool of this name.
        BlinkError
            As for `sandbox`.
        """
        return Pool(self._native.pool(options).wait())

    def open_pool(self, name: str) -> Pool:
        """Attach to a pool that another process of this home keeps.

        Raises
        ------
        NotFound
            None does.
        """
        return Pool(self._native.open_pool(name).wait())

    def pools(self) -> list[PoolStats]:
        """List the pools that processes of this home keep for others, by their names."""
        return self._native.pools().wait()

    def sessions(self) -> list[SessionInfo]:
        """List all sessions of this home, by name."""
        return self._native.sessions().wait()

    def session_info(self, name: str) -> SessionInfo:
        """Say what there is to say about a session, whoever has it.

        Raises
        ------
        NotFound
        """
        return self._native.session_info(name).wait()

    def session_lineage(self, name: str) -> Lineage:
        """Return where a session comes from, with the tree of its checkpoints, also while others use it.

        Raises
        ------
        NotFound
        """
        return self._native.session_lineage(name).wait()

    def session_processes(self, name: str) -> SessionProcesses:
        """Reach the processes of a session that runs, also while another process has the session, or a part of this one.

        That is so for one that is warm and in a namespace. Others are taken first, as by `take_session`.

        Raises
        ------
        NotFound
            There is no such session, or it does not run.
        Busy
            Another process starts it right now, or has its micro-VM, for longer than 10 seconds.
        """
        return SessionProcesses(self._native.session_processes(name).wait())

    def prune_sessions(self) -> int:
        """Remove what no session, checkpoint or fork needs, and return how many bytes that has freed.

        Raises
        ------
        Busy
            Another process makes or removes something of the kind.
        """
        return self._native.prune_sessions().wait()

    def pull(self, image: Text, *, progress: Callable[[Progress], object] | None = None) -> Image:
        """Fetch an image into the home, so that sandboxes can have it at once and without a network.

        Unlike a sandbox, which takes what is stored under a reference, this asks the registry each time.

        Parameters
        ----------
        image : str
            A registry's reference, a folder in OCI layout, or a tar of one or of ``docker save``.
        progress : callable, optional
            Called with a `Progress` some ten times a second.

        Raises
        ------
        ImageUnavailable
            The message names alternatives.
        NotFound, Corrupt, Unsupported, ResourceExhausted
            As the image deserves.
        InvalidArgument
            For what names no image, and for ``"host"``, which is always there.
        """
        return self._native.pull(image, progress).wait()

    def images(self) -> list[Image]:
        """List the stored images, each once for every name that it has, the one that was fetched last first."""
        return self._native.images().wait()

    def remove_image(self, name: str) -> RemovedImages:
        """Remove a stored image, by a reference or by a digest, of which 12 digits are enough.

        Raises
        ------
        NotFound
        Busy
            A sandbox uses it, which the message names.
        """
        return self._native.remove_image(name).wait()

    def prune_images(self) -> RemovedImages:
        """Remove what no name and no sandbox refers to.

        Raises
        ------
        Busy
            Another process unpacks an image.
        """
        return self._native.prune_images().wait()

    def doctor(self) -> Report:
        """Try what works on this machine: its hypervisor, and each isolation by a program in a sandbox of its own."""
        return self._native.doctor().wait()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._native.closed

    def close(self) -> None:
        """Let go of the home, once what is being made in it is made, or gone.

        What was made goes on. No-op once it is closed.
        """
        self._native.close().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_default_lock = threading.Lock()
_default: Blink | None = None


def default() -> Blink:
    """Return the library of the default home, opened once."""
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            _default = Blink()
        return _default


def run(argv: Argv, **options: Unpack[RunOptions]) -> Output:
    r"""Run one program in a sandbox of its own in the default home, which is gone afterwards; as `Blink.run`.

    Examples
    --------
    >>> import blink
    >>> blink.run(["ls", "/usr/bin/env"], isolation="auto").text
    '/usr/bin/env\n'
    """
    return default().run(argv, **options)


def run_code(code: str, language: str = "python", **options: Unpack[RunOptions]) -> Output:
    r"""Run code in a sandbox of its own in the default home, which is gone afterwards; as `Blink.run_code`.

    Examples
    --------
    >>> import blink
    >>> blink.run_code("print(6*7)", language="python", isolation="auto").text
    '42\n'
    """
    return default().run_code(code, language, **options)


def doctor() -> Report:
    """Try what works on this machine; as `Blink.doctor`.

    Examples
    --------
    >>> import blink
    >>> [check.isolation for check in blink.doctor().checks]
    ['microvm', 'namespace']
    """
    return default().doctor()
