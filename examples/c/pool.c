/* Runs twenty programs, each in a sandbox of its own, claimed from a pool. */
#include <blink.h>
#include <stdio.h>
#include <string.h>

enum { PROGRAMS = 20 };

/* Runs one; returns 1 if it has printed what it should. */
static int evaluate(blink_pool *pool, int number, blink_error **error)
{
    char code[64], expected[32];
    snprintf(code, sizeof code, "echo $((%d * %d))", number, number);
    snprintf(expected, sizeof expected, "%d\n", number * number);
    blink_command command = BLINK_COMMAND_INIT;
    command.code = code;
    command.language = "sh";
    command.timeout_ms = 5000;

    blink_sandbox *sandbox = NULL;
    blink_output *output = NULL;
    int passed = 0;
    if (blink_pool_claim(pool, NULL, NULL, &sandbox, error) == BLINK_STATUS_OK &&
        blink_sandbox_exec(sandbox, &command, NULL, &output, error) == BLINK_STATUS_OK) {
        size_t length;
        const uint8_t *bytes = blink_output_stdout(output, &length);
        passed = length == strlen(expected) && memcmp(bytes, expected, length) == 0;
    }
    blink_output_free(output);
    blink_sandbox_free(sandbox); /* It is removed in the background. */
    return passed;
}

int main(void)
{
    blink_options options = BLINK_OPTIONS_INIT;
    options.isolation = BLINK_ISOLATION_AUTO;
    blink_pool_options pool_options = BLINK_POOL_OPTIONS_INIT;
    pool_options.ready = 4;

    blink *all = NULL;
    blink_pool *pool = NULL;
    blink_error *error = NULL;
    blink_pool_stats stats = BLINK_POOL_STATS_INIT;
    int passed = 0;
    if (blink_open(&options, &all, &error) == BLINK_STATUS_OK &&
        blink_pool_create(all, &pool_options, NULL, &pool, &error) == BLINK_STATUS_OK &&
        blink_pool_ready(pool, NULL, &error) == BLINK_STATUS_OK) {
        for (int number = 0; number < PROGRAMS && error == NULL; number++)
            passed += evaluate(pool, number, &error);
    }
    if (error == NULL && blink_pool_stats_get(pool, &stats, &error) == BLINK_STATUS_OK) {
        printf("%d of %d passed\n", passed, PROGRAMS);
        fprintf(stderr, "a claim took %lu us, and a boot %lu us (medians)\n", (unsigned long)stats.claim.p50_us,
                (unsigned long)stats.boot.p50_us);
    } else {
        fprintf(stderr, "%s\n", blink_error_message(error));
    }
    blink_error_free(error);
    blink_pool_free(pool);
    blink_close(all);
    return passed == PROGRAMS ? 0 : 1;
}
