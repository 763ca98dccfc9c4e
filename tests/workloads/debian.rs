//! A Debian of the sandbox's own: packages are installed as on a machine, and what they bring runs.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use blink_core::{Command, Network, PublishedPort};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::inside::Inside as _;
use crate::layout::{Layout, StoredLayer};
use crate::support::{blink, ok, said};

/// What `scripts/setup test` has made with debootstrap.
fn root() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    cache.unwrap_or_else(home).join("blink/debian-bookworm.tar")
}

/// A port of this machine's loopback that nobody has.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn packages_are_installed_and_what_they_bring_runs() {
    if !rustix::process::geteuid().is_root() {
        // Packages have users of their own, and an ordinary user's sandbox has none.
        return;
    }
    let root = root();
    let root = std::fs::read(&root).unwrap_or_else(|error| {
        panic!("{}: {error}; `scripts/setup test` makes it", root.display())
    });
    let scratch = tempfile::tempdir().unwrap();
    let layout = Layout::of(
        scratch.path().join("debian"),
        &[StoredLayer::new(&root, "")],
    );
    let (redis_port, ssh_port) = (free_port(), free_port());
    let (blink, _home) = blink().await;
    let session = blink
        .session("debian")
        .image(layout.path.to_str().unwrap())
        .user("root")
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .current_dir("/root")
        .memory_mib(3072)
        .network(Network::Host)
        .publish(PublishedPort::new(0, redis_port));
    let session = ok(session.open()).await;
    let says = async |script: &str| {
        let command = Command::shell(format!("set -e\n{script}"));
        said(script, &ok(session.exec(command)).await)
    };
    says(
        "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update; \
         apt-get -qq install --yes --no-install-recommends redis-server openssh-server openssh-client sudo chromium >/tmp/log 2>&1 \
         || { tail -n 20 /tmp/log; exit 1; }",
    )
    .await;
    // They are there in a layer of the session too.
    ok(session.stop()).await;
    ok(session.checkpoint("installed")).await;

    // A service of a user of its own, reached through a published port.
    let configured = format!("sed -i 's/^port .*/port {redis_port}/' /etc/redis/redis.conf");
    let waited =
        format!("until redis-cli -p {redis_port} ping >/dev/null 2>&1; do sleep 0.1; done");
    let started = format!(
        "{configured}; service redis-server start >/dev/null; {waited}; \
         redis-cli -p {redis_port} set name value; ps -o user= -C redis-server"
    );
    assert_eq!(says(&started).await, "OK\nredis");
    let port = ok(session.sandbox()).await.published()[0].host.port();
    let asked = async {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await?;
        client.write_all(b"GET name\r\n").await?;
        let mut answer = [0; 11];
        client.read_exact(&mut answer).await.map(|_| answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(60), asked).await;
    assert_eq!(&answer.unwrap().unwrap(), b"$5\r\nvalue\r\n");

    // Users of the sandbox log in, with a terminal and without.
    let keys = "useradd --create-home joe; mkdir -p -m 700 /run/sshd ~/.ssh ~joe/.ssh; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id; \
                cp ~/.ssh/id.pub ~joe/.ssh/authorized_keys; chown -R joe ~joe/.ssh";
    let ssh = format!(
        "ssh -q -p {ssh_port} -i ~/.ssh/id -o StrictHostKeyChecking=no -o ConnectionAttempts=50 joe@127.0.0.1"
    );
    let logged_in = format!(
        "{keys}; /usr/sbin/sshd -p {ssh_port} -o ListenAddress=127.0.0.1; echo given | {ssh} 'id -un; cat'; \
         {ssh} -tt 'test -t 0 && echo terminal' | tr -d '\\r'; pkill -x sshd"
    );
    assert_eq!(says(&logged_in).await, "joe\ngiven\nterminal");
    assert_eq!(says("sudo id -u; sudo -u joe id -un").await, "0\njoe");

    // The red of a page is in the picture of it.
    let pictured = "echo '<body style=\"background: #ff0000\">' >/tmp/page.html; cd /tmp; \
                    chromium --headless --no-sandbox --disable-gpu --window-size=64,64 --screenshot=/tmp/page.png \
                    file:///tmp/page.html >/dev/null 2>&1; head -c 8 /tmp/page.png | od -An -tx1 | tr -d ' '";
    assert_eq!(says(pictured).await, "89504e470d0a1a0a");
    ok(session.remove()).await;
}
