"""The examples of docstrings, of examples/python and of the README run, and say what they promise."""

from __future__ import annotations

import csv
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import blink
import pytest
from conftest import ENGINE

ROOT = Path(__file__).parents[2]
ERRORS = (ROOT / "docs/errors.md").read_text()
MODULES = ["blink", *(module.name for module in pkgutil.walk_packages(blink.__path__, "blink."))]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert results.failed == 0
    if name in ("blink", "blink.aio", "blink._client", "blink._sandbox", "blink._processes", "blink._values"):
        assert results.attempted > 0


@pytest.mark.parametrize("name", sorted(vars(blink)["__all__"]))
def test_everything_public_is_documented(name: str) -> None:
    thing = getattr(blink, name)
    if name != "PIPE":
        assert thing.__doc__
    if isinstance(thing, type):
        for member, value in vars(thing).items():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert value.__doc__, f"{name}.{member}"


def run(*arguments: str | Path, folder: Path = ROOT) -> str:
    # Of a home that no other process has: one is all that micro-VMs let have it.
    environment = {**os.environ, "BLINK_HOME": f"{os.environ['BLINK_HOME']}-of-examples"}
    ran = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_one_shot() -> None:
    assert run(ROOT / "examples/python/one_shot.py").startswith("it printed 45, isolated by ")


def test_code_interpreter() -> None:
    said = run(ROOT / "examples/python/code_interpreter.py")
    assert "sorted\n=> [1, 2, 3]\n" in said
    assert "IndexError" in said
    assert said.endswith(">>> sum(numbers)\n=> 6\n")


def test_best_of_n() -> None:
    said = run(ROOT / "examples/python/best_of_n.py")
    assert [line for line in said.splitlines() if line.endswith("passes")] == ["try-5 passes"]
    assert said.count("fails") == 7
    assert "int(n ** 0.5)" in said
    assert blink.Blink(home=f"{os.environ['BLINK_HOME']}-of-examples").sessions() == []


def test_evaluate() -> None:
    said = run(ROOT / "examples/python/evaluate.py", "100" if ENGINE == "namespace" else "4")
    assert said.startswith("99 passed, 1 timed out\n" if ENGINE == "namespace" else "4 passed\n")
    assert re.search(r"^claim +\d+ +[0-9.]+ms", said, re.MULTILINE)


@pytest.mark.parametrize("name", ["README.md", "docs/errors.md", "docs/pools.md"])
def test_programs_in_documents(name: str, tmp_path: Path) -> None:
    programs = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert programs
    for program in programs:
        run("-c", program, folder=tmp_path)


def test_the_documented_kinds_of_errors_are_those_that_there_are() -> None:
    with (ROOT / "tests/errors.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] != "-"]
    documented = re.findall(
        r"^\| `(\w+)` \| `(\w+)` \((\d+)\) \| `(\w+)`, an? `(\w+)` \| (.*) \|$", ERRORS, re.MULTILINE
    )
    assert [found[:5] for found in documented] == [
        (row["kind"], row["c_name"], row["c_number"], row["python_class"], row["python_builtin"]) for row in rows
    ]
    for _, _, _, name, _, meaning in documented:
        explained = inspect.getdoc(getattr(blink, name))
        assert explained is not None
        assert explained.startswith(re.split(r"[.;]", meaning)[0])


def test_the_book_has_every_document() -> None:
    contents = (ROOT / "docs/SUMMARY.md").read_text()
    linked = set(re.findall(r"\]\(([^)]+)\)", contents))
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"SUMMARY.md"}
    assert linked == there | {"adr/README.md"}
    decisions = (ROOT / "docs/adr/README.md").read_text()
    for path in (ROOT / "docs/adr").glob("0*.md"):
        title = path.read_text().splitlines()[0].removeprefix("# ")
        assert f"- [{title}]({path.name})" in decisions
    # Links between documents lead somewhere.
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
