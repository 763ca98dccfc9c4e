"""Sessions, checkpoints, forks and archives."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import blink
import pytest
from conftest import ENGINE

if TYPE_CHECKING:
    from pathlib import Path

    from blink import Blink

NOTES = "/var/blink/memory/notes"


def test_what_a_session_holds_is_there_again(library: Blink) -> None:
    with library.session("again", labels={"for": "tests"}) as session:
        assert session.was_created
        number = session.id
        session.files.write(NOTES, "kept")
        assert session.exec(["cat", NOTES]).text == "kept"
        info = session.info()
        assert (info.name, info.isolation, info.running, info.labels) == ("again", ENGINE, True, {"for": "tests"})
    with pytest.raises(ValueError, match="the session is closed"):
        session.exec(["true"])
    assert not library.session_info("again").running
    with pytest.raises(blink.InvalidArgument, match="memory_mib"):
        library.session("again", memory_mib=512)
    with pytest.raises(blink.InvalidArgument, match="network is none, not host"):
        library.session("again", network="host")
    library.session("again", network="none", warm=False).close()
    with library.take_session("again") as session:
        assert (session.was_created, session.id) == (False, number)
        assert session.files.read_text(NOTES) == "kept"
        session.rename("renamed")
    assert [session.name for session in library.sessions()] == ["renamed"]
    library.take_session("renamed").remove()
    assert library.sessions() == []


def test_checkpoints_and_forks(library: Blink) -> None:
    with library.session("parent") as session:
        session.files.write(NOTES, "one")
        first = session.checkpoint("first")
        assert (first.name, first.parent) == ("first", None)
        assert first.consistency in ("frozen", "crash")
        session.files.write(NOTES, "two")
        session.stop()
        assert session.checkpoint("second").consistency == "stopped"
        session.restore("first")
        assert session.files.read_text(NOTES) == "one"
        with session.fork("child", checkpoint="second") as fork:
            assert fork.files.read_text(NOTES) == "two"
            assert library.session_lineage("child").forked_from == "parent@second"
            fork.remove()
        forks = session.fork_many(f"child-{number}" for number in range(3))
        for number, fork in enumerate(forks):
            with fork:
                fork.files.write(NOTES, str(number), append=True)
                assert fork.files.read_text(NOTES) == f"one{number}"
                fork.remove()
        assert session.files.read_text(NOTES) == "one"
        lineage = session.lineage()
        assert [checkpoint.name for checkpoint in lineage.checkpoints] == ["first", "second"]
        assert lineage.current == "first"
        session.remove_checkpoint("second")
        assert [checkpoint.name for checkpoint in session.checkpoints()] == [first.name]
        with pytest.raises(blink.NotFound, match="second"):
            session.restore("second")
        session.remove()
    assert library.prune_sessions() >= 0


def test_archives(library: Blink, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    told: list[blink.TransferProgress] = []
    with library.session("exported") as session:
        session.files.write(NOTES, "carried")
        session.files.write("/var/blink/memory/large", os.urandom(9 << 20))
        session.checkpoint("before")
        session.files.write(NOTES, "left")
        session.export(archive, checkpoint="before", progress=told.append)
        assert [news.bytes_done for news in told] == sorted(news.bytes_done for news in told)
        assert told[-1].bytes_done > 9 << 20
        with pytest.raises(blink.NotFound, match="none"):
            session.export(tmp_path / "none", checkpoint="none")
        with pytest.raises(blink.Unsupported, match="host"):
            session.export_oci(tmp_path / "image")
        session.remove()
    told.clear()
    images: list[blink.Progress] = []
    importing = library.import_session("imported", archive, import_progress=told.append, progress=images.append)
    with importing as session:
        assert told[-1].bytes_done > 9 << 20
        assert images == []
        assert session.files.read_text(NOTES) == "carried"
        assert session.declined == []
        with pytest.raises(blink.AlreadyExists):
            library.import_session("imported", archive)
        session.remove()


def test_what_an_archive_asks_for_and_does_not_get_is_told(library: Blink, tmp_path: Path) -> None:
    with library.session("asking", processes=2000) as session:
        session.export(tmp_path / "archive")
        assert session.declined == []
        session.remove()
    with library.import_session("given", tmp_path / "archive", processes=100) as session:
        session.remove()
    with library.import_session("given", tmp_path / "archive") as session:
        (declined,) = session.declined
        assert declined == blink.Declined("processes", "2000", declined.given)
        assert 0 < int(declined.given) < 2000
        session.remove()


def test_what_the_function_for_progress_raises_is_raised(library: Blink, tmp_path: Path) -> None:
    def refuse(_: blink.TransferProgress) -> None:
        raise LookupError("enough")

    with library.session("refused") as session:
        with pytest.raises(LookupError, match="enough"):
            session.export(tmp_path / "archive", progress=refuse)
        session.export(tmp_path / "other")
        with pytest.raises(LookupError, match="enough"):
            library.import_session("refused-too", tmp_path / "other", import_progress=refuse)
        session.remove()
    # What was begun comes to its end.
    while "refused-too" not in {session.name for session in library.sessions()}:
        time.sleep(0.01)
    library.take_session("refused-too").remove()


def test_a_warm_session_goes_on(library: Blink) -> None:
    if ENGINE == "microvm":
        pytest.skip("a machine's process belongs to the test's")
    with library.session("warm", warm=True) as session:
        number = session.spawn(["sleep", "1000"]).id
    assert library.session_info("warm").running
    with library.session("warm", warm=True) as session:
        assert number in {process.id for process in session.processes()}
        session.remove()


def test_a_detached_sandbox_goes_on(library: Blink) -> None:
    with library.sandbox(detached=True) as sandbox:
        sandbox.files.write("/tmp/left", "here")
    assert library.sandboxes() == [sandbox.id]
    with library.open(sandbox.id) as again:
        assert again.files.read("/tmp/left") == b"here"
        again.remove()
    assert library.sandboxes() == []
