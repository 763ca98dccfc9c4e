#include "test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void run(blink_session *session, const char *script, const char *expected)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_command command = shell(script);
    IN(session, blink_sandbox_exec(in, &command, NULL, &output, &err));
    CHECK(stdout_is(output, expected));
    blink_output_free(output);
}

static void remove_and_free(blink_session *session)
{
    blink_error *err = NULL;
    OK(blink_session_remove(session, &err));
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
}

static void checkpoints_and_forks(blink *all)
{
    blink_error *err = NULL;
    const char *labels[] = {"owner=tests"};
    blink_session_options options;
    blink_session_options_init(&options, sizeof options);
    options.labels = labels;
    options.labels_count = 1;
    options.patience_ms = 0;
    options.idle_stop_ms = 3600000;
    blink_sandbox_options sandbox;
    blink_sandbox_options_init(&sandbox, sizeof sandbox);
    sandbox.memory_mib = 512;
    options.sandbox = &sandbox;
    blink_session *session, *fork, *forks[2];
    OK(blink_session_open(all, "work", &options, NULL, &session, &err));
    CHECK(blink_session_was_created(session));
    run(session, "echo one > /var/blink/memory/notes", "");
    int32_t worth;
    OK(blink_session_checkpoint(session, "begun", false, &worth, NULL, &err));
    CHECK(worth == BLINK_CONSISTENCY_FROZEN || worth == BLINK_CONSISTENCY_CRASH);
    FAILS(BLINK_STATUS_ALREADY_EXISTS, blink_session_checkpoint(session, "begun", false, NULL, NULL, &err));
    run(session, "echo two >> /var/blink/memory/notes; cat /var/blink/memory/notes", "one\ntwo\n");

    blink_session *second;
    /* However often this process opens it, it is one. */
    OK(blink_session_open(all, "work", &options, NULL, &second, &err));
    CHECK(!blink_session_was_created(second));
    run(second, "cat /var/blink/memory/notes", "one\ntwo\n");
    blink_session_free(second);
    OK(blink_session_take(all, "work", 0, NULL, &second, &err));
    blink_session_free(second);
    second = NULL;

    OK(blink_session_fork(session, "begun", "other", NULL, &fork, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_session_fork(session, "no", "third", NULL, &second, &err));
    run(fork, "cat /var/blink/memory/notes", "one\n");
    const char *names[] = {"many-1", "many-2"};
    OK(blink_session_fork_many(session, names, 2, NULL, forks, &err));
    for (size_t i = 0; i < 2; i++) {
        run(forks[i], "cat /var/blink/memory/notes", "one\ntwo\n");
        remove_and_free(forks[i]);
    }
    FAILS(BLINK_STATUS_ALREADY_EXISTS, blink_session_fork_many(session, (const char *[]){"new", "other"}, 2, NULL, forks, &err));
    CHECK(forks[0] == NULL && forks[1] == NULL);

    OK(blink_session_restore(session, "begun", NULL, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_session_restore(session, "no", NULL, &err));
    run(session, "cat /var/blink/memory/notes", "one\n");
    blink_lineage *lineage;
    OK(blink_session_lineage(session, &lineage, &err));
    blink_checkpoint checkpoint;
    blink_checkpoint_init(&checkpoint, sizeof checkpoint);
    CHECK(blink_lineage_count(lineage) == 1 && strcmp(blink_lineage_current(lineage), "begun") == 0);
    OK(blink_lineage_get(lineage, 0, &checkpoint, &err));
    CHECK(strcmp(checkpoint.name, "begun") == 0 && checkpoint.parent == NULL && checkpoint.consistency == worth);
    blink_lineage_free(lineage);
    OK(blink_lineage_of(all, "other", &lineage, &err));
    CHECK(strcmp(blink_lineage_forked_from(lineage), "work@begun") == 0);
    blink_lineage_free(lineage);
    FAILS(BLINK_STATUS_NOT_FOUND, blink_lineage_of(all, "none", &lineage, &err));
    OK(blink_session_lineage(fork, &lineage, &err));
    CHECK(strcmp(blink_lineage_forked_from(lineage), "work@begun") == 0);
    blink_lineage_free(lineage);

    blink_session_list *list;
    OK(blink_session_list_all(all, &list, &err));
    CHECK(blink_session_list_count(list) == 2);
    blink_session_info info;
    blink_session_info_init(&info, sizeof info);
    OK(blink_session_list_get(list, 1, &info, &err));
    CHECK(strcmp(info.name, "work") == 0 && info.running && !info.warm && strcmp(info.image, "host") == 0);
    CHECK(info.labels_count == 1 && strcmp(info.labels[0], "owner=tests") == 0 && info.owner == NULL);
    CHECK(strcmp(info.id, blink_session_id(session)) == 0);
    CHECK(info.cpus == 0 && info.memory_mib == 512 && info.disk_mib > 0 && info.processes > 0);
    CHECK(info.idle_stop_ms == 3600000);
    blink_session_list_free(list);

    const char *before = blink_session_name(session);
    CHECK(strcmp(before, "work") == 0 && blink_session_name(session) == before);
    OK(blink_session_rename(session, "renamed", &err));
    CHECK(strcmp(blink_session_name(session), "renamed") == 0 && strcmp(before, "work") == 0);
    CHECK(blink_session_name(NULL) == NULL);
    FAILS(BLINK_STATUS_ALREADY_EXISTS, blink_session_rename(session, "other", &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_session_info_find(all, "work", &info, &err));
    OK(blink_session_info_find(all, "renamed", &info, &err));
    CHECK(strcmp(info.labels[0], "owner=tests") == 0);
    blink_session_info_dispose(&info);
    OK(blink_session_remove_checkpoint(session, "begun", &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_session_remove_checkpoint(session, "begun", &err));

    /* The disk outlives the machine and the handle. */
    OK(blink_session_stop(session, &err));
    blink_session_free(session);
    OK(blink_session_open(all, "renamed", NULL, NULL, &session, &err));
    CHECK(!blink_session_was_created(session));
    run(session, "cat /var/blink/memory/notes", "one\n");
    remove_and_free(session);
    FAILS(BLINK_STATUS_NOT_FOUND, blink_session_take(all, "renamed", 0, NULL, &session, &err));
    run(fork, "cat /var/blink/memory/notes", "one\n");
    remove_and_free(fork);
    uint64_t freed;
    OK(blink_session_prune(all, &freed, &err));
}

struct told {
    size_t times;
    uint64_t bytes;
    blink_cancel *cancel;
};

static void tell(const blink_transfer *transfer, void *data)
{
    struct told *told = data;
    CHECK(transfer->size == sizeof *transfer && transfer->bytes_done >= told->bytes);
    CHECK(transfer->bytes_total == 0 || transfer->bytes_total >= transfer->bytes_done);
    told->times++;
    told->bytes = transfer->bytes_done;
    blink_close(open_blink()); /* It may call anything. */
    blink_cancel_now(told->cancel);
}

static void archives(blink *all)
{
    blink_error *err = NULL;
    blink_session *session, *copy;
    OK(blink_session_open(all, "packed", NULL, NULL, &session, &err));
    run(session, "echo kept > /var/blink/memory/notes; head -c 9000000 /dev/urandom > /var/blink/memory/large", "");
    int32_t worth;
    OK(blink_session_checkpoint(session, "before", false, &worth, NULL, &err));
    run(session, "echo lost > /var/blink/memory/notes", "");
    char archive[512];
    strcpy(archive, scratch("archive"));
    struct told told = {0};
    blink_export_options options;
    blink_export_options_init(&options, sizeof options);
    options.checkpoint = "before";
    options.transfer = tell;
    options.transfer_data = &told;
    OK(blink_session_export(session, archive, &options, NULL, &err));
    CHECK(told.times >= 2 && told.bytes >= 9000000);
    options.checkpoint = "none";
    FAILS(BLINK_STATUS_NOT_FOUND, blink_session_export(session, scratch("other"), &options, NULL, &err));
    /* Who is told has enough of it. */
    options.checkpoint = NULL;
    told = (struct told){.cancel = blink_cancel_new()};
    FAILS(BLINK_STATUS_CANCELLED, blink_session_export(session, scratch("other"), &options, told.cancel, &err));
    CHECK(told.times > 0);
    blink_cancel_free(told.cancel);
    FAILS(BLINK_STATUS_UNSUPPORTED, blink_session_export_oci(session, scratch("image"), NULL, NULL, &err));

    blink_session_options imported;
    blink_session_options_init(&imported, sizeof imported);
    told = (struct told){0};
    imported.transfer = tell;
    imported.transfer_data = &told;
    OK(blink_session_import(all, "unpacked", archive, &imported, NULL, &copy, &err));
    CHECK(told.times >= 2 && told.bytes > 0);
    run(copy, "cat /var/blink/memory/notes", "kept\n");
    blink_strings *declined;
    OK(blink_session_declined(copy, &declined, &err));
    CHECK(blink_strings_count(declined) == 0);
    blink_strings_free(declined);
    remove_and_free(copy);
    /* An archive may ask for less than the importer's limits, and is told what it did not get. */
    blink_sandbox_options large;
    blink_sandbox_options_init(&large, sizeof large);
    large.processes = 2000;
    imported.sandbox = &large;
    imported.transfer = NULL;
    OK(blink_session_open(all, "large", &imported, NULL, &copy, &err));
    OK(blink_session_export(copy, scratch("large"), NULL, NULL, &err));
    OK(blink_session_remove_by_force(copy, &err));
    OK(blink_session_remove_by_force(copy, &err));
    blink_session_free(copy);
    OK(blink_session_import(all, "large", scratch("large"), NULL, NULL, &copy, &err));
    OK(blink_session_declined(copy, &declined, &err));
    CHECK(blink_strings_count(declined) == 1);
    CHECK(strncmp(blink_strings_get(declined, 0), "processes 2000 (it is ", 22) == 0);
    blink_strings_free(declined);
    remove_and_free(copy);
    FAILS(BLINK_STATUS_ALREADY_EXISTS, blink_session_import(all, "packed", archive, NULL, NULL, &copy, &err));
    FILE *file = fopen(archive, "r+b");
    CHECK(file != NULL && fseek(file, 100, SEEK_SET) == 0 && fputs("damaged", file) >= 0 && fclose(file) == 0);
    FAILS(BLINK_STATUS_CORRUPT, blink_session_import(all, "broken", archive, NULL, NULL, &copy, &err));
    CHECK(copy == NULL);
    blink_session_info info = BLINK_SESSION_INFO_INIT;
    FAILS(BLINK_STATUS_NOT_FOUND, blink_session_info_find(all, "broken", &info, &err));
    remove_and_free(session);
}

/* What a session has changed becomes an image, from which a sandbox is made. */
static void images_of_sessions(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox_options sandbox;
    blink_sandbox_options_init(&sandbox, sizeof sandbox);
    sandbox.image = getenv("BLINK_TEST_IMAGE"); /* A tar that scripts/test-c makes; it has no programs. */
    CHECK(sandbox.image != NULL);
    blink_session_options options;
    blink_session_options_init(&options, sizeof options);
    options.sandbox = &sandbox;
    blink_session *session;
    OK(blink_session_open(all, "painted", &options, NULL, &session, &err));
    blink_files *files;
    IN(session, blink_sandbox_files(in, &files, &err));
    OK(blink_files_write(files, "/added", (const uint8_t *)"new", 3, NULL, NULL, &err));
    blink_files_free(files);
    char image[512];
    strcpy(image, scratch("image.tar"));
    struct told told = {0};
    blink_export_options how;
    blink_export_options_init(&how, sizeof how);
    how.transfer = tell;
    how.transfer_data = &told;
    OK(blink_session_export_oci(session, image, &how, NULL, &err));
    CHECK(told.times > 0);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_session_export_oci(session, scratch(""), NULL, NULL, &err));
    remove_and_free(session);

    blink_sandbox *made;
    sandbox.image = image;
    OK(blink_sandbox_create(all, &sandbox, NULL, &made, &err));
    OK(blink_sandbox_files(made, &files, &err));
    blink_bytes *bytes;
    OK(blink_files_read(files, "/added", NULL, &bytes, &err));
    CHECK(is(blink_bytes_data(bytes), blink_bytes_length(bytes), "new"));
    blink_bytes_free(bytes);
    bool there;
    OK(blink_files_exists(files, "/file", &there, &err));
    CHECK(there);
    blink_files_free(files);
    blink_sandbox_free(made);
    uint64_t freed;
    OK(blink_image_prune(all, &freed, &err));
}

static void processes_and_files(blink *all)
{
    blink_error *err = NULL;
    blink_session_options options;
    blink_session_options_init(&options, sizeof options);
    options.warm = 1;
    blink_session *session;
    OK(blink_session_open(all, "warm", &options, NULL, &session, &err));
    blink_process *process;
    blink_command command = shell("echo up; sleep 86400");
    IN(session, blink_sandbox_spawn(in, &command, NULL, &process, &err));
    uint64_t id = blink_process_id(process);
    blink_process_free(process);
    blink_files *files;
    IN(session, blink_sandbox_files(in, &files, &err));
    OK(blink_files_write(files, "/tmp/x", (const uint8_t *)"x", 1, NULL, NULL, &err));
    blink_files_free(files);
    blink_session_free(session);

    /* A warm session's programs go on while nobody has it. */
    OK(blink_session_open(all, "warm", NULL, NULL, &session, &err));
    blink_process_list *list;
    IN(session, blink_sandbox_processes(in, &list, &err));
    CHECK(blink_process_list_count(list) == 1);
    blink_process_list_free(list);
    IN(session, blink_sandbox_attach(in, id, 0, 0, NULL, &process, &err));
    uint8_t buffer[8];
    size_t count;
    OK(blink_process_read(process, BLINK_STREAM_STDOUT, buffer, sizeof buffer, &count, NULL, &err));
    CHECK(is(buffer, count, "up\n"));
    OK(blink_process_kill(process, &err));
    blink_exit ended;
    blink_exit_init(&ended, sizeof ended);
    OK(blink_process_discard(process, BLINK_STREAM_STDOUT, &err));
    OK(blink_process_discard(process, BLINK_STREAM_STDERR, &err));
    OK(blink_process_wait(process, 0, &ended, NULL, &err));
    CHECK(ended.signal == 9);
    blink_process_free(process);
    OK(blink_session_start(session, NULL, &err));
    remove_and_free(session);
}

void test_session(void)
{
    blink *all = open_blink();
    checkpoints_and_forks(all);
    blink_close(all);
}

void test_archive(void)
{
    blink *all = open_blink();
    archives(all);
    images_of_sessions(all);
    blink_close(all);
}

void test_warm(void)
{
    blink *all = open_blink();
    processes_and_files(all);
    blink_close(all);
}
