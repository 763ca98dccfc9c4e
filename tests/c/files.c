#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void test_transfer(void)
{
    blink_error *err = NULL;
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);
    blink_files *files;
    OK(blink_sandbox_files(sandbox, &files, &err));
    OK(blink_files_make_dir(files, "/tmp/a/b", &err));
    OK(blink_files_write(files, "/tmp/a/small", (const uint8_t *)"onetwo", 6, NULL, NULL, &err));
    OK(blink_files_download(files, "/tmp/a", scratch("a"), NULL, &err));
    FILE *file = fopen(scratch("a/small"), "rb");
    CHECK(file != NULL);
    char text[16] = {0};
    CHECK(fread(text, 1, sizeof text, file) == 6 && strcmp(text, "onetwo") == 0);
    fclose(file);
    OK(blink_files_download_into(files, "/tmp/a/small", scratch("a/b"), NULL, &err));
    file = fopen(scratch("a/b/small"), "rb");
    CHECK(file != NULL);
    fclose(file);
    FAILS(BLINK_STATUS_NOT_FOUND, blink_files_download_into(files, "/tmp/a/small", scratch("missing"), NULL, &err));
    CHECK(symlink("elsewhere", scratch("a/b/link")) == 0);
    OK(blink_files_write(files, "/tmp/a/link", (const uint8_t *)"onetwo", 6, NULL, NULL, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_files_download_into(files, "/tmp/a/link", scratch("a/b"), NULL, &err));
    CHECK(access(scratch("a/b/elsewhere"), F_OK) != 0 && unlink(scratch("a/b/link")) == 0);
    OK(blink_files_remove(files, "/tmp/a", true, &err));
    OK(blink_files_upload(files, scratch("a"), "/tmp/again", NULL, &err));
    bool there;
    OK(blink_files_exists(files, "/tmp/again/b", &there, &err));
    CHECK(there);
    blink_sandbox_free(sandbox);
    blink_files_free(files);
    blink_close(all);
}

/* Bit by bit, in a buffer that nothing fits into as a whole. */
static void streams(blink_files *files)
{
    blink_error *err = NULL;
    blink_file_writer *writer;
    blink_file_reader *reader;
    uint8_t bytes[7001];
    size_t count, at, rounds = 500;
    bool there;
    OK(blink_files_writer(files, "/tmp/bits", NULL, &writer, &err));
    for (size_t round = 0; round < rounds; round++) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)((round * sizeof bytes + i) * 31 >> 3);
        OK(blink_file_writer_write(writer, bytes, sizeof bytes, NULL, &err));
    }
    OK(blink_file_writer_write(writer, NULL, 0, NULL, &err));
    OK(blink_files_exists(files, "/tmp/bits", &there, &err));
    CHECK(!there);
    OK(blink_file_writer_finish(writer, NULL, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_file_writer_finish(writer, NULL, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_file_writer_write(writer, bytes, 1, NULL, &err));
    blink_file_writer_free(writer);

    uint64_t offset = 1234, length = 3 << 20;
    OK(blink_files_reader(files, "/tmp/bits", offset, length, NULL, &reader, &err));
    for (at = 0;;) {
        OK(blink_file_reader_read(reader, bytes, sizeof bytes, &count, NULL, &err));
        if (count == 0)
            break;
        bool same = true;
        for (size_t i = 0; i < count; i++, at++)
            same &= bytes[i] == (uint8_t)((offset + at) * 31 >> 3);
        CHECK(same);
    }
    CHECK(at == length);
    OK(blink_file_reader_read(reader, bytes, sizeof bytes, &count, NULL, &err));
    CHECK(count == 0);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_file_reader_read(reader, bytes, 0, &count, NULL, &err));
    blink_file_reader_free(reader);

    OK(blink_files_reader(files, "/tmp/bits", 0, UINT64_MAX, NULL, &reader, &err));
    OK(blink_file_reader_read(reader, bytes, 1, &count, NULL, &err));
    CHECK(count == 1);
    blink_file_reader_free(reader); /* The rest is not wanted. */
    FAILS(BLINK_STATUS_NOT_FOUND, blink_files_reader(files, "/tmp/none", 0, UINT64_MAX, NULL, &reader, &err));
    CHECK(reader == NULL);

    /* What is not finished is not there. */
    OK(blink_files_writer(files, "/tmp/half", NULL, &writer, &err));
    OK(blink_file_writer_write(writer, bytes, sizeof bytes, NULL, &err));
    blink_file_writer_free(writer);
    OK(blink_files_exists(files, "/tmp/half", &there, &err));
    CHECK(!there);
    OK(blink_files_writer(files, "/none/file", NULL, &writer, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_file_writer_finish(writer, NULL, &err));
    blink_file_writer_free(writer);
    blink_cancel *cancel = blink_cancel_new();
    blink_cancel_now(cancel);
    OK(blink_files_writer(files, "/tmp/half", NULL, &writer, &err));
    FAILS(BLINK_STATUS_CANCELLED, blink_file_writer_write(writer, bytes, 1, cancel, &err));
    blink_file_writer_free(writer);
    blink_cancel_free(cancel);
}

void test_files(void)
{
    blink_error *err = NULL;
    blink *all = open_blink();
    blink_sandbox *sandbox = make_sandbox(all);
    blink_files *files;
    OK(blink_sandbox_files(sandbox, &files, &err));

    size_t length = 3 << 20;
    uint8_t *data = malloc(length);
    for (size_t i = 0; i < length; i++)
        data[i] = (uint8_t)(i * 31 >> 3);
    OK(blink_files_make_dir(files, "/tmp/a/b", &err));
    OK(blink_files_write(files, "/tmp/a/b/data", data, length, NULL, NULL, &err));
    blink_bytes *bytes;
    OK(blink_files_read(files, "/tmp/a/b/data", NULL, &bytes, &err));
    CHECK(blink_bytes_length(bytes) == length && memcmp(blink_bytes_data(bytes), data, length) == 0);
    blink_bytes_free(bytes);
    free(data);

    blink_write_options how;
    blink_write_options_init(&how, sizeof how);
    how.mode = 0750;
    OK(blink_files_write(files, "/tmp/a/small", (const uint8_t *)"one", 3, &how, NULL, &err));
    how.append = 1;
    OK(blink_files_write(files, "/tmp/a/small", (const uint8_t *)"two", 3, &how, NULL, &err));
    OK(blink_files_write(files, "/tmp/a/empty", NULL, 0, NULL, NULL, &err));
    blink_files *others;
    OK(blink_files_as_user(files, "1234", &others, &err));
    OK(blink_files_make_dir_with(others, "/tmp/a/others", 0710, &err));
    blink_file_info made;
    blink_file_info_init(&made, sizeof made);
    OK(blink_files_stat(files, "/tmp/a/others", &made, &err));
    CHECK(made.mode == 0710);
    OK(blink_files_remove(others, "/tmp/a/others", false, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_files_make_dir_with(others, "/tmp/a/wrong", 0170000, &err));
    blink_files_free(others);
    OK(blink_files_as_user(files, "nobody-here", &others, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_files_make_dir(others, "/tmp/a/none", &err));
    blink_files_free(others);
    OK(blink_files_read(files, "/tmp/a/empty", NULL, &bytes, &err));
    CHECK(blink_bytes_length(bytes) == 0 && blink_bytes_data(bytes) == NULL);
    blink_bytes_free(bytes);
    blink_file_info info;
    blink_file_info_init(&info, sizeof info);
    OK(blink_files_stat(files, "/tmp/a/small", &info, &err));
    CHECK(info.file_type == BLINK_FILE_TYPE_FILE && info.size_bytes == 6 && (info.mode & 0777) == 0750);
    CHECK(info.modified_ms > 1600000000000);

    blink_entries *entries;
    OK(blink_files_list(files, "/tmp/a", &entries, &err));
    CHECK(blink_entries_count(entries) == 3);
    OK(blink_entries_get(entries, 0, &info, &err));
    CHECK(strcmp(info.name, "b") == 0 && info.file_type == BLINK_FILE_TYPE_DIRECTORY);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_entries_get(entries, 3, &info, &err));
    blink_entries_free(entries);

    bool there;
    OK(blink_files_copy(files, "/tmp/a/small", "/tmp/a/copy", NULL, &err));
    OK(blink_files_rename(files, "/tmp/a/copy", "/tmp/a/moved", &err));
    OK(blink_files_exists(files, "/tmp/a/copy", &there, &err));
    CHECK(!there);
    OK(blink_files_exists(files, "/tmp/a/moved", &there, &err));
    CHECK(there);
    FAILS(BLINK_STATUS_DIRECTORY_NOT_EMPTY, blink_files_remove(files, "/tmp/a", false, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_files_read(files, "/tmp/no", NULL, &bytes, &err));
    CHECK(bytes == NULL);

    OK(blink_files_remove(files, "/tmp/a", true, &err));
    OK(blink_files_exists(files, "/tmp/a", &there, &err));
    CHECK(!there);

    streams(files);
    blink_file_reader *reader;
    blink_file_writer *writer;
    OK(blink_files_writer(files, "/tmp/late", NULL, &writer, &err));
    OK(blink_sandbox_remove(sandbox, &err));
    FAILS(BLINK_STATUS_SANDBOX_DIED, blink_file_writer_finish(writer, NULL, &err));
    blink_file_writer_free(writer);
    FAILS(BLINK_STATUS_SANDBOX_DIED, blink_files_reader(files, "/tmp/x", 0, UINT64_MAX, NULL, &reader, &err));
    FAILS(BLINK_STATUS_SANDBOX_DIED, blink_files_exists(files, "/tmp", &there, &err));
    blink_sandbox_free(sandbox);
    blink_files_free(files);
    blink_close(all);
}
