/* The library as a whole: doctor, images, logs, forks of the process. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_int messages;

static void hear(int32_t level, const char *message, void *data)
{
    CHECK(level >= BLINK_LOG_LEVEL_ERROR && level <= BLINK_LOG_LEVEL_TRACE && strlen(message) > 0);
    CHECK(strcmp(data, "data") == 0);
    messages++;
    /* It may call back. */
    blink_cancel_free(blink_cancel_new());
}

static void tell(const blink_progress *progress, void *cancel)
{
    CHECK(progress->size == sizeof *progress && progress->bytes_done <= progress->bytes_total);
    blink_error *err = NULL;
    blink_strings *strings;
    blink *all = open_blink(); /* It may call anything. */
    OK(blink_sandbox_list(all, &strings, &err));
    blink_strings_free(strings);
    blink_close(all);
    blink_cancel_now(cancel);
}

static void images(blink *all)
{
    blink_error *err = NULL;
    blink_image_list *list;
    blink_image info = BLINK_IMAGE_INIT;
    FAILS(BLINK_STATUS_NOT_FOUND, blink_image_pull(all, "./no-such.tar", NULL, NULL, NULL, &info, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_image_remove(all, "sha256:000000000000", NULL, &err));
    const char *image = getenv("BLINK_TEST_IMAGE"); /* A tar that scripts/test-c makes. */
    CHECK(image != NULL);
    OK(blink_image_pull(all, image, NULL, NULL, NULL, &info, &err));
    CHECK(strncmp(info.digest, "sha256:", 7) == 0 && info.size_bytes > 0 && info.pulled_ms > 1600000000000);
    char digest[128];
    snprintf(digest, sizeof digest, "%s", info.digest);
    blink_image_dispose(&info);
    CHECK(info.owner == NULL && info.digest == NULL && info.size == sizeof info);
    blink_image_dispose(NULL);
    OK(blink_image_list_all(all, &list, &err));
    CHECK(blink_image_list_count(list) == 1);
    OK(blink_image_list_get(list, 0, &info, &err));
    CHECK(strcmp(info.digest, digest) == 0 && info.owner == NULL);
    blink_image_list_free(list);

    /* Who is told of the unpacking calls back, and has enough of it. Micro-VMs unpack nothing. */
    const char *engine = getenv("BLINK_TEST_ENGINE");
    if (engine == NULL || strcmp(engine, "namespace") == 0) {
        blink_cancel *cancel = blink_cancel_new();
        blink_sandbox_options options;
        blink_sandbox_options_init(&options, sizeof options);
        options.image = image;
        options.progress = tell;
        options.progress_data = cancel;
        blink_sandbox *sandbox;
        FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_create(all, &options, cancel, &sandbox, &err));
        CHECK(sandbox == NULL);
        blink_cancel_free(cancel);
    }
    uint64_t freed;
    /* What was cancelled may still be being undone. */
    blink_status status = BLINK_STATUS_BUSY;
    for (int i = 0; i < 300 && status == BLINK_STATUS_BUSY; i++) {
        blink_error_free(err);
        status = blink_image_remove(all, digest, &freed, &err);
        struct timespec pause = {.tv_nsec = 100000000};
        if (status == BLINK_STATUS_BUSY)
            nanosleep(&pause, NULL);
    }
    check_status(status, BLINK_STATUS_OK, &err, "blink_image_remove()", __FILE__, __LINE__);
    OK(blink_image_prune(all, &freed, &err));
}

static void doctor(blink *all)
{
    blink_error *err = NULL;
    blink_report *report;
    OK(blink_doctor(all, NULL, &report, &err));
    CHECK(blink_report_count(report) == 2);
    blink_check found;
    blink_check_init(&found, sizeof found);
    const char *engine = getenv("BLINK_TEST_ENGINE");
    for (size_t i = 0; i < 2; i++) {
        OK(blink_report_get(report, i, &found, &err));
        if (strcmp(found.isolation, engine ? engine : "namespace") == 0)
            CHECK(found.problem == NULL && found.elapsed_us > 0);
    }
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_report_get(report, 2, &found, &err));
    CHECK(blink_report_root(report) == (geteuid() == 0));
    CHECK(!(blink_report_hypervisor_works(report) && blink_report_hypervisor_problem(report)));
    blink_report_free(report);
}

static void a_child_process_is_told(blink *all, blink_sandbox *sandbox)
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        blink_error *err = NULL;
        blink_status status = blink_sandbox_ping(sandbox, NULL, &err);
        blink_error_free(err);
        blink_sandbox_free(sandbox);
        blink_close(all);
        /* Not _exit(): what a child has of its parent's is not given back, and valgrind would look at it. */
        const char *end = status == BLINK_STATUS_UNSUPPORTED ? "true" : "false";
        execlp(end, end, (char *)NULL);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    blink_error *err = NULL;
    OK(blink_sandbox_ping(sandbox, NULL, &err));
}

void test_images(void)
{
    blink *all = open_blink();
    images(all);
    blink_close(all);
}

void test_system(void)
{
    blink_error *err = NULL;
    char data[] = "data";
    CHECK(strlen(blink_version()) > 0);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_log_set(0, hear, data, &err));
    OK(blink_log_set(BLINK_LOG_LEVEL_TRACE, hear, data, &err));
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);
    OK(blink_log_set(0, NULL, NULL, &err));
    CHECK(messages > 0);
    doctor(all);
    a_child_process_is_told(all, sandbox);
    blink_sandbox_free(sandbox);
    blink_close(all);
}
