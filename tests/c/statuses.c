/* What the header promises of many functions alike: a cancelled call, a sandbox that has ended, and what is not there.
 * tests/c/promises.py compares all that the suite has seen with all that the header says. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static blink_error *err;
static blink_output *output;
static blink_process *process;
static blink_sandbox *other;
static blink_session *made;
static blink_files *some_files;
static blink_process_list *processes;
static blink_bytes *bytes;
static blink_entries *entries;
static blink_file_reader *reader;
static blink_file_writer *writer;
static blink_sandbox *inner;
static blink_image image = BLINK_IMAGE_INIT;
static blink_processes *others;
static blink_process_logs *logs;
static blink_report *report;
static blink_file_info info;
static uint8_t buffer[4096];
static size_t count;
static int32_t fd;
static bool there;

#define CANCELLED(call) FAILS(BLINK_STATUS_CANCELLED, call)
#define DIED(call) FAILS(BLINK_STATUS_SANDBOX_DIED, call)
#define NOT_FOUND(call) FAILS(BLINK_STATUS_NOT_FOUND, call)

static void cancelled(blink *all, blink_sandbox *sandbox, blink_session *session)
{
    blink_cancel *cancel = blink_cancel_new();
    blink_cancel_now(cancel);
    blink_command command = shell("true");
    blink_files *files;
    OK(blink_sandbox_files(sandbox, &files, &err));
    blink_processes *beside;
    OK(blink_processes_of(all, "statuses", NULL, &beside, &err));
    blink_process *running;
    blink_command waiting = shell("sleep 600");
    waiting.stdin_piped = 1;
    IN(session, blink_sandbox_spawn(in, &waiting, NULL, &running, &err));
    uint64_t id = blink_process_id(running);
    OK(blink_files_write(files, "/tmp/file", (const uint8_t *)"1234", 4, NULL, NULL, &err));
    OK(blink_files_writer(files, "/tmp/other", NULL, &writer, &err));

    CANCELLED(blink_sandbox_create(all, NULL, cancel, &other, &err));
    CANCELLED(blink_sandbox_exec(sandbox, &command, cancel, &output, &err));
    CANCELLED(blink_sandbox_attach(sandbox, id, 0, 0, cancel, &process, &err));
    CANCELLED(blink_sandbox_ping(sandbox, cancel, &err));
    CANCELLED(blink_sandbox_connect_tcp(sandbox, "localhost", 1, cancel, &fd, &err));
    CANCELLED(blink_session_sandbox(session, cancel, &inner, &err));
    CANCELLED(blink_session_take(all, "statuses", 0, cancel, &made, &err));
    CANCELLED(blink_session_checkpoint(session, "cancelled", false, NULL, cancel, &err));
    CANCELLED(blink_session_fork(session, NULL, "cancelled", cancel, &made, &err));
    CANCELLED(blink_session_export(session, scratch("cancelled.boxlite"), NULL, cancel, &err));
    CANCELLED(blink_files_read(files, "/tmp/file", cancel, &bytes, &err));
    CANCELLED(blink_files_write(files, "/tmp/file", NULL, 0, NULL, cancel, &err));
    CANCELLED(blink_files_copy(files, "/tmp/file", "/tmp/copy", cancel, &err));
    CANCELLED(blink_files_upload(files, "/etc/passwd", "/tmp/up", cancel, &err));
    CANCELLED(blink_files_download(files, "/tmp/file", scratch("down"), cancel, &err));
    CANCELLED(blink_files_reader(files, "/tmp/file", 0, 1, cancel, &reader, &err));
    OK(blink_files_reader(files, "/tmp/file", 0, 4, NULL, &reader, &err));
    CANCELLED(blink_file_reader_read(reader, buffer, 4, &count, cancel, &err));
    CANCELLED(blink_file_writer_write(writer, buffer, 4, cancel, &err));
    CANCELLED(blink_process_read(running, BLINK_STREAM_STDOUT, buffer, 4, &count, cancel, &err));
    CANCELLED(blink_process_write(running, buffer, 4, cancel, &err));
    CANCELLED(blink_process_wait(running, 0, NULL, cancel, &err));
    CANCELLED(blink_processes_of(all, "statuses", cancel, &others, &err));
    CANCELLED(blink_processes_logs(beside, id, cancel, &logs, &err));
    CANCELLED(blink_processes_wait(beside, id, 0, NULL, cancel, &err));
    CANCELLED(blink_processes_attach(beside, id, 0, 0, cancel, &process, &err));
    CANCELLED(blink_image_pull(all, getenv("BLINK_TEST_IMAGE"), NULL, NULL, cancel, &image, &err));
    CANCELLED(blink_doctor(all, cancel, &report, &err));
    FAILS(BLINK_STATUS_TIMEOUT, blink_processes_wait(beside, id, 1, NULL, NULL, &err));
    FAILS(BLINK_STATUS_TIMEOUT, blink_process_wait(running, 1, NULL, NULL, &err));
    FAILS(BLINK_STATUS_WOULD_BLOCK,
          blink_process_try_read(running, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, &err));
    /* Somebody else attaches, and this one has it no more. */
    blink_process *taken;
    IN(session, blink_sandbox_attach(in, id, 0, 0, NULL, &taken, &err));
    FAILS(BLINK_STATUS_BUSY,
          blink_process_read(running, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, NULL, &err));
    FAILS(BLINK_STATUS_BUSY,
          blink_process_try_read(running, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, &err));
    FAILS(BLINK_STATUS_BUSY, blink_process_wait(running, 0, NULL, NULL, &err));
    OK(blink_process_release(taken, &err));
    NOT_FOUND(blink_process_release(taken, &err));
    NOT_FOUND(blink_process_signal(taken, 15, false, &err));
    NOT_FOUND(blink_process_kill(taken, &err));
    inner = inside(session);
    NOT_FOUND(blink_sandbox_attach(inner, id, 0, 0, NULL, &process, &err));
    blink_sandbox_free(inner);
    NOT_FOUND(blink_processes_logs(beside, id, NULL, &logs, &err));
    NOT_FOUND(blink_processes_wait(beside, id, 0, NULL, NULL, &err));
    NOT_FOUND(blink_processes_signal(beside, id, 15, &err));
    NOT_FOUND(blink_processes_kill(beside, id, &err));
    NOT_FOUND(blink_processes_attach(beside, id, 0, 0, NULL, &process, &err));
    blink_process_free(taken);
    blink_process_free(running);
    blink_file_reader_free(reader);
    blink_file_writer_free(writer);
    blink_files_free(files);
    blink_cancel_free(cancel);
    OK(blink_session_stop(session, &err));
    DIED(blink_processes_list(beside, &processes, &err));
    DIED(blink_processes_logs(beside, id, NULL, &logs, &err));
    DIED(blink_processes_wait(beside, id, 0, NULL, NULL, &err));
    DIED(blink_processes_signal(beside, id, 15, &err));
    DIED(blink_processes_kill(beside, id, &err));
    DIED(blink_processes_attach(beside, id, 0, 0, NULL, &process, &err));
    blink_processes_free(beside);
    NOT_FOUND(blink_processes_of(all, "statuses", NULL, &others, &err));
    NOT_FOUND(blink_processes_of(all, "no-such", NULL, &others, &err));
}

static void died(blink *all)
{
    blink_sandbox *sandbox = make_sandbox(all);
    blink_files *files;
    blink_process *running;
    blink_command command = shell("cat");
    command.stdin_piped = 1;
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &running, &err));
    OK(blink_sandbox_files(sandbox, &files, &err));
    /* More than is on its way at once. */
    size_t length = 16 << 20;
    uint8_t *data = calloc(length, 1);
    CHECK(data != NULL);
    OK(blink_files_write(files, "/tmp/file", data, length, NULL, NULL, &err));
    OK(blink_files_reader(files, "/tmp/file", 0, length, NULL, &reader, &err));
    OK(blink_files_writer(files, "/tmp/other", NULL, &writer, &err));
    uint64_t id = blink_process_id(running);
    OK(blink_sandbox_remove(sandbox, &err));
    blink_file_writer *another;
    command = shell("true");
    DIED(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    DIED(blink_sandbox_attach(sandbox, id, 0, 0, NULL, &process, &err));
    DIED(blink_sandbox_processes(sandbox, &processes, &err));
    OK(blink_sandbox_files(sandbox, &some_files, &err));
    blink_files_free(some_files);
    DIED(blink_sandbox_ping(sandbox, NULL, &err));
    DIED(blink_sandbox_connect_tcp(sandbox, "localhost", 1, NULL, &fd, &err));
    DIED(blink_files_read(files, "/tmp/file", NULL, &bytes, &err));
    DIED(blink_files_write(files, "/tmp/file", NULL, 0, NULL, NULL, &err));
    DIED(blink_files_stat(files, "/tmp/file", &info, &err));
    DIED(blink_files_exists(files, "/tmp/file", &there, &err));
    DIED(blink_files_list(files, "/tmp", &entries, &err));
    DIED(blink_files_make_dir(files, "/tmp/dir", &err));
    DIED(blink_files_remove(files, "/tmp/file", false, &err));
    DIED(blink_files_rename(files, "/tmp/file", "/tmp/other", &err));
    DIED(blink_files_copy(files, "/tmp/file", "/tmp/other", NULL, &err));
    DIED(blink_files_upload(files, "/etc/passwd", "/tmp/up", NULL, &err));
    DIED(blink_files_download(files, "/tmp/file", scratch("down"), NULL, &err));
    blink_status status = BLINK_STATUS_OK;
    while (status == BLINK_STATUS_OK)
        status = blink_file_reader_read(reader, data, length, &count, NULL, &err);
    check_status(status, BLINK_STATUS_SANDBOX_DIED, &err, "blink_file_reader_read()", __FILE__, __LINE__);
    blink_file_reader_free(reader);
    free(data);
    DIED(blink_files_reader(files, "/tmp/file", 0, 1, NULL, &reader, &err));
    DIED(blink_file_writer_write(writer, buffer, 4, NULL, &err));
    DIED(blink_files_writer(files, "/tmp/other", NULL, &another, &err));
    DIED(blink_process_read(running, BLINK_STREAM_STDOUT, buffer, 4, &count, NULL, &err));
    DIED(blink_process_try_read(running, BLINK_STREAM_STDOUT, buffer, 4, &count, &err));
    DIED(blink_process_write(running, buffer, 4, NULL, &err));
    DIED(blink_process_wait(running, 0, NULL, NULL, &err));
    DIED(blink_process_signal(running, 15, false, &err));
    DIED(blink_process_kill(running, &err));
    DIED(blink_process_release(running, &err));
    blink_file_writer_free(writer);
    blink_process_free(running);
    blink_files_free(files);
    blink_sandbox_free(sandbox);
}

static void not_there(blink *all, blink_sandbox *sandbox, blink_session *session)
{
    blink_files *files;
    blink_lineage *lineage;
    blink_session_info about = BLINK_SESSION_INFO_INIT;
    OK(blink_sandbox_files(sandbox, &files, &err));
    NOT_FOUND(blink_files_read(files, "/no/file", NULL, &bytes, &err));
    NOT_FOUND(blink_files_write(files, "/no/file", NULL, 0, NULL, NULL, &err));
    NOT_FOUND(blink_files_stat(files, "/no/file", &info, &err));
    NOT_FOUND(blink_files_list(files, "/no/folder", &entries, &err));
    NOT_FOUND(blink_files_remove(files, "/no/file", false, &err));
    NOT_FOUND(blink_files_rename(files, "/no/file", "/tmp/x", &err));
    NOT_FOUND(blink_files_copy(files, "/no/file", "/tmp/x", NULL, &err));
    NOT_FOUND(blink_files_upload(files, "/no/such/file", "/tmp/x", NULL, &err));
    NOT_FOUND(blink_files_download(files, "/no/file", scratch("down"), NULL, &err));
    NOT_FOUND(blink_files_reader(files, "/no/file", 0, 1, NULL, &reader, &err));
    OK(blink_files_writer(files, "/no/folder/file", NULL, &writer, &err));
    blink_status status = BLINK_STATUS_OK;
    for (int i = 0; i < 10000 && status == BLINK_STATUS_OK; i++) {
        struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
        status = blink_file_writer_write(writer, buffer, 1, NULL, &err);
    }
    check_status(status, BLINK_STATUS_NOT_FOUND, &err, "blink_file_writer_write()", __FILE__, __LINE__);
    blink_file_writer_free(writer);
    FAILS(BLINK_STATUS_IS_A_DIRECTORY, blink_files_read(files, "/tmp", NULL, &bytes, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_files_read(files, "/dev/null", NULL, &bytes, &err));
    FAILS(BLINK_STATUS_IS_A_DIRECTORY, blink_files_reader(files, "/tmp", 0, 1, NULL, &reader, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_files_reader(files, "/dev/null", 0, 1, NULL, &reader, &err));
    FAILS(BLINK_STATUS_NOT_A_DIRECTORY, blink_files_list(files, "/etc/passwd", &entries, &err));
    FAILS(BLINK_STATUS_NOT_A_DIRECTORY, blink_files_make_dir(files, "/etc/passwd/x", &err));
    FAILS(BLINK_STATUS_READ_ONLY, blink_files_make_dir(files, "/usr/x", &err));
    FAILS(BLINK_STATUS_IS_A_DIRECTORY, blink_files_write(files, "/tmp", NULL, 0, NULL, NULL, &err));
    FAILS(BLINK_STATUS_READ_ONLY, blink_files_write(files, "/usr/x", NULL, 0, NULL, NULL, &err));
    FAILS(BLINK_STATUS_NOT_A_DIRECTORY, blink_files_write(files, "/etc/passwd/x", NULL, 0, NULL, NULL, &err));
    FAILS(BLINK_STATUS_IS_A_DIRECTORY, blink_files_copy(files, "/tmp", "/x", NULL, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_files_copy(files, "/dev/null", "/tmp/x", NULL, &err));
    FAILS(BLINK_STATUS_UNSUPPORTED, blink_files_rename(files, "/usr/bin/env", "/tmp/x", &err));
    FAILS(BLINK_STATUS_DIRECTORY_NOT_EMPTY, blink_files_remove(files, "/etc", false, &err));
    FAILS(BLINK_STATUS_READ_ONLY, blink_files_remove(files, "/usr/bin/env", false, &err));
    blink_files_free(files);
    blink_command command = shell("true");
    command.current_dir = "/no/folder";
    NOT_FOUND(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    NOT_FOUND(blink_sandbox_attach(sandbox, UINT64_MAX, 0, 0, NULL, &process, &err));
    NOT_FOUND(blink_sandbox_open(all, "no-such", NULL, &other, &err));
    NOT_FOUND(blink_sandbox_connect_tcp(sandbox, "localhost", 1, NULL, &fd, &err));
    NOT_FOUND(blink_session_take(all, "no-such", 0, NULL, &made, &err));
    NOT_FOUND(blink_session_info_find(all, "no-such", &about, &err));
    NOT_FOUND(blink_lineage_of(all, "no-such", &lineage, &err));
    NOT_FOUND(blink_session_restore(session, "no-such", NULL, &err));
    NOT_FOUND(blink_session_remove_checkpoint(session, "no-such", &err));
    NOT_FOUND(blink_session_fork(session, "no-such", "fork", NULL, &made, &err));
    blink_export_options options;
    OK(blink_export_options_init(&options, sizeof options));
    options.checkpoint = "no-such";
    NOT_FOUND(blink_session_export(session, scratch("none.boxlite"), &options, NULL, &err));
    FAILS(BLINK_STATUS_ALREADY_EXISTS, blink_session_fork(session, NULL, "statuses", NULL, &made, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_session_fork(session, NULL, "/", NULL, &made, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_session_checkpoint(session, "", false, NULL, NULL, &err));
    OK(blink_session_checkpoint(session, "one", false, NULL, NULL, &err));
    FAILS(BLINK_STATUS_ALREADY_EXISTS, blink_session_checkpoint(session, "one", false, NULL, NULL, &err));
    OK(blink_session_fork(session, NULL, "statuses-fork", NULL, &made, &err));
    FAILS(BLINK_STATUS_ALREADY_EXISTS, blink_session_rename(made, "statuses", &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_session_rename(made, "/", &err));
    OK(blink_session_remove(made, &err));
    command.current_dir = NULL;
    NOT_FOUND(blink_session_sandbox(made, NULL, &inner, &err));
    blink_session_free(made);
    /* A registry that nobody listens at; a port that the first has. */
    blink_sandbox_options sandbox_options;
    OK(blink_sandbox_options_init(&sandbox_options, sizeof sandbox_options));
    sandbox_options.image = "127.0.0.1:9/none:1";
    FAILS(BLINK_STATUS_IMAGE_UNAVAILABLE, blink_sandbox_create(all, &sandbox_options, NULL, &other, &err));
    sandbox_options.image = NULL;
    blink_port port = {.guest_port = 4300};
    sandbox_options.ports = &port;
    sandbox_options.ports_count = 1;
    blink_sandbox *first;
    OK(blink_sandbox_create(all, &sandbox_options, NULL, &first, &err));
    port.host_port = blink_sandbox_published_port(first, 0);
    FAILS(BLINK_STATUS_BUSY, blink_sandbox_create(all, &sandbox_options, NULL, &other, &err));
    blink_sandbox_free(first);
}

void test_statuses(void)
{
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);
    blink_session *session;
    blink_session_options options;
    OK(blink_session_options_init(&options, sizeof options));
    OK(blink_file_info_init(&info, sizeof info));
    options.warm = 1;
    OK(blink_session_open(all, "statuses", &options, NULL, &session, &err));
    not_there(all, sandbox, session);
    cancelled(all, sandbox, session);
    died(all);
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
    blink_sandbox_free(sandbox);
    blink_close(all);
}
