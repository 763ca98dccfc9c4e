//! The files of a sandbox.

mod host;
mod streams;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use blink_wire::{
    DirEntry as WireEntry, MakeDir, Message, PathOptions, Read, Remove, Request, Response,
    TwoPaths, Write,
};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::{Error, ErrorKind, Result, during};
use crate::link::{BULK_BODY, Link};
pub use streams::{FileReader, FileWriter};
use streams::{Incoming, Outgoing};

/// What is read into memory at most: the sandbox decides how long its files are, and a gibibyte of holes costs it nothing.
const READ_LIMIT_BYTES: usize = 1 << 30;

/// What a listing may have at most: some three million names of the usual length.
const LIST_LIMIT_BYTES: usize = 256 << 20;

/// The files of a sandbox, from [`Sandbox::files`](crate::Sandbox::files).
///
/// Paths are absolute. What is made belongs to the sandbox's own user, or to root if it has none. Whatever is transferred is compared with its length and checksum at the other end before it is
/// believed: it arrives whole, or not at all. Everything streams in constant memory but what is returned whole.
#[derive(Clone)]
pub struct Files {
    link: Link,
    /// Who owns what is made.
    owner: Option<String>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileType {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// A file's description.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// What it is.
    pub file_type: FileType,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// The user that owns it, as the sandbox numbers users.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was last changed.
    pub modified: SystemTime,
    /// Where a symbolic link points.
    pub target: Option<PathBuf>,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirEntry {
    /// Its name in the folder.
    pub name: std::ffi::OsString,
    /// Its description; symbolic links are not followed.
    pub metadata: Metadata,
}

/// How to write a file.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Permission bits; without, an existing file keeps its own and a new one gets 644.
    pub mode: Option<u32>,
    /// Append to the file instead of replacing it.
    pub append: bool,
    /// Who owns it: a user of the sandbox, by name or id. Without, an existing file keeps its owner, and a new one belongs to the
    /// sandbox's own user, or to root if it has none.
    pub user: Option<String>,
}

impl WriteOptions {
    /// Sets the permission bits.
    pub fn mode(mut self, mode: u32) -> WriteOptions {
        self.mode = Some(mode);
        self
    }

    /// Appends instead of replacing.
    pub fn append(mut self) -> WriteOptions {
        self.append = true;
        self
    }

    /// Sets the owner.
    pub fn user(mut self, user: impl Into<String>) -> WriteOptions {
        self.user = Some(user.into());
        self
    }
}

impl Files {
    pub(crate) fn new(link: Link) -> Files {
        Files { link, owner: None }
    }

    /// The same files; what is made belongs to another user of the sandbox, by name or id. One that it
    /// does not know is `NotFound` when something is made.
    ///
    /// ```no_run
    /// # async fn example(sandbox: &blink_core::Sandbox) -> blink_core::Result<()> {
    /// let files = sandbox.files()?.as_user("www-data");
    /// files.make_dir("/srv/site").await?;
    /// files.upload("site", "/srv/site").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_user(self, user: impl Into<String>) -> Files {
        self.owned_by(Some(user.into()))
    }

    /// The same, with a user to whom belongs what is made.
    pub(crate) fn owned_by(self, owner: Option<String>) -> Files {
        Files { owner, ..self }
    }

    /// Reads a whole file, of 1 GiB at most: [`read_to`](Files::read_to) and [`reader`](Files::reader) take longer ones.
    ///
    /// # Errors
    /// `NotFound`; `IsADirectory`; `InvalidArgument` for a device or a pipe; `PermissionDenied`; `ResourceExhausted` for a
    /// longer file; `Corrupt` if it did not arrive as it was sent.
    pub async fn read(&self, path: impl AsRef<Path>) -> Result<Bytes> {
        during("read", path.as_ref(), async {
            let path = path.as_ref();
            let request = Request::Read(Read {
                path: bytes(path),
                offset: 0,
                length: None,
            });
            let too_long = || too_long_for_memory(path);
            let content = self.receive_whole(&request, READ_LIMIT_BYTES, too_long);
            Ok(content.await?.into())
        })
        .await
    }

    /// Reads a file into a writer; returns its length. What the writer got is only to be believed on success.
    ///
    /// # Errors
    /// As for [`read`](Files::read), and what the writer says.
    pub async fn read_to(
        &self,
        path: impl AsRef<Path>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64> {
        during("read_to", path.as_ref(), async {
            self.read_part(&path, 0, None, writer).await
        })
        .await
    }

    /// Reads a part of a file into a writer: from `offset` on, at most `length` bytes.
    ///
    /// # Errors
    /// As for [`read_to`](Files::read_to).
    pub async fn read_part(
        &self,
        path: impl AsRef<Path>,
        offset: u64,
        length: Option<u64>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64> {
        during("read_part", path.as_ref(), async {
            let request = Request::Read(Read {
                path: bytes(path.as_ref()),
                offset,
                length,
            });
            self.receive(&request, writer).await
        })
        .await
    }

    /// Opens a file to read it bit by bit: from `offset` on, at most `length` bytes.
    ///
    /// # Errors
    /// As for [`read`](Files::read).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(files: blink_core::Files) -> blink_core::Result<()> {
    /// let mut log = files.reader("/var/log/long", 0, None).await?;
    /// while let Some(chunk) = log.chunk().await? {
    ///     println!("{} bytes more", chunk.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reader(
        &self,
        path: impl AsRef<Path>,
        offset: u64,
        length: Option<u64>,
    ) -> Result<FileReader> {
        during("reader", path.as_ref(), async {
            let request = Request::Read(Read {
                path: bytes(path.as_ref()),
                offset,
                length,
            });
            FileReader::open(Incoming::open(&self.link, &request).await?).await
        })
        .await
    }

    /// Opens a file to write it bit by bit. The file changes when that is finished, as [`write`](Files::write) does it.
    ///
    /// # Errors
    /// `SandboxDied` if the sandbox has ended. Whether the file can be written is known when the writer finishes.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(files: blink_core::Files) -> blink_core::Result<()> {
    /// let mut writer = files.writer("/tmp/numbers", &Default::default())?;
    /// for number in 0..1000 {
    ///     writer.write(format!("{number}\n")).await?;
    /// }
    /// writer.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn writer(&self, path: impl AsRef<Path>, options: &WriteOptions) -> Result<FileWriter> {
        let request = self.write_request(path.as_ref(), options);
        if let Some(error) = self.link.dead() {
            return Err(error.clone());
        }
        Ok(FileWriter::new(Outgoing::new(&self.link, request)))
    }

    /// Writes a whole file: it has its old content or all of the new one, never less, whatever happens.
    ///
    /// # Errors
    /// `NotFound` for a missing folder; `NotADirectory`, `IsADirectory`, `ReadOnly`, `PermissionDenied` and `NameTooLong`
    /// where there can be no such file; `ResourceExhausted` if the disk is full.
    pub async fn write(&self, path: impl AsRef<Path>, contents: impl Into<Bytes>) -> Result<()> {
        during("write", path.as_ref(), async {
            self.write_with(
                &path,
                &mut std::io::Cursor::new(contents.into()),
                &WriteOptions::default(),
            )
            .await
            .map(drop)
        })
        .await
    }

    /// Writes a file from a reader; returns its length.
    ///
    /// # Errors
    /// As for [`write`](Files::write), and what the reader says.
    pub async fn write_with(
        &self,
        path: impl AsRef<Path>,
        reader: &mut (impl AsyncRead + Unpin),
        options: &WriteOptions,
    ) -> Result<u64> {
        during("write_with", path.as_ref(), async {
            self.send(&self.write_request(path.as_ref(), options), reader)
                .await
        })
        .await
    }

    /// Describes a file; a symbolic link itself.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stat(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        during("stat", path.as_ref(), async {
            let request = Request::Stat(PathOptions {
                path: bytes(path.as_ref()),
                follow: false,
                owner: None,
            });
            match self.call(&request).await? {
                Response::Stat(info) => Ok(info.into()),
                _ => Err(unexpected_answer()),
            }
        })
        .await
    }

    /// Whether there is a file, or a link that leads to one.
    ///
    /// # Errors
    /// `SandboxDied` if the sandbox has ended.
    pub async fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        during("exists", path.as_ref(), async {
            let request = Request::Stat(PathOptions {
                path: bytes(path.as_ref()),
                follow: true,
                owner: None,
            });
            match self.call(&request).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Lists a folder, sorted by name.
    ///
    /// # Errors
    /// `NotFound`; `NotADirectory`; `PermissionDenied`.
    pub async fn list(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        during("list", path.as_ref(), async {
            let request = Request::List(PathOptions {
                path: bytes(path.as_ref()),
                follow: true,
                owner: None,
            });
            let too_long = || {
                format!(
                    "{} has too many entries to be listed; have a program in the sandbox do it",
                    path.as_ref().display()
                )
            };
            let listing = self
                .receive_whole(&request, LIST_LIMIT_BYTES, too_long)
                .await?;
            let mut entries = Vec::new();
            let mut rest = listing.as_slice();
            while let Some((length, behind)) = rest.split_first_chunk::<2>() {
                let length = usize::from(u16::from_le_bytes(*length));
                let entry = behind.get(..length).map(WireEntry::from_body);
                let Some(Ok(entry)) = entry else {
                    return Err(unexpected_answer());
                };
                entries.push(DirEntry {
                    name: std::ffi::OsStr::from_bytes(&entry.name).to_owned(),
                    metadata: entry.info.into(),
                });
                rest = &behind[length..];
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
        .await
    }

    /// Makes a folder and its missing parents; content where it exists.
    ///
    /// # Errors
    /// `NotADirectory` if a part of the path is no folder; `AlreadyExists` if it is something else itself;
    /// `ReadOnly`, `PermissionDenied`, `NameTooLong`.
    pub async fn make_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        during("make_dir", path.as_ref(), async {
            const MODE: u32 = 0o755;
            self.make_dir_with(&path, MODE).await
        })
        .await
    }

    /// As [`make_dir`](Files::make_dir), with the permission bits of the folder; its missing parents get 755.
    ///
    /// # Errors
    /// As for [`make_dir`](Files::make_dir).
    pub async fn make_dir_with(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        during("make_dir_with", path.as_ref(), async {
            self.done(&Request::MakeDir(MakeDir {
                path: bytes(path.as_ref()),
                mode,
                parents: true,
                owner: self.owner.clone(),
            }))
            .await
        })
        .await
    }

    /// Removes a file, a link or an empty folder.
    ///
    /// # Errors
    /// `NotFound`; `DirectoryNotEmpty`; `NotADirectory` if a part of the path is no folder; `ReadOnly`;
    /// `PermissionDenied`; `Busy` for a place where something is mounted.
    pub async fn remove(&self, path: impl AsRef<Path>) -> Result<()> {
        during("remove", path.as_ref(), async {
            self.done(&Request::Remove(Remove {
                path: bytes(path.as_ref()),
                recursive: false,
            }))
            .await
        })
        .await
    }

    /// Removes a file, or a folder with all that is in it. Links are removed, not followed.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn remove_all(&self, path: impl AsRef<Path>) -> Result<()> {
        during("remove_all", path.as_ref(), async {
            self.done(&Request::Remove(Remove {
                path: bytes(path.as_ref()),
                recursive: true,
            }))
            .await
        })
        .await
    }

    /// Renames a file or folder, replacing a file that has the new name.
    ///
    /// # Errors
    /// `NotFound`; `IsADirectory`, `NotADirectory` and `DirectoryNotEmpty` for what has the new name and cannot be
    /// replaced; `ReadOnly`; `PermissionDenied`; `NameTooLong`; `Unsupported` across file systems.
    pub async fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        during("rename", from.as_ref(), async {
            self.done(&Request::Rename(TwoPaths {
                from: bytes(from.as_ref()),
                to: bytes(to.as_ref()),
                owner: None,
            }))
            .await
        })
        .await
    }

    /// Copies a file inside the sandbox.
    ///
    /// # Errors
    /// As for [`read`](Files::read) of the one and [`write`](Files::write) of the other.
    pub async fn copy(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        during("copy", from.as_ref(), async {
            self.done(&Request::Copy(TwoPaths {
                from: bytes(from.as_ref()),
                to: bytes(to.as_ref()),
                owner: self.owner.clone(),
            }))
            .await
        })
        .await
    }

    async fn stat_followed(&self, path: &Path) -> Result<Metadata> {
        match self
            .call(&Request::Stat(PathOptions {
                path: bytes(path),
                follow: true,
                owner: None,
            }))
            .await?
        {
            Response::Stat(info) => Ok(info.into()),
            _ => Err(unexpected_answer()),
        }
    }

    /// The whole root but for what is mounted over it, as a layer of an image. It is the sandbox's own word, a tar or not.
    pub(crate) async fn pack_layer(&self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<u64> {
        let request = Request::PackLayer(PathOptions {
            path: bytes(Path::new("/")),
            follow: true,
            owner: None,
        });
        self.receive(&request, writer).await
    }

    fn write_request(&self, path: &Path, options: &WriteOptions) -> Request {
        Request::Write(Write {
            path: bytes(path),
            mode: options.mode,
            append: options.append,
            user: options.user.clone(),
            owner: self.owner.clone(),
        })
    }

    async fn done(&self, request: &Request) -> Result<()> {
        self.call(request).await.map(drop)
    }

    async fn call(&self, request: &Request) -> Result<Response> {
        let response = self.link.call(request).await;
        response.map_err(|error| match path_of(request) {
            Some(path) => error.at(path),
            None => error,
        })
    }

    /// Receives a request's stream into memory, where no more may come than `limit`: it is the sandbox that decides how much does.
    async fn receive_whole(
        &self,
        request: &Request,
        limit: usize,
        too_long: impl Fn() -> String,
    ) -> Result<Vec<u8>> {
        let mut incoming = Incoming::open(&self.link, request).await?;
        let mut whole = Vec::new();
        while let Some(chunk) = incoming.chunk().await? {
            if whole.len() + chunk.len() > limit {
                return Err(Error::new(ErrorKind::ResourceExhausted, too_long()));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    /// Receives a request's stream, and fails unless it is what the agent says it sent.
    async fn receive(
        &self,
        request: &Request,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64> {
        let mut incoming = Incoming::open(&self.link, request).await?;
        let failed = |error| Error::io("what was received could not be written", &error);
        while let Some(chunk) = incoming.chunk().await? {
            writer.write_all(&chunk).await.map_err(failed)?;
        }
        writer.flush().await.map_err(failed)?;
        Ok(incoming.bytes())
    }

    /// Sends a request's stream; the agent compares before it believes.
    async fn send(&self, request: &Request, reader: &mut (impl AsyncRead + Unpin)) -> Result<u64> {
        let mut outgoing = Outgoing::new(&self.link, request.clone());
        loop {
            let mut chunk = BytesMut::with_capacity(BULK_BODY);
            while chunk.len() < BULK_BODY / 2 {
                // The agent may fail before it has taken everything.
                let count = outgoing
                    .unless_answered(async {
                        let read = reader.read_buf(&mut chunk).await;
                        read.map_err(|error| {
                            Error::io("what was to be sent could not be read", &error)
                        })
                    })
                    .await?;
                if count == 0 {
                    break;
                }
            }
            if chunk.is_empty() {
                return outgoing.finish().await;
            }
            outgoing.send(chunk.freeze()).await?;
        }
    }
}

impl From<blink_wire::FileInfo> for Metadata {
    fn from(info: blink_wire::FileInfo) -> Metadata {
        use blink_wire::FileKind;
        let since = Duration::from_nanos(info.modified_ns.unsigned_abs());
        let modified = match info.modified_ns >= 0 {
            true => SystemTime::UNIX_EPOCH.checked_add(since),
            false => SystemTime::UNIX_EPOCH.checked_sub(since),
        };
        Metadata {
            file_type: match info.kind {
                FileKind::File => FileType::File,
                FileKind::Directory => FileType::Directory,
                FileKind::Symlink => FileType::Symlink,
                _ => FileType::Other,
            },
            size: info.size,
            mode: info.mode,
            uid: info.uid,
            gid: info.gid,
            modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
            target: info
                .target
                .map(|target| PathBuf::from(std::ffi::OsStr::from_bytes(&target))),
        }
    }
}

/// The path that a request is about; of two, the one that is there before.
pub(crate) fn path_of(request: &Request) -> Option<&Path> {
    let path = match request {
        Request::Stat(ask)
        | Request::List(ask)
        | Request::Pack(ask)
        | Request::PackLayer(ask)
        | Request::Unpack(ask) => &ask.path,
        Request::MakeDir(ask) => &ask.path,
        Request::Remove(ask) => &ask.path,
        Request::Rename(ask) | Request::Copy(ask) => &ask.from,
        Request::Read(ask) => &ask.path,
        Request::Write(ask) => &ask.path,
        _ => return None,
    };
    Some(Path::new(std::ffi::OsStr::from_bytes(path)))
}

fn too_long_for_memory(path: &Path) -> String {
    format!(
        "{} is longer than the {READ_LIMIT_BYTES} bytes that are read into memory; read it in parts, with a reader",
        path.display()
    )
}

fn bytes(path: &Path) -> blink_wire::PathBytes {
    path.as_os_str().as_bytes().to_vec().into()
}

fn unexpected_answer() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "the sandbox's answer is not one to this request",
    )
}
