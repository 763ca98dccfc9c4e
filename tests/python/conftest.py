"""Sandboxes in a home of their own, by the engine that BLINK_TEST_ENGINE names (namespace)."""

from __future__ import annotations

import faulthandler
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import blink
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blink import Blink, Sandbox

ENGINES = ("namespace", "microvm")
ENGINE = os.environ.get("BLINK_TEST_ENGINE", "namespace")
if ENGINE not in ENGINES:
    raise pytest.UsageError(f"BLINK_TEST_ENGINE names {ENGINE!r}, which is no engine")

#: Nothing here takes so long unless it hangs; then the stacks are printed, and the run ends.
PATIENCE = 120 if ENGINE == "namespace" else 600


#: Where standard error went before pytest captured it.
STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    capturing = config.pluginmanager.getplugin("capturemanager")
    with capturing.global_and_fixture_disabled():
        config.stash[STDERR] = os.dup(2)


@pytest.fixture(autouse=True)
def _ends(request: pytest.FixtureRequest) -> Iterator[None]:
    stderr = request.config.stash[STDERR]
    faulthandler.dump_traceback_later(PATIENCE, exit=True, file=stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """Where everything of these tests is kept; micro-VMs need a short path for their sockets."""
    with tempfile.TemporaryDirectory(prefix="blink-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "home"


@pytest.fixture(scope="session", autouse=True)
def _variables(home: Path) -> Iterator[None]:
    """What is run by examples, and with the default home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLINK_HOME", str(home))
        patch.setenv("BLINK_TEST_ENGINE", ENGINE)
        yield


@pytest.fixture(scope="session")
def library(home: Path) -> Iterator[Blink]:
    with blink.Blink(home=home, isolation=ENGINE) as library:  # type: ignore[arg-type]
        yield library


@pytest.fixture(scope="module")
def sandbox(library: Blink) -> Iterator[Sandbox]:
    """One for all tests of a module that leave it as it was."""
    with library.sandbox() as sandbox:
        yield sandbox
