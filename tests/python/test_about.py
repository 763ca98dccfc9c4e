"""What sandboxes and sessions say about themselves, and about their end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import blink
import pytest
from blink.aio import AsyncBlink
from conftest import ENGINE

if TYPE_CHECKING:
    from pathlib import Path

    from blink import Blink, Sandbox


def kill_machine(home: Path, id: str) -> None:
    """End a sandbox's machine from outside, by what is written down of it."""
    holder = {"namespace": "agent", "microvm": "process"}[ENGINE]
    pid = json.loads((home / "sandboxes" / id / "record.json").read_text())[holder]["pid"]
    os.kill(pid, signal.SIGKILL)


def test_the_agent(library: Blink, sandbox: Sandbox) -> None:
    assert sandbox.agent().startswith("blink-guest ")
    with library.session("about") as session:
        assert session.agent() == sandbox.agent()
        session.remove()
        with pytest.raises(blink.InvalidArgument, match="closed"):
            session.agent()


def test_a_death_has_a_reason(library: Blink, home: Path) -> None:
    with library.sandbox() as sandbox:
        assert sandbox.death is None
        kill_machine(home, sandbox.id)
        with pytest.raises(blink.SandboxDied) as raised:
            sandbox.ping()
        assert isinstance(sandbox.death, blink.SandboxDied)
        assert (sandbox.death.message, sandbox.death.output) == (raised.value.message, None)
    with pytest.raises(blink.InvalidArgument, match="the sandbox is closed"):
        _ = sandbox.death

    async def main() -> None:
        async with AsyncBlink(home=home, isolation=ENGINE) as library, library.sandbox() as sandbox:
            assert (await sandbox.agent()).startswith("blink-guest ")
            assert sandbox.death is None
            kill_machine(home, sandbox.id)
            with pytest.raises(blink.SandboxDied) as raised:
                await sandbox.ping()
            assert str(sandbox.death) == str(raised.value)

    asyncio.run(main())


def test_the_hypervisor(library: Blink) -> None:
    report = library.doctor()
    assert not (report.hypervisor_works and report.hypervisor_problem)
    assert report.hypervisor_works or not report.checks[0].works
