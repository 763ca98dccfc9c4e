//! A host process that is killed between any two steps of a change, and a disk that fails or is full at any: the old state
//! is there, or the new one, whole, nothing else is left, and the same change can be made again.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command as HostCommand, Stdio};

use blink_core::{Blink, ErrorKind};

use crate::change::{self, CHANGES, Change, Template};
use crate::session::describe;
use crate::support::{
    Capability, Engine, blink_in, folders, is_alive, ok, patient_from, require, until, within,
};
use crate::{child, stopped};

const CHANGE: &str = "BLINK_TEST_CHANGE";
const FAULT: &str = "BLINK_TEST_FAULT";
const STEPS: &str = "BLINK_TEST_STEPS";

/// More than any change has.
const STEPS_LIMIT: u32 = 200;

/// What the process does to which it happens: the change, and where that fails, the change again. It waits in between until
/// it is told to go on.
pub(crate) async fn perform(home: &Path) {
    let change = Change::named(&std::env::var(CHANGE).unwrap());
    let blink = blink_in(home).await;
    let mut held = None;
    let Err(error) = within(change.make(home, &blink, &mut held)).await else {
        println!("report ok");
        return;
    };
    let message = error.message().replace('\n', " ");
    println!("report {} {message}", error.kind().name());
    std::io::stdin().read_exact(&mut [0]).unwrap();
    println!("report {}", seen(&blink, held.as_ref()).await);
    ok(change.make(home, &blink, &mut held)).await;
    println!("report ok");
}

/// What there is to see without changing anything.
async fn seen(blink: &Blink, held: Option<&blink_core::Session>) -> String {
    let mut seen = Vec::new();
    for info in ok(blink.sessions()).await {
        let taken;
        let session = match held {
            Some(held) if held.id() == info.id => held,
            _ => {
                taken = ok(change::take(blink, &info.name)).await;
                &taken
            }
        };
        seen.push(format!("{} {}", info.name, change::file_of(session).await));
        for checkpoint in ok(session.checkpoints()).await {
            seen.push(format!("{}@{}", info.name, checkpoint.name));
        }
        ok(session.stop()).await;
    }
    seen.join(", ")
}

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The process is killed.
    Kill,
    /// The step fails, as a disk does.
    Fail,
    /// The disk of the home is full from then on.
    Full,
}

/// A process that makes a change.
struct Performer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Performer {
    fn start(change: &Change, home: &Path, variables: &[(&str, String)]) -> Performer {
        let mut command = child::command("change session", home);
        command
            .env(CHANGE, change.name)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Performer { child, lines }
    }

    /// What it tells next; nothing where it has ended.
    fn report(&mut self) -> Option<String> {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        lines.find_map(|line| Some(line.split_once("report ")?.1.to_owned()))
    }

    /// Waits until it has stopped itself, or ended; says whether it has stopped.
    async fn stops(&self) -> bool {
        let pid = i32::try_from(self.child.id()).unwrap();
        let has_stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
            state.is_some_and(|state| state.starts_with('T'))
        };
        until("its stop or its end", || has_stopped() || !is_alive(pid)).await;
        has_stopped()
    }

    fn go_on(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    }
}

/// Makes a disk full, until it is dropped: neither a byte nor a file has room.
struct Filler(PathBuf);

impl Filler {
    fn fill(folder: PathBuf) -> Filler {
        std::fs::create_dir(&folder).unwrap();
        let mut file = std::fs::File::create(folder.join("bytes")).unwrap();
        // Down to the last byte: what has room of a piece is written of it.
        let mut piece = &[1; 1 << 20][..];
        while !piece.is_empty() {
            if file.write_all(piece).is_err() {
                piece = &piece[..piece.len() / 2];
            }
        }
        for number in 0.. {
            if std::fs::File::create(folder.join(number.to_string())).is_err() {
                return Filler(folder);
            }
        }
        unreachable!()
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Where a change is made: a disk, and what is to be on none that is full.
struct Place(PathBuf);

impl Place {
    fn with_disk(folder: &Path) -> Place {
        let place = Place(folder.to_owned());
        std::fs::create_dir(place.disk()).unwrap();
        place
    }

    fn disk(&self) -> PathBuf {
        self.0.join("disk")
    }

    fn home(&self) -> PathBuf {
        self.disk().join("home")
    }

    /// In which steps are listed.
    fn list(&self) -> PathBuf {
        self.0.join("steps")
    }

    /// The steps that there are, and those that a process has come by.
    fn steps(&self) -> (Vec<String>, Vec<String>) {
        let text = std::fs::read_to_string(self.list()).unwrap_or_default();
        let those = |word| {
            let names = text.lines().filter_map(|line| line.strip_prefix(word));
            names.map(str::to_owned).collect()
        };
        (those("there is "), those("passed "))
    }
}

/// Makes a change once for each of its steps, with a fault there.
async fn survives(change: &Change, fault: Fault, place: &Place) {
    let template = Template::of(change, &place.home()).await;
    for step in patient_from().unwrap_or(0)..STEPS_LIMIT {
        template.copy(&place.home());
        let what = match fault {
            Fault::Kill => "kill",
            Fault::Fail => "fail",
            Fault::Full => "stop",
        };
        let asked = [
            (FAULT, format!("{what} {step}")),
            (STEPS, place.list().display().to_string()),
        ];
        let performer = Performer::start(change, &place.home(), &asked);
        let at = format!("{} {fault:?} {step}", change.name);
        if patient_from().is_some() {
            eprintln!("{at}");
        }
        let is_done = is_done_after(change, fault, performer, place, &at).await;
        let happened = place.steps().1.len() > step as usize;
        std::fs::remove_file(place.list()).unwrap();

        // Whatever it has started ends with it, and the next start finds all that is left.
        let found = change::state(&place.home()).await;
        assert!(
            found == change.new || !is_done && found == change.old,
            "{at}: {found:?}"
        );
        leave_nothing(&place.home(), &template, &at).await;
        if !happened {
            assert!(is_done && step > 3, "{} has steps", change.name);
            return;
        }
    }
    panic!("{} never comes to its end", change.name);
}

/// Lets it happen; says whether the change was made after all.
async fn is_done_after(
    change: &Change,
    fault: Fault,
    mut performer: Performer,
    place: &Place,
    at: &str,
) -> bool {
    let mut full = None;
    if fault == Fault::Full && performer.stops().await {
        full = Some(Filler::fill(place.disk().join("filler")));
        performer.go_on();
    }
    let mut report = performer.report();
    drop(full);
    if let Some(error) = report.as_deref().filter(|report| *report != "ok") {
        let (kind, advice) = match fault {
            Fault::Full => (ErrorKind::ResourceExhausted, "room"),
            _ => (ErrorKind::Internal, "error"),
        };
        assert!(error.starts_with(kind.name()), "{at}: {error}");
        assert!(error.contains(advice), "{at}: {error}");
        // What makes room must not need any.
        let makes_room = fault == Fault::Full && change.name.starts_with("remove");
        assert!(!makes_room, "{at}: {error}");
        let stdin = performer.child.stdin.as_mut().unwrap();
        stdin.write_all(b"\n").unwrap();
        let seen = performer.report().unwrap_or_default();
        assert_eq!(seen, seen_of(change.old), "{at}: {error}");
        report = performer.report();
    }
    let status = performer.child.wait().unwrap();
    let was_killed = fault == Fault::Kill && status.signal() == Some(9);
    assert!(was_killed || status.success(), "{at}: {status:?}");
    assert!(was_killed || report.is_some(), "{at}: it told nothing");
    report.is_some()
}

/// What [`seen`] tells of a state.
fn seen_of(state: &[&str]) -> String {
    let sessions = state.iter().filter(|line| !line.starts_with("the "));
    let seen = sessions.map(|line| match line.contains('@') {
        true => line.split_once(' ').unwrap().0,
        false => line,
    });
    seen.collect::<Vec<_>>().join(", ")
}

/// Removes all sessions of a home, and compares what is left.
async fn leave_nothing(home: &Path, template: &Template, at: &str) {
    let blink = blink_in(home).await;
    for info in ok(blink.sessions()).await {
        ok(ok(change::take(&blink, &info.name)).await.remove()).await;
    }
    let layers = home.join("layers");
    until(&format!("{at}: no layer"), || {
        std::fs::read_dir(&layers).unwrap().count() == 0
    })
    .await;
    until(&format!("{at}: no folder"), || folders(home).is_empty()).await;
    until(&format!("{at}: no process"), || processes_of(home) == 0).await;
    assert_eq!(change::names(home), template.names(), "{at}");
    drop(blink);
    std::fs::remove_dir_all(home).unwrap();
}

/// How many processes were started with something of a home.
fn processes_of(home: &Path) -> usize {
    let home = home.as_os_str().as_encoded_bytes();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let told = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    told.filter(|line| line.windows(home.len()).any(|part| part == home))
        .count()
}

/// Those that can be made here. What starts no micro-VM is tried where none can be started, which is soon done.
fn tried() -> impl Iterator<Item = &'static Change> {
    CHANGES.iter().filter(|change| match Engine::chosen() {
        Engine::Namespace => true,
        Engine::Microvm => stopped::machines_start() != change.starts_none(),
    })
}

async fn all_survive(changes: &str, fault: Fault) {
    require(Capability::ManyStarts);
    let folder = tempfile::tempdir().unwrap();
    let place = Place::with_disk(folder.path());
    let changes: Vec<&Change> = tried()
        .filter(|change| change.name.starts_with(changes))
        .collect();
    let starts = Engine::chosen() == Engine::Microvm && stopped::machines_start();
    assert!(starts || !changes.is_empty());
    for change in changes {
        match fault {
            Fault::Full => on_a_disk_of_its_own(change, &place),
            _ => survives(change, fault, &place).await,
        }
    }
}

/// In a process that has a small disk mounted where nobody else sees it.
fn on_a_disk_of_its_own(change: &Change, place: &Place) {
    let size = match Engine::chosen() {
        Engine::Microvm if stopped::machines_start() => "512m",
        _ => "48m",
    };
    require(Capability::PrivateMounts);
    let inner = child::command("survive full disks", &place.0);
    let mut command = private_mounts();
    command
        .args(["sh", "-c"])
        .arg(format!(
            "mount -t tmpfs -o size={size},nr_inodes=3000 none \"$0\" && exec \"$@\""
        ))
        .arg(place.disk())
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(CHANGE, change.name);
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap());
    }
    assert_eq!(child::report(command), ["ok"]);
}

/// Starts what follows with mounts of its own.
pub(crate) fn private_mounts() -> HostCommand {
    let mut command = HostCommand::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--mount");
    command
}

/// What that process does.
pub(crate) async fn perform_on_full_disks(folder: &Path) {
    let change = Change::named(&std::env::var(CHANGE).unwrap());
    survives(change, Fault::Full, &Place(folder.to_owned())).await;
    println!("report ok");
}

/// The same of sessions in micro-VMs that do not run, on any machine that has a hypervisor's device.
mod needs_kvm {
    #[tokio::test]
    async fn every_step_is_one_of_a_change_that_is_tried() {
        super::stopped::again(
            "faults::needs_many_starts::every_step_is_one_of_a_change_that_is_tried",
        )
        .await;
    }
}

macro_rules! faults {
    ($($name:ident: $changes:literal $(, $stopped:ident)?;)+) => {$(
        mod $name {
            mod needs_many_starts {
                use super::super::{Fault, all_survive};

                #[tokio::test]
                async fn survives_a_kill() {
                    all_survive($changes, Fault::Kill).await;
                }

                #[tokio::test]
                async fn survives_errors() {
                    all_survive($changes, Fault::Fail).await;
                }
            }

            mod needs_many_starts_and_private_mounts {
                use super::super::{Fault, all_survive};

                #[tokio::test]
                async fn survives_a_full_disk() {
                    all_survive($changes, Fault::Full).await;
                }
            }

            $(mod $stopped {
                use crate::stopped::again;

                #[tokio::test]
                async fn survives_a_kill() {
                    again(concat!("faults::", stringify!($name), "::needs_many_starts::survives_a_kill")).await;
                }

                #[tokio::test]
                async fn survives_errors() {
                    again(concat!("faults::", stringify!($name), "::needs_many_starts::survives_errors")).await;
                }

                #[tokio::test]
                async fn survives_a_full_disk() {
                    const TEST: &str = "needs_many_starts_and_private_mounts::survives_a_full_disk";
                    again(&format!("faults::{}::{TEST}", stringify!($name))).await;
                }
            })?
        }
    )+};
}

// Each is all that begin so.
faults! {
    creating: "create";
    claiming: "claim";
    a_checkpoint: "checkpoint", needs_kvm;
    restoring: "restore", needs_kvm;
    forking: "fork", needs_kvm;
    removing: "remove", needs_kvm;
    renaming: "rename", needs_kvm;
    exporting: "export", needs_kvm;
    importing: "import", needs_kvm;
}

mod needs_many_starts {
    use super::*;

    #[tokio::test]
    async fn every_step_is_one_of_a_change_that_is_tried() {
        require(Capability::ManyStarts);
        let folder = tempfile::tempdir().unwrap();
        let place = Place::with_disk(folder.path());
        for change in tried() {
            let template = Template::of(change, &place.home()).await;
            template.copy(&place.home());
            let list = [(STEPS, place.list().display().to_string())];
            let mut performer = Performer::start(change, &place.home(), &list);
            assert_eq!(performer.report().as_deref(), Some("ok"), "{}", change.name);
            assert!(performer.child.wait().unwrap().success());
            assert_eq!(change::state(&place.home()).await, change.new);
            leave_nothing(&place.home(), &template, change.name).await;
        }
        let (all, passed) = place.steps();
        let other_engines = match Engine::chosen() {
            Engine::Namespace => "Microvm",
            Engine::Microvm => "Namespace",
        };
        // What is only done to a micro-VM that runs, or by one.
        let by_machines = |step: &str| {
            let is_one = ["MicrovmDiskCopied", "ImageExport", "Pool", "Key"];
            is_one.iter().any(|begin| step.starts_with(begin))
        };
        let expected = |step: &str| match Engine::chosen() {
            Engine::Namespace => true,
            Engine::Microvm => by_machines(step) == stopped::machines_start(),
        };
        let missed: Vec<&String> = all
            .iter()
            .filter(|step| !step.starts_with(other_engines) && !passed.contains(step))
            .filter(|step| expected(step))
            .collect();
        assert!(!all.is_empty() && missed.is_empty(), "{missed:?}");
    }
}

mod needs_shared_home {
    use super::*;

    #[tokio::test]
    async fn who_stands_still_while_it_removes_holds_nobody_up() {
        require(Capability::SharedHome);
        let folder = tempfile::tempdir().unwrap();
        let place = Place::with_disk(folder.path());
        let change = Change::named("restore");
        let template = Template::of(change, &place.home()).await;
        template.copy(&place.home());
        let list = (STEPS, place.list().display().to_string());
        let mut performer = Performer::start(change, &place.home(), std::slice::from_ref(&list));
        assert_eq!(performer.report().as_deref(), Some("ok"));
        assert!(performer.child.wait().unwrap().success());
        let is_removal = |step: &String| step.starts_with("LayerRemove");
        let removal = place.steps().1.iter().position(is_removal).unwrap();
        leave_nothing(&place.home(), &template, change.name).await;

        template.copy(&place.home());
        let stop = (FAULT, format!("stop {removal}"));
        let mut performer = Performer::start(change, &place.home(), &[list, stop]);
        assert!(performer.stops().await);
        let blink = blink_in(&place.home()).await;
        let other = ok(describe(&blink, "other").open()).await;
        ok(other.checkpoint("kept")).await;
        ok(other.remove()).await;
        performer.go_on();
        assert_eq!(performer.report().as_deref(), Some("ok"));
        assert!(performer.child.wait().unwrap().success());
        leave_nothing(&place.home(), &template, change.name).await;
    }
}
