"""A code interpreter that keeps its state, as an agent's tool: each piece of code sees what the ones before have left."""

from __future__ import annotations

import json
from collections.abc import Iterator

import blink

#: Runs in the sandbox: takes one piece of code a line, and answers each with a line.
DRIVER = r"""
import ast, contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            tree = ast.parse(json.loads(line))
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "<cell>", "exec"), names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
        except BaseException:
            traceback.print_exc(limit=-1)
    print(json.dumps({"printed": printed.getvalue(), "value": None if value is None else repr(value)}), flush=True)
"""


class Interpreter:
    """Python in a sandbox. What it answers is not to be believed: the code in it may write whatever it likes."""

    def __init__(self, sandbox: blink.Sandbox) -> None:
        self._process = sandbox.spawn(["python3", "-u", "-c", DRIVER], stdin=blink.PIPE)
        self._lines = _lines(self._process.stdout)

    def run(self, code: str) -> str:
        """Run a piece of code, and return what it printed and the value of its last expression."""
        self._process.stdin.write(json.dumps(code) + "\n")
        line = next(self._lines, None)
        if line is None:
            return f"the interpreter has ended: {self._process.stderr.read().decode(errors='replace')}"
        answer = json.loads(line)
        return str(answer["printed"]) + (f"=> {answer['value']}\n" if answer["value"] else "")


def _lines(stream: blink.ProcessOutput) -> Iterator[bytes]:
    rest = b""
    for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def main() -> None:
    with blink.Blink(isolation="auto").sandbox(memory_mib=512) as sandbox:
        interpreter = Interpreter(sandbox)
        # What an agent would say, one step after another.
        for code in [
            "numbers = [3, 1, 2]",
            "numbers.sort()\nprint('sorted')\nnumbers",
            "numbers[7]",
            "sum(numbers)",
        ]:
            print(f">>> {code}\n{interpreter.run(code)}", end="")


if __name__ == "__main__":
    main()
