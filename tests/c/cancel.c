#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

static void *cancel_soon(void *cancel)
{
    struct timespec pause = {.tv_nsec = 200000000};
    nanosleep(&pause, NULL);
    blink_cancel_now(cancel);
    return NULL;
}

static pthread_t soon(blink_cancel *cancel)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, cancel_soon, cancel) == 0);
    return thread;
}

struct many {
    blink_sandbox *sandbox;
    int number;
};

static void *exec_many(void *data)
{
    struct many *many = data;
    blink_error *err = NULL;
    for (int i = 0; i < 20; i++) {
        char script[64], expected[64];
        snprintf(script, sizeof script, "echo %d.%d", many->number, i);
        snprintf(expected, sizeof expected, "%d.%d\n", many->number, i);
        blink_command command = shell(script);
        blink_output *output;
        OK(blink_sandbox_exec(many->sandbox, &command, NULL, &output, &err));
        CHECK(stdout_is(output, expected));
        blink_output_free(output);
    }
    return NULL;
}

static void *close_it(void *all)
{
    blink_close(all);
    return NULL;
}

void test_cancel(void)
{
    blink_error *err = NULL;
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);

    /* A command. */
    blink_cancel *cancel = blink_cancel_new();
    pthread_t thread = soon(cancel);
    blink_command command = shell("sleep 86401");
    blink_output *output;
    FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_exec(sandbox, &command, cancel, &output, &err));
    CHECK(output == NULL);
    pthread_join(thread, NULL);
    /* It stays cancelled. */
    FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_exec(sandbox, &command, cancel, &output, &err));
    blink_session *session;
    FAILS(BLINK_STATUS_CANCELLED, blink_session_take(all, "no", 0, cancel, &session, &err));
    blink_cancel_free(cancel);
    command = shell("for i in $(seq 100); do n=0; for f in /proc/[0-9]*/cmdline; do "
                    "case $(tr '\\0' ' ' <$f) in 'sleep 86401 ') n=1;; esac; done; "
                    "[ $n = 0 ] && echo gone && exit; sleep 0.1; done");
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    CHECK(stdout_is(output, "gone\n"));
    blink_output_free(output);

    /* By itself. */
    cancel = blink_cancel_after(50);
    command = shell("sleep 86402");
    FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_exec(sandbox, &command, cancel, &output, &err));
    FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_ping(sandbox, cancel, &err));
    int32_t descriptor;
    OK(blink_cancel_fd(cancel, &descriptor, &err));
    blink_cancel_free(cancel);
    cancel = blink_cancel_after(UINT64_MAX);
    OK(blink_sandbox_ping(sandbox, cancel, &err));
    blink_cancel_now(cancel);
    FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_ping(sandbox, cancel, &err));
    blink_cancel_free(cancel);

    /* A read, which loses nothing by it; and a wait. */
    blink_process *process;
    command = shell("read line; echo $line");
    command.stdin_piped = 1;
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    cancel = blink_cancel_new();
    thread = soon(cancel);
    uint8_t buffer[16];
    size_t count;
    FAILS(BLINK_STATUS_CANCELLED,
          blink_process_read(process, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, cancel, &err));
    FAILS(BLINK_STATUS_CANCELLED, blink_process_wait(process, 0, NULL, cancel, &err));
    pthread_join(thread, NULL);
    blink_cancel_free(cancel);
    OK(blink_process_write(process, (const uint8_t *)"here\n", 5, NULL, &err));
    OK(blink_process_read(process, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, NULL, &err));
    CHECK(is(buffer, count, "here\n"));
    blink_process_free(process);

    /* One sandbox, many threads. */
    struct many many[8];
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) {
        many[i] = (struct many){sandbox, i};
        CHECK(pthread_create(&threads[i], NULL, exec_many, &many[i]) == 0);
    }
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);

    /* A handle that is freed while a call uses it: the call comes to its end. */
    cancel = blink_cancel_new();
    thread = soon(cancel);
    blink_sandbox *other = make_sandbox(all);
    command = shell("sleep 86400");
    struct timespec pause = {.tv_nsec = 1000000};
    OK(blink_sandbox_spawn(other, &command, NULL, &process, &err));
    blink_sandbox_free(other);
    nanosleep(&pause, NULL);
    FAILS(BLINK_STATUS_SANDBOX_DIED, blink_process_wait(process, 0, NULL, NULL, &err));
    blink_process_free(process);
    pthread_join(thread, NULL);
    blink_cancel_free(cancel);

    /* Two threads close at once: one does. */
    blink_sandbox_free(sandbox);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, close_it, all) == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);

    /* A boot. Nothing is left of it once all is closed. */
    all = open_blink();
    cancel = blink_cancel_new();
    thread = soon(cancel);
    for (blink_status status = BLINK_STATUS_OK; status == BLINK_STATUS_OK;) {
        status = blink_sandbox_create(all, NULL, cancel, &sandbox, &err);
        CHECK(status == BLINK_STATUS_OK || status == BLINK_STATUS_CANCELLED);
        blink_sandbox_free(sandbox);
    }
    blink_error_free(err);
    pthread_join(thread, NULL);
    blink_cancel_free(cancel);
    blink_close(all);
    DIR *sandboxes = opendir(scratch("home/sandboxes"));
    CHECK(sandboxes != NULL);
    for (struct dirent *entry; (entry = readdir(sandboxes)) != NULL;)
        CHECK(entry->d_name[0] == '.');
    closedir(sandboxes);
}
