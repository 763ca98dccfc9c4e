//! Databases, which mind how a disk behaves.

use std::time::Duration;

use blink_core::{Command, PublishedPort};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::inside::Inside as _;
use crate::support::{Workplace, blink, ok, program, said};

/// Where Debian has its programs.
const POSTGRESQL: &str = "PATH=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1):$PATH";

#[tokio::test]
async fn postgresql_is_reached_through_a_published_port() {
    program("psql", "postgresql");
    if !rustix::process::geteuid().is_root() {
        // It refuses to run as root, and an ordinary user's sandbox has nobody else.
        return;
    }
    let place = Workplace::with(|builder| builder.publish(PublishedPort::new(0, 5432))).await;
    let script = format!(
        "useradd --create-home pg && su pg -c '{POSTGRESQL}; cd; initdb -D data -A trust >/dev/null \
         && pg_ctl -D data -w -o \"-k /tmp -h 0.0.0.0\" -l log start >/dev/null \
         && psql -h /tmp -d postgres -Atc \"create table t(x int); insert into t select generate_series(1, 1000); select sum(x) from t\"'"
    );
    assert!(place.says(&script).await.ends_with("500500"));
    // A start-up message without TLS, answered by a request for no password: `R`.
    let port = place.published()[0].host.port();
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let parameters = b"user\0pg\0database\0postgres\0\0";
    let mut message = u32::try_from(8 + parameters.len())
        .unwrap()
        .to_be_bytes()
        .to_vec();
    message.extend_from_slice(&196_608_u32.to_be_bytes());
    message.extend_from_slice(parameters);
    client.write_all(&message).await.unwrap();
    let mut answer = [0; 9];
    let answered = tokio::time::timeout(Duration::from_secs(60), client.read_exact(&mut answer));
    answered.await.unwrap().unwrap();
    assert_eq!(&answer, b"R\0\0\0\x08\0\0\0\0");
    assert_eq!(
        place
            .says(&format!(
                "su pg -c '{POSTGRESQL}; cd; pg_ctl -D data -m fast -w stop' | tail -n 1"
            ))
            .await,
        "server stopped"
    );
}

#[tokio::test]
async fn sqlite_writes_while_checkpoints_are_made() {
    program("sqlite3", "sqlite3");
    let (blink, _home) = blink().await;
    let session = ok(blink.session("work").memory_mib(512).open()).await;
    let script = "import sqlite3, time\n\
                  base = sqlite3.connect('/srv/base', isolation_level=None)\n\
                  base.execute('pragma journal_mode=wal'); base.execute('create table t(n integer)')\n\
                  for n in range(100000): base.execute('insert into t values(?)', (n,))";
    let writer = ok(session.spawn(Command::new("/usr/bin/python3").args(["-c", script]))).await;
    for number in 0..5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ok(session.checkpoint(&format!("c{number}"))).await;
    }
    ok(writer.kill()).await;
    for number in 0..5 {
        let fork = ok(session.fork_from(&format!("c{number}"), &format!("f{number}"))).await;
        let check = "import os, sqlite3\n\
                     if os.path.exists('/srv/base'):\n\
                     \x20   base = sqlite3.connect('/srv/base')\n\
                     \x20   assert base.execute('pragma integrity_check').fetchone() == ('ok',)\n\
                     \x20   if base.execute(\"select count(*) from sqlite_master\").fetchone() == (1,):\n\
                     \x20       count, highest = base.execute('select count(*), coalesce(max(n), -1) from t').fetchone()\n\
                     \x20       assert count == highest + 1, (count, highest)\n\
                     print('whole')";
        let output = ok(fork.exec(Command::new("/usr/bin/python3").args(["-c", check]))).await;
        assert_eq!(said(check, &output), "whole");
        ok(fork.remove()).await;
    }
    ok(session.remove()).await;
}
