"""Best of n: prepare one session, fork it eight ways, let each try, and keep the fork whose tests pass."""

from __future__ import annotations

import asyncio

from blink.aio import AsyncBlink, AsyncSession

TESTS = """
import sys
sys.path.insert(0, "/work")
from solution import is_prime
assert [n for n in range(30) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
"""

#: What eight runs of a model have written; one of them is right.
CANDIDATES = [
    "def is_prime(n): return n % 2 == 1",
    "def is_prime(n): return all(n % d for d in range(2, n))",
    "def is_prime(n): return n > 1 and all(n % d for d in range(2, n // 2))",
    "def is_prime(n): return n in (2, 3, 5, 7, 11, 13)",
    "def is_prime(n):\n    while True: pass",
    "def is_prime(n): return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))",
    "def is_prime(n) return n > 1",
    "import os; os._exit(0)",
]


async def try_one(fork: AsyncSession, candidate: str) -> bool:
    """Write a candidate into a fork, and say whether the tests pass there."""
    await fork.files.write("/work/solution.py", candidate)
    # What the tests print last tells that they came to their end: the candidate's own word for it does not count.
    output = await fork.run_code(TESTS + "\nprint('passed')", timeout=5)
    return output.ok and output.text == "passed\n"


async def main() -> None:
    async with AsyncBlink(isolation="auto") as blink, blink.session("prepared") as prepared:
        # Everything that takes long is done once.
        await prepared.files.make_dir("/work")
        await prepared.files.write("/work/README", "Write is_prime(n) into solution.py.\n")

        forks = await prepared.fork_many(f"try-{number}" for number in range(len(CANDIDATES)))
        passed = await asyncio.gather(*map(try_one, forks, CANDIDATES))
        for number, (fork, good) in enumerate(zip(forks, passed, strict=True)):
            print(f"try-{number} {'passes' if good else 'fails'}")
            if good:
                await fork.rename("best")
                await fork.close()
            else:
                await fork.remove()
        await prepared.remove()

        async with blink.session("best") as best:
            print(await best.files.read_text("/work/solution.py"))
            await best.remove()


if __name__ == "__main__":
    asyncio.run(main())
