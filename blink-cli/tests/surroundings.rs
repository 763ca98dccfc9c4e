//! The command as odd shells, services and machines start it: it runs what it is asked to run, or names the step and the path.

use std::process::{Command, Output};

/// Ends what hangs, with another code than anything here ends with.
const PATIENCE: &str = "timeout --kill-after=5 60";

/// What runs in the sandbox, by which it is known: output on both streams, and an end of its own.
const PROGRAM: &str = "-- sh -c 'echo out; echo err >&2; exit 7'";

const RUN: &str = "run --image host --isolation namespace";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a script, in which `$blink` is the command and `$folder` a folder for everybody that lasts as long as it.
fn run(script: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let output = Command::new("sh")
        .args(["-c", script])
        .env(
            "blink",
            format!("{PATIENCE} {}", env!("CARGO_BIN_EXE_blink")),
        )
        .env("folder", path)
        .env("BLINK_HOME", format!("{path}/home"))
        .output()
        .unwrap();
    let left = |name: &str| {
        std::fs::read_dir(folder.path().join("home").join(name))
            .map_or(0, std::iter::Iterator::count)
    };
    assert_eq!(left("sandboxes"), 0, "{script}: a sandbox is left");
    output
}

fn said(output: &Output) -> String {
    format!(
        "{}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn what_a_shell_has_left_makes_no_difference() {
    for (before, after) in [
        ("env --ignore-signal=CHLD", ""),
        ("env --ignore-signal", ""),
        ("env --block-signal", ""),
        ("nice -n 19", ""),
        ("umask 000; ", ""),
        ("umask 077; ", ""),
        ("umask 777; ", ""),
        ("ulimit -n 64; ", ""),
        ("ulimit -c 0; ulimit -f 32768; ", ""),
        (
            "mkdir \"$folder/gone\"; cd \"$folder/gone\"; rmdir \"$folder/gone\"; ",
            "",
        ),
        (
            "env --ignore-environment PATH=\"$PATH\" BLINK_HOME=\"$BLINK_HOME\" HOME=\"$HOME\"",
            "",
        ),
        ("setsid --wait", ""),
        ("", "<&-"),
        ("", "3<&0 4<&0 5</dev/null 9>\"$folder/nine\""),
    ] {
        let output = run(&format!("{before} $blink {RUN} {PROGRAM} {after}"));
        assert_eq!(
            output.status.code(),
            Some(7),
            "{before} {after}: {}",
            said(&output)
        );
        assert_eq!(
            output.stdout,
            b"out\n",
            "{before} {after}: {}",
            said(&output)
        );
        assert_eq!(
            output.stderr,
            b"err\n",
            "{before} {after}: {}",
            said(&output)
        );
    }
}

#[test]
fn closed_output_is_no_reason_to_hang() {
    for closed in [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let output = run(&format!("$blink {RUN} {PROGRAM} {closed}"));
        let code = output.status.code();
        // Its own code, or that its output could not be written.
        assert!(
            matches!(code, Some(7 | 1 | 125)),
            "{closed}: {}",
            said(&output)
        );
    }
}

/// In a place where mounts are nobody else's.
fn run_with_mounts(script: &str) -> Output {
    let own = if is_root() {
        ""
    } else {
        "--user --map-root-user"
    };
    run(&format!("unshare --mount {own} sh -c '{script}'"))
}

#[test]
fn a_home_without_programs_is_named() {
    let output = run_with_mounts(&format!(
        "mkdir \"$BLINK_HOME\" && mount -t tmpfs -o noexec,mode=700 none \"$BLINK_HOME\" && $blink {RUN} -- true"
    ));
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("/home/guest/") && message.contains("noexec"),
        "{message}"
    );
}

#[test]
fn a_missing_folder_for_temporary_files_is_no_hindrance() {
    for place in ["/nowhere/at/all", "/proc", "/dev/null"] {
        let output = run(&format!("TMPDIR={place} $blink {RUN} {PROGRAM}"));
        assert_eq!(output.status.code(), Some(7), "{place}: {}", said(&output));
    }
}

mod needs_root {
    use super::*;

    #[test]
    fn a_null_device_that_is_not_for_everybody_is_named() {
        // The command where this user can read it.
        let output = run_with_mounts(&format!(
            "chmod 755 \"$folder\" && mkdir -m 777 \"$folder/theirs\" && cp \"${{blink##* }}\" \"$folder/blink\" && \
         mknod -m 600 \"$folder/null\" c 1 3 && mount --bind \"$folder/null\" /dev/null && \
         BLINK_HOME=\"$folder/theirs/home\" setpriv --reuid 65534 --regid 65534 --clear-groups {PATIENCE} \"$folder/blink\" {RUN} -- true"
        ));
        assert_eq!(output.status.code(), Some(125), "{}", said(&output));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("/dev/null cannot be opened"), "{message}");
    }
}
