//! Files of the sandbox. Each function is a job's work: it blocks as it likes.
//!
//! The agent may do more than the programs of the sandbox, so it must not be led by them: what it writes to is looked
//! at once it is open (a link into `/proc` would lead to the agent's own memory), a file is replaced by a rename of
//! one that only the agent has touched, and trees are walked by descriptor.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use blink_archive::{ArchiveError, Ownership, PackOptions, Root, UnpackOptions};
use blink_wire::{
    DirEntry, ErrorBody, ErrorKind, FileInfo, FileKind, MakeDir, Message, PathOptions, Read,
    Remove, Request, Response, TwoPaths, Write,
};
use bytes::{BufMut, BytesMut};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::confine::MakeFilesFor;
use crate::failure::{errno_of, failed_as, failed_at};
use crate::job::{JobStream, Work};
use crate::process::find_user;
use crate::stream::BULK_BODY;

/// Owners as the sandbox numbers them.
const ALL_OWNERS: Ownership = Ownership::Preserve {
    uid_base: 0,
    gid_base: 0,
    max_id: 65535,
    beyond: Some(65534),
};

/// The job of a request about files; `None` if it is about something else.
pub(crate) fn work(request: Request) -> Option<Work> {
    let owner = owner(&request).map(str::to_owned);
    let work: Work = match request {
        Request::Stat(ask) => Box::new(move |_| stat(&ask)),
        Request::List(ask) => Box::new(move |stream| list(&ask, stream)),
        Request::MakeDir(ask) => Box::new(move |_| make_dir(&ask)),
        Request::Remove(ask) => Box::new(move |_| remove(&ask)),
        Request::Rename(ask) => Box::new(move |_| rename(&ask)),
        Request::Copy(ask) => Box::new(move |_| copy(&ask)),
        Request::Read(ask) => Box::new(move |stream| read(&ask, stream)),
        Request::Write(ask) => Box::new(move |stream| write(&ask, stream)),
        Request::Pack(ask) => {
            Box::new(move |stream| pack(&ask, PackOptions::default().with_attributes(true), stream))
        }
        Request::PackLayer(ask) => Box::new(move |stream| pack(&ask, PackOptions::layer(), stream)),
        Request::Unpack(ask) => Box::new(move |stream| unpack(&ask, stream)),
        _ => return None,
    };
    Some(match owner {
        Some(owner) => Box::new(move |stream| {
            let user = find_user(&owner)?;
            let _making = MakeFilesFor::user(user.uid, user.gid);
            work(stream)
        }),
        None => work,
    })
}

/// Who owns what a request makes, where that is not root.
fn owner(request: &Request) -> Option<&str> {
    match request {
        Request::MakeDir(ask) => ask.owner.as_deref(),
        Request::Copy(ask) => ask.owner.as_deref(),
        Request::Write(ask) => ask.owner.as_deref(),
        Request::Unpack(ask) => ask.owner.as_deref(),
        _ => None,
    }
}

fn stat(ask: &PathOptions) -> Result<Response, ErrorBody> {
    let path = absolute(&ask.path)?;
    let flags = if ask.follow {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    let stat =
        fs::statat(fs::CWD, &path, flags).map_err(|error| failed("look at", &path, error))?;
    let target = match kind(&stat) {
        FileKind::Symlink => fs::readlink(&path, Vec::new())
            .ok()
            .map(|target| target.into_bytes()),
        _ => None,
    };
    Ok(Response::Stat(describe(&stat, target)))
}

fn list(ask: &PathOptions, stream: &mut JobStream) -> Result<Response, ErrorBody> {
    let path = absolute(&ask.path)?;
    let folder = fs::open(
        &path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| failed("list", &path, error))?;
    let entries = fs::Dir::read_from(&folder).map_err(|error| failed("list", &path, error))?;
    let mut batch = BytesMut::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed("list", &path, error))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // An entry that has vanished meanwhile is not in the folder.
        let Ok(stat) = fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let target = match kind(&stat) {
            FileKind::Symlink => fs::readlinkat(&folder, name, Vec::new())
                .ok()
                .map(|target| target.into_bytes()),
            _ => None,
        };
        let entry = DirEntry {
            name: name.to_bytes().to_vec().into(),
            info: describe(&stat, target),
        }
        .to_body();
        let Ok(length) = u16::try_from(entry.len()) else {
            continue;
        };
        batch.put_u16_le(length);
        batch.put_slice(&entry);
        if batch.len() >= BULK_BODY / 2 {
            stream
                .send(batch.split().freeze())
                .map_err(|error| broken(&error))?;
        }
    }
    stream
        .send(batch.freeze())
        .map_err(|error| broken(&error))?;
    stream.finish();
    Ok(Response::Done)
}

fn make_dir(ask: &MakeDir) -> Result<Response, ErrorBody> {
    let path = absolute(&ask.path)?;
    let mode = mode(ask.mode)?;
    if ask.parents
        && let Some(parent) = path.parent()
    {
        make_parents(parent)?;
    }
    match fs::mkdir(&path, mode) {
        Ok(()) => {
            fs::chmod(&path, mode).map_err(|error| failed("set the mode of", &path, error))?
        }
        Err(Errno::EXIST) if ask.parents && path.is_dir() => {}
        Err(error) => return Err(failed("make", &path, error)),
    }
    Ok(Response::Done)
}

fn make_parents(path: &Path) -> Result<(), ErrorBody> {
    std::fs::create_dir_all(path).map_err(|error| match errno_of(&error) {
        Errno::EXIST => failed("make", path, Errno::NOTDIR),
        error => failed("make", path, error),
    })
}

fn remove(ask: &Remove) -> Result<Response, ErrorBody> {
    let path = absolute(&ask.path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorBody::new(
            ErrorKind::InvalidArgument,
            format!("{} cannot be removed; name what is in it", path.display()),
        ));
    };
    let parent = fs::open(
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| failed("remove", &path, error))?;
    let unlinked = match fs::unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) if !ask.recursive => fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
        other => other,
    };
    match unlinked {
        Ok(()) => {}
        Err(Errno::ISDIR) => blink_archive::remove_tree(parent.as_fd(), name)
            .map_err(|error| archive(&error, &path))?,
        Err(error) => return Err(failed("remove", &path, error)),
    }
    Ok(Response::Done)
}

fn rename(ask: &TwoPaths) -> Result<Response, ErrorBody> {
    let (from, to) = (absolute(&ask.from)?, absolute(&ask.to)?);
    match fs::rename(&from, &to) {
        Ok(()) => Ok(Response::Done),
        // These are said of the new name.
        Err(error @ (Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR)) => {
            Err(failed("replace", &to, error))
        }
        Err(error) => {
            let both = format_args!("rename {} to {}", from.display(), to.display());
            Err(failed_at(both, error))
        }
    }
}

fn copy(ask: &TwoPaths) -> Result<Response, ErrorBody> {
    let (from, to) = (absolute(&ask.from)?, absolute(&ask.to)?);
    let source = open_regular(&from, OFlags::RDONLY)?;
    let mode = source
        .metadata()
        .map_err(|error| failed("copy", &from, errno_of(&error)))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o7777;
    let target = Replacement::begin(&to, Some(mode), None)?;
    blink_archive::copy_file(&source, &target.file)
        .map_err(|error| failed("copy to", &to, errno_of(&error)))?;
    target.commit()?;
    Ok(Response::Done)
}

fn read(ask: &Read, stream: &mut JobStream) -> Result<Response, ErrorBody> {
    let path = absolute(&ask.path)?;
    let mut file = open_regular(&path, OFlags::RDONLY)?;
    if ask.offset > 0 {
        file.seek(SeekFrom::Start(ask.offset))
            .map_err(|error| failed("read", &path, errno_of(&error)))?;
    }
    let mut rest = ask.length.unwrap_or(u64::MAX);
    while rest > 0 {
        let limit = usize::try_from(rest).unwrap_or(usize::MAX).min(BULK_BODY);
        let mut chunk = BytesMut::with_capacity(limit);
        let count = crate::stream::read_into(&file, &mut chunk)
            .map_err(|error| failed("read", &path, error))?;
        if count == 0 {
            break;
        }
        rest -= count as u64;
        stream
            .send(chunk.freeze())
            .map_err(|error| broken(&error))?;
    }
    stream.finish();
    Ok(Response::Done)
}

fn write(ask: &Write, stream: &mut JobStream) -> Result<Response, ErrorBody> {
    let path = absolute(&ask.path)?;
    if ask.append {
        return append(ask, &path, stream);
    }
    let target = Replacement::begin(&path, ask.mode, ask.user.as_deref())?;
    let is_on_disk = is_on_disk(&target.folder);
    fill(stream, &target.file, &path, is_on_disk)?;
    stream.verify()?;
    target.commit()?;
    Ok(Response::Done)
}

fn append(ask: &Write, path: &Path, stream: &mut JobStream) -> Result<Response, ErrorBody> {
    let existed = fs::stat(path).is_ok();
    let mut file = open_regular(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?;
    if !existed {
        give(&file, path, ask.mode, ask.user.as_deref())?;
    }
    let before = file
        .metadata()
        .map_err(|error| failed("append to", path, errno_of(&error)))?
        .len();
    let is_on_disk = path.parent().is_some_and(is_folder_on_disk);
    let appended = transfer(stream, &mut file, path, is_on_disk).and_then(|()| stream.verify());
    if let Err(error) = appended {
        // What came of a stream that is not whole is taken away again.
        let _ = file.set_len(before);
        return Err(error);
    }
    Ok(Response::Done)
}

/// Fills a new file, with holes where it is zeros.
fn fill(
    stream: &mut JobStream,
    file: &File,
    path: &Path,
    is_on_disk: bool,
) -> Result<(), ErrorBody> {
    let failed = |error: io::Error| failed("write", path, errno_of(&error));
    let mut at = 0;
    while let Some(chunk) = stream.receive().map_err(|error| broken(&error))? {
        if is_on_disk {
            stream.take_room(&chunk).map_err(failed)?;
        }
        blink_archive::write_with_holes(file, at, &chunk).map_err(failed)?;
        at += chunk.len() as u64;
    }
    file.set_len(at).map_err(failed)
}

fn transfer(
    stream: &mut JobStream,
    file: &mut File,
    path: &Path,
    is_on_disk: bool,
) -> Result<(), ErrorBody> {
    while let Some(chunk) = stream.receive().map_err(|error| broken(&error))? {
        if is_on_disk {
            let room = stream.take_room(&chunk);
            room.map_err(|error| failed("write", path, errno_of(&error)))?;
        }
        file.write_all(&chunk)
            .map_err(|error| failed("write", path, errno_of(&error)))?;
    }
    Ok(())
}

fn pack(
    ask: &PathOptions,
    options: PackOptions,
    stream: &mut JobStream,
) -> Result<Response, ErrorBody> {
    let path = absolute(&ask.path)?;
    let stat = fs::stat(&path).map_err(|error| failed("pack", &path, error))?;
    if kind(&stat) != FileKind::Directory {
        let message = format!("{} is not a folder; read it instead", path.display());
        return Err(crate::failure::failed(Errno::NOTDIR, message));
    }
    let writer = io::BufWriter::with_capacity(BULK_BODY, &mut *stream);
    let options = options.with_ownership(ALL_OWNERS);
    Root::open(&path)
        .and_then(|root| blink_archive::pack(&root, "", writer, &options))
        .map_err(|error| archive(&error, &path))?;
    stream.finish();
    Ok(Response::Done)
}

fn unpack(ask: &PathOptions, stream: &mut JobStream) -> Result<Response, ErrorBody> {
    let path = absolute(&ask.path)?;
    let is_new = fs::lstat(&path).is_err();
    make_parents(&path)?;
    let unpacked = unpack_into(ask, &path, is_new, stream);
    if let (Err(_), true, Some(parent), Some(name)) =
        (&unpacked, is_new, path.parent(), path.file_name())
    {
        // What has come of it is of no use.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(parent) = fs::open(parent, flags, Mode::empty()) {
            let _ = blink_archive::remove_tree(parent.as_fd(), name);
        }
    }
    unpacked
}

fn unpack_into(
    ask: &PathOptions,
    path: &Path,
    is_new: bool,
    stream: &mut JobStream,
) -> Result<Response, ErrorBody> {
    let options = match ask.owner.is_none() && may_change_owners() {
        true => UnpackOptions::default().with_ownership(ALL_OWNERS),
        false => UnpackOptions::default(),
    };
    let options = options.with_attributes(true).with_root_metadata(is_new);
    let is_on_disk = is_folder_on_disk(path);
    let reader = Roomy {
        stream: &mut *stream,
        is_on_disk,
    };
    Root::open(path)
        .and_then(|root| blink_archive::unpack(reader, &root, &options))
        .map_err(|error| archive(&error, path))?;
    stream.verify()?;
    Ok(Response::Done)
}

/// What comes, as far as there is room for it on the disk.
struct Roomy<'a> {
    stream: &'a mut JobStream,
    is_on_disk: bool,
}

impl io::Read for Roomy<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(into)?;
        if self.is_on_disk {
            self.stream.take_room(&into[..count])?;
        }
        Ok(count)
    }
}

fn is_folder_on_disk(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).is_ok_and(is_on_disk)
}

/// Whether a folder is of the sandbox's disk, and not of a mount or in memory.
fn is_on_disk(folder: impl AsFd) -> bool {
    let root = fs::stat("/").map(|root| root.st_dev);
    let own = fs::fstat(folder).map(|folder| folder.st_dev);
    matches!((root, own), (Ok(root), Ok(own)) if root == own)
}

/// Where only one user is mapped, every file belongs to it.
fn may_change_owners() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace()
        .nth(2)
        .and_then(|count| count.parse::<u64>().ok())
        .is_some_and(|count| count > 1)
}

/// A new file that takes the old one's place in one step, or never.
struct Replacement {
    file: File,
    folder: OwnedFd,
    temporary: String,
    name: Vec<u8>,
    path: PathBuf,
    mode: Mode,
    committed: bool,
}

impl Replacement {
    fn begin(path: &Path, mode: Option<u32>, user: Option<&str>) -> Result<Replacement, ErrorBody> {
        // A link at the end is followed, as a program that opens the file would; the file that it names is replaced.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed("write", &path, Errno::ISDIR));
        };
        let folder = fs::open(
            parent,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| failed("write into", parent, error))?;
        refuse_kernel_files(&folder, &path)?;
        let former = match fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(former) => Some(former),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(failed("write", &path, error)),
        };
        if let Some(former) = &former
            && kind(former) != FileKind::File
        {
            return Err(not_regular(&path, kind(former)));
        }
        let temporary = temporary_name();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&folder, &temporary, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| failed("write", &path, error))?;
        let replacement = Replacement {
            file: file.into(),
            folder,
            temporary,
            name: name.as_bytes().to_owned(),
            path: path.clone(),
            mode: mode_for(mode, former.as_ref())?,
            committed: false,
        };
        refuse_kernel_files(&replacement.file, &path)?;
        if let (Some(former), None) = (&former, user) {
            // Where only one user is mapped, it is the owner already.
            let owner = (
                rustix::fs::Uid::from_raw(former.st_uid),
                rustix::fs::Gid::from_raw(former.st_gid),
            );
            let _ = fs::fchown(&replacement.file, Some(owner.0), Some(owner.1));
        }
        if let Some(user) = user {
            give_owner(&replacement.file, &path, user)?;
        }
        Ok(replacement)
    }

    fn commit(mut self) -> Result<(), ErrorBody> {
        let name = OsStr::from_bytes(&self.name);
        // Last of all: a change of owner and every write take away the bits that run a program as its owner.
        fs::fchmod(&self.file, self.mode)
            .map_err(|error| failed("set the mode of", &self.path, error))?;
        fs::renameat_with(
            &self.folder,
            &self.temporary,
            &self.folder,
            name,
            RenameFlags::empty(),
        )
        .map_err(|error| failed("replace", &self.path, error))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::unlinkat(&self.folder, &self.temporary, AtFlags::empty());
        }
    }
}

fn temporary_name() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    format!(
        ".blink-{:x}-{:x}",
        time.tv_nsec,
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Gives a new file its mode and owner.
fn give(
    file: &File,
    path: &Path,
    wanted: Option<u32>,
    user: Option<&str>,
) -> Result<(), ErrorBody> {
    if let Some(user) = user {
        give_owner(file, path, user)?;
    }
    fs::fchmod(file, mode_for(wanted, None)?)
        .map_err(|error| failed("set the mode of", path, error))
}

fn give_owner(file: &File, path: &Path, user: &str) -> Result<(), ErrorBody> {
    let user = find_user(user)?;
    let owner = (
        rustix::fs::Uid::from_raw(user.uid),
        rustix::fs::Gid::from_raw(user.gid),
    );
    fs::fchown(file, Some(owner.0), Some(owner.1))
        .map_err(|error| failed("change the owner of", path, error))
}

/// The mode that was asked for, or that of the file that is replaced.
fn mode_for(wanted: Option<u32>, former: Option<&Stat>) -> Result<Mode, ErrorBody> {
    const NEW: u32 = 0o644;
    let kept = former.map(|former| former.st_mode & 0o7777);
    mode(wanted.or(kept).unwrap_or(NEW))
}

/// Opens what must be a regular file, without waiting for a writer of a pipe or changing a device.
fn open_regular(path: &Path, flags: OFlags) -> Result<File, ErrorBody> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::open(path, flags, Mode::from_raw_mode(0o644))
        .map_err(|error| failed("open", path, error))?;
    let stat = fs::fstat(&file).map_err(|error| failed("look at", path, error))?;
    if kind(&stat) != FileKind::File {
        return Err(not_regular(path, kind(&stat)));
    }
    let file = File::from(file);
    if flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        refuse_kernel_files(&file, path)?;
    }
    Ok(file)
}

/// `/proc` holds the agent's own memory under names that a link can lead to.
fn refuse_kernel_files(file: impl AsFd, path: &Path) -> Result<(), ErrorBody> {
    const PROC: u64 = 0x9fa0;
    const SYSFS: u64 = 0x6265_6572;
    let found = fs::fstatfs(file)
        .map_err(|error| failed("look at", path, error))?
        .f_type;
    match u64::try_from(found) {
        Ok(PROC | SYSFS) => {
            let message = format!(
                "{} is a file of the kernel; run a program in the sandbox to write to it",
                path.display()
            );
            Err(failed_as(ErrorKind::PermissionDenied, Errno::PERM, message))
        }
        _ => Ok(()),
    }
}

fn describe(stat: &Stat, target: Option<Vec<u8>>) -> FileInfo {
    FileInfo {
        kind: kind(stat),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified_ns: stat
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or_default()),
        target: target.map(Into::into),
    }
}

fn kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

fn absolute(path: &[u8]) -> Result<PathBuf, ErrorBody> {
    let shown = String::from_utf8_lossy(path);
    let problem = if path.contains(&0) {
        "holds a NUL byte"
    } else if !path.starts_with(b"/") {
        "is not absolute; paths in the sandbox begin with /"
    } else {
        return Ok(PathBuf::from(OsStr::from_bytes(path)));
    };
    Err(ErrorBody::new(
        ErrorKind::InvalidArgument,
        format!("the path {shown:?} {problem}"),
    ))
}

fn mode(bits: u32) -> Result<Mode, ErrorBody> {
    match bits <= 0o7777 {
        true => Ok(Mode::from_raw_mode(bits)),
        false => Err(ErrorBody::new(
            ErrorKind::InvalidArgument,
            format!("{bits:o} is not a file's mode; it has at most four octal digits"),
        )),
    }
}

fn failed(what: &str, path: &Path, error: Errno) -> ErrorBody {
    failed_at(format_args!("{what} {}", path.display()), error)
}

/// What must be a regular file is something else.
fn not_regular(path: &Path, found: FileKind) -> ErrorBody {
    match found {
        FileKind::Directory => failed("use", path, Errno::ISDIR),
        _ => ErrorBody::new(
            ErrorKind::InvalidArgument,
            format!("{} is not a regular file", path.display()),
        ),
    }
}

fn archive(error: &ArchiveError, path: &Path) -> ErrorBody {
    match error.io_error().and_then(io::Error::raw_os_error) {
        Some(number) => {
            let mut body = failed(
                "process the files of",
                path,
                Errno::from_raw_os_error(number),
            );
            body.message = format!("{} ({error})", body.message);
            body
        }
        None => {
            let kind = match error {
                ArchiveError::Unrepresentable { .. } => ErrorKind::Unsupported,
                ArchiveError::Limit { .. } => ErrorKind::ResourceExhausted,
                _ => ErrorKind::Corrupt,
            };
            ErrorBody::new(kind, error.to_string())
        }
    }
}

fn broken(error: &io::Error) -> ErrorBody {
    ErrorBody::new(ErrorKind::Internal, error.to_string())
}
