//! What no engine but this has, on real machines: with `BLINK_TEST_ENGINE=microvm`.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blink_wire::Request;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::engine::tree::Tree;
use crate::home::{Lifetime, SandboxFolder};
use crate::sandbox::Sandbox;
use crate::spec::{Mount, Network, Resources};
use crate::{Command, Consistency, Isolation};

const ENGINE: &str = "BLINK_TEST_ENGINE";

/// Nothing here takes so long unless it hangs.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), future)
        .await
        .expect("it hangs")
}

fn has_machines() -> bool {
    let there = std::env::var(ENGINE).is_ok_and(|engine| engine == "microvm");
    if !there {
        eprintln!("skipped: {ENGINE} is not microvm");
    }
    there
}

/// A sandbox whose machine is at hand.
struct Running {
    sandbox: Sandbox,
    machine: Arc<MicrovmMachine>,
}

impl Running {
    async fn says(&self, script: &str) -> String {
        let output = self.sandbox.exec(Command::shell(script)).await.unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        output.text().trim_end().to_owned()
    }

    async fn ask(&self, request: Request) {
        self.sandbox.link().unwrap().call(&request).await.unwrap();
    }

    /// Ends the machine as a power cut would; the sandbox's folder stays.
    async fn cut(self) {
        self.machine.kill();
        self.machine.gone().await;
        drop(self.sandbox.adopted());
    }
}

/// A sandbox that nobody holds.
fn new_sandbox(home: &Home) -> String {
    home.new_sandbox(Lifetime::Detached)
        .unwrap()
        .id()
        .to_owned()
}

fn spec(folder: &SandboxFolder, disk: &Path) -> MachineSpec {
    let resources = Resources {
        cpus: Some(1.0),
        memory_mib: Some(512),
        ..Resources::default()
    };
    MachineSpec {
        id: folder.id().to_owned(),
        host_name: folder.id().to_owned(),
        folder: folder.path().to_owned(),
        disk: disk.to_owned(),
        layers: Vec::new(),
        rootfs: None,
        resources,
        network: Network::None,
        mounts: Vec::new(),
        detached: false,
        shared: false,
        boot_timeout: Duration::from_secs(120),
        given_up: CancellationToken::new(),
    }
}

async fn boot(engine: &MicrovmEngine, home: &Home, id: &str, disk: &Path) -> Running {
    boot_with(engine, home, id, disk, |_| {}).await
}

async fn boot_with(
    engine: &MicrovmEngine,
    home: &Home,
    id: &str,
    disk: &Path,
    change: impl FnOnce(&mut MachineSpec),
) -> Running {
    let folder = home.open_sandbox(id, Lifetime::Detached).unwrap();
    let mut spec = spec(&folder, disk);
    change(&mut spec);
    let machine = Arc::new(engine.boot_machine(&spec).await.unwrap());
    let defaults = crate::command::Defaults::default();
    let mut sandbox = Sandbox::assemble(folder, machine.clone(), Isolation::Microvm, defaults);
    let started = std::time::Instant::now();
    sandbox
        .connect(started, Duration::from_secs(120))
        .await
        .unwrap();
    Running { sandbox, machine }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_outlive_machines_and_layers_do_not_change() {
    if !has_machines() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let home = Home::open(Some(scratch.path().join("home"))).unwrap();
    let engine = MicrovmEngine::open(&home).await.unwrap();
    let layer = |name: &str| {
        let folder = home.layers().join(name);
        fs::create_dir(&folder).unwrap();
        folder
    };
    let (first, second) = (layer("first"), layer("second"));
    let (id, disk) = (new_sandbox(&home), layer("disk"));

    // While it runs: what it writes later is not in the layer, and programs wait no longer than the freeze.
    let running = boot(&engine, &home, &id, &disk).await;
    running.says("mkdir /data; echo one >/data/one").await;
    // What opens a link is for no program to read.
    let secret = super::Record::read(&home.sandboxes().join(&id))
        .unwrap()
        .secret;
    let told = running
        .says("cat /proc/cmdline /proc/*/cmdline /proc/self/environ | tr '\\0' ' '")
        .await;
    assert!(
        !told.contains(&secret) && told.contains("--secret"),
        "{told}"
    );
    running.ask(Request::Freeze).await;
    let again = running.sandbox.link().unwrap().call(&Request::Freeze).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Busy);
    let kept = running.machine.snapshot(&first, true).await.unwrap();
    assert_eq!(kept, Consistency::Frozen);
    running.ask(Request::Thaw).await;
    running.ask(Request::Thaw).await;
    running
        .says("echo two >/data/two; head -c 20000000 /dev/urandom >/data/large; sync /data/*")
        .await;
    running.cut().await;

    // A power cut loses nothing that was written to the disk.
    let running = boot(&engine, &home, &id, &disk).await;
    assert_eq!(
        running
            .says("ls /data; cat /data/one /data/two; hostname")
            .await,
        format!("large\none\ntwo\none\ntwo\n{id}")
    );
    running.says("rm /data/large; sync /data").await;
    running.cut().await;

    // While it does not run: a layer is what the disk was, and the disk goes on over it or over another.
    let (third, fourth) = (layer("third"), layer("fourth"));
    engine.make_disk(&third, &first).unwrap();
    let running = boot(&engine, &home, &id, &third).await;
    assert_eq!(running.says("ls /data").await, "one");
    running
        .says("echo changed >/data/one; sync /data/one")
        .await;
    running.cut().await;

    // Another sandbox begins with a layer, and is another machine.
    let fork = new_sandbox(&home);
    engine.make_disk(&fourth, &disk).unwrap();
    let running = boot(&engine, &home, &fork, &fourth).await;
    assert_eq!(
        running.says("cat /data/*; hostname").await,
        format!("one\ntwo\n{fork}")
    );
    running.says("echo forked >/data/two; sync /data/two").await;
    running.cut().await;

    let archive = scratch.path().join("fork.boxlite");
    let nobody = blink_host::transfer::tell_nobody();
    let beneath = [disk.clone()];
    let exported = engine.export(
        &fourth,
        &beneath,
        None,
        &archive,
        About {
            session: b"said",
            tell: &nobody,
        },
    );
    exported.await.unwrap();
    damaged_archives_leave_nothing(&engine, &archive, &second).await;
    let opened = engine.open_archive(&archive).await.unwrap();
    assert_eq!(opened.session(), Some(&b"said"[..]));
    import(&engine, &archive, &second).await.unwrap();
    // It stands alone.
    for layer in [&first, &third, &disk, &fourth] {
        fs::remove_dir_all(layer).unwrap();
    }
    let running = boot(&engine, &home, &new_sandbox(&home), &second).await;
    assert_eq!(running.says("cat /data/*").await, "one\nforked");
    running.cut().await;
    let boxes: Vec<_> = fs::read_dir(home.path().join("microvm/boxes"))
        .unwrap()
        .collect();
    assert_eq!(boxes.len(), 0, "{boxes:?}");
}

/// The hypervisor's process, and not the jail's around it.
fn hypervisor_status(home: &Home) -> String {
    let folder = home.path().join("microvm/boxes").canonicalize().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let found: Vec<_> = processes
        .filter(|process| {
            let program = fs::read_link(process.path().join("exe")).unwrap_or_default();
            program.starts_with(&folder) && program.ends_with("hypervisor")
        })
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    fs::read_to_string(found[0].path().join("status")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_mount_are_served_beneath_a_filter() {
    if !has_machines() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let home = Home::open(Some(scratch.path().join("home"))).unwrap();
    let engine = MicrovmEngine::open(&home).await.unwrap();
    let (id, disk, shared) = (
        new_sandbox(&home),
        scratch.path().join("disk"),
        scratch.path().join("shared"),
    );
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&shared).unwrap();
    let running = boot_with(&engine, &home, &id, &disk, |spec| {
        spec.mounts = vec![Mount::new(&shared, "/shared")];
    })
    .await;
    let status = hypervisor_status(&home);
    assert!(
        status.contains("Seccomp:\t2\n") && status.contains("NoNewPrivs:\t1\n"),
        "{status}"
    );
    let did = running
        .says(
            "cd /shared && echo one >a && mv a b && ln b c && ln -s b d && chmod 640 b && touch -d @1000 b && \
             mkfifo e && mkdir -p f/g && mv f h && rmdir h/g && df . >/dev/null && sync -d b && sync -f b && \
             stat -c '%a %Y %h' b && truncate -s 2 b && cat d && fallocate -l 5 b && stat -c %s b && \
             dd if=/dev/zero of=large bs=1M seek=1500 count=1 2>/dev/null && stat -c %s large && ls",
        )
        .await;
    assert_eq!(did, "640 1000 2\non5\n1573912576\nb\nc\nd\ne\nh\nlarge");
    running.cut().await;
}

async fn import(engine: &MicrovmEngine, archive: &Path, folder: &Path) -> Result<()> {
    let opened = engine.open_archive(archive).await?;
    let nobody = blink_host::transfer::tell_nobody();
    let target = Target {
        disk: folder,
        rootfs: None,
        limit_mib: 10 << 10,
        tell: &nobody,
    };
    opened.unpack(&target).await
}

async fn damaged_archives_leave_nothing(engine: &MicrovmEngine, good: &Path, folder: &Path) {
    let before = names(folder);
    let archive = folder.with_extension("damaged");
    let bytes = fs::read(good).unwrap();
    let mut altered = bytes.clone();
    let middle = bytes.len() / 2;
    altered[middle] ^= 1;
    let cases = [
        &bytes[..bytes.len() - 100],
        &bytes[..100],
        &bytes[..2],
        b"no archive at all",
        &altered,
    ];
    for case in cases {
        fs::write(&archive, case).unwrap();
        let error = import(engine, &archive, folder).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(names(folder), before);
    }
    fs::remove_file(&archive).unwrap();
    let error = import(engine, &archive, folder).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

/// An engine with a program of this test's in the agent's place.
async fn engine_with_agent(home: &Home, scratch: &Path, script: &str) -> MicrovmEngine {
    use std::os::unix::fs::PermissionsExt;
    let mut engine = MicrovmEngine::open(home).await.unwrap();
    engine.agent = scratch.join("agent");
    fs::create_dir(&engine.agent).unwrap();
    let program = engine.agent.join("blink-guest");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    engine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_panics_is_told_with_its_words() {
    if !has_machines() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let home = Home::open(Some(scratch.path().join("home"))).unwrap();
    // Out of memory, where that is more than a program's end.
    let script = "mkdir /run/proc && mount -t proc proc /run/proc && echo 2 >/run/proc/sys/vm/panic_on_oom && \
                  sleep 2 && exec tail /dev/zero";
    let engine = engine_with_agent(&home, scratch.path(), script).await;
    let folder = home.new_sandbox(Lifetime::Process).unwrap();
    let machine = engine
        .boot_machine(&spec(&folder, folder.path()))
        .await
        .unwrap();
    let error = within(machine.open_link()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::SandboxDied, "{error}");
    assert!(error.message().contains("panic"), "{error}");
    let words = machine.last_words().await.unwrap();
    assert!(words.contains("panic"), "{words}");
    machine.kill();
    within(machine.gone()).await;
    folder.remove().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_that_hangs_is_ended_in_time() {
    if !has_machines() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let home = Home::open(Some(scratch.path().join("home"))).unwrap();
    let engine = MicrovmEngine::open(&home).await.unwrap();
    let folder = home.new_sandbox(Lifetime::Process).unwrap();
    let mut spec = spec(&folder, folder.path());
    spec.boot_timeout = Duration::from_secs(8);
    let boxes = home.path().join("microvm/boxes");
    let there = boxes.clone();
    let stopping = tokio::task::spawn_blocking(move || stop_the_first_machine(&there));
    let error = engine.boot_machine(&spec).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let stopped = stopping.await.unwrap();
    while stopped.is_alive()
        || fs::read_dir(home.path().join("microvm/boxes"))
            .unwrap()
            .count()
            > 0
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    folder.remove().unwrap();
}

/// Stops the hypervisor as soon as it is there.
fn stop_the_first_machine(boxes: &Path) -> Tree {
    loop {
        let machines = fs::read_dir(boxes).into_iter().flatten().flatten();
        let process = machines
            .filter_map(|machine| fs::read_to_string(machine.path().join("shim.pid")).ok())
            .find_map(|text| Tree::of(text.lines().next()?.trim().parse().ok()?));
        if let Some(process) = process {
            std::mem::forget(process.pause());
            return process;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
