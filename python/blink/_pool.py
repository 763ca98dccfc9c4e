"""Pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._sandbox import Sandbox, Session

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from . import _blink
    from ._options import ClaimOptions
    from ._values import PoolStats


class Pool:
    r"""Sandboxes that are booted before they are asked for, from `Blink.pool`.

    A claimed sandbox is used once: it is removed when it is closed, and never handed out again. As a context manager, the
    pool is closed at its end; what was claimed stays with who has it. All methods may be called from several threads at
    once.

    Examples
    --------
    >>> import blink
    >>> with blink.Blink(isolation="auto").pool(size=2, warmup=["echo ready > /srv/state"]) as pool:
    ...     with pool.claim(env={"TASK": "42"}) as sandbox:
    ...         sandbox.exec(["sh", "-c", "cat /srv/state; echo $TASK"]).text
    'ready\n42\n'
    """

    __slots__ = ("__weakref__", "_native")

    def __init__(self, pool: _blink.Pool) -> None:
        self._native = pool

    @property
    def name(self) -> str | None:
        """Its name, if it has one."""
        return self._native.name

    def claim(self, **options: Unpack[ClaimOptions]) -> Sandbox:
        """Claim a sandbox: one that is ready if there is one, and otherwise the next that boots.

        Who comes first is served first.

        Parameters
        ----------
        **options
            Those of `ClaimOptions`: ``env``, ``labels``, ``hostname``, ``memory_mib``, ``network``, ``publish``,
            ``timeout``, ``key``.

        Raises
        ------
        ExecTimeout
            There was none in time.
        InvalidArgument
            For invalid options, and once the pool is closed.
        NotFound
            The process that kept the pool is gone.
        BlinkError
            As for `Blink.sandbox`, if a boot for this claim fails.
        """
        return Sandbox(self._native.claim(options).wait())

    def claim_as(self, name: str, **options: Unpack[ClaimOptions]) -> Session:
        """Claim a sandbox and give it a name: from then on it is a session, with the processes and the disk that it has.

        It costs no boot.

        Parameters
        ----------
        name : str
            The session's.
        **options
            As for `claim`.

        Raises
        ------
        AlreadyExists
            Another session has the name; otherwise as for `claim`.
        """
        return Session(self._native.claim_as(name, options).wait())

    def ready(self) -> None:
        """Wait until as many sandboxes are ready as are to be.

        Raises
        ------
        BlinkError
            What made a boot fail meanwhile, or a command of ``prepare``.
        """
        self._native.ready().wait()

    def stats(self) -> PoolStats:
        """Return what has happened in it, and what it has now."""
        return self._native.stats().wait()

    def drain(self, timeout: float = 60.0) -> None:
        """Close it, also one of another process, and wait until the claimed sandboxes are gone.

        Parameters
        ----------
        timeout : float, optional
            Seconds that they are waited for; 60 by default.

        Raises
        ------
        ExecTimeout
            Some are still in use; the pool is closed nevertheless.
        """
        self._native.drain(timeout).wait()

    @property
    def closed(self) -> bool:
        """Whether it was closed here."""
        return self._native.closed

    def close(self) -> None:
        """Close it, and wait until nothing is left of the sandboxes that wait in it.

        A pool that another process keeps is let go of. No-op once it is closed.
        """
        self._native.close().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
