//! Published ports.

use std::io::ErrorKind as Io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use blink_core::{Command, ErrorKind, Network, Process, PublishedPort, Sandbox};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Engine, blink, fails, host_pid, kill, noise, ok, python, sandbox_with, until, within,
};

const PORT: u16 = 8000;

/// Sends everything back, and `bye` behind it.
const ECHO: &str = "import socket, threading
def serve(c):
  with c:
    while b := c.recv(65536): c.sendall(b)
    c.sendall(b'bye')
s = socket.create_server(('127.0.0.1', 8000), backlog=1000)
print('ready', flush=True)
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";

/// Starts a server in a sandbox; it listens.
async fn serve(sandbox: &Sandbox, program: &str) -> Process {
    let mut process = ok(sandbox.spawn(python(program).key("server"))).await;
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"ready\n");
    process
}

async fn connect(address: SocketAddr) -> TcpStream {
    within(TcpStream::connect(address)).await.unwrap()
}

async fn echoes(address: SocketAddr, length: usize) {
    let (mut reader, mut writer) = connect(address).await.into_split();
    let sent = noise(length);
    let expected = sent.clone();
    let writing = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
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

/// A port that is free, and that nobody gets who asks for any, nor another test.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = first + TAKEN.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

#[tokio::test]
async fn a_published_port_carries_both_directions_and_half_closes() {
    let sandbox = sandbox_with(|builder| builder.publish(PublishedPort::new(0, PORT))).await;
    let _server = serve(&sandbox, ECHO).await;
    let address = sandbox.published()[0].host;
    echoes(address, 10 << 20).await;
    echoes(address, 0).await;
    echoes(address, 1).await;
}

#[tokio::test]
async fn what_a_client_sends_after_the_answers_end_arrives() {
    let sandbox = sandbox_with(|builder| builder.publish(PublishedPort::new(0, PORT))).await;
    let program = "import socket\ns = socket.create_server(('127.0.0.1', 8000))\nprint('ready', flush=True)\n\
                   c, _ = s.accept()\nc.sendall(b'answer')\nc.shutdown(socket.SHUT_WR)\nn = 0\n\
                   while b := c.recv(65536): n += len(b)\nprint(n, flush=True)";
    let mut server = ok(sandbox.spawn(python(program))).await;
    let mut stdout = server.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"ready\n");
    let mut client = connect(sandbox.published()[0].host).await;
    let mut got = Vec::new();
    within(client.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"answer");
    within(client.write_all(&noise(3 << 20))).await.unwrap();
    within(client.shutdown()).await.unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"3145728\n");
}

#[tokio::test]
async fn a_server_that_hangs_up_ends_what_a_client_still_sends() {
    let sandbox = sandbox_with(|builder| builder.publish(PublishedPort::new(0, PORT))).await;
    let program = "import socket\ns = socket.create_server(('127.0.0.1', 8000))\nprint('ready', flush=True)\n\
                   while True:\n  c, _ = s.accept()\n  c.recv(1)\n  c.close()";
    let _server = serve(&sandbox, program).await;
    let mut client = connect(sandbox.published()[0].host).await;
    within(async { while client.write_all(&[0; 65536]).await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_back_nobody_else() {
    let sandbox = sandbox_with(|builder| builder.publish(PublishedPort::new(0, PORT))).await;
    let program = "import socket\ns = socket.create_server(('127.0.0.1', 8000))\nprint('ready', flush=True)\n\
                   c, _ = s.accept()\nn = 0\ntry:\n  while True: n += c.send(b'x' * 65536)\n\
                   except OSError: print('closed', flush=True)";
    let mut server = ok(sandbox.spawn(python(program))).await;
    let mut stdout = server.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"ready\n");
    let client = connect(sandbox.published()[0].host).await;
    for _ in 0..20 {
        sandbox.says("true").await;
    }
    drop(client);
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"closed\n");
}

#[tokio::test]
async fn any_free_port_is_told_and_is_one_of_loopback() {
    let sandbox = sandbox_with(|builder| {
        builder
            .publish(PublishedPort::new(0, 1))
            .publish(PublishedPort::new(0, PORT))
            .publish(PublishedPort::new(0, PORT).at(Ipv4Addr::UNSPECIFIED.into()))
    })
    .await;
    let [first, second, third] = sandbox.published() else {
        panic!("{:?}", sandbox.published());
    };
    assert_eq!([first.guest, second.guest, third.guest], [1, PORT, PORT]);
    for port in [first, second] {
        assert_eq!(port.host.ip(), Ipv4Addr::LOCALHOST);
    }
    assert_eq!(third.host.ip(), Ipv4Addr::UNSPECIFIED);
    assert!(first.host.port() != 0 && first.host.port() != second.host.port());
    let _server = serve(&sandbox, ECHO).await;
    echoes(second.host, 1000).await;
    echoes((Ipv4Addr::LOCALHOST, third.host.port()).into(), 1000).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_busy_and_nothing_is_left() {
    let blink = blink().await;
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let free = PublishedPort::new(free_port(), PORT);
    let builder = blink
        .sandbox()
        .publish(free)
        .publish(PublishedPort::new(taken.port(), PORT));
    let error = fails(ErrorKind::Busy, builder.clone().create()).await;
    assert!(error.message().contains(&taken.to_string()), "{error:?}");
    assert!(blink.folders().is_empty());
    assert!(is_free(free.host));
    drop(holder);
    let sandbox = ok(builder.clone().create()).await;
    assert_eq!(sandbox.published()[1].host, taken);
    // Another sandbox has it.
    fails(ErrorKind::Busy, builder.create()).await;
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn what_cannot_be_published_is_refused() {
    let blink = blink().await;
    let port = PublishedPort::new;
    let mut bad = vec![
        blink.sandbox().publish(port(0, 0)),
        blink
            .sandbox()
            .publish(port(4000, 1))
            .publish(port(4000, 2)),
        blink.sandbox().publish(port(0, 1)).publish(port(0, 1)),
        // An address that is kept for examples.
        blink
            .sandbox()
            .publish(port(0, 1).at([192, 0, 2, 1].into())),
    ];
    if Engine::chosen() == Engine::Namespace {
        let same = free_port();
        bad.push(
            blink
                .sandbox()
                .network(Network::Host)
                .publish(port(same, same)),
        );
    }
    for builder in bad {
        fails(ErrorKind::InvalidArgument, builder.create()).await;
    }
    assert!(blink.folders().is_empty());
}

#[tokio::test]
async fn where_nothing_listens_a_connection_ends() {
    let sandbox = sandbox_with(|builder| builder.publish(PublishedPort::new(0, PORT))).await;
    let address = sandbox.published()[0].host;
    for _ in 0..3 {
        let mut client = connect(address).await;
        let error = within(client.read(&mut [0])).await.unwrap_err();
        assert_eq!(error.kind(), Io::ConnectionReset);
    }
    // Whoever comes later is carried.
    let _server = serve(&sandbox, ECHO).await;
    echoes(address, 1000).await;
}

#[tokio::test]
async fn more_connections_than_are_carried_at_once_wait() {
    let sandbox = sandbox_with(|builder| builder.publish(PublishedPort::new(0, PORT))).await;
    let _server = serve(&sandbox, ECHO).await;
    let address = sandbox.published()[0].host;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..300 {
        tasks.spawn(echoes(address, number * 100));
    }
    within(tasks.join_all()).await;
}

#[tokio::test]
async fn ports_end_when_their_sandbox_is_removed_or_dropped() {
    let blink = blink().await;
    let port = PublishedPort::new(free_port(), PORT);
    for round in 0..4 {
        let sandbox = ok(blink.sandbox().publish(port).create()).await;
        let _server = serve(&sandbox, ECHO).await;
        let mut client = connect(port.host).await;
        within(client.write_all(b"x")).await.unwrap();
        assert_eq!(within(client.read_u8()).await.unwrap(), b'x');
        match round % 2 {
            0 => ok(sandbox.remove()).await,
            _ => drop(sandbox),
        }
        // Nobody takes what has come for everything.
        let error = within(client.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), Io::ConnectionReset);
        assert!(is_free(port.host));
    }
    // Without a moment in between.
    for _ in 0..3 {
        drop(ok(blink.sandbox().publish(port).create()).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_end_when_their_sandbox_dies() {
    let blink = blink().await;
    let port = PublishedPort::new(0, PORT);
    let sandbox = blink.create(|builder| builder.publish(port)).await;
    let address = sandbox.published()[0].host;
    let _server = serve(&sandbox, ECHO).await;
    let mut client = connect(address).await;
    within(client.write_all(b"x")).await.unwrap();
    assert_eq!(within(client.read_u8()).await.unwrap(), b'x');
    kill(host_pid(&blink.folders()[0]));
    within(client.read_u8()).await.unwrap_err();
    until("the port's end", || is_free(address)).await;
}

#[tokio::test]
async fn ports_of_a_detached_sandbox_are_published_again() {
    let blink = blink().await;
    let fixed = PublishedPort::new(free_port(), PORT);
    let builder = blink.sandbox().detached().publish(fixed);
    let sandbox = ok(builder.publish(PublishedPort::new(0, PORT)).create()).await;
    let id = sandbox.id().to_owned();
    drop(serve(&sandbox, ECHO).await);
    let any = sandbox.published()[1].host;
    echoes(any, 1000).await;
    drop(sandbox);
    until("the ports' end", || is_free(any) && is_free(fixed.host)).await;

    let holder = TcpListener::bind(fixed.host).unwrap();
    let error = fails(ErrorKind::Busy, blink.open(&id)).await;
    assert!(
        error.message().contains(&fixed.host.to_string()),
        "{error:?}"
    );
    drop(holder);
    let sandbox = ok(blink.open(&id)).await;
    let [first, second] = sandbox.published() else {
        panic!("{:?}", sandbox.published());
    };
    assert_eq!((*first, second.guest), (fixed, PORT));
    echoes(first.host, 1000).await;
    echoes(second.host, 1000).await;
    ok(sandbox.exec(Command::new("true"))).await;
    ok(sandbox.remove()).await;
    assert!(is_free(fixed.host));
}
