"""Programs that run to their end."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING

import blink
import pytest
from conftest import ENGINE

if TYPE_CHECKING:
    from blink import Blink, Sandbox


def test_the_shortest_programs(library: Blink) -> None:
    assert b"usr\n" in library.run(["ls", "/"]).stdout
    assert library.run_code("print(6*7)", language="python").text == "42\n"
    assert blink.run_code("echo $((6*7))", "sh", isolation=ENGINE).stdout == b"42\n"  # type: ignore[arg-type]


def test_an_output_says_all(sandbox: Sandbox) -> None:
    output = sandbox.exec(["sh", "-c", "printf out; printf err >&2; exit 3"])
    assert (output.stdout, output.stderr, output.exit_code) == (b"out", b"err", 3)
    assert (output.text, output.stderr_text, output.ok) == ("out", "err", False)
    assert (output.timed_out, output.truncated, output.signal, output.over_limit) == (False, False, None, None)
    assert output.isolation == sandbox.isolation == ENGINE
    assert 0 < output.duration < 60
    assert repr(output).startswith("Output(exit_code=3, stdout=b'out', stderr=b'err', duration=0.")
    assert pickle.loads(pickle.dumps(output)) == output


def test_output_is_bytes(sandbox: Sandbox) -> None:
    every_byte = bytes(range(256)) * 40
    output = sandbox.exec(["cat"], stdin=every_byte)
    assert output.stdout == every_byte
    assert len(output.text) <= len(every_byte)
    assert sandbox.exec(["cat"], stdin="grüße").text == "grüße"
    for data in (bytearray(b"\xff\x00"), memoryview(b"\xff\x00")):
        assert sandbox.exec(["cat"], stdin=data).stdout == b"\xff\x00"


def test_arguments_arrive_as_they_are(sandbox: Sandbox) -> None:
    arguments: list[str | bytes] = ["", " ", "a b", "'\"$HOME", "ü", "\n", b"\xff\xfe", "--"]
    output = sandbox.exec(["printf", "%s\\0", *arguments])
    sent = [argument if isinstance(argument, bytes) else argument.encode() for argument in arguments]
    assert output.stdout.split(b"\0")[:-1] == sent


def test_surroundings(sandbox: Sandbox) -> None:
    output = sandbox.exec(["sh", "-c", "echo $A; pwd"], env={"A": "one"}, cwd="/usr")
    assert output.stdout == b"one\n/usr\n"


def test_a_timeout_keeps_what_was_written_and_kills_the_tree(sandbox: Sandbox) -> None:
    script = "printf partial; (setsid sleep 1234.5 &) ; sleep 1234.5"
    output = sandbox.exec(["sh", "-c", script], timeout=0.5)
    assert (output.timed_out, output.ok, output.stdout) == (True, False, b"partial")
    assert "timed_out=True" in repr(output)
    with pytest.raises(TimeoutError, match="its time was over") as raised:
        output.check()
    assert isinstance(raised.value, blink.ExecTimeout)
    assert raised.value.output is output
    assert not runs(sandbox, "sleep 1234.5")


def test_check(sandbox: Sandbox) -> None:
    assert sandbox.exec(["true"]).check().ok
    failed = sandbox.exec(["sh", "-c", "echo because >&2; exit 7"])
    with pytest.raises(blink.CommandFailed, match="exit code 7: because") as raised:
        failed.check()
    assert raised.value.output is failed
    assert raised.value.kind is None
    with pytest.raises(blink.CommandFailed, match="signal 9"):
        sandbox.exec(["sh", "-c", "kill -9 $$"]).check()
    missing = sandbox.exec(["/no/such/program"])
    assert missing.exit_code == 127
    with pytest.raises(blink.CommandFailed, match="127"):
        missing.check()


def test_output_beyond_the_limit_is_counted_and_cut(sandbox: Sandbox) -> None:
    output = sandbox.exec(["head", "-c", "100000", "/dev/zero"], output_limit=1000)
    assert (len(output.stdout), output.stdout_bytes, output.truncated) == (1000, 100000, True)
    assert "truncated=True" in repr(output)
    assert len(repr(output)) < 1000


def test_a_terminal(sandbox: Sandbox) -> None:
    output = sandbox.exec(["stty", "size"], pty=(24, 100))
    assert output.stdout.split() == [b"24", b"100"]


def test_code_in_languages(sandbox: Sandbox) -> None:
    assert sandbox.run_code("import sys; print(sys.stdin.read())", stdin="given").text == "given\n"
    assert sandbox.run_code("echo $0 $((1+1))", "bash").text == "bash 2\n"
    with pytest.raises(blink.InvalidArgument, match="cobol"):
        sandbox.run_code("", "cobol")
    with pytest.raises(blink.InvalidArgument, match="write them to a file"):
        sandbox.run_code("#" * (128 << 10))


def test_many_threads_share_a_sandbox(sandbox: Sandbox) -> None:
    outputs: dict[int, str] = {}

    def work(number: int) -> None:
        for _ in range(5):
            outputs[number] = sandbox.exec(["echo", str(number)]).text

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: f"{number}\n" for number in range(8)}


def test_mounts_and_ports(library: Blink, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mounted")
    (folder / "given").write_text("from outside")
    server = (
        "import socket; s = socket.create_server(('127.0.0.1', 8000)); c, _ = s.accept(); c.sendall(c.recv(9)[::-1])"
    )
    with library.sandbox(mounts=[blink.Mount(folder, "/given", read_only=True)]) as sandbox:
        assert sandbox.files.read_text("/given/given") == "from outside"
        with sandbox.spawn(["python3", "-c", server]), connected(sandbox) as connection:
            connection.write("abc")
            assert connection.read() == b"cba"
            assert connection.read() == b""
    with library.sandbox(publish=[blink.PublishedPort(8000)], hostname="build.example") as sandbox:
        assert sandbox.exec(["cat", "/etc/hostname"]).text == "build.example\n"
        (port,) = sandbox.published()
        assert (port.guest_port, port.address) == (8000, "127.0.0.1")
        assert port.host_port > 0


def connected(sandbox: Sandbox) -> blink.Connection:
    while True:
        try:
            return sandbox.connect_tcp("localhost", 8000)
        except FileNotFoundError:
            continue


def runs(sandbox: Sandbox, program: str) -> bool:
    """Whether a program with this command line runs in a sandbox."""
    script = (
        "import os, sys\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try: line = open(f'/proc/{pid}/cmdline', 'rb').read()\n"
        "    except OSError: continue\n"
        "    if line.replace(b'\\0', b' ').strip() == sys.argv[1].encode(): print(pid)\n"
    )
    return sandbox.exec(["python3", "-c", script, program]).check().stdout != b""
