//! The record of a machine in its sandbox's folder, for later processes: the name of its engine, and what that has to know.

use std::fs;
use std::path::Path;

use blink_host::private;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::isolation::Isolation;

const RECORD: &str = "record.json";

/// The field with the engine's name.
const ENGINE: &str = "engine";

/// Records of releases up to 0.1, whose names said whose they were. A sandbox that such a release has left has one.
const EARLIER: [(&str, Isolation); 2] = [
    ("microvm.json", Isolation::Microvm),
    ("machine.json", Isolation::Namespace),
];

/// Writes the record, old or new: whoever reads it meanwhile finds one whole.
pub(super) fn write(
    folder: &Path,
    isolation: Isolation,
    machine: &impl Serialize,
) -> std::io::Result<()> {
    let mut record = serde_json::to_value(machine)?;
    record[ENGINE] = isolation.name().into();
    let new = folder.join(format!("{RECORD}.new"));
    private::write_file(&new, serde_json::to_vec(&record)?)?;
    fs::rename(new, folder.join(RECORD))?;
    for (earlier, _) in EARLIER {
        let _ = fs::remove_file(folder.join(earlier));
    }
    Ok(())
}

/// The record, and whose it is.
pub(super) fn read(folder: &Path) -> Option<(Isolation, Value)> {
    let parse = |name: &str| serde_json::from_slice(&fs::read(folder.join(name)).ok()?).ok();
    if let Some(record) = parse(RECORD) {
        let record: Value = record;
        let isolation = Isolation::from_name(record.get(ENGINE)?.as_str()?)?;
        return Some((isolation, record));
    }
    let mut earlier = EARLIER.into_iter();
    earlier.find_map(|(name, isolation)| Some((isolation, parse(name)?)))
}

/// What an engine has written, where it was this one.
pub(super) fn read_as<T: DeserializeOwned>(folder: &Path, isolation: Isolation) -> Option<T> {
    let (found, record) = read(folder)?;
    (found == isolation).then(|| serde_json::from_value(record).ok())?
}

/// There is no machine any more.
pub(super) fn remove(folder: &Path) {
    let earlier = EARLIER.map(|(name, _)| name);
    for name in [RECORD].into_iter().chain(earlier) {
        let _ = fs::remove_file(folder.join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_earlier_release_is_read_until_there_is_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(read(path), None);
        for (name, isolation) in EARLIER {
            fs::write(path.join(name), r#"{"machine":"x"}"#).unwrap();
            let record = serde_json::json!({"machine": "x"});
            assert_eq!(read(path), Some((isolation, record)));
            fs::remove_file(path.join(name)).unwrap();
        }
        fs::write(path.join("machine.json"), "{}").unwrap();
        write(
            path,
            Isolation::Microvm,
            &serde_json::json!({"machine": "y"}),
        )
        .unwrap();
        assert!(!path.join("machine.json").exists());
        let found: Option<Value> = read_as(path, Isolation::Namespace);
        assert_eq!(found, None);
        let found: Value = read_as(path, Isolation::Microvm).unwrap();
        assert_eq!(
            (&found["machine"], &found["engine"]),
            (&"y".into(), &"microvm".into())
        );
        remove(path);
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
    }

    #[test]
    fn what_names_no_engine_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"engine":7}"#,
            r#"{"engine":"other"}"#,
        ] {
            fs::write(folder.path().join(RECORD), text).unwrap();
            assert_eq!(read(folder.path()), None, "{text}");
        }
    }
}
