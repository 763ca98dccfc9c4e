#include "test.h"
#include <stdlib.h>
#include <string.h>

static void runs_one_command(blink *all)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_command command = shell("printf 'a\\0b'; printf err >&2; exit 3");
    OK(blink_run(all, NULL, &command, NULL, &output, &err));
    size_t length;
    const uint8_t *bytes = blink_output_stdout(output, &length);
    CHECK(length == 3 && memcmp(bytes, "a\0b", 3) == 0);
    bytes = blink_output_stderr(output, &length);
    CHECK(is(bytes, length, "err"));
    CHECK(blink_output_exit_code(output) == 3);
    CHECK(!blink_output_timed_out(output) && !blink_output_truncated(output));
    const char *engine = getenv("BLINK_TEST_ENGINE");
    CHECK(strcmp(blink_output_isolation(output), engine ? engine : "namespace") == 0);
    OK(blink_output_check(output, &err));
    blink_output_free(output);
}

static void arguments_and_input_are_bytes(blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_output *output;
    uint8_t all_bytes[256];
    for (size_t i = 0; i < COUNT(all_bytes); i++)
        all_bytes[i] = (uint8_t)i;
    blink_command command = shell("cat");
    command.stdin_data = all_bytes;
    command.stdin_length = sizeof all_bytes;
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    size_t length;
    const uint8_t *bytes = blink_output_stdout(output, &length);
    CHECK(length == sizeof all_bytes && memcmp(bytes, all_bytes, length) == 0);
    blink_output_free(output);

    const char *env[] = {"NAME=value \xff"};
    command = shell("printf %s \"$NAME\"; printf %s \"$PWD\"");
    command.env = env;
    command.env_count = 1;
    command.current_dir = "/usr";
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    CHECK(stdout_is(output, "value \xff/usr"));
    blink_output_free(output);
}

static void code_is_run_by_its_interpreter(blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_command command;
    blink_command_init(&command, sizeof command);
    command.code = "print(6 * 7)";
    command.language = "python";
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    CHECK(stdout_is(output, "42\n"));
    blink_output_free(output);
    command.language = "cobol";
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    command.language = NULL;
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    command = shell("true");
    command.code = "true";
    command.language = "sh";
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
}

static void a_timeout_keeps_what_was_written(blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_command command = shell("echo before; (setsid sleep 86400 &); sleep 86400");
    /* In the time of an emulated machine, where a shell takes a while to begin. */
    command.timeout_ms = engine() == BLINK_ISOLATION_MICROVM ? 5000 : 300;
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    CHECK(blink_output_timed_out(output));
    CHECK(stdout_is(output, "before\n"));
    CHECK(blink_output_check(output, &err) == BLINK_STATUS_TIMEOUT);
    CHECK(blink_error_status(err) == BLINK_STATUS_TIMEOUT);
    CHECK(stdout_is(blink_error_output(err), "before\n"));
    blink_output_free(output);
    /* The error has its own, which is not the caller's to free. */
    CHECK(blink_output_timed_out(blink_error_output(err)));
    blink_error_free(err);
    err = NULL;

    /* The whole tree is gone. The pattern does not find itself. */
    command = shell("for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; done | grep -c 'sleep 8640[0]'");
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    CHECK(stdout_is(output, "0\n"));
    blink_output_free(output);
}

static void a_capture_has_a_limit(blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_command command = shell("head -c 100000 /dev/zero; head -c 999 /dev/zero >&2");
    command.output_limit_bytes = 1000;
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    size_t length;
    blink_output_stdout(output, &length);
    CHECK(length == 1000 && blink_output_truncated(output) && blink_output_stdout_total(output) == 100000);
    blink_output_stderr(output, &length);
    CHECK(length == 999 && blink_output_stderr_total(output) == 999);
    blink_output_free(output);
}

static void an_exit_is_told_whole(blink_sandbox *sandbox)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_exit ended;
    blink_exit_init(&ended, sizeof ended);
    blink_command command = shell("kill -9 $$");
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    OK(blink_output_exit(output, &ended, &err));
    CHECK(ended.code == 137 && ended.signal == 9 && !ended.timed_out && ended.over_limit == NULL && ended.reason == NULL);
    blink_output_free(output);

    const char *argv[] = {"no-such-program"};
    blink_command_init(&command, sizeof command);
    command.argv = argv;
    command.argv_count = 1;
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    OK(blink_output_exit(output, &ended, &err));
    CHECK(ended.code == 127 && ended.reason != NULL && strlen(ended.reason) > 0);
    blink_output_free(output);
}

static void a_removed_sandbox_says_so(blink *all)
{
    blink_error *err = NULL;
    blink_output *output;
    blink_sandbox *sandbox = make_sandbox(all);
    OK(blink_sandbox_ping(sandbox, NULL, &err));
    CHECK(blink_sandbox_published_port(sandbox, 0) == 0);
    OK(blink_sandbox_remove(sandbox, &err));
    OK(blink_sandbox_remove(sandbox, &err));
    blink_command command = shell("true");
    FAILS(BLINK_STATUS_SANDBOX_DIED, blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    CHECK(output == NULL);
    blink_sandbox_free(sandbox);
}

void test_detached(void)
{
    blink *all = open_blink();
    blink_error *err = NULL;
    blink_sandbox_options options;
    blink_sandbox_options_init(&options, sizeof options);
    options.detached = 1;
    blink_sandbox *sandbox;
    OK(blink_sandbox_create(all, &options, NULL, &sandbox, &err));
    char id[64];
    strncpy(id, blink_sandbox_id(sandbox), sizeof id - 1);
    id[sizeof id - 1] = 0;
    blink_output *output;
    blink_command command = shell("echo kept > /tmp/kept");
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    blink_output_free(output);
    blink_sandbox_free(sandbox);

    blink_strings *ids;
    OK(blink_sandbox_list(all, &ids, &err));
    CHECK(blink_strings_count(ids) == 1 && strcmp(blink_strings_get(ids, 0), id) == 0 && !blink_strings_get(ids, 1));
    blink_strings_free(ids);
    OK(blink_sandbox_open(all, id, NULL, &sandbox, &err));
    command = shell("cat /tmp/kept");
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    CHECK(stdout_is(output, "kept\n"));
    blink_output_free(output);
    OK(blink_sandbox_remove(sandbox, &err));
    blink_sandbox_free(sandbox);
    FAILS(BLINK_STATUS_NOT_FOUND, blink_sandbox_open(all, id, NULL, &sandbox, &err));
    blink_close(all);
}

static void logins_are_whole(void)
{
    blink_error *err = NULL;
    blink_options options;
    blink_options_init(&options, sizeof options);
    options.home = scratch("home");
    const char *credentials[] = {"registry.example=robot:secret:with=signs", "registry.example=secret"};
    options.credentials = credentials;
    options.credentials_count = 1;
    blink *all;
    OK(blink_open(&options, &all, &err));
    blink_close(all);
    options.credentials_count = 2;
    CHECK(blink_open(&options, &all, &err) == BLINK_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(blink_error_message(err), "secret") == NULL);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_error_status(err));
}

void test_run(void)
{
    logins_are_whole();
    blink *all = open_blink();
    runs_one_command(all);
    a_removed_sandbox_says_so(all);
    blink_sandbox *sandbox = make_sandbox(all);
    /* What was made from it stays good. */
    blink_close(all);
    arguments_and_input_are_bytes(sandbox);
    code_is_run_by_its_interpreter(sandbox);
    a_timeout_keeps_what_was_written(sandbox);
    a_capture_has_a_limit(sandbox);
    an_exit_is_told_whole(sandbox);
    blink_sandbox_free(sandbox);
}
