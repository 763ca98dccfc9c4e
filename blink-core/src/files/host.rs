//! Files and folders that go between a sandbox and the host.

use std::path::Path;

use blink_host::destination::Destination;
use blink_host::room::{Meter, Roomy};
use blink_wire::{PathOptions, Read, Request};

use super::streams::Incoming;
use super::{FileType, Files, Metadata, WriteOptions, bytes};
use crate::blocking::on_thread;
use crate::error::{Error, ErrorKind, Result, during};
use crate::link::BULK_BODY;

impl Files {
    /// Brings a file or a whole folder of the host into the sandbox, where it is called `to`.
    ///
    /// A folder is merged into one that exists. Links come as they are; sockets and devices do not.
    ///
    /// # Errors
    /// `NotFound` if there is nothing to bring; else as for [`write`](Files::write).
    pub async fn upload(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        during("upload", to.as_ref(), async {
            let (from, to) = (from.as_ref(), to.as_ref());
            let metadata = tokio::fs::metadata(from)
                .await
                .map_err(|error| Error::io_at(from, &error))?;
            if !metadata.is_dir() {
                let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
                let mut file = tokio::fs::File::open(from)
                    .await
                    .map_err(|error| Error::io_at(from, &error))?;
                return self
                    .write_with(to, &mut file, &WriteOptions::default().mode(mode))
                    .await
                    .map(drop);
            }
            let (mut reader, writer) = tokio::io::duplex(2 * BULK_BODY);
            let folder = from.to_owned();
            let packing = tokio::task::spawn_blocking(move || {
                let writer = std::io::BufWriter::with_capacity(
                    BULK_BODY,
                    tokio_util::io::SyncIoBridge::new(writer),
                );
                let root = blink_archive::Root::open(&folder)?;
                let options = blink_archive::PackOptions::default()
                    .with_ownership(blink_archive::Ownership::Ignore)
                    .with_attributes(true);
                blink_archive::pack(&root, "", writer, &options)
            });
            let request = Request::Unpack(PathOptions {
                path: bytes(to),
                follow: true,
                owner: self.owner.clone(),
            });
            let sent = self.send(&request, &mut reader).await;
            drop(reader);
            let packed = packing
                .await
                .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
            // Where sending failed, packing failed only because of it.
            sent?;
            packed
                .map(drop)
                .map_err(|error| archive_error(from, &error))
        })
        .await
    }

    /// Takes a file or a whole folder out of the sandbox to the host, where it is called `to`. Nothing outside `to` is
    /// touched, whatever the sandbox sends.
    ///
    /// A folder and its missing parents are made, and a folder that exists is merged into: what has the name of something
    /// that comes is replaced, but no folder with something in it. Links come as they are, and none is followed beneath
    /// `to`; devices do not come. A file is replaced in one step when all of it has come.
    ///
    /// What `to` itself names is followed: where it is a symbolic link, the file that the link names is written, and the link
    /// stays. To take something into a folder in which things from a sandbox may lie already, use
    /// [`download_into`](Files::download_into). A device or a named pipe is written to, and never replaced.
    ///
    /// Everything belongs to the user who runs this. Permissions come along, without the bits that run a program as its
    /// owner. Holes of files stay holes. Of the disk's free space, a twentieth of its size is left, and at most 256 MiB.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if a folder holds what may not leave a sandbox; `InvalidArgument` if `to` is a socket;
    /// `IsADirectory` and `NotADirectory` if one is a folder and the other is not; `ResourceExhausted` if the disk has no
    /// room for it.
    pub async fn download(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        during("download", from.as_ref(), async {
            let (from, to) = (from.as_ref(), to.as_ref().to_owned());
            let found = self.stat_followed(from).await?;
            let is_folder = found.file_type == FileType::Directory;
            let destination = on_thread(move || {
                if let (true, Some(parent)) = (is_folder, to.parent()) {
                    std::fs::create_dir_all(parent)
                        .map_err(|error| Error::io(parent.display(), &error))?;
                }
                Ok(Destination::named(&to)?)
            });
            self.download_found(from, &found, destination.await?).await
        })
        .await
    }

    /// Takes a file or a whole folder out of the sandbox into a folder of the host that exists, where it has the name that it
    /// has in the sandbox. What has no name of its own, as `/`, is merged into the folder.
    ///
    /// Nothing in the folder is followed, as it may have come from a sandbox earlier; for the rest, see
    /// [`download`](Files::download).
    ///
    /// # Errors
    /// As for [`download`](Files::download); `InvalidArgument` if something of that name is there that is neither a file
    /// nor a folder.
    pub async fn download_into(
        &self,
        from: impl AsRef<Path>,
        folder: impl AsRef<Path>,
    ) -> Result<()> {
        during("download_into", from.as_ref(), async {
            let (from, folder) = (from.as_ref(), folder.as_ref().to_owned());
            let found = self.stat_followed(from).await?;
            let name = from.file_name().map(std::ffi::OsStr::to_owned);
            let destination = on_thread(move || match name {
                Some(name) => Ok(Destination::beneath(&folder, &name)?),
                None => Ok(Destination::named(&folder)?),
            });
            self.download_found(from, &found, destination.await?).await
        })
        .await
    }

    async fn download_found(&self, from: &Path, found: &Metadata, to: Destination) -> Result<()> {
        match found.file_type {
            FileType::Directory => self.download_folder(from, to).await,
            _ => self.download_file(from, to, found.mode).await,
        }
    }

    async fn download_file(&self, from: &Path, to: Destination, mode: u32) -> Result<()> {
        let shown = to.shown().to_owned();
        let failed = |error: std::io::Error| Error::io(shown.display(), &error);
        let mut new = on_thread(move || Ok(to.new_file()?)).await?;
        let mut meter = Meter::new(&new).map_err(failed)?;
        let file = std::sync::Arc::new(new.file().try_clone().map_err(failed)?);
        let request = Request::Read(Read {
            path: bytes(from),
            offset: 0,
            length: None,
        });
        let mut incoming = Incoming::open(&self.link, &request).await?;
        let mut at = 0;
        // One chunk is written while the next one comes.
        let mut writing = tokio::task::spawn_blocking(|| Ok(()));
        while let Some(chunk) = incoming.chunk().await? {
            meter.came(chunk.len()).map_err(failed)?;
            let (file, offset) = (file.clone(), at);
            at += chunk.len() as u64;
            written(writing).await.map_err(failed)?;
            writing = tokio::task::spawn_blocking(move || {
                blink_archive::write_with_holes(&file, offset, &chunk)
            });
        }
        written(writing).await.map_err(failed)?;
        file.set_len(at).map_err(failed)?;
        let finishing = on_thread(move || {
            // Without the bits that give a program its owner's rights: on the host that is somebody else.
            const PERMISSIONS: u32 = 0o777;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode & PERMISSIONS);
            let named = new.file().set_permissions(mode);
            named
                .and_then(|()| new.finish())
                .map_err(|error| Error::io(shown.display(), &error))
        });
        finishing.await
    }

    async fn download_folder(&self, from: &Path, to: Destination) -> Result<()> {
        let (mut writer, reader) = tokio::io::duplex(2 * BULK_BODY);
        let shown = to.shown().to_owned();
        let unpacking = tokio::task::spawn_blocking(move || {
            let failed = |error: std::io::Error| Error::io(shown.display(), &error);
            let is_new = to.is_new();
            let root = to.folder()?;
            let reader = tokio_util::io::SyncIoBridge::new(reader);
            let mut reader = Roomy::new(reader, &root).map_err(failed)?;
            let options = blink_archive::UnpackOptions::default()
                .with_attributes(true)
                .with_root_metadata(is_new);
            blink_archive::unpack(&mut reader, &root, &options)
                .map_err(|error| archive_error(&shown, &error))?;
            // The padding behind the archive belongs to the stream that is checked.
            std::io::copy(&mut reader, &mut std::io::sink()).map_err(failed)
        });
        let request = Request::Pack(PathOptions {
            path: bytes(from),
            follow: true,
            owner: None,
        });
        let received = self.receive(&request, &mut writer).await;
        drop(writer);
        let unpacked = unpacking
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        // A hostile archive stops the unpacking first, and the transfer because of it.
        unpacked?;
        received.map(drop)
    }
}

async fn written(writing: tokio::task::JoinHandle<std::io::Result<()>>) -> std::io::Result<()> {
    writing
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

fn archive_error(path: &Path, error: &blink_archive::ArchiveError) -> Error {
    match error.io_error() {
        Some(io) => Error::io(format!("{} ({error})", path.display()), io),
        None => {
            let kind = match error {
                blink_archive::ArchiveError::Limit { .. } => ErrorKind::ResourceExhausted,
                _ => ErrorKind::Corrupt,
            };
            Error::new(kind, format!("{}: {error}", path.display()))
        }
    }
}
