"""An evaluation harness: a thousand short programs, each in a sandbox of its own, claimed from a pool."""

from __future__ import annotations

import asyncio
import sys
import time

from blink.aio import AsyncBlink, AsyncPool

#: How many programs there are; an argument says otherwise.
PROGRAMS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000

#: How many run at once.
AT_ONCE = 8


def program(number: int) -> str:
    """What a model has written: most of it is right, and each hundredth never ends."""
    if number % 100 == 99:
        return "while true; do :; done"
    return f"echo $(({number} * {number}))"


async def evaluate(pool: AsyncPool, number: int) -> str:
    """Run one program, and say what came of it."""
    async with pool.claim() as sandbox:
        output = await sandbox.run_code(program(number), "sh", timeout=0.5)
    if output.timed_out:
        return "timed out"
    return "passed" if output.ok and output.text == f"{number * number}\n" else "failed"


def show(done: int, begun: float) -> None:
    """Draw a bar, where somebody can see it."""
    if not sys.stderr.isatty():
        return
    width = 40 * done // PROGRAMS
    rate = done / (time.monotonic() - begun)
    print(f"\r[{'#' * width:<40}] {done}/{PROGRAMS}  {rate:.0f} a second", end="", file=sys.stderr, flush=True)


async def main() -> None:
    results: dict[str, int] = {}
    numbers = iter(range(PROGRAMS))
    async with AsyncBlink(isolation="auto") as blink, blink.pool(size=AT_ONCE) as pool:
        await pool.ready()
        begun = time.monotonic()

        async def work() -> None:
            for number in numbers:
                result = await evaluate(pool, number)
                results[result] = results.get(result, 0) + 1
                show(sum(results.values()), begun)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        stats = await pool.stats()
    print(", ".join(f"{count} {result}" for result, count in sorted(results.items())))
    print(f"{'':8}{'count':>8}{'p50':>10}{'p95':>10}{'p99':>10}{'max':>10}")
    for name, latency in (
        ("claim", stats.claim_latency),
        ("boot", stats.boot_latency),
        ("removal", stats.removal_latency),
    ):
        times = "".join(f"{1000 * value:>8.2f}ms" for value in (latency.p50, latency.p95, latency.p99, latency.max))
        print(f"{name:8}{latency.count:>8}{times}")


asyncio.run(main())
