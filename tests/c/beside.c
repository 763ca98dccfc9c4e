/* The processes of a session, beside whoever has it. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WRITTEN = 3000004, KEPT = 1 << 20 };

static blink_process *spawn(blink_session *session, const char *script)
{
    blink_error *err = NULL;
    blink_process *process;
    blink_command command = shell(script);
    command.stdin_piped = 1;
    IN(session, blink_sandbox_spawn(in, &command, NULL, &process, &err));
    return process;
}

struct waiting {
    blink_processes *processes;
    uint64_t id;
    blink_exit ended;
};

static void *wait_for(void *data)
{
    struct waiting *waiting = data;
    blink_error *err = NULL;
    OK(blink_processes_wait(waiting->processes, waiting->id, 0, &waiting->ended, NULL, &err));
    return NULL;
}

/* A list has both, and tells when the second has written all. */
static void until_all_is_written(blink_processes *processes, uint64_t first, uint64_t second)
{
    blink_error *err = NULL;
    blink_process_info info;
    blink_process_info_init(&info, sizeof info);
    do {
        blink_process_list *list;
        OK(blink_processes_list(processes, &list, &err));
        CHECK(blink_process_list_count(list) == 2);
        OK(blink_process_list_get(list, 0, &info, &err));
        CHECK(info.id == first && !info.ended);
        OK(blink_process_list_get(list, 1, &info, &err));
        CHECK(info.id == second && !info.ended);
        blink_process_list_free(list);
        struct timespec pause = {.tv_nsec = 5000000};
        nanosleep(&pause, NULL);
    } while (info.stderr_bytes < 5);
}

static void what_is_kept(blink_processes *processes, uint64_t id)
{
    blink_error *err = NULL;
    blink_process_logs *logs;
    OK(blink_processes_logs(processes, id, NULL, &logs, &err));
    size_t length;
    const uint8_t *bytes = blink_process_logs_stdout(logs, &length);
    CHECK(length == KEPT && memcmp(bytes + length - 5, "\0end\n", 5) == 0);
    CHECK(blink_process_logs_stdout_offset(logs) == WRITTEN - KEPT);
    bytes = blink_process_logs_stderr(logs, &length);
    CHECK(is(bytes, length, "oops\n") && blink_process_logs_stderr_offset(logs) == 0);
    blink_process_logs_free(logs);
    CHECK(blink_process_logs_stdout(logs, &length) == NULL && length == 0);

    /* Whoever attaches is told as well where it begins. */
    blink_process *attached;
    OK(blink_processes_attach(processes, id, 0, 0, NULL, &attached, &err));
    uint64_t offset;
    OK(blink_process_offset(attached, BLINK_STREAM_STDOUT, &offset, &err));
    CHECK(offset == WRITTEN - KEPT);
    uint8_t buffer[1000];
    size_t count;
    OK(blink_process_read(attached, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, NULL, &err));
    uint64_t after;
    OK(blink_process_offset(attached, BLINK_STREAM_STDOUT, &after, &err));
    CHECK(count > 0 && after == offset + count);
    OK(blink_process_try_read(attached, BLINK_STREAM_STDOUT, buffer, 1, &count, &err));
    OK(blink_process_offset(attached, BLINK_STREAM_STDOUT, &offset, &err));
    CHECK(count == 1 && offset == after + 1);
    OK(blink_process_offset(attached, BLINK_STREAM_STDERR, &offset, &err));
    CHECK(offset == 0);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_process_offset(attached, 3, &offset, &err));
    blink_process_free(attached);
}

static void unknown_processes(blink_processes *processes)
{
    blink_error *err = NULL;
    blink_process_logs *logs;
    blink_process *attached;
    FAILS(BLINK_STATUS_NOT_FOUND, blink_processes_logs(processes, 7777, NULL, &logs, &err));
    CHECK(logs == NULL);
    FAILS(BLINK_STATUS_NOT_FOUND, blink_processes_wait(processes, 7777, 0, NULL, NULL, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_processes_signal(processes, 7777, 15, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_processes_kill(processes, 7777, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_processes_attach(processes, 7777, 0, 0, NULL, &attached, &err));
    CHECK(attached == NULL);
}

static void beside_its_owner(blink *all)
{
    blink_error *err = NULL;
    blink_processes *processes;
    FAILS(BLINK_STATUS_NOT_FOUND, blink_processes_of(all, "beside", NULL, &processes, &err));
    CHECK(processes == NULL);
    blink_session_options options;
    blink_session_options_init(&options, sizeof options);
    options.warm = 1;
    blink_session *session;
    OK(blink_session_open(all, "beside", &options, NULL, &session, &err));
    blink_process *idle = spawn(session, "echo here; cat; exit 4");
    uint8_t buffer[64];
    size_t count;
    OK(blink_process_read(idle, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, NULL, &err));
    CHECK(is(buffer, count, "here\n"));
    blink_process *noisy = spawn(session, "trap 'exit 5' TERM; head -c 3000000 /dev/zero; echo end; echo oops >&2; "
                                          "while :; do sleep 0.02; done");
    uint64_t idle_id = blink_process_id(idle), noisy_id = blink_process_id(noisy);
    blink_process_free(noisy);

    OK(blink_processes_of(all, "beside", NULL, &processes, &err));
    CHECK(strcmp(blink_processes_isolation(processes), "namespace") == 0);
    until_all_is_written(processes, idle_id, noisy_id);
    what_is_kept(processes, noisy_id);
    unknown_processes(processes);

    /* Waiting has a limit, can be given up, and is told to all who wait. */
    blink_exit ended;
    blink_exit_init(&ended, sizeof ended);
    FAILS(BLINK_STATUS_TIMEOUT, blink_processes_wait(processes, noisy_id, 50, &ended, NULL, &err));
    blink_cancel *cancel = blink_cancel_new();
    blink_cancel_now(cancel);
    FAILS(BLINK_STATUS_CANCELLED, blink_processes_wait(processes, noisy_id, 0, &ended, cancel, &err));
    blink_cancel_free(cancel);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_processes_signal(processes, noisy_id, 1000, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_processes_signal(processes, noisy_id, -1, &err));
    OK(blink_processes_signal(processes, noisy_id, 15, &err));
    OK(blink_processes_wait(processes, noisy_id, 0, &ended, NULL, &err));
    CHECK(ended.code == 5 && ended.signal == 0);
    blink_process *none;
    const char *argv[] = {"/no/such/program"};
    blink_command command;
    blink_command_init(&command, sizeof command);
    command.argv = argv;
    command.argv_count = 1;
    IN(session, blink_sandbox_spawn(in, &command, NULL, &none, &err));
    OK(blink_processes_wait(processes, blink_process_id(none), 0, &ended, NULL, &err));
    const char *reason = ended.reason;
    CHECK(ended.code == 127 && reason != NULL && strlen(reason) > 0);
    OK(blink_processes_wait(processes, blink_process_id(none), 0, &ended, NULL, &err));
    CHECK(ended.reason == reason); /* It is still there. */
    blink_process_free(none);

    /* Who has it has lost nothing. */
    struct waiting waiting = {.processes = processes, .id = idle_id};
    blink_exit_init(&waiting.ended, sizeof waiting.ended);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_for, &waiting) == 0);
    OK(blink_process_write(idle, (const uint8_t *)"more\n", 5, NULL, &err));
    OK(blink_process_read(idle, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, NULL, &err));
    CHECK(is(buffer, count, "more\n"));
    uint64_t offset;
    OK(blink_process_offset(idle, BLINK_STREAM_STDOUT, &offset, &err));
    CHECK(offset == 10);
    OK(blink_process_close_stdin(idle, &err));
    CHECK(pthread_join(thread, NULL) == 0 && waiting.ended.code == 4);
    blink_process_free(idle);
    idle = spawn(session, "sleep 1000 & sleep 1000");
    OK(blink_processes_kill(processes, blink_process_id(idle), &err));
    OK(blink_processes_wait(processes, blink_process_id(idle), 0, &ended, NULL, &err));
    CHECK(ended.signal == 9);
    blink_process_free(idle);

    OK(blink_session_stop(session, &err));
    blink_process_list *list;
    FAILS(BLINK_STATUS_SANDBOX_DIED, blink_processes_list(processes, &list, &err));
    CHECK(list == NULL);
    blink_processes *again;
    FAILS(BLINK_STATUS_NOT_FOUND, blink_processes_of(all, "beside", NULL, &again, &err));
    blink_processes_free(processes);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_processes_list(processes, &list, &err));
    blink_processes_free(processes);
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
}

/* A micro-VM has one link, its owner's, which all of this process share; afterwards it is whoever's that comes. */
static void after_its_owner(blink *all)
{
    blink_error *err = NULL;
    blink_session_options options;
    blink_session_options_init(&options, sizeof options);
    options.warm = 1;
    blink_session *session;
    OK(blink_session_open(all, "after", &options, NULL, &session, &err));
    blink_process *idle = spawn(session, "echo here; exec sleep 1000");
    blink_process *noisy = spawn(session, "trap 'exit 5' TERM; head -c 3000000 /dev/zero; echo end; echo oops >&2; "
                                          "while :; do sleep 0.02; done");
    uint64_t idle_id = blink_process_id(idle), noisy_id = blink_process_id(noisy);
    blink_process_free(idle);
    blink_process_free(noisy);
    blink_processes *processes;
    OK(blink_processes_of(all, "after", NULL, &processes, &err));
    blink_processes_free(processes);
    blink_session_free(session);

    OK(blink_processes_of(all, "after", NULL, &processes, &err));
    until_all_is_written(processes, idle_id, noisy_id);
    what_is_kept(processes, noisy_id);
    unknown_processes(processes);
    blink_exit ended;
    blink_exit_init(&ended, sizeof ended);
    FAILS(BLINK_STATUS_TIMEOUT, blink_processes_wait(processes, noisy_id, 50, &ended, NULL, &err));
    OK(blink_processes_signal(processes, noisy_id, 15, &err));
    OK(blink_processes_wait(processes, noisy_id, 0, &ended, NULL, &err));
    CHECK(ended.code == 5 && ended.signal == 0);
    OK(blink_processes_kill(processes, idle_id, &err));
    OK(blink_processes_wait(processes, idle_id, 0, &ended, NULL, &err));
    CHECK(ended.signal == 9);
    blink_processes_free(processes);
    OK(blink_session_open(all, "after", &options, NULL, &session, &err));
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
}

/* One that nobody has does not run. */
static void what_must_be_taken(blink *all)
{
    blink_error *err = NULL;
    blink_session *session;
    OK(blink_session_open(all, "alone", NULL, NULL, &session, &err));
    OK(blink_session_stop(session, &err));
    blink_processes *processes;
    FAILS(BLINK_STATUS_NOT_FOUND, blink_processes_of(all, "alone", NULL, &processes, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_processes_of(all, "not a name/", NULL, &processes, &err));
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
}

enum { SHARERS = 4, COMMANDS = 8 };

/* Runs commands in the session that others use, each of them in the one machine. */
static void *share(void *data)
{
    blink *all = data;
    blink_error *err = NULL;
    blink_session *session;
    OK(blink_session_take(all, "shared", 60000, NULL, &session, &err));
    for (int i = 0; i < COMMANDS; i++) {
        blink_command command = shell("cat /dev/shm/mark; echo x >> /tmp/lines");
        blink_output *output;
        IN(session, blink_sandbox_exec(in, &command, NULL, &output, &err));
        CHECK(stdout_is(output, "mark\n"));
        blink_output_free(output);
    }
    blink_session_free(session);
    return NULL;
}

int run_sharer(void)
{
    blink *all = open_blink();
    share(all);
    blink_close(all);
    return 0;
}

/* Threads with one Blink, another Blink, and other processes. */
static void all_at_once(blink *all)
{
    blink_error *err = NULL;
    blink_session *session;
    OK(blink_session_open(all, "shared", NULL, NULL, &session, &err));
    blink_command command = shell("echo mark > /dev/shm/mark");
    blink_output *output;
    IN(session, blink_sandbox_exec(in, &command, NULL, &output, &err));
    blink_output_free(output);
    bool processes = engine() == BLINK_ISOLATION_NAMESPACE;
    fflush(NULL);
    pid_t children[SHARERS];
    for (int i = 0; processes && i < SHARERS; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            execl(program(), program(), scratch("."), "sharer", (char *)NULL);
            _exit(1);
        }
    }
    blink *other = processes ? open_blink() : NULL;
    pthread_t threads[SHARERS];
    for (int i = 0; i < SHARERS; i++)
        CHECK(pthread_create(&threads[i], NULL, share, processes && i % 2 ? other : all) == 0);
    for (int i = 0; i < SHARERS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; processes && i < SHARERS; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    if (processes) {
        /* What would end it for others names them. */
        blink_session *theirs;
        OK(blink_session_take(other, "shared", 0, NULL, &theirs, &err));
        FAILS(BLINK_STATUS_BUSY, blink_session_stop(theirs, &err));
        blink_session_free(theirs);
        blink_close(other);
    }
    command = shell("wc -l < /tmp/lines");
    IN(session, blink_sandbox_exec(in, &command, NULL, &output, &err));
    CHECK(stdout_is(output, processes ? "64\n" : "32\n"));
    blink_output_free(output);
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
}

void test_beside(void)
{
    blink *all = open_blink();
    what_must_be_taken(all);
    after_its_owner(all);
    if (engine() == BLINK_ISOLATION_NAMESPACE)
        beside_its_owner(all);
    all_at_once(all);
    blink_close(all);
}
