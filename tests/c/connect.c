/* Connections into sandboxes: sockets of the host's. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Says what comes, and "bye" behind its end. */
#define SERVE(socket)                                                                                                  \
    "exec python3 -c \"\n"                                                                                             \
    "import socket, threading\n"                                                                                       \
    "def serve(c):\n"                                                                                                  \
    "  while True:\n"                                                                                                  \
    "    b = c.recv(65536)\n"                                                                                          \
    "    if not b: break\n"                                                                                            \
    "    c.sendall(b)\n"                                                                                               \
    "  c.sendall(b'bye')\n"                                                                                            \
    "  c.close()\n"                                                                                                    \
    "s = " socket "\n"                                                                                                 \
    "s.listen()\n"                                                                                                     \
    "print('ready', flush=True)\n"                                                                                     \
    "while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()\n\""

static const char TCP[] = SERVE("socket.create_server(('127.0.0.1', 4300))");
static const char UNIX[] = SERVE("socket.socket(socket.AF_UNIX); s.bind('/tmp/socket')");

static void is_ready(blink_process *server)
{
    blink_error *err = NULL;
    uint8_t line[16];
    size_t count;
    OK(blink_process_read(server, BLINK_STREAM_STDOUT, line, sizeof line, &count, NULL, &err));
    CHECK(is(line, count, "ready\n"));
}

struct sending {
    int fd;
    size_t length;
};

static void *send_all(void *data)
{
    struct sending *sending = data;
    char bytes[5000];
    memset(bytes, 'x', sizeof bytes);
    for (size_t sent = 0; sent < sending->length; sent += sizeof bytes)
        for (size_t done = 0; done < sizeof bytes;) {
            ssize_t count = write(sending->fd, bytes + done, sizeof bytes - done);
            CHECK(count > 0);
            done += (size_t)count;
        }
    CHECK(shutdown(sending->fd, SHUT_WR) == 0);
    return NULL;
}

/* Everything comes back, and what is behind it, while the other direction is at its end already. */
static void talk(int fd, size_t length)
{
    CHECK(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) && !(fcntl(fd, F_GETFL) & O_NONBLOCK));
    struct sending sending = {fd, length};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, send_all, &sending) == 0);
    size_t got = 0;
    char bytes[4096], last[3] = {0};
    for (;;) {
        ssize_t count = read(fd, bytes, sizeof bytes);
        CHECK(count >= 0);
        if (count == 0)
            break;
        for (ssize_t i = 0; i < count; i++) {
            last[0] = last[1], last[1] = last[2], last[2] = bytes[i];
            got++;
        }
    }
    CHECK(got == length + 3 && memcmp(last, "bye", 3) == 0);
    pthread_join(thread, NULL);
    CHECK(close(fd) == 0);
}

static void of_a_sandbox(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox *sandbox = make_sandbox(all);
    blink_process *server, *other;
    blink_command command = shell(TCP);
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &server, &err));
    is_ready(server);
    command = shell(UNIX);
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &other, &err));
    is_ready(other);
    int fd;
    OK(blink_sandbox_connect_tcp(sandbox, "127.0.0.1", 4300, NULL, &fd, &err));
    talk(fd, 5000000);
    OK(blink_sandbox_connect_tcp(sandbox, "localhost", 4300, NULL, &fd, &err));
    talk(fd, 0);
    OK(blink_sandbox_connect_unix(sandbox, "/tmp/socket", NULL, &fd, &err));
    talk(fd, 100000);

    FAILS(BLINK_STATUS_NOT_FOUND, blink_sandbox_connect_tcp(sandbox, "localhost", 9, NULL, &fd, &err));
    CHECK(fd == -1);
    FAILS(BLINK_STATUS_NOT_FOUND, blink_sandbox_connect_unix(sandbox, "/tmp/none", NULL, &fd, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_sandbox_connect_tcp(sandbox, "example.com", 80, NULL, &fd, &err));
    blink_cancel *cancel = blink_cancel_new();
    blink_cancel_now(cancel);
    FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_connect_tcp(sandbox, "localhost", 4300, cancel, &fd, &err));
    blink_cancel_free(cancel);

    /* The peer goes: what it does not take fails, sooner or later. */
    OK(blink_sandbox_connect_tcp(sandbox, "localhost", 4300, NULL, &fd, &err));
    OK(blink_process_kill(server, &err));
    char byte;
    CHECK(read(fd, &byte, 1) <= 0);
    while (send(fd, "more", 4, MSG_NOSIGNAL) > 0)
        continue;
    CHECK(close(fd) == 0);

    /* The sandbox goes: its sockets are at their end. */
    int left;
    OK(blink_sandbox_connect_unix(sandbox, "/tmp/socket", NULL, &left, &err));
    OK(blink_sandbox_connect_unix(sandbox, "/tmp/socket", NULL, &fd, &err));
    CHECK(write(fd, "a", 1) == 1 && read(fd, &byte, 1) == 1 && byte == 'a');
    OK(blink_sandbox_remove(sandbox, &err));
    CHECK(read(fd, &byte, 1) <= 0);
    close(fd);
    blink_process_free(server);
    blink_process_free(other);
    blink_sandbox_free(sandbox);
    CHECK(read(left, &byte, 1) <= 0);
    close(left);
}

static void of_a_session(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox_options sandbox;
    blink_sandbox_options_init(&sandbox, sizeof sandbox);
    blink_port port = {.guest_port = 4300};
    sandbox.ports = &port;
    sandbox.ports_count = 1;
    blink_session_options options;
    blink_session_options_init(&options, sizeof options);
    options.sandbox = &sandbox;
    blink_session *session;
    OK(blink_session_open(all, "connected", &options, NULL, &session, &err));
    blink_process *server, *other;
    blink_command command = shell(TCP);
    IN(session, blink_sandbox_spawn(in, &command, NULL, &server, &err));
    is_ready(server);
    command = shell(UNIX);
    IN(session, blink_sandbox_spawn(in, &command, NULL, &other, &err));
    is_ready(other);
    int fd;
    IN(session, blink_sandbox_connect_tcp(in, "localhost", 4300, NULL, &fd, &err));
    talk(fd, 10000);
    IN(session, blink_sandbox_connect_unix(in, "/tmp/socket", NULL, &fd, &err));
    talk(fd, 10000);
    blink_sandbox *inner = inside(session);
    CHECK(blink_sandbox_published_port(inner, 0) > 0 && blink_sandbox_published_port(inner, 1) == 0);
    blink_process_free(server);
    blink_process_free(other);
    OK(blink_session_remove(session, &err));
    FAILS(BLINK_STATUS_SANDBOX_DIED, blink_sandbox_connect_tcp(inner, "localhost", 4300, NULL, &fd, &err));
    blink_sandbox_free(inner);
    blink_session_free(session);
}

void test_connect(void)
{
    blink *all = open_blink();
    of_a_sandbox(all);
    blink_close(all);
}

void test_connect_session(void)
{
    blink *all = open_blink();
    of_a_session(all);
    blink_close(all);
}
