/* What the tests share: checks that name their line, and short ways to commands. */
#ifndef BLINK_TEST_H
#define BLINK_TEST_H

#include <blink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)
/* A call that succeeds; its message says why not. */
#define OK(status) check_status((status), BLINK_STATUS_OK, &err, #status, __FILE__, __LINE__)
/* A call that fails in one way, and has a sentence for it. */
#define FAILS(expected, status) check_status((status), (expected), &err, #status, __FILE__, __LINE__)

/* As FAILS, for a function that gives no error. */
#define RETURNS(expected, status) check_returned((status), (expected), #status, __FILE__, __LINE__)

void check_returned(blink_status status, blink_status expected, const char *what, const char *file, int line);
void check(bool condition, const char *what, const char *file, int line);
void check_status(blink_status status, blink_status expected, blink_error **err, const char *what, const char *file,
                  int line);

/* The isolation that BLINK_TEST_ENGINE names, a blink_isolation. */
int32_t engine(void);
/* Blink in the tests' home, with that isolation. */
blink *open_blink(void);
blink_sandbox *make_sandbox(blink *all);
/* A shell's script. It is good until the next one is made on the same thread. */
blink_command shell(const char *script);
/* The sandbox that a session runs in. */
blink_sandbox *inside(const blink_session *session);
/* A call that succeeds in a session's sandbox, which is `in` there. */
#define IN(session, call)                                                                                              \
    do {                                                                                                               \
        blink_sandbox *in = inside(session);                                                                           \
        OK(call);                                                                                                      \
        blink_sandbox_free(in);                                                                                        \
    } while (0)
bool is(const uint8_t *bytes, size_t length, const char *expected);
bool stdout_is(const blink_output *output, const char *expected);
/* This program. */
const char *program(void);
/* A path in the tests' folder; good until the next one. */
const char *scratch(const char *name);

/* Takes all descriptors that the process may have, under a limit that makes them few; and gives them back. */
void hold_descriptors(void);
void let_go_of_descriptors(void);

void test_handles(void);
void test_signals(void);
void test_fork(void);
void test_refused(void);
void test_statuses(void);
void test_threads(void);
void test_pool(void);
void test_run(void);
void test_detached(void);
void test_process(void);
void test_files(void);
void test_transfer(void);
void test_session(void);
void test_archive(void);
void test_warm(void);
void test_cancel(void);
void test_bad_input(void);
void test_system(void);
void test_images(void);
void test_connect(void);
void test_connect_session(void);
void test_about(void);
void test_about_session(void);
void test_beside(void);
/* What a process does that test_beside() starts. */
int run_sharer(void);
void test_registry(void);
void test_errors(void);

#endif
