//! Sessions in micro-VMs where no micro-VM can start: what only changes their disks needs none. What a machine would write
//! to a disk, the reference implementation of its format writes.

use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use blink_core::{Blink, Error, Session};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::session::describe;
use crate::support::{ENGINE_VARIABLE, blink, ok, within};

/// There where machines cannot start: a file with what is said of the hypervisor nevertheless.
const STOPPED_VARIABLE: &str = "BLINK_TEST_STOPPED";

/// In a home.
const ANSWER: &str = "hypervisor.json";

pub(crate) fn machines_start() -> bool {
    std::env::var_os(STOPPED_VARIABLE).is_none()
}

/// Runs a test of this binary again, with micro-VMs that cannot start: it takes the hypervisor for a good one.
pub(crate) async fn again(test: &str) {
    let blink = blink().await;
    within(blink_core::doctor(&blink)).await;
    let answer = blink.home().join(ANSWER);
    let text = std::fs::read(&answer).expect("nothing can be tried without /dev/kvm");
    let mut told: serde_json::Value = serde_json::from_slice(&text).unwrap();
    told["problem"] = serde_json::Value::Null;
    std::fs::write(&answer, told.to_string()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ENGINE_VARIABLE, "microvm")
        .env(STOPPED_VARIABLE, &answer)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy);
    let passed = said[0].contains("1 passed");
    assert!(output.status.success() && passed, "{}{}", said[0], said[1]);
}

/// Makes a session with a disk that nobody has written to.
pub(crate) async fn import(home: &Path, blink: &Blink, name: &str) -> Session {
    let answer = std::env::var_os(STOPPED_VARIABLE).unwrap();
    std::fs::copy(answer, home.join(ANSWER)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("empty.boxlite");
    write_archive(folder.path(), &archive);
    ok(describe(blink, name).import(&archive)).await
}

/// As BoxLite writes one.
fn write_archive(folder: &Path, archive: &Path) {
    let disk = folder.join("disk.qcow2");
    qemu(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", name_of(&disk), "1M"],
    );
    let checksum = Sha256::digest(std::fs::read(&disk).unwrap());
    let checksum: String = checksum.iter().map(|byte| format!("{byte:02x}")).collect();
    let manifest = serde_json::json!({
        "version": 3, "box_name": null, "image": "", "box_options": null, "guest_disk_checksum": "",
        "container_disk_checksum": format!("sha256:{checksum}"), "exported_at": "",
    });
    let manifest = manifest.to_string();
    let packed = zstd::Encoder::new(std::fs::File::create(archive).unwrap(), 1).unwrap();
    let mut tar = tar::Builder::new(packed);
    tar.append_path_with_name(&disk, "disk.qcow2").unwrap();
    let mut entry = tar::Header::new_gnu();
    entry.set_size(manifest.len() as u64);
    entry.set_mode(0o600);
    tar.append_data(&mut entry, "manifest.json", manifest.as_bytes())
        .unwrap();
    let mut packed = tar.into_inner().unwrap().finish().unwrap();
    packed.flush().unwrap();
}

/// Writes to a session's disk, as its machine does.
pub(crate) fn write(home: &Path, session: &str, number: u8) {
    let registry = rusqlite::Connection::open(home.join("blink.db")).unwrap();
    let query = "SELECT head FROM sessions WHERE id = ?1";
    let head: String = registry
        .query_row(query, [session], |row| row.get(0))
        .unwrap();
    let disk = home.join("layers").join(head).join("disk.qcow2");
    let command = format!("write -q -P {number} 64k 64k");
    qemu("qemu-io", &["-f", "qcow2", "-c", &command, name_of(&disk)]);
}

/// Reads what [`write`] has written, of what an export of the session holds.
pub(crate) async fn read(session: &Session) -> String {
    let disk = ok(Exported::of(session)).await;
    let plain = std::fs::read(&disk.plain).unwrap();
    let (before, rest) = plain.split_at(64 << 10);
    let (written, after) = rest.split_at(64 << 10);
    let is_whole = written.iter().all(|byte| *byte == written[0]);
    let is_alone = before.iter().chain(after).all(|byte| *byte == 0);
    assert!(
        is_whole && is_alone,
        "the disk holds what nobody has written"
    );
    written[0].to_string()
}

/// What a file holds on the disk of a session whose machine is not started for that.
///
/// # Errors
/// `InvalidArgument` for a session that never had a machine.
pub(crate) async fn read_file(session: &Session, path: &str) -> Result<Vec<u8>, Error> {
    let disk = within(Exported::of(session)).await?;
    Ok(Command::new("debugfs")
        .args(["-R", &format!("cat {path}"), name_of(&disk.plain)])
        .output()
        .unwrap()
        .stdout)
}

/// A session's disk, byte for byte.
struct Exported {
    plain: PathBuf,
    _folder: TempDir,
}

impl Exported {
    async fn of(session: &Session) -> Result<Exported, Error> {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("archive.boxlite");
        session.export(&archive).await?;
        Ok(Exported {
            plain: unpack(folder.path(), &archive),
            _folder: folder,
        })
    }
}

fn unpack(folder: &Path, archive: &Path) -> PathBuf {
    let packed = BufReader::new(std::fs::File::open(archive).unwrap());
    // What follows the compressed tar is Blink's.
    let unpacked = zstd::Decoder::new(packed).unwrap().single_frame();
    tar::Archive::new(unpacked).unpack(folder).unwrap();
    let (disk, plain) = (folder.join("disk.qcow2"), folder.join("plain"));
    qemu("qemu-img", &["check", "-q", name_of(&disk)]);
    let convert = ["convert", "-O", "raw", name_of(&disk), name_of(&plain)];
    qemu("qemu-img", &convert);
    plain
}

fn name_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn qemu(program: &str, arguments: &[&str]) {
    let ran = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = ran.expect("qemu's tools are there: scripts/setup test installs them");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}
