//! What goes into sessions and comes out of them: files, archives, images.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::builder;
use crate::support::{HOST, Home};

#[test]
fn files_are_copied_both_ways() {
    let home = Home::with(&["a"]);
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let file = home.file("data.bin", &bytes);
    let folder = home.0.path().join("folder");
    fs::create_dir_all(folder.join("inner")).unwrap();
    fs::write(folder.join("inner/x"), "x").unwrap();
    let here = |path: &Path| path.to_str().unwrap().to_owned();
    let copied = home.json(&["cp", &here(&file), "a:/var/"]);
    assert_eq!(
        (&copied["event"], &copied["name"], &copied["to"]),
        (&json!("session_copied"), &json!("a"), &json!("a:/var/"))
    );
    home.says(&["cp", &here(&folder), "a:/var"]);
    home.says(&["cp", &here(&folder), "a:/var/other"]);
    assert_eq!(
        home.shell("a", "cat /var/folder/inner/x /var/other/inner/x"),
        "xx"
    );
    let back = home.0.path().join("back.bin");
    home.says(&["cp", "a:/var/data.bin", &here(&back)]);
    assert!(fs::read(&back).unwrap() == bytes);
    home.says(&["cp", "a:/var/folder", "."]);
    home.says(&["cp", "a:/var/other", "./new"]);
    assert_eq!(
        fs::read_to_string(home.0.path().join("new/inner/x")).unwrap(),
        "x"
    );
    for (arguments, kind) in [
        (["cp", "a:/nothing", "."], "NotFound"),
        (["cp", "./nothing", "a:/var"], "NotFound"),
        (["cp", "data.bin", "a:/nothing/"], "NotFound"),
        (["cp", "a:/var/data.bin", "nothing/"], "NotFound"),
        (["cp", "data.bin", "none:/var"], "NotFound"),
        (["cp", "data.bin", "elsewhere"], "InvalidArgument"),
        (["cp", "a:/var", "a:/opt"], "InvalidArgument"),
    ] {
        assert_eq!(home.refusal(&arguments)["kind"], kind, "{arguments:?}");
    }
}

#[test]
fn archives_are_written_and_read_with_what_the_session_was() {
    let home = Home::new();
    let mut open = vec![
        "open",
        "--name",
        "a",
        "--label",
        "team=blue",
        "--env",
        "A=1",
        "--disk-mib",
        "20480",
    ];
    open.extend(HOST);
    home.says(&open);
    home.shell("a", "echo one > /var/blink/memory/note");
    home.says(&["checkpoint", "--name", "a", "--snapshot", "s"]);
    home.shell("a", "echo two > /var/blink/memory/note");
    let told = home.json(&["export", "--name", "a"]);
    assert_eq!(
        (&told["event"], &told["path"], &told["format"]),
        (
            &json!("session_exported"),
            &json!("a.boxlite"),
            &json!("boxlite")
        )
    );
    let export = [
        "export",
        "--name",
        "a",
        "--snapshot",
        "s",
        "--output",
        "s.boxlite",
    ];
    assert_eq!(home.json(&export)["snapshot"], "s");
    let words = home.says(&["export", "--name", "a", "--output", "again.boxlite"]);
    assert!(words.starts_with("wrote again.boxlite ("), "{words}");

    let isolated = ["--isolation", "namespace"];
    let import = [&["import", "a.boxlite", "--name", "b"][..], &isolated].concat();
    let told = home.json(&import);
    assert_eq!(
        (&told["event"], &told["image"], &told["warm"]),
        (&json!("session_imported"), &json!("host"), &json!(false))
    );
    // More than the default is nothing that a file can ask for.
    let declined = json!([{ "option": "disk_mib", "asked": "20480", "given": "10240" }]);
    assert_eq!(told["declined"], declined);
    assert_eq!(
        home.shell("b", "cat /var/blink/memory/note; echo $A"),
        "two\n1\n"
    );
    assert_eq!(
        home.json(&["inspect", "--name", "b"])["labels"],
        json!({"team": "blue"})
    );
    assert_eq!(home.refusal(&import)["kind"], "AlreadyExists");
    // Named by its file; what options say counts.
    let import = [&["import", "s.boxlite", "--env", "A=2"][..], &isolated].concat();
    let words = home.says(&import);
    assert!(words.contains("not given"), "{words}");
    assert_eq!(
        home.shell("s", "cat /var/blink/memory/note; echo $A"),
        "one\n2\n"
    );
    // What no image can be made of says what can be done.
    let refusal = home.refusal(&["export", "--name", "a", "--oci", "--output", "x"]);
    assert_eq!(refusal["kind"], "Unsupported");
    assert!(!home.0.path().join("x").exists());
}

#[test]
fn a_session_becomes_an_image_that_runs() {
    let home = Home::new();
    let program = fs::read("/usr/bin/busybox").or_else(|_| fs::read("/bin/busybox"));
    let program = program.expect("there is no busybox here; `scripts/setup test` installs it");
    let layer = builder::LayerTar::new()
        .folder("work/", 0o777)
        .folder("tmp/", 0o777)
        .folder("bin/", 0o755)
        .file_with("bin/sh", 0o755, 0, &program);
    let image = home.0.path().join("base");
    builder::Layout::of(&image, &[builder::StoredLayer::gzip(layer)]);
    let namespace = ["--isolation", "namespace", "--image"];
    let open = [&["open", "--name", "a"][..], &namespace, &["./base"]].concat();
    home.says(&open);
    home.shell("a", "echo made > /tmp/file");
    let told = home.json(&["export", "--name", "a", "--oci"]);
    assert_eq!(
        (&told["event"], &told["path"], &told["format"]),
        (&json!("session_exported"), &json!("a.oci"), &json!("oci"))
    );
    assert!(told["size_bytes"].as_u64().unwrap() > 100_000, "{told}");
    home.says(&["export", "--name", "a", "--oci", "--output", "a.tar"]);
    for (name, image) in [("b", "./a.oci"), ("c", "./a.tar")] {
        let open = [&["open", "--name", name][..], &namespace, &[image]].concat();
        home.says(&open);
        assert_eq!(
            home.shell(name, "read line < /tmp/file; echo $line"),
            "made\n"
        );
    }
}
