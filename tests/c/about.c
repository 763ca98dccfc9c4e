/* What sandboxes and sessions say about themselves. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Kills a sandbox's machine from outside, by what is written down of it. */
static void kill_machine(const blink_sandbox *sandbox)
{
    bool namespaces = strcmp(blink_sandbox_isolation(sandbox), "namespace") == 0;
    char name[128], record[4096] = "";
    snprintf(name, sizeof name, "home/sandboxes/%s/record.json", blink_sandbox_id(sandbox));
    FILE *file = fopen(scratch(name), "r");
    CHECK(file != NULL && fread(record, 1, sizeof record - 1, file) > 0 && fclose(file) == 0);
    const char *holder = strstr(record, namespaces ? "\"agent\"" : "\"process\"");
    const char *pid = holder ? strstr(holder, "\"pid\":") : NULL;
    CHECK(pid != NULL && atoi(pid + strlen("\"pid\":")) > 1);
    CHECK(kill((pid_t)atoi(pid + strlen("\"pid\":")), SIGKILL) == 0);
}

/* The macros are what the functions set. */
#define SAME(type, macro)                                                                                              \
    do {                                                                                                               \
        static const type by_macro = macro;                                                                           \
        type by_function;                                                                                              \
        CHECK(type##_init(&by_function, sizeof by_function) == BLINK_STATUS_OK);                                       \
        CHECK(memcmp(&by_macro, &by_function, sizeof by_macro) == 0);                                                  \
    } while (0)

static void initializers(void)
{
    SAME(blink_export_options, BLINK_EXPORT_OPTIONS_INIT);
    SAME(blink_options, BLINK_OPTIONS_INIT);
    SAME(blink_command, BLINK_COMMAND_INIT);
    SAME(blink_check, BLINK_CHECK_INIT);
    SAME(blink_file_info, BLINK_FILE_INFO_INIT);
    SAME(blink_exit, BLINK_EXIT_INIT);
    SAME(blink_write_options, BLINK_WRITE_OPTIONS_INIT);
    SAME(blink_image, BLINK_IMAGE_INIT);
    SAME(blink_checkpoint, BLINK_CHECKPOINT_INIT);
    SAME(blink_pool_options, BLINK_POOL_OPTIONS_INIT);
    SAME(blink_claim_options, BLINK_CLAIM_OPTIONS_INIT);
    SAME(blink_pool_stats, BLINK_POOL_STATS_INIT);
    SAME(blink_process_info, BLINK_PROCESS_INFO_INIT);
    SAME(blink_sandbox_options, BLINK_SANDBOX_OPTIONS_INIT);
    SAME(blink_session_info, BLINK_SESSION_INFO_INIT);
    SAME(blink_session_options, BLINK_SESSION_OPTIONS_INIT);
    char version[64];
    snprintf(version, sizeof version, "%d.%d.%d", BLINK_VERSION_MAJOR, BLINK_VERSION_MINOR, BLINK_VERSION_PATCH);
    CHECK(strcmp(blink_version(), version) == 0);
}

static void a_death_has_a_reason(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox *sandbox = make_sandbox(all);
    CHECK(strncmp(blink_sandbox_agent(sandbox), "blink-guest ", 12) == 0);
    CHECK(blink_sandbox_death(sandbox) == NULL);
    kill_machine(sandbox);
    CHECK(blink_sandbox_ping(sandbox, NULL, &err) == BLINK_STATUS_SANDBOX_DIED);
    const blink_error *death = blink_sandbox_death(sandbox);
    CHECK(death != NULL && blink_error_status(death) == BLINK_STATUS_SANDBOX_DIED);
    CHECK(strcmp(blink_error_message(death), blink_error_message(err)) == 0 && blink_error_output(death) == NULL);
    FAILS(BLINK_STATUS_SANDBOX_DIED, blink_error_status(err));
    OK(blink_sandbox_remove(sandbox, &err));
    CHECK(blink_sandbox_death(sandbox) == death && strlen(blink_error_message(death)) > 0);
    blink_sandbox_free(sandbox);
    CHECK(blink_sandbox_death(sandbox) == NULL && blink_error_status(death) == BLINK_STATUS_INVALID_ARGUMENT);

    sandbox = make_sandbox(all);
    OK(blink_sandbox_remove(sandbox, &err));
    CHECK(strstr(blink_error_message(blink_sandbox_death(sandbox)), "removed") != NULL);
    blink_sandbox_free(sandbox);
}

static void ports_are_told_whole(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox_options options;
    blink_sandbox_options_init(&options, sizeof options);
    const blink_port ports[] = {{.guest_port = 4301}, {.address = "127.0.0.2", .guest_port = 4302}};
    options.ports = ports;
    options.ports_count = COUNT(ports);
    options.hostname = "build.example";
    blink_sandbox *sandbox;
    OK(blink_sandbox_create(all, &options, NULL, &sandbox, &err));
    blink_command command = shell("cat /etc/hostname");
    blink_output *output;
    OK(blink_sandbox_exec(sandbox, &command, NULL, &output, &err));
    CHECK(stdout_is(output, "build.example\n"));
    blink_output_free(output);
    blink_port port;
    OK(blink_sandbox_published(sandbox, 0, &port, &err));
    CHECK(strcmp(port.address, "127.0.0.1") == 0 && port.guest_port == 4301 && port.host_port > 0);
    CHECK(port.host_port == blink_sandbox_published_port(sandbox, 0));
    OK(blink_sandbox_published(sandbox, 1, &port, &err));
    CHECK(strcmp(port.address, "127.0.0.2") == 0 && port.guest_port == 4302);
    CHECK(port.host_port == blink_sandbox_published_port(sandbox, 1));
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_sandbox_published(sandbox, 2, &port, &err));
    CHECK(port.address == NULL && port.host_port == 0 && port.guest_port == 0);
    blink_sandbox_free(sandbox);
}

static void an_image_is_fetched_before_it_is_needed(blink *all)
{
    blink_error *err = NULL;
    OK(blink_sandbox_fetch_image(all, NULL, NULL, &err));
    blink_sandbox_options options;
    blink_sandbox_options_init(&options, sizeof options);
    options.image = getenv("BLINK_TEST_IMAGE"); /* A tar that scripts/test-c makes. */
    CHECK(options.image != NULL);
    blink_cancel *cancel = blink_cancel_new();
    blink_cancel_now(cancel);
    FAILS(BLINK_STATUS_CANCELLED, blink_sandbox_fetch_image(all, &options, cancel, &err));
    blink_cancel_free(cancel);
    OK(blink_sandbox_fetch_image(all, &options, NULL, &err));
    blink_image_list *list;
    OK(blink_image_list_all(all, &list, &err));
    CHECK(blink_image_list_count(list) == 1);
    blink_image_list_free(list);
    options.cpus = -1;
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_sandbox_fetch_image(all, &options, NULL, &err));
    blink_sandbox_options_init(&options, sizeof options);
    options.image = "127.0.0.1:9/none:1"; /* Nobody listens there. */
    FAILS(BLINK_STATUS_IMAGE_UNAVAILABLE, blink_sandbox_fetch_image(all, &options, NULL, &err));
    OK(blink_image_prune(all, NULL, &err));
}

static void what_a_session_sees_and_reaches(blink *all)
{
    blink_error *err = NULL;
    blink_sandbox_options sandbox;
    blink_sandbox_options_init(&sandbox, sizeof sandbox);
    CHECK(mkdir(scratch("shown"), 0700) == 0);
    const blink_mount mount = {.host = scratch("shown"), .guest = "/data", .read_only = 1};
    const blink_port ports[] = {{.guest_port = 4303}, {.address = "127.0.0.2", .guest_port = 4304}};
    sandbox.mounts = &mount;
    sandbox.mounts_count = 1;
    sandbox.ports = ports;
    sandbox.ports_count = COUNT(ports);
    blink_session_options options;
    blink_session_options_init(&options, sizeof options);
    options.sandbox = &sandbox;
    blink_session *session;
    OK(blink_session_open(all, "about", &options, NULL, &session, &err));
    OK(blink_session_rename(session, "about-it", &err));
    blink_session_info info = BLINK_SESSION_INFO_INIT;
    OK(blink_session_info_get(session, &info, &err));
    CHECK(info.owner != NULL && info.labels == NULL && info.labels_count == 0);
    CHECK(strcmp(info.name, "about-it") == 0 && strcmp(info.id, blink_session_id(session)) == 0 && info.running);
    CHECK(info.network == BLINK_NETWORK_NONE && info.hosts == NULL && info.hosts_count == 0);
    CHECK(info.mounts_count == 1 && info.mounts[0].read_only == 1 && strcmp(info.mounts[0].guest, "/data") == 0);
    CHECK(strcmp(info.mounts[0].host, scratch("shown")) == 0);
    CHECK(info.ports_count == 2 && info.ports[0].guest_port == 4303 && info.ports[0].host_port == 0);
    CHECK(strcmp(info.ports[0].address, "127.0.0.1") == 0 && strcmp(info.ports[1].address, "127.0.0.2") == 0);

    blink_sandbox *running = inside(session);
    CHECK(strcmp(blink_sandbox_id(running), blink_session_id(session)) == 0);
    CHECK(strncmp(blink_sandbox_agent(running), "blink-guest ", 12) == 0);
    FAILS(BLINK_STATUS_INVALID_ARGUMENT, blink_sandbox_remove(running, &err));
    OK(blink_session_stop(session, &err));
    blink_session_info_dispose(&info);
    CHECK(info.owner == NULL && info.name == NULL && info.size == sizeof info);
    blink_session_info_dispose(&info);
    blink_session_info_dispose(NULL);
    OK(blink_session_info_get(session, &info, &err));
    CHECK(!info.running);
    FAILS(BLINK_STATUS_SANDBOX_DIED, blink_sandbox_ping(running, NULL, &err));
    blink_sandbox_free(running);
    IN(session, blink_sandbox_ping(in, NULL, &err));

    /* What it says can be asked for: another one is made the same. */
    sandbox.mounts = info.mounts;
    sandbox.mounts_count = info.mounts_count;
    sandbox.ports = info.ports;
    sandbox.ports_count = info.ports_count;
    sandbox.network = info.network;
    blink_session *other;
    OK(blink_session_open(all, "about-the-other", &options, NULL, &other, &err));
    blink_session_info_dispose(&info);
    OK(blink_session_remove(other, &err));
    blink_session_free(other);
    OK(blink_session_remove(session, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_session_sandbox(session, NULL, &running, &err));
    CHECK(running == NULL);
    blink_session_free(session);

    /* Namespaces have the host's network or none; a machine reaches hosts that are named. */
    const char *hosts[] = {"pypi.org", "192.0.2.1"};
    const char *engine = getenv("BLINK_TEST_ENGINE");
    bool namespaces = engine == NULL || strcmp(engine, "namespace") == 0;
    blink_sandbox_options_init(&sandbox, sizeof sandbox);
    sandbox.network = namespaces ? BLINK_NETWORK_HOST : BLINK_NETWORK_HOSTS;
    sandbox.hosts = hosts;
    sandbox.hosts_count = namespaces ? 0 : COUNT(hosts);
    OK(blink_session_open(all, "about-networks", &options, NULL, &session, &err));
    OK(blink_session_info_find(all, "about-networks", &info, &err));
    CHECK(info.network == sandbox.network && info.hosts_count == sandbox.hosts_count);
    CHECK(namespaces || (strcmp(info.hosts[0], "pypi.org") == 0 && strcmp(info.hosts[1], "192.0.2.1") == 0));
    CHECK(info.mounts == NULL && info.mounts_count == 0 && info.ports == NULL && info.ports_count == 0);
    blink_session_info_dispose(&info);
    OK(blink_session_remove(session, &err));
    blink_session_free(session);
}

void test_about(void)
{
    initializers();
    blink *all = open_blink();
    a_death_has_a_reason(all);
    ports_are_told_whole(all);
    blink_close(all);
}

void test_about_session(void)
{
    blink *all = open_blink();
    an_image_is_fetched_before_it_is_needed(all);
    what_a_session_sees_and_reaches(all);
    blink_close(all);
}
