"""The processes of a session, beside whoever has it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import blink
import pytest
from blink.aio import AsyncBlink
from conftest import ENGINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blink import Blink, Session, SessionProcesses
    from blink.aio import AsyncSessionProcesses

NOISY = "trap 'exit 5' TERM; head -c 3000000 /dev/zero; echo end; echo oops >&2; while :; do sleep 0.02; done"


@pytest.fixture
def session(library: Blink) -> Iterator[Session]:
    with library.session("beside", warm=True) as session:
        yield session
    with library.session("beside", warm=True) as session:
        session.remove()


@pytest.fixture
def processes(library: Blink, session: Session) -> Iterator[SessionProcesses]:
    with beside(library, session) as processes:
        yield processes


def beside(library: Blink, session: Session) -> SessionProcesses:
    """Give the processes of a session. A micro-VM has one link, which its owner lets go of first."""
    if ENGINE == "microvm":
        session.close()
    return library.session_processes("beside")


def test_who_has_the_session_loses_nothing(library: Blink, session: Session) -> None:
    idle = session.spawn(["sh", "-c", "echo here; cat; exit 4"], stdin=blink.PIPE)
    assert idle.stdout.chunk() == b"here\n"
    ended: list[blink.ExitStatus] = []
    processes = library.session_processes("beside")
    assert (processes.isolation, processes.closed) == (ENGINE, False)
    assert [(process.id, process.status) for process in processes.list()] == [(idle.id, None)]
    assert processes.logs(idle.id) == blink.ProcessLogs(b"here\n", 0, b"", 0)
    waiting = threading.Thread(target=lambda: ended.append(processes.wait(idle.id)))
    waiting.start()
    with pytest.raises(blink.ExecTimeout, match="goes on"):
        processes.wait(idle.id, timeout=0.05)
    idle.stdin.write("more\n")
    assert idle.stdout.chunk() == b"more\n"
    idle.stdin.close()
    assert idle.wait().exit_code == 4
    waiting.join()
    assert [status.exit_code for status in ended] == [4]


def test_what_is_kept_and_signals(library: Blink, session: Session) -> None:
    noisy = session.spawn(["sh", "-c", NOISY])
    noisy.close()
    tree = session.spawn(["sh", "-c", "setsid sleep 1000 & sleep 1000"])
    tree.close()
    with beside(library, session) as processes:
        assert (processes.isolation, processes.closed) == (ENGINE, False)
        while processes.list()[0].stderr_bytes < 5:
            time.sleep(0.005)
        logs = processes.logs(noisy.id)
        assert (len(logs.stdout), logs.stdout_offset) == (1 << 20, 3_000_004 - (1 << 20))
        assert logs.stdout.endswith(b"\0end\n")
        assert (logs.stderr, logs.stderr_offset) == (b"oops\n", 0)
        attached = processes.attach(noisy.id, stdout_offset=3_000_000)
        assert attached.stdout.chunk() == b"end\n"
        processes.signal(noisy.id, signal.SIGTERM)
        assert attached.wait().exit_code == 5
        assert processes.wait(noisy.id, timeout=60).exit_code == 5
        processes.kill(tree.id)
        assert processes.wait(tree.id).signal == signal.SIGKILL
        for call in (processes.logs, processes.wait, processes.kill, processes.attach):
            with pytest.raises(blink.NotFound, match="7777"):
                call(7777)
        with pytest.raises(blink.NotFound, match="7777"):
            processes.signal(7777, 15)
        with pytest.raises(blink.InvalidArgument):
            processes.signal(noisy.id, 200)


WRONG: list[tuple[str, Callable[[Any], object]]] = [
    ("text for a process", lambda processes: processes.logs("1")),
    ("nothing for a process", lambda processes: processes.wait(None)),
    ("a negative process", lambda processes: processes.kill(-1)),
    ("text for a signal", lambda processes: processes.signal(1, "TERM")),
    ("a signal that no byte holds", lambda processes: processes.signal(1, 1000)),
    ("text for a time", lambda processes: processes.wait(1, timeout="1")),
    ("an offset by position", lambda processes: processes.attach(1, 0)),
]


def test_wrong_types(processes: SessionProcesses) -> None:
    for what, call in WRONG:
        with pytest.raises((TypeError, OverflowError)):
            pytest.fail(f"{what} was taken: {call(processes)!r}")


def test_sessions_that_do_not_run(library: Blink) -> None:
    with pytest.raises(blink.NotFound, match="no session"):
        library.session_processes("beside")
    with pytest.raises(TypeError):
        library.session_processes(5)  # type: ignore[arg-type]
    with library.session("beside") as session:
        session.stop()
        with pytest.raises(blink.NotFound, match="not running"):
            library.session_processes("beside")
        session.remove()


def test_what_is_closed_and_what_has_ended(library: Blink, session: Session) -> None:
    sleeping = session.spawn(["sleep", "1000"])
    sleeping.close()
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            other.wait(sleeping.id)
        except blink.BlinkError as error:
            raised.append(error)

    other = beside(library, session)
    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    other.close()
    other.close()
    waiting.join()
    assert isinstance(raised[0], (blink.SandboxDied, blink.InvalidArgument))
    assert (other.closed, other.isolation, repr(other)) == (True, ENGINE, "<blink.SessionProcesses, closed>")
    with pytest.raises(blink.InvalidArgument, match="the view of a session's processes is closed"):
        other.list()
    processes = library.session_processes("beside")
    assert processes.list()[0].status is None
    if ENGINE == "microvm":
        # They have the machine.
        processes.close()
        with library.session("beside", warm=True) as again:
            again.stop()
    else:
        session.stop()
        with pytest.raises(blink.SandboxDied):
            processes.list()
        with pytest.raises(blink.SandboxDied):
            processes.wait(sleeping.id)
    with pytest.raises(blink.NotFound, match="not running"):
        library.session_processes("beside")


def test_twins(home: Path) -> None:
    async def main() -> None:
        async with AsyncBlink(home=home, isolation=ENGINE) as library:  # type: ignore[arg-type]
            async with library.session("twins", warm=True) as session:
                echoing = await session.spawn(["sh", "-c", "echo here; exec sleep 1000"])
                assert await echoing.stdout.chunk() == b"here\n"
                if ENGINE == "microvm":
                    await session.close()
                async with library.session_processes("twins") as processes:
                    await looks(processes, echoing.id)
                assert processes.closed
                with pytest.raises(blink.InvalidArgument, match="closed"):
                    await processes.list()
            async with library.session("twins", warm=True) as session:
                await session.remove()

    async def looks(processes: AsyncSessionProcesses, id: int) -> None:
        assert (await processes.logs(id)).stdout == b"here\n"
        assert [process.id for process in await processes.list()] == [id]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(processes.wait(id), 0.05)
        ended = asyncio.ensure_future(processes.wait(id))
        attached = await processes.attach(id)
        assert await attached.stdout.chunk() == b"here\n"
        await processes.signal(id, signal.SIGTERM)
        assert (await ended).signal == signal.SIGTERM
        with pytest.raises(blink.NotFound):
            await processes.kill(7777)

    asyncio.run(main())


SHARER = """
import sys
import blink

with blink.Blink(home=sys.argv[1], isolation="namespace") as library, library.session("shared") as session:
    print(session.exec(["cat", "/dev/shm/mark"]).text, end="", flush=True)
    sys.stdin.readline()
    for number in range(10):
        process = session.spawn(["sh", "-c", f"echo {number}; echo x >>/tmp/lines"])
        assert process.stdout.read() == f"{number}\\n".encode()
        assert process.wait().exit_code == 0
"""


@pytest.mark.skipif(ENGINE == "microvm", reason="a micro-VM belongs to the process that started it")
def test_processes_threads_and_tasks_use_one_sandbox(library: Blink, home: Path) -> None:
    with library.session("shared") as session:
        session.exec(["sh", "-c", "echo mark >/dev/shm/mark"])
        sharers = [
            subprocess.Popen(
                [sys.executable, "-c", SHARER, home], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(3)
        ]
        for sharer in sharers:
            assert sharer.stdout is not None
            assert sharer.stdout.readline() == "mark\n"
        with pytest.raises(blink.Busy) as raised:
            library.take_session("shared", patience=0).stop()
        assert all(f"(pid {sharer.pid}: " in str(raised.value) for sharer in sharers)

        def work() -> None:
            with library.session("shared") as again:
                for _ in range(10):
                    assert again.exec(["sh", "-c", "cat /dev/shm/mark; echo x >>/tmp/lines"]).text == "mark\n"

        async def work_too() -> None:
            async with AsyncBlink(home=home, isolation="namespace") as other, other.session("shared") as again:
                calls = [again.exec(["sh", "-c", "cat /dev/shm/mark; echo x >>/tmp/lines"]) for _ in range(10)]
                for output in await asyncio.gather(*calls):
                    assert output.text == "mark\n"

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        asyncio.run(work_too())
        for thread in threads:
            thread.join()
        for sharer in sharers:
            sharer.communicate("\n", timeout=100)
            assert sharer.returncode == 0
        assert session.exec(["sh", "-c", "wc -l </tmp/lines"]).text == "80\n"
        with subprocess.Popen(
            [sys.executable, "-c", SHARER, home], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as sharer:
            assert sharer.stdout is not None
            assert sharer.stdout.readline() == "mark\n"
            with pytest.raises(blink.Busy, match=f"pid {sharer.pid}: "):
                library.take_session("shared", patience=0).remove()
            library.take_session("shared", patience=0).remove(force=True)
            assert [each.name for each in library.sessions()] == []
            sharer.communicate("\n", timeout=100)
            assert sharer.returncode != 0
