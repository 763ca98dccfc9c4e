r"""Blink for asyncio: twins of the classes of `blink`, with the same methods, to be awaited.

What says ``as`` here is documented there. ``sandbox``, ``session`` and the like can be awaited, or be entered with
``async with`` at once. A task that is cancelled, as by `asyncio.timeout`, gives its call up: a program that ``exec`` or
``run`` waits for is killed with everything that it has started, and a change of a session comes to its end in the
background.

Examples
--------
>>> import asyncio
>>> from blink.aio import AsyncBlink
>>> async def main():
...     async with AsyncBlink(isolation="auto") as blink, blink.sandbox() as sandbox:
...         outputs = await asyncio.gather(*(sandbox.exec(["echo", str(n)]) for n in range(3)))
...         print([output.text for output in outputs])
...         async with await sandbox.spawn(["echo", "streamed"]) as process:
...             async for chunk in process.stdout:
...                 print(chunk)
>>> asyncio.run(main())
['0\n', '1\n', '2\n']
b'streamed\n'
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from . import _blink
from ._client import listening as _listening
from ._client import native as _native
from .errors import SandboxDied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Mapping
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self, Unpack

    from ._options import Argv, CommandOptions, Data, RunOptions, SandboxOptions, SessionOptions, Text
    from ._values import (
        Checkpoint,
        DirEntry,
        ExitStatus,
        FileInfo,
        Image,
        Isolation,
        IsolationChoice,
        Lineage,
        Output,
        ProcessInfo,
        ProcessLogs,
        Progress,
        PublishedPort,
        RemovedImages,
        Report,
        SessionInfo,
        TransferProgress,
    )
    from .errors import BlinkError

__all__ = [
    "AsyncBlink",
    "AsyncConnection",
    "AsyncFileReader",
    "AsyncFileWriter",
    "AsyncFiles",
    "AsyncProcess",
    "AsyncProcessInput",
    "AsyncProcessOutput",
    "AsyncSandbox",
    "AsyncSession",
    "AsyncSessionProcesses",
    "Opening",
    "doctor",
    "run",
    "run_code",
]

T = TypeVar("T")

_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _blink.Mailbox] = WeakKeyDictionary()


def _mailbox(loop: asyncio.AbstractEventLoop) -> _blink.Mailbox:
    """Where the results for a loop arrive, which wake it."""
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        mailbox = _mailboxes[loop] = _blink.Mailbox()
        loop.add_reader(mailbox.fileno(), mailbox.deliver)
    return mailbox


async def _result(call: _blink.Call[T]) -> T:
    """Wait for a call, and give it up where the waiting ends otherwise."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    call.start(_mailbox(loop), future)
    try:
        return await future
    finally:
        call.cancel()


class _Closes(Protocol):
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


C = TypeVar("C", bound=_Closes)


class Opening(Awaitable[C], Generic[C]):
    """What is being made: await it, or enter it with ``async with``, which closes it in the end."""

    __slots__ = ("_made", "_making")

    def __init__(self, making: Coroutine[Any, Any, C]) -> None:
        self._making = making

    def __await__(self) -> Generator[Any, None, C]:
        return self._making.__await__()

    async def __aenter__(self) -> C:
        self._made = await self._making
        return self._made

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._made.__aexit__(kind, error, trace)


class AsyncFileReader:
    """As `blink.FileReader`; ``async for`` gives its chunks."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.FileReader) -> None:
        self._native = native

    async def chunk(self) -> bytes:
        """As `blink.FileReader.chunk`. A task that is cancelled meanwhile takes nothing away."""
        return await _result(self._native.chunk())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.chunk():
            yield chunk

    async def close(self) -> None:
        """As `blink.FileReader.close`."""
        await _result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncFileWriter:
    """As `blink.FileWriter`."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.FileWriter) -> None:
        self._native = native

    async def write(self, data: Data) -> None:
        """As `blink.FileWriter.write`. After a task that was cancelled meanwhile, the file can only be given up."""
        await _result(self._native.write(data))

    async def finish(self) -> None:
        """As `blink.FileWriter.finish`."""
        await _result(self._native.finish())

    async def close(self) -> None:
        """As `blink.FileWriter.close`."""
        await _result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.finish()
        else:
            await self.close()


class AsyncFiles:
    """As `blink.Files`."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.Files) -> None:
        self._native = native

    async def read(self, path: Text, *, offset: int = 0, length: int | None = None) -> bytes:
        """As `blink.Files.read`."""
        return await _result(self._native.read(path, offset, length))

    async def read_text(self, path: Text) -> str:
        """As `blink.Files.read_text`."""
        return (await self.read(path)).decode()

    async def write(
        self, path: Text, data: Data, *, mode: int | None = None, append: bool = False, user: str | None = None
    ) -> None:
        """As `blink.Files.write`."""
        await _result(self._native.write(path, data, mode, append, user))

    def reader(self, path: Text, *, offset: int = 0, length: int | None = None) -> Opening[AsyncFileReader]:
        """As `blink.Files.reader`."""
        return Opening(_reader(self._native.reader(path, offset, length)))

    def writer(
        self, path: Text, *, mode: int | None = None, append: bool = False, user: str | None = None
    ) -> Opening[AsyncFileWriter]:
        """As `blink.Files.writer`."""
        return Opening(_writer(self._native.writer(path, mode, append, user)))

    async def stat(self, path: Text) -> FileInfo:
        """As `blink.Files.stat`."""
        return await _result(self._native.stat(path))

    async def exists(self, path: Text) -> bool:
        """As `blink.Files.exists`."""
        return await _result(self._native.exists(path))

    async def list(self, path: Text) -> list[DirEntry]:
        """As `blink.Files.list`."""
        return await _result(self._native.list(path))

    async def make_dir(self, path: Text) -> None:
        """As `blink.Files.make_dir`."""
        await _result(self._native.make_dir(path))

    async def remove(self, path: Text, *, recursive: bool = False) -> None:
        """As `blink.Files.remove`."""
        await _result(self._native.remove(path, recursive))

    async def rename(self, path: Text, to: Text) -> None:
        """As `blink.Files.rename`."""
        await _result(self._native.rename(path, to))

    async def copy(self, path: Text, to: Text) -> None:
        """As `blink.Files.copy`."""
        await _result(self._native.copy(path, to))

    async def upload(self, source: Text, path: Text) -> None:
        """As `blink.Files.upload`."""
        await _result(self._native.upload(source, path))

    async def download(self, path: Text, destination: Text) -> None:
        """As `blink.Files.download`."""
        await _result(self._native.download(path, destination))


class AsyncProcessOutput:
    """As `blink.ProcessOutput`; ``async for`` gives its chunks."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.OutputStream) -> None:
        self._native = native

    async def chunk(self) -> bytes:
        """As `blink.ProcessOutput.chunk`. A task that is cancelled meanwhile takes nothing away."""
        return await _result(self._native.chunk())

    async def read(self) -> bytes:
        """As `blink.ProcessOutput.read`."""
        return b"".join([chunk async for chunk in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.chunk():
            yield chunk

    @property
    def offset(self) -> int:
        """As `blink.ProcessOutput.offset`."""
        return self._native.offset

    async def close(self) -> None:
        """As `blink.ProcessOutput.close`."""
        await _result(self._native.close())


class AsyncProcessInput:
    """As `blink.ProcessInput`."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.InputStream) -> None:
        self._native = native

    async def write(self, data: Data) -> None:
        """As `blink.ProcessInput.write`. A task that is cancelled meanwhile may have written a part."""
        await _result(self._native.write(data))

    async def close(self) -> None:
        """As `blink.ProcessInput.close`."""
        await _result(self._native.close())

    async def leave(self) -> None:
        """As `blink.ProcessInput.leave`."""
        await _result(self._native.leave())


class AsyncProcess:
    """As `blink.Process`."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.Process) -> None:
        self._native = native

    @property
    def id(self) -> int:
        """As `blink.Process.id`."""
        return self._native.id

    @property
    def pid(self) -> int:
        """As `blink.Process.pid`."""
        return self._native.pid

    @property
    def stdin(self) -> AsyncProcessInput:
        """As `blink.Process.stdin`."""
        return AsyncProcessInput(self._native.stdin())

    @property
    def stdout(self) -> AsyncProcessOutput:
        """As `blink.Process.stdout`."""
        return AsyncProcessOutput(self._native.stdout())

    @property
    def stderr(self) -> AsyncProcessOutput:
        """As `blink.Process.stderr`."""
        return AsyncProcessOutput(self._native.stderr())

    async def wait(self, timeout: float | None = None) -> ExitStatus:
        """As `blink.Process.wait`."""
        return await _result(self._native.wait(timeout))

    async def output(self) -> Output:
        """As `blink.Process.output`."""
        return await _result(self._native.output())

    async def signal(self, signal: int, *, tree: bool = False) -> None:
        """As `blink.Process.signal`."""
        await _result(self._native.signal(signal, tree))

    async def kill(self) -> None:
        """As `blink.Process.kill`."""
        await _result(self._native.kill())

    async def resize(self, rows: int, cols: int) -> None:
        """As `blink.Process.resize`."""
        await _result(self._native.resize(rows, cols))

    async def release(self) -> None:
        """As `blink.Process.release`."""
        await _result(self._native.release())

    async def close(self) -> None:
        """As `blink.Process.close`."""
        await _result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # With its sandbox it has ended as well.
        with suppress(SandboxDied):
            await self.release()

    def __repr__(self) -> str:
        return f"<blink.AsyncProcess {self.id}, pid {self.pid}>"


class AsyncConnection:
    """As `blink.Connection`."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.Connection) -> None:
        self._native = native

    async def read(self, most: int = 65536) -> bytes:
        """As `blink.Connection.read`. A task that is cancelled meanwhile takes nothing away."""
        return await _result(self._native.read(most))

    async def write(self, data: Data) -> None:
        """As `blink.Connection.write`. A task that is cancelled meanwhile may have written a part."""
        await _result(self._native.write(data))

    async def end(self) -> None:
        """As `blink.Connection.end`."""
        await _result(self._native.end())

    async def close(self) -> None:
        """As `blink.Connection.close`."""
        await _result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncMachine:
    """What sandboxes and sessions can do alike."""

    __slots__ = ("_machine",)

    def __init__(self, machine: _blink.Machine) -> None:
        self._machine = machine

    async def exec(self, argv: Argv, **options: Unpack[CommandOptions]) -> Output:
        """As `blink.Sandbox.exec`."""
        return await _result(self._machine.exec(argv, options))

    async def run_code(self, code: str, language: str = "python", **options: Unpack[CommandOptions]) -> Output:
        """As `blink.Sandbox.run_code`."""
        return await _result(self._machine.run_code(code, language, options))

    async def spawn(self, argv: Argv, **options: Unpack[CommandOptions]) -> AsyncProcess:
        """As `blink.Sandbox.spawn`."""
        return AsyncProcess(await _result(self._machine.spawn(argv, options)))

    async def process(self, id: int, *, stdout_offset: int = 0, stderr_offset: int = 0) -> AsyncProcess:
        """As `blink.Sandbox.process`."""
        return AsyncProcess(await _result(self._machine.process(id, stdout_offset, stderr_offset)))

    async def processes(self) -> list[ProcessInfo]:
        """As `blink.Sandbox.processes`."""
        return await _result(self._machine.processes())

    @property
    def files(self) -> AsyncFiles:
        """Its files."""
        return AsyncFiles(self._machine.files())

    async def connect_tcp(self, host: str, port: int) -> AsyncConnection:
        """As `blink.Sandbox.connect_tcp`."""
        return AsyncConnection(await _result(self._machine.connect_tcp(host, port)))

    async def connect_unix(self, path: Text) -> AsyncConnection:
        """As `blink.Sandbox.connect_unix`."""
        return AsyncConnection(await _result(self._machine.connect_unix(path)))

    async def published(self) -> list[PublishedPort]:
        """As `blink.Sandbox.published`."""
        return await _result(self._machine.published())

    async def agent(self) -> str:
        """As `blink.Sandbox.agent`."""
        return await _result(self._machine.agent())

    async def ping(self) -> None:
        """As `blink.Sandbox.ping`."""
        await _result(self._machine.ping())


class AsyncSandbox(AsyncMachine):
    """As `blink.Sandbox`."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _blink.Sandbox) -> None:
        super().__init__(native.machine())
        self._native = native

    @property
    def id(self) -> str:
        """As `blink.Sandbox.id`."""
        return self._native.id

    @property
    def isolation(self) -> Isolation:
        """As `blink.Sandbox.isolation`."""
        return self._native.isolation

    @property
    def death(self) -> BlinkError | None:
        """As `blink.Sandbox.death`."""
        return self._native.death

    @property
    def closed(self) -> bool:
        """As `blink.Sandbox.closed`."""
        return self._native.closed

    async def close(self) -> None:
        """As `blink.Sandbox.close`."""
        await _result(self._native.close())

    async def remove(self) -> None:
        """As `blink.Sandbox.remove`."""
        await _result(self._native.remove())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<blink.AsyncSandbox {self.id}, {'closed' if self.closed else self.isolation}>"


class AsyncSession(AsyncMachine):
    """As `blink.Session`."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _blink.Session) -> None:
        super().__init__(native.machine())
        self._native = native

    @property
    def id(self) -> str:
        """As `blink.Session.id`."""
        return self._native.id

    @property
    def was_created(self) -> bool:
        """As `blink.Session.was_created`."""
        return self._native.was_created

    @property
    def closed(self) -> bool:
        """As `blink.Session.closed`."""
        return self._native.closed

    async def info(self) -> SessionInfo:
        """As `blink.Session.info`."""
        return await _result(self._native.info())

    async def start(self) -> None:
        """As `blink.Session.start`."""
        await _result(self._native.start())

    async def stop(self) -> None:
        """As `blink.Session.stop`."""
        await _result(self._native.stop())

    async def rename(self, name: str) -> None:
        """As `blink.Session.rename`."""
        await _result(self._native.rename(name))

    async def checkpoint(self, name: str, *, require_frozen: bool = False) -> Checkpoint:
        """As `blink.Session.checkpoint`."""
        return await _result(self._native.checkpoint(name, require_frozen))

    async def checkpoints(self) -> list[Checkpoint]:
        """As `blink.Session.checkpoints`."""
        return await _result(self._native.checkpoints())

    async def lineage(self) -> Lineage:
        """As `blink.Session.lineage`."""
        return await _result(self._native.lineage())

    async def restore(self, checkpoint: str) -> None:
        """As `blink.Session.restore`."""
        await _result(self._native.restore(checkpoint))

    async def remove_checkpoint(self, checkpoint: str) -> None:
        """As `blink.Session.remove_checkpoint`."""
        await _result(self._native.remove_checkpoint(checkpoint))

    def fork(self, name: str, *, checkpoint: str | None = None) -> Opening[AsyncSession]:
        """As `blink.Session.fork`."""
        return Opening(_session(self._native.fork(name, checkpoint)))

    async def fork_many(self, names: Iterable[str]) -> list[AsyncSession]:
        """As `blink.Session.fork_many`."""
        return [AsyncSession(fork) for fork in await _result(self._native.fork_many(list(names)))]

    async def export(
        self,
        archive: Text,
        *,
        checkpoint: str | None = None,
        progress: Callable[[TransferProgress], object] | None = None,
    ) -> None:
        """As `blink.Session.export`."""
        await _result(self._native.export(archive, checkpoint, progress))

    async def export_oci(
        self,
        path: Text,
        *,
        checkpoint: str | None = None,
        progress: Callable[[TransferProgress], object] | None = None,
    ) -> None:
        """As `blink.Session.export_oci`."""
        await _result(self._native.export_oci(path, checkpoint, progress))

    async def close(self) -> None:
        """As `blink.Session.close`."""
        await _result(self._native.close())

    async def remove(self) -> None:
        """As `blink.Session.remove`."""
        await _result(self._native.remove())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<blink.AsyncSession {self.id}{', closed' if self.closed else ''}>"


class AsyncSessionProcesses:
    """As `blink.SessionProcesses`."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _blink.SessionProcesses) -> None:
        self._native = native

    @property
    def isolation(self) -> Isolation:
        """As `blink.SessionProcesses.isolation`."""
        return self._native.isolation

    @property
    def closed(self) -> bool:
        """As `blink.SessionProcesses.closed`."""
        return self._native.closed

    async def list(self) -> list[ProcessInfo]:
        """As `blink.SessionProcesses.list`."""
        return await _result(self._native.list())

    async def logs(self, id: int) -> ProcessLogs:
        """As `blink.SessionProcesses.logs`."""
        return await _result(self._native.logs(id))

    async def wait(self, id: int, timeout: float | None = None) -> ExitStatus:
        """As `blink.SessionProcesses.wait`."""
        return await _result(self._native.wait(id, timeout))

    async def signal(self, id: int, signal: int) -> None:
        """As `blink.SessionProcesses.signal`."""
        await _result(self._native.signal(id, signal))

    async def kill(self, id: int) -> None:
        """As `blink.SessionProcesses.kill`."""
        await _result(self._native.kill(id))

    async def attach(self, id: int, *, stdout_offset: int = 0, stderr_offset: int = 0) -> AsyncProcess:
        """As `blink.SessionProcesses.attach`."""
        return AsyncProcess(await _result(self._native.attach(id, stdout_offset, stderr_offset)))

    async def close(self) -> None:
        """As `blink.SessionProcesses.close`."""
        await _result(self._native.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<blink.AsyncSessionProcesses, {'closed' if self.closed else self.isolation}>"


async def _reader(call: _blink.Call[_blink.FileReader]) -> AsyncFileReader:
    return AsyncFileReader(await _result(call))


async def _writer(call: _blink.Call[_blink.FileWriter]) -> AsyncFileWriter:
    return AsyncFileWriter(await _result(call))


async def _sandbox(call: _blink.Call[_blink.Sandbox]) -> AsyncSandbox:
    return AsyncSandbox(await _result(call))


async def _session(call: _blink.Call[_blink.Session]) -> AsyncSession:
    return AsyncSession(await _result(call))


async def _session_processes(call: _blink.Call[_blink.SessionProcesses]) -> AsyncSessionProcesses:
    return AsyncSessionProcesses(await _result(call))


class AsyncBlink:
    """As `blink.Blink`; its home is opened by ``async with``, or by the first call."""

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
    ) -> None:
        self._native = _native(
            home, isolation, offline, mirrors, insecure_registries, registry_ca, credentials, docker_config
        )

    async def run(self, argv: Argv, **options: Unpack[RunOptions]) -> Output:
        """As `blink.Blink.run`."""
        return await _result(self._native.run(argv, options))

    async def run_code(self, code: str, language: str = "python", **options: Unpack[RunOptions]) -> Output:
        """As `blink.Blink.run_code`."""
        return await _result(self._native.run_code(code, language, options))

    def sandbox(self, **options: Unpack[SandboxOptions]) -> Opening[AsyncSandbox]:
        """As `blink.Blink.sandbox`."""
        return Opening(_sandbox(self._native.sandbox(options)))

    async def fetch_image(self, **options: Unpack[SandboxOptions]) -> None:
        """As `blink.Blink.fetch_image`."""
        await _result(self._native.fetch_image(options))

    async def sandboxes(self) -> list[str]:
        """As `blink.Blink.sandboxes`."""
        return await _result(self._native.sandboxes())

    def open(self, id: str) -> Opening[AsyncSandbox]:
        """As `blink.Blink.open`."""
        return Opening(_sandbox(self._native.take_sandbox(id)))

    def session(self, name: str, **options: Unpack[SessionOptions]) -> Opening[AsyncSession]:
        """As `blink.Blink.session`."""
        return Opening(_session(self._native.session(name, options)))

    def import_session(
        self,
        name: str,
        archive: Text,
        *,
        import_progress: Callable[[TransferProgress], object] | None = None,
        **options: Unpack[SessionOptions],
    ) -> Opening[AsyncSession]:
        """As `blink.Blink.import_session`."""
        _listening(options, import_progress)
        return Opening(_session(self._native.import_session(name, archive, options)))

    def take_session(self, name: str, *, patience: float | None = None) -> Opening[AsyncSession]:
        """As `blink.Blink.take_session`."""
        return Opening(_session(self._native.take_session(name, patience)))

    async def sessions(self) -> list[SessionInfo]:
        """As `blink.Blink.sessions`."""
        return await _result(self._native.sessions())

    async def session_info(self, name: str) -> SessionInfo:
        """As `blink.Blink.session_info`."""
        return await _result(self._native.session_info(name))

    async def session_lineage(self, name: str) -> Lineage:
        """As `blink.Blink.session_lineage`."""
        return await _result(self._native.session_lineage(name))

    def session_processes(self, name: str) -> Opening[AsyncSessionProcesses]:
        """As `blink.Blink.session_processes`."""
        return Opening(_session_processes(self._native.session_processes(name)))

    async def prune_sessions(self) -> int:
        """As `blink.Blink.prune_sessions`."""
        return await _result(self._native.prune_sessions())

    async def pull(self, image: Text, *, progress: Callable[[Progress], object] | None = None) -> Image:
        """As `blink.Blink.pull`."""
        return await _result(self._native.pull(image, progress))

    async def images(self) -> list[Image]:
        """As `blink.Blink.images`."""
        return await _result(self._native.images())

    async def remove_image(self, name: str) -> RemovedImages:
        """As `blink.Blink.remove_image`."""
        return await _result(self._native.remove_image(name))

    async def prune_images(self) -> RemovedImages:
        """As `blink.Blink.prune_images`."""
        return await _result(self._native.prune_images())

    async def doctor(self) -> Report:
        """As `blink.Blink.doctor`."""
        return await _result(self._native.doctor())

    @property
    def closed(self) -> bool:
        """As `blink.Blink.closed`."""
        return self._native.closed

    async def close(self) -> None:
        """As `blink.Blink.close`."""
        await _result(self._native.close())

    async def __aenter__(self) -> Self:
        await _result(self._native.open())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


_default: AsyncBlink | None = None


def _library() -> AsyncBlink:
    """Return the library of the default home; what it holds is the home's, not a loop's."""
    global _default
    if _default is None or _default.closed:
        _default = AsyncBlink()
    return _default


async def run(argv: Argv, **options: Unpack[RunOptions]) -> Output:
    """As `blink.run`."""
    return await _library().run(argv, **options)


async def run_code(code: str, language: str = "python", **options: Unpack[RunOptions]) -> Output:
    """As `blink.run_code`."""
    return await _library().run_code(code, language, **options)


async def doctor() -> Report:
    """As `blink.doctor`."""
    return await _library().doctor()
