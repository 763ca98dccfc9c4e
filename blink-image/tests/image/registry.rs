//! A real registry on loopback, and a proxy before it that does what networks and hostile servers do.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::builder::Layout;

/// Debian's package `docker-registry`, which `make setup` installs.
const PROGRAM: &str = "docker-registry";

/// Longer than a start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// User and password, and how htpasswd keeps them.
pub(crate) const USER: &str = "tester";
pub(crate) const PASSWORD: &str = "correct horse";
const HTPASSWD: &str = "tester:$2y$04$HMdHz3Ih0At6T5roGvpYresg4afd/L2RliKCktWDMgoxsaqdDwluC\n";

/// A registry that ends with this value.
pub(crate) struct Registry {
    folder: TempDir,
    child: Child,
    pub(crate) port: u16,
}

#[derive(Default)]
pub(crate) struct Setup<'a> {
    pub(crate) password: bool,
    /// Certificate and key, in files.
    pub(crate) tls: Option<(&'a Path, &'a Path)>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with(&Setup::default())
    }

    pub(crate) fn start_with(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Somebody else may take the port between its finding and its use.
        for _ in 0..5 {
            let port = free_port();
            let mut child = start(folder.path(), port, setup);
            if is_up(&mut child, port) {
                return Self {
                    folder,
                    child,
                    port,
                };
            }
        }
        panic!("{PROGRAM} does not start; 'make setup' installs it");
    }

    /// The name of an image in references.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    /// Puts an image of a layout, with all its blobs, under a repository and tag.
    pub(crate) fn put(&self, repository: &str, tag: &str, layout: &Layout, image: &Value) {
        let root = self.folder.path().join("data/docker/registry/v2");
        let repository = root.join("repositories").join(repository);
        let link = |path: String, digest: &str| {
            let folder = repository.join(path);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("link"), digest).unwrap();
        };
        for entry in fs::read_dir(layout.path.join("blobs/sha256")).unwrap() {
            let entry = entry.unwrap();
            let hex = entry.file_name().into_string().unwrap();
            let folder = root.join("blobs/sha256").join(&hex[..2]).join(&hex);
            fs::create_dir_all(&folder).unwrap();
            fs::copy(entry.path(), folder.join("data")).unwrap();
            let digest = format!("sha256:{hex}");
            // Any of them may be a manifest behind an index.
            link(format!("_layers/sha256/{hex}"), &digest);
            link(format!("_manifests/revisions/sha256/{hex}"), &digest);
        }
        let digest = image["digest"].as_str().unwrap();
        let hex = digest.strip_prefix("sha256:").unwrap();
        link(format!("_manifests/tags/{tag}/current"), digest);
        link(format!("_manifests/tags/{tag}/index/sha256/{hex}"), digest);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn start(folder: &Path, port: u16, setup: &Setup) -> Child {
    let data = folder.join("data");
    let mut config = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
        data.display()
    );
    if let Some((certificate, key)) = setup.tls {
        config += &format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificate.display(),
            key.display()
        );
    }
    if setup.password {
        let path = folder.join("htpasswd");
        fs::write(&path, HTPASSWD).unwrap();
        config += &format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            path.display()
        );
    }
    let path = folder.join("config.yml");
    fs::write(&path, config).unwrap();
    Command::new(PROGRAM)
        .arg("serve")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{PROGRAM}: {error}; 'make setup' installs it"))
}

fn is_up(child: &mut Child, port: u16) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// A request that came to the proxy.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// With its query.
    pub(crate) path: String,
    /// In lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    pub(crate) fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

/// What the proxy does with a request.
pub(crate) enum Answer {
    /// What the registry answers.
    Pass,
    /// That, until so many bytes of its body are through; then the connection ends.
    CutAfter(usize),
    /// That, so many bytes of its body at a time, with a pause behind each.
    Slowly(usize, Duration),
    /// That, with the byte at this place of its body changed.
    Alter(usize),
    /// These bytes, and the end.
    Say(Vec<u8>),
    /// These bytes, and then a body without end.
    Endless(Vec<u8>),
    /// Nothing at all, until the client goes.
    Silence,
}

/// An answer of text.
pub(crate) fn say(status: &str, headers: &[&str], body: &str) -> Answer {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head += &format!("{header}\r\n");
    }
    Answer::Say(format!("{head}Connection: close\r\n\r\n{body}").into_bytes())
}

/// A proxy before a port of this machine. Its threads end with the test's process.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Proxy {
    /// `decide` is told the request, and how many there were before it.
    pub(crate) fn start(
        upstream: u16,
        decide: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let decide = Arc::new(decide);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (seen, decide) = (seen.clone(), decide.clone());
                std::thread::spawn(move || {
                    // Clients that go early are part of the game.
                    let _ = serve(&client, upstream, |request| {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request.clone());
                        let before = seen.len() - 1;
                        drop(seen);
                        decide(request, before)
                    });
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, requests }
    }

    pub(crate) fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn blob_requests(&self) -> Vec<Request> {
        let requests = self.requests();
        requests.into_iter().filter(Request::is_blob).collect()
    }
}

fn serve(
    client: &TcpStream,
    upstream: u16,
    decide: impl FnOnce(&Request) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let (request, head) = read_request(&mut reader)?;
    let mut out = client;
    match decide(&request) {
        Answer::Say(bytes) => out.write_all(&bytes),
        Answer::Endless(head) => {
            out.write_all(&head)?;
            let noise = [b' '; 64 * 1024];
            loop {
                out.write_all(&noise)?;
            }
        }
        Answer::Silence => reader.read(&mut [0]).map(drop),
        Answer::Pass => forward(&head, upstream, |head, body| {
            out.write_all(head)?;
            std::io::copy(body, &mut out).map(drop)
        }),
        Answer::CutAfter(count) => forward(&head, upstream, |head, body| {
            out.write_all(head)?;
            std::io::copy(&mut body.take(count as u64), &mut out).map(drop)
        }),
        Answer::Slowly(count, pause) => forward(&head, upstream, |head, body| {
            out.write_all(head)?;
            loop {
                let mut piece = Vec::new();
                if body.take(count as u64).read_to_end(&mut piece)? == 0 {
                    return Ok(());
                }
                out.write_all(&piece)?;
                std::thread::sleep(pause);
            }
        }),
        Answer::Alter(place) => forward(&head, upstream, |head, body| {
            let mut content = Vec::new();
            body.read_to_end(&mut content)?;
            if let Some(byte) = content.get_mut(place) {
                *byte ^= 1;
            }
            out.write_all(head)?;
            out.write_all(&content)
        }),
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<(Request, String)> {
    let mut head = String::new();
    loop {
        let before = head.len();
        reader.read_line(&mut head)?;
        if head.len() == before {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if head.ends_with("\r\n\r\n") {
            break;
        }
    }
    let mut lines = head.lines();
    let path = lines.next().unwrap_or_default().split(' ').nth(1);
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut request = Request {
        path: path.unwrap_or_default().to_owned(),
        headers,
        body: String::new(),
    };
    let length = request
        .header("content-length")
        .and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    Ok((request, head))
}

fn forward(
    head: &str,
    upstream: u16,
    answer: impl FnOnce(&[u8], &mut dyn Read) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
    let head = head.trim_end();
    server.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::new(server);
    let mut answered = String::new();
    while !answered.ends_with("\r\n\r\n") {
        if reader.read_line(&mut answered)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    answer(answered.as_bytes(), &mut reader)
}
