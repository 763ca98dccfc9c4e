//! What a sandbox is known by, and must not share with another whose disk began as its own.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::handle::Sandbox;
use crate::command::Command;
use crate::files::Files;

const MACHINE_ID: &str = "/etc/machine-id";

/// What random numbers begin with.
const SEEDS: [&str; 2] = [
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
];

const SSH: &str = "/etc/ssh";

/// Gives a sandbox an identity of its own, once: a machine-id, no seed of another's, and host keys of its own if it has any.
pub(crate) async fn identify(sandbox: &Sandbox, id: &str) {
    let digest = Sha256::digest(format!("blink machine {id}"));
    let mut text = digest[..16].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    text.push('\n');
    let Ok(files) = sandbox.files() else {
        return;
    };
    let files = files.owned_by(None);
    if files
        .read(MACHINE_ID)
        .await
        .is_ok_and(|known| known == text.as_bytes())
    {
        return;
    }
    if let Err(error) = files.write(MACHINE_ID, text).await {
        tracing::debug!(%error, "the image takes no machine-id");
    }
    for seed in SEEDS {
        // Most have none.
        let _ = files.remove(seed).await;
    }
    replace_host_keys(sandbox, &files).await;
}

/// Images that have an SSH server may come with its keys, as every disk does on which it has run.
async fn replace_host_keys(sandbox: &Sandbox, files: &Files) {
    let Ok(entries) = files.list(SSH).await else {
        return;
    };
    let names = entries.iter().map(|entry| entry.name.to_string_lossy());
    let keys: Vec<_> = names.filter(|name| is_host_key(name)).collect();
    if keys.is_empty() {
        return;
    }
    for key in keys {
        if let Err(error) = files.remove(format!("{SSH}/{key}")).await {
            tracing::warn!(%error, "a host key of another sandbox could not be removed");
        }
    }
    let making = Command::new("ssh-keygen").arg("-A").user("0");
    if let Err(error) = sandbox.exec(making).await {
        tracing::warn!(%error, "the sandbox has no host keys now");
    }
}

fn is_host_key(name: &str) -> bool {
    let key = name.strip_suffix(".pub").unwrap_or(name);
    key.starts_with("ssh_host_") && key.ends_with("_key")
}
