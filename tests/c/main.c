/* The behaviour of libblink, as C sees it. Each test has its own sandboxes; all have one home. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static atomic_int checks;
static char folder[256];
static const char *started_as;

void check(bool condition, const char *what, const char *file, int line)
{
    checks++;
    if (!condition) {
        fprintf(stderr, "%s:%d: %s\n", file, line, what);
        exit(1);
    }
}

/* Writes down which function has returned what, for tests/c/promises.py. */
static void seen(const char *what, blink_status status)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int file = -1;
    const char *path = getenv("BLINK_TEST_SEEN"), *name = blink_status_name(status);
    size_t length = strspn(what, "abcdefghijklmnopqrstuvwxyz_");
    if (path == NULL || name == NULL || what[length] != '(')
        return;
    char line[128];
    int size = snprintf(line, sizeof line, "%.*s %s\n", (int)length, what, name);
    pthread_mutex_lock(&lock);
    if (file < 0) /* Opened for good: some tests leave no descriptors. */
        file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    ssize_t written = write(file, line, (size_t)size);
    pthread_mutex_unlock(&lock);
    if (written != size)
        abort();
}

void check_status(blink_status status, blink_status expected, blink_error **err, const char *what, const char *file,
                  int line)
{
    checks++;
    seen(what, status);
    bool told = (status == BLINK_STATUS_OK) == (*err == NULL) && (*err == NULL || blink_error_status(*err) == status) &&
                (*err == NULL || strlen(blink_error_message(*err)) > 0);
    if (status != expected || !told) {
        const char *name = blink_status_name(status);
        fprintf(stderr, "%s:%d: %s: %s: %s\n", file, line, what, name ? name : "no status", blink_error_message(*err));
        exit(1);
    }
    blink_error_free(*err);
    *err = NULL;
}

void check_returned(blink_status status, blink_status expected, const char *what, const char *file, int line)
{
    seen(what, status);
    check(status == expected, what, file, line);
}

int32_t engine(void)
{
    const char *name = getenv("BLINK_TEST_ENGINE");
    if (name == NULL || strcmp(name, "namespace") == 0)
        return BLINK_ISOLATION_NAMESPACE;
    CHECK(strcmp(name, "microvm") == 0);
    return BLINK_ISOLATION_MICROVM;
}

blink *open_blink(void)
{
    blink_error *err = NULL;
    blink_options options;
    blink_options_init(&options, sizeof options);
    options.isolation = engine();
    char home[320];
    snprintf(home, sizeof home, "%s/home", folder);
    options.home = home;
    blink *all;
    OK(blink_open(&options, &all, &err));
    return all;
}

blink_sandbox *inside(const blink_session *session)
{
    blink_sandbox *sandbox;
    blink_error *err;
    OK(blink_session_sandbox(session, NULL, &sandbox, &err));
    return sandbox;
}

blink_sandbox *make_sandbox(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox *sandbox;
    OK(blink_sandbox_create(all, NULL, NULL, &sandbox, &err));
    return sandbox;
}

blink_command shell(const char *script)
{
    static _Thread_local const char *argv[3] = {"/bin/sh", "-c"};
    argv[2] = script;
    blink_command command;
    blink_command_init(&command, sizeof command);
    command.argv = argv;
    command.argv_count = COUNT(argv);
    return command;
}

bool is(const uint8_t *bytes, size_t length, const char *expected)
{
    return length == strlen(expected) && (length == 0 || memcmp(bytes, expected, length) == 0);
}

bool stdout_is(const blink_output *output, const char *expected)
{
    size_t length;
    const uint8_t *bytes = blink_output_stdout(output, &length);
    if (!is(bytes, length, expected)) {
        fprintf(stderr, "not \"%s\", but \"%.*s\"\n", expected, (int)length, length ? (const char *)bytes : "");
        return false;
    }
    return true;
}

const char *scratch(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

const char *program(void)
{
    return started_as;
}

static int held[4096], held_count;
static struct rlimit limit_before;

void hold_descriptors(void)
{
    CHECK(getrlimit(RLIMIT_NOFILE, &limit_before) == 0);
    struct rlimit limit = limit_before;
    if (limit.rlim_cur > COUNT(held))
        limit.rlim_cur = COUNT(held);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while ((held[held_count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        held_count++;
}

void let_go_of_descriptors(void)
{
    while (held_count > 0)
        close(held[--held_count]);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit_before) == 0);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"run", test_run},           {"process", test_process},   {"files", test_files},
        {"pool", test_pool},
        {"session", test_session},   {"cancel", test_cancel},     {"bad_input", test_bad_input},
        {"system", test_system},     {"detached", test_detached}, {"transfer", test_transfer},
        {"archive", test_archive},   {"warm", test_warm},         {"images", test_images},
        {"connect", test_connect},   {"errors", test_errors},     {"connect_session", test_connect_session},
        {"about", test_about},       {"beside", test_beside},     {"about_session", test_about_session},
        {"registry", test_registry}, {"handles", test_handles},   {"signals", test_signals},
        {"fork", test_fork},         {"refused", test_refused},   {"statuses", test_statuses},
        {"threads", test_threads},
    };
    if (argc < 2) {
        fprintf(stderr, "usage: %s FOLDER [TEST]...\n", argv[0]);
        return 2;
    }
    started_as = argv[0];
    snprintf(folder, sizeof folder, "%s", argv[1]);
    if (argc == 3 && strcmp(argv[2], "sharer") == 0)
        return run_sharer();
    int ran = 0;
    for (size_t i = 0; i < COUNT(tests); i++) {
        bool wanted = argc == 2;
        for (int j = 2; j < argc; j++)
            wanted |= strcmp(argv[j], tests[i].name) == 0;
        if (wanted) {
            size_t before = blink_handle_count();
            tests[i].run();
            CHECK(blink_handle_count() == before);
            printf("ok %s\n", tests[i].name);
            fflush(stdout);
            ran++;
        }
    }
    printf("%d tests, %d checks\n", ran, checks);
    return ran > 0 ? 0 : 1;
}
