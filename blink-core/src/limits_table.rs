//! Holds `docs/LIMITS.md` to the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Sources whose limits are in the table.
const CRATES: [&str; 7] = [
    "blink-archive",
    "blink-core",
    "blink-ffi",
    "blink-guest",
    "blink-host",
    "blink-image",
    "blink-wire",
];

/// What a limit is called here.
const NAMES: [&str; 5] = ["LIMIT", "LARGEST", "LONGEST", "MOST", "DEEPEST"];

/// Limits of how something is done, not of what may be asked for: no caller meets them. With their files where others have the
/// same name.
const INTERNAL: &[&str] = &[
    "ERRNO_LIMIT",
    "MOST_LINKS",
    "LONGEST_ARGUMENT",
    "LONGEST_STRING",
    "LONG_LIMIT",
    "LARGEST_SIZE",
    "blink-archive/src/error.rs LONGEST",
    "blink-archive/src/format/header.rs LONGEST_NAME",
    "blink-core/src/child.rs OUTPUT_LIMIT_BYTES",
    "blink-core/src/engine/microvm/owner.rs LONGEST",
    "blink-host/src/holder.rs LONGEST",
    "blink-core/src/engine/host_root/packages.rs LARGEST",
    "blink-core/src/usage.rs LONGEST",
    "blink-guest/src/launch/mod.rs LONGEST",
    "blink-guest/src/names.rs LONGEST",
    "blink-wire/src/launch.rs LAUNCH_BODY_LIMIT",
    "blink-core/src/engine/namespace/launch.rs MOST",
    "blink-ffi/src/sized.rs LARGEST",
    "MOST_TRIES",
    "LONGEST_US",
    "LONGEST_WAIT",
    "MOST_STALLED_PERCENT",
    "MOST_ROUNDS",
    "MOST_WALKS",
    "MOST_OPEN",
    "MOST_CHANGED",
    "LIMIT_BYTES",
    "PEEKS_LIMIT",
    "ROOT_LIMIT_BYTES",
    "LARGEST_ID",
    "LARGEST_DISK_GIB",
    "LARGEST_TOKEN_ANSWER",
    "LARGEST_COMPLAINT",
    "LONGEST_PAUSE",
    "MANIFEST_LIMIT",
    "NAME_LIMIT",
    "TTY_BODY_LIMIT",
    "DEPTH_LIMIT",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A row's number, in the unit that its text gives, and the file and constant that it names.
struct Row {
    what: String,
    number: f64,
    file: String,
    constant: String,
}

fn rows() -> Vec<Row> {
    let table = fs::read_to_string(workspace().join("docs/LIMITS.md")).unwrap();
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| line.contains(".rs` `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [what, limit, beyond, option, _, constant] = cells[..] else {
            panic!("it has other cells: {line}");
        };
        assert!(!option.is_empty(), "no option and not \"none\": {line}");
        assert!(!what.is_empty() && (!beyond.is_empty() || constant.contains("MOST_THREADS")));
        let names: Vec<_> = constant.split('`').collect();
        rows.push(Row {
            what: what.to_owned(),
            number: number(limit),
            file: names[1].to_owned(),
            constant: names[3].to_owned(),
        });
    }
    rows
}

/// `1,024`, `16 MiB`, `30 s`: in bytes and seconds; mebibytes stay what they are where the option is one of them.
fn number(text: &str) -> f64 {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number: f64 = number.replace(',', "").parse().unwrap();
    number
        * match unit {
            "" | "s" => 1.0,
            "KiB" => f64::from(1 << 10),
            "MiB" => f64::from(1 << 20),
            "GiB" => f64::from(1 << 30),
            other => panic!("a unit that is none: {other}"),
        }
}

/// The value of a constant's expression: products and shifts of numbers.
fn value(expression: &str) -> f64 {
    let expression = expression.trim().replace('_', "");
    if let Some(seconds) = expression.strip_prefix("Duration::fromsecs(") {
        return value(seconds.trim_end_matches(')'));
    }
    if let Some((base, by)) = expression.split_once("<<") {
        return value(base) * value(by).exp2();
    }
    if let Some((one, other)) = expression.split_once('*') {
        return value(one) * value(other);
    }
    expression
        .parse()
        .unwrap_or_else(|_| panic!("no number: {expression}"))
}

/// The names of all constants in a source file, with their expressions.
fn constants(source: &str) -> Vec<(String, String)> {
    let statements = source.lines().filter_map(|line| {
        let line = line.trim_start().trim_start_matches("pub ");
        let line = line
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ");
        let (name, rest) = line.strip_prefix("const ")?.split_once(':')?;
        let (_, expression) = rest.split_once('=')?;
        Some((name.to_owned(), expression.trim_end_matches(';').to_owned()))
    });
    statements.collect()
}

#[test]
fn each_row_has_its_constants_value() {
    let rows = rows();
    assert!(rows.len() > 40, "the table has only {} rows", rows.len());
    for row in rows {
        let Row {
            what,
            file,
            constant,
            ..
        } = &row;
        let source = fs::read_to_string(workspace().join(file))
            .unwrap_or_else(|error| panic!("docs/LIMITS.md, {what}: {file}: {error}"));
        let all = constants(&source);
        let (_, expression) = all
            .iter()
            .find(|(name, _)| name == constant)
            .unwrap_or_else(|| panic!("docs/LIMITS.md, {what}: {file} has no {constant}"));
        let mut found = value(expression);
        if constant.ends_with("_MIB") {
            found *= f64::from(1 << 20);
        }
        assert!(
            (found - row.number).abs() < 0.5,
            "docs/LIMITS.md says {} for {what}, and {file} {constant} = {expression}",
            row.number
        );
    }
}

#[test]
fn each_limit_has_its_row() {
    let listed: BTreeSet<_> = rows()
        .into_iter()
        .map(|row| (row.file, row.constant))
        .collect();
    let mut missing = Vec::new();
    let mut folders: Vec<_> = CRATES.map(|name| workspace().join(name).join("src")).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = path
                .strip_prefix(workspace())
                .unwrap()
                .display()
                .to_string();
            if file.ends_with("limits_table.rs") || !file.ends_with(".rs") {
                continue;
            }
            for (name, expression) in constants(&fs::read_to_string(&path).unwrap()) {
                let is_limit = NAMES
                    .iter()
                    .any(|part| name.split('_').any(|word| word == *part));
                let is_internal = INTERNAL.contains(&name.as_str())
                    || INTERNAL.contains(&format!("{file} {name}").as_str())
                    || expression.contains("ArchiveError");
                if is_limit && !is_internal && !listed.contains(&(file.clone(), name.clone())) {
                    missing.push(format!("{file} {name}"));
                }
            }
        }
    }
    assert!(
        missing.is_empty(),
        "say in docs/LIMITS.md what happens beyond these (or in INTERNAL that no caller meets them): {missing:#?}"
    );
}
