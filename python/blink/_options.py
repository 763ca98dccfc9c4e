"""What commands, sandboxes and sessions are described with: keyword arguments of the calls that run or make them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypedDict

from ._values import IsolationChoice, Mount, Progress, PublishedPort

#: An argument, a path, or the name or value of an environment variable. Text is encoded as file names are.
Text = str | bytes | os.PathLike[str] | os.PathLike[bytes]

#: Bytes, what has a buffer of bytes, or text, which is encoded in UTF-8.
Data = str | bytes | bytearray | memoryview

#: A program and its arguments. It is started directly, without a shell.
Argv = Iterable[Text]

#: As a command's ``stdin``: what is written to `Process.stdin`. It is `subprocess.PIPE`.
PIPE: Final[Literal[-1]] = -1


class CommandOptions(TypedDict, total=False):
    """The keyword arguments of what runs a program; `None` is the default of each.

    Attributes
    ----------
    env : mapping of str to str
        Environment variables, over the sandbox's own.
    cwd : str
        The folder of the sandbox that it runs in; by default the sandbox's, the image's or the user's.
    user : str
        The user of the sandbox: ``"name"``, ``"id"``, ``"name:group"`` or ``"id:id"``; by default the sandbox's.
    stdin : bytes, str or `PIPE`
        What it gets on its standard input; by default nothing, so that it is at its end at once. `PIPE` is for ``spawn``.
    timeout : float
        Seconds after which it is killed with everything that it has started; by default there is no limit.
    output_limit : int
        Bytes of each output stream that are captured, the first ones; 16 MiB by default. ``spawn`` has no limit.
    pty : (int, int)
        Rows and columns of a terminal for it; its output is then all standard output.
    key : str
        For ``spawn``: a second one with the same key attaches to the first one's process.
    """

    env: Mapping[Text, Text] | None
    cwd: Text | None
    user: str | None
    stdin: Data | Literal[-1] | None
    timeout: float | None
    output_limit: int | None
    pty: tuple[int, int] | None
    key: str | None


class _MachineOptions(TypedDict, total=False):
    image: Text | None
    isolation: IsolationChoice | None
    hostname: str | None
    cpus: float | None
    memory_mib: int | None
    shared_memory_mib: int | None
    disk_mib: int | None
    processes: int | None
    network: Literal["none", "host"] | list[str] | None
    mounts: Iterable[Mount] | None
    publish: Iterable[PublishedPort] | None
    boot_timeout: float | None
    progress: Callable[[Progress], object] | None


class RunOptions(CommandOptions, _MachineOptions, total=False):
    """The keyword arguments of one-shot runs: `CommandOptions`, and those of `SandboxOptions` that are not a command's."""


class SandboxOptions(_MachineOptions, total=False):
    """The keyword arguments of what makes a sandbox; `None` is the default of each.

    Attributes
    ----------
    image : str
        Where its root file system comes from: ``"host"`` (the default: this machine's own programs, read-only, which
        needs no registry and no download); a registry's reference such as ``"alpine:3.20"``; a folder in OCI layout; or
        a tar of one or of ``docker save``.
    isolation : str
        ``"microvm"`` (the default: a kernel of its own, and nothing less is taken silently), ``"namespace"`` (the host's
        kernel, with Linux namespaces between), or ``"auto"``, the strongest that works here.
    hostname : str
        Its host name: letters, digits, hyphens and dots, 64 at most; its id by default.
    cpus : float
        Processors; by default all of the host's for namespaces, and two for a micro-VM or half of the host's.
    memory_mib : int
        Memory in MiB; by default half of the host's for namespaces, and 2048 for a micro-VM.
    shared_memory_mib : int
        What ``/dev/shm`` may hold of the memory, in MiB; half of it by default.
    disk_mib : int
        What it may write, in MiB; 10 GiB by default.
    processes : int
        Processes and threads at once; 1024 by default.
    network : str or list of str
        What it can reach: ``"none"`` (the default), ``"host"``, or in micro-VMs a list of hosts such as ``"pypi.org"``,
        ``"*.pypi.org"``, ``"192.0.2.1"`` and ``"10.1.0.0/16"``.
    mounts : iterable of Mount
        Files and folders of the host that it sees.
    publish : iterable of PublishedPort
        TCP ports inside it that programs of this machine reach.
    boot_timeout : float
        Seconds that its boot may take; by default what ``BLINK_BOOT_TIMEOUT`` says, or 30.
    progress : callable
        Called with a `Progress` some ten times a second while its image is fetched and unpacked; in the thread or on
        the event loop that waits.
    env : mapping of str to str
        Environment variables for all its programs, over the image's.
    cwd : str
        The folder that its programs run in unless told otherwise, over the image's.
    user : str
        The user that its programs run as unless told otherwise, over the image's.
    detached : bool
        Whether it goes on when it is closed or this process ends, until it is removed; `False` by default.
    key : str
        Makes a repeated call harmless: while what a key has made is there, nothing else is made with it, for 24 hours, also
        after a crash of this process. A detached sandbox is opened again; one that somebody has is `Busy`. It has 256 bytes
        at most.
    """

    env: Mapping[Text, Text] | None
    cwd: Text | None
    user: str | None
    detached: bool | None
    key: str | None


class PoolOptions(_MachineOptions, total=False):
    """The keyword arguments of what makes a pool: those of `SandboxOptions` but ``detached``, and more.

    ``hostname`` and ``publish`` are said of each claim. Commands are lists of words, or scripts for the sandbox's shell.

    Attributes
    ----------
    size : int
        Sandboxes that are ready at any time; 1 by default.
    max : int
        Sandboxes in all: those that are ready, boot, or were claimed and are not gone. The size and 64 more by default.
    name : str
        Its name, in statistics and errors.
    shared : bool
        Whether other processes of the home claim from it by its name (`Blink.open_pool`), which needs namespaces; `False`
        by default.
    max_age : float
        Seconds after its boot for which a sandbox waits until it is replaced; there is no limit by default.
    max_idle : float
        Seconds without a claim after which no sandbox is kept ready, until the next claim; there is no limit by default.
    refill : int
        Sandboxes that boot at once while no claim waits; half of the host's processors by default.
    when_empty : str
        What a claim does if none is ready: ``"boot"`` (the default) boots one, and fails if that does; ``"wait"`` waits for
        the next that the pool boots.
    reset_on_release : bool
        Whether the number of sandboxes stays the same: a released one is reset, and only then claimed again. `False` by
        default: another boots for each that is claimed.
    warmup : list of str or list of str
        Commands that run once, when the pool is made. All its sandboxes share the disk that they leave.
    prepare : list of str or list of str
        Commands that run in each sandbox before it is ready.
    start : list of str or list of str
        Programs that are started in each sandbox, and go on. One in which such a program has ended is replaced.
    interpreters : list of str
        Languages whose interpreter is started in each sandbox and waits: the first `Sandbox.run_code` of that language in a
        claimed sandbox takes none of the time that an interpreter takes to start. There is ``"python"``.
    warmup_timeout : float
        Seconds that a command of ``warmup`` or ``prepare`` may take; 300 by default.
    """

    env: Mapping[Text, Text] | None
    cwd: Text | None
    user: str | None
    size: int | None
    max: int | None
    name: str | None
    shared: bool | None
    max_age: float | None
    max_idle: float | None
    refill: int | None
    when_empty: Literal["boot", "wait"] | None
    reset_on_release: bool | None
    warmup: Iterable[str | Argv] | None
    prepare: Iterable[str | Argv] | None
    start: Iterable[str | Argv] | None
    interpreters: list[str] | None
    warmup_timeout: float | None


class ClaimOptions(TypedDict, total=False):
    """The keyword arguments of what claims a sandbox of a pool: what holds for that one alone.

    Attributes
    ----------
    env : mapping of str to str
        Environment variables for all its programs, over the pool's.
    labels : mapping of str to str
        Labels, which a session keeps; beside the pool's.
    hostname : str
        Its host name; its id by default.
    memory_mib : int
        Memory in MiB, no more than the pool's.
    network : str or list of str
        What it can reach, where that is not what the pool's sandboxes can: it is booted for this claim then.
    publish : iterable of PublishedPort
        TCP ports inside it that programs of this machine reach.
    timeout : float
        Seconds that a sandbox is waited for; 60 by default.
    key : str
        Makes a repeated claim harmless: while what a key has claimed is there, nothing else is claimed with it, for 24
        hours, also after a crash of this process. A session is opened again; a sandbox that somebody has is `Busy`.
    """

    env: Mapping[Text, Text] | None
    labels: Mapping[str, str] | None
    hostname: str | None
    memory_mib: int | None
    network: Literal["none", "host"] | list[str] | None
    publish: Iterable[PublishedPort] | None
    timeout: float | None
    key: str | None


class SessionOptions(_MachineOptions, total=False):
    """The keyword arguments of what opens a session: those of `SandboxOptions` but ``detached``, and more.

    They describe a session that is made. One that is there has what it was made with, and is not opened with anything else.

    Attributes
    ----------
    labels : mapping of str to str
        Labels for its owner's own use.
    idle_stop : float
        Stops its sandbox after so many seconds without a call, a process or a reader; it starts again with the next
        call. Never by default.
    warm : bool
        Keeps its sandbox running when it is closed or its host process ends; `False` by default.
    patience : float
        Seconds that another process that has the session is waited for; 10 by default.
    """

    env: Mapping[Text, Text] | None
    cwd: Text | None
    user: str | None
    labels: Mapping[str, str] | None
    idle_stop: float | None
    warm: bool | None
    patience: float | None
