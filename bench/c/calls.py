"""Measures calls of libblink by a program in C beside the same calls by one in Rust, in turns, and writes a table."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import tempfile
from pathlib import Path

#: Calls of one program before it is the other's turn.
TURN = 50

TARGET_US = 5.0

WHAT = {
    "exec": "`exec` of /bin/true",
    "ping": "`ping` of the sandbox's agent",
    "look": "the isolation of a sandbox, which is asked of nobody",
}


class Program:
    """One that is told what to do, a line at a time, and has a sandbox of its own."""

    def __init__(self, program: str) -> None:
        self._program = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for what in WHAT:
            self.do(what)

    def do(self, what: str) -> list[float]:
        assert self._program.stdin
        assert self._program.stdout
        self._program.stdin.write(f"{what} {TURN}\n")
        self._program.stdin.flush()
        numbers = [float(number) for number in self._program.stdout.readline().split()]
        assert len(numbers) == TURN, "the program has ended"
        return numbers

    def end(self) -> None:
        self._program.communicate()
        assert self._program.returncode == 0


#: What programs have measured: for each of them its turns, and for each turn the times of its calls.
Turns = dict[str, list[list[float]]]


def measure(programs: dict[str, str], pairs: int, turns: int) -> dict[str, Turns]:
    """Give what was measured of each kind of call.

    Two sandboxes of the same kind differ by more than the calls do, so that there are several of each. Who comes first
    changes with each turn.
    """
    measured: dict[str, Turns] = {what: {name: [] for name in programs} for what in WHAT}
    order = list(programs)
    for _ in range(pairs):
        running = {name: Program(programs[name]) for name in order}
        for _ in range(turns):
            order = order[1:] + order[:1]
            for what in WHAT:
                for name in order:
                    measured[what][name].append(running[name].do(what))
        for program in running.values():
            program.end()
    return measured


def shown(turns: list[list[float]]) -> str:
    ordered = sorted(number for turn in turns for number in turn)
    median, late = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    digits = 0 if median >= 100 else 1 if median >= 1 else 3
    return f"{median:.{digits}f} µs / {late:.{digits}f} µs"


def beyond(mine: list[list[float]], peer: list[list[float]]) -> float:
    """How much longer one takes than the other, by the medians of the same turns: what else the machine does is in both."""
    pairs = zip(mine, peer, strict=True)
    return statistics.median(statistics.median(own) - statistics.median(other) for own, other in pairs)


def row(what: str, turns: Turns) -> str:
    rust = statistics.median(number for turn in turns["rust"] for number in turn)
    more, noise = beyond(turns["c"], turns["rust"]), beyond(turns["again"], turns["rust"])
    digits = 1 if rust >= 1 else 3
    verdict = "pass" if more <= TARGET_US else "**miss**"
    count = TURN * len(turns["c"])
    note = f"{more:+.{digits}f} µs; Rust beside Rust {noise:+.{digits}f} µs; {count} samples"
    # Where Rust compiles to no call at all there is no ratio.
    ratio = f"{1 + more / rust:.2f}" if rust >= 0.01 else ""
    return (
        f"| {WHAT[what]} | ≤ {TARGET_US:.0f} µs over Rust's | {shown(turns['c'])} | {shown(turns['rust'])} | "
        f"{ratio} | {verdict} | {note} |"
    )


def setting() -> str:
    with open("/proc/cpuinfo") as cpuinfo:
        processor = next(
            (line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown"
        )
    load = " ".join(f"{number:.2f}" for number in os.getloadavg())
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    kernel = ".".join(platform.release().split(".")[:2])
    return f"Linux {kernel}; {os.cpu_count()} processors: {processor}; as {user}; load average {load}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--c", required=True)
    parser.add_argument("--rust", required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    pairs, turns = (1, 2) if arguments.quick else (10, 10)
    before = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC; {setting()}"
    with tempfile.TemporaryDirectory(prefix="blink-bench-") as home:
        os.environ["BLINK_HOME"] = home
        samples = measure({"c": arguments.c, "rust": arguments.rust, "again": arguments.rust}, pairs, turns)
    table = "\n".join(
        [
            "# Benchmarks: C",
            "",
            f"{before}.",
            "",
            "Times are median / 99th percentile. The peer is a program in Rust that makes the same calls of the library,",
            "in turns with the one in C, each in a sandbox of its own. How much longer C takes is the median of the turns'",
            "differences. A second program in Rust says how much two that are the same differ.",
            "",
            "| what | target | reached | peer | ratio | | note |",
            "|---|---|---|---|---|---|---|",
            *[row(what, samples[what]) for what in WHAT],
            "",
        ]
    )
    (arguments.out / "c.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
