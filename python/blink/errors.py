"""Exceptions, grouped by what the caller can do about them.

All of Blink's exceptions derive from `BlinkError`. Those raised by the library have a kind, which is the same in every
language, and each also derives from the built-in exception that fits it: ``except FileNotFoundError`` works, and so does
``except blink.NotFound``. ``__cause__`` is what caused one, such as the `OSError` of a failed system call.

Examples
--------
>>> import blink
>>> try:
...     blink.Blink(isolation="none of them")
... except ValueError as error:
...     print(type(error).__name__, error.kind)
InvalidArgument InvalidArgument
"""

from __future__ import annotations

import errno as _errno
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from ._values import Output

__all__ = [
    "AlreadyExists",
    "BlinkError",
    "Busy",
    "CommandFailed",
    "Corrupt",
    "DirectoryNotEmpty",
    "ExecTimeout",
    "Holder",
    "ImageUnavailable",
    "Internal",
    "InvalidArgument",
    "IsADirectory",
    "IsolationUnavailable",
    "NameTooLong",
    "NotADirectory",
    "NotFound",
    "PermissionDenied",
    "ProtocolError",
    "ReadOnly",
    "ResourceExhausted",
    "SandboxDied",
    "Unsupported",
]


class Holder(NamedTuple):
    """A process that is using what a call asked for.

    Attributes
    ----------
    pid : int or None
        The process's number on this host; `None` if it is not known.
    command : str or None
        The beginning of its command line; `None` if it is not known.
    """

    pid: int | None
    command: str | None


class BlinkError(Exception):
    """The base class of all of Blink's exceptions.

    Attributes
    ----------
    kind : str or None
        The kind's name, the same in every language; `None` for `CommandFailed`, which is not a failure of Blink.
    retryable : bool
        Whether the same call may succeed later without anyone changing anything: something was in use, or a registry could
        not be reached.
    holders : tuple of Holder
        The processes that are using what was asked for, for `Busy`; empty if they are not known.
    output : Output or None
        What the program had written when it was cut off, if there was one.
    errno : int or None
        The error number of the system call that failed, in the sandbox or on the host, as in the `errno` module.
    filename : str or bytes or None
        The path that a file operation failed at, if there is one.
    """

    kind: ClassVar[str | None] = None
    retryable: bool = False
    holders: tuple[Holder, ...] = ()
    output: Output | None = None
    # In the instance rather than in `OSError`'s own place, which only its arguments fill: it is pickled, too.
    errno: int | None = None
    filename: str | bytes | None = None

    @property
    def message(self) -> str:
        """What was tried, what went wrong, and what to do."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return self.message


class InvalidArgument(BlinkError, ValueError):
    """The request is invalid; correct it."""

    kind = "InvalidArgument"


class NotFound(BlinkError, FileNotFoundError):
    """What it names does not exist."""

    kind = "NotFound"


class AlreadyExists(BlinkError, FileExistsError):
    """What it would create exists already."""

    kind = "AlreadyExists"


class Busy(BlinkError, RuntimeError):
    """Someone else is using it; try again later. `holders` says who."""

    kind = "Busy"


class IsolationUnavailable(BlinkError, RuntimeError):
    """The requested isolation is not available on this host; the message says why, and how to ask for less."""

    kind = "IsolationUnavailable"


class ImageUnavailable(BlinkError, OSError):
    """The image could not be fetched; the message says what is missing, and how to do without it."""

    kind = "ImageUnavailable"


class ResourceExhausted(BlinkError, OSError):
    """A limit was reached: disk, memory, processes, open files. Raise it, or use less."""

    kind = "ResourceExhausted"


class ExecTimeout(BlinkError, TimeoutError):
    """It did not finish in the time it was given; `output` has what a program had written until then."""

    kind = "Timeout"


class SandboxDied(BlinkError, ConnectionError):
    """The sandbox ended unexpectedly; the message contains the end of its console. Create a new one."""

    kind = "SandboxDied"


class ProtocolError(BlinkError, ConnectionError):
    """The sandbox violated the protocol and was disconnected. Its program may be hostile."""

    kind = "Protocol"


class Corrupt(BlinkError, ValueError):
    """The data is damaged; it was not used."""

    kind = "Corrupt"


class Unsupported(BlinkError, NotImplementedError):
    """This version, or this sandbox, does not support the operation."""

    kind = "Unsupported"


class Internal(BlinkError, RuntimeError):
    """A bug in Blink, or a failure of the host that has no better kind."""

    kind = "Internal"


class PermissionDenied(BlinkError, PermissionError):
    """You, or the sandbox, may not do that; use another path, or change its permissions."""

    kind = "PermissionDenied"
    errno = _errno.EACCES


class IsADirectory(BlinkError, IsADirectoryError):
    """The path is a directory, and something else is needed."""

    kind = "IsADirectory"
    errno = _errno.EISDIR


class NotADirectory(BlinkError, NotADirectoryError):
    """The path, or a part of it, is not a directory, and one is needed."""

    kind = "NotADirectory"
    errno = _errno.ENOTDIR


class ReadOnly(BlinkError, OSError):
    """The file system is read-only; use another path."""

    kind = "ReadOnly"
    errno = _errno.EROFS


class NameTooLong(BlinkError, OSError):
    """A file name or path is longer than the file system allows; use a shorter one."""

    kind = "NameTooLong"
    errno = _errno.ENAMETOOLONG


class DirectoryNotEmpty(BlinkError, OSError):
    """The directory is not empty; remove its contents first, or remove it recursively."""

    kind = "DirectoryNotEmpty"
    errno = _errno.ENOTEMPTY


class CommandFailed(BlinkError, RuntimeError):
    """`Output.check` was called on the output of a program that did not exit with 0; `output` is that output."""


#: The class of each kind.
BY_KIND: dict[str, type[BlinkError]] = {
    error.kind: error for error in BlinkError.__subclasses__() if error.kind is not None
}
