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

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ._values import Output

__all__ = [
    "AlreadyExists",
    "BlinkError",
    "Busy",
    "CommandFailed",
    "Corrupt",
    "ExecTimeout",
    "ImageUnavailable",
    "Internal",
    "InvalidArgument",
    "IsolationUnavailable",
    "NotFound",
    "ProtocolError",
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
    """

    kind: ClassVar[str | None] = None
    output: Output | None = None

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
    """A limit was reached: disk, memory, processes. Give more, or use less."""

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


class CommandFailed(BlinkError, RuntimeError):
    """A program has ended with another code than 0, and `Output.check` was asked; `output` is what it has left."""


#: The class of each kind.
BY_KIND: dict[str, type[BlinkError]] = {
    error.kind: error for error in BlinkError.__subclasses__() if error.kind is not None
}
