"""What can go wrong, by what the caller can do about it.

All exceptions of Blink's have one base, `BlinkError`. Those that the library itself raises have a kind, the same in
every language, and each is also the built-in exception that fits it: ``except FileNotFoundError`` works, and so does
``except blink.NotFound``.

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
from typing import TYPE_CHECKING, ClassVar

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


class BlinkError(Exception):
    """The base of all exceptions of Blink's.

    Attributes
    ----------
    kind : str or None
        The kind's name, the same in every language; `None` for `CommandFailed`, which is no failure of Blink's.
    output : Output or None
        What the program had written when it was cut off, where there was one.
    errno : int or None
        The error number of the system call that failed, in the sandbox or on the host, as in the module `errno`.
    filename : str or bytes or None
        The path that it is about, where it is about one of a file operation's own.
    """

    kind: ClassVar[str | None] = None
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
    """The request cannot be right; correct it."""

    kind = "InvalidArgument"


class NotFound(BlinkError, FileNotFoundError):
    """What it names does not exist."""

    kind = "NotFound"


class AlreadyExists(BlinkError, FileExistsError):
    """What it would make exists already."""

    kind = "AlreadyExists"


class Busy(BlinkError, RuntimeError):
    """Somebody else has it now; try again later. The message names them."""

    kind = "Busy"


class IsolationUnavailable(BlinkError, RuntimeError):
    """The isolation that was asked for cannot be had here; the message says why, and how to ask for less."""

    kind = "IsolationUnavailable"


class ImageUnavailable(BlinkError, OSError):
    """The image cannot be had; the message says what is missing, and the ways without it."""

    kind = "ImageUnavailable"


class ResourceExhausted(BlinkError, OSError):
    """A limit was reached: disk, memory, processes, open files. Give more, or use less."""

    kind = "ResourceExhausted"


class ExecTimeout(BlinkError, TimeoutError):
    """It took longer than it was given; `output` has what a program had written until then."""

    kind = "Timeout"


class SandboxDied(BlinkError, ConnectionError):
    """The sandbox has ended unexpectedly; the message holds the end of its console. Make a new one."""

    kind = "SandboxDied"


class ProtocolError(BlinkError, ConnectionError):
    """The sandbox broke the rules of the protocol, and was cut off. Its program may be hostile."""

    kind = "Protocol"


class Corrupt(BlinkError, ValueError):
    """Data is not what it should be; it was not used."""

    kind = "Corrupt"


class Unsupported(BlinkError, NotImplementedError):
    """This version, or this sandbox, cannot do that."""

    kind = "Unsupported"


class Internal(BlinkError, RuntimeError):
    """A defect in Blink, or a failure of the machine that has no better kind."""

    kind = "Internal"


class PermissionDenied(BlinkError, PermissionError):
    """You, or the sandbox, may not do that; use another place, or change what is permitted."""

    kind = "PermissionDenied"
    errno = _errno.EACCES


class IsADirectory(BlinkError, IsADirectoryError):
    """It is a folder, and something else is needed."""

    kind = "IsADirectory"
    errno = _errno.EISDIR


class NotADirectory(BlinkError, NotADirectoryError):
    """It, or a part of its path, is not a folder, and one is needed."""

    kind = "NotADirectory"
    errno = _errno.ENOTDIR


class ReadOnly(BlinkError, OSError):
    """It is on a file system that is read-only; use another place."""

    kind = "ReadOnly"
    errno = _errno.EROFS


class NameTooLong(BlinkError, OSError):
    """A file's name, or a path, is longer than the file system takes; use a shorter one."""

    kind = "NameTooLong"
    errno = _errno.ENAMETOOLONG


class DirectoryNotEmpty(BlinkError, OSError):
    """The folder is not empty; remove what is in it first, or remove it with all that is in it."""

    kind = "DirectoryNotEmpty"
    errno = _errno.ENOTEMPTY


class CommandFailed(BlinkError, RuntimeError):
    """A program has ended with another code than 0, and `Output.check` was asked; `output` is what it has left."""


#: The class of each kind.
BY_KIND: dict[str, type[BlinkError]] = {
    error.kind: error for error in BlinkError.__subclasses__() if error.kind is not None
}
