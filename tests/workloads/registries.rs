//! Packages from their registries: pip, npm and cargo install them in a sandbox, and the tests that they bring say there what they
//! say on this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use blink_core::{Mount, Network};
use tempfile::TempDir;

use crate::support::{Workplace, program, said_here};

/// Prefixes of the environment variables that configure registries and trusted certificates on this machine.
const CLIENTS: [&str; 6] = [
    "PIP_",
    "NPM_CONFIG_",
    "npm_config_",
    "CARGO_HTTP_",
    "SSL_CERT_",
    "NODE_EXTRA_CA_CERTS",
];

/// A folder that a sandbox with this machine's network shares with it, under the same path: environments name their own.
struct Bench {
    place: Workplace,
    folder: TempDir,
    env: Vec<(OsString, OsString)>,
}

impl Bench {
    /// With folders of programs that this machine has elsewhere.
    async fn new(programs: &[PathBuf]) -> Bench {
        let folder = tempfile::Builder::new().prefix("bench").tempdir().unwrap();
        let path = programs.iter().map(|folder| folder.join("bin"));
        let path = path.chain(["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from));
        let own = [
            ("HOME", folder.path().as_os_str().to_owned()),
            ("PATH", std::env::join_paths(path).unwrap()),
            ("LANG", "C.UTF-8".into()),
        ];
        let clients = std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            CLIENTS.iter().any(|start| name.starts_with(start))
        });
        let env: Vec<(OsString, OsString)> = clients
            .chain(own.map(|(name, value)| (name.into(), value)))
            .collect();
        let shared = folder.path();
        let place = Workplace::with(|builder| {
            let builder = builder
                .network(Network::Host)
                .mount(Mount::new(shared, shared))
                .current_dir(shared);
            let builder = programs.iter().fold(builder, |builder, folder| {
                builder.mount(Mount::new(folder, folder).read_only())
            });
            env.iter()
                .fold(builder, |builder, (name, value)| builder.env(name, value))
        })
        .await;
        Bench { place, folder, env }
    }

    /// What a script says inside, which is what it says outside afterwards.
    async fn says_as_here(&self, script: &str) -> String {
        let inside = self.place.says(script).await;
        let here = said_here(script, self.folder.path(), &self.env);
        assert_eq!(inside, here, "inside and here");
        inside
    }
}

/// How many tests have passed, as pytest and cargo say it.
fn passed(said: &str) -> u32 {
    let words: Vec<&str> = said.split_whitespace().collect();
    let counts = words.windows(2).filter_map(|pair| {
        let is_count = pair[1].trim_end_matches([',', ';']) == "passed";
        is_count.then(|| pair[0].parse::<u32>().unwrap())
    });
    counts.sum()
}

#[tokio::test]
async fn pip_installs_and_suites_of_python_pass() {
    program("python3", "python3-venv");
    let bench = Bench::new(&[]).await;
    let installed = bench
        .place
        .says(
            "/usr/bin/python3 -m venv v; v/bin/pip -q install pytest click markupsafe pluggy ipykernel jupyter_client; \
             for name in click markupsafe pluggy; do \
                 v/bin/pip -q download --no-deps --no-binary $name $name; tar xzf $name-*.tar.gz; rm $name-*.tar.gz; mv $name-* $name; \
             done; v/bin/python -c 'import click, markupsafe._speedups; print(click.__name__)'",
        )
        .await;
    assert_eq!(installed, "click");
    // How long they took is not the same.
    let suites = "for name in click markupsafe pluggy; do \
                      (cd $name; ../v/bin/python -m pytest -q -p no:cacheprovider 2>&1 </dev/null || true) \
                      | sed -n 's/ in [0-9.]*s.*//p; s/^\\(FAILED\\|ERROR\\).*/not passed/p'; \
                  done";
    let said = bench.says_as_here(suites).await;
    assert!(!said.contains("not passed"), "{said}");
    assert!(passed(&said) > 1000, "{said}");

    // A notebook's kernel: cells share their variables, and one may be interrupted.
    let cells = r#"cat >cells.py <<'END'
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name='python3')
def run(code, **more):
    printed = []
    def hook(message):
        content = message['content']
        if message['msg_type'] == 'stream': printed.append(content['text'].strip())
        if message['msg_type'] == 'error': printed.append(content['ename'])
        if message['msg_type'] == 'stream' and content['text'].startswith('begun'): manager.interrupt_kernel()
    client.execute_interactive(code, output_hook=hook, timeout=60)
    print(*printed)
run('a = 6')
run('print(a * 7)')
run('import time\nprint("begun", flush=True)\ntime.sleep(100)')
run('print(a)')
client.stop_channels(); manager.shutdown_kernel()
END
v/bin/python cells.py 2>/dev/null"#;
    let said = bench.place.says(cells).await;
    assert_eq!(said, "\n42\nbegun KeyboardInterrupt\n6");
}

#[tokio::test]
async fn npm_installs_and_suites_of_node_pass() {
    program("npm", "npm");
    let bench = Bench::new(&[]).await;
    // The packages, and what their tests need.
    let fetched = "echo {} >package.json; \
                   npm install --silent --no-audit --no-fund qs minimist deep-equal tape@5 es-value-fixtures has-override-mistake \
                       has-property-descriptors has-proto has-symbols has-bigints mock-property iconv-lite qs-iconv safer-buffer \
                       object-inspect for-each semver@6 has-typed-arrays available-typed-arrays \
                       object.getownpropertydescriptors >/dev/null; ls node_modules/.bin/tape";
    assert_eq!(bench.place.says(fetched).await, "node_modules/.bin/tape");
    let suites = "for name in qs minimist deep-equal; do \
                      (node_modules/.bin/tape \"node_modules/$name/test/*.js\" 2>&1 </dev/null || true) \
                      | sed -n 's/^# pass *\\([0-9]*\\)$/\\1 passed/p; /^not ok/s/.*/not passed/p'; \
                  done";
    let said = bench.says_as_here(suites).await;
    assert!(!said.contains("not passed"), "{said}");
    assert!(passed(&said) > 1000, "{said}");
}

/// Where the toolchain is that built this.
fn toolchain() -> PathBuf {
    let output = std::process::Command::new("rustc")
        .args(["--print", "sysroot"])
        .output();
    let path = String::from_utf8(output.unwrap().stdout).unwrap();
    Path::new(path.trim()).to_owned()
}

#[tokio::test]
async fn cargo_fetches_and_suites_of_rust_pass() {
    let bench = Bench::new(&[toolchain()]).await;
    let fetched = "cargo new -q --lib --vcs none suites; cd suites; cargo add -q semver bytes strsim; cargo vendor -q >/dev/null; ls vendor";
    let fetched = bench.place.says(fetched).await;
    assert_eq!(fetched, "bytes\nsemver\nstrsim");
    let suites = "export CARGO_TARGET_DIR=$PWD/target; cd suites; for name in semver bytes strsim; do \
                      (cd vendor/$name; cargo test --lib --tests 2>&1) | sed -n 's/; finished in .*//p; s/^error.*/not passed/p'; \
                  done";
    let said = bench.says_as_here(suites).await;
    assert!(!said.contains("not passed"), "{said}");
    assert!(passed(&said) > 100, "{said}");
}
