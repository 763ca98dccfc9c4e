# Made from ../_files.py by scripts/async-python.
"""The files of a sandbox or session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._calls import Opening, result
from ._file_streams import AsyncFileReader, AsyncFileWriter

if TYPE_CHECKING:
    from .. import _blink
    from .._options import Data, Text
    from .._values import DirEntry, FileInfo


class AsyncFiles:
    """As `blink.Files`."""

    __slots__ = ("_native",)

    def __init__(self, native: _blink.Files) -> None:
        self._native = native

    def as_user(self, user: str) -> AsyncFiles:
        """As `blink.Files.as_user`."""
        return AsyncFiles(self._native.as_user(user))

    async def read(self, path: Text, *, offset: int = 0, length: int | None = None) -> bytes:
        """As `blink.Files.read`."""
        return await result(self._native.read(path, offset, length))

    async def read_text(self, path: Text) -> str:
        """As `blink.Files.read_text`."""
        return (await self.read(path)).decode()

    async def write(
        self, path: Text, data: Data, *, mode: int | None = None, append: bool = False, user: str | None = None
    ) -> None:
        """As `blink.Files.write`."""
        await result(self._native.write(path, data, mode, append, user))

    def reader(self, path: Text, *, offset: int = 0, length: int | None = None) -> Opening[AsyncFileReader]:
        """As `blink.Files.reader`."""
        return Opening(AsyncFileReader, self._native.reader(path, offset, length))

    def writer(
        self, path: Text, *, mode: int | None = None, append: bool = False, user: str | None = None
    ) -> Opening[AsyncFileWriter]:
        """As `blink.Files.writer`."""
        return Opening(AsyncFileWriter, self._native.writer(path, mode, append, user))

    async def stat(self, path: Text) -> FileInfo:
        """As `blink.Files.stat`."""
        return await result(self._native.stat(path))

    async def exists(self, path: Text) -> bool:
        """As `blink.Files.exists`."""
        return await result(self._native.exists(path))

    async def list(self, path: Text) -> list[DirEntry]:
        """As `blink.Files.list`."""
        return await result(self._native.list(path))

    async def make_dir(self, path: Text, *, mode: int = 0o755) -> None:
        """As `blink.Files.make_dir`."""
        await result(self._native.make_dir(path, mode))

    async def remove(self, path: Text, *, recursive: bool = False) -> None:
        """As `blink.Files.remove`."""
        await result(self._native.remove(path, recursive))

    async def rename(self, path: Text, to: Text) -> None:
        """As `blink.Files.rename`."""
        await result(self._native.rename(path, to))

    async def copy(self, path: Text, to: Text) -> None:
        """As `blink.Files.copy`."""
        await result(self._native.copy(path, to))

    async def upload(self, source: Text, path: Text) -> None:
        """As `blink.Files.upload`."""
        await result(self._native.upload(source, path))

    async def download(self, path: Text, destination: Text) -> None:
        """As `blink.Files.download`."""
        await result(self._native.download(path, destination))

    async def download_into(self, path: Text, folder: Text) -> None:
        """As `blink.Files.download_into`."""
        await result(self._native.download_into(path, folder))
