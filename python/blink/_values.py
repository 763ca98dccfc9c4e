"""What calls give: plain values, which can be compared, pickled and kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .errors import CommandFailed, ExecTimeout, ResourceExhausted

if TYPE_CHECKING:
    import os
    from datetime import datetime

Isolation = Literal["microvm", "namespace"]
IsolationChoice = Literal["microvm", "namespace", "auto"]

#: So much of a stream is shown by ``repr``; the rest is counted.
_SHOWN_BYTES = 80


@dataclass(frozen=True, repr=False)
class Output:
    r"""The captured result of a program.

    A program that ends with another code than 0, or is killed when its time is over, raises nothing: the result says so.
    Whoever wants an exception calls `check`.

    Attributes
    ----------
    stdout, stderr : bytes
        What it wrote, byte for byte; the first ``output_limit`` bytes of each.
    exit_code : int
        Its exit code; 128 plus the signal's number if a signal ended it, 127 if there is no such program, 126
        if it may not be executed.
    signal : int or None
        The signal that ended it.
    timed_out : bool
        Its time was over, and it was killed with everything that it had started.
    over_limit : str or None
        It was killed because the sandbox was over this limit: ``"memory"`` or ``"disk"``.
    reason : str or None
        Why it could not be started, if ``exit_code`` is 126 or 127 for that reason.
    duration : float
        Seconds from its start to its end.
    isolation : str
        The isolation that it really had: ``"microvm"`` or ``"namespace"``.
    stdout_bytes, stderr_bytes : int
        How much it wrote in all.

    Examples
    --------
    >>> import blink
    >>> output = blink.run(["sh", "-c", "echo out; exit 3"], isolation="auto")
    >>> output.stdout, output.text, output.exit_code, output.ok
    (b'out\n', 'out\n', 3, False)
    """

    stdout: bytes
    stderr: bytes
    exit_code: int
    signal: int | None
    timed_out: bool
    over_limit: str | None
    reason: str | None
    duration: float
    isolation: Isolation
    stdout_bytes: int
    stderr_bytes: int

    @property
    def text(self) -> str:
        """Standard output as text; what is not UTF-8 is replaced."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def stderr_text(self) -> str:
        """Standard error as text; what is not UTF-8 is replaced."""
        return self.stderr.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with code 0."""
        return self.exit_code == 0 and not self.timed_out

    @property
    def truncated(self) -> bool:
        """Whether a stream was longer than the limit; `stdout_bytes` and `stderr_bytes` have the true counts."""
        return self.stdout_bytes > len(self.stdout) or self.stderr_bytes > len(self.stderr)

    def check(self) -> Output:
        r"""Return this output if the program succeeded, and raise an exception otherwise.

        Returns
        -------
        Output
            This one.

        Raises
        ------
        ExecTimeout
            Its time was over.
        ResourceExhausted
            The sandbox was over a limit.
        CommandFailed
            It ended with another code than 0. Each has this output as ``output``.

        Examples
        --------
        >>> import blink
        >>> blink.run(["echo", "fine"], isolation="auto").check().text
        'fine\n'
        >>> try:
        ...     blink.run(["ls", "/nowhere"], isolation="auto").check()
        ... except blink.CommandFailed as error:
        ...     print(error.output.exit_code)
        2
        """
        if self.over_limit is not None:
            error: Exception = ResourceExhausted(
                f"the program was killed because the sandbox was over its {self.over_limit} limit"
            )
        elif self.timed_out:
            error = ExecTimeout(f"the program was killed after {self.duration:.1f} s, when its time was over")
        elif self.exit_code != 0:
            error = CommandFailed(self._why())
        else:
            return self
        error.output = self  # type: ignore[attr-defined]  # Each of the three has it.
        raise error

    def _why(self) -> str:
        how = f"signal {self.signal}" if self.signal is not None else f"exit code {self.exit_code}"
        last_words = self.reason or self.stderr_text.strip()[-_SHOWN_BYTES * 5 :]
        return f"the program ended with {how}" + (f": {last_words}" if last_words else "")

    def __repr__(self) -> str:
        parts = [f"exit_code={self.exit_code}", f"stdout={_shown(self.stdout)}"]
        if self.stderr:
            parts.append(f"stderr={_shown(self.stderr)}")
        parts += [f"{name}=True" for name in ("timed_out", "truncated") if getattr(self, name)]
        parts += [
            f"{name}={value!r}"
            for name in ("signal", "over_limit", "reason")
            if (value := getattr(self, name)) is not None
        ]
        parts += [f"duration={self.duration:.3f}", f"isolation={self.isolation!r}"]
        return f"Output({', '.join(parts)})"


def _shown(stream: bytes) -> str:
    if len(stream) <= _SHOWN_BYTES:
        return repr(stream)
    return f"{stream[:_SHOWN_BYTES]!r}… ({len(stream)} bytes)"


@dataclass(frozen=True)
class ExitStatus:
    """How a program ended; the attributes are those of `Output`."""

    exit_code: int
    signal: int | None
    timed_out: bool
    over_limit: str | None
    reason: str | None
    duration: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with code 0."""
        return self.exit_code == 0 and not self.timed_out


@dataclass(frozen=True)
class ProcessInfo:
    """A spawned process in a list.

    Attributes
    ----------
    id : int
        Names it; with it, `Sandbox.process` attaches to it.
    pid : int
        Its number among the sandbox's processes.
    argv : tuple of str
        What was started.
    status : ExitStatus or None
        How it ended, if it has.
    stdout_bytes, stderr_bytes : int
        How much it has written so far.
    pty : bool
        Whether it has a terminal.
    key : str or None
        The key that it was spawned with.
    """

    id: int
    pid: int
    argv: tuple[str, ...]
    status: ExitStatus | None
    stdout_bytes: int
    stderr_bytes: int
    pty: bool
    key: str | None


@dataclass(frozen=True)
class ProcessLogs:
    """What is kept of a process's output: at most the last MiB of each stream.

    Attributes
    ----------
    stdout : bytes
        Standard output; that of a terminal has all of its output.
    stdout_offset : int
        How many bytes of standard output came before.
    stderr : bytes
        Standard error.
    stderr_offset : int
        How many bytes of standard error came before.
    """

    stdout: bytes
    stdout_offset: int
    stderr: bytes
    stderr_offset: int


@dataclass(frozen=True)
class FileInfo:
    """A file's description.

    Attributes
    ----------
    kind : str
        ``"file"``, ``"directory"``, ``"symlink"`` or ``"other"``.
    size : int
        Its size in bytes.
    mode : int
        Its permission bits.
    uid, gid : int
        Its user and group, as the sandbox numbers them.
    modified : datetime
        When it was last changed, in UTC.
    target : str or None
        Where a symbolic link points.
    """

    kind: Literal["file", "directory", "symlink", "other"]
    size: int
    mode: int
    uid: int
    gid: int
    modified: datetime
    target: str | None


@dataclass(frozen=True)
class DirEntry:
    """One entry of a folder: its name in it, and its description; symbolic links are not followed."""

    name: str
    info: FileInfo


@dataclass(frozen=True)
class Declined:
    """What an archive has asked for and the session that was imported from it was not given.

    Attributes
    ----------
    option : str
        The option, as `blink.Blink.session` takes it, such as ``"disk_mib"``.
    asked : str
        What the archive has asked for.
    given : str
        What the session has instead.
    """

    option: str
    asked: str
    given: str


@dataclass(frozen=True)
class Checkpoint:
    """A named state of a session's disk, which never changes.

    Attributes
    ----------
    name : str
        Names it in its session.
    consistency : str
        What it is worth: ``"stopped"`` (no program ran), ``"frozen"`` (all that programs had written at one moment is
        there) or ``"crash"`` (as after a power cut).
    size_bytes : int
        What it occupies beyond what is beneath it.
    parent : str or None
        The checkpoint that the session's disk was at before.
    created_at : datetime
        When it was made, in UTC.
    """

    name: str
    consistency: Literal["stopped", "frozen", "crash"]
    size_bytes: int
    parent: str | None
    created_at: datetime


@dataclass(frozen=True)
class Lineage:
    """Where a session comes from, and the tree of its checkpoints.

    Attributes
    ----------
    forked_from : str or None
        The session that it was forked from, as ``session`` or ``session@checkpoint``.
    current : str or None
        The checkpoint that its disk was last at.
    checkpoints : list of Checkpoint
        All of them, in the order in which they were made; each tells its parent.
    """

    forked_from: str | None
    current: str | None
    checkpoints: list[Checkpoint]


@dataclass(frozen=True)
class Mount:
    """A file or folder of the host that a sandbox sees.

    Attributes
    ----------
    host : path-like
        What the sandbox sees. Of a micro-VM, nothing that has Blink's home in it.
    guest : path-like
        Where it sees it: an absolute path.
    read_only : bool
        Whether it may not change it; `False` by default.

    Examples
    --------
    >>> import blink
    >>> blink.run(["ls", "/data"], mounts=[blink.Mount("/usr/share", "/data", read_only=True)], isolation="auto").ok
    True
    """

    host: str | os.PathLike[str]
    guest: str | os.PathLike[str]
    read_only: bool = False


@dataclass(frozen=True)
class PublishedPort:
    """A TCP port inside a sandbox that the host's programs reach at an address of the host.

    Attributes
    ----------
    guest_port : int
        The port inside the sandbox.
    host_port : int
        The host's port; 0, the default, is any that is free, and `Sandbox.published` says which.
    address : str
        Where the host listens: ``"127.0.0.1"`` by default, which only programs on this host can reach.
    """

    guest_port: int
    host_port: int = 0
    address: str = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """What there is to say about a session.

    Attributes
    ----------
    name, id : str
        Its name in this home, and what stays the same when it is renamed.
    isolation : str
        What it has each time that it runs.
    image : str
        What it was made from.
    running, warm : bool
        Whether its sandbox runs, and whether that goes on when its host process ends.
    labels : dict
        What it was labelled with.
    forked_from : str or None
        The session that it was forked from, as ``session`` or ``session@checkpoint``.
    checkpoint : str or None
        The checkpoint that its disk was last at.
    created_at : datetime
        When it was made, in UTC.
    disk_bytes : int
        What its disk occupies beyond its checkpoints.
    cpus, memory_mib, shared_memory_mib, disk_mib, processes, network, mounts, publish, idle_stop
        What it was made with, as in `SessionOptions`.
    """

    name: str
    id: str
    isolation: Isolation
    image: str
    running: bool
    warm: bool
    labels: dict[str, str]
    forked_from: str | None
    checkpoint: str | None
    created_at: datetime
    disk_bytes: int
    cpus: float | None
    memory_mib: int | None
    shared_memory_mib: int | None
    disk_mib: int
    processes: int
    network: Literal["none", "host"] | list[str]
    mounts: list[Mount]
    publish: list[PublishedPort]
    idle_stop: float | None


@dataclass(frozen=True)
class Latency:
    """How long something took, each time that it was done, in seconds.

    Attributes
    ----------
    count : int
        How often it was done.
    sum : float
        All of them together.
    p50, p95, p99 : float
        So many of 100 took no longer.
    max : float
        The longest.
    """

    count: int
    sum: float
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, kw_only=True)
class PoolStats:
    """What has happened in a pool, and what it has now.

    Attributes
    ----------
    name : str or None
        The pool's.
    size, max : int
        How many sandboxes are to be ready, and how many there may be in all.
    idle, booting, claimed, waiting : int
        Sandboxes that are ready, that boot, and that were claimed and are not gone; and claims that wait for one.
    ages : list of float
        Seconds for which those wait that are ready, the longest first.
    hits, misses, failed_claims : int
        Claims that found a sandbox ready, that waited for one, and that failed.
    boots, failed_boots, refused : int
        Boots that succeeded, that failed, and that were not begun for want of memory or of budget.
    deaths, retired, resets : int
        Sandboxes that died before they were claimed, that were too old or not needed, and that were reset.
    last_failure : str or None
        Why the last boot has failed, if none has succeeded since.
    claim_latency, boot_latency, removal_latency : Latency
        From a claim to its sandbox, of a boot until its sandbox is ready, and of a removal.
    openmetrics : str
        The same as text in the format of OpenMetrics, which Prometheus reads.
    """

    name: str | None
    size: int
    max: int
    idle: int
    booting: int
    claimed: int
    waiting: int
    ages: list[float]
    hits: int
    misses: int
    failed_claims: int
    boots: int
    failed_boots: int
    deaths: int
    retired: int
    resets: int
    refused: int
    last_failure: str | None
    claim_latency: Latency
    boot_latency: Latency
    removal_latency: Latency
    openmetrics: str


@dataclass(frozen=True)
class Image:
    """A stored image.

    Attributes
    ----------
    reference : str or None
        The full name that it was pulled by; `None` if it came from a file or folder, or if its tag has moved.
    digest : str
        The manifest's digest, as ``sha256:…``.
    size_bytes : int
        What it is stored as, some of which other images may share.
    pulled_at, used_at : datetime
        When it was fetched and used last, in UTC; the latter to the hour.
    """

    reference: str | None
    digest: str
    size_bytes: int
    pulled_at: datetime
    used_at: datetime


@dataclass(frozen=True)
class RemovedImages:
    """What a removal or a prune of images has removed: names, digests, and the bytes that are free again."""

    references: list[str]
    digests: list[str]
    freed_bytes: int


@dataclass(frozen=True)
class Progress:
    """How far an image is.

    Attributes
    ----------
    step : str
        ``"download"`` or ``"unpack"``.
    bytes_done, bytes_total : int
        Bytes of layers, as they are stored.
    layer, layers : int
        The layer being unpacked, from 1, or the number of layers that are downloaded; and the number of all.
    """

    step: Literal["download", "unpack"]
    bytes_done: int
    bytes_total: int
    layer: int
    layers: int


@dataclass(frozen=True)
class TransferProgress:
    """How far an export or an import is.

    Attributes
    ----------
    bytes_done : int
        Bytes that are done.
    bytes_total : int or None
        The total in bytes, if it is known before the end.
    """

    bytes_done: int
    bytes_total: int | None


@dataclass(frozen=True)
class Check:
    """What was found out about one isolation.

    Attributes
    ----------
    isolation : str
        ``"microvm"`` or ``"namespace"``.
    elapsed : float
        Seconds from nothing to a program's result.
    problem : str or None
        Why it does not work, and how to fix it; `None` if it works.
    """

    isolation: Isolation
    elapsed: float
    problem: str | None

    @property
    def works(self) -> bool:
        """Whether sandboxes can have this isolation here."""
        return self.problem is None


@dataclass(frozen=True)
class Report:
    """What works on this machine.

    Attributes
    ----------
    checks : list of Check
        One for each isolation, the strongest first.
    hypervisor_problem : str or None
        Why the host's hypervisor cannot run a kernel, which micro-VMs need; `None` if it can.
    root : bool
        Whether Blink runs as root, and so gives sandboxes users of their own.
    control_groups : bool
        Whether control groups hold the limits of sandboxes; resource limits do otherwise, each process for itself.
    hypervisor_works : bool
        Whether the hypervisor passed a trial; also `False` if it was not tried on this kind of processor.
    """

    checks: list[Check]
    hypervisor_problem: str | None
    root: bool
    control_groups: bool
    hypervisor_works: bool
