//! Programs that will not stand still while their session's disk is copied.

use std::fs;

use blink_core::{CheckpointOptions, Command, Consistency, ErrorKind};

use crate::inside::Inside as _;
use crate::support::{blink, ok, within};

/// Lets everybody go on who was stopped, as fast as it can.
const REVIVE: &str = "
import os, signal
while True:
    try: os.kill(-1, signal.SIGCONT)
    except OSError: pass
";

/// Writes each number to one file and then to another.
const COUNT: &str = "
import os
first, second = (os.open(f'/var/blink/memory/{name}', os.O_CREAT | os.O_WRONLY) for name in ('first', 'second'))
number = 0
while True:
    number += 1
    text = b'%020d' % number
    os.pwrite(first, text, 0)
    os.pwrite(second, text, 0)
";

/// Exchanges a folder and a link to one of the host's.
const EXCHANGE: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None)
os.chdir('/var/blink/memory')
os.makedirs('folder', exist_ok=True)
open('folder/key', 'w').write('its own')
os.symlink(sys.argv[1], 'link')
while True: libc.syscall(316, -100, b'folder', -100, b'link', 2)
";

#[cfg(target_arch = "x86_64")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_says_frozen_only_where_everything_stood_still() {
    let blink = blink().await;
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("key"), "the host's").unwrap();
    let session = ok(blink.session("restless").open()).await;
    let python = |script: &str| Command::new("python3").args(["-c", script]);
    for _ in 0..6 {
        ok(session.spawn(python(REVIVE))).await;
    }
    ok(session.spawn(python(COUNT))).await;
    let target = secret.path().to_str().unwrap();
    ok(session.spawn(python(EXCHANGE).arg(target))).await;
    let wait = "until [ -s /var/blink/memory/second ] && [ -e /var/blink/memory/link ]; do sleep 0.01; done";
    ok(session.exec(Command::shell(wait))).await;

    let mut frozen = 0;
    for number in 0..6 {
        let name = format!("c{number}");
        let options = CheckpointOptions::default();
        let made = match number % 2 {
            0 => within(session.checkpoint_with(&name, options.require_frozen())).await,
            _ => within(session.checkpoint_with(&name, options)).await,
        };
        let worth = match made {
            Ok(made) => made.consistency,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
                assert_eq!(number % 2, 0, "{error:?}");
                continue;
            }
        };
        let fork = ok(session.fork_from(&name, format!("f{number}"))).await;
        let look = "cd /var/blink/memory; cat first; echo; cat second; echo; cat folder/key link/key 2>/dev/null";
        let found = ok(fork.exec(Command::shell(look)))
            .await
            .text()
            .into_owned();
        let mut lines = found.lines();
        let mut number = || lines.next().unwrap().parse::<u64>().unwrap();
        let (first, second) = (number(), number());
        if worth == Consistency::Frozen {
            frozen += 1;
            assert!(first == second || first == second + 1, "{first} {second}");
        }
        assert!(!found.contains("the host's"), "{found}");
        ok(fork.remove()).await;
    }
    assert!(frozen > 0, "nothing was ever frozen");
    ok(session.remove()).await;
}
