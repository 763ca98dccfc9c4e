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
    """

    env: Mapping[Text, Text] | None
    cwd: Text | None
    user: str | None
    detached: bool | None


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
