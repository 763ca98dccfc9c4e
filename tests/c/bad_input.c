#include "test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INVALID(call) FAILS(BLINK_STATUS_INVALID_ARGUMENT, call)

static void null_is_told(blink *all, blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_command command = shell("true");
    blink_output *output;
    blink_process *process;
    blink_sandbox *other;
    blink_session *session;
    blink_strings *strings;
    blink_session_list *sessions;
    blink_image_list *images;
    blink_image image = BLINK_IMAGE_INIT;
    blink_session_info info = BLINK_SESSION_INFO_INIT;
    blink_report *report;
    blink_files *files;
    blink_bytes *bytes;
    blink_entries *entries;
    blink_lineage *lineage;
    blink_process_list *processes;
    bool there;
    size_t count;
    int fd;
    uint8_t buffer[1];
    blink_file_reader *reader;
    blink_file_writer *writer;
    blink_processes *beside;
    blink_process_logs *logs;
    blink_port published;
    uint64_t offset;

    INVALID(blink_open(NULL, NULL, &err));
    INVALID(blink_run(NULL, NULL, &command, NULL, &output, &err));
    INVALID(blink_run(all, NULL, NULL, NULL, &output, &err));
    INVALID(blink_run(all, NULL, &command, NULL, NULL, &err));
    INVALID(blink_sandbox_create(NULL, NULL, NULL, &other, &err));
    INVALID(blink_sandbox_create(all, NULL, NULL, NULL, &err));
    INVALID(blink_sandbox_open(all, NULL, NULL, &other, &err));
    INVALID(blink_sandbox_list(NULL, &strings, &err));
    INVALID(blink_sandbox_exec(NULL, &command, NULL, &output, &err));
    INVALID(blink_sandbox_exec(sandbox, NULL, NULL, &output, &err));
    INVALID(blink_sandbox_exec(sandbox, &command, NULL, NULL, &err));
    INVALID(blink_sandbox_spawn(NULL, &command, NULL, &process, &err));
    INVALID(blink_sandbox_attach(NULL, 1, 0, 0, NULL, &process, &err));
    INVALID(blink_sandbox_processes(NULL, &processes, &err));
    INVALID(blink_sandbox_files(NULL, &files, &err));
    INVALID(blink_sandbox_ping(NULL, NULL, &err));
    INVALID(blink_sandbox_remove(NULL, &err));
    INVALID(blink_sandbox_fetch_image(NULL, NULL, NULL, &err));
    INVALID(blink_sandbox_published(NULL, 0, &published, &err));
    INVALID(blink_sandbox_published(sandbox, 0, NULL, &err));
    INVALID(blink_session_open(NULL, "x", NULL, NULL, &session, &err));
    INVALID(blink_session_open(all, NULL, NULL, NULL, &session, &err));
    INVALID(blink_session_take(all, NULL, 0, NULL, &session, &err));
    INVALID(blink_session_import(all, "x", NULL, NULL, NULL, &session, &err));
    INVALID(blink_session_list_all(NULL, &sessions, &err));
    INVALID(blink_session_info_find(all, NULL, &info, &err));
    INVALID(blink_session_info_find(all, "x", NULL, &err));
    INVALID(blink_lineage_of(all, NULL, &lineage, &err));
    INVALID(blink_lineage_of(NULL, "x", &lineage, &err));
    INVALID(blink_session_prune(NULL, NULL, &err));
    INVALID(blink_session_start(NULL, NULL, &err));
    INVALID(blink_session_stop(NULL, &err));
    INVALID(blink_session_sandbox(NULL, NULL, &other, &err));
    INVALID(blink_session_rename(NULL, "x", &err));
    INVALID(blink_session_checkpoint(NULL, "x", false, NULL, NULL, &err));
    INVALID(blink_session_restore(NULL, "x", NULL, &err));
    INVALID(blink_session_remove_checkpoint(NULL, "x", &err));
    INVALID(blink_session_lineage(NULL, &lineage, &err));
    INVALID(blink_session_fork(NULL, NULL, "x", NULL, &session, &err));
    INVALID(blink_session_fork_many(NULL, NULL, 0, NULL, NULL, &err));
    INVALID(blink_session_fork_many(NULL, NULL, 1, NULL, NULL, &err));
    INVALID(blink_session_export(NULL, "x", NULL, NULL, &err));
    INVALID(blink_session_export_oci(NULL, "x", NULL, NULL, &err));
    INVALID(blink_sandbox_connect_tcp(NULL, "localhost", 1, NULL, &fd, &err));
    INVALID(blink_sandbox_connect_tcp(sandbox, NULL, 1, NULL, &fd, &err));
    INVALID(blink_sandbox_connect_tcp(sandbox, "localhost", 1, NULL, NULL, &err));
    INVALID(blink_sandbox_connect_unix(NULL, "/x", NULL, &fd, &err));
    INVALID(blink_sandbox_connect_unix(sandbox, NULL, NULL, &fd, &err));
    INVALID(blink_files_reader(NULL, "/x", 0, 1, NULL, &reader, &err));
    INVALID(blink_file_reader_read(NULL, buffer, 1, &count, NULL, &err));
    INVALID(blink_files_writer(NULL, "/x", NULL, &writer, &err));
    INVALID(blink_file_writer_write(NULL, buffer, 1, NULL, &err));
    INVALID(blink_file_writer_finish(NULL, NULL, &err));
    INVALID(blink_session_remove(NULL, &err));
    INVALID(blink_session_remove_by_force(NULL, &err));
    INVALID(blink_session_declined(NULL, &strings, &err));
    INVALID(blink_session_info_get(NULL, &info, &err));
    INVALID(blink_processes_of(NULL, "x", NULL, &beside, &err));
    INVALID(blink_processes_of(all, NULL, NULL, &beside, &err));
    INVALID(blink_processes_of(all, "x", NULL, NULL, &err));
    INVALID(blink_processes_of(all, "\xff", NULL, &beside, &err));
    CHECK(beside == NULL);
    INVALID(blink_processes_list(NULL, &processes, &err));
    INVALID(blink_processes_logs(NULL, 1, NULL, &logs, &err));
    INVALID(blink_processes_wait(NULL, 1, 0, NULL, NULL, &err));
    INVALID(blink_processes_signal(NULL, 1, 15, &err));
    INVALID(blink_processes_kill(NULL, 1, &err));
    INVALID(blink_processes_attach(NULL, 1, 0, 0, NULL, &process, &err));
    INVALID(blink_process_offset(NULL, 1, &offset, &err));
    INVALID(blink_process_read(NULL, 1, buffer, 1, &count, NULL, &err));
    INVALID(blink_process_try_read(NULL, 1, buffer, 1, &count, &err));
    INVALID(blink_process_fd(NULL, 1, &fd, &err));
    INVALID(blink_process_discard(NULL, 1, &err));
    INVALID(blink_process_write(NULL, buffer, 1, NULL, &err));
    INVALID(blink_process_close_stdin(NULL, &err));
    INVALID(blink_process_resize(NULL, 1, 1, &err));
    INVALID(blink_process_signal(NULL, 15, false, &err));
    INVALID(blink_process_wait(NULL, 0, NULL, NULL, &err));
    INVALID(blink_process_kill(NULL, &err));
    INVALID(blink_process_release(NULL, &err));
    INVALID(blink_files_read(NULL, "/x", NULL, &bytes, &err));
    INVALID(blink_files_write(NULL, "/x", NULL, 0, NULL, NULL, &err));
    INVALID(blink_files_stat(NULL, "/x", NULL, &err));
    INVALID(blink_files_exists(NULL, "/x", &there, &err));
    INVALID(blink_files_list(NULL, "/x", &entries, &err));
    INVALID(blink_files_make_dir(NULL, "/x", &err));
    INVALID(blink_files_make_dir_with(NULL, "/x", 0755, &err));
    blink_files *others;
    INVALID(blink_files_as_user(NULL, "root", &others, &err));
    INVALID(blink_files_remove(NULL, "/x", false, &err));
    INVALID(blink_files_rename(NULL, "/x", "/y", &err));
    INVALID(blink_files_copy(NULL, "/x", "/y", NULL, &err));
    INVALID(blink_files_upload(NULL, "/x", "/y", NULL, &err));
    INVALID(blink_files_download(NULL, "/x", "/y", NULL, &err));
    INVALID(blink_files_download_into(NULL, "/x", "/y", NULL, &err));
    INVALID(blink_image_pull(NULL, "x", NULL, NULL, NULL, &image, &err));
    INVALID(blink_image_pull(all, NULL, NULL, NULL, NULL, &image, &err));
    INVALID(blink_image_list_all(NULL, &images, &err));
    INVALID(blink_image_remove(NULL, "x", NULL, &err));
    INVALID(blink_image_prune(NULL, NULL, &err));
    INVALID(blink_doctor(NULL, NULL, &report, &err));
    INVALID(blink_output_exit(NULL, NULL, &err));
    INVALID(blink_output_check(NULL, &err));
    INVALID(blink_process_list_exit(NULL, 0, NULL, &err));
    /* Nobody has to want the error. */
    CHECK(blink_sandbox_ping(NULL, NULL, NULL) == BLINK_STATUS_INVALID_ARGUMENT);

    blink_close(NULL);
    blink_sandbox_free(NULL);
    blink_session_free(NULL);
    blink_process_free(NULL);
    blink_files_free(NULL);
    blink_output_free(NULL);
    blink_error_free(NULL);
    blink_bytes_free(NULL);
    blink_file_reader_free(NULL);
    blink_file_writer_free(NULL);
    blink_strings_free(NULL);
    INVALID(blink_cancel_fd(NULL, &fd, &err));
    CHECK(blink_export_options_init(NULL, sizeof(blink_export_options)) == BLINK_STATUS_INVALID_ARGUMENT);
    blink_cancel_now(NULL);
    blink_cancel_free(NULL);
    blink_process_list_free(NULL);
    blink_session_list_free(NULL);
    blink_image_list_free(NULL);
    blink_entries_free(NULL);
    blink_lineage_free(NULL);
    blink_report_free(NULL);
    blink_processes_free(NULL);
    blink_process_logs_free(NULL);
    CHECK(strcmp(blink_error_message(NULL), "") == 0 && blink_error_output(NULL) == NULL);
    CHECK(blink_output_stdout(NULL, NULL) == NULL && blink_output_exit_code(NULL) == -1);
    CHECK(blink_sandbox_agent(NULL) == NULL && blink_sandbox_death(NULL) == NULL);
    CHECK(blink_processes_isolation(NULL) == NULL && !blink_report_root(NULL) && !blink_report_control_groups(NULL));
    CHECK(blink_process_logs_stdout(NULL, &count) == NULL && count == 0 && blink_process_logs_stdout_offset(NULL) == 0);
    CHECK(blink_process_logs_stderr(NULL, NULL) == NULL && blink_process_logs_stderr_offset(NULL) == 0);
    CHECK(blink_sandbox_id(NULL) == NULL && blink_process_id(NULL) == 0 && blink_strings_get(NULL, 0) == NULL);
}

static void freed_and_wrong_handles_are_told(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox *sandbox = make_sandbox(all);
    blink_output *output;
    blink_command command = shell("true");
    INVALID(blink_sandbox_ping((const blink_sandbox *)all, NULL, &err));
    INVALID(blink_sandbox_ping((const blink_sandbox *)(const void *)&command, NULL, &err));
    blink_close((blink *)sandbox); /* It is none, and nothing happens. */
    OK(blink_sandbox_ping(sandbox, NULL, &err));
    blink_sandbox_free(sandbox);
    INVALID(blink_sandbox_ping(sandbox, NULL, &err));
    INVALID(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    blink_sandbox_free(sandbox);
}

static void sizes_of_the_past_and_the_future(blink *all)
{
    blink_error *err = NULL;
    blink_output *output;
    struct {
        blink_command command;
        uint64_t newer[4];
    } future;
    memset(&future, 0xff, sizeof future);
    blink_command_init(&future.command, sizeof future);
    CHECK(future.command.size == sizeof future && future.newer[0] == 0);
    const char *argv[] = {"/bin/echo", "hello"};
    future.command.argv = argv;
    future.command.argv_count = 2;
    OK(blink_run(all, NULL, &future.command, NULL, &output, &err));
    CHECK(stdout_is(output, "hello\n"));
    future.newer[3] = 1;
    blink_output *none;
    FAILS(BLINK_STATUS_UNSUPPORTED, blink_run(all, NULL, &future.command, NULL, &none, &err));

    /* A size that no version has had; older ones are tested where they can be made up, in blink-ffi. */
    blink_command past;
    memset(&past, 0xff, sizeof past);
    CHECK(blink_command_init(&past, offsetof(blink_command, current_dir)) == BLINK_STATUS_INVALID_ARGUMENT);
    past.argv = argv;
    past.argv_count = 2;
    INVALID(blink_run(all, NULL, &past, NULL, &none, &err));
    blink_exit ended;
    memset(&ended, 0x55, sizeof ended);
    ended.size = offsetof(blink_exit, timed_out);
    INVALID(blink_output_exit(output, &ended, &err));
    CHECK(ended.timed_out == 0x55555555);
    ended.size = 3;
    INVALID(blink_output_exit(output, &ended, &err));
    ended.size = SIZE_MAX;
    INVALID(blink_output_exit(output, &ended, &err));
    INVALID(blink_output_exit(output, NULL, &err));
    blink_output_free(output);
    memset(&past, 0, sizeof past); /* Nobody has set it up. */
    INVALID(blink_run(all, NULL, &past, NULL, &none, &err));
}

static void values_that_cannot_be(blink *all, blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_process *process;
    blink_command command = shell("true");
    command.argv_count = 0;
    INVALID(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    command = shell("true");
    command.argv_count = SIZE_MAX;
    INVALID(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    command = shell(NULL);
    INVALID(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    command = shell("true");
    command.stdin_length = 1;
    INVALID(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    command.stdin_data = (const uint8_t *)"x";
    command.stdin_length = SIZE_MAX;
    INVALID(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    command.stdin_length = 1;
    command.stdin_piped = 1;
    INVALID(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    command = shell("true");
    command.pty = 2;
    INVALID(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    command = shell("true");
    command.user = "\xff\xfe";
    INVALID(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    command = shell("true");
    const char *env[] = {"no equals sign"};
    command.env = env;
    command.env_count = 1;
    INVALID(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));

    blink_options options;
    blink_options_init(&options, sizeof options);
    blink *other;
    options.isolation = 99;
    INVALID(blink_open(&options, &other, &err));
    CHECK(other == NULL);
    blink_options_init(&options, sizeof options);
    options.home = "";
    INVALID(blink_open(&options, &other, &err));

    blink_sandbox_options sandbox_options;
    blink_sandbox *made;
    blink_sandbox_options_init(&sandbox_options, sizeof sandbox_options);
    sandbox_options.isolation = -1;
    INVALID(blink_sandbox_create(all, &sandbox_options, NULL, &made, &err));
    blink_sandbox_options_init(&sandbox_options, sizeof sandbox_options);
    sandbox_options.network = 3;
    INVALID(blink_sandbox_create(all, &sandbox_options, NULL, &made, &err));
    blink_sandbox_options_init(&sandbox_options, sizeof sandbox_options);
    sandbox_options.cpus = -1.0;
    INVALID(blink_sandbox_create(all, &sandbox_options, NULL, &made, &err));
    blink_sandbox_options_init(&sandbox_options, sizeof sandbox_options);
    sandbox_options.hostname = "not_a_name";
    INVALID(blink_sandbox_create(all, &sandbox_options, NULL, &made, &err));
    blink_sandbox_options_init(&sandbox_options, sizeof sandbox_options);
    sandbox_options.image = "not an image \xff";
    INVALID(blink_sandbox_create(all, &sandbox_options, NULL, &made, &err));
    sandbox_options.image = NULL;
    const blink_port port = {.address = "nowhere", .guest_port = 80};
    sandbox_options.ports = &port;
    sandbox_options.ports_count = 1;
    INVALID(blink_sandbox_create(all, &sandbox_options, NULL, &made, &err));
    blink_sandbox_options_init(&sandbox_options, sizeof sandbox_options);
    sandbox_options.detached = 1;
    command = shell("true");
    INVALID(blink_run(all, &sandbox_options, &command, NULL, &output, &err));
    blink_session *session;
    INVALID(blink_session_open(all, "not a name/", NULL, NULL, &session, &err));

    OK(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    uint8_t buffer[1];
    size_t count;
    int fd;
    INVALID(blink_process_read(process, 0, buffer, 1, &count, NULL, &err));
    INVALID(blink_process_read(process, 3, buffer, 1, &count, NULL, &err));
    INVALID(blink_process_read(process, 1, buffer, 0, &count, NULL, &err));
    INVALID(blink_process_read(process, 1, NULL, 1, &count, NULL, &err));
    INVALID(blink_process_read(process, 1, buffer, SIZE_MAX, &count, NULL, &err));
    INVALID(blink_process_read(process, 1, buffer, 1, NULL, NULL, &err));
    uint64_t offset;
    INVALID(blink_process_offset(process, 0, &offset, &err));
    INVALID(blink_process_offset(process, 1, NULL, &err));
    INVALID(blink_process_fd(process, 7, &fd, &err));
    CHECK(fd == -1);
    INVALID(blink_process_write(process, buffer, 1, NULL, &err)); /* stdin_piped was not set. */
    blink_process_free(process);
}

void test_bad_input(void)
{
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);
    null_is_told(all, sandbox);
    freed_and_wrong_handles_are_told(all);
    sizes_of_the_past_and_the_future(all);
    values_that_cannot_be(all, sandbox);
    blink_sandbox_free(sandbox);
    blink_close(all);
    blink_error *err = NULL;
    blink_strings *strings;
    INVALID(blink_sandbox_list(all, &strings, &err));
    blink_close(all);
}
