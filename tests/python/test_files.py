"""Files of sandboxes and sessions."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blink
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blink import Sandbox


def test_what_is_written_is_read(sandbox: Sandbox) -> None:
    files = sandbox.files
    large = os.urandom(3 << 20)
    files.write("/tmp/large", large)
    assert files.read("/tmp/large") == large
    assert files.read("/tmp/large", offset=1000, length=10) == large[1000:1010]
    files.write(Path("/tmp/text"), "grüße\n", mode=0o600)
    files.write(b"/tmp/text", bytearray(b"more"), append=True)
    assert files.read_text("/tmp/text") == "grüße\nmore"
    assert sandbox.exec(["cat", "/tmp/text"]).text == "grüße\nmore"


def test_files_are_described(sandbox: Sandbox) -> None:
    files = sandbox.files
    files.make_dir("/tmp/described/deep")
    files.write("/tmp/described/file", "12345", mode=0o640)
    sandbox.exec(["ln", "-s", "file", "/tmp/described/link"]).check()
    info = files.stat("/tmp/described/file")
    assert (info.kind, info.size, info.mode, info.target) == ("file", 5, 0o640, None)
    assert abs(info.modified - datetime.now(timezone.utc)) < timedelta(minutes=5)
    listed = {entry.name: entry.info for entry in files.list("/tmp/described")}
    assert list(listed) == ["deep", "file", "link"]
    assert listed["deep"].kind == "directory"
    assert (listed["link"].kind, listed["link"].target) == ("symlink", "file")
    assert files.exists("/tmp/described/link")
    assert not files.exists("/tmp/described/none")


def test_files_are_changed(sandbox: Sandbox) -> None:
    files = sandbox.files
    files.write("/tmp/a", "a")
    files.rename("/tmp/a", "/tmp/b")
    files.copy("/tmp/b", "/tmp/c")
    assert files.read("/tmp/c") == b"a"
    files.remove("/tmp/b")
    with pytest.raises(FileNotFoundError):
        files.read("/tmp/b")
    files.make_dir("/tmp/folder/deep")
    with pytest.raises(blink.DirectoryNotEmpty):
        files.remove("/tmp/folder")
    files.remove("/tmp/folder", recursive=True)
    assert not files.exists("/tmp/folder")


def test_folders_go_in_and_out(sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(b"\x00\xff")
    sandbox.files.upload(source, "/tmp/brought")
    sandbox.exec(["sh", "-c", "echo new > /tmp/brought/new"]).check()
    sandbox.files.download("/tmp/brought", tmp_path / "taken")
    assert (tmp_path / "taken" / "deep" / "file").read_bytes() == b"\x00\xff"
    assert (tmp_path / "taken" / "new").read_text() == "new\n"
    sandbox.files.download("/tmp/brought/new", tmp_path / "one")
    assert (tmp_path / "one").read_text() == "new\n"
    (tmp_path / "theirs").mkdir()
    planted = tmp_path / "folder" / "new"
    planted.parent.mkdir()
    planted.symlink_to(tmp_path / "theirs" / "file")
    with pytest.raises(blink.InvalidArgument, match="new"):
        sandbox.files.download_into("/tmp/brought/new", planted.parent)
    assert not list((tmp_path / "theirs").iterdir())
    planted.unlink()
    sandbox.files.download_into("/tmp/brought/new", planted.parent)
    sandbox.files.download_into("/tmp/brought", planted.parent)
    assert planted.read_text() == "new\n"
    assert (planted.parent / "brought" / "deep" / "file").read_bytes() == b"\x00\xff"


def test_files_bit_by_bit(sandbox: Sandbox) -> None:
    files = sandbox.files
    content = os.urandom(3 << 20)
    with files.writer("/tmp/bits", mode=0o600) as writer:
        for start in range(0, len(content), 100_000):
            writer.write(content[start : start + 100_000])
        assert not files.exists("/tmp/bits")
    assert files.read("/tmp/bits") == content
    assert files.stat("/tmp/bits").mode == 0o600
    with pytest.raises(blink.InvalidArgument, match="closed"):
        writer.write("more")
    with files.reader("/tmp/bits", offset=1000) as reader:
        chunks = list(reader)
    assert len(chunks) > 1
    assert b"".join(chunks) == content[1000:]
    with files.reader("/tmp/bits") as reader:
        assert content.startswith(reader.chunk())
    with pytest.raises(blink.InvalidArgument, match="closed"):
        reader.chunk()
    with files.writer("/tmp/bits", append=True) as writer:
        writer.write("end")
    assert files.read("/tmp/bits", offset=len(content)) == b"end"

    with contextlib.suppress(LookupError), files.writer("/tmp/bits") as writer:
        writer.write("half")
        raise LookupError
    given_up = files.writer("/tmp/bits")
    given_up.write("half")
    given_up.close()
    given_up.close()
    assert files.read("/tmp/bits") == content + b"end"
    with pytest.raises(blink.NotFound):
        with files.writer("/tmp/none/file") as writer:
            writer.write("content")
    with pytest.raises(blink.NotFound):
        files.reader("/tmp/none")
    with pytest.raises(IsADirectoryError):
        files.reader("/tmp")


def test_connections(sandbox: Sandbox) -> None:
    server = (
        "import socket\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind('/tmp/socket')\n"
        "listener.listen()\n"
        "print(flush=True)\n"
        "connection, _ = listener.accept()\n"
        "connection.sendall(connection.recv(9)[::-1])"
    )
    with sandbox.spawn(["python3", "-c", server]) as process:
        process.stdout.chunk()
        with sandbox.connect_unix("/tmp/socket") as connection:
            connection.write("abc")
            connection.end()
            assert (connection.read(2), connection.read(), connection.read()) == (b"cb", b"a", b"")
    with pytest.raises(blink.NotFound):
        sandbox.connect_tcp("localhost", 9)


def test_failures_are_told_apart(sandbox: Sandbox, tmp_path: Path) -> None:
    files = sandbox.files
    files.write("/tmp/file", "x")
    files.make_dir("/tmp/full/inner")
    (tmp_path / "file").write_text("x")
    looking: list[Callable[[str], Any]] = [
        files.read,
        files.reader,
        files.stat,
        files.list,
        files.remove,
        lambda path: files.rename(path, "/tmp/renamed"),
        lambda path: files.copy(path, "/tmp/copied"),
        lambda path: files.download(path, tmp_path / "out"),
    ]
    writing: list[Callable[[str], Any]] = [
        lambda path: files.write(path, "x"),
        lambda path: files.write(path, "x", append=True),
        lambda path: files.upload(tmp_path / "file", path),
    ]
    long = "/tmp/" + "n" * 300
    cases: list[tuple[str, Sequence[Callable[[str], Any]], type[blink.BlinkError], type[OSError], int]] = [
        ("/tmp/missing", looking, blink.NotFound, FileNotFoundError, errno.ENOENT),
        ("/no/such/file", writing, blink.NotFound, FileNotFoundError, errno.ENOENT),
        ("/tmp/file/inner", looking + writing, blink.NotADirectory, NotADirectoryError, errno.ENOTDIR),
        ("/tmp/file", [files.list], blink.NotADirectory, NotADirectoryError, errno.ENOTDIR),
        ("/tmp/file", [files.make_dir], blink.AlreadyExists, FileExistsError, errno.EEXIST),
        ("/tmp/full", [files.read, files.reader, *writing], blink.IsADirectory, IsADirectoryError, errno.EISDIR),
        ("/tmp/full", [files.remove], blink.DirectoryNotEmpty, OSError, errno.ENOTEMPTY),
        (long, looking + writing, blink.NameTooLong, OSError, errno.ENAMETOOLONG),
        ("/usr/new", [files.make_dir, *writing], blink.ReadOnly, OSError, errno.EROFS),
        ("/proc/self/mem", writing[:1], blink.PermissionDenied, PermissionError, errno.EPERM),
        ("/proc/self/mem", writing[1:2], blink.PermissionDenied, PermissionError, errno.EACCES),
    ]
    for path, operations, kind, builtin, number in cases:
        for operation in operations:
            with pytest.raises(kind) as raised:
                operation(path)
            error: Any = raised.value
            assert type(error) is kind, path
            assert isinstance(error, builtin), path
            assert (error.errno, error.filename) == (number, path)
            again = pickle.loads(pickle.dumps(error))
            assert (type(again), again.errno, again.filename) == (kind, number, path)


def test_another_user_owns_what_is_made(sandbox: Sandbox) -> None:
    others = sandbox.files.as_user("1234")
    others.make_dir("/tmp/others/inner", mode=0o710)
    others.write("/tmp/others/file", "x")
    sandbox.files.make_dir("/tmp/mine")
    look = "stat --format '%a %n' /tmp/others/inner; find /tmp/others -not -user 1234; find /tmp/mine -user 1234"
    assert sandbox.exec(["sh", "-c", look]).text == "710 /tmp/others/inner\n"
    with pytest.raises(blink.NotFound, match="nobody-here"):
        sandbox.files.as_user("nobody-here").make_dir("/tmp/none")


def test_what_cannot_be(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(blink.NotFound, match="/tmp/none"):
        sandbox.files.read("/tmp/none")
    with pytest.raises(blink.InvalidArgument):
        sandbox.files.read("relative")
    with pytest.raises(blink.NotFound):
        sandbox.files.upload(tmp_path / "none", "/tmp/none")
