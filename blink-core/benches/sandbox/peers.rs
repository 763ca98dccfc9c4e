//! What Blink is measured against.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::measure::{Result, timed};
use crate::setting::Setting;

/// A command of the host, with as bare an environment as a sandbox has: cargo's own sends the loader through several
/// folders for each library.
pub(crate) fn host_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

fn silent(program: impl AsRef<OsStr>) -> Command {
    let mut command = host_command(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// A program that makes the same namespaces and mounts as a sandbox has, and runs another in them: the least that can be.
pub(crate) struct Bare {
    program: PathBuf,
    lower: PathBuf,
    folder: PathBuf,
}

impl Bare {
    /// Builds it, over the root of Blink's own sandboxes.
    pub(crate) fn build(setting: &Setting) -> Result<Bare> {
        let folder = setting.scratch("bare")?;
        let (source, program) = (folder.join("bare.c"), folder.join("bare"));
        fs::write(&source, include_str!("bare.c"))?;
        let built = Command::new("cc")
            .args(["-O2", "-static", "-o"])
            .args([&program, &source])
            .status()?;
        if !built.success() {
            return Err("the bare program cannot be built".into());
        }
        let roots = fs::read_dir(setting.home())?.flatten();
        let lower = roots
            .map(|entry| entry.path())
            .find(|path| {
                let name = path.file_name().unwrap_or_default();
                name.to_string_lossy().starts_with("host-")
            })
            .ok_or("Blink's home has no root for sandboxes")?;
        make_disk(&folder)?;
        Ok(Bare {
            program,
            lower,
            folder,
        })
    }

    /// Runs a program in folders that are there already.
    pub(crate) fn run(&self, program: &str) -> Result<()> {
        self.run_in(&self.folder, program)
    }

    /// Runs a program in folders of its own, which are gone afterwards.
    pub(crate) fn run_with_fresh_folders(&self, program: &str) -> Result<()> {
        let folder = self.folder.join("fresh");
        make_disk(&folder)?;
        self.run_in(&folder, program)?;
        Ok(fs::remove_dir_all(&folder)?)
    }

    fn run_in(&self, folder: &Path, program: &str) -> Result<()> {
        let status = silent(&self.program)
            .arg(&self.lower)
            .args([folder, Path::new(program)])
            .status()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("the bare program failed: {status}").into()),
        }
    }
}

fn make_disk(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::create_dir(folder.join("upper"))?;
    fs::create_dir(folder.join("work"))
}

/// A thread that sends back what it gets: the least that any agent at the other end of a socket can cost.
pub(crate) struct Echo {
    stream: UnixStream,
}

impl Echo {
    /// A small request with its header.
    const MESSAGE: usize = 24;

    pub(crate) fn start() -> Result<Echo> {
        let (stream, mut other) = UnixStream::pair()?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count) = other.read(&mut buffer) {
                if count == 0 || other.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        });
        Ok(Echo { stream })
    }

    /// Sends so many messages at once, and waits for all of them.
    pub(crate) fn exchange(&mut self, messages: usize) -> Result<()> {
        let mut buffer = vec![0; messages * Echo::MESSAGE];
        self.stream.write_all(&buffer)?;
        Ok(self.stream.read_exact(&mut buffer)?)
    }
}

/// Makes this program the one that holds crun's container.
pub(crate) const CRUN: &str = "--crun-peer";

/// A container of crun's that runs, held by a process of its own: its end ends the container, and it may need a view of
/// the control groups that is not this process's.
pub(crate) struct Crun {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What it took.
    pub(crate) how: String,
}

impl Crun {
    /// Starts a container, or says why there is none.
    pub(crate) fn start(bundle: &Path) -> std::result::Result<Crun, String> {
        Crun::start_in(bundle).map_err(|error| error.to_string())
    }

    fn start_in(bundle: &Path) -> Result<Crun> {
        silent("crun")
            .arg("--version")
            .status()
            .map_err(|_| "crun is not installed")?;
        if !rustix::process::geteuid().is_root() {
            return Err("needs root here".into());
        }
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CRUN)
            .arg(bundle)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = "the container's holder has no pipes";
        let requests = child.stdin.take().ok_or(missing)?;
        let mut answers = BufReader::new(child.stdout.take().ok_or(missing)?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        match line.trim().split_once(' ') {
            Some(("ready", how)) => Ok(Crun {
                child,
                requests,
                answers,
                how: how.to_owned(),
            }),
            Some(("unable", why)) => Err(why.into()),
            _ => Err("the container's holder has ended".into()),
        }
    }

    /// Runs `/bin/true` in it so many times.
    pub(crate) fn exec(&mut self, count: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for _ in 0..count {
            writeln!(self.requests)?;
            let mut line = String::new();
            self.answers.read_line(&mut line)?;
            times.push(Duration::from_nanos(line.trim().parse()?));
        }
        Ok(times)
    }
}

impl Drop for Crun {
    fn drop(&mut self) {
        // Something that is no request ends it, and the container with it.
        let _ = writeln!(self.requests, "end");
        let _ = self.child.wait();
    }
}

/// Holds a container: runs `/bin/true` in it for each empty line, and says how many nanoseconds that took.
pub(crate) fn serve_crun(bundle: &Path) -> Result<()> {
    make_bundle(bundle)?;
    let container = match Container::run(bundle) {
        Ok(container) => container,
        Err(error) => {
            println!("unable {}", error.to_string().replace('\n', " "));
            return Ok(());
        }
    };
    println!("ready {}", container.how);
    for line in std::io::stdin().lines() {
        if !line?.is_empty() {
            break;
        }
        let (time, ()) = timed(|| container.exec())?;
        println!("{}", time.as_nanos());
    }
    Ok(())
}

struct Container {
    options: Vec<OsString>,
    how: &'static str,
}

const CONTAINER: &str = "blink-bench";

impl Container {
    /// Tries with control groups, without, and with a view of them that this crun understands.
    fn run(bundle: &Path) -> Result<Container> {
        let state: OsString = bundle.join("state").into();
        let with = |manager: Option<&str>, how| {
            let mut options = vec!["--root".into(), state.clone()];
            options.extend(manager.map(|manager| format!("--cgroup-manager={manager}").into()));
            Container { options, how }
        };
        let mut container = with(None, "as it is");
        let Err(first) = container.begin(bundle) else {
            return Ok(container);
        };
        container = with(Some("disabled"), "without control groups");
        if container.begin(bundle).is_ok() {
            return Ok(container);
        }
        show_unified_control_groups().map_err(|_| first.to_string())?;
        container.how = "without control groups, whose mixed hierarchies here it refuses";
        container.begin(bundle).map_err(|_| first)?;
        Ok(container)
    }

    fn crun(&self) -> Command {
        let mut command = silent("crun");
        command.args(&self.options);
        command
    }

    fn begin(&self, bundle: &Path) -> Result<()> {
        let log = bundle.join("log");
        let status = self
            .crun()
            .args(["run", "--detach", "--bundle"])
            .arg(bundle)
            .arg(CONTAINER)
            .stderr(fs::File::create(&log)?)
            .status()?;
        match status.success() {
            true => Ok(()),
            false => Err(fs::read_to_string(&log)?.trim().into()),
        }
    }

    fn exec(&self) -> Result<()> {
        let status = self
            .crun()
            .args(["exec", CONTAINER, "/bin/true"])
            .status()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("crun exec failed: {status}").into()),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.crun().args(["delete", "--force", CONTAINER]).status();
    }
}

/// For this process and its children alone.
fn show_unified_control_groups() -> Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: this process has one thread, and shares nothing with another that it would lose.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    Ok(mount(
        c"cgroup2",
        c"/sys/fs/cgroup",
        c"cgroup2",
        MountFlags::empty(),
        c"",
    )?)
}

/// The machine's own programs, read-only, and a process that waits.
fn make_bundle(bundle: &Path) -> Result<()> {
    let root = bundle.join("rootfs");
    for folder in ["usr", "proc", "dev", "sys"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let mut mounts = vec![json!({"destination": "/proc", "type": "proc", "source": "proc"})];
    let mut show = |path: &str| {
        mounts.push(json!({
            "destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"],
        }));
    };
    show("/usr");
    for name in ["bin", "lib", "lib64"] {
        let path = Path::new("/").join(name);
        match fs::read_link(&path) {
            Ok(target) => std::os::unix::fs::symlink(target, root.join(name))?,
            Err(_) if path.is_dir() => {
                fs::create_dir_all(root.join(name))?;
                show(&path.to_string_lossy());
            }
            Err(_) => {}
        }
    }
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sleep", "infinity"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": mounts,
        "linux": {"namespaces": namespaces},
    });
    Ok(fs::write(
        bundle.join("config.json"),
        serde_json::to_vec(&config)?,
    )?)
}
