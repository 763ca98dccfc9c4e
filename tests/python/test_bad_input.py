"""Wrong types, closed objects, interrupts, forks, and an interpreter that ends meanwhile."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import blink
import pytest
from conftest import ENGINE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blink import Blink, Sandbox


WRONG: list[tuple[str, Callable[[Any], object]]] = [
    ("a string for a command", lambda sandbox: sandbox.exec("ls")),
    ("bytes for a command", lambda sandbox: sandbox.exec(b"ls")),
    ("a number for a command", lambda sandbox: sandbox.exec(5)),
    ("a number for an argument", lambda sandbox: sandbox.exec(["ls", 5])),
    ("an unknown option", lambda sandbox: sandbox.exec(["ls"], shell=True)),
    ("an option of sandboxes", lambda sandbox: sandbox.exec(["ls"], memory_mib=5)),
    ("text for a time", lambda sandbox: sandbox.exec(["ls"], timeout="1")),
    ("a list for an environment", lambda sandbox: sandbox.exec(["ls"], env=["A=1"])),
    ("a number for a variable", lambda sandbox: sandbox.exec(["ls"], env={"A": 1})),
    ("a number for input", lambda sandbox: sandbox.exec(["ls"], stdin=7)),
    ("a float for input", lambda sandbox: sandbox.exec(["ls"], stdin=1.5)),
    ("one number for a terminal", lambda sandbox: sandbox.exec(["ls"], pty=24)),
    ("a number for a user", lambda sandbox: sandbox.exec(["ls"], user=0)),
    ("a number for code", lambda sandbox: sandbox.run_code(5)),
    ("a number for a path", lambda sandbox: sandbox.files.read(5)),
    ("a number for content", lambda sandbox: sandbox.files.write("/tmp/x", 5)),
    ("text for a process", lambda sandbox: sandbox.process("1")),
]


@pytest.mark.parametrize("call", [call for _, call in WRONG], ids=[what for what, _ in WRONG])
def test_wrong_types(sandbox: Sandbox, call: Callable[[Any], object]) -> None:
    with pytest.raises((TypeError, AttributeError)):
        call(sandbox)


IMPOSSIBLE: list[tuple[str, Callable[[Any], object]]] = [
    ("no command", lambda sandbox: sandbox.exec([])),
    ("a NUL byte", lambda sandbox: sandbox.exec(["a\0b"])),
    ("a variable without a name", lambda sandbox: sandbox.exec(["ls"], env={"": "1"})),
    ("a relative folder", lambda sandbox: sandbox.exec(["ls"], cwd="tmp")),
    ("a negative time", lambda sandbox: sandbox.exec(["ls"], timeout=-1)),
    ("no time", lambda sandbox: sandbox.exec(["ls"], timeout=float("nan"))),
    ("all time", lambda sandbox: sandbox.exec(["ls"], timeout=float("inf"))),
    ("a pipe that nobody has", lambda sandbox: sandbox.exec(["ls"], stdin=blink.PIPE)),
]


@pytest.mark.parametrize("call", [call for _, call in IMPOSSIBLE], ids=[what for what, _ in IMPOSSIBLE])
def test_what_cannot_be_right(sandbox: Sandbox, call: Callable[[Any], object]) -> None:
    with pytest.raises(blink.InvalidArgument):
        call(sandbox)


@pytest.mark.parametrize(
    "options",
    [
        {"isolation": "none"},
        {"network": "all"},
        {"cpus": 0},
        {"publish": [blink.PublishedPort(80, address="here")]},
        {"mounts": [blink.Mount("/usr", "relative")]},
        {"boot_timeout": -1},
        {"hostname": "a_b"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_sandboxes_that_cannot_be(library: Blink, options: dict[str, Any]) -> None:
    with pytest.raises(blink.InvalidArgument):
        library.sandbox(**options)


@pytest.mark.parametrize("options", [{"memory": 5}, {"memory_mib": -1}, {"cpus": "2"}, {"mounts": [5]}, {"image": 5}])
def test_sandboxes_of_wrong_types(library: Blink, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, OverflowError, AttributeError)):
        library.sandbox(**options)


def test_what_is_closed(library: Blink) -> None:
    sandbox = library.sandbox()
    files, process = sandbox.files, sandbox.spawn(["cat"], stdin=blink.PIPE)
    stdin, stdout = process.stdin, process.stdout
    sandbox.close()
    sandbox.close()
    sandbox.remove()
    for call in (sandbox.ping, sandbox.processes, lambda: sandbox.exec(["true"]), lambda: files.read("/tmp")):
        with pytest.raises(blink.InvalidArgument, match="the sandbox is closed"):
            call()
    with pytest.raises(blink.SandboxDied):
        stdout.read()
    with pytest.raises(blink.SandboxDied):
        stdin.write("more")
    stdin.close()
    stdout.close()
    process.close()
    process.release()
    with pytest.raises(blink.InvalidArgument, match="the process is closed"):
        process.wait()
    other = blink.Blink(isolation=ENGINE)  # type: ignore[arg-type]
    other.close()
    with pytest.raises(blink.InvalidArgument, match="closed"):
        other.run(["true"])


def test_closing_ends_calls_of_other_threads(library: Blink) -> None:
    sandbox = library.sandbox()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            sandbox.exec(["sleep", "60"])
        except blink.BlinkError as error:
            raised.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    closing = [threading.Thread(target=sandbox.close) for _ in range(4)]
    for thread in [*closing]:
        thread.start()
    for thread in [*threads, *closing]:
        thread.join()
    assert len(raised) == 4
    assert all(isinstance(error, (blink.SandboxDied, blink.InvalidArgument)) for error in raised)


def test_nothing_of_a_sandbox_that_nobody_refers_to_stays(library: Blink, home: Path) -> None:
    sandbox = library.sandbox()
    folder = home / "sandboxes" / sandbox.id
    assert folder.exists()
    del sandbox
    gc.collect()
    while folder.exists():
        time.sleep(0.01)


def test_a_call_lets_other_threads_go_on(sandbox: Sandbox) -> None:
    counted = 0
    over = threading.Event()

    def count() -> None:
        nonlocal counted
        while not over.is_set():
            counted += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    sandbox.exec(["sleep", "0.5"])
    over.set()
    thread.join()
    assert counted > 10


#: What blocks, in a program that is interrupted meanwhile.
BLOCKING = {
    "exec": "sandbox.exec(['sleep', '4321.7'])",
    "run": "library.run(['sleep', '4321.7'])",
    "wait": "sandbox.spawn(['sleep', '4321.7']).wait()",
    "output": "sandbox.spawn(['sleep', '4321.7']).output()",
    "chunk": "sandbox.spawn(['sleep', '4321.7']).stdout.chunk()",
    "iteration": "list(sandbox.spawn(['sleep', '4321.7']).stdout)",
    "write": "sandbox.spawn(['sleep', '4321.7'], stdin=blink.PIPE).stdin.write(bytes(50 << 20))",
    "upload": "sandbox.files.upload('/proc/self/fd/0', '/tmp/never')",
}


@pytest.mark.parametrize("call", BLOCKING.values(), ids=BLOCKING.keys())
def test_an_interrupt_ends_a_call(home: Path, library: Blink, call: str) -> None:
    program = f"""
        import blink
        library = blink.Blink(home={str(home / "of-interrupts")!r}, isolation={ENGINE!r})
        with library.sandbox() as sandbox:
            try:
                print("ready", flush=True)
                {call}
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            print(sandbox.exec(["echo", "goes on"]).text, end="", flush=True)
    """
    child = child_of(program, stdin=subprocess.PIPE)
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "interrupted\n"
    assert child.stdout.readline() == "goes on\n"
    child.communicate()
    assert child.returncode == 0


def test_an_interrupt_at_any_moment_ends_a_call(home: Path) -> None:
    # A timer's signal instead of a person's: it comes before the call, while it begins, and while it is waited for.
    said = run_child(f"""
        import blink, signal
        library = blink.Blink(home={str(home / "of-interrupts")!r}, isolation={ENGINE!r})
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        interrupted = 0
        with library.sandbox() as sandbox:
            for number in range(1, 61):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 * number if number < 40 else 0.001 * number)
                    sandbox.exec(["sleep", "4321.8"])
                except KeyboardInterrupt:
                    interrupted += 1
            left = "cat /proc/[0-9]*/cmdline | tr '\\\\0' ' '"
            while "sleep 4321.8" in sandbox.exec(["sh", "-c", left]).text:
                pass
        print(interrupted)
    """)
    assert said == "60\n"


#: Shells start what runs in the background with interrupts ignored, which a program and its children keep.
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def child_of(program: str, stdin: int | None = None) -> Any:
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", HEED + textwrap.dedent(program)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_child(program: str) -> str:
    child = child_of(program)
    said, _ = child.communicate()
    assert child.returncode == 0, said
    return str(said)


def test_a_forked_child_is_told(sandbox: Sandbox) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "nothing"
        try:
            sandbox.exec(["true"])
        except blink.Unsupported as error:
            said = str(error)
        except BaseException as error:
            said = repr(error)
        # Neither of these may touch what is the parent's.
        del sandbox
        gc.collect()
        blink._blink.farewell()
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said_by_child:
        assert "forked" in said_by_child.read()
    assert os.waitpid(pid, 0)[1] == 0
    assert sandbox.exec(["echo", "untouched"]).text == "untouched\n"


def test_a_forked_child_that_ends_leaves_its_parent_alone(home: Path) -> None:
    said = run_child(f"""
        import blink, multiprocessing, os, sys
        library = blink.Blink(home={str(home / "of-forks")!r}, isolation={ENGINE!r})
        sandbox = library.sandbox()
        if os.fork() == 0:
            sys.exit(0)  # With all that the interpreter does when it ends.
        assert os.wait()[1] == 0
        print(sandbox.exec(["echo", "alive"]).text, end="")
        sandbox.close()
    """)
    assert said == "alive\n"


def test_a_program_that_forks_before_it_uses_blink(home: Path) -> None:
    said = run_child(f"""
        import blink, os, sys
        library_of = lambda: blink.Blink(home={str(home / "of-forks")!r}, isolation={ENGINE!r})
        if os.fork() == 0:
            print(library_of().run(["echo", "child"]).text, end="", flush=True)
            sys.exit(0)
        assert os.wait()[1] == 0
        print(library_of().run(["echo", "parent"]).text, end="")
    """)
    assert said == "child\nparent\n"


ENDINGS = {
    "a thread that waits": """
        import threading
        threading.Thread(target=lambda: sandbox.exec(["sleep", "1000"]), daemon=True).start()
        time.sleep(0.3)
    """,
    "a task that waits": """
        import asyncio
        from blink.aio import AsyncBlink
        loop = asyncio.new_event_loop()
        other = AsyncBlink(isolation=library_isolation)
        task = loop.create_task(other.run(["sleep", "1000"]))
        loop.run_until_complete(asyncio.sleep(0.3))
    """,
    "a generator": """
        chunks = iter(sandbox.spawn(["yes"]).stdout)
        next(chunks)
    """,
    "an unhandled exception": """
        raise SystemExit(0)
    """,
    "use at exit": """
        import atexit
        atexit.register(lambda: print(sandbox.exec(["echo", "late"]).text.strip()))
    """,
    "use after the end": """
        class Late:
            def __del__(self):
                try:
                    sandbox.exec(["true"])
                except (ValueError, NotImplementedError):
                    pass
        sys.modules["late"] = late = Late()
    """,
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_the_interpreter_ends_with_work_under_way(tmp_path_factory: pytest.TempPathFactory, ending: str) -> None:
    home = tmp_path_factory.mktemp("ending")
    setting = f"""
        import blink, os, sys, time
        os.environ["BLINK_HOME"] = {str(home)!r}
        library_isolation = {ENGINE!r}
        library = blink.Blink(isolation=library_isolation)
        sandbox = library.sandbox()
    """
    # What it does ends with it: nothing of it takes as long as it asks for.
    run_child(textwrap.dedent(setting) + textwrap.dedent(ending))
    assert list((home / "sandboxes").iterdir()) == []
