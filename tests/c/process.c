#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* Reads a stream to its end; the text ends with NUL. */
static char *read_all(blink_process *process, int32_t stream)
{
    blink_error *err = NULL;
    size_t length = 0, room = 1 << 16;
    char *text = malloc(room);
    for (;;) {
        size_t count;
        if (room - length < 4096)
            text = realloc(text, room *= 2);
        OK(blink_process_read(process, stream, (uint8_t *)text + length, 4096 - 1, &count, NULL, &err));
        if (count == 0)
            break;
        length += count;
    }
    text[length] = 0;
    return text;
}

static int exit_code(blink_process *process)
{
    blink_error *err = NULL;
    blink_exit ended;
    blink_exit_init(&ended, sizeof ended);
    OK(blink_process_wait(process, 0, &ended, NULL, &err));
    return ended.code;
}

static void input_and_output_stream(blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_process *process;
    blink_command command = shell("cat; echo done >&2; exit 4");
    command.stdin_piped = 1;
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    CHECK(blink_process_id(process) > 0 && blink_process_pid(process) > 0);
    OK(blink_process_write(process, (const uint8_t *)"one ", 4, NULL, &err));
    OK(blink_process_write(process, NULL, 0, NULL, &err));
    OK(blink_process_write(process, (const uint8_t *)"two", 3, NULL, &err));
    OK(blink_process_close_stdin(process, &err));
    OK(blink_process_close_stdin(process, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_process_write(process, (const uint8_t *)"x", 1, NULL, &err));
    char *text = read_all(process, BLINK_STREAM_STDOUT);
    CHECK(strcmp(text, "one two") == 0);
    free(text);
    text = read_all(process, BLINK_STREAM_STDERR);
    CHECK(strcmp(text, "done\n") == 0);
    free(text);
    CHECK(exit_code(process) == 4 && exit_code(process) == 4);
    OK(blink_process_release(process, &err));
    blink_process_free(process);
}

/* The end of a sandbox is a signal to this process, which interrupts poll(). */
static int poll_again(struct pollfd *fd, int timeout_ms)
{
    int ready;
    do
        ready = poll(fd, 1, timeout_ms);
    while (ready < 0 && errno == EINTR);
    return ready;
}

static void polling_loses_nothing(blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_process *process;
    blink_command command = shell("for i in 1 2 3 4 5; do head -c 100000 /dev/zero; sleep 0.3; done");
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    OK(blink_process_discard(process, BLINK_STREAM_STDERR, &err));
    struct pollfd fd = {.events = POLLIN};
    OK(blink_process_fd(process, BLINK_STREAM_STDOUT, &fd.fd, &err));
    int same;
    OK(blink_process_fd(process, BLINK_STREAM_STDOUT, &same, &err));
    CHECK(same == fd.fd);
    static uint8_t buffer[30000];
    size_t total = 0;
    bool blocked = false;
    for (;;) {
        CHECK(poll_again(&fd, 60000) == 1);
        size_t count;
        blink_status status =
            blink_process_try_read(process, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, &err);
        if (status == BLINK_STATUS_WOULD_BLOCK) {
            CHECK(count == 0);
            FAILS(BLINK_STATUS_WOULD_BLOCK, status);
            blocked = true;
            continue;
        }
        OK(status);
        total += count;
        if (count == 0)
            break;
    }
    CHECK(total == 500000 && blocked);
    CHECK(poll_again(&fd, 0) == 1); /* The end stays. */
    CHECK(exit_code(process) == 0);
    blink_process_free(process);
}

static void waiting_has_a_limit(blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_process *process;
    blink_command command = shell("sleep 86400 & echo up; trap 'exit 7' TERM; wait");
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    uint8_t buffer[8];
    size_t count;
    OK(blink_process_read(process, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, NULL, &err));
    CHECK(is(buffer, count, "up\n"));
    blink_exit ended;
    blink_exit_init(&ended, sizeof ended);
    FAILS(BLINK_STATUS_TIMEOUT, blink_process_wait(process, 50, &ended, NULL, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_process_signal(process, 1000, false, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_process_signal(process, -1, false, &err));
    OK(blink_process_signal(process, 15, false, &err));
    OK(blink_process_discard(process, BLINK_STREAM_STDOUT, &err));
    OK(blink_process_discard(process, BLINK_STREAM_STDERR, &err));
    CHECK(exit_code(process) == 7);
    OK(blink_process_read(process, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, NULL, &err));
    CHECK(count == 0);
    blink_process_free(process);
}

static void a_terminal_has_a_size(blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_process *process;
    blink_command command = shell("stty size; read line; stty size");
    command.pty = 1;
    command.pty_rows = 30;
    command.pty_cols = 100;
    command.stdin_piped = 1;
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    uint8_t buffer[64];
    size_t count;
    OK(blink_process_read(process, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, NULL, &err));
    CHECK(is(buffer, count, "30 100\r\n"));
    OK(blink_process_resize(process, 40, 120, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_process_resize(process, 0, 120, &err));
    OK(blink_process_write(process, (const uint8_t *)"\n", 1, NULL, &err));
    char *text = read_all(process, BLINK_STREAM_STDOUT);
    CHECK(strstr(text, "40 120\r\n") != NULL);
    free(text);
    CHECK(exit_code(process) == 0);
    blink_process_free(process);
}

static void a_process_is_found_again(blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_process *process;
    blink_command command = shell("echo first; read line; echo \"then $line\"");
    command.stdin_piped = 1;
    command.key = "found";
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    uint64_t id = blink_process_id(process);
    uint8_t buffer[64];
    size_t count;
    OK(blink_process_read(process, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, NULL, &err));
    CHECK(is(buffer, count, "first\n"));
    blink_process_free(process);

    blink_process_list *list;
    OK(blink_sandbox_processes(sandbox, &list, &err));
    bool found = false;
    for (size_t i = 0; i < blink_process_list_count(list); i++) {
        blink_process_info info;
        blink_process_info_init(&info, sizeof info);
        OK(blink_process_list_get(list, i, &info, &err));
        blink_exit ended;
        blink_exit_init(&ended, sizeof ended);
        if (info.id == id) {
            found = true;
            CHECK(strcmp(info.key, "found") == 0 && !info.ended && info.stdout_bytes == 6);
            CHECK(info.argv_count == 3 && strcmp(info.argv[1], "-c") == 0 && info.argv[3] == NULL);
            FAILS(BLINK_STATUS_BUSY, blink_process_list_exit(list, i, &ended, &err));
        } else if (info.ended) {
            OK(blink_process_list_exit(list, i, &ended, &err));
        }
    }
    CHECK(found);
    blink_process_list_free(list);

    OK(blink_sandbox_attach(sandbox, id, 6, 0, NULL, &process, &err));
    OK(blink_process_write(process, (const uint8_t *)"more\n", 5, NULL, &err));
    char *text = read_all(process, BLINK_STREAM_STDOUT);
    CHECK(strcmp(text, "then more\n") == 0);
    free(text);
    OK(blink_process_discard(process, BLINK_STREAM_STDERR, &err));
    CHECK(exit_code(process) == 0);
    OK(blink_process_release(process, &err));
    blink_process_free(process);
    FAILS(BLINK_STATUS_NOT_FOUND, blink_sandbox_attach(sandbox, id, 0, 0, NULL, &process, &err));
    CHECK(process == NULL);
}

/* One descriptor says when a program has ended and its output was taken, and when its sandbox has. */
static void an_end_is_polled(blink *all, blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_process *process;
    blink_command command = shell("read line; echo $line; exit 3");
    command.stdin_piped = 1;
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    int32_t fd, again;
    OK(blink_process_exit_fd(process, &fd, &err));
    OK(blink_process_exit_fd(process, &again, &err));
    CHECK(fd >= 0 && again == fd);
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    CHECK(poll(&polled, 1, 0) == 0);
    OK(blink_process_write(process, (const uint8_t *)"x\n", 2, NULL, &err));
    char *text = read_all(process, BLINK_STREAM_STDOUT);
    CHECK(strcmp(text, "x\n") == 0);
    free(text);
    OK(blink_process_discard(process, BLINK_STREAM_STDERR, &err));
    CHECK(poll(&polled, 1, 60000) == 1 && poll(&polled, 1, 0) == 1);
    CHECK(exit_code(process) == 3);
    blink_process_free(process);

    blink_sandbox *other = make_sandbox(all);
    command = shell("sleep 86400");
    OK(blink_sandbox_spawn(other, &command, NULL, &process, &err));
    OK(blink_process_exit_fd(process, &polled.fd, &err));
    CHECK(poll(&polled, 1, 0) == 0);
    OK(blink_sandbox_remove(other, &err));
    CHECK(poll(&polled, 1, 60000) == 1);
    FAILS(BLINK_STATUS_SANDBOX_DIED, blink_process_wait(process, 0, NULL, NULL, &err));
    blink_process_free(process);
    blink_sandbox_free(other);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_process_exit_fd(NULL, &fd, &err));
    CHECK(fd == -1);
}

void test_process(void)
{
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);
    input_and_output_stream(sandbox);
    polling_loses_nothing(sandbox);
    waiting_has_a_limit(sandbox);
    a_terminal_has_a_size(sandbox);
    a_process_is_found_again(sandbox);
    an_end_is_polled(all, sandbox);
    blink_sandbox_free(sandbox);
    blink_close(all);
}
