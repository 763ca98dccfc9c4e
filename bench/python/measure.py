"""Measures the Python package beside the library that it is made over, in turns, and writes a table."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import blink
from blink.aio import AsyncBlink

MIB = 1 << 20


class Rust:
    """The same done by the library: a program that is told what to do, a line at a time."""

    def __init__(self, program: str) -> None:
        self._program = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, what: str, count: int) -> list[float]:
        assert self._program.stdin
        assert self._program.stdout
        self._program.stdin.write(f"{what} {count}\n")
        self._program.stdin.flush()
        return [float(number) for number in self._program.stdout.readline().split()]

    def end(self) -> None:
        self._program.communicate()


def percentiles(samples: list[float]) -> str:
    ordered = sorted(samples)
    return f"{statistics.median(ordered):.0f} µs / {ordered[int(len(ordered) * 0.99)]:.0f} µs"


def timed_exec(sandbox: blink.Sandbox, count: int) -> list[float]:
    samples = []
    for _ in range(count):
        started = time.perf_counter()
        sandbox.exec(["/bin/true"])
        samples.append((time.perf_counter() - started) * 1e6)
    return samples


async def timed_async_exec(rounds: int, count: int, rust: Rust) -> tuple[list[float], list[float]]:
    samples, peers = [], []
    async with AsyncBlink(isolation="namespace") as library, library.sandbox() as sandbox:
        for _ in range(rounds):
            for _ in range(count):
                started = time.perf_counter()
                await sandbox.exec(["/bin/true"])
                samples.append((time.perf_counter() - started) * 1e6)
            peers += rust.do("exec", count)
    return samples, peers


def execs(rust: Rust, rounds: int) -> list[str]:
    with blink.Blink(isolation="namespace").sandbox() as sandbox:
        timed_exec(sandbox, 50)
        rust.do("exec", 50)
        samples: list[float] = []
        peers: list[float] = []
        for _ in range(rounds):
            samples += timed_exec(sandbox, 50)
            peers += rust.do("exec", 50)
    waits, waiting_peers = asyncio.run(timed_async_exec(rounds, 50, rust))
    rows = []
    for name, mine, other, target in [
        ("`exec` of /bin/true", samples, peers, 60.0),
        ("the same, awaited", waits, waiting_peers, None),
    ]:
        more = statistics.median(mine) - statistics.median(other)
        verdict = "" if target is None else "pass" if more <= target else "**miss**"
        aim = "" if target is None else f"≤ {target:.0f} µs over Rust's"
        ratio = statistics.median(mine) / statistics.median(other)
        note = f"{more:+.0f} µs; {len(mine)} samples"
        rows.append(
            f"| {name} | {aim} | {percentiles(mine)} | {percentiles(other)} | {ratio:.2f} | {verdict} | {note} |"
        )
    return rows


def stdout(rust: Rust, rounds: int, size: int) -> list[str]:
    mine, peers, captured = [], [], []
    with blink.Blink(isolation="namespace").sandbox() as sandbox:
        for _ in range(rounds):
            started = time.perf_counter()
            with sandbox.spawn(["head", "-c", str(size), "/dev/zero"]) as process:
                assert sum(map(len, process.stdout)) == size
            mine.append(size / (time.perf_counter() - started) / 1e6)
            peers.append(size / rust.do("stdout", size)[0] / 1e6)
            started = time.perf_counter()
            output = sandbox.exec(["head", "-c", str(size), "/dev/zero"], output_limit=size)
            captured.append(size / (time.perf_counter() - started) / 1e6)
            assert len(output.stdout) == size
            del output
    rows = []
    for name, rates, aim in [
        (f"{size // MIB} MiB of stdout, by chunks", mine, 500.0),
        ("the same, captured by `exec`", captured, 500.0),
    ]:
        rate, peer = statistics.median(rates), statistics.median(peers)
        verdict = "pass" if rate >= aim else "**miss**"
        note = f"{min(rates):.0f} to {max(rates):.0f} MB/s"
        rows.append(
            f"| {name} | ≥ 500 MB/s | {rate:.0f} MB/s | {peer:.0f} MB/s | {rate / peer:.2f} | {verdict} | {note} |"
        )
    return rows


async def many(rust: Rust, rounds: int) -> str:
    mine, peers = [], []
    async with AsyncBlink(isolation="namespace") as library, library.sandbox() as sandbox:
        for _ in range(rounds):
            started = time.perf_counter()
            outputs = await asyncio.gather(*(sandbox.exec(["/bin/true"]) for _ in range(100)))
            mine.append((time.perf_counter() - started) * 1e3)
            assert len(outputs) == 100
            assert all(output.ok for output in outputs)
            peers.append(rust.do("many", 100)[0] * 1e3)
    time_ms, peer = statistics.median(mine), statistics.median(peers)
    return (
        f"| 100 `exec` at once on one sandbox, awaited | none lost | {time_ms:.0f} ms | {peer:.0f} ms | "
        f"{time_ms / peer:.2f} | pass | {rounds} rounds, {100 * rounds} of {100 * rounds} came back |"
    )


def importing(rounds: int) -> str:
    def once(module: str) -> float:
        program = f"import time; s = time.perf_counter(); import {module}; print((time.perf_counter() - s) * 1e3)"
        return float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)

    mine, peers = [], []
    once("blink")
    for _ in range(rounds):
        mine.append(once("blink"))
        peers.append(once("asyncio"))
    time_ms, peer = statistics.median(mine), statistics.median(peers)
    verdict = "pass" if time_ms < 60 else "**miss**"
    reached = f"{time_ms:.1f} ms | `import asyncio`: {peer:.1f} ms | {time_ms / peer:.2f}"
    return f"| `import blink` | < 60 ms | {reached} | {verdict} | {rounds} samples, {min(mine):.1f} to {max(mine):.1f} ms |"


def setting() -> str:
    with open("/proc/cpuinfo") as cpuinfo:
        processor = next(
            (line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown"
        )
    load = " ".join(f"{number:.2f}" for number in os.getloadavg())
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    kernel = ".".join(platform.release().split(".")[:2])
    python = f"Python {platform.python_version()}"
    return f"Linux {kernel}; {os.cpu_count()} processors: {processor}; as {user}; {python}; load average {load}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rust", required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    rounds, size = (2, 16 * MIB) if arguments.quick else (20, 1024 * MIB)
    before = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC; {setting()}"
    with tempfile.TemporaryDirectory(prefix="blink-bench-") as home:
        os.environ["BLINK_HOME"] = home
        rust = Rust(arguments.rust)
        rows = [
            importing(rounds),
            *execs(rust, rounds),
            *stdout(rust, min(rounds, 5), size),
            asyncio.run(many(rust, rounds)),
        ]
        rust.end()
    table = "\n".join(
        [
            "# Benchmarks: Python",
            "",
            f"{before}.",
            "",
            "Times are median / 99th percentile, rates the median. The peer is the library in Rust, in turns with Python.",
            "",
            "| what | target | reached | peer | ratio | | note |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    (arguments.out / "python.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
