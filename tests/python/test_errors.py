"""Failures: the table that holds all languages together, and each kind as a caller meets it."""

from __future__ import annotations

import builtins
import csv
import errno
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import blink
import pytest
from blink import errors
from conftest import ENGINE

if TYPE_CHECKING:
    from blink import Blink

TABLE = Path(__file__).parents[1] / "errors.tsv"


def rows() -> list[dict[str, str]]:
    with TABLE.open(newline="") as file:
        return [row for row in csv.DictReader(file, delimiter="\t") if row["python_class"] != "-"]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["kind"])
def test_a_kind_has_its_class_and_its_builtin(row: dict[str, str]) -> None:
    cls = getattr(blink, row["python_class"])
    assert cls.__bases__ == (blink.BlinkError, getattr(builtins, row["python_builtin"]))
    assert cls.kind == row["kind"]
    assert errors.BY_KIND[row["kind"]] is cls
    error = cls("what went wrong")
    assert (str(error), error.message, error.output) == ("what went wrong", "what went wrong", None)
    number = None if row["python_errno"] == "-" else getattr(errno, row["python_errno"])
    assert (error.errno, error.filename) == (number, None)
    assert str(pickle.loads(pickle.dumps(error))) == "what went wrong"


def test_the_table_has_all_kinds() -> None:
    assert {row["kind"] for row in rows()} == set(errors.BY_KIND)
    classes = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, blink.BlinkError)}
    assert classes - set(errors.BY_KIND.values()) == {blink.BlinkError, blink.CommandFailed}


def test_invalid_argument(library: Blink) -> None:
    with pytest.raises(blink.InvalidArgument, match="memory"):
        library.sandbox(memory_mib=0)


def test_not_found(library: Blink) -> None:
    with pytest.raises(blink.NotFound, match='no session "none"'):
        library.session_info("none")


def test_already_exists_and_busy(library: Blink, home: Path) -> None:
    with library.session("taken") as session:
        session.checkpoint("one")
        with pytest.raises(blink.AlreadyExists, match='"one"'):
            session.checkpoint("one")
        # However often this process opens it, it is one; another Blink's is told apart.
        with library.session("taken", patience=0) as again:
            assert again.id == session.id
        with (
            blink.Blink(home=home, isolation=ENGINE) as other,  # type: ignore[arg-type]
            pytest.raises(blink.Busy, match=f"this very process .*{os.getpid()}") as raised,
        ):
            other.take_session("taken", patience=0).remove()
        assert raised.value.retryable
        assert [holder.pid for holder in raised.value.holders] == [os.getpid()]
        assert "python" in (raised.value.holders[0].command or "")
        session.remove()


def test_the_cause_of_a_failure_is_its_cause(library: Blink, tmp_path: Path) -> None:
    with library.sandbox() as sandbox, pytest.raises(blink.NotFound) as raised:
        sandbox.files.upload(tmp_path / "none", "/tmp/none")
    cause = raised.value.__cause__
    assert type(cause) is FileNotFoundError
    assert (cause.errno, cause.strerror) == (errno.ENOENT, os.strerror(errno.ENOENT))
    assert cause.__cause__ is None
    assert not raised.value.retryable
    assert raised.value.holders == ()


def test_isolation_unavailable(library: Blink) -> None:
    microvm, _ = library.doctor().checks
    if microvm.works:
        assert library.run(["true"], isolation="microvm").isolation == "microvm"
    else:
        with pytest.raises(blink.IsolationUnavailable, match="BLINK_ISOLATION"):
            library.run(["true"], isolation="microvm")


def test_image_unavailable(home: Path) -> None:
    with blink.Blink(home=home, isolation=ENGINE, offline=True) as library:  # type: ignore[arg-type]
        with pytest.raises(blink.ImageUnavailable, match=r"alpine:3\.20"):
            library.run(["true"], image="alpine:3.20")


def test_resource_exhausted(library: Blink) -> None:
    with library.sandbox(memory_mib=64) as sandbox:
        output = sandbox.run_code("x = []\nwhile True: x.append(bytearray(1 << 20))")
        with pytest.raises((blink.ResourceExhausted, blink.CommandFailed)) as raised:
            output.check()
    assert raised.value.output is output


def test_timeout_of_waiting(library: Blink) -> None:
    with library.sandbox() as sandbox, sandbox.spawn(["sleep", "60"]) as process:
        with pytest.raises(blink.ExecTimeout, match="goes on"):
            process.wait(timeout=0.05)


def test_sandbox_died(library: Blink) -> None:
    with library.sandbox() as sandbox, sandbox.spawn(["sleep", "60"]) as process:
        sandbox.close()
        with pytest.raises(blink.SandboxDied):
            process.wait()


def test_corrupt(library: Blink, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(b"no archive" * 1000)
    with pytest.raises(blink.Corrupt):
        library.import_session("broken", archive)
    assert "broken" not in {session.name for session in library.sessions()}


def test_unsupported(library: Blink) -> None:
    if ENGINE == "namespace":
        with pytest.raises(blink.Unsupported):
            library.sandbox(network=["pypi.org"])
