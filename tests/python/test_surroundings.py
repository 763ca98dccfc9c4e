"""Programs that embed Blink and do as they like with signals, children and masks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import blink
import pytest
from conftest import ENGINE, PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

USE = f"""
import sys
import blink
with blink.Blink(home=sys.argv[1], isolation={ENGINE!r}) as library:
    for _ in range(2):
        assert library.run(["sh", "-c", "echo fine; exit 3"]).exit_code == 3
    with library.session("one") as session:
        session.checkpoint("first")
        assert session.exec(["sh", "-c", "umask"]).text == "0022\\n"
        session.remove()
"""

SURROUNDINGS = {
    "children ignored": "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "children collected": """
import os, signal
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)
""",
    "signals blocked": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "masked": "import os; os.umask(0o077)",
    "closed": "import os; os.closerange(0, 3)",
}


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_nothing_hangs_and_the_answers_are_right(surrounding: str, tmp_path: Path) -> None:
    program = SURROUNDINGS[surrounding] + USE
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path / "home")], timeout=PATIENCE, check=False)
    assert ran.returncode == 0
    assert not list((tmp_path / "home" / "sandboxes").iterdir())


OWNER = f"""
import os, signal, sys, time
import blink
library = blink.Blink(home=sys.argv[1], isolation={ENGINE!r})
sandbox = library.sandbox()
session = library.session("one")
running = session.spawn(["sleep", "1000"])
child = os.fork()
if child == 0:
    # What is let go of here is the parent's.
    del sandbox, session, running, library
    os.write(1, b"forked\\n")
    time.sleep(1000)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_child_keeps_nothing_of_an_owner_that_is_killed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    arguments = [sys.executable, "-c", OWNER, str(home)]
    # The child outlives the owner, and has its output.
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
    ) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == "forked\n"
            owner.stdin.write("\n")
            owner.stdin.flush()
            assert owner.wait(PATIENCE) == -signal.SIGKILL
            with blink.Blink(home=home, isolation=ENGINE) as library:  # type: ignore[arg-type]
                session = library.session("one")
                assert session.exec(["echo", "fine"]).text == "fine\n"
                session.remove()
            assert not list((home / "sandboxes").iterdir())
        finally:
            os.killpg(owner.pid, signal.SIGKILL)
