//! Builds the guest agent as one static binary, so that the library can carry it.
//!
//! The agent is built by a cargo of its own, because it wants what the outer build does not: a profile for size, a
//! static C library, and neither the outer build's flags nor its lints. Its target folder is one for all the outer
//! build's profiles, so that a debug build, a release build and a clippy run share one agent.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use sha2::{Digest, Sha256};

/// Every sandbox gets a copy, and every program that embeds Blink carries one.
const MAX_AGENT_BYTES: u64 = 1_700_000;

/// Names a finished agent, which is embedded instead of building one.
const BINARY_VARIABLE: &str = "BLINK_GUEST_BINARY";

/// What the agent is built from, relative to the workspace.
const AGENT_SOURCES: [&str; 8] = [
    "Cargo.toml",
    "Cargo.lock",
    "blink-guest/Cargo.toml",
    "blink-guest/src",
    "blink-wire/Cargo.toml",
    "blink-wire/src",
    "blink-archive/Cargo.toml",
    "blink-archive/src",
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={BINARY_VARIABLE}");

    let agent = match env::var_os(BINARY_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => named_agent(Path::new(&path))?,
        None => build_agent()?,
    };
    embed(&agent)
}

/// The agent that the environment names.
fn named_agent(path: &Path) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-changed={}", path.display());
    if path.is_file() {
        Ok(path.to_owned())
    } else {
        Err(format!(
            "{BINARY_VARIABLE} names {}, which is not a file",
            path.display()
        ))
    }
}

/// Builds the agent from the workspace.
fn build_agent() -> Result<PathBuf, String> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = package.parent().unwrap_or(&package);
    if !workspace.join("blink-guest/Cargo.toml").is_file() {
        return Err(format!(
            "The guest agent's sources (blink-guest) are not beside blink-core, so it cannot be built here. \
             Build blink-guest as a static binary from Blink's repository, and name it with {BINARY_VARIABLE}."
        ));
    }
    for source in AGENT_SOURCES {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(source).display()
        );
    }

    let target = agent_target()?;
    let target_dir = build_root()?.join("guest");
    cargo_build(workspace, &target, &target_dir)?;

    let agent = target_dir.join(&target).join("guest/blink-guest");
    let size = fs::metadata(&agent)
        .map_err(|error| format!("{}: {error}", agent.display()))?
        .len();
    if size > MAX_AGENT_BYTES {
        return Err(format!(
            "The guest agent has grown to {size} bytes; its limit is {MAX_AGENT_BYTES}. Every sandbox gets a copy: \
             see what grew with `cargo bloat -p blink-guest --profile guest`, and make it smaller."
        ));
    }
    Ok(agent)
}

/// The target to build the agent for: Linux on the outer target's architecture, with musl where it is installed.
fn agent_target() -> Result<String, String> {
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    let musl = format!("{architecture}-unknown-linux-musl");
    if has_standard_library(&musl)? {
        Ok(musl)
    } else if variable("CARGO_CFG_TARGET_OS")? == "linux" {
        Ok(format!("{architecture}-unknown-linux-gnu"))
    } else {
        Err(format!(
            "The guest agent is a Linux program, and the Rust target {musl} is not installed. \
             Install it with `rustup target add {musl}`, or name a finished agent with {BINARY_VARIABLE}."
        ))
    }
}

fn has_standard_library(target: &str) -> Result<bool, String> {
    let rustc = variable("RUSTC")?;
    let output = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .map_err(|error| format!("{rustc} could not be started: {error}"))?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(folder.trim_end()).is_dir())
}

/// The outer build's target folder, found from `OUT_DIR`: `<root>/[<target>/]<profile>/build/…/out`.
fn build_root() -> Result<PathBuf, String> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let root = out_dir
        .ancestors()
        .find(|folder| folder.file_name() == Some(OsStr::new("build")))
        .and_then(|build| build.parent()?.parent())
        .ok_or_else(|| {
            format!(
                "OUT_DIR is {}, which is not inside a target folder",
                out_dir.display()
            )
        })?;
    let of_one_target = root.file_name() == Some(OsStr::new(&variable("TARGET")?));
    Ok(if of_one_target {
        root.parent().unwrap_or(root)
    } else {
        root
    }
    .to_owned())
}

fn cargo_build(workspace: &Path, target: &str, target_dir: &Path) -> Result<(), String> {
    let mut command = Command::new(variable("CARGO")?);
    command
        .current_dir(workspace)
        .args(["build", "--package", "blink-guest", "--profile", "guest"])
        // The outer cargo has brought the lock file up to date before any build script runs.
        .arg("--locked")
        .args(["--target", target])
        .arg("--target-dir")
        .arg(target_dir)
        .stdin(Stdio::null());
    for (name, _) in env::vars_os().filter(|(name, _)| belongs_to_outer_build(name)) {
        command.env_remove(name);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", agent_flags(target).join("\x1f"));

    let output = command
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "The guest agent could not be built ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    ))
}

fn agent_flags(target: &str) -> Vec<String> {
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Crelocation-model=static".to_owned(),
    ];
    if target == "x86_64-unknown-linux-gnu" {
        // Rust's own linker is the one for this target: functions with the same code become one.
        flags.push("-Clink-arg=-Wl,--icf=all".to_owned());
    }
    let cross_linker = format!(
        "CARGO_TARGET_{}_LINKER",
        target.replace('-', "_").to_uppercase()
    );
    if !cfg!(target_os = "linux") && env::var_os(cross_linker).is_none() {
        // Another system's own linker makes no Linux programs, and Rust's does.
        flags.push("-Clinker=rust-lld".to_owned());
    }
    flags
}

/// Whether a variable says something about the outer build that would change the agent, or build it anew each time.
fn belongs_to_outer_build(name: &OsString) -> bool {
    const CHANGES_COMPILERS: [&str; 6] = [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
    ];
    // The user's settings for the network, for registries and for linkers, and the outer cargo's job slots.
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TARGET_",
    ];
    let Some(name) = name.to_str() else {
        return false;
    };
    if name.starts_with("CARGO_TARGET_") && !name.ends_with("_LINKER") {
        return true;
    }
    CHANGES_COMPILERS.contains(&name)
        || name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept))
}

/// Copies the agent to where the library includes it from, so that nothing else has to stay in place.
fn embed(agent: &Path) -> Result<(), String> {
    let bytes = fs::read(agent).map_err(|error| format!("{}: {error}", agent.display()))?;
    let embedded = PathBuf::from(variable("OUT_DIR")?).join("blink-guest");
    fs::write(&embedded, &bytes).map_err(|error| format!("{}: {error}", embedded.display()))?;

    let mut sha256 = String::new();
    for byte in Sha256::digest(&bytes) {
        write!(sha256, "{byte:02x}").expect("writing to a String cannot fail");
    }
    println!("cargo::rustc-env=BLINK_GUEST_PATH={}", embedded.display());
    println!("cargo::rustc-env=BLINK_GUEST_SHA256={sha256}");
    Ok(())
}

/// A variable that cargo sets for build scripts.
fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name} for the build script"))
}
