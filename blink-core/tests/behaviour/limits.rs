//! Limits of memory, processes, disk and processors.

use blink_core::{Command, ErrorKind, Mount, WriteOptions};

use crate::support::{TestSandbox, fails, noise, ok, python, sandbox_with, shown, within};

#[tokio::test]
async fn one_program_cannot_have_more_memory_than_the_sandbox() {
    let sandbox = sandbox_with(|builder| builder.memory_mib(64)).await;
    let output = sandbox
        .python("b = bytearray(200 << 20); import time; time.sleep(50); print(len(b))")
        .await;
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{}",
        shown(&output)
    );
    assert_eq!(sandbox.says("echo fine").await, "fine");
}

#[tokio::test]
async fn programs_together_cannot_have_more_memory_than_the_sandbox() {
    let sandbox = sandbox_with(|builder| builder.memory_mib(96)).await;
    let program = "import os, time\nfor i in range(5):\n  if os.fork() == 0: break\nb = bytearray(os.urandom(1 << 20) * 40)\ntime.sleep(50)";
    let output = sandbox.python(program).await;
    assert!(
        output.status.over_limit == Some("memory") || output.status.signal == Some(9),
        "{}",
        shown(&output)
    );
    assert!(!output.status.timed_out);
    if output.status.over_limit.is_some() {
        assert_eq!(
            output.check_limits().unwrap_err().kind(),
            ErrorKind::ResourceExhausted
        );
    }
    fine_again(&sandbox).await;
}

#[tokio::test]
async fn what_fits_is_left_alone() {
    let sandbox = sandbox_with(|builder| builder.memory_mib(256).disk_mib(64)).await;
    let output = sandbox.python("import time; b = bytearray(100 << 20); open('/tmp/f', 'wb').write(b[:30 << 20]); time.sleep(1.5); print(len(b))").await;
    assert_eq!(output.text(), "104857600\n", "{}", shown(&output));
}

#[tokio::test]
async fn processes_are_counted_and_shared_memory_is_as_asked() {
    let sandbox = sandbox_with(|builder| builder.processes(30).shared_memory_mib(96)).await;
    let size = "df --block-size 1M --output=size /dev/shm | tail -n 1 | tr -d ' '";
    assert_eq!(sandbox.says(size).await, "96");
    let program = "import os, time\nn = 0\ntry:\n  while n < 100:\n    if os.fork() == 0: time.sleep(1000)\n    n += 1\nexcept OSError as e: print(e.errno)\nprint(n)";
    let output = sandbox.run(python(program)).await;
    let text = output.text().into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "11", "{}", shown(&output));
    let count: u32 = lines[1].parse().unwrap();
    assert!((20..30).contains(&count), "{count}");
    // There is no room for another program, and that is said.
    match crate::support::within(sandbox.exec(Command::new("true"))).await {
        Ok(output) => assert!(output.status.success()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}"),
    }
    ok(sandbox.ping()).await;
}

#[tokio::test]
async fn large_limits_are_no_limits() {
    let sandbox = sandbox_with(|builder| {
        builder
            .processes(u64::MAX)
            .disk_mib(u64::MAX)
            .memory_mib(u64::MAX)
            .cpus(1e30)
    })
    .await;
    assert_eq!(sandbox.says("echo fine").await, "fine");
    let sandbox = sandbox_with(|builder| {
        builder
            .processes(1 << 40)
            .disk_mib(1 << 40)
            .memory_mib(1 << 40)
            .cpus(4096.0)
    })
    .await;
    assert_eq!(sandbox.says("echo fine").await, "fine");
}

#[tokio::test]
async fn a_transfer_that_the_disk_has_no_room_for_fails_before_it_does_harm() {
    let shared = tempfile::tempdir().unwrap();
    let mount = Mount::new(shared.path(), "/mnt/shared");
    let sandbox = sandbox_with(|builder| builder.disk_mib(32).mount(mount)).await;
    let files = sandbox.files();
    let large = bytes::Bytes::from(noise(48 << 20));
    let folder = tempfile::tempdir().unwrap();
    for part in 0..3 {
        std::fs::write(folder.path().join(format!("{part}")), &large[..16 << 20]).unwrap();
    }
    let exhausted = ErrorKind::ResourceExhausted;
    fails(exhausted, files.write("/tmp/large", large.clone())).await;
    let append = WriteOptions::default().append();
    fails(
        exhausted,
        files.write_with("/tmp/appended", &mut &large[..], &append),
    )
    .await;
    fails(exhausted, files.upload(folder.path(), "/tmp/folder")).await;
    assert_eq!(
        sandbox.says("sleep 1; find /tmp -type f -size +0").await,
        ""
    );
    // What takes no room of the disk is not the disk's.
    ok(files.write("/mnt/shared/large", large.clone())).await;
    ok(files.write("/tmp/holes", vec![0; 64 << 20])).await;
    ok(files.write("/tmp/fits", large.slice(..16 << 20))).await;
    assert_eq!(
        sandbox
            .says("stat -c %s /tmp/holes /mnt/shared/large")
            .await,
        "67108864\n50331648"
    );
}

#[tokio::test]
async fn transfers_at_once_do_not_take_a_disk_over_its_limit() {
    let sandbox = sandbox_with(|builder| builder.disk_mib(32)).await;
    let files = sandbox.files();
    let content = bytes::Bytes::from(noise(6 << 20));
    for _ in 0..3 {
        let writes = (0..8).map(|number| files.write(format!("/tmp/{number}"), content.clone()));
        let written = within(futures_util::future::join_all(writes)).await;
        let fit = written.iter().filter(|result| result.is_ok()).count();
        for error in written.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        }
        // Programs start, which they do not on a disk that is over its limit.
        assert_eq!(sandbox.says("ls /tmp | wc -l").await, fit.to_string());
        sandbox.says("rm -f /tmp/*").await;
    }
}

#[tokio::test]
async fn what_a_file_occupies_counts_and_not_how_long_it_is() {
    let sandbox = sandbox_with(|builder| builder.disk_mib(32)).await;
    sandbox
        .says("truncate -s 20G /tmp/f && echo x >>/tmp/f && sleep 1")
        .await;
    let output = sandbox
        .sh("dd if=/dev/urandom of=/tmp/g bs=1M count=64; sleep 50; echo written")
        .await;
    assert_eq!(output.status.over_limit, Some("disk"), "{}", shown(&output));
}

#[tokio::test]
async fn files_together_cannot_be_larger_than_the_disk() {
    let sandbox = sandbox_with(|builder| builder.disk_mib(16)).await;
    let script = "for i in $(seq 64); do dd if=/dev/urandom of=/tmp/f$i bs=1M count=1 status=none; sleep 0.05; done; sleep 50; echo written";
    let output = sandbox.sh(script).await;
    assert_eq!(output.status.over_limit, Some("disk"), "{}", shown(&output));
    assert_eq!(
        output.clone().check_limits().unwrap_err().kind(),
        ErrorKind::ResourceExhausted
    );
    // Until there is room again, nothing starts.
    let error = crate::support::fails(
        ErrorKind::ResourceExhausted,
        sandbox.exec(Command::new("true")),
    )
    .await;
    assert!(error.message().contains("disk"), "{error:?}");
    for entry in ok(sandbox.files().list("/tmp")).await {
        ok(sandbox
            .files()
            .remove(std::path::Path::new("/tmp").join(entry.name)))
        .await;
    }
    fine_again(&sandbox).await;
}

#[tokio::test]
async fn files_without_a_name_count() {
    let sandbox = sandbox_with(|builder| builder.disk_mib(16)).await;
    let program = "import os, time\nopen_files = []\nfor i in range(64):\n  f = open('/tmp/f', 'wb'); f.write(os.urandom(1 << 20)); f.flush(); os.fsync(f.fileno())\n  os.unlink('/tmp/f'); open_files.append(f); time.sleep(0.02)\ntime.sleep(50)\nprint('written')";
    let output = sandbox.python(program).await;
    assert_eq!(output.status.over_limit, Some("disk"), "{}", shown(&output));
    fine_again(&sandbox).await;
}

/// The watch needs a moment to see that there is room again.
async fn fine_again(sandbox: &TestSandbox) {
    let mut last = None;
    for _ in 0..200 {
        match crate::support::within(sandbox.exec(Command::shell("echo fine"))).await {
            Ok(output) if output.text() == "fine\n" => return,
            other => last = Some(other),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{:?}", last.map(|last| last.map(|output| shown(&output))));
}

#[tokio::test]
async fn processors_are_limited() {
    let sandbox = sandbox_with(|builder| builder.cpus(1.0)).await;
    let processors = sandbox
        .says("nproc; cat /sys/fs/cgroup/cpu.max 2>/dev/null; true")
        .await;
    assert!(
        processors.lines().next() == Some("1") || processors.contains("100000 100000"),
        "{processors}"
    );
    // A program cannot take more back.
    if processors.lines().next() == Some("1") {
        let output = sandbox
            .sh("taskset -p ffff $$ >/dev/null 2>&1; nproc")
            .await;
        assert_eq!(output.text(), "1\n");
    }
}

#[tokio::test]
async fn limits_of_one_sandbox_are_not_anothers() {
    let blink = crate::support::blink().await;
    let first = ok(blink.sandbox().processes(20).create()).await;
    let second = blink.create(|builder| builder.processes(20)).await;
    let mut running = Vec::new();
    for _ in 0..12 {
        running.push(ok(first.spawn(Command::new("sleep").arg("1000"))).await);
        running.push(ok(second.spawn(Command::new("sleep").arg("1000"))).await);
    }
    assert_eq!(second.says("echo fine").await, "fine");
    ok(first.remove()).await;
}

#[tokio::test]
async fn many_of_the_hosts_files_can_be_open_at_once() {
    let sandbox = crate::support::sandbox().await;
    let program = "import os, resource\n\
                   limit = resource.getrlimit(resource.RLIMIT_NOFILE)\n\
                   resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))\n\
                   held = []\n\
                   for folder, _, names in os.walk('/usr/share'):\n  \
                     held += [os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)\n    \
                       for name in names if not os.path.islink(os.path.join(folder, name))]\n  \
                     if len(held) > 3000: break\n\
                   print(len(held) > 3000)";
    let output = sandbox.python(program).await;
    assert_eq!(output.text(), "True\n", "{}", shown(&output));
}
