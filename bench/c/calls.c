/* The C side of this benchmark: does what the line says that it reads, and answers with a line of microseconds, as
 * blink-ffi/examples/calls.rs does it in Rust. */
#define _POSIX_C_SOURCE 200809L
#include <blink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What takes nanoseconds is done so often for one number. */
#define AT_ONCE 1000

static void must(blink_status status, blink_error *error)
{
    if (status != BLINK_STATUS_OK) {
        fprintf(stderr, "calls: %s\n", blink_error_message(error));
        exit(1);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static double one(blink_sandbox *sandbox, const char *what)
{
    static const char *const argv[] = {"/bin/true"};
    blink_error *error = NULL;
    double started = now();
    int calls = 1;
    if (strcmp(what, "exec") == 0) {
        blink_command command;
        blink_output *output = NULL;
        blink_command_init(&command, sizeof command);
        command.argv = argv;
        command.argv_count = 1;
        must(blink_sandbox_exec(sandbox, &command, NULL, &output, &error), error);
        blink_output_free(output);
    } else if (strcmp(what, "ping") == 0) {
        must(blink_sandbox_ping(sandbox, NULL, &error), error);
    } else if (strcmp(what, "look") == 0) {
        for (calls = 0; calls < AT_ONCE; calls++)
            if (blink_sandbox_isolation(sandbox) == NULL)
                exit(1);
    } else {
        fprintf(stderr, "calls: there is no measurement %s\n", what);
        exit(1);
    }
    return (now() - started) / calls;
}

int main(void)
{
    blink_options options;
    blink_options_init(&options, sizeof options);
    options.isolation = BLINK_ISOLATION_NAMESPACE;
    blink *all = NULL;
    blink_sandbox *sandbox = NULL;
    blink_error *error = NULL;
    must(blink_open(&options, &all, &error), error);
    must(blink_sandbox_create(all, NULL, NULL, &sandbox, &error), error);
    char what[16];
    int count;
    while (scanf("%15s %d", what, &count) == 2) {
        double *numbers = malloc((size_t)count * sizeof *numbers);
        if (numbers == NULL)
            return 1;
        for (int i = 0; i < count; i++)
            numbers[i] = one(sandbox, what);
        for (int i = 0; i < count; i++)
            printf("%.17g ", numbers[i]);
        printf("\n");
        fflush(stdout);
        free(numbers);
    }
    must(blink_sandbox_remove(sandbox, &error), error);
    blink_sandbox_free(sandbox);
    blink_close(all);
    return 0;
}
