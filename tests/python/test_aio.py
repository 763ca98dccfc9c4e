"""The twins for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import pickle
from typing import TYPE_CHECKING, Any

import blink
import pytest
from blink import aio
from conftest import ENGINE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from blink import Blink, Sandbox
    from blink.aio import AsyncBlink, AsyncSandbox

TWINS = [
    (blink.Blink, aio.AsyncBlink),
    (blink.Sandbox, aio.AsyncSandbox),
    (blink.Session, aio.AsyncSession),
    (blink.Pool, aio.AsyncPool),
    (blink.Process, aio.AsyncProcess),
    (blink.ProcessInput, aio.AsyncProcessInput),
    (blink.ProcessOutput, aio.AsyncProcessOutput),
    (blink.Files, aio.AsyncFiles),
    (blink.FileReader, aio.AsyncFileReader),
    (blink.FileWriter, aio.AsyncFileWriter),
    (blink.Connection, aio.AsyncConnection),
    (blink.SessionProcesses, aio.AsyncSessionProcesses),
]


@pytest.mark.parametrize(("one", "other"), TWINS, ids=lambda cls: cls.__name__)
def test_twins_have_the_same_methods(one: type, other: type) -> None:
    def public(cls: type) -> dict[str, object]:
        return {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}

    assert public(one).keys() == public(other).keys()
    for name, method in public(one).items():
        twin = public(other)[name]
        if isinstance(method, property):
            assert isinstance(twin, property)
            continue
        assert callable(method)
        assert callable(twin)
        assert inspect.signature(method).parameters == inspect.signature(twin).parameters, name
        returned = str(inspect.signature(twin).return_annotation)
        # What only says how others work is the same at once.
        assert inspect.iscoroutinefunction(twin) or "Opening" in returned or returned == other.__name__, name
    assert inspect.signature(one).parameters == inspect.signature(other).parameters
    for function in ("run", "run_code", "doctor"):
        assert inspect.signature(getattr(blink, function)) == inspect.signature(getattr(aio, function))


@pytest.mark.parametrize("name", aio.__all__)
def test_names_are_where_they_are_found(name: str) -> None:
    thing = getattr(aio, name)
    assert thing.__module__ == "blink.aio"
    assert pickle.loads(pickle.dumps(thing)) is thing


def asynchronous(home: Path, test: Callable[[AsyncBlink, AsyncSandbox], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with (
            aio.AsyncBlink(home=home, isolation=ENGINE) as library,  # type: ignore[arg-type]
            library.sandbox() as sandbox,
        ):
            await test(library, sandbox)

    asyncio.run(main(), debug=False)


def test_a_hundred_at_once_and_none_lost(home: Path) -> None:
    async def test(library: AsyncBlink, sandbox: AsyncSandbox) -> None:
        outputs = await asyncio.gather(*(sandbox.exec(["echo", str(number)]) for number in range(100)))
        assert [output.stdout for output in outputs] == [b"%d\n" % number for number in range(100)]

    asynchronous(home, test)


def test_streams(home: Path) -> None:
    async def test(library: AsyncBlink, sandbox: AsyncSandbox) -> None:
        async with await sandbox.spawn(["sh", "-c", "cat; echo done >&2"], stdin=blink.PIPE) as process:
            await process.stdin.write("one ")
            assert await process.stdout.chunk() == b"one "
            await process.stdin.write("two")
            await process.stdin.close()
            assert [chunk async for chunk in process.stdout] == [b"two"]
            assert await process.stderr.read() == b"done\n"
            assert (await process.wait()).ok
        output = await (await sandbox.spawn(["echo", "captured"])).output()
        assert output.text == "captured\n"

    asynchronous(home, test)


def test_files_and_connections(home: Path) -> None:
    server = (
        "import socket\n"
        "listener = socket.create_server(('127.0.0.1', 8000))\n"
        "print(flush=True)\n"
        "connection, _ = listener.accept()\n"
        "connection.sendall(connection.recv(9)[::-1])"
    )

    async def test(library: AsyncBlink, sandbox: AsyncSandbox) -> None:
        await sandbox.files.write("/tmp/file", "content")
        assert await sandbox.files.read_text("/tmp/file") == "content"
        with pytest.raises(FileNotFoundError):
            await sandbox.files.read("/tmp/none")
        async with await sandbox.spawn(["python3", "-c", server]) as process:
            await process.stdout.chunk()
            async with await sandbox.connect_tcp("127.0.0.1", 8000) as connection:
                await connection.write("abc")
                await connection.end()
                assert await connection.read() == b"cba"

    asynchronous(home, test)


def test_files_bit_by_bit(home: Path) -> None:
    async def test(library: AsyncBlink, sandbox: AsyncSandbox) -> None:
        files = sandbox.files
        async with files.writer("/tmp/bits") as writer:
            for number in range(100):
                await writer.write(bytes([number]) * 10_000)
            assert not await files.exists("/tmp/bits")
        async with files.reader("/tmp/bits", offset=10_000, length=20_000) as reader:
            assert b"".join([chunk async for chunk in reader]) == b"\1" * 10_000 + b"\2" * 10_000
        with contextlib.suppress(LookupError):
            async with files.writer("/tmp/bits") as writer:
                await writer.write("half")
                raise LookupError
        assert (await files.stat("/tmp/bits")).size == 1_000_000
        with pytest.raises(FileNotFoundError):
            await files.reader("/tmp/none")
        # A write that is cancelled spoils the file that would have come of it, and nothing else.
        writer = await files.writer("/tmp/bits")
        task = asyncio.ensure_future(writer.write(bytes(50 << 20)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with contextlib.suppress(blink.InvalidArgument):
            # Where the writing had not begun, an empty file is right.
            await writer.finish()
            await files.write("/tmp/bits", bytes(1_000_000))
        assert (await files.stat("/tmp/bits")).size == 1_000_000

    asynchronous(home, test)


def test_sessions(home: Path) -> None:
    async def test(library: AsyncBlink, sandbox: AsyncSandbox) -> None:
        async with library.session("asynchronous") as session:
            await session.files.write("/var/blink/memory/notes", "one")
            await session.checkpoint("begun")
            async with session.fork("asynchronous-fork") as fork:
                assert await fork.files.read_text("/var/blink/memory/notes") == "one"
                await fork.remove()
            await session.remove()
        assert await library.sessions() == []

    asynchronous(home, test)


def test_archives_tell_how_far_they_are(home: Path, tmp_path: Path) -> None:
    async def test(library: AsyncBlink, sandbox: AsyncSandbox) -> None:
        told: list[blink.TransferProgress] = []
        archive = tmp_path / "archive"
        async with library.session("told") as session:
            await session.files.write("/var/blink/memory/large", os.urandom(9 << 20))
            await session.export(archive, progress=told.append)
            assert told[-1].bytes_done > 9 << 20

            def refuse(_: blink.TransferProgress) -> None:
                raise LookupError("enough")

            with pytest.raises(LookupError, match="enough"):
                await session.export(tmp_path / "other", progress=refuse)
            await session.remove()
        told.clear()
        async with library.import_session("told", archive, import_progress=told.append) as session:
            assert told[-1].bytes_done > 9 << 20
            await session.remove()

    asynchronous(home, test)


async def gone(sandbox: AsyncSandbox, program: str) -> None:
    """Wait until no program with that command line runs; a call that was given up tells the agent, and does not wait."""
    for _ in range(200):
        output = await sandbox.exec(["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"])
        if program not in output.text:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{program} still runs")


@pytest.mark.parametrize("how", ["timeout", "cancel", "wait_for", "gather"])
def test_cancellation_kills_the_tree(home: Path, how: str) -> None:
    async def test(library: AsyncBlink, sandbox: AsyncSandbox) -> None:
        running = sandbox.exec(["sh", "-c", "(setsid sleep 4321.5 &); sleep 4321.5"])
        if how == "timeout":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(running, 0.5)
        elif how == "wait_for":
            task = asyncio.ensure_future(running)
            await asyncio.wait([task], timeout=0.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif how == "cancel":
            task = asyncio.ensure_future(running)
            await asyncio.sleep(0.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            group = asyncio.gather(running, asyncio.sleep(0.5, result=None))
            await asyncio.sleep(0.3)
            group.cancel()
            with pytest.raises(asyncio.CancelledError):
                await group
        await gone(sandbox, "sleep 4321.5")

    asynchronous(home, test)


def test_a_cancelled_read_takes_nothing_away(home: Path) -> None:
    async def test(library: AsyncBlink, sandbox: AsyncSandbox) -> None:
        script = "for i in $(seq 400); do echo $i; done; sleep 0.3; echo end"
        async with await sandbox.spawn(["sh", "-c", script]) as process:
            read, tries = b"", 0
            while not read.endswith(b"end\n"):
                tries += 1
                task = asyncio.ensure_future(process.stdout.chunk())
                # Cancelled before, while and after the result arrives.
                for _ in range(tries % 7):
                    await asyncio.sleep(0)
                await asyncio.sleep(0.001 * (tries % 3))
                task.cancel()
                try:
                    read += await task
                except asyncio.CancelledError:
                    await asyncio.sleep(0.001)
                    if tries % 2:
                        continue
                    read += await process.stdout.chunk()
            assert read == b"".join(b"%d\n" % number for number in range(1, 401)) + b"end\n"

    asynchronous(home, test)


def test_blocking_calls_in_a_running_loop(library: Blink, sandbox: Sandbox) -> None:
    async def main() -> None:
        assert sandbox.exec(["echo", "safe"]).text == "safe\n"
        assert await asyncio.to_thread(lambda: sandbox.exec(["echo", "thread"]).text) == "thread\n"
        assert library.run(["true"]).ok

    asyncio.run(main())


def test_one_library_in_several_loops(home: Path) -> None:
    library = aio.AsyncBlink(home=home, isolation=ENGINE)  # type: ignore[arg-type]

    async def main() -> str:
        return (await library.run(["echo", "loop"])).text

    assert [asyncio.run(main()) for _ in range(3)] == ["loop\n"] * 3
    asyncio.run(library.close())


def test_a_loop_that_ends_with_work_under_way(home: Path) -> None:
    library = aio.AsyncBlink(home=home, isolation=ENGINE)  # type: ignore[arg-type]
    sandbox = asyncio.run(_made(library))
    loop = asyncio.new_event_loop()
    task = loop.create_task(sandbox.exec(["sleep", "4321.6"]))
    loop.run_until_complete(asyncio.sleep(0.3))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    del task, loop
    gc.collect()
    asyncio.run(_closed(sandbox))


async def _made(library: AsyncBlink) -> AsyncSandbox:
    return await library.sandbox()


async def _closed(sandbox: AsyncSandbox) -> None:
    await gone(sandbox, "sleep 4321.6")
    await sandbox.close()
    with pytest.raises(blink.InvalidArgument, match="closed"):
        await sandbox.exec(["true"])


def test_making_a_sandbox_can_be_given_up(home: Path) -> None:
    async def test(library: AsyncBlink, sandbox: AsyncSandbox) -> None:
        before = set((home / "sandboxes").iterdir())
        for ticks in range(6):
            task = asyncio.ensure_future(_made(library))
            await asyncio.sleep(0.002 * ticks)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await task).close()
        # What was given up is removed in the background.
        for _ in range(2400):
            if set((home / "sandboxes").iterdir()) <= before:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("a sandbox that nobody has is left")

    asynchronous(home, test)


def test_the_default_home(library: Blink) -> None:
    async def main() -> str:
        return (await aio.run_code("print(6*7)", isolation=ENGINE)).text  # type: ignore[arg-type]

    assert asyncio.run(main()) == "42\n"


def test_errors_are_the_same(home: Path) -> None:
    async def test(library: AsyncBlink, sandbox: AsyncSandbox) -> None:
        with pytest.raises(TypeError, match="a command is a list"):
            await sandbox.exec("ls")
        with pytest.raises(blink.NotFound):
            await library.session_info("none")
        with pytest.raises(blink.InvalidArgument):
            await library.sandbox(memory_mib=0)

    asynchronous(home, test)
