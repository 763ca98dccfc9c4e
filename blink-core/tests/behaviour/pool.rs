//! Pools: what is ready is claimed at once, by one, and nothing of it is left.

use std::collections::HashSet;
use std::time::Duration;

use blink_core::{
    Command, ErrorKind, Network, Pool, PoolBuilder, PublishedPort, Sandbox, SandboxSpec, WhenEmpty,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::child;
use crate::support::{
    Capability, Engine, TestBlink, blink, describe_in, fails, find_host_pid, kill, ok, patience,
    require, rounds, short, until, within,
};

/// What tests have in their pools: no more than they need.
pub(crate) fn spec() -> SandboxSpec {
    let mut spec = SandboxSpec::default();
    if Engine::chosen() == Engine::Microvm {
        spec.cpus = Some(1.0);
        spec.memory_mib = Some(1024);
    }
    spec
}

fn describe(blink: &TestBlink) -> PoolBuilder {
    blink.pool(spec())
}

async fn full(builder: PoolBuilder) -> Pool {
    let pool = ok(builder.build()).await;
    ok(pool.ready()).await;
    pool
}

async fn claim(pool: &Pool) -> Sandbox {
    ok(async { pool.claim().await }).await
}

async fn says(sandbox: &Sandbox, script: &str) -> String {
    let output = ok(sandbox.exec(Command::shell(script))).await;
    assert!(output.status.success(), "{script}: {output:?}");
    output.text().trim_end().to_owned()
}

/// Waits until a pool has so many ready, and none on the way.
async fn settles(pool: &Pool, idle: usize) {
    until("a settled pool", || {
        let stats = pool.stats();
        (stats.idle, stats.booting, stats.waiting) == (idle, 0, 0)
    })
    .await;
}

#[tokio::test]
async fn what_is_claimed_is_ready_and_another_takes_its_place() {
    let blink = blink().await;
    let pool = full(describe(&blink).size(2).name("ready")).await;
    let before = pool.stats();
    assert_eq!((before.idle, before.boots, before.hits), (2, 2, 0));
    let first = claim(&pool).await;
    assert_eq!(says(&first, "echo works").await, "works");
    settles(&pool, 2).await;
    let stats = pool.stats();
    assert_eq!((stats.hits, stats.misses, stats.claimed), (1, 0, 1));
    assert_eq!((stats.boots, stats.claim_latency.count), (3, 1));
    assert_eq!(stats.name.as_deref(), Some("ready"));
    let id = first.id().to_owned();
    drop(first);
    until("the end of what was claimed", || pool.stats().claimed == 0).await;
    assert!(!blink.home().join("sandboxes").join(&id).exists());
    ok(async {
        within(pool.close()).await;
        Ok(())
    })
    .await;
    drop(pool);
    until("an empty home", || blink.folders().is_empty()).await;
}

#[tokio::test]
async fn no_sandbox_is_handed_out_twice() {
    let blink = blink().await;
    let pool = full(describe(&blink).size(2)).await;
    let mut seen = HashSet::new();
    for _ in 0..rounds(30) {
        let sandbox = claim(&pool).await;
        assert!(seen.insert(sandbox.id().to_owned()));
        assert_eq!(
            says(&sandbox, "cat /tmp/canary 2>/dev/null || echo none").await,
            "none"
        );
        says(&sandbox, "echo x > /tmp/canary").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_claims_is_served_by_one_after_another() {
    let blink = blink().await;
    let claimants = rounds(40) as usize;
    let pool = full(describe(&blink).size(2).max(6)).await;
    let mut claims = tokio::task::JoinSet::new();
    for _ in 0..claimants {
        let pool = pool.clone();
        claims.spawn(async move {
            let sandbox = ok(async { pool.claim().timeout(patience()).await }).await;
            assert!(pool.stats().claimed <= 6);
            says(&sandbox, "echo $((6 * 7))").await
        });
    }
    let answers = within(claims.join_all()).await;
    assert!(answers.iter().all(|answer| answer == "42"));
    let stats = pool.stats();
    assert_eq!(stats.hits + stats.misses, claimants as u64);
    assert_eq!((stats.failed_claims, stats.failed_boots), (0, 0));
    settles(&pool, 2).await;
}

#[tokio::test]
async fn the_warmup_is_run_once_and_shared_and_prepared_is_each() {
    let blink = blink().await;
    let pool = full(
        describe(&blink)
            .size(2)
            .warmup(Command::shell(
                "mkdir /srv/made; head -c 8 /dev/urandom | od -x > /srv/made/once",
            ))
            .warmup(Command::shell(
                "[ -s /srv/made/once ] && touch /srv/made/again",
            ))
            .prepare(Command::shell("head -c 8 /dev/urandom | od -x > /tmp/each"))
            .start(Command::shell("echo $$ > /tmp/runs; exec sleep 1000")),
    )
    .await;
    let (first, second) = (claim(&pool).await, claim(&pool).await);
    let shared = "ls /srv/made; cat /srv/made/once";
    assert_eq!(says(&first, shared).await, says(&second, shared).await);
    let each = "cat /tmp/each";
    assert_ne!(says(&first, each).await, says(&second, each).await);
    for sandbox in [&first, &second] {
        let runs = "until [ -s /tmp/runs ]; do sleep 0.01; done; tr '\\0' ' ' < /proc/$(cat /tmp/runs)/cmdline";
        assert_eq!(says(sandbox, runs).await, "sleep 1000");
    }
    // What one writes, no other sees.
    says(&first, "rm -r /srv/made; echo changed > /srv/made").await;
    assert_eq!(says(&second, "ls /srv/made").await, "again\nonce");
    let third = claim(&pool).await;
    assert_eq!(says(&third, "ls /srv/made").await, "again\nonce");
    drop((first, second, third));
    within(pool.close()).await;
    drop(pool);
    until("no layer", || {
        let layers = std::fs::read_dir(blink.home().join("layers")).unwrap();
        layers
            .flatten()
            .all(|entry| entry.file_name().to_string_lossy().starts_with('.'))
    })
    .await;
}

#[tokio::test]
async fn a_warmup_that_fails_is_told_with_its_output_and_leaves_nothing() {
    let blink = blink().await;
    let failing = Command::shell("echo some; echo 'no such thing' >&2; exit 3");
    let error = fails(
        ErrorKind::InvalidArgument,
        describe(&blink).warmup(failing.clone()).build(),
    )
    .await;
    assert!(error.message().contains("exit code 3"), "{error}");
    assert!(error.message().contains("no such thing"), "{error}");
    assert_eq!(&error.output().unwrap().stdout[..], b"some\n");
    let endless = Command::new("sleep").arg("1000");
    let hanging = describe(&blink)
        .warmup(endless.clone())
        .warmup_timeout(Duration::from_millis(300));
    fails(ErrorKind::Timeout, hanging.build()).await;
    until("an empty home", || blink.folders().is_empty()).await;

    // One that fails in each sandbox fails the claims that wait, and pauses the boots.
    let pool = ok(describe(&blink).prepare(failing).build()).await;
    let error = fails(ErrorKind::InvalidArgument, pool.ready()).await;
    assert!(error.message().contains("no such thing"), "{error}");
    let error = fails(ErrorKind::InvalidArgument, async { pool.claim().await }).await;
    assert!(error.message().contains("no such thing"), "{error}");
    let failures = pool.stats().failed_boots;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stats = pool.stats();
    assert!(stats.failed_boots - failures <= 4, "{stats:?}");
    assert!(stats.last_failure.unwrap().contains("no such thing"));
    drop(pool);
    until("an empty home", || blink.folders().is_empty()).await;
}

#[tokio::test]
async fn a_program_that_ends_has_its_sandbox_replaced() {
    let blink = blink().await;
    let pool = full(describe(&blink).start(Command::shell(
        "while [ ! -e /tmp/end ]; do sleep 0.02; done",
    )))
    .await;
    let sandbox = claim(&pool).await;
    says(&sandbox, "touch /tmp/end").await;
    settles(&pool, 1).await;
    assert_eq!(pool.stats().deaths, 0);
    // Of those that wait: their agents are killed.
    let folder = blink
        .folders()
        .into_iter()
        .find(|folder| !folder.ends_with(sandbox.id()) && find_host_pid(folder).is_some());
    let folder = folder.unwrap();
    kill(find_host_pid(&folder).unwrap());
    until("a count of it", || pool.stats().deaths == 1).await;
    let next = claim(&pool).await;
    assert!(!folder.ends_with(next.id()));
    assert_eq!(says(&next, "echo works").await, "works");
}

#[tokio::test]
async fn what_differs_for_each_claim_is_said_there() {
    let blink = blink().await;
    let mut spec = spec();
    spec.env.push(("A".into(), "pool".into()));
    spec.env.push(("B".into(), "pool".into()));
    let pool = full(blink.pool(spec).size(2)).await;
    let claimed = pool
        .claim()
        .env("B", "claim")
        .hostname("worker-7")
        .publish(PublishedPort::new(0, 4000));
    let sandbox = ok(async { claimed.await }).await;
    assert_eq!(
        says(&sandbox, "echo $A $B; cat /proc/sys/kernel/hostname").await,
        "pool claim\nworker-7"
    );
    let server = "import socket\ns = socket.create_server(('127.0.0.1', 4000))\nprint('up', flush=True)\nc = s.accept()[0]\nc.sendall(b'hello')";
    let mut process = ok(sandbox.spawn(Command::new("python3").args(["-c", server]))).await;
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"up\n");
    let mut client = tokio::net::TcpStream::connect(sandbox.published()[0].host)
        .await
        .unwrap();
    let mut answer = String::new();
    within(client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "hello");
    let _ = client.shutdown().await;
    let other = claim(&pool).await;
    assert_eq!(says(&other, "echo $A $B").await, "pool pool");
    assert_eq!(
        says(&other, "cat /proc/sys/kernel/hostname").await,
        other.id()
    );
    assert!(other.published().is_empty());
}

#[tokio::test]
async fn a_claim_may_have_less_memory_than_the_pool() {
    let blink = blink().await;
    let mut spec = spec();
    spec.memory_mib = Some(1024);
    let pool = full(blink.pool(spec).size(2)).await;
    let hoard = "kept = [bytearray(1 << 20) for part in range(300)]\nimport time; time.sleep(2)\nprint('kept')";
    let hoard = || Command::new("python3").args(["-c", hoard]);
    let small = ok(async { pool.claim().memory_mib(128).await }).await;
    let output = ok(small.exec(hoard())).await;
    assert_eq!(output.status.over_limit, Some("memory"), "{output:?}");
    let whole = claim(&pool).await;
    assert_eq!(ok(whole.exec(hoard())).await.text(), "kept\n");
}

/// Leaves something in every place that a tenant has.
const CANARIES: &str = r#"
import ctypes, os, signal, socket, subprocess, time
libc = ctypes.CDLL(None, use_errno=True)
for folder in ['/tmp', '/dev/shm', '/run', '/var/tmp', '/etc', '/root', '/home', '/srv', '/var/spool/cron', '/etc/cron.d', '/opt']:
    try:
        os.makedirs(folder, exist_ok=True); open(folder + '/canary', 'w').write('canary')
    except OSError: pass
open('/etc/profile', 'a').write('\nexport CANARY=1\n')
open('/etc/environment', 'a').write('\nCANARY=1\n')
assert libc.shmget(0xca, 4096, 0o1666) >= 0
assert libc.msgget(0xca, 0o1666) >= 0
assert libc.semget(0xca, 1, 0o1666) >= 0
if os.fork() == 0:
    os.setsid()
    kept = []
    for path in ['\0canary', '/tmp/canary.sock']:
        s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(); kept.append(s)
    kept.append(socket.create_server(('127.0.0.1', 4747)))
    signal.setitimer(signal.ITIMER_REAL, 3600)
    libc.prctl(15, b'canary')
    for fd in range(3): os.close(fd)
    time.sleep(3600)
open('/etc/passwd', 'a').write('canary:x:4711:4711::/:/bin/sh\n')
subprocess.run('ip addr add 10.9.8.7/32 dev lo; keyctl add user canary canary @u', shell=True, stderr=subprocess.DEVNULL)
libc.sethostname(b'canary', 6)
time.sleep(0.2)
print('left')
"#;

/// Looks for all of it.
const LOOK: &str = r#"
import os, socket, subprocess
found = []
for top in ['/tmp', '/dev/shm', '/run', '/var', '/etc', '/root', '/home', '/srv', '/opt']:
    for folder, folders, files in os.walk(top):
        found += [folder + '/' + name for name in files + folders if 'canary' in name]
for path in ['/etc/profile', '/etc/environment', '/etc/passwd', '/proc/net/unix', '/proc/keys', '/proc/sys/kernel/hostname']:
    try:
        if 'canary' in open(path).read().lower(): found.append(path)
    except OSError: pass
for name in ['shm', 'msg', 'sem']:
    if any(line.split()[0] == '202' for line in open('/proc/sysvipc/' + name).read().splitlines()[1:]): found.append(name)
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        if 'canary' in open('/proc/' + pid + '/comm').read(): found.append(pid)
    except OSError: pass
try:
    socket.create_connection(('127.0.0.1', 4747), 1); found.append('port')
except OSError: pass
if '10.9.8.7' in open('/proc/net/fib_trie').read(): found.append('address')
if 'CANARY' in os.environ or subprocess.run(['sh', '-lc', 'echo $CANARY'], capture_output=True).stdout.strip(): found.append('environment')
print(found)
"#;

#[tokio::test]
async fn nothing_of_a_tenant_is_left_for_the_next() {
    let blink = blink().await;
    let python = |script: &str| Command::new("python3").args(["-c", script]);
    for resets in [true, false] {
        let pool = full(describe(&blink).reset_on_release(resets)).await;
        let tenant = claim(&pool).await;
        let (id, left) = (
            tenant.id().to_owned(),
            ok(tenant.exec(python(CANARIES))).await,
        );
        assert_eq!(left.text(), "left\n", "{left:?}");
        let seen = ok(tenant.exec(python(LOOK))).await;
        let found = seen.text().into_owned();
        for canary in [
            "/tmp/canary'",
            "/dev/shm/canary",
            "shm",
            "msg",
            "sem",
            "port",
            "/etc/passwd",
            "/proc/net/unix",
            "environment",
        ] {
            assert!(found.contains(canary), "{canary}: {found}");
        }
        if resets {
            assert_eq!(pool.stats().idle, 0);
            fails(ErrorKind::Timeout, async {
                pool.claim().timeout(Duration::ZERO).await
            })
            .await;
        }
        drop(tenant);
        let next = claim(&pool).await;
        assert_ne!(next.id(), id);
        assert_eq!(ok(next.exec(python(LOOK))).await.text(), "[]\n");
        until("a count", || pool.stats().resets == u64::from(resets)).await;
    }
    let both = describe(&blink).size(2).max(3).reset_on_release(true);
    let error = fails(ErrorKind::InvalidArgument, both.build()).await;
    assert!(error.message().contains("leave max 3 out"), "{error}");
}

/// Code runs the same in an interpreter that has waited for it.
#[tokio::test]
async fn an_interpreter_that_waits_becomes_the_code() {
    let blink = blink().await;
    let mut spec = spec();
    spec.env.push(("PYTHONWARNINGS".into(), "ignore".into()));
    let pool = full(blink.pool(spec).size(1).interpreter("python")).await;
    let code = |code: &str| Command::code("python", code).unwrap();
    let plain = ok(async { pool.claim().env("WHO", "me").await }).await;
    // Taken by the first: all others are started as usual.
    ok(plain.exec(code("pass"))).await;
    let programs = [
        code("import sys, os\nprint(sys.argv, __name__, sorted(globals()), os.getcwd(), os.environ['WHO'], os.environ['A'], sep='\\n')")
            .env("A", "1"),
        code("import sys\nprint(sys.stdin.read(), end='')\nprint('to stderr', file=sys.stderr)").stdin_bytes(&b"in\0\xff"[..]).env("PYTHONUTF8", "1"),
        code("import sys\nprint(repr(sys.stdin.buffer.read()))").stdin_bytes(&b"in\0\xff"[..]),
        code("def f():\n    raise ValueError('told')\nf()"),
        code("1 +"),
        code("import sys; sys.exit(7)"),
        code("import os, signal; os.kill(os.getpid(), signal.SIGTERM)"),
        code("import warnings; warnings.warn('none')"),
        code("import sys; sys.stdout.write('x' * 100000); sys.stdout.flush(); sys.stderr.write('y' * 10)").output_limit_bytes(1000),
        code("import os\nprint(os.getuid(), os.getcwd())").current_dir("/usr"),
    ];
    for (number, program) in programs.into_iter().enumerate() {
        let waits_on = [1, 9].contains(&number);
        let expected = ok(plain.exec(program.clone())).await;
        let claimed = ok(async { pool.claim().env("WHO", "me").await }).await;
        let output = ok(claimed.exec(program.clone())).await;
        assert_eq!(output.text(), expected.text(), "{program:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&expected.stderr)
        );
        assert_eq!(
            (output.status.code, output.status.signal),
            (expected.status.code, expected.status.signal)
        );
        assert_eq!(
            (output.stdout_bytes, output.stderr_bytes),
            (expected.stdout_bytes, expected.stderr_bytes)
        );
        // Nothing is kept of it; one that could not become the code waits on.
        let left = usize::from(waits_on);
        let begun = std::time::Instant::now();
        while ok(claimed.processes()).await.len() != left {
            assert!(begun.elapsed() < patience(), "{program:?}");
        }
    }
    // It has been there before it was claimed, and ends with all that it has started.
    let claimed = claim(&pool).await;
    let age = "import os, time\nstart = int(open('/proc/self/stat').read().rsplit(')', 1)[1].split()[19])\n\
               print(float(open('/proc/uptime').read().split()[0]) - start / os.sysconf('SC_CLK_TCK') > 0.2)";
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ok(claimed.exec(code(age))).await.text(), "True\n");
    assert_eq!(ok(claimed.exec(code(age))).await.text(), "False\n");
    let claimed = claim(&pool).await;
    let endless = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: os.execvp('sleep', ['sleep', '54321'])\n    os._exit(0)\n\
                   print('begun', flush=True)\ntime.sleep(1000)";
    let output = ok(claimed.exec(code(endless).timeout(Duration::from_millis(500)))).await;
    assert!(
        output.status.timed_out && output.text() == "begun\n",
        "{output:?}"
    );
    let left = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done | grep -c '^sleep 54321' || true";
    assert_eq!(says(&claimed, left).await, "0");
    let claimed = claim(&pool).await;
    let given_up = tokio::time::timeout(Duration::from_millis(300), claimed.exec(code(endless)));
    assert!(given_up.await.is_err());
    let begun = std::time::Instant::now();
    while says(&claimed, left).await != "0" {
        assert!(begun.elapsed() < patience());
    }
    let error = fails(
        ErrorKind::InvalidArgument,
        describe(&blink).interpreter("cobol").build(),
    )
    .await;
    assert!(error.message().contains("cobol"), "{error}");
}

#[tokio::test]
async fn another_network_is_a_boot_of_its_own() {
    let blink = blink().await;
    let pool = full(describe(&blink).warmup(Command::shell("echo warm > /srv/warm"))).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The name that a micro-VM's network has for the host.
    let host = match Engine::chosen() {
        Engine::Namespace => "127.0.0.1",
        Engine::Microvm => "192.168.127.254",
    };
    let reach = format!(
        "import socket; print(open('/srv/warm').read(), end=''); socket.create_connection(('{host}', {port}), 5)"
    );
    let reach = || Command::new("python3").args(["-c", &reach]);
    let with = ok(async { pool.claim().network(Network::Host).await }).await;
    let output = ok(with.exec(reach())).await;
    assert!(
        output.status.success() && output.text() == "warm\n",
        "{output:?}"
    );
    let without = claim(&pool).await;
    let output = ok(without.exec(reach())).await;
    assert!(
        !output.status.success() && output.text() == "warm\n",
        "{output:?}"
    );
}

#[tokio::test]
async fn a_claimed_sandbox_becomes_a_session_without_a_boot() {
    let blink = blink().await;
    let pool = full(describe(&blink).warmup(Command::shell("echo warm > /srv/warm"))).await;
    let claimed = pool.claim().env("A", "1").label("of", "pool");
    let session = ok(claimed.into_session("kept")).await;
    settles(&pool, 1).await;
    assert_eq!(pool.stats().boots, 2);
    let sandbox = ok(session.sandbox()).await;
    assert_eq!(
        says(&sandbox, "cat /srv/warm; echo $A; echo mine > /srv/own").await,
        "warm\n1"
    );
    assert_eq!(session.info().await.labels["of"], "pool");
    ok(session.checkpoint("first")).await;
    let fork = ok(session.fork("forked")).await;
    says(&sandbox, "echo later > /srv/own").await;
    let taken = fails(ErrorKind::AlreadyExists, pool.claim().into_session("kept")).await;
    assert!(taken.message().contains("kept"), "{taken}");
    fails(ErrorKind::InvalidArgument, pool.claim().into_session("a/b")).await;
    drop(sandbox);
    // It outlives its pool, and its machine.
    within(pool.close()).await;
    drop(pool);
    ok(session.stop()).await;
    let sandbox = ok(session.sandbox()).await;
    assert_eq!(
        says(&sandbox, "cat /srv/warm /srv/own; echo $A").await,
        "warm\nlater\n1"
    );
    let forked = ok(fork.sandbox()).await;
    assert_eq!(says(&forked, "cat /srv/warm /srv/own").await, "warm\nmine");
    assert_ne!(
        says(&forked, "cat /etc/machine-id").await,
        says(&sandbox, "cat /etc/machine-id").await
    );
    drop((sandbox, forked));
    ok(session.restore("first")).await;
    let sandbox = ok(session.sandbox()).await;
    assert_eq!(says(&sandbox, "cat /srv/own").await, "mine");
    drop(sandbox);
    ok(session.remove()).await;
    ok(fork.remove()).await;
    until("an empty home", || blink.folders().is_empty()).await;
}

#[tokio::test]
async fn each_sandbox_is_known_by_what_no_other_is() {
    let blink = blink().await;
    let pool = full(describe(&blink).size(4).warmup(Command::shell(
        "mkdir -p /var/lib/systemd; echo x > /var/lib/systemd/random-seed",
    )))
    .await;
    let mut seen: [HashSet<String>; 3] = Default::default();
    let claims = rounds(100);
    for _ in 0..claims {
        let sandbox = claim(&pool).await;
        let script = "cat /etc/machine-id /proc/sys/kernel/hostname; head -c 16 /dev/urandom | od -An -tx1 | tr -d '\\n'; echo
            [ ! -e /var/lib/systemd/random-seed ] && date +%s";
        let lines = says(&sandbox, script).await;
        let lines: Vec<_> = lines.lines().map(str::to_owned).collect();
        for (seen, line) in seen.iter_mut().zip(&lines) {
            assert!(seen.insert(line.clone()), "twice: {line}");
        }
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let clock: u64 = lines[3].parse().unwrap();
        assert!(now.as_secs().abs_diff(clock) <= 5, "{clock}");
    }
    assert_eq!(seen[0].len(), claims as usize);
}

#[tokio::test]
async fn claims_wait_for_their_time_and_no_longer() {
    let blink = blink().await;
    let pool = full(describe(&blink).max(1).when_empty(WhenEmpty::Wait)).await;
    let held = claim(&pool).await;
    let late = async { pool.claim().timeout(Duration::from_millis(100)).await };
    let error = fails(ErrorKind::Timeout, late).await;
    assert!(
        error.is_retryable() && error.message().contains("max"),
        "{error}"
    );
    fails(ErrorKind::Timeout, async {
        pool.claim().timeout(Duration::ZERO).await
    })
    .await;
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.claim().await }
    });
    until("a claim that waits", || pool.stats().waiting == 1).await;
    drop(held);
    let next = within(waiting).await.unwrap().unwrap();
    assert_eq!(says(&next, "echo works").await, "works");
    let stats = pool.stats();
    assert_eq!((stats.hits, stats.misses, stats.failed_claims), (1, 1, 2));
}

#[tokio::test]
async fn old_ones_are_replaced_and_none_is_kept_while_nobody_claims() {
    let blink = blink().await;
    let aging = full(describe(&blink).max_age(short())).await;
    until("a replacement", || {
        aging.stats().retired >= 1 && aging.stats().boots >= 2
    })
    .await;
    assert_eq!(aging.stats().deaths, 0);
    drop(aging);
    let resting = full(
        describe(&blink)
            .size(2)
            .max_idle(Duration::from_millis(500)),
    )
    .await;
    until("an empty pool", || resting.stats().idle == 0).await;
    let boots = resting.stats().boots;
    assert_eq!(resting.stats().booting, 0);
    let sandbox = claim(&resting).await;
    assert_eq!(says(&sandbox, "echo works").await, "works");
    assert!(resting.stats().boots > boots);
    assert_eq!(resting.stats().misses, 1);
}

#[tokio::test]
async fn a_closed_pool_hands_out_nothing_and_keeps_what_was_claimed() {
    let blink = blink().await;
    let pool = full(describe(&blink).max(1)).await;
    let sandbox = claim(&pool).await;
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.claim().await.map(drop) }
    });
    until("a claim that waits", || pool.stats().waiting == 1).await;
    within(pool.close()).await;
    let error = within(waiting).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.message().contains("closed"), "{error}");
    fails(ErrorKind::InvalidArgument, async { pool.claim().await }).await;
    fails(ErrorKind::InvalidArgument, pool.ready()).await;
    fails(ErrorKind::Timeout, pool.drain(Duration::from_millis(50))).await;
    drop(pool.clone());
    assert_eq!(says(&sandbox, "echo works").await, "works");
    let draining = tokio::spawn(async move { pool.drain(patience()).await });
    drop(sandbox);
    within(draining).await.unwrap().unwrap();
    until("an empty home", || blink.folders().is_empty()).await;
}

#[tokio::test]
async fn a_budget_is_shared_and_what_waits_makes_room() {
    let home = tempfile::tempdir().unwrap();
    let isolation = Engine::chosen().isolation();
    let builder = blink_core::Blink::builder()
        .home(home.path())
        .isolation(isolation);
    let blink = ok(builder.budget(None, 3).build()).await;
    let (one, other) = (
        full(blink.pool(spec()).size(2)).await,
        ok(blink.pool(spec()).size(2).build()).await,
    );
    until("a refused boot", || other.stats().refused > 0).await;
    assert_eq!((one.stats().idle, other.stats().idle), (2, 1));
    // What is asked for takes the place of what waits.
    let asked = ok(blink.sandbox().spec(spec()).create()).await;
    until("room", || one.stats().idle + other.stats().idle == 2).await;
    let claimed = [claim(&one).await, claim(&other).await];
    assert_eq!(says(&asked, "echo works").await, "works");
    let error = fails(
        ErrorKind::ResourceExhausted,
        blink.sandbox().spec(spec()).create(),
    )
    .await;
    assert!(error.message().contains("3 sandboxes"), "{error}");
    drop(claimed);
    ok(asked.remove()).await;
    drop(asked);
    until("full pools again", || {
        one.stats().idle + other.stats().idle == 3
    })
    .await;
    let error = fails(
        ErrorKind::InvalidArgument,
        blink_core::Blink::builder()
            .home(home.path())
            .budget(0, None)
            .build(),
    )
    .await;
    assert!(error.message().contains("budget of 0"), "{error}");
    drop((one, other));
    within(blink.settled()).await;
}

#[tokio::test]
async fn a_pool_that_is_given_up_leaves_nothing_and_ends_soon() {
    let blink = blink().await;
    let endless = || Command::new("sleep").arg("54321");
    let building = describe(&blink).warmup(endless()).build();
    assert!(tokio::time::timeout(short(), building).await.is_err());
    within(blink.settled()).await;
    assert!(blink.folders().is_empty());
    // What its members do is not waited for.
    let pool = ok(describe(&blink).size(2).prepare(endless()).build()).await;
    until("a boot", || !blink.folders().is_empty()).await;
    tokio::time::sleep(short()).await;
    within(pool.close()).await;
    within(blink.settled()).await;
    drop(pool);
    until("an empty home", || blink.folders().is_empty()).await;
}

#[tokio::test]
async fn what_no_pool_can_be_is_refused() {
    let blink = blink().await;
    let refused = |builder: PoolBuilder| async move {
        let error = fails(ErrorKind::InvalidArgument, builder.build()).await;
        error.message().to_owned()
    };
    assert!(refused(describe(&blink).size(0)).await.contains("size 0"));
    assert!(
        refused(describe(&blink).size(3).max(2))
            .await
            .contains("max 3")
    );
    assert!(
        refused(describe(&blink).refill(0))
            .await
            .contains("0 sandboxes at once")
    );
    assert!(
        refused(describe(&blink).max_age(Duration::ZERO))
            .await
            .contains("max_age")
    );
    assert!(
        refused(describe(&blink).max_idle(Duration::ZERO))
            .await
            .contains("max_idle")
    );
    let mut named = spec();
    named.hostname = Some("same".into());
    assert!(refused(blink.pool(named)).await.contains("host name"));
    let mut published = spec();
    published.publish.push(PublishedPort::new(0, 80));
    assert!(
        refused(blink.pool(published))
            .await
            .contains("published ports")
    );
    let pool = ok(describe(&blink).build()).await;
    let more = async { pool.claim().memory_mib(1 << 30).await };
    assert!(
        fails(ErrorKind::InvalidArgument, more)
            .await
            .message()
            .contains("more than")
    );
    let wrong = async { pool.claim().hostname("a b").await };
    fails(ErrorKind::InvalidArgument, wrong).await;
    let mut warm = spec();
    warm.warm = Some(true);
    let pool = ok(blink.pool(warm).build()).await;
    let error = fails(
        ErrorKind::InvalidArgument,
        pool.claim().into_session("warm"),
    )
    .await;
    assert!(error.message().contains("warm"), "{error}");
}

/// What a process does that is killed: it claims sandboxes, and names one of them.
pub(crate) async fn keep(home: &std::path::Path) {
    let blink = crate::support::blink_in(home).await;
    let warmup = Command::shell("echo warm > /srv/warm");
    let pool = full(blink.pool(spec()).size(3).warmup(warmup)).await;
    let name = std::env::var("BLINK_TEST_NAME").unwrap();
    let session = ok(pool.claim().into_session(name)).await;
    std::fs::write(home.join("named"), "").unwrap();
    for round in 0_u32.. {
        let sandbox = claim(&pool).await;
        if round % 2 == 0 {
            says(&sandbox, "echo works > /tmp/file").await;
        }
    }
    drop(session);
}

/// What a process does that keeps a pool for others.
pub(crate) async fn share(home: &std::path::Path) {
    let blink = crate::support::blink_in(home).await;
    let warmup = Command::shell("echo warm > /srv/warm");
    let mut spec = spec();
    spec.env.push(("OF".into(), "pool".into()));
    let builder = blink.pool(spec).name("shared").shared(true).size(2);
    let pool = full(builder.warmup(warmup)).await;
    println!("ready .");
    pool.closed().await;
}

mod needs_host_kernel_and_shared_home {
    use super::*;

    #[tokio::test]
    async fn a_claimant_that_goes_away_waits_no_longer() {
        require(Capability::SharedHome);
        let blink = blink().await;
        let builder = blink.pool(spec()).name("left").shared(true);
        let pool = full(builder.size(1).max(1)).await;
        let shared = ok(blink.open_pool("left")).await;
        let held = ok(async { pool.claim().await }).await;
        let waiting = tokio::spawn(shared.claim().timeout(patience() * 2).into_future());
        until("a claim that waits", || pool.stats().waiting == 1).await;
        waiting.abort();
        until("nobody that waits", || pool.stats().waiting == 0).await;
        drop(held);
        let sandbox = ok(async { pool.claim().await }).await;
        assert_eq!(says(&sandbox, "echo here").await, "here");
        drop(sandbox);
        ok(pool.drain(patience())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn other_processes_claim_from_a_pool_by_its_name() {
        require(Capability::SharedHome);
        let blink = blink().await;
        let missing = fails(ErrorKind::NotFound, blink.open_pool("shared")).await;
        assert!(missing.message().contains("shared"), "{missing}");
        fails(ErrorKind::InvalidArgument, blink.open_pool("../x")).await;
        let (mut owner, _) = child::start("share a pool", blink.home());
        let pool = ok(blink.open_pool("shared")).await;
        let known = blink.pools().await;
        assert_eq!(known[0].name.as_deref(), Some("shared"));
        let again = blink.pool(spec()).name("shared").shared(true);
        fails(ErrorKind::AlreadyExists, again.build()).await;

        let claimed = pool
            .claim()
            .env("TASK", "7")
            .publish(PublishedPort::new(0, 80));
        let sandbox = ok(async { claimed.await }).await;
        assert_eq!(
            says(&sandbox, "cat /srv/warm; echo $OF $TASK").await,
            "warm\npool 7"
        );
        assert_eq!(sandbox.published().len(), 1);
        assert_eq!(ok(pool.stats()).await.hits, 1);
        let folder = blink.home().join("sandboxes").join(sandbox.id());
        drop(sandbox);
        until("its end", || !folder.exists()).await;
        let session = ok(pool.claim().into_session("named")).await;
        assert_eq!(
            says(&*ok(session.sandbox()).await, "cat /srv/warm").await,
            "warm"
        );
        let wrong = async { pool.claim().hostname("a b").await };
        fails(ErrorKind::InvalidArgument, wrong).await;

        // Several at once, each its own.
        let mut seen = HashSet::new();
        let mut claims = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let pool = pool.clone();
            claims.spawn(async move { ok(async { pool.claim().await }).await.id().to_owned() });
        }
        while let Some(id) = claims.join_next().await {
            assert!(seen.insert(id.unwrap()));
        }

        // What was claimed stays where the owner is killed, and a start does not take it for left over.
        let kept = ok(async { pool.claim().await }).await;
        owner.kill().unwrap();
        owner.wait().unwrap();
        let other = crate::support::blink_in(blink.home()).await;
        assert_eq!(says(&kept, "cat /srv/warm").await, "warm");
        assert_eq!(
            says(&*ok(session.sandbox()).await, "cat /srv/warm").await,
            "warm"
        );
        fails(ErrorKind::NotFound, async { pool.claim().await }).await;
        assert!(blink.pools().await.is_empty());
        let folder = blink.home().join("sandboxes").join(kept.id());
        drop(kept);
        until("its end", || !folder.exists()).await;
        ok(session.remove()).await;

        // Another takes its place, and ends as it is told.
        let (mut owner, _) = child::start("share a pool", blink.home());
        assert_eq!(
            says(&ok(async { pool.claim().await }).await, "cat /srv/warm").await,
            "warm"
        );
        ok(pool.drain(patience())).await;
        assert!(owner.wait().unwrap().success());
        drop(other);
        let last = crate::support::blink_in(blink.home()).await;
        until("an empty home", || blink.folders().is_empty()).await;
        assert!(
            std::fs::read_dir(blink.home().join("pools"))
                .unwrap()
                .next()
                .is_none()
        );
        drop(last);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_killed_claimant_had_is_removed_by_the_owner() {
        require(Capability::SharedHome);
        let blink = blink().await;
        let builder = blink.pool(spec()).name("shared").shared(true).size(2);
        let pool = full(builder).await;
        let (mut claimant, _) = child::start("claim from a pool", blink.home());
        assert_eq!(pool.stats().claimed, 1);
        claimant.kill().unwrap();
        claimant.wait().unwrap();
        until("its end", || pool.stats().claimed == 0).await;
        settles(&pool, 2).await;
        assert_eq!(blink.folders().len(), 3);
    }
}

/// What a process does that is killed while it has a sandbox of another's pool.
pub(crate) async fn claim_another(home: &std::path::Path) {
    let blink = crate::support::blink_in(home).await;
    let pool = ok(blink.open_pool("shared")).await;
    let sandbox = ok(async { pool.claim().await }).await;
    says(&sandbox, "echo works").await;
    println!("ready .");
    std::future::pending::<()>().await;
}

mod needs_shared_home {
    use super::*;

    /// Whoever has the pool is killed: nothing is left, and what was named is whole.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_killed_owner_leaves_nothing_but_sessions() {
        require(Capability::SharedHome);
        let blink = blink().await;
        for round in 0..10_u32 {
            let mut owner =
                tokio::process::Command::from(child::command("keep a pool", blink.home()))
                    .env("BLINK_TEST_NAME", format!("named-{round}"))
                    .kill_on_drop(true)
                    .spawn()
                    .unwrap();
            let named = blink.home().join("named");
            until("a session of the pool", || named.exists()).await;
            tokio::time::sleep(Duration::from_millis(u64::from(round) * 7)).await;
            owner.kill().await.unwrap();
            std::fs::remove_file(&named).unwrap();
            let again = crate::support::blink_in(blink.home()).await;
            let session = ok(again.take_session(&format!("named-{round}"), patience())).await;
            let sandbox = ok(session.sandbox()).await;
            assert_eq!(says(&sandbox, "cat /srv/warm").await, "warm");
            drop(sandbox);
            ok(session.remove()).await;
            // The next start collects all that is left.
            let last = crate::support::blink_in(blink.home()).await;
            until("an empty home", || {
                crate::support::folders(blink.home()).is_empty()
            })
            .await;
            drop((again, last));
        }
        let last = crate::support::blink_in(blink.home()).await;
        ok(last.prune_sessions()).await;
        let layers = std::fs::read_dir(blink.home().join("layers"))
            .unwrap()
            .flatten();
        let layers: Vec<_> = layers
            .map(|entry| entry.file_name())
            .filter(|name| !name.to_string_lossy().starts_with('.'))
            .collect();
        assert!(layers.is_empty(), "{layers:?}");
    }
}

/// What a process does that is killed after it has made something with a key.
pub(crate) async fn make_with_key(home: &std::path::Path) {
    let blink = crate::support::blink_in(home).await;
    let sandbox = ok(crate::support::describe_in(&blink)
        .detached()
        .key("task-7")
        .create())
    .await;
    says(&sandbox, "echo first > /tmp/made").await;
    println!("ready {}", sandbox.id());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn what_a_key_has_made_is_made_once() {
    let blink = blink().await;
    let make = || describe_in(&blink).key("task-1");
    let first = ok(make().create()).await;
    let error = fails(ErrorKind::Busy, make().create()).await;
    assert!(error.message().contains(first.id()), "{error}");
    assert!(error.holders()[0].pid.is_some(), "{error:?}");
    fails(
        ErrorKind::InvalidArgument,
        make().env("A", "other").create(),
    )
    .await;
    fails(
        ErrorKind::InvalidArgument,
        describe_in(&blink).key("").create(),
    )
    .await;
    fails(
        ErrorKind::InvalidArgument,
        describe_in(&blink).key("k".repeat(257)).create(),
    )
    .await;
    ok(first.remove()).await;
    drop(first);
    // What is gone can be made again.
    let again = ok(make().create()).await;
    drop(again);

    let pool = full(describe(&blink).name("keyed").size(2)).await;
    let claimed = ok(async { pool.claim().key("claim-1").await }).await;
    let twice = async { pool.claim().key("claim-1").await };
    let error = fails(ErrorKind::Busy, twice).await;
    assert!(error.message().contains(claimed.id()), "{error}");
    let other = ok(async { pool.claim().key("claim-2").await }).await;
    assert_ne!(other.id(), claimed.id());
    let named = ok(pool.claim().key("name-1").into_session("named")).await;
    let again = ok(pool.claim().key("name-1").into_session("named")).await;
    assert_eq!(named.id(), again.id());
    fails(
        ErrorKind::InvalidArgument,
        pool.claim().key("name-1").into_session("other"),
    )
    .await;
    let taken = pool.claim().key("name-2").into_session("named");
    fails(ErrorKind::AlreadyExists, taken).await;
    drop(again);
    ok(named.remove()).await;
    // Several at once with one key: one of them makes it.
    let claims = (0..4).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move { pool.claim().key("at-once").await })
    });
    let mut made = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        match within(claim).await.unwrap() {
            Ok(sandbox) => made.push(sandbox),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}"),
        }
    }
    assert_eq!(made.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_key_has_made_is_found_again_after_a_crash() {
    let blink = blink().await;
    let (mut owner, id) = child::start("make with a key", blink.home());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let make = || describe_in(&blink).detached().key("task-7");
    let sandbox = ok(make().create()).await;
    assert_eq!(sandbox.id(), id.trim());
    assert_eq!(says(&sandbox, "cat /tmp/made").await, "first");
    assert_eq!(blink.sandboxes().len(), 1);
    ok(sandbox.remove()).await;
    drop(sandbox);
    let other = ok(make().create()).await;
    assert_ne!(other.id(), id.trim());
    ok(other.remove()).await;
}
