"""Everything at once: whatever the number of calls, each is answered."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import blink
import pytest
from blink import aio
from conftest import ENGINE

if TYPE_CHECKING:
    from pathlib import Path

    from blink import Sandbox

COUNT = 2000


def test_thousands_of_calls_at_once_are_all_answered(home: Path) -> None:
    async def burst() -> None:
        async with (
            aio.AsyncBlink(home=home, isolation=ENGINE) as library,  # type: ignore[arg-type]
            library.sandbox() as sandbox,
        ):
            outputs = await asyncio.gather(*(sandbox.exec(["true"]) for _ in range(COUNT)))
            assert all(output.ok for output in outputs)
            await asyncio.gather(*(sandbox.files.write(f"/tmp/{i % 100}", b"x") for i in range(COUNT)))
            await asyncio.gather(*(sandbox.files.stat("/usr") for _ in range(COUNT)))

    asyncio.run(burst())


def test_threads_at_once_are_all_answered(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(200) as threads:
        outputs = list(threads.map(lambda _: sandbox.exec(["true"]), range(1000)))
    assert all(output.ok for output in outputs)


def test_a_timeout_is_one_outcome(sandbox: Sandbox) -> None:
    for number in range(200):
        output = sandbox.exec(["true"], timeout=0.0001 + number % 50 * 0.0001)
        assert (output.exit_code, output.signal) == ((137, 9) if output.timed_out else (0, None))


def test_arguments_are_as_long_as_the_kernel_takes(sandbox: Sandbox) -> None:
    longest = 128 * 1024 - 1
    count = ["sh", "-c", 'printf %s "$*" | wc -c', "sh"]
    assert sandbox.exec([*count, "x" * longest]).text.strip() == str(longest)
    env: dict[Any, Any] = {f"V{i}": "x" * 500 for i in range(2000)}
    assert sandbox.exec(["sh", "-c", "env | wc -l"], env=env).ok
    assert sandbox.exec([*count, *(["x" * 100_000] * 19)]).ok
    for long in (["x" * (longest + 1)], ["x" * 100_000] * 42):
        with pytest.raises(blink.InvalidArgument):
            sandbox.exec([*count, *long])
