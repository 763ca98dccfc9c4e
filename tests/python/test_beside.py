"""The processes of a session, beside whoever has it."""

from __future__ import annotations

import asyncio
import signal
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

#: A micro-VM has one link, its owner's.
needs_links = pytest.mark.skipif(ENGINE == "microvm", reason="a micro-VM has one link, its owner's")

NOISY = "trap 'exit 5' TERM; head -c 3000000 /dev/zero; echo end; echo oops >&2; while :; do sleep 0.02; done"


@pytest.fixture
def session(library: Blink) -> Iterator[Session]:
    with library.session("beside", warm=True) as session:
        yield session
        session.remove()


@pytest.fixture
def processes(library: Blink, session: Session) -> Iterator[SessionProcesses]:
    with library.session_processes("beside") as processes:
        yield processes


@needs_links
def test_who_has_the_session_loses_nothing(session: Session, processes: SessionProcesses) -> None:
    assert (processes.isolation, processes.closed, processes.list()) == (ENGINE, False, [])
    idle = session.spawn(["sh", "-c", "echo here; cat; exit 4"], stdin=blink.PIPE)
    assert idle.stdout.chunk() == b"here\n"
    assert [(process.id, process.status) for process in processes.list()] == [(idle.id, None)]
    assert processes.logs(idle.id) == blink.ProcessLogs(b"here\n", 0, b"", 0)
    ended: list[blink.ExitStatus] = []
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


@needs_links
def test_what_is_kept_and_signals(session: Session, processes: SessionProcesses) -> None:
    noisy = session.spawn(["sh", "-c", NOISY])
    noisy.close()
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
    tree = session.spawn(["sh", "-c", "setsid sleep 1000 & sleep 1000"])
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


@needs_links
@pytest.mark.parametrize("call", [call for _, call in WRONG], ids=[what for what, _ in WRONG])
def test_wrong_types(processes: SessionProcesses, call: Callable[[Any], object]) -> None:
    with pytest.raises((TypeError, OverflowError)):
        call(processes)


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


@needs_links
def test_what_is_closed_and_what_has_ended(library: Blink, session: Session, processes: SessionProcesses) -> None:
    sleeping = session.spawn(["sleep", "1000"])
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            other.wait(sleeping.id)
        except blink.BlinkError as error:
            raised.append(error)

    other = library.session_processes("beside")
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
    assert processes.list()[0].status is None
    session.stop()
    with pytest.raises(blink.SandboxDied):
        processes.list()
    with pytest.raises(blink.SandboxDied):
        processes.wait(sleeping.id)


@needs_links
def test_twins(home: Path) -> None:
    async def main() -> None:
        async with (
            AsyncBlink(home=home, isolation=ENGINE) as library,  # type: ignore[arg-type]
            library.session("twins", warm=True) as session,
            library.session_processes("twins") as processes,
        ):
            echoing = await session.spawn(["sh", "-c", "echo here; exec sleep 1000"])
            assert await echoing.stdout.chunk() == b"here\n"
            assert (await processes.logs(echoing.id)).stdout == b"here\n"
            assert [process.id for process in await processes.list()] == [echoing.id]
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(processes.wait(echoing.id), 0.05)
            ended = asyncio.ensure_future(processes.wait(echoing.id))
            attached = await processes.attach(echoing.id)
            assert await attached.stdout.chunk() == b"here\n"
            await processes.signal(echoing.id, signal.SIGTERM)
            assert (await ended).signal == signal.SIGTERM
            with pytest.raises(blink.NotFound):
                await processes.kill(7777)
            await processes.close()
            assert processes.closed
            with pytest.raises(blink.InvalidArgument, match="closed"):
                await processes.list()
            await session.remove()

    asyncio.run(main())
