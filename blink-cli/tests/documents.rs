//! The commands that the documentation shows run, and print what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A page, which of its blocks of commands, and what is there before.
const BLOCKS: &[(&str, usize, &str)] = &[
    ("docs/command-line.md", 0, ""),
    ("docs/errors.md", 0, ""),
    ("docs/pools.md", 0, ""),
    ("docs/sessions.md", 0, ""),
    ("docs/sessions.md", 1, ""),
    (
        "docs/sessions.md",
        2,
        "blink session open work --isolation auto --image host; blink session stop work",
    ),
];

/// Pages whose commands need what a test has not got: registries, and somebody who ends a server.
const OTHERS: &[(&str, usize)] = &[
    ("README.md", 0),
    ("README.md", 1),
    ("docs/images.md", 0),
    ("docs/network.md", 0),
    ("docs/sessions.md", 3),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The blocks of a page, each a list of commands with the lines that follow them.
fn blocks(page: &str) -> Vec<Vec<(String, String)>> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let blocks = text.split("```console\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let read = |block: &str| {
        let mut commands: Vec<(String, String)> = Vec::new();
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => commands.push((command.to_owned(), String::new())),
                None => {
                    let (_, printed) = commands.last_mut().expect("output follows a command");
                    printed.push_str(line);
                    printed.push('\n');
                }
            }
        }
        commands
    };
    blocks.map(read).collect()
}

fn run(page: &str, index: usize, before: &str) {
    let folder = tempfile::tempdir().unwrap();
    let commands = blocks(page).swap_remove(index);
    assert!(!commands.is_empty(), "{page} {index}");
    let mut script = format!("{before}\n");
    for (number, (command, _)) in commands.iter().enumerate() {
        // What is attached to goes on until it is killed.
        let command = match command.contains(" attach ") {
            true => format!("timeout --signal=QUIT 2 {command}\n[ $? = 124 ]"),
            false => command.clone(),
        };
        script += &format!("{{ {command}\n}} >{number}.printed 2>&1\necho $? >&3\n");
    }
    let blink = Path::new(env!("CARGO_BIN_EXE_blink")).parent().unwrap();
    let paths = std::env::var("PATH").unwrap_or_default();
    let ran = Command::new("bash")
        .args(["-c", &format!("exec 3>codes\n{script}")])
        .current_dir(&folder)
        .env("PATH", format!("{}:{paths}", blink.display()))
        .env("BLINK_HOME", folder.path().join("home"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let codes = fs::read_to_string(folder.path().join("codes")).unwrap();
    let codes: Vec<&str> = codes.lines().collect();
    assert_eq!(
        codes.len(),
        commands.len(),
        "{page}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    for (number, (command, expected)) in commands.iter().enumerate() {
        let printed = folder.path().join(format!("{number}.printed"));
        let printed = fs::read_to_string(printed).unwrap();
        match expected.is_empty() {
            true => assert_eq!(codes[number], "0", "{page}: {command}\n{printed}"),
            false => assert_eq!(&printed, expected, "{page}: {command}"),
        }
    }
}

#[test]
fn commands_of_the_documentation_do_what_it_says() {
    std::thread::scope(|scope| {
        for (page, index, before) in BLOCKS {
            scope.spawn(|| run(page, *index, before));
        }
    });
}

#[test]
fn every_block_of_commands_is_run_or_known_to_need_more() {
    let pages = fs::read_dir(root().join("docs")).unwrap();
    let pages = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
    let pages = pages.filter(|page| page.ends_with(".md"));
    let pages = pages.map(|page| format!("docs/{page}"));
    for page in pages.chain(["README.md".to_owned()]) {
        for index in 0..blocks(&page).len() {
            let is_run = BLOCKS
                .iter()
                .any(|block| (block.0, block.1) == (&page, index));
            assert!(
                is_run != OTHERS.contains(&(&page, index)),
                "block {index} of {page}: add it to BLOCKS"
            );
        }
    }
}
