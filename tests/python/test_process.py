"""Programs that are spawned."""

from __future__ import annotations

import gc
import hashlib
import time
from typing import TYPE_CHECKING

import blink
import pytest
from test_run import runs

if TYPE_CHECKING:
    from blink import Sandbox


def test_streams(sandbox: Sandbox) -> None:
    with sandbox.spawn(["sh", "-c", "cat; echo done >&2; exit 5"], stdin=blink.PIPE) as process:
        assert process.pid > 0
        process.stdin.write("one ")
        assert process.stdout.chunk() == b"one "
        process.stdin.write(b"two")
        process.stdin.close()
        assert process.stdout.read() == b"two"
        assert process.stdout.offset == 7
        assert list(process.stderr) == [b"done\n"]
        status = process.wait()
        assert (status.exit_code, status.ok, status.timed_out) == (5, False, False)


def test_output_comes_while_the_program_runs(sandbox: Sandbox) -> None:
    with sandbox.spawn(["sh", "-c", "echo first; cat"], stdin=blink.PIPE) as process:
        assert next(iter(process.stdout)) == b"first\n"
        process.stdin.close()
        assert process.stdout.read() == b""


def test_all_of_a_large_output_arrives(sandbox: Sandbox) -> None:
    script = (
        "import hashlib, os, sys\n"
        "digest = hashlib.sha256()\n"
        "for _ in range(200):\n"
        "    block = os.urandom(65536)\n"
        "    digest.update(block)\n"
        "    sys.stdout.buffer.write(block)\n"
        "sys.stderr.write(digest.hexdigest())"
    )
    with sandbox.spawn(["python3", "-c", script]) as process:
        digest = hashlib.sha256()
        for chunk in process.stdout:
            digest.update(chunk)
        assert process.stderr.read().decode() == digest.hexdigest()
        assert process.stdout.offset == 200 * 65536


def test_captured_output(sandbox: Sandbox) -> None:
    output = sandbox.spawn(["sh", "-c", "echo out; echo err >&2; exit 2"]).output()
    assert (output.stdout, output.stderr, output.exit_code) == (b"out\n", b"err\n", 2)
    assert output.isolation == sandbox.isolation


def test_waiting_throws_output_away_that_nobody_wants(sandbox: Sandbox) -> None:
    with sandbox.spawn(["head", "-c", "5000000", "/dev/zero"]) as process:
        assert process.wait().ok
        with pytest.raises(blink.InvalidArgument, match="thrown away"):
            _ = process.stdout


def test_signals_and_kill(sandbox: Sandbox) -> None:
    with sandbox.spawn(["sleep", "1234.6"]) as process:
        process.signal(15)
        assert process.wait().signal == 15
    with sandbox.spawn(["sh", "-c", "(setsid sleep 1234.7 &); sleep 1234.7"]) as process:
        while not runs(sandbox, "sleep 1234.7"):
            pass
        process.kill()
        assert process.wait().signal == 9
        assert not runs(sandbox, "sleep 1234.7")
        with pytest.raises(blink.InvalidArgument):
            process.signal(200)


def test_a_terminal_and_its_size(sandbox: Sandbox) -> None:
    script = "stty size; read line; stty size"
    with sandbox.spawn(["sh", "-c", script], stdin=blink.PIPE, pty=(24, 80)) as process:
        assert process.stdout.chunk().split() == [b"24", b"80"]
        process.resize(30, 100)
        process.stdin.write("\n")
        assert process.stdout.read().split()[-2:] == [b"30", b"100"]


def test_a_program_goes_on_without_its_handle(sandbox: Sandbox) -> None:
    process = sandbox.spawn(["sh", "-c", "echo begun; read line; echo $line"], stdin=blink.PIPE)
    assert process.stdout.chunk() == b"begun\n"
    number, offset = process.id, process.stdout.offset
    process.close()
    with pytest.raises(blink.InvalidArgument, match="closed"):
        process.wait()
    assert number in {info.id for info in sandbox.processes()}
    with sandbox.process(number, stdout_offset=offset) as again:
        again.stdin.write("over\n")
        assert again.stdout.read() == b"over\n"
        assert again.wait().ok
    assert number not in {info.id for info in sandbox.processes()}


def test_a_key_makes_a_repeated_spawn_harmless(sandbox: Sandbox) -> None:
    with sandbox.spawn(["sleep", "60"], key="once") as first:
        assert sandbox.spawn(["sleep", "60"], key="once").id == first.id
        (info,) = [info for info in sandbox.processes() if info.key == "once"]
        assert (info.argv, info.status, info.pid) == (("sleep", "60"), None, first.pid)


def test_a_generator_that_is_dropped_half_way(sandbox: Sandbox) -> None:
    with sandbox.spawn(["sh", "-c", "echo a; sleep 0.1; echo b; sleep 0.1; echo c"]) as process:
        for chunk in process.stdout:
            assert chunk == b"a\n"
            break
        gc.collect()
        assert process.stdout.read() == b"b\nc\n"


def test_a_handle_that_is_dropped_half_way(sandbox: Sandbox) -> None:
    process = sandbox.spawn(["sh", "-c", "yes | head -c 20000000; sleep 1234.8"])
    process.stdout.chunk()
    number = process.id
    del process
    gc.collect()
    started = time.monotonic()
    while not runs(sandbox, "sleep 1234.8"):
        assert time.monotonic() - started < 60, "nobody reads, and the program is held back"
    sandbox.process(number).release()


def test_what_waits_for_input_is_told_of_the_end(sandbox: Sandbox) -> None:
    process = sandbox.spawn(["cat"])
    with pytest.raises(blink.InvalidArgument, match=r"blink\.PIPE"):
        _ = process.stdin
    assert process.output().stdout == b""
    assert sandbox.spawn(["cat"], stdin=b"given").output().stdout == b"given"
