/* Keeps state in a session, saves it as a checkpoint, and goes two ways from there. */
#include <blink.h>
#include <stdio.h>
#include <stdlib.h>

static void check(blink_status status, blink_error *error)
{
    if (status != BLINK_STATUS_OK) {
        fprintf(stderr, "%s\n", blink_error_message(error));
        exit(1);
    }
}

static void shell(blink_session *session, const char *script)
{
    const char *argv[] = {"/bin/sh", "-c", script};
    blink_command command;
    blink_command_init(&command, sizeof command);
    command.argv = argv;
    command.argv_count = sizeof argv / sizeof *argv;

    blink_output *output;
    blink_error *error;
    blink_sandbox *sandbox;
    check(blink_session_sandbox(session, NULL, &sandbox, &error), error);
    check(blink_sandbox_exec(sandbox, &command, NULL, &output, &error), error);
    blink_sandbox_free(sandbox);
    size_t length;
    const uint8_t *bytes = blink_output_stdout(output, &length);
    if (length > 0)
        fwrite(bytes, 1, length, stdout);
    blink_output_free(output);
}

int main(void)
{
    blink_options options;
    blink_options_init(&options, sizeof options);
    options.isolation = BLINK_ISOLATION_AUTO;

    blink *all;
    blink_session *session, *fork;
    blink_error *error;
    check(blink_open(&options, &all, &error), error);
    check(blink_session_open(all, "c-example", NULL, NULL, &session, &error), error);
    shell(session, "echo begun > /var/blink/memory/notes");
    check(blink_session_checkpoint(session, "begun", false, NULL, NULL, &error), error);
    shell(session, "echo ours >> /var/blink/memory/notes");

    check(blink_session_fork(session, "begun", "c-example-fork", NULL, &fork, &error), error);
    shell(fork, "echo theirs >> /var/blink/memory/notes; cat /var/blink/memory/notes");
    check(blink_session_restore(session, "begun", NULL, &error), error);
    shell(session, "cat /var/blink/memory/notes");

    check(blink_session_remove(fork, &error), error);
    check(blink_session_remove(session, &error), error);
    blink_session_free(fork);
    blink_session_free(session);
    blink_close(all);
    return 0;
}
