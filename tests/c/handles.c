/* Handles of every type, once they were freed: numbers that are never given out again. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A type of handle: how one is made, freed, and used for something that tells whether it is good. */
struct type {
    const char *name;
    void *(*make)(void);
    void (*release)(void *handle);
    /* Returns INVALID_ARGUMENT with a message for one that is not good. Where the type has no function that fails, asks one
     * that returns nothing for it. */
    blink_status (*use)(void *handle, blink_error **err);
};

static blink *all;
static blink_sandbox *sandbox;
static blink_session *session;
static blink_files *files;

/* The types' functions, with one shape. */
#define MAKE(type, call)                                                                                               \
    static void *make_##type(void)                                                                                     \
    {                                                                                                                  \
        blink_error *err = NULL;                                                                                       \
        type *out;                                                                                                     \
        OK(call);                                                                                                      \
        return out;                                                                                                    \
    }
#define RELEASE(type, function)                                                                                        \
    static void release_##type(void *handle)                                                                           \
    {                                                                                                                  \
        function(handle);                                                                                              \
    }
#define USE(type, call)                                                                                                \
    static blink_status use_##type(void *handle, blink_error **err)                                                    \
    {                                                                                                                  \
        return call;                                                                                                   \
    }
#define TYPE(type) {#type, make_##type, release_##type, use_##type}

/* What a function without a status returns for a handle that is not good, as a status. */
static blink_status told(bool nothing, blink_error **err)
{
    *err = NULL;
    return nothing ? BLINK_STATUS_INVALID_ARGUMENT : BLINK_STATUS_OK;
}

static blink_exit a_exit;
static blink_command command;

static void *make_blink(void)
{
    return open_blink();
}
RELEASE(blink, blink_close)
static blink_strings *some_strings;
static blink_status use_blink(void *handle, blink_error **err)
{
    blink_status status = blink_sandbox_list(handle, &some_strings, err);
    blink_strings_free(some_strings);
    return status;
}

static void *make_blink_sandbox(void)
{
    return make_sandbox(all);
}
RELEASE(blink_sandbox, blink_sandbox_free)
USE(blink_sandbox, blink_sandbox_ping(handle, NULL, err))

static int sessions_made;

static blink_session *open_session(int number)
{
    char name[32];
    snprintf(name, sizeof name, "handle-%d", number);
    blink_error *err = NULL;
    blink_session *out;
    OK(blink_session_open(all, name, NULL, NULL, &out, &err));
    return out;
}

static void *make_blink_session(void)
{
    return open_session(sessions_made++);
}
RELEASE(blink_session, blink_session_free)
USE(blink_session, blink_session_start(handle, NULL, err))

MAKE(blink_files, blink_sandbox_files(sandbox, &out, &err))
RELEASE(blink_files, blink_files_free)
static bool is_there;
USE(blink_files, blink_files_exists(handle, "/", &is_there, err))

MAKE(blink_bytes, blink_files_read(files, "/etc/passwd", NULL, &out, &err))
RELEASE(blink_bytes, blink_bytes_free)
USE(blink_bytes, told(blink_bytes_data(handle) == NULL && blink_bytes_length(handle) == 0, err))

static void *make_blink_cancel(void)
{
    return blink_cancel_new();
}
RELEASE(blink_cancel, blink_cancel_free)
static int32_t a_fd;
USE(blink_cancel, blink_cancel_fd(handle, &a_fd, err))

MAKE(blink_entries, blink_files_list(files, "/", &out, &err))
RELEASE(blink_entries, blink_entries_free)
static blink_file_info an_info;
USE(blink_entries, blink_entries_get(handle, 0, &an_info, err))

static void *make_blink_error(void)
{
    blink_error *err = NULL;
    CHECK(blink_files_stat(files, "/no/such/file", &an_info, &err) == BLINK_STATUS_NOT_FOUND);
    return err;
}
RELEASE(blink_error, blink_error_free)
USE(blink_error, told(strcmp(blink_error_message(handle), "") == 0 &&
                          blink_error_status(handle) == BLINK_STATUS_INVALID_ARGUMENT,
                      err))

MAKE(blink_file_reader, blink_files_reader(files, "/etc/passwd", 0, 9, NULL, &out, &err))
RELEASE(blink_file_reader, blink_file_reader_free)
static uint8_t buffer[16];
static size_t count;
USE(blink_file_reader, blink_file_reader_read(handle, buffer, sizeof buffer, &count, NULL, err))

MAKE(blink_file_writer, blink_files_writer(files, "/tmp/written", NULL, &out, &err))
RELEASE(blink_file_writer, blink_file_writer_free)
USE(blink_file_writer, blink_file_writer_write(handle, buffer, 1, NULL, err))

MAKE(blink_image_list, blink_image_list_all(all, &out, &err))
RELEASE(blink_image_list, blink_image_list_free)
static blink_image an_image;
static blink_status use_blink_image_list(void *handle, blink_error **err)
{
    /* An empty list has nothing to give: that is another mistake, with another message. */
    blink_status status = blink_image_list_get(handle, 0, &an_image, err);
    bool empty = strstr(blink_error_message(*err), "no element") != NULL;
    if (empty)
        blink_error_free(*err);
    return empty ? told(false, err) : status;
}

MAKE(blink_lineage, blink_session_lineage(session, &out, &err))
RELEASE(blink_lineage, blink_lineage_free)
static blink_checkpoint a_checkpoint;
static blink_status use_blink_lineage(void *handle, blink_error **err)
{
    blink_status status = blink_lineage_get(handle, 0, &a_checkpoint, err);
    bool empty = strstr(blink_error_message(*err), "no element") != NULL;
    if (empty)
        blink_error_free(*err);
    return empty ? told(false, err) : status;
}

MAKE(blink_output, blink_sandbox_exec(sandbox, &command, NULL, &out, &err))
RELEASE(blink_output, blink_output_free)
USE(blink_output, blink_output_exit(handle, &a_exit, err))

MAKE(blink_process, blink_sandbox_spawn(sandbox, &command, NULL, &out, &err))
RELEASE(blink_process, blink_process_free)
static uint64_t an_offset;
USE(blink_process, blink_process_offset(handle, BLINK_STREAM_STDOUT, &an_offset, err))

MAKE(blink_process_list, blink_sandbox_processes(sandbox, &out, &err))
RELEASE(blink_process_list, blink_process_list_free)
static blink_process_info a_process_info;
USE(blink_process_list, blink_process_list_get(handle, 0, &a_process_info, err))

static uint64_t a_process;
static blink_processes *beside;
MAKE(blink_process_logs, blink_processes_logs(beside, a_process, NULL, &out, &err))
RELEASE(blink_process_logs, blink_process_logs_free)
USE(blink_process_logs, told(blink_process_logs_stdout(handle, NULL) == NULL, err))

MAKE(blink_processes, blink_processes_of(all, "handles", NULL, &out, &err))
RELEASE(blink_processes, blink_processes_free)
USE(blink_processes, blink_processes_wait(handle, a_process, 0, NULL, NULL, err))

MAKE(blink_report, blink_doctor(all, NULL, &out, &err))
RELEASE(blink_report, blink_report_free)
static blink_check a_check;
USE(blink_report, blink_report_get(handle, 0, &a_check, err))

MAKE(blink_session_list, blink_session_list_all(all, &out, &err))
RELEASE(blink_session_list, blink_session_list_free)
static blink_session_info a_session_info;
USE(blink_session_list, blink_session_list_get(handle, 0, &a_session_info, err))

MAKE(blink_strings, blink_sandbox_list(all, &out, &err))
RELEASE(blink_strings, blink_strings_free)
USE(blink_strings, told(blink_strings_get(handle, 0) == NULL && blink_strings_count(handle) == 0, err))

MAKE(blink_pool, blink_pool_create(all, NULL, NULL, &out, &err))
RELEASE(blink_pool, blink_pool_free)
static blink_pool_stats a_pool_stats = BLINK_POOL_STATS_INIT;
USE(blink_pool, blink_pool_stats_get(handle, &a_pool_stats, err))

static const struct type types[] = {
    TYPE(blink),         TYPE(blink_sandbox),      TYPE(blink_session),      TYPE(blink_files),
    TYPE(blink_bytes),   TYPE(blink_cancel),       TYPE(blink_entries),      TYPE(blink_error),
    TYPE(blink_output),  TYPE(blink_file_reader),  TYPE(blink_file_writer),  TYPE(blink_image_list),
    TYPE(blink_process), TYPE(blink_process_list), TYPE(blink_process_logs), TYPE(blink_processes),
    TYPE(blink_report),  TYPE(blink_session_list), TYPE(blink_strings),      TYPE(blink_lineage),
    TYPE(blink_pool),
};

static void is_told(const struct type *type, void *handle, const char *words)
{
    blink_error *err = NULL;
    CHECK(type->use(handle, &err) == BLINK_STATUS_INVALID_ARGUMENT);
    if (err != NULL) {
        const char *message = blink_error_message(err);
        if (strstr(message, type->name) == NULL || strstr(message, words) == NULL)
            fprintf(stderr, "%s\n", message);
        CHECK(strstr(message, type->name) != NULL && strstr(message, words) != NULL);
        blink_error_free(err);
    }
}

/* However many are made afterwards, none has the number of one that was freed; and freeing it again frees nothing else. */
static void stale(const struct type *type)
{
    blink_error *err = NULL;
    void *first = type->make();
    CHECK(first != NULL && type->use(first, &err) == BLINK_STATUS_OK);
    type->release(first);
    is_told(type, first, "freed");
    size_t before = blink_handle_count();
    enum { MANY = 20 };
    void *later[MANY];
    /* A boot takes a while, and the others need no more than this to meet an address again. */
    bool boots = strcmp(type->name, "blink_session") == 0 || strcmp(type->name, "blink_pool") == 0;
    int many = boots || strcmp(type->name, "blink_report") == 0 ? 2 : MANY;
    for (int i = 0; i < many; i++) {
        later[i] = type->make();
        CHECK(later[i] != first);
        type->release(first);
        is_told(type, first, "freed");
        CHECK(type->use(later[i], &err) == BLINK_STATUS_OK);
    }
    CHECK(blink_handle_count() == before + (size_t)many);
    /* No other type's function takes one, good or not, or frees it. */
    for (size_t i = 0; i < COUNT(types); i++)
        if (&types[i] != type) {
            is_told(&types[i], later[0], "this is a");
            is_told(&types[i], first, "this is a");
            types[i].release(later[0]);
        }
    CHECK(blink_handle_count() == before + (size_t)many);
    for (int i = 0; i < many; i++)
        type->release(later[i]);
    CHECK(blink_handle_count() == before);
}

/* Memory of the program's own, and numbers that were never given out. */
static void foreign(const struct type *type)
{
    uint64_t memory[8] = {0};
    void *never = (void *)((uintptr_t)all ^ (uintptr_t)1 << 40);
    void *strange[] = {memory, (void *)(uintptr_t)1, (void *)UINTPTR_MAX, (char *)memory + 1, never};
    size_t before = blink_handle_count();
    for (size_t i = 0; i < COUNT(strange); i++) {
        is_told(type, strange[i], "never given out");
        type->release(strange[i]);
    }
    is_told(type, NULL, "NULL");
    type->release(NULL);
    CHECK(blink_handle_count() == before && memory[0] == 0);
}

/* Each thread uses and frees what all of them have, in its own order. One frees it, and the others are told. */
struct shared {
    pthread_barrier_t together;
    void *_Atomic handle[2];
    atomic_bool over;
    atomic_int good, bad;
};

static void *use_and_free(void *data)
{
    struct shared *shared = data;
    for (;;) {
        pthread_barrier_wait(&shared->together);
        if (shared->over)
            return NULL;
        blink_error *err = NULL;
        bool there;
        blink_status status = blink_files_exists(shared->handle[0], "/tmp", &there, &err);
        CHECK(status == BLINK_STATUS_OK || status == BLINK_STATUS_INVALID_ARGUMENT);
        *(status == BLINK_STATUS_OK ? &shared->good : &shared->bad) += 1;
        blink_error_free(err);
        blink_files_free(shared->handle[0]);
        /* Bytes that are looked at belong to whoever frees them; the count does not change under a look. */
        size_t length = blink_bytes_length(shared->handle[1]);
        CHECK(length == 0 || length == 6);
        blink_bytes_free(shared->handle[1]);
        pthread_barrier_wait(&shared->together);
    }
}

static void freed_under_use(void)
{
    enum { THREADS = 4, ROUNDS = 200 };
    struct shared shared = {0};
    pthread_t threads[THREADS];
    blink_error *err = NULL;
    CHECK(pthread_barrier_init(&shared.together, NULL, THREADS + 1) == 0);
    OK(blink_files_write(files, "/tmp/shared", (const uint8_t *)"shared", 6, NULL, NULL, &err));
    size_t before = blink_handle_count();
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, use_and_free, &shared) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        blink_bytes *bytes;
        OK(blink_files_read(files, "/tmp/shared", NULL, &bytes, &err));
        shared.handle[0] = make_blink_files();
        shared.handle[1] = bytes;
        pthread_barrier_wait(&shared.together);
        pthread_barrier_wait(&shared.together);
    }
    shared.over = true;
    pthread_barrier_wait(&shared.together);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&shared.together);
    CHECK(shared.good > 0 && shared.good + shared.bad == THREADS * ROUNDS);
    CHECK(blink_handle_count() == before);
}

/* What is lent by another handle is not freed by its borrower. */
static void lent(void)
{
    blink_error *err = NULL;
    blink_command slow = shell("echo begun; sleep 600");
    slow.timeout_ms = 300;
    blink_output *output;
    OK(blink_sandbox_exec(sandbox, &slow, NULL, &output, &err));
    RETURNS(BLINK_STATUS_TIMEOUT, blink_output_check(output, &err));
    const blink_output *borrowed = blink_error_output(err);
    size_t before = blink_handle_count();
    blink_output_free((blink_output *)(uintptr_t)borrowed);
    CHECK(stdout_is(borrowed, "begun\n") && blink_handle_count() == before);
    blink_error_free(err);
    CHECK(blink_output_stdout(borrowed, NULL) == NULL);
    blink_output_free(output);
}

void test_handles(void)
{
    size_t before = blink_handle_count();
    blink_error *err = NULL;
    all = open_blink();
    sandbox = make_sandbox(all);
    files = make_blink_files();
    blink_session_options options;
    OK(blink_session_options_init(&options, sizeof options));
    options.warm = 1; /* Its processes can be asked for beside its owner. */
    OK(blink_session_open(all, "handles", &options, NULL, &session, &err));
    static const char *const argv[] = {"/bin/echo", "hello"};
    OK(blink_command_init(&command, sizeof command));
    command.argv = argv;
    command.argv_count = COUNT(argv);
    OK(blink_exit_init(&a_exit, sizeof a_exit));
    OK(blink_file_info_init(&an_info, sizeof an_info));
    OK(blink_image_init(&an_image, sizeof an_image));
    OK(blink_checkpoint_init(&a_checkpoint, sizeof a_checkpoint));
    OK(blink_process_info_init(&a_process_info, sizeof a_process_info));
    OK(blink_check_init(&a_check, sizeof a_check));
    OK(blink_session_info_init(&a_session_info, sizeof a_session_info));
    blink_process *process;
    IN(session, blink_sandbox_spawn(in, &command, NULL, &process, &err));
    a_process = blink_process_id(process);
    OK(blink_process_discard(process, BLINK_STREAM_STDOUT, &err));
    OK(blink_process_wait(process, 0, NULL, NULL, &err));
    beside = make_blink_processes();
    blink_sandbox_options left;
    OK(blink_sandbox_options_init(&left, sizeof left));
    left.detached = 1;
    blink_sandbox *detached; /* For the list of sandboxes. */
    OK(blink_sandbox_create(all, &left, NULL, &detached, &err));
    blink_process *one;
    OK(blink_sandbox_spawn(sandbox, &command, NULL, &one, &err)); /* For the list of processes. */
    for (size_t i = 0; i < COUNT(types); i++) {
        stale(&types[i]);
        foreign(&types[i]);
    }
    freed_under_use();
    lent();
    OK(blink_sandbox_remove(detached, &err));
    blink_sandbox_free(detached);
    blink_process_free(one);
    blink_process_free(process);
    blink_processes_free(beside);
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
    while (sessions_made > 0) {
        session = open_session(--sessions_made);
        OK(blink_session_remove(session, &err));
        blink_session_free(session);
    }
    blink_files_free(files);
    blink_sandbox_free(sandbox);
    blink_close(all);
    CHECK(blink_handle_count() == before);
}
