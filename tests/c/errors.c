/* Each kind of failure that no other test meets, by what really leads to it. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Opens Blink in the tests' home, otherwise than open_blink(). */
static blink *open_with(int32_t isolation, bool offline)
{
    blink_error *err = NULL;
    blink_options options;
    blink_options_init(&options, sizeof options);
    options.home = scratch("home");
    options.isolation = isolation;
    options.offline = offline;
    blink *all;
    OK(blink_open(&options, &all, &err));
    return all;
}

/* Where the hypervisor cannot work, there are no micro-VMs. */
static void isolation_unavailable(void)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_command command = shell("true");
    blink *all = open_with(BLINK_ISOLATION_MICROVM, false);
    blink_report *report;
    OK(blink_doctor(all, NULL, &report, &err));
    if (!blink_report_hypervisor_works(report)) {
        blink_sandbox *sandbox;
        FAILS(BLINK_STATUS_ISOLATION_UNAVAILABLE, blink_sandbox_create(all, NULL, NULL, &sandbox, &err));
        CHECK(blink_run(all, NULL, &command, NULL, &output, &err) == BLINK_STATUS_ISOLATION_UNAVAILABLE);
        CHECK(strstr(blink_error_message(err), "namespace") != NULL);
        FAILS(BLINK_STATUS_ISOLATION_UNAVAILABLE, blink_error_status(err));
    }
    blink_report_free(report);
    blink_close(all);
}

/* A registry that nobody listens at, and no network at all. */
static void image_unavailable(blink *all)
{
    blink_error *err = NULL;
    blink_image image = BLINK_IMAGE_INIT;
    FAILS(BLINK_STATUS_IMAGE_UNAVAILABLE, blink_image_pull(all, "127.0.0.1:9/none:1", NULL, NULL, NULL, &image, &err));
    CHECK(image.owner == NULL);
    blink *offline = open_with(BLINK_ISOLATION_DEFAULT, true);
    CHECK(blink_image_pull(offline, "alpine:3.20", NULL, NULL, NULL, NULL, &err) == BLINK_STATUS_IMAGE_UNAVAILABLE);
    CHECK(strstr(blink_error_message(err), "alpine:3.20") != NULL);
    FAILS(BLINK_STATUS_IMAGE_UNAVAILABLE, blink_error_status(err));
    blink_close(offline);
}

/* More than a disk holds. */
static void resource_exhausted(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox_options options;
    blink_sandbox_options_init(&options, sizeof options);
    options.disk_mib = 32;
    blink_sandbox *sandbox;
    OK(blink_sandbox_create(all, &options, NULL, &sandbox, &err));
    blink_output *output;
    blink_command command = shell("for i in $(seq 100); do head -c 4000000 /dev/zero >/tmp/$i || exit 9; done; sleep 60");
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    if (blink_output_exit_code(output) == 9) { /* A machine's own disk has an end; nobody is killed for it. */
        blink_files *files;
        OK(blink_sandbox_files(sandbox, &files, &err));
        size_t length = 48 << 20;
        uint8_t *data = calloc(length, 1);
        FAILS(BLINK_STATUS_RESOURCE_EXHAUSTED, blink_files_write(files, "/tmp/x", data, length, NULL, NULL, &err));
        free(data);
        blink_files_free(files);
    } else {
        RETURNS(BLINK_STATUS_RESOURCE_EXHAUSTED, blink_output_check(output, &err));
        CHECK(strstr(blink_error_message(err), "disk") != NULL && blink_error_output(err) != NULL);
        FAILS(BLINK_STATUS_RESOURCE_EXHAUSTED, blink_error_status(err));
    }
    blink_output_free(output);
    blink_sandbox_free(sandbox);
}

/* What file operations fail by, with the kernel's own numbers. */
static void file_kinds(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox *sandbox = make_sandbox(all);
    blink_files *files;
    char long_name[320] = "/tmp/";
    memset(long_name + 5, 'n', 300);
    OK(blink_sandbox_files(sandbox, &files, &err));
    OK(blink_files_make_dir(files, "/tmp/full/inner", &err));
    const struct {
        const char *path;
        blink_status status;
        int number;
    } cases[] = {
        {"/no/such/file", BLINK_STATUS_NOT_FOUND, ENOENT},
        {"/tmp/full", BLINK_STATUS_IS_A_DIRECTORY, EISDIR},
        {"/etc/passwd/file", BLINK_STATUS_NOT_A_DIRECTORY, ENOTDIR},
        {"/usr/new", BLINK_STATUS_READ_ONLY, EROFS},
        {long_name, BLINK_STATUS_NAME_TOO_LONG, ENAMETOOLONG},
        {"/proc/self/mem", BLINK_STATUS_PERMISSION_DENIED, EPERM},
    };
    for (size_t index = 0; index < sizeof cases / sizeof *cases; index++) {
        blink_status status = blink_files_write(files, cases[index].path, (const uint8_t *)"x", 1, NULL, NULL, &err);
        CHECK(status == cases[index].status);
        CHECK(blink_error_errno(err) == cases[index].number);
        FAILS(cases[index].status, blink_error_status(err));
    }
    CHECK(blink_files_remove(files, "/tmp/full", false, &err) == BLINK_STATUS_DIRECTORY_NOT_EMPTY);
    CHECK(blink_error_errno(err) == ENOTEMPTY);
    FAILS(BLINK_STATUS_DIRECTORY_NOT_EMPTY, blink_error_status(err));
    CHECK(blink_files_write(files, "relative", (const uint8_t *)"x", 1, NULL, NULL, &err) == BLINK_STATUS_INVALID_ARGUMENT);
    CHECK(blink_error_errno(err) == 0);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_error_status(err));
    CHECK(blink_error_errno(NULL) == 0);
    blink_files_free(files);
    blink_sandbox_free(sandbox);
}

/* A file of the host that cannot be read, which is nobody's mistake: memory at address 0. */
static void internal(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox *sandbox = make_sandbox(all);
    blink_files *files;
    OK(blink_sandbox_files(sandbox, &files, &err));
    FAILS(BLINK_STATUS_INTERNAL, blink_files_upload(files, "/proc/self/mem", "/tmp/memory", NULL, &err));
    bool there;
    OK(blink_files_exists(files, "/tmp/memory", &there, &err));
    CHECK(!there);
    blink_files_free(files);
    blink_sandbox_free(sandbox);
}

/* What is known of a failure beside its status and its message. */
static void details(blink *all)
{
    blink_error *err = NULL;
    const char *command = "";
    blink_sandbox *sandbox = make_sandbox(all);
    blink_files *files;
    OK(blink_sandbox_files(sandbox, &files, &err));
    CHECK(blink_files_upload(files, "/no/such/file", "/tmp/x", NULL, &err) == BLINK_STATUS_NOT_FOUND);
    CHECK(strstr(blink_error_cause(err, 0), "No such file") != NULL && blink_error_cause(err, 1) == NULL);
    CHECK(!blink_error_is_retryable(err));
    CHECK(blink_error_holder(err, 0, &command) == -1 && command == NULL);
    FAILS(BLINK_STATUS_NOT_FOUND, blink_error_status(err));
    blink_files_free(files);
    bool one_owner = strcmp(blink_sandbox_isolation(sandbox), "microvm") == 0;
    blink_sandbox_free(sandbox);
    CHECK(!blink_error_is_retryable(NULL) && blink_error_cause(NULL, 0) == NULL);
    CHECK(blink_error_holder(NULL, 0, NULL) == -1);
    if (one_owner)
        return;

    /* Another Blink is another user of a session, though it is in the same process. */
    blink *other = open_blink();
    blink_session *session, *taken;
    OK(blink_session_open(all, "held", NULL, NULL, &session, &err));
    OK(blink_session_take(other, "held", 0, NULL, &taken, &err));
    CHECK(blink_session_remove(taken, &err) == BLINK_STATUS_BUSY);
    CHECK(blink_error_is_retryable(err));
    CHECK(blink_error_holder(err, 0, &command) == getpid() && command[0] != '\0');
    CHECK(blink_error_holder(err, 1, NULL) == -1);
    FAILS(BLINK_STATUS_BUSY, blink_error_status(err));
    blink_session_free(taken);
    blink_close(other);
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
}

/* Answers whoever calls with what no agent says. */
static void *talk_nonsense(void *listener)
{
    int caller = accept(*(int *)listener, NULL, NULL);
    CHECK(caller >= 0);
    static const char nonsense[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    CHECK(send(caller, nonsense, sizeof nonsense - 1, MSG_NOSIGNAL) > 0);
    char heard[256];
    while (read(caller, heard, sizeof heard) > 0)
        continue;
    close(caller);
    return NULL;
}

/* An agent that a program of the sandbox has taken the place of. Micro-VMs have no socket to put another one at. */
static void protocol(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox_options options;
    blink_sandbox_options_init(&options, sizeof options);
    options.detached = 1;
    blink_sandbox *sandbox;
    OK(blink_sandbox_create(all, &options, NULL, &sandbox, &err));
    if (strcmp(blink_sandbox_isolation(sandbox), "namespace") != 0) {
        OK(blink_sandbox_remove(sandbox, &err));
        blink_sandbox_free(sandbox);
        return;
    }
    char id[64], path[512], aside[520];
    snprintf(id, sizeof id, "%s", blink_sandbox_id(sandbox));
    blink_sandbox_free(sandbox);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(path, sizeof path, "home/sandboxes/%s/agent.sock", id);
    snprintf(path, sizeof path, "%s", scratch(path));
    snprintf(aside, sizeof aside, "%s.aside", path);
    CHECK(strlen(path) < sizeof address.sun_path && rename(path, aside) == 0);
    strcpy(address.sun_path, path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, talk_nonsense, &listener) == 0);
    FAILS(BLINK_STATUS_PROTOCOL, blink_sandbox_open(all, id, NULL, &sandbox, &err));
    CHECK(sandbox == NULL);
    pthread_join(thread, NULL);
    close(listener);
    CHECK(rename(aside, path) == 0);
    OK(blink_sandbox_open(all, id, NULL, &sandbox, &err));
    OK(blink_sandbox_remove(sandbox, &err));
    blink_sandbox_free(sandbox);
}

void test_errors(void)
{
    isolation_unavailable();
    blink *all = open_blink();
    image_unavailable(all);
    resource_exhausted(all);
    file_kinds(all);
    internal(all);
    details(all);
    protocol(all);
    blink_close(all);
}
