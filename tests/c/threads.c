/* Handles that several threads use and free at once, of types that need no sandbox: what ThreadSanitizer can follow anywhere. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 300 };

struct shared {
    pthread_barrier_t together;
    blink *all;
    blink_cancel *cancel;
    blink_strings *strings;
    blink_session_list *sessions;
    blink_error *error;
    bool over;
    atomic_int waits;
};

static void *use_and_free(void *data)
{
    struct shared *shared = data;
    for (;;) {
        pthread_barrier_wait(&shared->together);
        if (shared->over)
            return NULL;
        blink_error *err = NULL;
        int32_t fd;
        blink_status status = blink_cancel_fd(shared->cancel, &fd, &err);
        CHECK(status == BLINK_STATUS_OK || strstr(blink_error_message(err), "freed") != NULL);
        blink_error_free(err);
        blink_cancel_now(shared->cancel);
        blink_session *none;
        status = blink_session_take(shared->all, "no-such", 0, shared->cancel, &none, &err);
        CHECK(status == BLINK_STATUS_CANCELLED || status == BLINK_STATUS_INVALID_ARGUMENT);
        shared->waits += status == BLINK_STATUS_CANCELLED;
        blink_error_free(err);
        blink_cancel_free(shared->cancel);
        CHECK(blink_strings_count(shared->strings) == 0);
        blink_strings_free(shared->strings);
        blink_session_list_count(shared->sessions);
        blink_session_list_free(shared->sessions);
        blink_error_status(shared->error);
        blink_error_free(shared->error);
        pthread_barrier_wait(&shared->together);
    }
}

void test_threads(void)
{
    blink_error *err = NULL;
    struct shared shared = {.all = open_blink()};
    pthread_t threads[THREADS];
    CHECK(pthread_barrier_init(&shared.together, NULL, THREADS + 1) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, use_and_free, &shared) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        size_t before = blink_handle_count();
        shared.cancel = blink_cancel_new();
        OK(blink_sandbox_list(shared.all, &shared.strings, &err));
        OK(blink_session_list_all(shared.all, &shared.sessions, &err));
        blink_session *none;
        CHECK(blink_session_take(shared.all, "no-such", 0, NULL, &none, &shared.error) == BLINK_STATUS_NOT_FOUND);
        pthread_barrier_wait(&shared.together);
        pthread_barrier_wait(&shared.together);
        CHECK(blink_handle_count() == before);
    }
    shared.over = true;
    pthread_barrier_wait(&shared.together);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(shared.waits > 0);
    pthread_barrier_destroy(&shared.together);
    blink_close(shared.all);
}
