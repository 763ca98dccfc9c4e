/* Pools: what is ready is claimed at once, by one. */
#define _GNU_SOURCE /* memmem */
#include "test.h"
#include <stdio.h>
#include <string.h>

static blink_pool_stats stats_of(blink_pool *pool)
{
    blink_error *err = NULL;
    blink_pool_stats stats;
    blink_pool_stats_init(&stats, sizeof stats);
    OK(blink_pool_stats_get(pool, &stats, &err));
    return stats;
}

static void says(blink_sandbox *sandbox, const char *script, const char *expected)
{
    blink_error *err = NULL;
    blink_command command = shell(script);
    blink_output *output;
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    CHECK(stdout_is(output, expected));
    blink_output_free(output);
}

static void claims(blink *all)
{
    blink_error *err = NULL;
    blink_pool_options options;
    blink_pool_options_init(&options, sizeof options);
    blink_command warmup = shell("echo warm > /srv/state");
    options.ready = 2;
    options.name = "c-pool";
    options.warmup = &warmup;
    options.warmup_count = 1;
    const char *interpreters[] = {"python"};
    options.interpreters = interpreters;
    options.interpreters_count = COUNT(interpreters);
    blink_pool *pool;
    OK(blink_pool_create(all, &options, NULL, &pool, &err));
    CHECK(strcmp(blink_pool_name(pool), "c-pool") == 0 && blink_pool_name(NULL) == NULL);
    OK(blink_pool_ready(pool, NULL, &err));

    const char *env[] = {"TASK=42"};
    blink_sandbox_options sandbox_options = BLINK_SANDBOX_OPTIONS_INIT;
    sandbox_options.env = env;
    sandbox_options.env_count = COUNT(env);
    blink_claim_options claim;
    blink_claim_options_init(&claim, sizeof claim);
    claim.sandbox = &sandbox_options;
    blink_sandbox *sandbox;
    OK(blink_pool_claim(pool, &claim, NULL, &sandbox, &err));
    says(sandbox, "cat /srv/state; echo $TASK", "warm\n42\n");
    blink_command code = BLINK_COMMAND_INIT;
    code.code = "import os; print(os.environ['TASK'])";
    code.language = "python";
    blink_output *output;
    OK(blink_sandbox_exec(sandbox, &code, NULL, &output, &err));
    CHECK(stdout_is(output, "42\n"));
    blink_output_free(output);
    blink_pool_stats stats = stats_of(pool);
    CHECK(stats.ready == 2 && stats.hits == 1 && stats.claim.count == 1 && stats.claim.max_us > 0);
    CHECK(stats.claimed == 1 && stats.failed_claims == 0 && stats.boots >= 2 && stats.boot.count == stats.boots);
    blink_bytes *text;
    OK(blink_pool_openmetrics(pool, &text, &err));
    const char *line = "blink_pool_claims_total{pool=\"c-pool\",outcome=\"hit\"} 1\n";
    CHECK(memmem((const char *)blink_bytes_data(text), blink_bytes_length(text), line, strlen(line)) != NULL);
    blink_bytes_free(text);

    const char *labels[] = {"of=pool"};
    claim.labels = labels;
    claim.labels_count = COUNT(labels);
    blink_session *session, *other;
    OK(blink_pool_claim_as(pool, "from-c-pool", &claim, NULL, &session, &err));
    blink_session_info info = BLINK_SESSION_INFO_INIT;
    OK(blink_session_info_get(session, &info, &err));
    CHECK(info.labels_count == 1 && strcmp(info.labels[0], "of=pool") == 0);
    blink_session_info_dispose(&info);
    FAILS(BLINK_STATUS_ALREADY_EXISTS, blink_pool_claim_as(pool, "from-c-pool", NULL, NULL, &other, &err));
    CHECK(other == NULL);

    /* What was claimed stays; what comes later is told. */
    FAILS(BLINK_STATUS_TIMEOUT, blink_pool_drain(pool, 1, NULL, &err));
    blink_sandbox *none;
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_pool_claim(pool, NULL, NULL, &none, &err));
    CHECK(none == NULL);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_pool_ready(pool, NULL, &err));
    says(sandbox, "echo $TASK", "42\n");
    blink_sandbox_free(sandbox);
    OK(blink_pool_drain(pool, 60000, NULL, &err));
    blink_pool_free(pool);
    sandbox = inside(session);
    says(sandbox, "cat /srv/state; echo $TASK", "warm\n42\n");
    blink_sandbox_free(sandbox);
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
}

static void waits(blink *all)
{
    blink_error *err = NULL;
    blink_pool_options options = BLINK_POOL_OPTIONS_INIT;
    options.max = 1;
    options.waits = 1;
    blink_pool *pool;
    OK(blink_pool_create(all, &options, NULL, &pool, &err));
    OK(blink_pool_ready(pool, NULL, &err));
    blink_sandbox *first, *second;
    OK(blink_pool_claim(pool, NULL, NULL, &first, &err));
    blink_claim_options claim = BLINK_CLAIM_OPTIONS_INIT;
    claim.timeout_ms = 0;
    FAILS(BLINK_STATUS_TIMEOUT, blink_pool_claim(pool, &claim, NULL, &second, &err));
    blink_cancel *cancel = blink_cancel_after(50);
    FAILS(BLINK_STATUS_CANCELLED, blink_pool_claim(pool, NULL, cancel, &second, &err));
    blink_session *session;
    FAILS(BLINK_STATUS_CANCELLED, blink_pool_claim_as(pool, "none", NULL, cancel, &session, &err));
    FAILS(BLINK_STATUS_CANCELLED, blink_pool_ready(pool, cancel, &err));
    blink_pool *other;
    FAILS(BLINK_STATUS_CANCELLED, blink_pool_create(all, NULL, cancel, &other, &err));
    blink_sandbox_free(first);
    OK(blink_pool_claim(pool, NULL, NULL, &second, &err));
    FAILS(BLINK_STATUS_CANCELLED, blink_pool_drain(pool, 60000, cancel, &err));
    blink_sandbox_free(second);
    blink_pool_free(pool);
    blink_cancel_free(cancel);
}

static void keys(blink *all)
{
    blink_error *err = NULL;
    blink_pool *pool;
    OK(blink_pool_create(all, NULL, NULL, &pool, &err));
    blink_claim_options claim = BLINK_CLAIM_OPTIONS_INIT;
    claim.key = "c-claim";
    blink_sandbox *first, *second;
    OK(blink_pool_claim(pool, &claim, NULL, &first, &err));
    FAILS(BLINK_STATUS_BUSY, blink_pool_claim(pool, &claim, NULL, &second, &err));
    blink_sandbox_free(first);
    blink_pool_free(pool);
    blink_sandbox_options options = BLINK_SANDBOX_OPTIONS_INIT;
    options.key = "c-create";
    options.detached = 1;
    OK(blink_sandbox_create(all, &options, NULL, &first, &err));
    FAILS(BLINK_STATUS_BUSY, blink_sandbox_create(all, &options, NULL, &second, &err));
    char id[64];
    snprintf(id, sizeof id, "%s", blink_sandbox_id(first));
    blink_sandbox_free(first);
    OK(blink_sandbox_create(all, &options, NULL, &second, &err));
    CHECK(strcmp(blink_sandbox_id(second), id) == 0);
    OK(blink_sandbox_remove(second, &err));
    blink_sandbox_free(second);
}

static void refuses(blink *all)
{
    blink_error *err = NULL;
    blink_pool *pool;
    blink_pool_options options = BLINK_POOL_OPTIONS_INIT;
    options.ready = 0;
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_pool_create(all, &options, NULL, &pool, &err));
    options.ready = 2;
    options.max = 1;
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_pool_create(all, &options, NULL, &pool, &err));
    CHECK(pool == NULL);
    options.max = 0;
    blink_command warmup = shell("echo told; exit 3");
    options.warmup = &warmup;
    options.warmup_count = 1;
    CHECK(blink_pool_create(all, &options, NULL, &pool, &err) == BLINK_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(blink_error_message(err), "exit code 3") != NULL);
    CHECK(stdout_is(blink_error_output(err), "told\n"));
    blink_error_free(err);
    err = NULL;
    warmup = shell("sleep 1000");
    options.warmup_timeout_ms = 100;
    FAILS(BLINK_STATUS_TIMEOUT, blink_pool_create(all, &options, NULL, &pool, &err));

    OK(blink_pool_create(all, NULL, NULL, &pool, &err));
    blink_sandbox_options sandbox_options = BLINK_SANDBOX_OPTIONS_INIT;
    sandbox_options.image = "host";
    blink_claim_options claim = BLINK_CLAIM_OPTIONS_INIT;
    claim.sandbox = &sandbox_options;
    blink_sandbox *sandbox;
    CHECK(blink_pool_claim(pool, &claim, NULL, &sandbox, &err) == BLINK_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(blink_error_message(err), "the pool's to say") != NULL);
    blink_error_free(err);
    err = NULL;
    blink_pool_stats small = {.size = 3};
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_pool_stats_get(pool, &small, &err));
    blink_strings *names;
    blink_bytes *text;
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_pool_list(NULL, &names, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_pool_openmetrics(NULL, &text, &err));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_pool_drain(NULL, 0, NULL, &err));
    blink_pool_free(pool);
    blink_pool_free(NULL);
}

/* Within one process, another blink of the home is as another process. */
static void shares(blink *all)
{
    blink_error *err = NULL;
    blink_pool *pool, *other;
    FAILS(BLINK_STATUS_NOT_FOUND, blink_pool_open(all, "c-shared", &other, &err));
    if (engine() != BLINK_ISOLATION_NAMESPACE)
        return;
    blink_pool_options options = BLINK_POOL_OPTIONS_INIT;
    options.name = "c-shared";
    options.shared = 1;
    OK(blink_pool_create(all, &options, NULL, &pool, &err));
    blink *another = open_blink();
    FAILS(BLINK_STATUS_ALREADY_EXISTS, blink_pool_create(another, &options, NULL, &other, &err));
    OK(blink_pool_open(another, "c-shared", &other, &err));
    blink_strings *names;
    OK(blink_pool_list(another, &names, &err));
    CHECK(blink_strings_count(names) == 1 && strcmp(blink_strings_get(names, 0), "c-shared") == 0);
    blink_strings_free(names);
    OK(blink_pool_ready(other, NULL, &err));
    blink_sandbox *sandbox;
    OK(blink_pool_claim(other, NULL, NULL, &sandbox, &err));
    says(sandbox, "echo works", "works\n");
    CHECK(stats_of(other).claimed == 1 && stats_of(pool).claimed == 1);
    blink_sandbox_free(sandbox);
    OK(blink_pool_drain(other, 60000, NULL, &err));
    blink_pool_free(pool);
    FAILS(BLINK_STATUS_NOT_FOUND, blink_pool_ready(other, NULL, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_pool_claim(other, NULL, NULL, &sandbox, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_pool_drain(other, 1, NULL, &err));
    blink_pool_stats stats = BLINK_POOL_STATS_INIT;
    FAILS(BLINK_STATUS_NOT_FOUND, blink_pool_stats_get(other, &stats, &err));
    blink_bytes *text;
    FAILS(BLINK_STATUS_NOT_FOUND, blink_pool_openmetrics(other, &text, &err));
    blink_pool_free(other);
    blink_close(another);
}

void test_pool(void)
{
    blink *all = open_blink();
    claims(all);
    waits(all);
    keys(all);
    refuses(all);
    shares(all);
    blink_close(all);
}
