//! What all parts measure with: a home of its own, and a session whose disk holds much.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blink_core::{Blink, Command, IsolationChoice, Session};

use crate::inside::Inside as _;
use crate::measure::Result;
use crate::options::{Options, Size};

/// The session with the large disk.
pub(crate) const LARGE: &str = "large";

const MIB: usize = 1 << 20;

/// Of the large disk: three quarters are in files of this size, the rest in small ones.
const LARGE_FILE: usize = 32 * MIB;
const SMALL_FILE: usize = 16 << 10;

pub(crate) struct Setting {
    size: Size,
    pub(crate) blink: Blink,
    folder: tempfile::TempDir,
}

impl Setting {
    pub(crate) async fn new(options: &Options) -> Result<Setting> {
        fs::create_dir_all(&options.folder)?;
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&options.folder)?;
        let setting = Setting {
            size: options.size,
            blink: blink_at(&folder.path().join("home")).await?,
            folder,
        };
        if options.wants("changes") || options.wants("archives") {
            eprintln!("filling a disk");
            setting.fill().await?;
        }
        Ok(setting)
    }

    /// So many of something, depending on how long to measure.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        self.size.pick(full, quick)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A folder for peers, on the same file system as the sessions' disks.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// How much the large disk holds.
    pub(crate) fn large_mib(&self) -> usize {
        self.pick(1024, 64)
    }

    async fn fill(&self) -> Result<()> {
        let source = self.scratch("source")?;
        let bytes = self.large_mib() * MIB;
        let mut data = Data::new();
        for number in 0..bytes / 4 * 3 / LARGE_FILE {
            let mut file = fs::File::create(source.join(format!("large-{number}")))?;
            for _ in 0..LARGE_FILE / MIB {
                file.write_all(&data.take(MIB))?;
            }
        }
        for number in 0..bytes / 4 / SMALL_FILE {
            let folder = source.join(format!("{:02}", number % 64));
            fs::create_dir_all(&folder)?;
            fs::write(
                folder.join(format!("small-{number}")),
                data.take(SMALL_FILE),
            )?;
        }
        let session = self.blink.session(LARGE).open().await?;
        session.files().await?.upload(&source, "/data").await?;
        session.stop().await?;
        session.checkpoint("filled").await?;
        fs::remove_dir_all(&source)?;
        // What is written later is not to wait for this.
        run("sync", |command| command.arg("-f").arg(self.folder.path()))
    }

    pub(crate) async fn large(&self) -> Result<Session> {
        Ok(self
            .blink
            .take_session(LARGE, Duration::from_secs(10))
            .await?)
    }

    pub(crate) async fn end(self) -> Result<()> {
        for info in self.blink.sessions().await? {
            let session = self.blink.take_session(&info.name, Duration::from_secs(10));
            session.await?.remove().await?;
        }
        Ok(())
    }
}

pub(crate) async fn blink_at(home: &Path) -> Result<Blink> {
    Ok(Blink::builder()
        .home(home)
        .isolation(IsolationChoice::Namespace)
        .build()
        .await?)
}

/// Half of it random, half of it words, in turns of 512 bytes: it packs as program files and text together do.
struct Data {
    state: u64,
}

impl Data {
    fn new() -> Data {
        Data { state: 1 }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = [
            "the ", "sandbox ", "return ", "self.", "0000", "error ", "\n", "layer ",
        ];
        let mut bytes = Vec::with_capacity(length + 1024);
        while bytes.len() < length {
            for _ in 0..64 {
                bytes.extend(self.next().to_le_bytes());
            }
            let end = bytes.len() + 512;
            while bytes.len() < end {
                let word = usize::try_from(self.next() % 8).unwrap_or_default();
                bytes.extend(WORDS[word].as_bytes());
            }
        }
        bytes.truncate(length);
        bytes
    }
}

/// Runs a program of the host, which must succeed.
pub(crate) fn run(
    program: &str,
    describe: impl FnOnce(&mut std::process::Command) -> &mut std::process::Command,
) -> Result<()> {
    let mut command = std::process::Command::new(program);
    let status = describe(&mut command).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{program} failed: {status}").into()),
    }
}

/// Runs a command in a session, which must succeed.
pub(crate) async fn exec(session: &Session, command: Command) -> Result<()> {
    says(session, command).await.map(drop)
}

/// What a command has written.
pub(crate) async fn says(session: &Session, command: Command) -> Result<String> {
    let output = session.exec(command).await?;
    match output.status.success() {
        true => Ok(output.text().into_owned()),
        false => Err(format!(
            "a command failed: {}",
            String::from_utf8_lossy(&output.stderr)
        )
        .into()),
    }
}

/// What files occupy, in bytes.
pub(crate) fn occupied(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += metadata.blocks() * 512;
        if metadata.is_dir() {
            sum += occupied(&entry.path())?;
        }
    }
    Ok(sum)
}
