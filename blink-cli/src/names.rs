//! `--name NAME` of sessions, which means the same as their name as a word of its own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::CommandFactory;

use crate::arguments::Arguments;

const FLAG: &[u8] = b"--name";

/// The same words with the name of the session where it belongs, behind the name of the task; `None` where there is none, or
/// where no session is meant.
pub(crate) fn positional(argv: &[OsString]) -> Option<Vec<OsString>> {
    let options = argv.iter().position(|word| word == "--");
    let options = &argv[..options.unwrap_or(argv.len())];
    let command = Arguments::command();
    let tasks = command.find_subcommand("session")?;
    let session = options.iter().position(|word| word == "session")?;
    let behind = options[session..]
        .iter()
        .position(|word| tasks.find_subcommand(word).is_some())?;
    let task = session + behind;
    let flag = options[task..].iter().position(is_flag)?;
    let flag = task + flag;
    let mut words = argv.to_vec();
    let name = match words.remove(flag).as_bytes().strip_prefix(b"--name=") {
        Some(name) => OsString::from_vec(name.to_vec()),
        // Its value is behind it.
        None if flag < options.len() - 1 => words.remove(flag),
        None => return None,
    };
    words.insert(task + 1, name);
    Some(words)
}

fn is_flag(word: &OsString) -> bool {
    let word = OsStr::as_bytes(word);
    word == FLAG || word.starts_with(b"--name=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> Option<String> {
        let argv: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let words = positional(&argv)?;
        Some(words.join(OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn the_name_goes_behind_the_task() {
        for (line, expected) in [
            (
                "blink session logs --name work 3",
                "blink session logs work 3",
            ),
            (
                "blink session logs 3 --name=work",
                "blink session logs work 3",
            ),
            (
                "blink --home session session --json run --timeout 3 --name w -- sh --name x",
                "blink --home session session --json run w --timeout 3 -- sh --name x",
            ),
            (
                "blink session run --name w script.py --name x",
                "blink session run w script.py --name x",
            ),
        ] {
            assert_eq!(rewritten(line).as_deref(), Some(expected), "{line}");
        }
        for line in [
            "blink session logs work 3",
            "blink run -- sh --name x",
            "blink session run work -- sh --name x",
            "blink session logs --name",
            "blink images --name x",
        ] {
            assert_eq!(rewritten(line), None, "{line}");
        }
    }
}
