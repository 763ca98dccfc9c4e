"""Pools."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import blink
import pytest
from blink import aio
from conftest import ENGINE

if TYPE_CHECKING:
    from pathlib import Path

    from blink import Blink


def until(holds: object, what: str) -> None:
    assert callable(holds)
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < 60, what
        time.sleep(0.01)


def test_what_is_claimed_is_ready(library: Blink) -> None:
    warmup = ["mkdir -p /srv", ["sh", "-c", "echo warm > /srv/state"]]
    with library.pool(size=2, name="ready", warmup=warmup, prepare=["echo each > /tmp/each"]) as pool:
        pool.ready()
        with pool.claim(env={"TASK": "42"}) as sandbox:
            assert sandbox.isolation == ENGINE
            assert sandbox.run_code("cat /srv/state /tmp/each; echo $TASK", "sh").text == "warm\neach\n42\n"
        stats = pool.stats()
        assert (stats.name, stats.size, stats.hits, stats.failed_claims) == ("ready", 2, 1, 0)
        assert 0 < stats.claim_latency.p50 <= stats.claim_latency.max
        assert 'blink_pool_claims_total{pool="ready",outcome="hit"} 1' in stats.openmetrics
        until(lambda: pool.stats().claimed == 0 and pool.stats().idle == 2, "a full pool")
        assert len(pool.stats().ages) == 2
    assert pool.closed
    with pytest.raises(ValueError, match="the pool is closed"):
        pool.claim()


def test_a_claimed_sandbox_becomes_a_session(library: Blink) -> None:
    with library.pool() as pool:
        with pool.claim_as("from-pool", labels={"of": "pool"}) as session:
            session.files.write("/tmp/x", "kept")
        assert library.session_info("from-pool").labels == {"of": "pool"}
        with pytest.raises(blink.AlreadyExists):
            pool.claim_as("from-pool")
    with library.take_session("from-pool") as session:
        assert session.files.read_text("/tmp/x") == "kept"
        session.remove()


def test_what_cannot_be_is_refused(library: Blink) -> None:
    for options, message in (
        ({"size": 0}, "size 0"),
        ({"size": 2, "max": 1}, "max 2"),
        ({"publish": [blink.PublishedPort(80)]}, "published ports"),
        ({"when_empty": "fail"}, "boot"),
        ({"max_age": -1}, "max_age"),
    ):
        with pytest.raises(blink.InvalidArgument, match=message):
            library.pool(**options)
    with pytest.raises(TypeError, match="detached"):
        library.pool(detached=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="are a list"):
        library.pool(warmup="true")
    with pytest.raises(blink.InvalidArgument, match="exit code 3") as failed:
        library.pool(warmup=["echo told; exit 3"])
    assert failed.value.output is not None
    assert failed.value.output.stdout == b"told\n"
    with library.pool(max=1) as pool:
        with pytest.raises(TypeError, match="image"):
            pool.claim(image="host")  # type: ignore[call-arg]
        with pool.claim(), pytest.raises(TimeoutError, match="max"):
            pool.claim(timeout=0.05)
        pool.drain(60)
        with pytest.raises(blink.InvalidArgument, match="closed"):
            pool.claim()


def test_many_threads_and_tasks_claim_at_once(library: Blink) -> None:
    texts = []
    with library.pool(size=2, max=4) as pool:

        def work(number: int) -> None:
            with pool.claim() as sandbox:
                texts.append(sandbox.exec(["echo", str(number)]).text)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(texts) == [f"{number}\n" for number in range(8)]


def test_tasks_claim(home: Path) -> None:
    async def main() -> list[str]:
        async with aio.AsyncBlink(home=home, isolation=ENGINE) as library, library.pool(size=2, max=4) as pool:  # type: ignore[arg-type]
            await pool.ready()

            async def work(number: int) -> str:
                async with pool.claim(env={"N": str(number)}) as sandbox:
                    output = await sandbox.run_code("echo $N", "sh")
                return output.text

            texts = await asyncio.gather(*map(work, range(8)))
            stats = await pool.stats()
            assert stats.hits + stats.misses == 8
            return texts

    assert asyncio.run(main()) == [f"{number}\n" for number in range(8)]


def test_an_interpreter_waits(library: Blink) -> None:
    with library.pool(interpreters=["python"]) as pool:
        pool.ready()
        with pool.claim(env={"A": "1"}) as sandbox:
            code = "import os, sys; print(os.environ['A'], sys.stdin.read()); sys.exit(3)"
            for _ in range(2):
                output = sandbox.run_code(code, stdin="in")
                assert (output.text, output.exit_code) == ("1 in\n", 3)


def test_a_key_makes_one_thing(library: Blink) -> None:
    with library.pool(size=2) as pool:
        with pool.claim(key="python-claim"), pytest.raises(blink.Busy, match="with this key"):
            pool.claim(key="python-claim")
        with pool.claim_as("python-keyed", key="python-name") as session:
            with pool.claim_as("python-keyed", key="python-name") as again:
                assert again.id == session.id
            session.remove()
    sandbox = library.sandbox(detached=True, key="python-create", env={"A": "1"})
    made = sandbox.id
    sandbox.close()
    with library.sandbox(detached=True, key="python-create", env={"A": "1"}) as sandbox:
        assert sandbox.id == made
        assert sandbox.run_code("echo $A", "sh").text == "1\n"
        sandbox.remove()
    with pytest.raises(blink.InvalidArgument, match="something else"):
        library.sandbox(key="python-create")


def test_a_budget_is_shared(home: Path) -> None:
    with (
        blink.Blink(home=home, isolation=ENGINE, budget=(None, 2)) as library,  # type: ignore[arg-type]
        library.sandbox(),
        library.sandbox(),
        pytest.raises(blink.ResourceExhausted, match="2 sandboxes"),
    ):
        library.sandbox()


@pytest.mark.skipif(ENGINE != "namespace", reason="a micro-VM belongs to the process that has booted it")
def test_another_process_claims_by_name(library: Blink, home: Path) -> None:
    with pytest.raises(blink.NotFound):
        library.open_pool("python-shared")
    script = """
import blink, sys
with blink.Blink(home=sys.argv[1], isolation="namespace") as library:
    pool = library.open_pool("python-shared")
    with pool.claim(env={"A": "1"}) as sandbox:
        print(sandbox.run_code("echo $A", "sh").text, pool.stats().claimed, [pool.name for pool in library.pools()])
"""
    with library.pool(name="python-shared", shared=True, size=2) as pool:
        pool.ready()
        said = subprocess.run(
            [sys.executable, "-c", script, home], capture_output=True, text=True, check=False, timeout=60
        )
        assert said.stdout == "1\n 1 ['python-shared']\n", said.stderr
        until(lambda: pool.stats().claimed == 0, "an end")
