//! What people work with beside compilers.

use crate::support::{Workplace, program};

#[tokio::test]
async fn git_keeps_a_history_and_clones_it() {
    program("git", "git");
    let place = Workplace::new().await;
    let script = r#"
git init --quiet one && cd one && git config user.name a && git config user.email a@example.com
mkdir d && echo 1 >d/f && git add . && git commit --quiet -m first
git mv d e && git commit --quiet -m moved && git gc --quiet
git clone --quiet . ../two && cd ../two && git log --format=%s && git diff --name-status --find-renames HEAD~1 | cut -f 1"#;
    assert_eq!(place.says(script).await, "moved\nfirst\nR100");
}

#[tokio::test]
async fn debuggers_look_into_programs() {
    program("strace", "strace");
    program("gdb", "gdb");
    program("valgrind", "valgrind");
    let place = Workplace::new().await;
    let script = r#"
strace -f -e trace=execve -o trace sh -c 'ls >/dev/null; true' && grep -c 'execve(' trace
printf 'int f(int n){return n+1;}\nint main(int c,char**v){return f(c)-2;}' >a.c && gcc -g a.c -o a
gdb -batch -ex 'break f' -ex run -ex 'print n' ./a 2>/dev/null | grep -F '$1 = 1'
sleep 100 & gdb -batch -p $! -ex detach 2>&1 | grep -c detached; kill $!
valgrind -q --error-exitcode=9 ./a && echo clean"#;
    assert_eq!(place.says(script).await, "2\n$1 = 1\n1\nclean");
}

#[tokio::test]
async fn a_terminal_multiplexer_keeps_its_sessions() {
    program("tmux", "tmux");
    let place = Workplace::new().await;
    let script = r#"
tmux -f /dev/null new-session -d -s work 'echo in >/tmp/said; exec sleep 1000'
for i in $(seq 200); do [ -s /tmp/said ] && break; sleep 0.05; done
cat /tmp/said; tmux list-sessions -F '#{session_name}'; tmux kill-server"#;
    assert_eq!(place.says(script).await, "in\nwork");
}

#[tokio::test]
async fn users_are_made_and_become_others() {
    let place = Workplace::new().await;
    let script = r#"
useradd --create-home anna && echo anna:secret | chpasswd && su anna -c 'id -un; cd && pwd && umask'
mkdir a && echo 1 >a/f && chown anna:anna a/f && tar cf a.tar a && rm -r a && tar xf a.tar && stat -c %U a/f"#;
    if rustix::process::geteuid().is_root() {
        assert_eq!(place.says(script).await, "anna\n/home/anna\n0022\nanna");
    }
}

#[tokio::test]
async fn certificates_are_made_and_used() {
    program("openssl", "openssl");
    let place = Workplace::new().await;
    let script = r#"
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key -out certificate 2>/dev/null
openssl s_server -accept 4433 -key key -cert certificate -www >/dev/null 2>&1 & server=$!
for i in $(seq 200); do openssl s_client -connect localhost:4433 -CAfile certificate -verify_return_error </dev/null >answer 2>/dev/null && break; sleep 0.05; done
grep -o 'Verify return code: 0 (ok)' answer | head -n 1; kill $server"#;
    assert_eq!(place.says(script).await, "Verify return code: 0 (ok)");
}
