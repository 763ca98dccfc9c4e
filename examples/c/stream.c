/* Shows what a program writes as it comes, from both streams, with poll(). */
#include <blink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static void check(blink_status status, blink_error *error)
{
    if (status != BLINK_STATUS_OK) {
        fprintf(stderr, "%s\n", blink_error_message(error));
        exit(1);
    }
}

int main(void)
{
    blink_options options;
    blink_options_init(&options, sizeof options);
    options.isolation = BLINK_ISOLATION_AUTO;

    const char *argv[] = {"/bin/sh", "-c", "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.1; done; exit 3"};
    blink_command command;
    blink_command_init(&command, sizeof command);
    command.argv = argv;
    command.argv_count = sizeof argv / sizeof *argv;

    blink *all;
    blink_sandbox *sandbox;
    blink_process *process;
    blink_error *error;
    check(blink_open(&options, &all, &error), error);
    check(blink_sandbox_create(all, NULL, NULL, &sandbox, &error), error);
    check(blink_sandbox_spawn(sandbox, &command, NULL, &process, &error), error);

    const int streams[2] = {BLINK_STREAM_STDOUT, BLINK_STREAM_STDERR};
    FILE *files[2] = {stdout, stderr};
    struct pollfd fds[2] = {{.events = POLLIN}, {.events = POLLIN}};
    for (int i = 0; i < 2; i++)
        check(blink_process_fd(process, streams[i], &fds[i].fd, &error), error);
    int open = 2;
    while (open > 0) {
        if (poll(fds, 2, -1) < 0)
            continue; /* A signal has interrupted it. */
        for (int i = 0; i < 2; i++) {
            if (!(fds[i].revents & POLLIN))
                continue;
            uint8_t buffer[4096];
            size_t count;
            blink_status status = blink_process_try_read(process, streams[i], buffer, sizeof buffer, &count, &error);
            if (status == BLINK_STATUS_WOULD_BLOCK) {
                blink_error_free(error);
                continue;
            }
            check(status, error);
            if (count == 0) {
                fds[i].fd = -1; /* poll() leaves it out from now on */
                open--;
            } else {
                fwrite(buffer, 1, count, files[i]);
                fflush(files[i]);
            }
        }
    }

    blink_exit ended;
    blink_exit_init(&ended, sizeof ended);
    check(blink_process_wait(process, 0, &ended, NULL, &error), error);
    printf("exit %d\n", ended.code);
    blink_process_free(process);
    blink_sandbox_free(sandbox);
    blink_close(all);
    return 0;
}
