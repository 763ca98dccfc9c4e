"""The files of a sandbox or session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._file_streams import FileReader, FileWriter

if TYPE_CHECKING:
    from . import _blink
    from ._options import Data, Text
    from ._values import DirEntry, FileInfo


class Files:
    r"""The files of a sandbox or session, as its ``files``.

    Paths in it are absolute. What is transferred is compared with its length and checksum at the other end before it is
    believed: it arrives whole, or not at all.

    Examples
    --------
    >>> import blink
    >>> with blink.Blink(isolation="auto").sandbox() as sandbox:
    ...     sandbox.files.write("/tmp/notes", "one\n")
    ...     sandbox.files.write("/tmp/notes", b"two\n", append=True)
    ...     sandbox.files.read("/tmp/notes")
    b'one\ntwo\n'
    """

    __slots__ = ("_native",)

    def __init__(self, native: _blink.Files) -> None:
        self._native = native

    def as_user(self, user: str) -> Files:
        """Return the same files; what is made through them belongs to another user of the sandbox.

        Parameters
        ----------
        user : str
            A name or an id. One that the sandbox does not know is `NotFound` when something is made.

        Examples
        --------
        >>> import blink
        >>> with blink.Blink(isolation="auto").sandbox() as sandbox:
        ...     sandbox.files.as_user("user").make_dir("/srv/site", mode=0o750)
        ...     sandbox.exec(["stat", "--format", "%U %a", "/srv/site"]).text.strip()
        'user 750'
        """
        return Files(self._native.as_user(user))

    def read(self, path: Text, *, offset: int = 0, length: int | None = None) -> bytes:
        """Read a file, or at most `length` bytes of it from `offset` on.

        Raises
        ------
        NotFound
        InvalidArgument
            If it is not a regular file.
        Corrupt
            It did not arrive as it was sent.
        """
        return self._native.read(path, offset, length).wait()

    def read_text(self, path: Text) -> str:
        """Read a file of text in UTF-8.

        Raises
        ------
        UnicodeDecodeError
            It is no such text; otherwise as for `read`.
        """
        return self.read(path).decode()

    def write(
        self, path: Text, data: Data, *, mode: int | None = None, append: bool = False, user: str | None = None
    ) -> None:
        """Write a whole file: it has its old content or all of the new one, never less, whatever happens.

        Parameters
        ----------
        path : str
            The file in the sandbox.
        data : bytes or str
            Its content; text is encoded in UTF-8.
        mode : int, optional
            Permission bits; without, an existing file keeps its own, and a new one gets 644.
        append : bool, optional
            Adds to the file instead of replacing it.
        user : str, optional
            Who owns it: a user of the sandbox, by name or id.

        Raises
        ------
        NotFound
            For a missing folder.
        InvalidArgument
            It may not be written.
        ResourceExhausted
            The disk is full.
        """
        self._native.write(path, data, mode, append, user).wait()

    def reader(self, path: Text, *, offset: int = 0, length: int | None = None) -> FileReader:
        r"""Open a file to read it bit by bit: from `offset` on, at most `length` bytes.

        Raises
        ------
        NotFound
        InvalidArgument
            If it is not a regular file.

        Examples
        --------
        >>> import blink
        >>> with blink.Blink(isolation="auto").sandbox() as sandbox:
        ...     with sandbox.files.writer("/tmp/numbers") as writer:
        ...         for number in range(10000):
        ...             writer.write(f"{number}\n")
        ...     with sandbox.files.reader("/tmp/numbers", offset=10) as reader:
        ...         print(sum(map(len, reader)))
        48880
        """
        return FileReader(self._native.reader(path, offset, length).wait())

    def writer(
        self, path: Text, *, mode: int | None = None, append: bool = False, user: str | None = None
    ) -> FileWriter:
        """Open a file to write it bit by bit; the parameters are those of `write`.

        Whether it can be written is told by its writer. What an abandoned writer had appended is taken away again as soon
        as the sandbox hears of it.

        Raises
        ------
        SandboxDied
            The sandbox has ended.
        """
        return FileWriter(self._native.writer(path, mode, append, user).wait())

    def stat(self, path: Text) -> FileInfo:
        """Describe a file; a symbolic link itself.

        Raises
        ------
        NotFound
        """
        return self._native.stat(path).wait()

    def exists(self, path: Text) -> bool:
        """Whether there is a file, or a link that leads to one."""
        return self._native.exists(path).wait()

    def list(self, path: Text) -> list[DirEntry]:
        """List a folder, sorted by name.

        Raises
        ------
        NotFound
        InvalidArgument
            If it is not a folder.
        """
        return self._native.list(path).wait()

    def make_dir(self, path: Text, *, mode: int = 0o755) -> None:
        """Make a folder and its missing parents; does nothing if it exists.

        Parameters
        ----------
        path : str
            The folder in the sandbox.
        mode : int
            Permission bits of a folder that is new; its missing parents get 755.

        Raises
        ------
        InvalidArgument
            A part of the path is no folder, or may not be written.
        """
        self._native.make_dir(path, mode).wait()

    def remove(self, path: Text, *, recursive: bool = False) -> None:
        """Remove a file, a link or an empty folder; with `recursive`, a folder with all that is in it.

        Raises
        ------
        NotFound
        AlreadyExists
            For a folder that is not empty.
        """
        self._native.remove(path, recursive).wait()

    def rename(self, path: Text, to: Text) -> None:
        """Rename a file or folder, replacing a file that has the new name.

        Raises
        ------
        NotFound
        Unsupported
            Across file systems.
        """
        self._native.rename(path, to).wait()

    def copy(self, path: Text, to: Text) -> None:
        """Copy a file inside the sandbox.

        Raises
        ------
        NotFound
        InvalidArgument
            If it is not a regular file.
        """
        self._native.copy(path, to).wait()

    def upload(self, source: Text, path: Text) -> None:
        """Copy a file or a whole folder of the host into the sandbox, as `path`.

        A folder is merged into one that exists. Links come as they are; sockets and devices do not.

        Raises
        ------
        NotFound
            There is nothing to bring; otherwise as for `write`.
        """
        self._native.upload(source, path).wait()

    def download(self, path: Text, destination: Text) -> None:
        """Copy a file or a whole folder from the sandbox to the host, as `destination`.

        Nothing outside `destination` is touched, whatever the sandbox sends. A folder that exists is merged into. A
        symbolic link that `destination` itself names is followed; beneath it none is. To take something into a folder in
        which things from a sandbox may lie already, use `download_into`.

        Raises
        ------
        NotFound
        InvalidArgument
            `destination` is a socket.
        IsADirectoryError, NotADirectoryError
            One is a folder and the other is not.
        ResourceExhausted
            The host's disk has no room for it.
        Corrupt
            A folder holds what may not leave a sandbox.
        """
        self._native.download(path, destination).wait()

    def download_into(self, path: Text, folder: Text) -> None:
        """Copy a file or a whole folder from the sandbox into a folder of the host, under its own name.

        Nothing in `folder` is followed, as it may have come from a sandbox earlier. What has no name of its own, as ``/``,
        is merged into `folder`.

        Raises
        ------
        InvalidArgument
            Something of that name is there that is neither a file nor a folder; otherwise as for `download`.
        """
        self._native.download_into(path, folder).wait()
