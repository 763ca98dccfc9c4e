/* Cancelling from signal handlers, and what a child process has of its parent's. */
#define _GNU_SOURCE
#include "test.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t descriptor = -1;
static volatile sig_atomic_t caught;

static void cancel_by_descriptor(int signal)
{
    (void)signal;
    int before = errno;
    static const uint64_t one = 1;
    ssize_t written = write(descriptor, &one, sizeof one);
    (void)written;
    caught++;
    errno = before;
}

static void handle(int signal, int flags)
{
    struct sigaction action = {.sa_handler = cancel_by_descriptor, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    CHECK(sigaction(signal, &action, NULL) == 0);
}

static void alarm_in(long microseconds)
{
    struct itimerval timer = {.it_value = {microseconds / 1000000, microseconds % 1000000}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

static int32_t fd_of(const blink_cancel *cancel)
{
    blink_error *err = NULL;
    int32_t fd;
    OK(blink_cancel_fd(cancel, &fd, &err));
    return fd;
}

/* The alarm comes while the call waits, or anywhere before it does: in the memory allocator, in a lock of the library. */
static void a_blocking_call(blink_sandbox *sandbox, int times, int flags)
{
    blink_error *err = NULL;
    blink_command command = shell("sleep 86402");
    handle(SIGALRM, flags);
    for (int i = 0; i < times; i++) {
        blink_cancel *cancel = blink_cancel_new();
        descriptor = fd_of(cancel);
        blink_output *output;
        alarm_in(1 + (i * 997) % 20000);
        FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_exec(sandbox, &command, cancel, &output, &err));
        CHECK(output == NULL);
        FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_ping(sandbox, cancel, &err)); /* It stays so. */
        blink_cancel_free(cancel);
    }
    CHECK(caught >= times);
}

/* The alarm comes in the middle of all that makes, looks up and frees handles. */
static void any_call(blink_sandbox *sandbox, int times)
{
    blink_error *err = NULL;
    handle(SIGALRM, SA_RESTART);
    for (int i = 0; i < times; i++) {
        blink_cancel *cancel = blink_cancel_new();
        descriptor = fd_of(cancel);
        alarm_in(1 + (i * 13) % 400);
        blink_status status = BLINK_STATUS_OK;
        while (status == BLINK_STATUS_OK) {
            blink_cancel_free(blink_cancel_new());
            CHECK(blink_sandbox_id(sandbox) != NULL);
            status = blink_sandbox_ping(sandbox, cancel, &err);
        }
        FAILS(BLINK_STATUS_CANCELLED, status);
        blink_cancel_free(cancel);
    }
}

struct waiting {
    blink_sandbox *sandbox;
    blink_cancel *cancel;
    atomic_int begun;
};

static void *wait_for_it(void *data)
{
    struct waiting *waiting = data;
    blink_error *err = NULL;
    blink_output *output;
    blink_command command = shell("sleep 86403");
    waiting->begun++;
    FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_exec(waiting->sandbox, &command, waiting->cancel, &output, &err));
    return NULL;
}

/* One SIGINT cancels the calls of several threads, also those that began before there was a descriptor. */
static void several_threads(blink_sandbox *sandbox)
{
    handle(SIGINT, 0);
    struct waiting waiting = {sandbox, blink_cancel_new(), 0};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, wait_for_it, &waiting) == 0);
    while (waiting.begun < 4)
        usleep(1000);
    usleep(50000);
    descriptor = fd_of(waiting.cancel);
    CHECK(fd_of(waiting.cancel) == descriptor);
    struct pollfd readable = {.fd = descriptor, .events = POLLIN};
    CHECK(poll(&readable, 1, 0) == 0);
    CHECK(kill(getpid(), SIGINT) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(poll(&readable, 1, 0) == 1);
    blink_cancel_free(waiting.cancel);
    /* Whoever polls it is told of blink_cancel_now() as well. */
    blink_cancel *cancel = blink_cancel_new();
    readable.fd = fd_of(cancel);
    blink_cancel_now(cancel);
    CHECK(poll(&readable, 1, 0) == 1);
    blink_cancel_free(cancel);
}

void test_signals(void)
{
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);
    a_blocking_call(sandbox, 60, 0);
    a_blocking_call(sandbox, 60, SA_RESTART);
    any_call(sandbox, 300);
    several_threads(sandbox);
    signal(SIGALRM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    blink_sandbox_free(sandbox);
    blink_close(all);
}

static atomic_bool over;

static void *make_and_free(void *nothing)
{
    while (!over)
        blink_cancel_free(blink_cancel_new());
    return nothing;
}

/* Runs in a child process; returns the line of the first thing that is wrong. */
static int in_a_child(blink *all, blink_sandbox *sandbox, blink_cancel *cancel, const blink_output *output)
{
#define MUST(condition)                                                                                                \
    if (!(condition))                                                                                                  \
    return __LINE__
    blink_error *err = NULL;
    MUST(blink_sandbox_ping(sandbox, NULL, &err) == BLINK_STATUS_UNSUPPORTED);
    MUST(strstr(blink_error_message(err), "forked") != NULL);
    blink_error_free(err);
    blink_strings *strings;
    MUST(blink_sandbox_list(all, &strings, &err) == BLINK_STATUS_UNSUPPORTED && strings == NULL);
    blink_error_free(err);
    blink_files *files;
    MUST(blink_sandbox_files(sandbox, &files, NULL) == BLINK_STATUS_UNSUPPORTED);
    int32_t fd;
    MUST(blink_cancel_fd(cancel, &fd, NULL) == BLINK_STATUS_UNSUPPORTED && fd == -1);
    blink_cancel_now(cancel); /* Cancels nothing of the parent's. */
    /* What a call has brought is there, and everything can be freed. */
    size_t length;
    MUST(blink_output_stdout(output, &length) != NULL && length == 3);
    blink_cancel_free(cancel);
    blink_sandbox_free(sandbox);
    MUST(blink_sandbox_id(sandbox) == NULL);
    blink_close(all);
    return 0;
}

static void a_child_is_told(void)
{
    blink_error *err = NULL;
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);
    blink_cancel *cancel = blink_cancel_new();
    int32_t fd = fd_of(cancel);
    blink_output *output;
    blink_command command = shell("echo hi");
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    pthread_t thread;
    over = false;
    CHECK(pthread_create(&thread, NULL, make_and_free, NULL) == 0);
    for (int i = 0; i < 100; i++) {
        fflush(NULL);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(60); /* A child that hangs ends by this. */
            int line = in_a_child(all, sandbox, cancel, output);
            if (line != 0)
                fprintf(stderr, "%s:%d: in a child process\n", __FILE__, line);
            _exit(line != 0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    over = true;
    pthread_join(thread, NULL);
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    CHECK(poll(&readable, 1, 0) == 0);
    OK(blink_sandbox_ping(sandbox, cancel, &err));
    blink_output_free(output);
    blink_cancel_free(cancel);
    blink_sandbox_free(sandbox);
    blink_close(all);
}

/* A child opens Blink for itself, while its parent goes on. */
static void a_child_opens_its_own(void)
{
    blink_error *err = NULL;
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(120);
        blink *own = open_blink();
        blink_output *output;
        blink_command command = shell("echo child");
        OK(blink_run(own, NULL, &command, NULL, &output, &err));
        CHECK(stdout_is(output, "child\n"));
        blink_output_free(output);
        blink_close(own);
        _exit(0);
    }
    blink_command command = shell("echo parent");
    blink_output *output;
    int status;
    pid_t ended;
    do {
        OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
        CHECK(stdout_is(output, "parent\n"));
        blink_output_free(output);
        ended = waitpid(child, &status, WNOHANG);
    } while (ended == 0);
    CHECK(ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    blink_sandbox_free(sandbox);
    blink_close(all);
}

void test_fork(void)
{
    a_child_is_told();
    a_child_opens_its_own();
}
