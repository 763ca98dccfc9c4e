/* Runs one command in a sandbox of its own. */
#include <blink.h>
#include <stdio.h>

int main(void)
{
    blink_options options;
    blink_options_init(&options, sizeof options);
    options.isolation = BLINK_ISOLATION_AUTO;

    const char *argv[] = {"python3", "-c", "print(6 * 7)"};
    blink_command command;
    blink_command_init(&command, sizeof command);
    command.argv = argv;
    command.argv_count = sizeof argv / sizeof *argv;
    command.timeout_ms = 10000;

    blink *all = NULL;
    blink_output *output = NULL;
    blink_error *error = NULL;
    int status = 1;
    if (blink_open(&options, &all, &error) == BLINK_STATUS_OK &&
        blink_run(all, NULL, &command, NULL, &output, &error) == BLINK_STATUS_OK) {
        size_t length;
        const uint8_t *bytes = blink_output_stdout(output, &length);
        fwrite(bytes, 1, length, stdout);
        fprintf(stderr, "exit %d, isolated by %s\n", blink_output_exit_code(output), blink_output_isolation(output));
        status = blink_output_exit_code(output);
    } else {
        fprintf(stderr, "%s\n", blink_error_message(error));
    }
    blink_error_free(error);
    blink_output_free(output);
    blink_close(all);
    return status;
}
