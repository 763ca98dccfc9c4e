"""An agent's program that nobody should trust: it works, and it tries to get out.

Run it in a sandbox: blink run --image host --isolation auto examples/agent.py [CANARY]
CANARY is a file of the host that it tries to read. The last line that it prints is its result, as JSON; its exit code
is 0 only if every attempt to get out failed.
"""

import ctypes
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile

MOUNT_TMPFS = b"tmpfs"
PTRACE_ATTACH = 16


def work():
    """What an agent's program does all day: compute, files, children."""
    primes = [n for n in range(2, 10_000) if all(n % d for d in range(2, int(n**0.5) + 1))]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "primes.txt")
        with open(path, "w") as file:
            file.write("\n".join(map(str, primes)))
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        children = [
            subprocess.Popen(["sh", "-c", f"wc -l < {path}"], stdout=subprocess.PIPE) for _ in range(4)
        ]
        counts = [int(child.communicate()[0]) + 1 for child in children]
    return {"primes": len(primes), "sha256": digest[:16], "children_agree": set(counts) == {len(primes)}}


def read(path):
    with open(path, "rb") as file:
        return file.read(64)


def connect(address):
    with socket.create_connection(address, timeout=2):
        return "connected"


def call(name, *arguments):
    """A function of libc that is refused to whoever has no privilege."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "allowed"


def list_home():
    names = os.listdir("/root") + [name for name in os.listdir("/home") if os.listdir("/home/" + name)]
    if not names:
        raise FileNotFoundError("nothing is there")
    return names


def attempts(canary):
    yield "read a file of the host", lambda: read(canary)
    yield "read the host's passwords", lambda: read("/etc/shadow")
    yield "read the homes of the host's users", list_home
    yield "reach the internet", lambda: connect(("1.1.1.1", 443))
    yield "look up a name", lambda: socket.getaddrinfo("example.com", 443)
    yield "change the machine's programs", lambda: open("/usr/bin/owned", "w")
    yield "mount a file system", lambda: call("mount", b"none", b"/mnt", MOUNT_TMPFS, 0, None)
    yield "make namespaces", lambda: call("unshare", 0x10000000)
    yield "take over process 1", lambda: call("ptrace", PTRACE_ATTACH, 1, None, None)
    yield "end process 1", lambda: os.kill(1, 9) or (os.path.exists("/proc/1") and deny())
    yield "load a kernel module", lambda: call("syscall", 175, None, 0, b"")
    yield "change the clock", lambda: call("syscall", 227, 0, ctypes.byref((ctypes.c_long * 2)(0, 0)))
    yield "open the disk", lambda: read("/dev/sda")


def deny():
    raise PermissionError("it goes on")


def main():
    canary = sys.argv[1] if len(sys.argv) > 1 else "/etc/hostname"
    result = work()
    print(f"worked: {result['primes']} primes, files and children agree: {result['children_agree']}")
    escaped = []
    for what, attempt in attempts(canary):
        try:
            got = attempt()
            escaped.append(what)
            print(f"  GOT OUT   {what}: {got!r}")
        except OSError as error:
            print(f"  refused   {what}: {error.strerror or error}")
    result["escaped"] = escaped
    print(json.dumps(result))
    return 1 if escaped or not result["children_agree"] else 0


if __name__ == "__main__":
    sys.exit(main())
