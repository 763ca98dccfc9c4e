/* What is refused instead of being taken for something else: fields of the future, sizes that cannot be, an empty home, and
 * what the machine has no more of. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INVALID(call) FAILS(BLINK_STATUS_INVALID_ARGUMENT, call)

/* A call that fails in one way, with a message that has these words. */
#define SAYS(expected, words, call)                                                                                    \
    do {                                                                                                               \
        says((call), (expected), (words), &err, #call, __FILE__, __LINE__);                                            \
    } while (0)

static void says(blink_status status, blink_status expected, const char *words, blink_error **err, const char *what,
                 const char *file, int line)
{
    if (strstr(blink_error_message(*err), words) == NULL) {
        fprintf(stderr, "%s:%d: \"%s\" is not in: %s\n", file, line, words, blink_error_message(*err));
        exit(1);
    }
    check_status(status, expected, err, what, file, line);
}

static void reserved_fields(blink *all)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_sandbox *sandbox;
    blink_session *session;
    blink_command command = shell("true");
    command.reserved = 1;
    SAYS(BLINK_STATUS_INVALID_ARGUMENT, "reserved", blink_run(all, NULL, &command, NULL, &output, &err));
    blink_sandbox_options options;
    OK(blink_sandbox_options_init(&options, sizeof options));
    options.reserved = 1;
    SAYS(BLINK_STATUS_INVALID_ARGUMENT, "reserved", blink_sandbox_create(all, &options, NULL, &sandbox, &err));
    SAYS(BLINK_STATUS_INVALID_ARGUMENT, "reserved", blink_sandbox_fetch_image(all, &options, NULL, &err));
    options.reserved = 0;
    blink_mount mount = {.host = "/usr", .guest = "/mnt", .read_only = 1, .reserved = 7};
    options.mounts = &mount;
    options.mounts_count = 1;
    SAYS(BLINK_STATUS_INVALID_ARGUMENT, "reserved", blink_sandbox_create(all, &options, NULL, &sandbox, &err));
    options.mounts_count = 0;
    blink_port port = {.guest_port = 80, .reserved = 7};
    options.ports = &port;
    options.ports_count = 1;
    SAYS(BLINK_STATUS_INVALID_ARGUMENT, "reserved", blink_sandbox_create(all, &options, NULL, &sandbox, &err));
    blink_session_options session_options;
    OK(blink_session_options_init(&session_options, sizeof session_options));
    session_options.reserved = 1;
    SAYS(BLINK_STATUS_INVALID_ARGUMENT, "reserved",
         blink_session_open(all, "none", &session_options, NULL, &session, &err));
    session_options.reserved = 0;
    options.ports_count = 0;
    options.reserved = 1;
    session_options.sandbox = &options;
    SAYS(BLINK_STATUS_INVALID_ARGUMENT, "reserved",
         blink_session_open(all, "none", &session_options, NULL, &session, &err));
}

/* A pointer's size in the place of a structure's: the structure has nothing of what it seems to say. */
#define WRONG_SIZE(type, call)                                                                                         \
    do {                                                                                                               \
        type it;                                                                                                       \
        memset(&it, 0xff, sizeof it);                                                                                  \
        RETURNS(BLINK_STATUS_INVALID_ARGUMENT, type##_init(&it, sizeof(void *)));                                      \
        SAYS(BLINK_STATUS_INVALID_ARGUMENT, #type, call);                                                              \
        CHECK(type##_init(&it, sizeof it - 1) == BLINK_STATUS_INVALID_ARGUMENT);                                       \
        SAYS(BLINK_STATUS_INVALID_ARGUMENT, #type "_init", call);                                                      \
        it.size = sizeof it;                                                                                           \
        CHECK(type##_init(&it, 3) == BLINK_STATUS_INVALID_ARGUMENT && it.size == sizeof it);                           \
        CHECK(type##_init(NULL, sizeof it) == BLINK_STATUS_INVALID_ARGUMENT);                                          \
        RETURNS(BLINK_STATUS_OK, type##_init(&it, sizeof it));                                 \
    } while (0)

static void wrong_sizes(blink *all, blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink *other;
    blink_output *output;
    blink_sandbox *made;
    blink_session *session, *other_session;
    blink_files *files;
    blink_report *report;
    blink_entries *entries;
    blink_process_list *processes;
    blink_session_list *sessions;
    blink_lineage *lineage;
    blink_image_list *images;
    OK(blink_sandbox_files(sandbox, &files, &err));
    blink_command command = shell("true");
    blink_process *process, *other_process;
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    OK(blink_sandbox_processes(sandbox, &processes, &err));
    OK(blink_session_open(all, "sizes", NULL, NULL, &session, &err));
    OK(blink_session_checkpoint(session, "one", false, NULL, NULL, &err));
    OK(blink_session_lineage(session, &lineage, &err));
    OK(blink_session_list_all(all, &sessions, &err));
    OK(blink_files_list(files, "/", &entries, &err));
    OK(blink_doctor(all, NULL, &report, &err));
    OK(blink_image_pull(all, getenv("BLINK_TEST_IMAGE"), NULL, NULL, NULL, NULL, &err));
    OK(blink_image_list_all(all, &images, &err));
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    WRONG_SIZE(blink_options, blink_open(&it, &other, &err));
    WRONG_SIZE(blink_command, blink_sandbox_spawn(sandbox, &it, NULL, &other_process, &err));
    WRONG_SIZE(blink_sandbox_options, blink_sandbox_create(all, &it, NULL, &made, &err));
    WRONG_SIZE(blink_session_options, blink_session_open(all, "none", &it, NULL, &other_session, &err));
    blink_pool *pool;
    WRONG_SIZE(blink_pool_options, blink_pool_create(all, &it, NULL, &pool, &err));
    OK(blink_pool_create(all, NULL, NULL, &pool, &err));
    WRONG_SIZE(blink_claim_options, blink_pool_claim(pool, &it, NULL, &made, &err));
    WRONG_SIZE(blink_pool_stats, blink_pool_stats_get(pool, &it, &err));
    blink_pool_free(pool);
    WRONG_SIZE(blink_write_options, blink_files_write(files, "/tmp/x", NULL, 0, &it, NULL, &err));
    WRONG_SIZE(blink_exit, blink_output_exit(output, &it, &err));
    WRONG_SIZE(blink_file_info, blink_files_stat(files, "/", &it, &err));
    WRONG_SIZE(blink_check, blink_report_get(report, 0, &it, &err));
    WRONG_SIZE(blink_process_info, blink_process_list_get(processes, 0, &it, &err));
    WRONG_SIZE(blink_session_info, blink_session_list_get(sessions, 0, &it, &err));
    WRONG_SIZE(blink_session_info, blink_session_info_get(session, &it, &err));
    WRONG_SIZE(blink_checkpoint, blink_lineage_get(lineage, 0, &it, &err));
    WRONG_SIZE(blink_image, blink_image_list_get(images, 0, &it, &err));
    WRONG_SIZE(blink_export_options, blink_session_export(session, scratch("none.boxlite"), &it, NULL, &err));
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
    blink_output_free(output);
    blink_process_free(process);
    blink_image_list_free(images);
    blink_report_free(report);
    blink_entries_free(entries);
    blink_session_list_free(sessions);
    blink_lineage_free(lineage);
    blink_process_list_free(processes);
    blink_files_free(files);
}

static void homes(void)
{
    blink_error *err = NULL;
    blink *other;
    blink_options options;
    OK(blink_options_init(&options, sizeof options));
    options.isolation = engine();
    options.home = "";
    SAYS(BLINK_STATUS_INVALID_ARGUMENT, "home", blink_open(&options, &other, &err));
    options.home = "/dev/null/home";
    SAYS(BLINK_STATUS_NOT_A_DIRECTORY, "/dev/null/home", blink_open(&options, &other, &err));
    options.home = "/proc/home";
    SAYS(BLINK_STATUS_NOT_FOUND, "/proc/home", blink_open(&options, &other, &err));
    char name[300];
    memset(name, 'x', sizeof name - 1);
    name[0] = '/';
    name[sizeof name - 1] = '\0';
    options.home = name;
    SAYS(BLINK_STATUS_NAME_TOO_LONG, "xxx", blink_open(&options, &other, &err));
    CHECK(other == NULL);
}

static void a_boot_that_has_no_time(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox *sandbox;
    blink_sandbox_options options;
    OK(blink_sandbox_options_init(&options, sizeof options));
    options.boot_timeout_ms = 1;
    SAYS(BLINK_STATUS_TIMEOUT, "1ms", blink_sandbox_create(all, &options, NULL, &sandbox, &err));
    CHECK(sandbox == NULL);
}

static void no_descriptors(blink *all, blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_sandbox *other;
    blink_process *process;
    blink *another;
    int32_t fd;
    blink_command command = shell("sleep 60");
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &process, &err));
    blink_cancel *cancel = blink_cancel_new();
    blink_cancel *watched = blink_cancel_new();
    OK(blink_cancel_fd(watched, &fd, &err));
    blink_options options;
    OK(blink_options_init(&options, sizeof options));
    options.isolation = engine();
    options.home = scratch("home");
    command = shell("true");
    hold_descriptors();
    FAILS(BLINK_STATUS_RESOURCE_EXHAUSTED, blink_sandbox_create(all, NULL, NULL, &other, &err));
    FAILS(BLINK_STATUS_RESOURCE_EXHAUSTED, blink_run(all, NULL, &command, NULL, &output, &err));
    FAILS(BLINK_STATUS_RESOURCE_EXHAUSTED, blink_open(&options, &another, &err));
    FAILS(BLINK_STATUS_RESOURCE_EXHAUSTED, blink_process_fd(process, BLINK_STREAM_STDOUT, &fd, &err));
    FAILS(BLINK_STATUS_RESOURCE_EXHAUSTED, blink_process_exit_fd(process, &fd, &err));
    FAILS(BLINK_STATUS_RESOURCE_EXHAUSTED, blink_cancel_fd(cancel, &fd, &err));
    CHECK(fd == -1);
    FAILS(BLINK_STATUS_RESOURCE_EXHAUSTED, blink_sandbox_ping(sandbox, watched, &err));
    OK(blink_sandbox_ping(sandbox, NULL, &err)); /* What has its descriptors goes on. */
    let_go_of_descriptors();
    OK(blink_sandbox_exec(sandbox, &command, watched, &output, &err));
    blink_output_free(output);
    OK(blink_run(all, NULL, &command, NULL, &output, &err));
    blink_output_free(output);
    blink_process_free(process);
    blink_cancel_free(cancel);
    blink_cancel_free(watched);
}

void test_refused(void)
{
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);
    reserved_fields(all);
    wrong_sizes(all, sandbox);
    homes();
    a_boot_that_has_no_time(all);
    no_descriptors(all, sandbox);
    blink_sandbox_free(sandbox);
    blink_close(all);
}
