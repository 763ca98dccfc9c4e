//! A server on loopback that says what a test wants, and the images that it can serve.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What a server does with a request.
pub(crate) enum Answer {
    /// These bytes, and the end.
    Say(Vec<u8>),
    /// These bytes, and then zeros without end.
    Endless(Vec<u8>),
    /// These bytes, and then one byte from time to time without end.
    Drip(Vec<u8>),
}

/// An answer with a body.
pub(crate) fn say(status: &str, headers: &[String], body: &[u8]) -> Answer {
    let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        answer += &format!("{header}\r\n");
    }
    let mut answer = format!("{answer}Connection: close\r\n\r\n").into_bytes();
    answer.extend_from_slice(body);
    Answer::Say(answer)
}

/// The beginning of an answer whose body has no known length.
pub(crate) fn head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec()
}

/// A server. Its threads end with the test's process.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || {
                    // Clients that go early are part of the game.
                    let _ = serve(&client, &seen, &*answer);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Server { port, requests }
    }

    /// Its name, or that of an image of it, in references.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}{rest}", self.port)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What came so far. An attempt at TLS, which is not spoken here, is a request without a path.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    client: &TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader
            .by_ref()
            .take(64 << 10)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        // The beginning of TLS.
        if lines.is_empty() && !line.contains(" HTTP/1.") {
            seen.lock().unwrap().push(Request {
                method: "TLS".to_owned(),
                path: String::new(),
                headers: Vec::new(),
                body: String::new(),
            });
            return Ok(());
        }
        lines.push(line);
    }
    let mut words = lines[0].split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        headers: lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        body: String::new(),
    };
    let length = request
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    seen.lock().unwrap().push(request.clone());
    let mut out = client;
    match answer(&request) {
        Answer::Say(bytes) => out.write_all(&bytes),
        Answer::Endless(head) => {
            out.write_all(&head)?;
            loop {
                out.write_all(&[0; 64 << 10])?;
            }
        }
        Answer::Drip(head) => {
            out.write_all(&head)?;
            loop {
                out.write_all(&[0])?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

pub(crate) fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A layer as it is stored, and what it is said to be.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) stored: Vec<u8>,
    pub(crate) diff_id: String,
    pub(crate) kind: &'static str,
    /// What its manifest states, which may be a lie.
    pub(crate) size: u64,
}

impl Layer {
    /// An honest one, of a tar as it is.
    pub(crate) fn plain(tar: &[u8]) -> Layer {
        Layer::new(tar.to_vec(), digest(tar), "tar")
    }

    pub(crate) fn new(stored: Vec<u8>, diff_id: String, kind: &'static str) -> Layer {
        let size = stored.len() as u64;
        Layer {
            stored,
            diff_id,
            kind,
            size,
        }
    }

    pub(crate) fn claiming(mut self, size: u64) -> Layer {
        self.size = size;
        self
    }
}

/// A tar with one file.
pub(crate) fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

/// A tar with one file of so many zeros, compressed with zstd.
pub(crate) fn bomb(zeros: u64) -> Layer {
    struct Measured<W>(W, Sha256);
    impl<W: Write> Write for Measured<W> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let written = self.0.write(bytes)?;
            self.1.update(&bytes[..written]);
            Ok(written)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            self.0.flush()
        }
    }
    let encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut tar = tar::Builder::new(Measured(encoder, Sha256::new()));
    let mut header = tar::Header::new_ustar();
    header.set_size(zeros);
    header.set_mode(0o644);
    tar.append_data(&mut header, "zeros", std::io::repeat(0).take(zeros))
        .unwrap();
    let Measured(encoder, hasher) = tar.into_inner().unwrap();
    let hex: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Layer::new(
        encoder.finish().unwrap(),
        format!("sha256:{hex}"),
        "tar+zstd",
    )
}

/// An image, in the parts that a registry serves.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    blobs: Vec<(String, Vec<u8>)>,
}

impl Image {
    pub(crate) fn of(layers: &[Layer]) -> Image {
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        let configuration = json!({
            "architecture": architecture(),
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "config": {},
        });
        let configuration = configuration.to_string().into_bytes();
        let descriptors: Vec<Value> = layers
            .iter()
            .map(|layer| {
                json!({
                    "mediaType": format!("application/vnd.oci.image.layer.v1.{}", layer.kind),
                    "digest": digest(&layer.stored),
                    "size": layer.size,
                })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&configuration),
                "size": configuration.len(),
            },
            "layers": descriptors,
        });
        let layers = layers.iter().map(|layer| layer.stored.clone());
        let blobs = layers
            .chain([configuration])
            .map(|content| (digest(&content), content))
            .collect();
        Image {
            manifest: manifest.to_string().into_bytes(),
            blobs,
        }
    }

    pub(crate) fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// What an honest registry answers.
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        if request.path.contains("/manifests/") {
            return say("200 OK", &[], &self.manifest);
        }
        match self.blob(&request.path) {
            Some(content) => say("200 OK", &[], content),
            None => say("404 Not Found", &[], b""),
        }
    }

    fn blob(&self, path: &str) -> Option<&[u8]> {
        let found = self.blobs.iter().find(|(digest, _)| path.contains(digest));
        found.map(|(_, content)| content.as_slice())
    }

    /// Whether a request is about a layer, the configuration being the last blob.
    pub(crate) fn is_layer(&self, request: &Request) -> bool {
        let layers = &self.blobs[..self.blobs.len() - 1];
        layers
            .iter()
            .any(|(digest, _)| request.path.contains(digest))
    }

    /// Writes it as a folder in OCI layout.
    pub(crate) fn write(&self, folder: &Path) {
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let manifest = (self.digest(), self.manifest.clone());
        for (digest, content) in self.blobs.iter().chain([&manifest]) {
            std::fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), content).unwrap();
        }
        let entry = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.digest(),
            "size": self.manifest.len(),
        });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        std::fs::write(folder.join("oci-layout"), version.to_string()).unwrap();
    }
}
