#!/usr/bin/env bash
# Runs a hostile agent program in a sandbox, and shows that it was contained. Needs target/release/blink (make build).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

blink=$PWD/target/release/blink
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export BLINK_HOME=$folder/home
failures=0

title() { printf '\n== %s\n' "$*"; }

# check WHAT COMMAND...: says whether the command succeeds.
check() {
    local what=$1
    shift
    if "$@"; then
        printf 'PASS  %s\n' "$what"
    else
        printf 'FAIL  %s\n' "$what"
        failures=$((failures + 1))
    fi
}

# With this machine's own programs, which need no registry.
run() { "$blink" run --image host --isolation "$isolation" "$@"; }

title "What works on this machine"
"$blink" doctor
isolation=auto
run -- true
isolation=$("$blink" run --image host --isolation auto --json -- true 2>/dev/null | sed -n 's/.*"isolation":"\([a-z]*\)".*/\1/p')
check "a sandbox starts, and says how it is isolated ($isolation)" test -n "$isolation"

title "An agent program that tries to get out"
canary=$folder/secret
echo "the host's secret" >"$canary"
run examples/agent.py "$canary"
check "it did its work, and every attempt to get out was refused" test $? -eq 0

title "A timeout that ends everything"
mkdir -m 777 "$folder/shared"
# Three children that would each leave a trace after two seconds: one plain, one in a session of its own, one whose
# parent has gone and that ignores signals.
run --timeout 1s --mount "$folder/shared:/shared" -- sh -c '
    (sleep 2; touch /shared/plain) &
    setsid sh -c "sleep 2; touch /shared/session" &
    (trap "" TERM HUP INT; (sleep 2; touch /shared/orphan) &) &
    echo "started three children; waiting for ever"
    sleep 1000'
status=$?
check "the command says that its time was over (exit status $status)" test "$status" -eq 124
sleep 2
check "none of its children lived on" test -z "$(ls -A "$folder/shared")"

title "Bytes, not text"
head -c 8388608 /dev/urandom >"$folder/bytes"
run -- cat <"$folder/bytes" >"$folder/echoed"
check "8 MiB of random bytes went in and came out the same" cmp -s "$folder/bytes" "$folder/echoed"
sum=$(run -- sha256sum <"$folder/bytes" | cut -d' ' -f1)
check "and the sandbox saw the same bytes" test "$sum" = "$(sha256sum <"$folder/bytes" | cut -d' ' -f1)"

title "Nothing stays"
check "no sandbox is left" test -z "$(ls -A "$BLINK_HOME/sandboxes")"
check "no mount is left" test -z "$(grep -F "$folder" /proc/self/mounts)"

if ((failures > 0)); then
    printf '\n%d of the checks failed\n' "$failures"
    exit 1
fi
printf '\nEverything was contained.\n'
