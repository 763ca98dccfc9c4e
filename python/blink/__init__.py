r"""Blink runs untrusted code in sandboxes.

A sandbox has its own files, processes, users and network. What comes out of it is what the program wrote, byte for byte;
a timeout ends everything that the program has started; when a sandbox goes, nothing of it stays.

`Blink` is the way in. Its ``sandbox`` makes a `Sandbox` and its ``session`` opens a `Session`, which run programs to an
`Output` or spawn them as a `Process`, and have `Files`. `blink.aio` has the same for asyncio: `AsyncBlink`,
`AsyncSandbox`, `AsyncSession`, with the same methods. Exceptions have one base, `BlinkError`.

Times are seconds. Waiting lets other threads go on, and Ctrl-C ends it, with what is waited for. What a forked child
process gets from its parent cannot be used there.

Examples
--------
>>> import blink
>>> output = blink.run_code("print(6*7)", language="python", isolation="auto")
>>> output.text, output.exit_code
('42\n', 0)
"""

from __future__ import annotations

import atexit as _atexit
from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import _blink, errors
from ._client import Blink, doctor, run, run_code
from ._connection import Connection
from ._file_streams import FileReader, FileWriter
from ._files import Files
from ._options import PIPE, ClaimOptions, CommandOptions, PoolOptions, RunOptions, SandboxOptions, SessionOptions
from ._pool import Pool
from ._process import Process, ProcessInput, ProcessOutput
from ._processes import SessionProcesses
from ._sandbox import Sandbox, Session
from ._values import (
    Check,
    Checkpoint,
    Declined,
    DirEntry,
    ExitStatus,
    FileInfo,
    Image,
    Latency,
    Lineage,
    Mount,
    Output,
    PoolStats,
    ProcessInfo,
    ProcessLogs,
    Progress,
    PublishedPort,
    RemovedImages,
    Report,
    SessionInfo,
    TransferProgress,
)
from .errors import (
    AlreadyExists,
    BlinkError,
    Busy,
    CommandFailed,
    Corrupt,
    DirectoryNotEmpty,
    ExecTimeout,
    Holder,
    ImageUnavailable,
    Internal,
    InvalidArgument,
    IsADirectory,
    IsolationUnavailable,
    NameTooLong,
    NotADirectory,
    NotFound,
    PermissionDenied,
    ProtocolError,
    ReadOnly,
    ResourceExhausted,
    SandboxDied,
    Unsupported,
)

__version__ = _blink.VERSION

_atexit.register(_blink.farewell)

if _TYPE_CHECKING:
    from . import aio
    from .aio import (
        AsyncBlink,
        AsyncConnection,
        AsyncFileReader,
        AsyncFiles,
        AsyncFileWriter,
        AsyncPool,
        AsyncProcess,
        AsyncSandbox,
        AsyncSession,
        AsyncSessionProcesses,
    )
else:

    def __getattr__(name: str) -> object:
        # Importing asyncio takes longer than all else here, and not everybody needs it.
        if name == "aio" or name in __all__:
            import importlib

            aio = importlib.import_module(".aio", __name__)
            return aio if name == "aio" else getattr(aio, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "PIPE",
    "AlreadyExists",
    "AsyncBlink",
    "AsyncConnection",
    "AsyncFileReader",
    "AsyncFileWriter",
    "AsyncFiles",
    "AsyncPool",
    "AsyncProcess",
    "AsyncSandbox",
    "AsyncSession",
    "AsyncSessionProcesses",
    "Blink",
    "BlinkError",
    "Busy",
    "Check",
    "Checkpoint",
    "ClaimOptions",
    "CommandFailed",
    "CommandOptions",
    "Connection",
    "Corrupt",
    "Declined",
    "DirEntry",
    "DirectoryNotEmpty",
    "ExecTimeout",
    "ExitStatus",
    "FileInfo",
    "FileReader",
    "FileWriter",
    "Files",
    "Holder",
    "Image",
    "ImageUnavailable",
    "Internal",
    "InvalidArgument",
    "IsADirectory",
    "IsolationUnavailable",
    "Latency",
    "Lineage",
    "Mount",
    "NameTooLong",
    "NotADirectory",
    "NotFound",
    "Output",
    "PermissionDenied",
    "Pool",
    "PoolOptions",
    "PoolStats",
    "Process",
    "ProcessInfo",
    "ProcessInput",
    "ProcessLogs",
    "ProcessOutput",
    "Progress",
    "ProtocolError",
    "PublishedPort",
    "ReadOnly",
    "RemovedImages",
    "Report",
    "ResourceExhausted",
    "RunOptions",
    "Sandbox",
    "SandboxDied",
    "SandboxOptions",
    "Session",
    "SessionInfo",
    "SessionOptions",
    "SessionProcesses",
    "TransferProgress",
    "Unsupported",
    "aio",
    "doctor",
    "errors",
    "run",
    "run_code",
]
