"""The examples of docstrings, of examples/python and of the README run, and say what they promise."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import blink
import pytest

ROOT = Path(__file__).parents[2]
MODULES = ["blink", *(module.name for module in pkgutil.walk_packages(blink.__path__, "blink."))]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert results.failed == 0
    if name in ("blink", "blink.aio", "blink._client", "blink._machine", "blink._processes", "blink._values"):
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


def test_readme(tmp_path: Path) -> None:
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert programs
    for program in programs:
        run("-c", program, folder=tmp_path)
