"""Compares the statuses that include/blink.h promises for each function with those that the suite has seen it return.

usage: promises.py HEADER SEEN ELSEWHERE

SEEN is what the suite writes where BLINK_TEST_SEEN names a file: a function and a status on each line. A status counts as
promised for a function where its @return names it; "as another()" is for the tests of that other one. What is promised and
was not seen, and what was seen and is not promised, is printed, and fails. ELSEWHERE lists what this suite cannot bring about,
each line a function, a status, and who tests it; a line that is not needed fails as well.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

#: What every function may return without saying so: the header's first comment does.
EVERYWHERE = {"OK", "INVALID_ARGUMENT", "UNSUPPORTED", "RESOURCE_EXHAUSTED"}

DECLARED = re.compile(r"/\*\*\n((?: \*[^\n]*\n)+?) \*/\nblink_status (blink_\w+)\([^;]*?\);")
STATUS = re.compile(r"\b(?:BLINK_STATUS_)?([A-Z]+(?:_[A-Z]+)*)\b")


def known(header: str) -> set[str]:
    return set(re.findall(r"\bBLINK_STATUS_(\w+) = \d+", header))


def promised(header: str) -> dict[str, set[str]]:
    statuses = known(header)
    found: dict[str, set[str]] = {}
    for comment, function in DECLARED.findall(header):
        returns = comment.partition("@return")[2]
        found[function] = {name for name in STATUS.findall(returns) if name in statuses}
    return found


def resolved(header: str) -> dict[str, set[str]]:
    """Adds what "as another()" brings in, for what may be seen."""
    own = promised(header)
    others = {
        function: set(re.findall(r"\b(blink_\w+)\(\)", comment.partition("@return")[2])) & set(own)
        for comment, function in DECLARED.findall(header)
    }
    every = {function: set(names) for function, names in own.items()}
    while True:
        grown = {f: names.union(*(every[other] for other in others[f])) for f, names in every.items()}
        if grown == every:
            return every
        every = grown


def main() -> None:
    header = Path(sys.argv[1]).read_text()
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for line in Path(sys.argv[2]).read_text().splitlines():
        function, status = line.split()
        seen[function].add(status.removeprefix("BLINK_STATUS_"))
    elsewhere = {tuple(line.split()[:2]) for line in Path(sys.argv[3]).read_text().splitlines() if line[:1] not in ("#", "")}
    own, allowed = promised(header), resolved(header)
    # It tells of another function's.
    for told in (own, allowed, seen):
        told.pop("blink_error_status", None)
    wrong = [
        f"{function}() promises {status}, and no test has seen it"
        for function, names in sorted(own.items())
        for status in sorted(names - seen[function])
        if (function, status) not in elsewhere
    ] + [
        f"{function}() and {status} are in {sys.argv[3]}, and that is not needed"
        for function, status in sorted(elsewhere)
        if status not in own.get(function, set()) - seen[function]
    ] + [
        f"{function}() has returned {status}, and the header does not say that it may"
        for function, names in sorted(seen.items())
        if function in allowed
        for status in sorted(names - allowed[function] - EVERYWHERE)
    ]
    print("\n".join(wrong))
    pairs = sum(map(len, own.values()))
    print(f"{pairs} statuses are promised, and {len(wrong)} lines are wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
