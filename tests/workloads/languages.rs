//! Compilers and interpreters.

use crate::support::{Workplace, program};

#[tokio::test]
async fn c_is_compiled_and_sanitized() {
    program("gcc", "gcc");
    let place = Workplace::new().await;
    let script = r#"
printf '#include <stdio.h>\n#include <stdlib.h>\nint main(){char*p=malloc(4);p[0]=7;printf("%%d\\n",p[0]);free(p);return 0;}' >a.c
gcc -O2 a.c -o a && ./a
gcc -fsanitize=address,undefined a.c -o b && ./b
printf '#include <stdlib.h>\nint main(){char*p=malloc(4);free(p);return p[0];}' >bad.c
gcc -fsanitize=address bad.c -o bad && ! ./bad 2>report && grep -o heap-use-after-free report | head -n 1
printf 'all: x y\nx y:\n\tsleep 0.1; touch $@\n' >Makefile && make -s -j 4 && ls x y"#;
    assert_eq!(place.says(script).await, "7\n7\nheap-use-after-free\nx\ny");
}

#[tokio::test]
async fn java_compiles_runs_and_finds_its_host() {
    program("javac", "default-jdk-headless");
    let place = Workplace::with(|builder| builder.memory_mib(512)).await;
    let script = r#"
cat >Hello.java <<'END'
public class Hello {
    public static void main(String[] arguments) throws Exception {
        Thread[] threads = new Thread[100];
        for (int i = 0; i < threads.length; i++) { threads[i] = new Thread(() -> {}); threads[i].start(); }
        for (Thread thread : threads) thread.join();
        System.out.println("grüße " + java.net.InetAddress.getLocalHost().getHostAddress());
    }
}
END
javac Hello.java && java -Xmx128m Hello"#;
    assert_eq!(place.says(script).await, "grüße 127.0.1.1");
}

#[tokio::test]
async fn maven_finds_its_settings() {
    program("mvn", "maven");
    let place = Workplace::new().await;
    assert!(
        place
            .says("mvn --batch-mode --version")
            .await
            .contains("Apache Maven")
    );
}

#[tokio::test]
async fn go_builds_and_tests() {
    program("go", "golang-go");
    let place = Workplace::new().await;
    let script = r#"
export GOCACHE=/tmp/cache GOFLAGS=-mod=mod GOPROXY=off
mkdir m && cd m && go mod init example.com/m 2>/dev/null
printf 'package m\nfunc Twice(n int) int { return 2 * n }\n' >m.go
printf 'package m\nimport "testing"\nfunc TestTwice(t *testing.T) { if Twice(21) != 42 { t.Fatal() } }\n' >m_test.go
go test ./... | cut -f 1"#;
    assert_eq!(place.says(script).await, "ok");
}

#[tokio::test]
async fn node_serves_at_localhost_and_runs_its_workers() {
    program("node", "nodejs");
    let place = Workplace::new().await;
    let script = r#"
cat >a.js <<'END'
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (!isMainThread) { parentPort.postMessage('worker'); return; }
const http = require('http');
const server = http.createServer((_, answer) => answer.end('served'));
server.listen(0, 'localhost', () => http.get({ host: 'localhost', port: server.address().port }, (answer) => {
    answer.on('data', (data) => {
        console.log(String(data));
        new Worker(__filename).on('message', (said) => { console.log(said); process.exit(); });
    });
}));
END
node a.js && mkdir -p d/e && node -e "require('fs').renameSync('d', 'f')" && ls f"#;
    assert_eq!(place.says(script).await, "served\nworker\ne");
}

#[tokio::test]
async fn python_makes_environments_and_uses_processes() {
    program("python3", "python3-venv");
    let place = Workplace::new().await;
    let script = r#"
/usr/bin/python3 -m venv v
v/bin/python -m pip --version | cut -d ' ' -f 1
v/bin/python - <<'END'
import asyncio, concurrent.futures, multiprocessing, multiprocessing.shared_memory, socket, sqlite3, ssl, tempfile, threading
with multiprocessing.Pool(4) as pool: print(sum(pool.map(abs, range(-1000, 0))))
shared = multiprocessing.shared_memory.SharedMemory(create=True, size=100 << 20); shared.close(); shared.unlink()
with concurrent.futures.ProcessPoolExecutor(2) as pool: print(pool.submit(pow, 2, 10).result())
async def talk():
    async def answer(reader, writer): writer.write(await reader.readline()); writer.close()
    server = await asyncio.start_server(answer, socket.gethostname(), 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    writer.write(b'line\n'); print((await reader.readline()).decode().strip())
asyncio.run(talk())
END"#;
    assert_eq!(place.says(script).await, "pip\n500500\n1024\nline");
}
