//! How a sandbox's new root is put together, in trees of folders, files and links of an image's making.
//!
//! The input is a list of steps: an image's entries first, then what a plan asks for. The kernel is the model: what it finds at a
//! path without ever leaving the root (`RESOLVE_IN_ROOT`) is what must be found. Checked too: nothing outside is touched, nothing
//! leads into the sandbox's own folders, and nothing is made in a folder of the host's.
#![no_main]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use blink_archive::{Links, Root};
use blink_fuzz::Place;
use blink_guest::fuzzing::NewRoot;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, symlinkat,
};
use rustix::io::Errno;

static PLACE: LazyLock<Place> = LazyLock::new(Place::default);

const OWN: [&str; 3] = [".blink", "proc", "dev"];
const NAMES: [&str; 12] = [
    "a", "b", "c", "d", ".blink", "proc", "dev", "..", ".", "outside", "inside", "root",
];
const STEPS: usize = 48;

/// The step's bytes, of which there are as many as are asked for.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        usize::from(self.0.next().copied().unwrap_or_default())
    }

    fn path(&mut self) -> PathBuf {
        let begin = self.next();
        let mut path = PathBuf::from(match begin % 3 {
            0 => "/",
            _ => "",
        });
        for _ in 0..=begin / 3 % 4 {
            path.push(NAMES[self.next() % NAMES.len()]);
        }
        // As the library takes paths: what is at `file/.` is the file.
        path.components().collect()
    }
}

struct Found {
    identity: (u64, u64),
    is_folder: bool,
    path: PathBuf,
}

fn look_at(file: &OwnedFd) -> Found {
    let stat = fstat(file).expect("it is open");
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Found {
        identity: (stat.st_dev, stat.st_ino),
        is_folder: FileType::from_raw_mode(stat.st_mode).is_dir(),
        path: path.expect("it is open"),
    }
}

/// What the kernel finds, which never leaves the root.
fn find(root: &OwnedFd, path: &Path) -> Option<Found> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    loop {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Ok(found) => return Some(look_at(&found)),
            // The kernel could not tell, as something on this machine was renamed or mounted meanwhile.
            Err(Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
}

/// An entry of an image's.
fn make(image: &Root, bytes: &mut Bytes<'_>) {
    let (kind, path) = (bytes.next(), bytes.path());
    let Ok((folder, name)) = image.open_parent(&path, Links::InRoot) else {
        return;
    };
    // What is there already stays.
    match kind % 4 {
        0 => drop(mkdirat(folder, name, Mode::RWXU)),
        1 => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(openat(folder, name, flags, Mode::RUSR));
        }
        _ => drop(symlinkat(bytes.path(), folder, name)),
    }
}

fn names_beneath(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn with_names(folder: PathBuf) -> (PathBuf, Vec<PathBuf>) {
    let names = names_beneath(&folder);
    (folder, names)
}

/// One thing that a plan asks for.
fn ask(
    root: &OwnedFd,
    new: &NewRoot,
    path: &Path,
    is_folder: bool,
    own: &[Found],
) -> Option<OwnedFd> {
    let before = find(root, path);
    let placed = new.place(path, is_folder);
    match (&placed, before) {
        (Some(file), _) => {
            let found = look_at(file);
            let seen =
                find(root, path).unwrap_or_else(|| panic!("{path:?} is at {:?}", found.path));
            assert_eq!(found.identity, seen.identity, "{path:?} is elsewhere");
            assert_eq!(found.is_folder, is_folder, "{path:?} is something else");
            let inside = look_at(root).path;
            assert!(found.path.starts_with(&inside), "{path:?} is outside");
            for one in own {
                assert!(!found.path.starts_with(&one.path), "{path:?} is its own");
            }
        }
        (None, Some(found)) if own.is_empty() => {
            let is_root = found.identity == look_at(root).identity;
            assert!(
                found.is_folder != is_folder || is_root,
                "{path:?} was there"
            );
        }
        (None, _) => {}
    }
    placed
}

fn case(input: &[u8]) {
    let folder = PLACE.folder("root");
    let image = Root::open(&folder).expect("it is there");
    let root = image.as_fd().try_clone_to_owned().expect("there is room");
    let mut bytes = Bytes(input.iter());
    for _ in 0..bytes.next() % 24 {
        make(&image, &mut bytes);
    }
    let mut new = NewRoot::new(root.try_clone().expect("there is room"));
    let mut own = Vec::new();
    if bytes.next() % 4 > 0 {
        for name in OWN {
            let before = find(&root, Path::new(name));
            let link = std::fs::symlink_metadata(folder.join(name));
            let is_free = link.map_or(true, |found| found.is_dir());
            let made = new.own(name);
            assert_eq!(
                made.is_some(),
                is_free,
                "{name}: {:?}",
                before.map(|found| found.path)
            );
            own.extend(made.as_ref().map(look_at));
        }
    }
    // Nothing is made in them any more.
    let mut closed: Vec<_> = own.iter().map(|one| with_names(one.path.clone())).collect();
    for _ in 0..STEPS {
        if bytes.0.len() == 0 {
            break;
        }
        let kind = bytes.next();
        let path = bytes.path();
        let placed = ask(&root, &new, &path, kind % 2 == 0, &own);
        if let Some(file) = placed
            && kind % 8 == 0
        {
            let found = look_at(&file);
            new.is_hosts(&file);
            closed.extend(found.is_folder.then(|| with_names(found.path)));
        }
        for (folder, names) in &closed {
            assert_eq!(&names_beneath(folder), names, "made in {folder:?}");
        }
    }
    PLACE.check(1 << 10, 1 << 10);
}

fuzz_target!(|input: &[u8]| {
    case(input);
    PLACE.clear();
});
