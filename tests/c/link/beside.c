/* A program that has SQLite and zstd of its own beside libblink, which has others in it: all are really called. It compiles as C
 * and as C++. */
#include <blink.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <zstd.h>

#ifdef __cplusplus
#include <stdexcept>
#include <string>

/* Unwinding is the program's own, also with a library beside it that has a personality of its own. */
static int throws(int number)
{
    try {
        if (number > 0)
            throw std::runtime_error(std::to_string(number));
    } catch (const std::exception &error) {
        return std::stoi(error.what());
    }
    return 0;
}
#else
static int throws(int number)
{
    return number;
}
#endif

static int sqlite(void)
{
    sqlite3 *database = NULL;
    sqlite3_stmt *statement = NULL;
    int answer = -1;
    if (sqlite3_open(":memory:", &database) == SQLITE_OK &&
        sqlite3_prepare_v2(database, "select 6 * 7", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        answer = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(database);
    return answer;
}

static int zstd(void)
{
    const char text[] = "the same, the same, the same";
    char packed[128], unpacked[128];
    size_t length = ZSTD_compress(packed, sizeof packed, text, sizeof text, 3);
    if (ZSTD_isError(length))
        return 0;
    length = ZSTD_decompress(unpacked, sizeof unpacked, packed, length);
    return length == sizeof text && memcmp(text, unpacked, sizeof text) == 0;
}

int main(void)
{
    blink_options options;
    blink_options_init(&options, sizeof options);
    options.isolation = BLINK_ISOLATION_NAMESPACE;
    blink *all = NULL;
    blink_output *output = NULL;
    blink_session_list *sessions = NULL;
    blink_error *error = NULL;
    const char *argv[] = {"/bin/echo", "blink"};
    blink_command command;
    blink_command_init(&command, sizeof command);
    command.argv = argv;
    command.argv_count = 2;
    /* The list of sessions is in the library's SQLite. A failure is a Rust error, and a caught panic unwinds. */
    if (blink_open(&options, &all, &error) != BLINK_STATUS_OK ||
        blink_session_list_all(all, &sessions, &error) != BLINK_STATUS_OK ||
        blink_run(all, NULL, &command, NULL, &output, &error) != BLINK_STATUS_OK) {
        fprintf(stderr, "%s\n", blink_error_message(error));
        return 1;
    }
    size_t length = 0;
    const uint8_t *said = blink_output_stdout(output, &length);
    printf("%d %d %d %.*s", sqlite(), zstd(), throws(7), (int)length, (const char *)said);
    printf("%s\n", strcmp(sqlite3_libversion(), SQLITE_VERSION) == 0 ? "own" : "another SQLite");
    blink_output_free(output);
    blink_session_list_free(sessions);
    blink_close(all);
    return 0;
}
