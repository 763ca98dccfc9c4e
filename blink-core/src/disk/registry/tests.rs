use std::sync::Barrier;

use super::*;

#[test]
fn many_that_open_a_new_one_at_once_all_get_it() {
    const MANY: usize = 8;
    for _ in 0..20 {
        let home = tempfile::tempdir().expect("a folder");
        let start = Barrier::new(MANY);
        std::thread::scope(|scope| {
            for _ in 0..MANY {
                scope.spawn(|| {
                    start.wait();
                    // The last that closes it removes its log, while another opens it again.
                    for _ in 0..5 {
                        let registry = Registry::open(home.path()).expect("a registry");
                        registry.session("one").expect("a list");
                    }
                });
            }
        });
    }
}

#[test]
fn a_chain_that_has_no_end_or_lacks_a_layer_is_corrupt() {
    let home = tempfile::tempdir().expect("a folder");
    let registry = Registry::open(home.path()).expect("a registry");
    let change = |statement| {
        let changed = registry.connection.execute_batch(statement);
        changed.expect("a change");
    };
    change("INSERT INTO layers VALUES ('low', NULL, 'namespace'), ('high', 'low', 'namespace')");
    assert_eq!(registry.chain("high").expect("a chain"), ["low", "high"]);
    change("UPDATE layers SET parent = 'high' WHERE id = 'low'");
    change("PRAGMA foreign_keys = OFF; INSERT INTO layers VALUES ('top', 'none', 'namespace')");
    for id in ["high", "low", "top", "none"] {
        let error = registry.chain(id).expect_err("no chain");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

/// As 0.1.0 has written them.
const EARLIER_OPTIONS: &str = r#"{"image":"host","resources":{"cpus":null,"memory_mib":null,"disk_mib":10240,"processes":300},
    "network":"None","mounts":[],"env":[["A","1"]],"current_dir":null,"user":null,"publish":[],"labels":{"owner":"me"},
    "idle_stop":null,"warm":false,"digest":null,"config":{}}"#;

#[test]
fn one_of_an_earlier_version_keeps_what_it_has() {
    let home = tempfile::tempdir().expect("a folder");
    let earlier = Connection::open(home.path().join(FILE)).expect("a database");
    let made = earlier.execute_batch(MIGRATIONS[0]).and_then(|()| {
        earlier.pragma_update(None, "user_version", 1)?;
        earlier.execute_batch("INSERT INTO layers VALUES ('low', NULL, 'namespace')")?;
        earlier
            .execute(
                "INSERT INTO sessions VALUES ('id', 'one', 'namespace', ?1, 'low', NULL, NULL, 0)",
                [EARLIER_OPTIONS],
            )
            .map(drop)
    });
    made.expect("tables");
    drop(earlier);
    for _ in 0..2 {
        let registry = Registry::open(home.path()).expect("a registry");
        assert_eq!(registry.layers().expect("layers"), ["low"]);
        let session = registry.session("one").expect("a list").expect("a session");
        let spec = session.options.spec;
        assert_eq!((spec.processes, spec.image()), (Some(300), "host"));
        assert_eq!(spec.labels["owner"], "me");
        let version: u32 = registry
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .expect("a version");
        assert_eq!(version as usize, MIGRATIONS.len());
    }
}
