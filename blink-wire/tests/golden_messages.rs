//! The messages in `golden.json`: the same bytes in every language.

use std::collections::BTreeMap;

use blink_wire::{
    Address, Attach, Attached, ErrorBody, ErrorKind, ExitReport, FileInfo, FileKind, Hello,
    Message, PathOptions, Peeked, ProcessId, Request, Response, Signal, Spawn, Trailer, TtySize,
    Write,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    messages: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    hex: String,
}

fn check<M: Message + PartialEq + std::fmt::Debug>(
    golden: &mut BTreeMap<String, Vec<u8>>,
    name: &str,
    message: M,
) {
    let bytes = golden.remove(name).unwrap_or_default();
    let encoded = message.to_body();
    let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(encoded, bytes, "{name} is {hex}");
    assert_eq!(M::from_body(&bytes), Ok(message), "{name}");
}

#[test]
fn messages_are_the_golden_bytes() {
    let golden: Golden = serde_json::from_str(include_str!("golden.json")).unwrap();
    let decode = |hex: &str| {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let mut golden: BTreeMap<String, Vec<u8>> = golden
        .messages
        .into_iter()
        .map(|vector| (vector.name, decode(&vector.hex)))
        .collect();
    let golden = &mut golden;

    let hello = Hello {
        protocol: 1,
        program: "blink 0.1.0".into(),
        capabilities: Vec::new(),
        boot_id: String::new(),
    };
    check(golden, "hello", hello);
    check(golden, "ping", Request::Ping);
    let spawn = Spawn {
        argv: vec![b"echo".to_vec().into(), b"\xff\x00".to_vec().into()],
        env: vec![(b"A".to_vec().into(), b"1".to_vec().into())],
        current_dir: Some(b"/tmp".to_vec().into()),
        user: Some("1000:100".into()),
        pty: Some(TtySize { rows: 24, cols: 80 }),
        stdin: true,
        timeout_ms: Some(1500),
        output_limit_bytes: None,
        keep: true,
        key: Some("once".into()),
    };
    check(golden, "spawn", Request::Spawn(spawn));
    let attach = Attach {
        process: ProcessId(7),
        stdout_offset: 1 << 33,
        stderr_offset: 0,
    };
    check(golden, "attach", Request::Attach(attach.clone()));
    check(golden, "peek", Request::Peek(attach));
    check(golden, "wait", Request::Wait(ProcessId(7)));
    check(
        golden,
        "signal-tree",
        Request::Signal(Signal {
            process: ProcessId(7),
            signal: 15,
            tree: true,
        }),
    );
    check(golden, "release", Request::Release(ProcessId(7)));
    check(
        golden,
        "stat",
        Request::Stat(PathOptions {
            path: b"/etc".to_vec().into(),
            follow: true,
            owner: None,
        }),
    );
    let write = Write {
        path: b"/a".to_vec().into(),
        mode: Some(0o644),
        append: false,
        user: None,
        owner: None,
    };
    check(golden, "write", Request::Write(write));
    check(
        golden,
        "connect-tcp",
        Request::Connect(Address::Tcp("localhost".into(), 8080)),
    );
    check(
        golden,
        "connect-unix",
        Request::Connect(Address::Unix(b"/run/x".to_vec().into())),
    );
    check(golden, "done", Response::Done);
    let attached = Attached {
        process: ProcessId(7),
        pid: 42,
        stdout_offset: 0,
        stderr_offset: 9,
    };
    check(golden, "attached", Response::Attached(attached));
    let peeked = Peeked {
        stdout_offset: 3,
        stdout: b"\xff\n".to_vec().into(),
        stderr_offset: 0,
        stderr: Vec::new().into(),
    };
    check(golden, "peeked", Response::Peeked(peeked));
    let info = FileInfo {
        kind: FileKind::Symlink,
        size: 5,
        mode: 0o777,
        uid: 0,
        gid: 65534,
        modified_ns: -1,
        target: Some(b"other".to_vec().into()),
    };
    check(golden, "stat-symlink", Response::Stat(info));
    let exit = ExitReport {
        code: None,
        signal: Some(9),
        timed_out: true,
        limit: None,
        reason: None,
        stdout_bytes: 12,
        stderr_bytes: 0,
        duration_us: 1_500_000,
    };
    check(golden, "exit-timed-out", exit.clone());
    check(golden, "ended", Response::Ended(exit));
    check(
        golden,
        "trailer",
        Trailer {
            bytes: 9,
            crc32: 0xcbf4_3926,
        },
    );
    check(
        golden,
        "error",
        ErrorBody::new(ErrorKind::NotFound, "no such file"),
    );
    check(
        golden,
        "error-errno",
        ErrorBody::of_errno(2, "no such file"),
    );
    check(
        golden,
        "error-precise-kind",
        ErrorBody::of_errno(39, "not empty"),
    );
    assert!(
        golden.is_empty(),
        "messages that no test knows: {:?}",
        golden.keys()
    );
}
