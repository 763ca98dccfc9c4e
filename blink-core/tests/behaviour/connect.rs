//! Connections into a sandbox.

use blink_core::{Connection, ErrorKind, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{TestSandbox, fails, noise, ok, python, sandbox, within};

const ECHO: &str = "import socket, sys, threading
def serve(c):
  while True:
    b = c.recv(65536)
    if not b: break
    c.sendall(b)
  c.sendall(b'bye')
  c.close()
s = SOCKET
s.listen(100)
print('ready', flush=True)
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";

async fn serve(sandbox: &TestSandbox, socket: &str) -> Process {
    let mut process = ok(sandbox.spawn(python(&ECHO.replace("SOCKET", socket)))).await;
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"ready\n");
    process
}

async fn talk(connection: Connection, length: usize) {
    let (mut reader, mut writer) = tokio::io::split(connection);
    let sent = noise(length);
    let expected = sent.clone();
    let writing = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
        assert!(writer.write_all(b"more").await.is_err());
    };
    let reading = async {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        got
    };
    let ((), got) = within(async { tokio::join!(writing, reading) }).await;
    // What comes after the half that was closed arrives as well.
    assert!(got.strip_suffix(b"bye").unwrap() == expected);
}

#[tokio::test]
async fn tcp_carries_both_directions_and_half_closes() {
    let sandbox = sandbox().await;
    let _server = serve(&sandbox, "socket.create_server(('127.0.0.1', 4242))").await;
    talk(ok(sandbox.connect_tcp("127.0.0.1", 4242)).await, 10 << 20).await;
    talk(ok(sandbox.connect_tcp("localhost", 4242)).await, 0).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let connection = ok(sandbox.connect_tcp("127.0.0.1", 4242)).await;
        tasks.spawn(talk(connection, number * 10_000));
    }
    within(tasks.join_all()).await;
}

#[tokio::test]
async fn tcp_version_6_works_and_localhost_means_both() {
    let sandbox = sandbox().await;
    let _server = serve(
        &sandbox,
        "socket.create_server(('::1', 4243), family=socket.AF_INET6)",
    )
    .await;
    talk(ok(sandbox.connect_tcp("::1", 4243)).await, 1000).await;
    talk(ok(sandbox.connect_tcp("localhost", 4243)).await, 1000).await;
}

#[tokio::test]
async fn unix_sockets_carry_both_directions() {
    let sandbox = sandbox().await;
    let socket = "socket.socket(socket.AF_UNIX); s.bind('/tmp/sock')";
    let _server = serve(&sandbox, socket).await;
    talk(ok(sandbox.connect_unix("/tmp/sock")).await, 10 << 20).await;
}

#[tokio::test]
async fn where_nothing_answers_is_not_found() {
    let sandbox = sandbox().await;
    fails(ErrorKind::NotFound, sandbox.connect_tcp("127.0.0.1", 9)).await;
    fails(ErrorKind::NotFound, sandbox.connect_tcp("localhost", 9)).await;
    fails(ErrorKind::NotFound, sandbox.connect_unix("/tmp/missing")).await;
    fails(ErrorKind::NotFound, sandbox.connect_unix("/etc/passwd")).await;
    // Out of the sandbox leads nothing.
    fails(ErrorKind::NotFound, sandbox.connect_tcp("192.0.2.1", 80)).await;
}

#[tokio::test]
async fn names_and_nonsense_are_refused() {
    let sandbox = sandbox().await;
    for host in ["example.com", "", "127.0.0.1:80", "127.1.1.1.1", "a\0b"] {
        fails(ErrorKind::InvalidArgument, sandbox.connect_tcp(host, 80)).await;
    }
    fails(
        ErrorKind::NameTooLong,
        sandbox.connect_unix("/x".repeat(100)),
    )
    .await;
    fails(
        ErrorKind::InvalidArgument,
        sandbox.connect_unix("/tmp/a\0b"),
    )
    .await;
    ok(sandbox.ping()).await;
}

#[tokio::test]
async fn a_connection_whose_other_end_has_closed_takes_no_more() {
    let sandbox = sandbox().await;
    let hang_up = "import socket\ns = socket.create_server(('127.0.0.1', 4245))\nprint('ready', flush=True)\n\
                   while True:\n  c, _ = s.accept()\n  c.recv(1)\n  c.sendall(b'bye')\n  c.close()";
    let mut server = ok(sandbox.spawn(python(hang_up))).await;
    let mut stdout = server.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"ready\n");
    let connection = ok(sandbox.connect_tcp("127.0.0.1", 4245)).await;
    let (mut reader, mut writer) = tokio::io::split(connection);
    within(writer.write_all(b"x")).await.unwrap();
    let mut got = Vec::new();
    within(reader.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"bye");
    let failed = within(async {
        loop {
            if let Err(error) = writer.write_all(&[0; 4096]).await {
                return error;
            }
        }
    })
    .await;
    assert_eq!(failed.kind(), std::io::ErrorKind::BrokenPipe, "{failed}");
}

#[tokio::test]
async fn a_connection_that_nobody_reads_holds_back_nobody_else() {
    let sandbox = sandbox().await;
    let flood = "import socket\ns = socket.create_server(('127.0.0.1', 4244))\nprint('ready', flush=True)\n\
                 c, _ = s.accept()\ntry:\n  while True: c.sendall(b'x' * 65536)\nexcept OSError: print('closed', flush=True)";
    let mut server = ok(sandbox.spawn(python(flood))).await;
    let mut stdout = server.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"ready\n");
    let connection = ok(sandbox.connect_tcp("127.0.0.1", 4244)).await;
    for _ in 0..50 {
        sandbox.says("true").await;
    }
    // Dropped, it is closed for the other end.
    drop(connection);
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"closed\n");
    assert!(ok(server.wait()).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_as_good_as_the_connection() {
    use std::io::{Read, Write};
    let sandbox = sandbox().await;
    let server = serve(&sandbox, "socket.create_server(('127.0.0.1', 4246))").await;
    let connect = || ok(sandbox.connect_tcp("127.0.0.1", 4246));
    let mut socket = connect().await.into_socket().unwrap();
    let talking = tokio::task::spawn_blocking(move || {
        let sent = noise(10 << 20);
        let (mut writer, expected) = (socket.try_clone().unwrap(), sent.clone());
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        socket.read_to_end(&mut got).unwrap();
        writing.join().unwrap();
        assert!(got.strip_suffix(b"bye").unwrap() == expected);
    });
    within(talking).await.unwrap();

    // Closed at once: what was written arrives.
    let keep = "import socket\ns = socket.create_server(('127.0.0.1', 4247))\nprint('ready', flush=True)\n\
                c, _ = s.accept()\nprint(c.makefile().read(), flush=True)";
    let mut process = ok(sandbox.spawn(python(keep))).await;
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"ready\n");
    let connection = ok(sandbox.connect_tcp("127.0.0.1", 4247)).await;
    let mut socket = connection.into_socket().unwrap();
    socket.write_all(b"last words").unwrap();
    drop(socket);
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"last words\n");

    // The peer is gone: first its end comes, and then nothing is taken any more.
    let mut socket = connect().await.into_socket().unwrap();
    ok(server.kill()).await;
    let refused = tokio::task::spawn_blocking(move || refused(&mut socket));
    let error = within(refused).await.unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");
}

/// Writes until nothing is taken any more.
fn refused(socket: &mut impl std::io::Write) -> std::io::Error {
    loop {
        if let Err(error) = socket.write_all(&[0; 4096]) {
            return error;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_whose_peer_dies_is_at_its_end_and_not_reset() {
    use std::io::Read;
    let sandbox = sandbox().await;
    // It reads nothing, so that what is written stands in the socket when it dies.
    let deaf = "import socket\ns = socket.create_server(('127.0.0.1', 4248))\nprint('ready', flush=True)\n\
                c, _ = s.accept()\nc.sendall(b'hello')\ninput()";
    let mut process = ok(sandbox.spawn(python(deaf))).await;
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"ready\n");
    let connection = ok(sandbox.connect_tcp("127.0.0.1", 4248)).await;
    let mut socket = connection.into_socket().unwrap();
    let mut writing = socket.try_clone().unwrap();
    let writing = tokio::task::spawn_blocking(move || refused(&mut writing));
    let reading = tokio::task::spawn_blocking(move || {
        let mut greeting = [0; 5];
        socket.read_exact(&mut greeting).unwrap();
        (greeting, socket)
    });
    let (greeting, mut socket) = within(reading).await.unwrap();
    assert_eq!(&greeting, b"hello");
    ok(process.kill()).await;
    let error = within(writing).await.unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");
    let reading = tokio::task::spawn_blocking(move || {
        let mut rest = Vec::new();
        (socket.read_to_end(&mut rest).map(drop), rest)
    });
    let (end, rest) = within(reading).await.unwrap();
    assert!(end.is_ok() && rest.is_empty(), "{end:?} {rest:?}");
}
