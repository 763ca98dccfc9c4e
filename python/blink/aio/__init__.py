r"""Blink for asyncio: twins of the classes of `blink`, with the same methods, to be awaited.

What says ``as`` here is documented there. ``sandbox``, ``session`` and the like can be awaited, or be entered with
``async with`` at once. A task that is cancelled, as by `asyncio.timeout`, gives its call up: a program that ``exec`` or
``run`` waits for is killed with everything that it has started, and a change of a session comes to its end in the
background.

Examples
--------
>>> import asyncio
>>> from blink.aio import AsyncBlink
>>> async def main():
...     async with AsyncBlink(isolation="auto") as blink, blink.sandbox() as sandbox:
...         outputs = await asyncio.gather(*(sandbox.exec(["echo", str(n)]) for n in range(3)))
...         print([output.text for output in outputs])
...         async with await sandbox.spawn(["echo", "streamed"]) as process:
...             async for chunk in process.stdout:
...                 print(chunk)
>>> asyncio.run(main())
['0\n', '1\n', '2\n']
b'streamed\n'
"""

from __future__ import annotations

from ._calls import Opening
from ._client import AsyncBlink, doctor, run, run_code
from ._connection import AsyncConnection
from ._file_streams import AsyncFileReader, AsyncFileWriter
from ._files import AsyncFiles
from ._pool import AsyncPool
from ._process import AsyncProcess, AsyncProcessInput, AsyncProcessOutput
from ._processes import AsyncSessionProcesses
from ._sandbox import AsyncEnvironment as AsyncEnvironment
from ._sandbox import AsyncSandbox, AsyncSession

__all__ = [
    "AsyncBlink",
    "AsyncConnection",
    "AsyncFileReader",
    "AsyncFileWriter",
    "AsyncFiles",
    "AsyncPool",
    "AsyncProcess",
    "AsyncProcessInput",
    "AsyncProcessOutput",
    "AsyncSandbox",
    "AsyncSession",
    "AsyncSessionProcesses",
    "Opening",
    "doctor",
    "run",
    "run_code",
]

# They are known, printed and pickled by the name under which they are found.
for _name in (*__all__, "AsyncEnvironment"):
    globals()[_name].__module__ = __name__
del _name
