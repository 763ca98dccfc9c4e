/**
 * libblink: run untrusted code in sandboxes.
 *
 * Generated from blink-ffi by scripts/header; do not edit.
 *
 * A whole program, which prints 42:
 *
 *     #include <blink.h>
 *     #include <stdio.h>
 *
 *     int main(void)
 *     {
 *         blink_options options;
 *         blink_options_init(&options, sizeof options);
 *         options.isolation = BLINK_ISOLATION_AUTO;
 *
 *         const char *argv[] = {"python3", "-c", "print(6 * 7)"};
 *         blink_command command;
 *         blink_command_init(&command, sizeof command);
 *         command.argv = argv;
 *         command.argv_count = 3;
 *
 *         blink *all = NULL;
 *         blink_output *output = NULL;
 *         blink_error *error = NULL;
 *         if (blink_open(&options, &all, &error) == BLINK_STATUS_OK &&
 *             blink_run(all, NULL, &command, NULL, &output, &error) == BLINK_STATUS_OK) {
 *             size_t length;
 *             const uint8_t *bytes = blink_output_stdout(output, &length);
 *             fwrite(bytes, 1, length, stdout);
 *         } else {
 *             fprintf(stderr, "%s\n", blink_error_message(error));
 *         }
 *         blink_error_free(error);
 *         blink_output_free(output);
 *         blink_close(all);
 *         return 0;
 *     }
 *
 * Build it with `cc program.c $(pkg-config --cflags --libs blink)`.
 *
 * INDEX
 *
 *     blink                  blink_open(), blink_run(), blink_close(): where everything starts
 *     blink_sandbox          blink_sandbox_create(), _open(), _exec(), _spawn(), _files(), _remove()
 *     blink_session          blink_session_open(), _take(), _sandbox(), _checkpoint(), _restore(), _fork(), _export(), blink_session_import()
 *     blink_pool             blink_pool_create(), _open(), _claim(), _claim_as(), _stats_get(): sandboxes that are ready
 *     blink_command          blink_command_init(): what to run, with its input, environment and limits
 *     blink_output           what a program wrote, and how it ended
 *     blink_process          blink_process_read(), _write(), _wait(), _kill(), _fd(): a program that is running
 *     blink_processes        blink_processes_of(): the processes of a session that someone else has open
 *     blink_files            blink_files_read(), _write(), _upload(), _download(), _list()
 *     blink_file_reader, blink_file_writer   large files, in parts
 *     blink_image            blink_image_pull(), blink_image_list_all(), blink_image_remove()
 *     blink_session_info     blink_session_info_get(), _find(), blink_session_list_all(): what there is to say about a session
 *     blink_cancel           blink_cancel_new(), _after(), _now(), _fd(): cancels calls, from other threads and signal handlers
 *     blink_report           blink_doctor(): which isolation works on this host, and why not
 *     blink_error            blink_error_message(), _status(), _errno(), _cause(), _holder(), _is_retryable()
 *     blink_strings, blink_bytes, blink_entries, blink_lineage, *_list   results that have several values
 *
 * OWNERSHIP
 *
 *     yours: free it with its type's _free function, a blink with blink_close()
 *         what a call sets *out and *err to
 *     yours: free what is in it with its _dispose function
 *         a blink_session_info or blink_image that a call has filled in without a list
 *     a handle's: valid until that handle is freed
 *         text and bytes that a function of it returns, text in structures that it fills in, blink_error_output()
 *     the library's: static, valid as long as it is loaded
 *         blink_status_name(), blink_version(), `over_limit` of a blink_exit
 *     yours, borrowed for one call: the library keeps no pointer to it
 *         `const` arguments, and what structures of options point to
 *     the library's, borrowed by a callback: valid until it returns
 *         the arguments of callbacks, but for their `user_data`, which is yours
 *
 * PROMISES
 *
 *  1. Handles. A pointer to a type without fields is a handle: a number that is used only once, not an address. Each type has a
 *     _free function, which accepts NULL; a blink is freed by blink_close(). A handle that was freed already, that is of another
 *     type, or that this library did not return is detected: the call fails with BLINK_STATUS_INVALID_ARGUMENT and a message that
 *     says which, a function that does not return a status returns what it returns for NULL, and freeing it does nothing.
 *     blink_log_set() receives a warning.
 *  2. Lifetimes. A call keeps what it works with: a handle may be freed while other threads use it, and is destroyed when the
 *     last of their calls returns. Text and bytes that a function returns are valid until their handle is freed. Handles may be
 *     freed in any order; blink_handle_count() returns how many were not.
 *  3. Threads. Every function may be called from any thread, and every handle may be used by several threads at the same time.
 *  4. Fork. After fork(), a child process can read the results of calls that its parent made, and free all handles; that does
 *     not affect the parent. Any other call with a handle of the parent fails with BLINK_STATUS_UNSUPPORTED. The child can call
 *     blink_open() again.
 *  5. Signal handlers. No function of this library may be called from a signal handler. A handler may write to the descriptor
 *     that blink_cancel_fd() returned, which cancels.
 *  6. Results. `out` must not be NULL; after a failure, *out is NULL. Borrowed arguments (`const`) are not kept after the call.
 *  7. Errors. A function that can fail returns a blink_status. If `err` is not NULL, *err is set to an error on failure and to
 *     NULL on success. There is no thread-local last error. Every function may return BLINK_STATUS_INVALID_ARGUMENT for invalid
 *     arguments and BLINK_STATUS_INTERNAL for a bug in the library or a failure of the host. Errors of file systems have the
 *     status that is named like them, such as BLINK_STATUS_PERMISSION_DENIED.
 *  8. Zero. In structures, 0 and NULL mean "the default", which each field documents. For every limit (memory, disk, processors,
 *     processes) that is a limit, never "unlimited"; the timeout of a command and of waiting is the exception: 0 is none. Three
 *     defaults are not 0, and set by the _init functions: a command's `output_limit_bytes`, of which 0 captures nothing and only
 *     counts, the size of its terminal, and a session's `patience_ms`, of which 0 does not wait.
 *  9. Versions. Structures begin with their size. Initialize each with its _init function and sizeof, or with its _INIT macro:
 *     programs then work with later versions of the library, and with earlier ones if they do not ask for anything that those do
 *     not know. `reserved` must be 0. BLINK_VERSION_MAJOR, _MINOR and _PATCH are the version of this header, and
 *     blink_version() returns that of the library.
 * 10. SIGCHLD. The library installs a handler for it, which calls the previous one: a sandbox that ends interrupts poll() and
 *     similar calls (EINTR). Child processes that the program started itself are left alone. No other signal is changed.
 * 11. Output. The library prints nothing. See blink_log_set().
 * 12. Linux. A build needs the version of the GNU C library that `pkg-config --variable=glibc blink` prints, or a later one, and
 *     64-bit pointers.
 */


#ifndef BLINK_H
#define BLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/** The version of this header; blink_version() returns the library's. */
#define BLINK_VERSION_MAJOR 0
#define BLINK_VERSION_MINOR 1
#define BLINK_VERSION_PATCH 0

/** What the _init functions set, as initializers: `blink_options options = BLINK_OPTIONS_INIT;`. */
#define BLINK_EXPORT_OPTIONS_INIT { .size = sizeof(blink_export_options) }
#define BLINK_OPTIONS_INIT { .size = sizeof(blink_options) }
#define BLINK_COMMAND_INIT \
    { .size = sizeof(blink_command), .pty_rows = 24, .pty_cols = 80, .output_limit_bytes = 16777216 }
#define BLINK_CHECK_INIT { .size = sizeof(blink_check) }
#define BLINK_FILE_INFO_INIT { .size = sizeof(blink_file_info) }
#define BLINK_EXIT_INIT { .size = sizeof(blink_exit) }
#define BLINK_WRITE_OPTIONS_INIT { .size = sizeof(blink_write_options) }
#define BLINK_IMAGE_INIT { .size = sizeof(blink_image) }
#define BLINK_POOL_OPTIONS_INIT { .size = sizeof(blink_pool_options), .ready = 1 }
#define BLINK_CLAIM_OPTIONS_INIT { .size = sizeof(blink_claim_options), .timeout_ms = 60000 }
#define BLINK_POOL_STATS_INIT { .size = sizeof(blink_pool_stats) }
#define BLINK_CHECKPOINT_INIT { .size = sizeof(blink_checkpoint) }
#define BLINK_PROCESS_INFO_INIT { .size = sizeof(blink_process_info) }
#define BLINK_SANDBOX_OPTIONS_INIT { .size = sizeof(blink_sandbox_options) }
#define BLINK_SESSION_INFO_INIT { .size = sizeof(blink_session_info) }
#define BLINK_SESSION_OPTIONS_INIT { .size = sizeof(blink_session_options), .patience_ms = 10000 }


/**
 * The result of a call. Numbers never change their meaning; new ones are added at the end. Below 100 they are the kinds of
 * errors that every language has; from 100 on, those that only C has.
 */
enum blink_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It succeeded.
   */
  BLINK_STATUS_OK = 0,
  /**
   * The request is invalid; correct it.
   */
  BLINK_STATUS_INVALID_ARGUMENT = 1,
  /**
   * What it names does not exist.
   */
  BLINK_STATUS_NOT_FOUND = 2,
  /**
   * What it would create exists already.
   */
  BLINK_STATUS_ALREADY_EXISTS = 3,
  /**
   * Someone else is using it; try again later. blink_error_holder() says who.
   */
  BLINK_STATUS_BUSY = 4,
  /**
   * The requested isolation is not available on this host; the message says why, and how to ask for less.
   */
  BLINK_STATUS_ISOLATION_UNAVAILABLE = 5,
  /**
   * The image could not be fetched; the message says what is missing, and how to do without it.
   */
  BLINK_STATUS_IMAGE_UNAVAILABLE = 6,
  /**
   * A limit was reached: disk, memory, processes, open files. Raise it, or use less.
   */
  BLINK_STATUS_RESOURCE_EXHAUSTED = 7,
  /**
   * It did not finish in the time it was given.
   */
  BLINK_STATUS_TIMEOUT = 8,
  /**
   * The sandbox ended unexpectedly; the message contains the end of its console. Create a new one.
   */
  BLINK_STATUS_SANDBOX_DIED = 9,
  /**
   * The sandbox violated the protocol and was disconnected. Its program may be hostile.
   */
  BLINK_STATUS_PROTOCOL = 10,
  /**
   * The data is damaged; it was not used.
   */
  BLINK_STATUS_CORRUPT = 11,
  /**
   * This version, or this sandbox, does not support the operation.
   */
  BLINK_STATUS_UNSUPPORTED = 12,
  /**
   * A bug in Blink, or a failure of the host that has no better kind.
   */
  BLINK_STATUS_INTERNAL = 13,
  /**
   * You, or the sandbox, may not do that; use another path, or change its permissions.
   */
  BLINK_STATUS_PERMISSION_DENIED = 14,
  /**
   * The path is a directory, and something else is needed.
   */
  BLINK_STATUS_IS_A_DIRECTORY = 15,
  /**
   * The path, or a part of it, is not a directory, and one is needed.
   */
  BLINK_STATUS_NOT_A_DIRECTORY = 16,
  /**
   * The file system is read-only; use another path.
   */
  BLINK_STATUS_READ_ONLY = 17,
  /**
   * A file name or path is longer than the file system allows; use a shorter one.
   */
  BLINK_STATUS_NAME_TOO_LONG = 18,
  /**
   * The directory is not empty; remove its contents first, or remove it recursively.
   */
  BLINK_STATUS_DIRECTORY_NOT_EMPTY = 19,
  /**
   * The call was cancelled.
   */
  BLINK_STATUS_CANCELLED = 100,
  /**
   * There is nothing to read now; wait for the file descriptor, or read again later.
   */
  BLINK_STATUS_WOULD_BLOCK = 101,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blink_status blink_status;
#else
typedef int32_t blink_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What stands between a sandbox and the host.
 */
enum blink_isolation
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * For a sandbox: what blink_open() was told. For blink_open(): BLINK_ISOLATION_MICROVM.
   */
  BLINK_ISOLATION_DEFAULT = 0,
  /**
   * A virtual machine, or BLINK_STATUS_ISOLATION_UNAVAILABLE: nothing less is taken silently.
   */
  BLINK_ISOLATION_MICROVM = 1,
  /**
   * Linux namespaces: the host's kernel, with a filter of system calls between.
   */
  BLINK_ISOLATION_NAMESPACE = 2,
  /**
   * The strongest that works here; sandboxes and outputs say which.
   */
  BLINK_ISOLATION_AUTO = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blink_isolation blink_isolation;
#else
typedef int32_t blink_isolation;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a sandbox can reach.
 */
enum blink_network
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Nothing but itself.
   */
  BLINK_NETWORK_NONE = 0,
  /**
   * Everything that the host can reach.
   */
  BLINK_NETWORK_HOST = 1,
  /**
   * The hosts that are named, and no others; in micro-VMs only.
   */
  BLINK_NETWORK_HOSTS = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blink_network blink_network;
#else
typedef int32_t blink_network;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * An output stream of a program.
 */
enum blink_stream
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Standard output; of a program with a terminal, everything.
   */
  BLINK_STREAM_STDOUT = 1,
  /**
   * Standard error.
   */
  BLINK_STREAM_STDERR = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blink_stream blink_stream;
#else
typedef int32_t blink_stream;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a file is.
 */
enum blink_file_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * A device, pipe or socket.
   */
  BLINK_FILE_TYPE_OTHER = 0,
  /**
   * A regular file.
   */
  BLINK_FILE_TYPE_FILE = 1,
  /**
   * A folder.
   */
  BLINK_FILE_TYPE_DIRECTORY = 2,
  /**
   * A symbolic link.
   */
  BLINK_FILE_TYPE_SYMLINK = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blink_file_type blink_file_type;
#else
typedef int32_t blink_file_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a checkpoint is worth.
 */
enum blink_consistency
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * As after a power cut: what programs had not written to the disk is not there.
   */
  BLINK_CONSISTENCY_CRASH = 0,
  /**
   * All that programs had written at one moment is there.
   */
  BLINK_CONSISTENCY_FROZEN = 1,
  /**
   * No program ran.
   */
  BLINK_CONSISTENCY_STOPPED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blink_consistency blink_consistency;
#else
typedef int32_t blink_consistency;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What is being done with an image.
 */
enum blink_step
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Its layers come into the store.
   */
  BLINK_STEP_DOWNLOAD = 1,
  /**
   * Its layers become a root folder.
   */
  BLINK_STEP_UNPACK = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blink_step blink_step;
#else
typedef int32_t blink_step;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How important a message is.
 */
enum blink_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Something failed.
   */
  BLINK_LOG_LEVEL_ERROR = 1,
  /**
   * Something is not as it should be, and Blink goes on.
   */
  BLINK_LOG_LEVEL_WARN = 2,
  /**
   * What happens.
   */
  BLINK_LOG_LEVEL_INFO = 3,
  /**
   * What happens, closely.
   */
  BLINK_LOG_LEVEL_DEBUG = 4,
  /**
   * What happens, very closely.
   */
  BLINK_LOG_LEVEL_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blink_log_level blink_log_level;
#else
typedef int32_t blink_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Blink, opened: everything begins here.
 */
typedef struct blink blink;

/**
 * Bytes that a call has brought. They never change.
 */
typedef struct blink_bytes blink_bytes;

/**
 * Cancels calls: whoever has it can end every call that it was given to, from any thread. One may be given to several
 * calls. Once cancelled it stays so: a call that it is given to then fails at once.
 */
typedef struct blink_cancel blink_cancel;

/**
 * The entries of a folder. They never change.
 */
typedef struct blink_entries blink_entries;

/**
 * Why a call failed: a status for the program, a message for a person, and what is known beside: the error number, the causes,
 * who is using what was asked for, and what the program had written where it was cut off.
 */
typedef struct blink_error blink_error;

/**
 * A file of a sandbox that is read bit by bit.
 */
typedef struct blink_file_reader blink_file_reader;

/**
 * A file of a sandbox that is written bit by bit. It changes when that is finished.
 */
typedef struct blink_file_writer blink_file_writer;

/**
 * The files of a sandbox. Paths are absolute. What is transferred arrives whole, or not at all.
 */
typedef struct blink_files blink_files;

/**
 * A list of images, as they were when it was made.
 */
typedef struct blink_image_list blink_image_list;

/**
 * Where a session comes from, and the tree of its checkpoints. It never changes.
 */
typedef struct blink_lineage blink_lineage;

/**
 * The captured result of a program: what it wrote, byte for byte, and how it ended. It never changes.
 */
typedef struct blink_output blink_output;

/**
 * Sandboxes that are booted before they are asked for: a pool of this process, or one that another keeps.
 */
typedef struct blink_pool blink_pool;

/**
 * A program that runs in a sandbox. Its output holds it back when nobody takes it: read both streams, or discard them.
 */
typedef struct blink_process blink_process;

/**
 * A list of processes. It never changes.
 */
typedef struct blink_process_list blink_process_list;

/**
 * What was kept of a process's output when it was asked for: at most the last MiB of each stream. It never changes.
 */
typedef struct blink_process_logs blink_process_logs;

/**
 * The processes of a session that runs. Whoever has the session goes on, and keeps it.
 */
typedef struct blink_processes blink_processes;

/**
 * What works on this machine, as it was tried. It never changes.
 */
typedef struct blink_report blink_report;

/**
 * A sandbox: an isolated environment with processes, files and a disk of its own.
 */
typedef struct blink_sandbox blink_sandbox;

/**
 * A named sandbox that outlives the process. Threads and, in a namespace, processes can have one open at once, and use the
 * same sandbox.
 */
typedef struct blink_session blink_session;

/**
 * A list of sessions, as they were when it was made.
 */
typedef struct blink_session_list blink_session_list;

/**
 * A list of strings. It never changes.
 */
typedef struct blink_strings blink_strings;

/**
 * How far an export or an import is.
 */
typedef struct blink_transfer {
  /**
   * sizeof(blink_transfer), as the library knows it.
   */
  size_t size;
  /**
   * Bytes that are done.
   */
  uint64_t bytes_done;
  /**
   * Bytes of all; 0 if that is not known before the end.
   */
  uint64_t bytes_total;
} blink_transfer;

/**
 * Is told how far an export or an import is, after every few MiB and at the end, on the thread that made the call and while
 * that waits. It may call any function of this library, also to cancel the call. It must return: no longjmp, no C++
 * exception.
 *
 * @param transfer   There until the callback returns.
 * @param user_data  What was given with the callback.
 */
typedef void (*blink_transfer_callback)(const struct blink_transfer *transfer,
                                        void *user_data);

/**
 * What of a session to export. Everything is borrowed for the call that it is given to.
 */
typedef struct blink_export_options {
  /**
   * sizeof(blink_export_options), set by blink_export_options_init().
   */
  size_t size;
  /**
   * The checkpoint whose disk it is. NULL: the disk as it is now.
   */
  const char *checkpoint;
  /**
   * Is told how much of the disk was read; how much it will be is not known before. NULL: nobody.
   */
  blink_transfer_callback transfer;
  /**
   * Given to the callback.
   */
  void *transfer_data;
} blink_export_options;

/**
 * A file or folder of the host that a sandbox sees. It never grows.
 */
typedef struct blink_mount {
  /**
   * What the sandbox sees. Of a micro-VM, nothing that has Blink's home in it.
   */
  const char *host;
  /**
   * Where it sees it.
   */
  const char *guest;
  /**
   * 1: it may not change it.
   */
  uint32_t read_only;
  /**
   * Always 0.
   */
  uint32_t reserved;
} blink_mount;

/**
 * A port inside a sandbox that programs of the host reach. It never grows.
 */
typedef struct blink_port {
  /**
   * The host's IP address to listen at. NULL: its loopback, 127.0.0.1, which only programs of this machine reach.
   */
  const char *address;
  /**
   * The host's port; 0 is any that is free, which blink_sandbox_published_port() tells.
   */
  uint16_t host_port;
  /**
   * The TCP port inside the sandbox.
   */
  uint16_t guest_port;
  /**
   * Always 0.
   */
  uint32_t reserved;
} blink_port;

/**
 * How far an image is.
 */
typedef struct blink_progress {
  /**
   * sizeof(blink_progress), as the library knows it.
   */
  size_t size;
  /**
   * What is being done: a blink_step, or a number of a later version.
   */
  int32_t step;
  /**
   * The layer being unpacked, from 1; or the number of layers that are downloaded.
   */
  uint32_t layer;
  /**
   * Number of layers.
   */
  uint32_t layers;
  /**
   * Always 0.
   */
  uint32_t reserved;
  /**
   * Bytes of layers that are done, as they are stored.
   */
  uint64_t bytes_done;
  /**
   * Bytes of all layers.
   */
  uint64_t bytes_total;
} blink_progress;

/**
 * Is told how far an image is, some ten times a second, on the thread that made the call and while that waits. It may
 * call any function of this library, also to cancel the call. It must return: no longjmp, no C++ exception.
 *
 * @param progress   There until the callback returns.
 * @param user_data  What was given with the callback.
 */
typedef void (*blink_progress_callback)(const struct blink_progress *progress,
                                        void *user_data);

/**
 * A sandbox to make. Everything is borrowed for the call that it is given to.
 */
typedef struct blink_sandbox_options {
  /**
   * sizeof(blink_sandbox_options), set by blink_sandbox_options_init().
   */
  size_t size;
  /**
   * Where its root file system comes from: "host" (this machine's own programs, read-only), a registry's reference, a
   * folder in OCI layout, a tar of one or of `docker save`. NULL: "host".
   */
  const char *image;
  /**
   * A blink_isolation; BLINK_ISOLATION_DEFAULT by default.
   */
  int32_t isolation;
  /**
   * A blink_network; BLINK_NETWORK_NONE by default.
   */
  int32_t network;
  /**
   * The hosts of BLINK_NETWORK_HOSTS: names, "*.name", IPv4 addresses, networks such as "10.1.0.0/16".
   */
  const char *const *hosts;
  /**
   * How many they are.
   */
  size_t hosts_count;
  /**
   * Processors that it may use. 0: all of the host's for namespaces; two, or half of the host's, for a micro-VM.
   */
  double cpus;
  /**
   * Memory that it may use, in MiB. 0: half of the host's for namespaces, 2048 for a micro-VM.
   */
  uint64_t memory_mib;
  /**
   * What it may write, in MiB. 0: 10 GiB.
   */
  uint64_t disk_mib;
  /**
   * Processes and threads that it may have at once. 0: 1024.
   */
  uint64_t processes;
  /**
   * What it sees of the host.
   */
  const struct blink_mount *mounts;
  /**
   * How many they are.
   */
  size_t mounts_count;
  /**
   * Its ports that programs of the host reach.
   */
  const struct blink_port *ports;
  /**
   * How many they are.
   */
  size_t ports_count;
  /**
   * Environment variables for all its programs as "NAME=VALUE", over the image's.
   */
  const char *const *env;
  /**
   * How many they are.
   */
  size_t env_count;
  /**
   * The folder in which its programs run unless told otherwise. NULL: the image's.
   */
  const char *current_dir;
  /**
   * The user that its programs run as unless told otherwise. NULL: the image's.
   */
  const char *user;
  /**
   * How long its boot may take, in milliseconds. 0: what `BLINK_BOOT_TIMEOUT` says in seconds, or 30 s.
   */
  uint64_t boot_timeout_ms;
  /**
   * 1: it goes on when this process ends, until it is removed; not for sessions. 0 by default.
   */
  uint32_t detached;
  /**
   * Always 0.
   */
  uint32_t reserved;
  /**
   * Is told how far the image is. NULL: nobody.
   */
  blink_progress_callback progress;
  /**
   * Given to the callback.
   */
  void *progress_data;
  /**
   * What `/dev/shm` may hold of the memory, in MiB. 0: half of it.
   */
  uint64_t shared_memory_mib;
  /**
   * Its host name: letters, digits, hyphens and dots, 64 at most. NULL: its id.
   */
  const char *hostname;
  /**
   * Makes a repeated blink_sandbox_create() harmless: while what a key has made is there, nothing else is made with it, for
   * 24 h, also after a crash of this process. A detached sandbox is opened again; one that somebody has is BUSY. 256 bytes
   * at most. NULL: none.
   */
  const char *key;
} blink_sandbox_options;

/**
 * A session to open, or to create if there is none. Everything is borrowed for the call that it is given to.
 *
 * What is said of its sandbox is for a session that is made. One that is there has what it was made with, and is not opened
 * with anything else: BLINK_STATUS_INVALID_ARGUMENT shows the difference.
 */
typedef struct blink_session_options {
  /**
   * sizeof(blink_session_options), set by blink_session_options_init().
   */
  size_t size;
  /**
   * Its sandbox. NULL is the defaults. It cannot be detached: see warm.
   */
  const struct blink_sandbox_options *sandbox;
  /**
   * Labels for its owner's own use, as "NAME=VALUE" in UTF-8.
   */
  const char *const *labels;
  /**
   * How many they are.
   */
  size_t labels_count;
  /**
   * Milliseconds without a call, a process or a reader after which its sandbox is stopped; it starts again with the next
   * call. 0: never, the default.
   */
  uint64_t idle_stop_ms;
  /**
   * Milliseconds for which another process that has the session is waited for; 10,000 by default, 0 does not wait.
   */
  uint64_t patience_ms;
  /**
   * 1: its sandbox goes on when its host process ends; the next one finds its processes. 0 by default.
   */
  uint32_t warm;
  /**
   * Always 0.
   */
  uint32_t reserved;
  /**
   * Is told how far blink_session_import() is with the archive; nothing else uses it. NULL: nobody.
   */
  blink_transfer_callback transfer;
  /**
   * Given to the callback.
   */
  void *transfer_data;
} blink_session_options;

/**
 * How to open Blink. Everything is borrowed for the call.
 */
typedef struct blink_options {
  /**
   * sizeof(blink_options), set by blink_options_init().
   */
  size_t size;
  /**
   * The folder for everything that Blink keeps. NULL: BLINK_HOME of the environment, or ~/.blink.
   */
  const char *home;
  /**
   * A blink_isolation: that of sandboxes that do not say. BLINK_ISOLATION_DEFAULT by default.
   */
  int32_t isolation;
  /**
   * 1: the network is never used; images are those that are stored, and those of folders and files. 0 by default.
   */
  uint32_t offline;
  /**
   * Mirrors that are asked before a registry, as "REGISTRY=URL".
   */
  const char *const *mirrors;
  /**
   * How many they are.
   */
  size_t mirrors_count;
  /**
   * Registries that are talked to over plain HTTP, as "HOST[:PORT]".
   */
  const char *const *insecure_registries;
  /**
   * How many they are.
   */
  size_t insecure_registries_count;
  /**
   * A file in PEM with certificate authorities to trust besides this machine's. NULL: none.
   */
  const char *registry_ca;
  /**
   * Logins for registries, as "REGISTRY=USER:PASSWORD". Others are those of `docker login`.
   */
  const char *const *credentials;
  /**
   * How many they are.
   */
  size_t credentials_count;
  /**
   * A file to take logins from instead of docker's own config.json. NULL: none.
   */
  const char *docker_config;
  /**
   * Bytes that the layers of an image may have together, as they are stored and as they are unpacked. 0: 16 GiB.
   */
  uint64_t image_limit_bytes;
} blink_options;

/**
 * A program to run in a sandbox. It is started directly, without a shell: arguments arrive as they are. Everything is
 * borrowed for the call that it is given to.
 */
typedef struct blink_command {
  /**
   * sizeof(blink_command), set by blink_command_init().
   */
  size_t size;
  /**
   * The program and its arguments. A program without a slash is looked up in the sandbox's PATH.
   */
  const char *const *argv;
  /**
   * How many they are; at least 1, unless there is code.
   */
  size_t argv_count;
  /**
   * Environment variables as "NAME=VALUE", over the sandbox's own.
   */
  const char *const *env;
  /**
   * How many they are.
   */
  size_t env_count;
  /**
   * The folder of the sandbox to run in. NULL: the sandbox's, the image's or the user's.
   */
  const char *current_dir;
  /**
   * The user of the sandbox to run as: "name", "id", "name:group" or "id:id". NULL: the sandbox's.
   */
  const char *user;
  /**
   * What it reads from standard input, before the end. NULL: nothing.
   */
  const uint8_t *stdin_data;
  /**
   * How many bytes they are.
   */
  size_t stdin_length;
  /**
   * 1: its standard input is what blink_process_write() writes; only for programs that are spawned. 0 by default.
   */
  uint32_t stdin_piped;
  /**
   * 1: it has a terminal of the size below; its output is then all standard output. 0 by default.
   */
  uint32_t pty;
  /**
   * The terminal's rows and columns; 24 and 80 by default.
   */
  uint16_t pty_rows;
  /**
   * See pty_rows.
   */
  uint16_t pty_cols;
  /**
   * Always 0.
   */
  uint32_t reserved;
  /**
   * Milliseconds after which it is killed with everything that it has started. 0: no limit, the default.
   */
  uint64_t timeout_ms;
  /**
   * Bytes of each output stream that are captured: the first ones. 16 MiB by default.
   */
  uint64_t output_limit_bytes;
  /**
   * Makes a repeated spawn harmless: a second one with the same key attaches to the first one's process. NULL: none.
   */
  const char *key;
  /**
   * Code for an interpreter of the sandbox to run, instead of argv: at most 128 KiB. NULL: none.
   */
  const char *code;
  /**
   * The code's language: "python", "javascript", "ruby", "perl", "sh" or "bash".
   */
  const char *language;
} blink_command;

/**
 * What was found out about one isolation. Its strings belong to the report.
 */
typedef struct blink_check {
  /**
   * sizeof(blink_check), set by blink_check_init().
   */
  size_t size;
  /**
   * "microvm" or "namespace".
   */
  const char *isolation;
  /**
   * Why it does not work, and how to fix it; NULL if it works.
   */
  const char *problem;
  /**
   * Microseconds that the trial took, from nothing to a program's result.
   */
  uint64_t elapsed_us;
} blink_check;

/**
 * The description of a file. Its strings belong to the list that it is from.
 */
typedef struct blink_file_info {
  /**
   * sizeof(blink_file_info), set by blink_file_info_init().
   */
  size_t size;
  /**
   * Its name in its folder: any bytes but NUL and "/".
   */
  const char *name;
  /**
   * Where a symbolic link points; otherwise NULL.
   */
  const char *target;
  /**
   * A blink_file_type.
   */
  int32_t file_type;
  /**
   * Its permission bits.
   */
  uint32_t mode;
  /**
   * The user that owns it, as the sandbox numbers users.
   */
  uint32_t uid;
  /**
   * Its group.
   */
  uint32_t gid;
  /**
   * Its size in bytes.
   */
  uint64_t size_bytes;
  /**
   * When it was last changed, in milliseconds since 1970; negative before.
   */
  int64_t modified_ms;
} blink_file_info;

/**
 * How a program ended.
 */
typedef struct blink_exit {
  /**
   * sizeof(blink_exit), set by blink_exit_init().
   */
  size_t size;
  /**
   * Its exit code; 128 and the signal's number if a signal ended it, as shells report it. 127 if there is no
   * such program, 126 if it may not be executed.
   */
  int32_t code;
  /**
   * The signal that ended it; 0 if none did.
   */
  int32_t signal;
  /**
   * 1 if its time was over, and it was killed with everything that it had started.
   */
  uint32_t timed_out;
  /**
   * Always 0.
   */
  uint32_t reserved;
  /**
   * "memory" or "disk" if it was killed because the sandbox was over that limit; otherwise NULL. A static string.
   */
  const char *over_limit;
  /**
   * Why it could not be started, if the code is 126 or 127 for that reason; otherwise NULL. It belongs to the
   * object that was asked, and is there until that is freed.
   */
  const char *reason;
  /**
   * Microseconds from its start to its end.
   */
  uint64_t duration_us;
} blink_exit;

/**
 * How to write a file.
 */
typedef struct blink_write_options {
  /**
   * sizeof(blink_write_options), set by blink_write_options_init().
   */
  size_t size;
  /**
   * Its permission bits, such as 0755. 0: an existing file keeps its own, and a new one gets 0644.
   */
  uint32_t mode;
  /**
   * 1: append to the file instead of replacing it. 0 by default.
   */
  uint32_t append;
  /**
   * Who owns it: a user of the sandbox, by name or id. NULL: an existing file keeps its owner, and a new one belongs to the
   * user of the handle.
   */
  const char *user;
} blink_write_options;

/**
 * An image in the store. Its strings belong to the list that it is from; where blink_image_pull() has filled it in, they are
 * its own until blink_image_dispose().
 */
typedef struct blink_image {
  /**
   * sizeof(blink_image), set by blink_image_init().
   */
  size_t size;
  /**
   * The name that it was pulled by, in full; NULL if it came from a file or folder, or its name has moved on.
   */
  const char *reference;
  /**
   * Its manifest's digest, as "sha256:…".
   */
  const char *digest;
  /**
   * Bytes that it is stored as, some of which other images may share.
   */
  uint64_t size_bytes;
  /**
   * When it was fetched last, in milliseconds since 1970.
   */
  int64_t pulled_ms;
  /**
   * When it was used last, in milliseconds since 1970, to the hour.
   */
  int64_t used_ms;
  /**
   * What blink_image_dispose() frees; NULL in what a list has filled in.
   */
  struct blink_image_list *owner;
} blink_image;

/**
 * A named state of a session's disk, which never changes. Its strings belong to the lineage that it is from.
 */
typedef struct blink_checkpoint {
  /**
   * sizeof(blink_checkpoint), set by blink_checkpoint_init().
   */
  size_t size;
  /**
   * Names it in its session.
   */
  const char *name;
  /**
   * The checkpoint that the session's disk was at before; NULL if there is none.
   */
  const char *parent;
  /**
   * What it occupies beyond the layers beneath it.
   */
  uint64_t size_bytes;
  /**
   * When it was made, in milliseconds since 1970, to the second.
   */
  int64_t created_ms;
  /**
   * A blink_consistency.
   */
  int32_t consistency;
  /**
   * Always 0.
   */
  uint32_t reserved;
} blink_checkpoint;

/**
 * Is told what Blink has to say, on whichever thread says it, several at once. It must return soon: no longjmp, no C++
 * exception. It may call functions of this library that do not wait; those that do fail on Blink's own threads.
 *
 * @param level      A blink_log_level.
 * @param message    Text in UTF-8, there until the callback returns.
 * @param user_data  What was given with the callback.
 */
typedef void (*blink_log_callback)(int32_t level,
                                   const char *message,
                                   void *user_data);

/**
 * A pool to make. Everything is borrowed for the call that it is given to.
 */
typedef struct blink_pool_options {
  /**
   * sizeof(blink_pool_options), set by blink_pool_options_init().
   */
  size_t size;
  /**
   * What each of its sandboxes is. NULL is the defaults. Ports, a host name and `detached` are not a pool's.
   */
  const struct blink_sandbox_options *sandbox;
  /**
   * Its name, in statistics and errors. NULL: none.
   */
  const char *name;
  /**
   * Sandboxes that are ready at any time; 1 by default.
   */
  size_t ready;
  /**
   * Sandboxes in all: those that are ready, boot, or were claimed and are not gone. 0: `ready` and 64 more.
   */
  size_t max;
  /**
   * Sandboxes that boot at once while no claim waits. 0: half of the host's processors.
   */
  size_t refill;
  /**
   * Milliseconds after its boot for which a sandbox waits until it is replaced. 0: no limit.
   */
  uint64_t max_age_ms;
  /**
   * Milliseconds without a claim after which no sandbox is kept ready, until the next claim. 0: no limit.
   */
  uint64_t max_idle_ms;
  /**
   * Milliseconds that a command of `warmup` or `prepare` may take that has no timeout. 0: 5 minutes.
   */
  uint64_t warmup_timeout_ms;
  /**
   * Commands that run once, when the pool is made. All its sandboxes share the disk that they leave.
   */
  const struct blink_command *warmup;
  /**
   * How many they are.
   */
  size_t warmup_count;
  /**
   * Commands that run in each sandbox before it is ready.
   */
  const struct blink_command *prepare;
  /**
   * How many they are.
   */
  size_t prepare_count;
  /**
   * Programs that are started in each sandbox, and go on. One in which such a program has ended is replaced.
   */
  const struct blink_command *start;
  /**
   * How many they are.
   */
  size_t start_count;
  /**
   * Languages whose interpreter is started in each sandbox and waits for the first code of a claimant: "python".
   */
  const char *const *interpreters;
  /**
   * How many they are.
   */
  size_t interpreters_count;
  /**
   * 1: other processes of the home can claim from it by its name, with blink_pool_open(); it needs namespaces. 0 by default.
   */
  uint32_t shared;
  /**
   * 1: a claim waits for the next sandbox if none is ready. 0, the default: it boots one, and fails if that does.
   */
  uint32_t waits;
  /**
   * 1: the number of sandboxes stays the same: a released one is reset, and only then claimed again. 0 by default.
   */
  uint32_t resets;
  /**
   * Always 0.
   */
  uint32_t reserved;
} blink_pool_options;

/**
 * What a claimed sandbox is beside what its pool's are. Everything is borrowed for the call that it is given to.
 */
typedef struct blink_claim_options {
  /**
   * sizeof(blink_claim_options), set by blink_claim_options_init().
   */
  size_t size;
  /**
   * Of which env, hostname, memory_mib (no more than the pool's), network, hosts and ports can be said. NULL: nothing.
   */
  const struct blink_sandbox_options *sandbox;
  /**
   * Labels as "NAME=VALUE" in UTF-8, which a session keeps.
   */
  const char *const *labels;
  /**
   * How many they are.
   */
  size_t labels_count;
  /**
   * Milliseconds that a sandbox is waited for; 60,000 by default, 0 does not wait.
   */
  uint64_t timeout_ms;
  /**
   * Makes a repeated claim harmless: while what a key has claimed is there, nothing else is claimed with it, for 24 h, also
   * after a crash of this process. A session is opened again; a sandbox that somebody has is BUSY. 256 bytes at most. NULL:
   * none.
   */
  const char *key;
} blink_claim_options;

/**
 * How long something took, each time that it was done. It never grows.
 */
typedef struct blink_latency {
  /**
   * How often it was done.
   */
  uint64_t count;
  /**
   * All of them together, in microseconds.
   */
  uint64_t sum_us;
  /**
   * Half of them took no longer, in microseconds.
   */
  uint64_t p50_us;
  /**
   * 95 of 100 took no longer, in microseconds.
   */
  uint64_t p95_us;
  /**
   * 99 of 100 took no longer, in microseconds.
   */
  uint64_t p99_us;
  /**
   * The longest, in microseconds.
   */
  uint64_t max_us;
} blink_latency;

/**
 * What has happened in a pool, and what it has now.
 */
typedef struct blink_pool_stats {
  /**
   * sizeof(blink_pool_stats), set by blink_pool_stats_init().
   */
  size_t size;
  /**
   * How many sandboxes are to be ready.
   */
  size_t ready;
  /**
   * How many there may be in all.
   */
  size_t max;
  /**
   * Those that are ready.
   */
  size_t idle;
  /**
   * Those that boot.
   */
  size_t booting;
  /**
   * Those that were claimed and are not gone, and those that are being removed.
   */
  size_t claimed;
  /**
   * Claims that wait for a sandbox.
   */
  size_t waiting;
  /**
   * Claims that found a sandbox ready.
   */
  uint64_t hits;
  /**
   * Claims that waited for one.
   */
  uint64_t misses;
  /**
   * Claims that failed.
   */
  uint64_t failed_claims;
  /**
   * Boots that succeeded.
   */
  uint64_t boots;
  /**
   * Boots that failed.
   */
  uint64_t failed_boots;
  /**
   * Boots that were not begun for want of memory.
   */
  uint64_t refused;
  /**
   * Sandboxes that died before they were claimed.
   */
  uint64_t deaths;
  /**
   * Sandboxes that were too old, or not needed.
   */
  uint64_t retired;
  /**
   * Sandboxes that were reset.
   */
  uint64_t resets;
  /**
   * From a claim to its sandbox.
   */
  struct blink_latency claim;
  /**
   * From the beginning of a boot until its sandbox is ready.
   */
  struct blink_latency boot;
  /**
   * From a sandbox's end until nothing of it is left.
   */
  struct blink_latency removal;
} blink_pool_stats;

/**
 * A process in a list. Its strings belong to the list.
 */
typedef struct blink_process_info {
  /**
   * sizeof(blink_process_info), set by blink_process_info_init().
   */
  size_t size;
  /**
   * Names it: blink_sandbox_attach() takes it.
   */
  uint64_t id;
  /**
   * Its number among the sandbox's processes.
   */
  uint32_t pid;
  /**
   * 1 if it has a terminal.
   */
  uint32_t pty;
  /**
   * The program and its arguments, with NULL behind.
   */
  const char *const *argv;
  /**
   * How many they are.
   */
  size_t argv_count;
  /**
   * Bytes of standard output so far.
   */
  uint64_t stdout_bytes;
  /**
   * Bytes of standard error so far.
   */
  uint64_t stderr_bytes;
  /**
   * The key that it was spawned with; NULL if there was none.
   */
  const char *key;
  /**
   * 1 if it has ended; then blink_process_list_exit() tells how.
   */
  uint32_t ended;
  /**
   * Always 0.
   */
  uint32_t reserved;
} blink_process_info;

/**
 * A session. Its strings and arrays belong to the list that it is from; where blink_session_info_get() or
 * blink_session_info_find() has filled it in, they are its own until blink_session_info_dispose().
 */
typedef struct blink_session_info {
  /**
   * sizeof(blink_session_info), set by blink_session_info_init().
   */
  size_t size;
  /**
   * Names it in its home.
   */
  const char *name;
  /**
   * Stays the same when it is renamed.
   */
  const char *id;
  /**
   * The isolation that it has each time that it runs: "microvm" or "namespace".
   */
  const char *isolation;
  /**
   * What it was made from.
   */
  const char *image;
  /**
   * The session that it was forked from, as "session" or "session@checkpoint"; NULL if it was not.
   */
  const char *forked_from;
  /**
   * The checkpoint that its disk was last at; NULL if there is none.
   */
  const char *checkpoint;
  /**
   * 1 if its sandbox runs.
   */
  uint32_t running;
  /**
   * 1 if its sandbox goes on when its host process ends.
   */
  uint32_t warm;
  /**
   * When it was made, in milliseconds since 1970.
   */
  int64_t created_ms;
  /**
   * What its disk occupies beyond its checkpoints.
   */
  uint64_t disk_bytes;
  /**
   * Its labels, each as "NAME=VALUE"; NULL if it has none.
   */
  const char *const *labels;
  /**
   * How many they are.
   */
  size_t labels_count;
  /**
   * Processors that it may use; 0 if that was not said.
   */
  double cpus;
  /**
   * Memory that it may use, in MiB; 0 if that was not said.
   */
  uint64_t memory_mib;
  /**
   * What it may write, in MiB.
   */
  uint64_t disk_mib;
  /**
   * Processes and threads that it may have at once.
   */
  uint64_t processes;
  /**
   * Milliseconds without use after which its machine is stopped; 0: never.
   */
  uint64_t idle_stop_ms;
  /**
   * A blink_network: what it can reach.
   */
  int32_t network;
  /**
   * Always 0.
   */
  uint32_t reserved;
  /**
   * The hosts of BLINK_NETWORK_HOSTS; NULL if there are none.
   */
  const char *const *hosts;
  /**
   * How many they are.
   */
  size_t hosts_count;
  /**
   * What it sees of the host; NULL if that is nothing.
   */
  const struct blink_mount *mounts;
  /**
   * How many they are.
   */
  size_t mounts_count;
  /**
   * Its ports that programs of the host reach, as they were asked for: port 0 of the host is any that is free each time
   * that it runs, which blink_sandbox_published_port() tells. NULL if there are none.
   */
  const struct blink_port *ports;
  /**
   * How many they are.
   */
  size_t ports_count;
  /**
   * What blink_session_info_dispose() frees; NULL in what a list has filled in.
   */
  struct blink_session_list *owner;
} blink_session_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Sets options to their defaults.
 *
 * @param options  Written.
 * @param size     sizeof(blink_export_options).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_export_options_init(struct blink_export_options *options,
                                       size_t size);

/**
 * Writes a session's disk to one file, from which blink_session_import() makes a session, also on another machine. A session
 * that runs goes on; the file holds its disk of one moment. With it go the session's image by its name, resources,
 * environment, working directory, user and labels; not its mounts, network and ports.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param archive  The path on the host of the file to write.
 * @param options  Borrowed. NULL is the defaults.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. The file may be there afterwards.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND if there is no such checkpoint; RESOURCE_EXHAUSTED for a full disk, with nothing
 *         left behind; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_session_export(const struct blink_session *session,
                                  const char *archive,
                                  const struct blink_export_options *options,
                                  const struct blink_cancel *cancel,
                                  struct blink_error **err);

/**
 * Writes a session's disk as an image, from which sandboxes and sessions of either isolation are made, and which other
 * programs read: a folder in OCI layout, or a tar of one where the path ends in ".tar". A session that runs goes on.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param path     The path on the host of the folder or tar to write. A tar that is there is replaced; nothing else is.
 * @param options  Borrowed. NULL is the defaults.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. The image may be there afterwards.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); UNSUPPORTED for a session of the image "host", whose programs are this machine's;
 *         INVALID_ARGUMENT if there is something at the path already; otherwise as blink_session_export().
 */
blink_status blink_session_export_oci(const struct blink_session *session,
                                      const char *path,
                                      const struct blink_export_options *options,
                                      const struct blink_cancel *cancel,
                                      struct blink_error **err);

/**
 * Makes a session whose disk is read from an archive that blink_session_export() has written. It is not started. The archive
 * may be anybody's: what the options say holds, otherwise it gets no more than the defaults, and its image must be stored.
 *
 * @param blink    Borrowed. May be used from several threads at once.
 * @param name     Its name.
 * @param archive  The archive's path on the host.
 * @param options  Borrowed. NULL is the defaults.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. The session may be there afterwards.
 * @param out      Set on success; free with blink_session_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); ALREADY_EXISTS; CORRUPT if it is not a complete archive; UNSUPPORTED if a later version wrote it,
 *         with nothing left behind; otherwise as blink_session_open().
 */
blink_status blink_session_import(const struct blink *blink,
                                  const char *name,
                                  const char *archive,
                                  const struct blink_session_options *options,
                                  const struct blink_cancel *cancel,
                                  struct blink_session **out,
                                  struct blink_error **err);

/**
 * Sets options to their defaults.
 *
 * @param options  Written.
 * @param size     sizeof(blink_options).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_options_init(struct blink_options *options,
                                size_t size);

/**
 * Opens Blink: its home, and up to 8 threads that all its calls share. What processes that are gone have left in the home
 * is removed. Several may be open at once, also of one home.
 *
 * @param options  Borrowed. NULL is the defaults.
 * @param out      Set on success; close with blink_close(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for options that cannot be right, an empty home too; NOT_FOUND, NOT_A_DIRECTORY,
 *         NAME_TOO_LONG and what else a folder meets where the home cannot be made; RESOURCE_EXHAUSTED.
 */
blink_status blink_open(const struct blink_options *options,
                        struct blink **out,
                        struct blink_error **err);

/**
 * Closes Blink. What was made from it stays good until it is freed; the threads end with the last of it, which may wait
 * up to a minute for what was cancelled and is being undone. Two threads may close at once: the second does nothing.
 *
 * @param blink  Taken. NULL does nothing.
 */
void blink_close(struct blink *blink);

/**
 * Runs one command in a sandbox of its own, which is gone afterwards. A command that exits with another code than 0, or
 * is killed when its time is over, is no failure: the output says so.
 *
 * @param blink    Borrowed. May be used from several threads at once.
 * @param options  The sandbox's. Borrowed; NULL is the defaults. It cannot be detached.
 * @param command  Borrowed.
 * @param cancel   Borrowed. NULL: it cannot be cancelled.
 * @param out      Set on success; free with blink_output_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or as blink_sandbox_create() and blink_sandbox_exec().
 */
blink_status blink_run(const struct blink *blink,
                       const struct blink_sandbox_options *options,
                       const struct blink_command *command,
                       const struct blink_cancel *cancel,
                       struct blink_output **out,
                       struct blink_error **err);

/**
 * Where the bytes are; they do not end with NUL.
 *
 * @param bytes   Borrowed. May be used from several threads at once.
 * @return There until they are freed. NULL if there are none, and for an invalid handle.
 */
const uint8_t *blink_bytes_data(const struct blink_bytes *bytes);

/**
 * How many bytes there are.
 *
 * @param bytes  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
size_t blink_bytes_length(const struct blink_bytes *bytes);

/**
 * Frees bytes.
 *
 * @param bytes  Taken. NULL does nothing.
 */
void blink_bytes_free(struct blink_bytes *bytes);

/**
 * Makes something to cancel calls with.
 *
 * @return Free with blink_cancel_free(). NULL only if memory is short.
 */
struct blink_cancel *blink_cancel_new(void);

/**
 * Makes something to cancel calls with that cancels by itself after a time, so that all calls that it is given to have to end by then.
 * blink_cancel_now() cancels it earlier.
 *
 * @param timeout_ms  Milliseconds from now on; 0 cancels at once.
 * @return Free with blink_cancel_free(). NULL only if memory is short.
 */
struct blink_cancel *blink_cancel_after(uint64_t timeout_ms);

/**
 * Cancels all calls that it was given to, and all that it is given to later: they return BLINK_STATUS_CANCELLED soon.
 * Does not wait for them. A command that is cancelled is killed with everything that it has started; a change that has
 * begun, such as a checkpoint, is finished or undone behind the caller's back, never left half-way.
 *
 * Not for signal handlers, where it may wait for the very thread that it interrupts: see blink_cancel_fd().
 *
 * @param cancel  Borrowed. May be used from several threads at once, and while calls use it. NULL, a freed one and that of
 *                a process which this one was forked from do nothing.
 */
void blink_cancel_now(const struct blink_cancel *cancel);

/**
 * A file descriptor that cancels when it is written to: what a signal handler may do, where no function of this library may
 * be called. Ask for it before the handler is installed; the handler then writes 8 bytes, any number but 0:
 *
 *     static const uint64_t one = 1;
 *     write(fd, &one, sizeof one);
 *
 * Calls that it is given to watch it with a descriptor of their own, and are BLINK_STATUS_RESOURCE_EXHAUSTED where there is none.
 * Writing never blocks, and the descriptor is readable once blink_cancel_now() was called, it was
 * written to, or a call has ended because the time of blink_cancel_after() was over. Do not read from it.
 *
 * @param cancel  Borrowed. May be used from several threads at once.
 * @param fd      Set to the descriptor, which is there until the blink_cancel is freed, and not inherited by programs that are
 *                started. -1 on failure. Remove the handler before the blink_cancel is freed: its number may then name
 *                another file.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; RESOURCE_EXHAUSTED if there are no more descriptors; UNSUPPORTED in a child
 *         process.
 */
blink_status blink_cancel_fd(const struct blink_cancel *cancel,
                             int32_t *fd,
                             struct blink_error **err);

/**
 * Frees it. Calls that it was given to go on, and can be cancelled no more.
 *
 * @param cancel  Taken. NULL does nothing.
 */
void blink_cancel_free(struct blink_cancel *cancel);

/**
 * Keeps a session's disk as it is now, under a name. A session that runs is held still for the moment that it takes.
 *
 * @param session         Borrowed. May be used from several threads at once.
 * @param name            The checkpoint's name.
 * @param require_frozen  Whether a copy that is worth less than BLINK_CONSISTENCY_FROZEN is refused.
 * @param consistency     Set to what it is worth, a blink_consistency. May be NULL.
 * @param cancel          Borrowed. NULL: it cannot be cancelled. The checkpoint may be there afterwards.
 * @param err             May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; ALREADY_EXISTS; RESOURCE_EXHAUSTED; SANDBOX_DIED; UNSUPPORTED or BUSY if
 *         a disk that must be frozen cannot be; CANCELLED.
 */
blink_status blink_session_checkpoint(const struct blink_session *session,
                                      const char *name,
                                      bool require_frozen,
                                      int32_t *consistency_out,
                                      const struct blink_cancel *cancel,
                                      struct blink_error **err);

/**
 * Puts a session's disk back to what it was at a checkpoint; what it holds now is lost. A session that runs is stopped for
 * that, and started again.
 *
 * @param session     Borrowed. May be used from several threads at once.
 * @param checkpoint  The checkpoint's name.
 * @param cancel      Borrowed. NULL: it cannot be cancelled. The disk may be put back all the same.
 * @param err         May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; otherwise as blink_session_start().
 */
blink_status blink_session_restore(const struct blink_session *session,
                                   const char *checkpoint,
                                   const struct blink_cancel *cancel,
                                   struct blink_error **err);

/**
 * Forgets a checkpoint. What others need of it stays until they are gone.
 *
 * @param session     Borrowed. May be used from several threads at once.
 * @param checkpoint  The checkpoint's name.
 * @param err         May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND.
 */
blink_status blink_session_remove_checkpoint(const struct blink_session *session,
                                             const char *checkpoint,
                                             struct blink_error **err);

/**
 * Where a session comes from, and the tree of its checkpoints.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param out      Set on success; free with blink_lineage_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); CORRUPT if the list of sessions is damaged.
 */
blink_status blink_session_lineage(const struct blink_session *session,
                                   struct blink_lineage **out,
                                   struct blink_error **err);

/**
 * As blink_session_lineage(), of a session by its name, whoever has it.
 *
 * @param blink  Borrowed. May be used from several threads at once.
 * @param name   The session's name.
 * @param out    Set on success; free with blink_lineage_free(). NULL on failure.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND.
 */
blink_status blink_lineage_of(const struct blink *blink,
                              const char *name,
                              struct blink_lineage **out,
                              struct blink_error **err);

/**
 * Makes a session that begins with this one's disk, and goes its own way: it has its own name, machine-id and host name. It is
 * not started.
 *
 * @param session     Borrowed. May be used from several threads at once.
 * @param checkpoint  The checkpoint to begin with. NULL: the disk as it is now.
 * @param name        The fork's name.
 * @param cancel      Borrowed. NULL: it cannot be cancelled. The fork may be there afterwards.
 * @param out         Set on success; free with blink_session_free(). NULL on failure.
 * @param err         May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; ALREADY_EXISTS; NOT_FOUND; RESOURCE_EXHAUSTED; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_session_fork(const struct blink_session *session,
                                const char *checkpoint,
                                const char *name,
                                const struct blink_cancel *cancel,
                                struct blink_session **out,
                                struct blink_error **err);

/**
 * Makes several forks at once, of the same state of this session's disk: all of them, or none. None is started.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param names    The forks' names.
 * @param count    How many they are.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. The forks may be there afterwards.
 * @param out      Room for `count` handles: all set on success, to be freed with blink_session_free(); all NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return As blink_session_fork().
 */
blink_status blink_session_fork_many(const struct blink_session *session,
                                     const char *const *names,
                                     size_t count,
                                     const struct blink_cancel *cancel,
                                     struct blink_session **out,
                                     struct blink_error **err);

/**
 * Sets a command to its defaults; name a program in argv, or give it code, before it is used.
 *
 * @param command  Written.
 * @param size     sizeof(blink_command).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_command_init(struct blink_command *command,
                                size_t size);

/**
 * Connects to a TCP port inside a sandbox, whatever its network.
 *
 * What comes of it is a connected stream socket, which blocks unless it is told otherwise, and is not inherited by programs
 * that are started. It behaves as a socket does: read(), write(), poll(), and shutdown() with SHUT_WR, which ends the one
 * direction for the peer; what was written before close() arrives. A write to a peer that has gone raises SIGPIPE: use
 * send() with MSG_NOSIGNAL. When the sandbox ends, or its handle is freed, the socket is at its end.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @param host     "localhost", or an IP address of the sandbox's.
 * @param port     The port.
 * @param cancel   Borrowed. NULL: it cannot be cancelled.
 * @param fd       Set to the socket, which is the caller's: close it with close(). -1 on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND if nothing answers; INVALID_ARGUMENT if it is not an address;
 *         RESOURCE_EXHAUSTED if there are no more descriptors; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_sandbox_connect_tcp(const struct blink_sandbox *sandbox,
                                       const char *host,
                                       uint16_t port,
                                       const struct blink_cancel *cancel,
                                       int32_t *fd,
                                       struct blink_error **err);

/**
 * Connects to a unix socket inside a sandbox, as blink_sandbox_connect_tcp().
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @param path     The socket's path in the sandbox, absolute.
 * @param cancel   Borrowed. NULL: it cannot be cancelled.
 * @param fd       Set to the socket, which is the caller's: close it with close(). -1 on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return As blink_sandbox_connect_tcp().
 */
blink_status blink_sandbox_connect_unix(const struct blink_sandbox *sandbox,
                                        const char *path,
                                        const struct blink_cancel *cancel,
                                        int32_t *fd,
                                        struct blink_error **err);

/**
 * Sets up a blink_check to be filled in.
 *
 * @param check  Written.
 * @param size   sizeof(blink_check).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_check_init(struct blink_check *check,
                              size_t size);

/**
 * Tries the hypervisor, and each isolation by running a program in a sandbox of its own. May take some 20 seconds.
 *
 * @param blink   Borrowed. May be used from several threads at once.
 * @param cancel  Borrowed. NULL: it cannot be cancelled.
 * @param out     Set on success; free with blink_report_free(). NULL on failure.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), even if nothing works; CANCELLED.
 */
blink_status blink_doctor(const struct blink *blink,
                          const struct blink_cancel *cancel,
                          struct blink_report **out,
                          struct blink_error **err);

/**
 * The number of isolations that were tried.
 *
 * @param report  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
size_t blink_report_count(const struct blink_report *report);

/**
 * What was found out about one isolation.
 *
 * @param report  Borrowed. May be used from several threads at once.
 * @param index   From 0, the strongest first.
 * @param check   Set up with blink_check_init(), and filled in. Its strings belong to the report.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_report_get(const struct blink_report *report,
                              size_t index,
                              struct blink_check *check,
                              struct blink_error **err);

/**
 * Why the host's hypervisor cannot run a kernel, and what to do about it.
 *
 * @param report  Borrowed. May be used from several threads at once.
 * @return It belongs to the report. NULL if the hypervisor can, or was not tried on this kind of processor.
 */
const char *blink_report_hypervisor_problem(const struct blink_report *report);

/**
 * Whether the hypervisor has run what a kernel runs.
 *
 * @param report  Borrowed. May be used from several threads at once.
 * @return false also if it was not tried, and for NULL or an invalid handle.
 */
bool blink_report_hypervisor_works(const struct blink_report *report);

/**
 * Whether Blink runs as root, and so gives sandboxes users of their own.
 *
 * @param report  Borrowed. May be used from several threads at once.
 * @return false for NULL or an invalid handle.
 */
bool blink_report_root(const struct blink_report *report);

/**
 * Whether control groups hold the limits of sandboxes; resource limits do otherwise, each process for itself.
 *
 * @param report  Borrowed. May be used from several threads at once.
 * @return false for NULL or an invalid handle.
 */
bool blink_report_control_groups(const struct blink_report *report);

/**
 * Frees a report with its strings.
 *
 * @param report  Taken. NULL does nothing.
 */
void blink_report_free(struct blink_report *report);

/**
 * Sets up a blink_file_info to be filled in.
 *
 * @param info  Written.
 * @param size  sizeof(blink_file_info).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_file_info_init(struct blink_file_info *info,
                                  size_t size);

/**
 * The number of entries of a folder.
 *
 * @param entries  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
size_t blink_entries_count(const struct blink_entries *entries);

/**
 * An entry of a folder.
 *
 * @param entries  Borrowed. May be used from several threads at once.
 * @param index    From 0.
 * @param info     Set up with blink_file_info_init(), and filled in. Its strings belong to the list.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_entries_get(const struct blink_entries *entries,
                               size_t index,
                               struct blink_file_info *info,
                               struct blink_error **err);

/**
 * Frees a list with its strings.
 *
 * @param entries  Taken. NULL does nothing.
 */
void blink_entries_free(struct blink_entries *entries);

/**
 * Says what the caller can do about an error.
 *
 * @param error  Borrowed. May be used from several threads at once.
 * @return The status that the call has returned; BLINK_STATUS_INVALID_ARGUMENT for NULL or an invalid handle.
 */
blink_status blink_error_status(const struct blink_error *error);

/**
 * What was tried, what went wrong, and what to do.
 *
 * @param error  Borrowed. May be used from several threads at once.
 * @return Text in UTF-8, valid until the error is freed. "" for NULL or an invalid handle.
 */
const char *blink_error_message(const struct blink_error *error);

/**
 * The error number of the system call that failed, in the sandbox or on the host, as in <errno.h> of Linux.
 *
 * @param error  Borrowed. May be used from several threads at once.
 * @return Such as ENOSPC or EISDIR. 0 if no system call failed, for NULL or an invalid handle.
 */
int blink_error_errno(const struct blink_error *error);

/**
 * Whether the same call may succeed later without anyone changing anything.
 *
 * @param error  Borrowed. May be used from several threads at once.
 * @return true if something was in use, or a registry could not be reached. false for NULL or an invalid handle.
 */
bool blink_error_is_retryable(const struct blink_error *error);

/**
 * What has caused an error, which its message includes: cause 0 is the nearest, the last one the root.
 *
 * @param error  Borrowed. May be used from several threads at once.
 * @param index  From 0.
 * @return Text in UTF-8, valid until the error is freed. NULL if there are no more, for NULL or an invalid handle.
 */
const char *blink_error_cause(const struct blink_error *error,
                              size_t index);

/**
 * A process that is using what was asked for, where the status is BLINK_STATUS_BUSY.
 *
 * @param error    Borrowed. May be used from several threads at once.
 * @param index    From 0.
 * @param command  May be NULL. Set to the beginning of the process's command line, valid until the error is freed; "" where
 *                 that could not be read. NULL if the return value is -1.
 * @return The process's number on this host; 0 if it could not be told. -1 if there are no more, for NULL and what is no
 *         error.
 *
 * # Safety
 * `command` is NULL or can be written.
 */
int64_t blink_error_holder(const struct blink_error *error,
                           size_t index,
                           const char **command);

/**
 * What the program had written when it was cut off.
 *
 * @param error  Borrowed. May be used from several threads at once.
 * @return Borrowed from the error, and there until that is freed: do not free it. NULL if there is none.
 */
const struct blink_output *blink_error_output(const struct blink_error *error);

/**
 * Frees an error, with its message and its output.
 *
 * @param error  Taken. NULL does nothing.
 */
void blink_error_free(struct blink_error *error);

/**
 * Sets up a blink_exit to be filled in.
 *
 * @param exit  Written.
 * @param size  sizeof(blink_exit).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_exit_init(struct blink_exit *exit,
                             size_t size);

/**
 * Opens a file of a sandbox to read it bit by bit, in memory that does not depend on its length.
 *
 * @param files   Borrowed. May be used from several threads at once.
 * @param path    Absolute.
 * @param offset  How many of its bytes are left out at the beginning.
 * @param length  How many are read at most; UINT64_MAX for all.
 * @param cancel  Borrowed. NULL: it cannot be cancelled.
 * @param out     Set on success; free with blink_file_reader_free(). NULL on failure. It may outlive the files' handle.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; IS_A_DIRECTORY; INVALID_ARGUMENT for a device and the like; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_files_reader(const struct blink_files *files,
                                const char *path,
                                uint64_t offset,
                                uint64_t length,
                                const struct blink_cancel *cancel,
                                struct blink_file_reader **out,
                                struct blink_error **err);

/**
 * Reads the next bytes of a file; waits while there are none.
 *
 * @param reader  Borrowed. May be used from several threads at once, which take turns.
 * @param buffer  Room for what is read.
 * @param length  How many bytes fit; at least 1.
 * @param count   Set to the number of bytes that were read; 0 is the end, by which all before is known to be right.
 * @param cancel  Borrowed. NULL: it cannot be cancelled. Nothing is lost by it.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); CORRUPT if it did not arrive as it was sent; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_file_reader_read(const struct blink_file_reader *reader,
                                    uint8_t *buffer,
                                    size_t length,
                                    size_t *count,
                                    const struct blink_cancel *cancel,
                                    struct blink_error **err);

/**
 * Frees a reader, and gives up what was not read.
 *
 * @param reader  Taken. NULL does nothing. Calls that are under way on it end first.
 */
void blink_file_reader_free(struct blink_file_reader *reader);

/**
 * Opens a file of a sandbox to write it bit by bit, in memory that does not depend on its length. It has its old content
 * until blink_file_writer_finish() gives it all of the new one.
 *
 * @param files    Borrowed. May be used from several threads at once.
 * @param path     Absolute.
 * @param options  Borrowed. NULL is the defaults.
 * @param out      Set on success; free with blink_file_writer_free(). NULL on failure. It may outlive the files' handle.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; SANDBOX_DIED. Whether the file can be written is told by its writer.
 */
blink_status blink_files_writer(const struct blink_files *files,
                                const char *path,
                                const struct blink_write_options *options,
                                struct blink_file_writer **out,
                                struct blink_error **err);

/**
 * Sends bytes of a file; waits while the sandbox does not take them.
 *
 * @param writer  Borrowed. May be used from several threads at once, which take turns.
 * @param data    Bytes. NULL with a length of 0.
 * @param length  How many they are.
 * @param cancel  Borrowed. NULL: it cannot be cancelled. The file can only be given up then.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND for a missing folder; READ_ONLY; INVALID_ARGUMENT once it is
 *         finished, and after a cancelled write; RESOURCE_EXHAUSTED if the disk is full; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_file_writer_write(const struct blink_file_writer *writer,
                                     const uint8_t *data,
                                     size_t length,
                                     const struct blink_cancel *cancel,
                                     struct blink_error **err);

/**
 * Makes what was written the file's content. The writer still wants to be freed.
 *
 * @param writer  Borrowed. May be used from several threads at once.
 * @param cancel  Borrowed. NULL: it cannot be cancelled. The file may have the new content then.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return As blink_file_writer_write(). On failure the file is as it was.
 */
blink_status blink_file_writer_finish(const struct blink_file_writer *writer,
                                      const struct blink_cancel *cancel,
                                      struct blink_error **err);

/**
 * Frees a writer. What was not finished is given up: the file stays as it was.
 *
 * @param writer  Taken. NULL does nothing. Calls that are under way on it end first.
 */
void blink_file_writer_free(struct blink_file_writer *writer);

/**
 * Sets options to their defaults.
 *
 * @param options  Written.
 * @param size     sizeof(blink_write_options).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_write_options_init(struct blink_write_options *options,
                                      size_t size);

/**
 * Reads a whole file into memory; blink_files_reader() reads a part, or bit by bit.
 *
 * @param files   Borrowed. May be used from several threads at once.
 * @param path    Absolute.
 * @param cancel  Borrowed. NULL: it cannot be cancelled.
 * @param out     Set on success; free with blink_bytes_free(). NULL on failure.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; IS_A_DIRECTORY; INVALID_ARGUMENT for a device and the like; CORRUPT if it did not
 *         arrive as it was sent; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_files_read(const struct blink_files *files,
                              const char *path,
                              const struct blink_cancel *cancel,
                              struct blink_bytes **out,
                              struct blink_error **err);

/**
 * Writes a whole file that is in memory; blink_files_writer() writes bit by bit. It has its old content or all of the new one, never less, whatever happens.
 *
 * @param files    Borrowed. May be used from several threads at once.
 * @param path     Absolute.
 * @param data     Bytes. NULL with a length of 0.
 * @param length   How many they are.
 * @param options  Borrowed. NULL is the defaults.
 * @param cancel   Borrowed. NULL: it cannot be cancelled.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND for a missing folder; IS_A_DIRECTORY; NOT_A_DIRECTORY; READ_ONLY;
 *         RESOURCE_EXHAUSTED if the disk is full; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_files_write(const struct blink_files *files,
                               const char *path,
                               const uint8_t *data,
                               size_t length,
                               const struct blink_write_options *options,
                               const struct blink_cancel *cancel,
                               struct blink_error **err);

/**
 * Describes a file; a symbolic link itself.
 *
 * @param files  Borrowed. May be used from several threads at once.
 * @param path   Absolute.
 * @param info   Set up with blink_file_info_init(), and filled in; its name and target are NULL.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; SANDBOX_DIED.
 */
blink_status blink_files_stat(const struct blink_files *files,
                              const char *path,
                              struct blink_file_info *info,
                              struct blink_error **err);

/**
 * Whether there is a file, or a link that leads to one.
 *
 * @param files  Borrowed. May be used from several threads at once.
 * @param path   Absolute.
 * @param there  Set to the answer; false on failure.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); SANDBOX_DIED.
 */
blink_status blink_files_exists(const struct blink_files *files,
                                const char *path,
                                bool *there,
                                struct blink_error **err);

/**
 * Lists a folder, sorted by name.
 *
 * @param files  Borrowed. May be used from several threads at once.
 * @param path   Absolute.
 * @param out    Set on success; free with blink_entries_free(). NULL on failure.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; NOT_A_DIRECTORY; SANDBOX_DIED.
 */
blink_status blink_files_list(const struct blink_files *files,
                              const char *path,
                              struct blink_entries **out,
                              struct blink_error **err);

/**
 * Makes a folder and its missing parents; content if it exists.
 *
 * @param files  Borrowed. May be used from several threads at once.
 * @param path   Absolute.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_A_DIRECTORY if a part of the path is no folder; READ_ONLY; NOT_FOUND if the sandbox does
 *         not know the user of blink_files_as_user(); SANDBOX_DIED.
 */
blink_status blink_files_make_dir(const struct blink_files *files,
                                  const char *path,
                                  struct blink_error **err);

/**
 * As blink_files_make_dir(), with the permission bits of a folder that is new; its missing parents get 0755.
 *
 * @param files  Borrowed. May be used from several threads at once.
 * @param path   Absolute.
 * @param mode   Permission bits, such as 0750.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return As for blink_files_make_dir(); INVALID_ARGUMENT for bits that no mode has.
 */
blink_status blink_files_make_dir_with(const struct blink_files *files,
                                       const char *path,
                                       uint32_t mode,
                                       struct blink_error **err);

/**
 * Removes a file, a link or an empty folder; a folder with all that is in it if asked to. Links are removed, not
 * followed.
 *
 * @param files      Borrowed. May be used from several threads at once.
 * @param path       Absolute.
 * @param recursive  Whether a folder is removed with all that is in it.
 * @param err        May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; DIRECTORY_NOT_EMPTY; READ_ONLY; SANDBOX_DIED.
 */
blink_status blink_files_remove(const struct blink_files *files,
                                const char *path,
                                bool recursive,
                                struct blink_error **err);

/**
 * Renames a file or folder, replacing a file that has the new name.
 *
 * @param files  Borrowed. May be used from several threads at once.
 * @param from   Absolute.
 * @param to     Absolute.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; UNSUPPORTED across file systems; SANDBOX_DIED.
 */
blink_status blink_files_rename(const struct blink_files *files,
                                const char *from,
                                const char *to,
                                struct blink_error **err);

/**
 * Copies a file inside the sandbox.
 *
 * @param files   Borrowed. May be used from several threads at once.
 * @param from    Absolute.
 * @param to      Absolute.
 * @param cancel  Borrowed. NULL: it cannot be cancelled.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; IS_A_DIRECTORY; INVALID_ARGUMENT for a device and the like; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_files_copy(const struct blink_files *files,
                              const char *from,
                              const char *to,
                              const struct blink_cancel *cancel,
                              struct blink_error **err);

/**
 * Brings a file or a whole folder of the host into the sandbox. A folder is merged into one that exists. Links come as they
 * are; sockets and devices do not.
 *
 * @param files   Borrowed. May be used from several threads at once.
 * @param from    The host's.
 * @param to      The sandbox's, absolute: what it is called there.
 * @param cancel  Borrowed. NULL: it cannot be cancelled.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND if there is no such file; INTERNAL if it cannot be read; otherwise as
 *         blink_files_write().
 */
blink_status blink_files_upload(const struct blink_files *files,
                                const char *from,
                                const char *to,
                                const struct blink_cancel *cancel,
                                struct blink_error **err);

/**
 * Takes a file or a whole folder out of the sandbox to the host. Nothing outside `to` is touched, whatever the sandbox
 * sends.
 *
 * @param files   Borrowed. May be used from several threads at once.
 * @param from    The sandbox's, absolute.
 * @param to      The host's: what it is called there.
 * @param cancel  Borrowed. NULL: it cannot be cancelled.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; CORRUPT if a folder holds what may not leave a sandbox; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_files_download(const struct blink_files *files,
                                  const char *from,
                                  const char *to,
                                  const struct blink_cancel *cancel,
                                  struct blink_error **err);

/**
 * Takes a file or a whole folder out of the sandbox into a folder of the host that exists, where it keeps its name. Nothing in
 * that folder is followed, as it may have come from a sandbox earlier. What has no name of its own, as "/", is merged into it.
 *
 * @param files   Borrowed. May be used from several threads at once.
 * @param from    The sandbox's, absolute.
 * @param folder  The host's.
 * @param cancel  Borrowed. NULL: it cannot be cancelled.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return As blink_files_download(); NOT_FOUND if `folder` is missing too; INVALID_ARGUMENT if something of that name is
 *         there that is neither a file nor a folder.
 */
blink_status blink_files_download_into(const struct blink_files *files,
                                       const char *from,
                                       const char *folder,
                                       const struct blink_cancel *cancel,
                                       struct blink_error **err);

/**
 * The same files; what is made through the new handle belongs to another user of the sandbox. Without, it belongs to the
 * sandbox's own user, or to root if it has none.
 *
 * @param files  Borrowed. May be used from several threads at once.
 * @param user   A user of the sandbox, by name or id. One that it does not know is NOT_FOUND when something is made.
 * @param out    Set on success; free with blink_files_free(). NULL on failure.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT.
 */
blink_status blink_files_as_user(const struct blink_files *files,
                                 const char *user,
                                 struct blink_files **out,
                                 struct blink_error **err);

/**
 * Frees the handle. The files stay.
 *
 * @param files  Taken. NULL does nothing.
 */
void blink_files_free(struct blink_files *files);

/**
 * Counts the handles that were given out and not freed.
 *
 * A handle is no memory of the program's own, and a checker of leaks does not miss one: a program's test asks here, at its
 * end.
 *
 * @return How many there are, in the whole process; 0 for a program that has freed everything.
 */
size_t blink_handle_count(void);

/**
 * Sets up a blink_image to be filled in.
 *
 * @param image  Written.
 * @param size   sizeof(blink_image).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_image_init(struct blink_image *image,
                              size_t size);

/**
 * Fetches an image into the home, so that sandboxes can have it at once: a registry's reference, a folder in OCI layout, or
 * a tar of one or of `docker save`. It asks the registry each time: a tag that has moved is followed.
 *
 * @param blink          Borrowed. May be used from several threads at once.
 * @param image          What to fetch.
 * @param progress       Is told how far it is. NULL: nobody.
 * @param progress_data  Given to the callback.
 * @param cancel         Borrowed. NULL: it cannot be cancelled. What came so far is kept for the next time.
 * @param out            Set up with blink_image_init(), and filled in; free what is in it with blink_image_dispose(). May be
 *                       NULL.
 * @param err            May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); IMAGE_UNAVAILABLE, whose message names alternatives; NOT_FOUND; CORRUPT, UNSUPPORTED and
 *         RESOURCE_EXHAUSTED as the image deserves; INVALID_ARGUMENT for what names no image; CANCELLED.
 */
blink_status blink_image_pull(const struct blink *blink,
                              const char *image,
                              blink_progress_callback progress,
                              void *progress_data,
                              const struct blink_cancel *cancel,
                              struct blink_image *out,
                              struct blink_error **err);

/**
 * Frees what is in a blink_image, and sets it up to be filled in again.
 *
 * @param image  What blink_image_pull() has filled in, or what was only set up. NULL does nothing.
 */
void blink_image_dispose(struct blink_image *image);

/**
 * Lists the stored images, each once for every name that it has, the one that was fetched last first.
 *
 * @param blink  Borrowed. May be used from several threads at once.
 * @param out    Set on success; free with blink_image_list_free(). NULL on failure.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); CORRUPT if the list of images is damaged.
 */
blink_status blink_image_list_all(const struct blink *blink,
                                  struct blink_image_list **out,
                                  struct blink_error **err);

/**
 * Removes a stored image. Of one with several names, a reference removes just that name.
 *
 * @param blink        Borrowed. May be used from several threads at once.
 * @param name         A reference, or a digest, of which 12 digits are enough.
 * @param freed_bytes  Set to how many bytes that has freed. May be NULL.
 * @param err          May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; BUSY if a sandbox uses it, which the message names.
 */
blink_status blink_image_remove(const struct blink *blink,
                                const char *name,
                                uint64_t *freed_bytes,
                                struct blink_error **err);

/**
 * Removes what no name and no sandbox refers to: images whose name has moved on, images from folders and files, and downloads
 * that were given up.
 *
 * @param blink        Borrowed. May be used from several threads at once.
 * @param freed_bytes  Set to how many bytes that has freed. May be NULL.
 * @param err          May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); BUSY while another process unpacks an image.
 */
blink_status blink_image_prune(const struct blink *blink,
                               uint64_t *freed_bytes,
                               struct blink_error **err);

/**
 * The number of images in a list.
 *
 * @param list  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
size_t blink_image_list_count(const struct blink_image_list *list);

/**
 * An image of a list.
 *
 * @param list   Borrowed. May be used from several threads at once.
 * @param index  From 0.
 * @param image  Set up with blink_image_init(), and filled in. Its strings belong to the list.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_image_list_get(const struct blink_image_list *list,
                                  size_t index,
                                  struct blink_image *image,
                                  struct blink_error **err);

/**
 * Frees a list with its strings.
 *
 * @param list  Taken. NULL does nothing.
 */
void blink_image_list_free(struct blink_image_list *list);

/**
 * Sets up a blink_checkpoint to be filled in.
 *
 * @param checkpoint  Written.
 * @param size        sizeof(blink_checkpoint).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_checkpoint_init(struct blink_checkpoint *checkpoint,
                                   size_t size);

/**
 * The session that a session was forked from.
 *
 * @param lineage  Borrowed. May be used from several threads at once.
 * @return "session" or "session@checkpoint", which belongs to the lineage; NULL if there is none.
 */
const char *blink_lineage_forked_from(const struct blink_lineage *lineage);

/**
 * The checkpoint that a session's disk was last at.
 *
 * @param lineage  Borrowed. May be used from several threads at once.
 * @return It belongs to the lineage; NULL if there is none.
 */
const char *blink_lineage_current(const struct blink_lineage *lineage);

/**
 * The number of checkpoints.
 *
 * @param lineage  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
size_t blink_lineage_count(const struct blink_lineage *lineage);

/**
 * A checkpoint.
 *
 * @param lineage     Borrowed. May be used from several threads at once.
 * @param index       From 0, in the order in which they were made.
 * @param checkpoint  Set up with blink_checkpoint_init(), and filled in. Its strings belong to the lineage.
 * @param err         May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_lineage_get(const struct blink_lineage *lineage,
                               size_t index,
                               struct blink_checkpoint *checkpoint,
                               struct blink_error **err);

/**
 * Frees a lineage with its strings.
 *
 * @param lineage  Taken. NULL does nothing.
 */
void blink_lineage_free(struct blink_lineage *lineage);

/**
 * Says who is told what Blink has to say; in the whole process, from now on. By default nobody is.
 *
 * @param level      A blink_log_level: what is less important is not told.
 * @param callback   NULL: nobody. Who was told before may be called once more by a call that is under way.
 * @param user_data  Given to the callback, on any thread.
 * @param err        May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_log_set(int32_t level,
                           blink_log_callback callback,
                           void *user_data,
                           struct blink_error **err);

/**
 * How the program ended.
 *
 * @param output  Borrowed. May be used from several threads at once.
 * @param exit    Set up with blink_exit_init(), and filled in. Its text belongs to the output.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK, or BLINK_STATUS_INVALID_ARGUMENT.
 */
blink_status blink_output_exit(const struct blink_output *output,
                               struct blink_exit *exit,
                               struct blink_error **err);

/**
 * Turns a timeout or an exceeded limit into an error that carries the output. Neither is one by itself: what the program
 * wrote until then may be all that is wanted.
 *
 * @param output  Borrowed. May be used from several threads at once.
 * @param err     May be NULL. If set, free with blink_error_free(); it has a copy of the output.
 * @return BLINK_STATUS_OK, BLINK_STATUS_TIMEOUT, BLINK_STATUS_RESOURCE_EXHAUSTED or BLINK_STATUS_INVALID_ARGUMENT.
 */
blink_status blink_output_check(const struct blink_output *output,
                                struct blink_error **err);

/**
 * The program's exit code.
 *
 * @param output  Borrowed. May be used from several threads at once.
 * @return As `code` of blink_exit. -1 for NULL or an invalid handle.
 */
int32_t blink_output_exit_code(const struct blink_output *output);

/**
 * Whether the program's time was over, so that it was killed with everything that it had started.
 *
 * @param output  Borrowed. May be used from several threads at once.
 * @return false for NULL or an invalid handle.
 */
bool blink_output_timed_out(const struct blink_output *output);

/**
 * What the program wrote to standard output, as far as it was captured: bytes that do not end with NUL.
 *
 * @param output  Borrowed. May be used from several threads at once.
 * @param length  Set to the number of bytes. May be NULL.
 * @return There until the output is freed. NULL if there are no bytes, and for an invalid handle.
 */
const uint8_t *blink_output_stdout(const struct blink_output *output,
                                   size_t *length);

/**
 * What the program wrote to standard error, as far as it was captured: bytes that do not end with NUL.
 *
 * @param output  Borrowed. May be used from several threads at once.
 * @param length  Set to the number of bytes. May be NULL.
 * @return There until the output is freed. NULL if there are no bytes, and for an invalid handle.
 */
const uint8_t *blink_output_stderr(const struct blink_output *output,
                                   size_t *length);

/**
 * How many bytes the program wrote to standard output in all, also beyond the capture's limit.
 *
 * @param output  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
uint64_t blink_output_stdout_total(const struct blink_output *output);

/**
 * How many bytes the program wrote to standard error in all, also beyond the capture's limit.
 *
 * @param output  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
uint64_t blink_output_stderr_total(const struct blink_output *output);

/**
 * Whether the program wrote more to a stream than was captured.
 *
 * @param output  Borrowed. May be used from several threads at once.
 * @return false for NULL or an invalid handle.
 */
bool blink_output_truncated(const struct blink_output *output);

/**
 * The isolation that the program really ran with.
 *
 * @param output  Borrowed. May be used from several threads at once.
 * @return "microvm" or "namespace", a static string. NULL for an invalid handle.
 */
const char *blink_output_isolation(const struct blink_output *output);

/**
 * Frees an output, with its bytes.
 *
 * @param output  Taken. NULL does nothing.
 */
void blink_output_free(struct blink_output *output);

/**
 * Sets options to their defaults.
 *
 * @param options  Written.
 * @param size     sizeof(blink_pool_options).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_pool_options_init(struct blink_pool_options *options,
                                     size_t size);

/**
 * Sets options to their defaults.
 *
 * @param options  Written.
 * @param size     sizeof(blink_claim_options).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_claim_options_init(struct blink_claim_options *options,
                                      size_t size);

/**
 * Sets up a blink_pool_stats to be filled in.
 *
 * @param stats  Written.
 * @param size   sizeof(blink_pool_stats).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_pool_stats_init(struct blink_pool_stats *stats,
                                   size_t size);

/**
 * Makes a pool: fetches its image, runs the commands of `warmup`, and begins to boot, which blink_pool_ready() waits for.
 *
 * @param blink    Borrowed. May be used from several threads at once.
 * @param options  Borrowed. NULL is the defaults.
 * @param cancel   Borrowed. NULL: it cannot be cancelled.
 * @param out      Set on success; free with blink_pool_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free(). If a command has failed, blink_error_output() has its output.
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for options that no pool can have, and a command that fails; TIMEOUT for one
 *         that does not end; ALREADY_EXISTS if another process keeps a shared pool of this name; CANCELLED; otherwise as
 *         blink_sandbox_create().
 */
blink_status blink_pool_create(const struct blink *blink,
                               const struct blink_pool_options *options,
                               const struct blink_cancel *cancel,
                               struct blink_pool **out,
                               struct blink_error **err);

/**
 * Attaches to a pool that another process of this home keeps.
 *
 * @param blink  Borrowed. May be used from several threads at once.
 * @param name   Its name.
 * @param out    Set on success; free with blink_pool_free(). NULL on failure.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND if none does.
 */
blink_status blink_pool_open(const struct blink *blink,
                             const char *name,
                             struct blink_pool **out,
                             struct blink_error **err);

/**
 * Lists the names of the pools that processes of this home keep for others.
 *
 * @param blink  Borrowed. May be used from several threads at once.
 * @param out    Set on success; free with blink_strings_free(). NULL on failure.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_pool_list(const struct blink *blink,
                             struct blink_strings **out,
                             struct blink_error **err);

/**
 * The name of a pool.
 *
 * @param pool  Borrowed. May be used from several threads at once.
 * @return There until the pool is freed. NULL if it has none, for NULL, or for an invalid handle.
 */
const char *blink_pool_name(const struct blink_pool *pool);

/**
 * Waits until as many sandboxes are ready as are to be. A pool that another process keeps is asked whether it is there.
 *
 * @param pool    Borrowed. May be used from several threads at once.
 * @param cancel  Borrowed. NULL: it cannot be cancelled.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if a command of `prepare` fails, or the pool was closed; NOT_FOUND if its
 *         process is gone; CANCELLED; otherwise what made a boot fail.
 */
blink_status blink_pool_ready(const struct blink_pool *pool,
                              const struct blink_cancel *cancel,
                              struct blink_error **err);

/**
 * Claims a sandbox: one that is ready if there is one, and otherwise the next that boots. Who comes first is served first. It
 * is used once: removed when it is freed, and never handed out again.
 *
 * @param pool     Borrowed. May be used from several threads at once.
 * @param options  Borrowed. NULL is the defaults.
 * @param cancel   Borrowed. NULL: it cannot be cancelled.
 * @param out      Set on success; free with blink_sandbox_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); TIMEOUT if there is none in time; BUSY if somebody has what the key has claimed; INVALID_ARGUMENT for invalid options, and once the pool is
 *         closed; NOT_FOUND if the pool's process is gone; CANCELLED; otherwise as blink_sandbox_create(), if a boot for it fails.
 */
blink_status blink_pool_claim(const struct blink_pool *pool,
                              const struct blink_claim_options *options,
                              const struct blink_cancel *cancel,
                              struct blink_sandbox **out,
                              struct blink_error **err);

/**
 * Claims a sandbox and gives it a name: from then on it is a session, with the processes and the disk that it has. It costs no
 * boot.
 *
 * @param pool     Borrowed. May be used from several threads at once.
 * @param name     The session's.
 * @param options  Borrowed. NULL is the defaults.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. A session that is being made may be there afterwards.
 * @param out      Set on success; free with blink_session_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); ALREADY_EXISTS; otherwise as blink_pool_claim().
 */
blink_status blink_pool_claim_as(const struct blink_pool *pool,
                                 const char *name,
                                 const struct blink_claim_options *options,
                                 const struct blink_cancel *cancel,
                                 struct blink_session **out,
                                 struct blink_error **err);

/**
 * What has happened in a pool, and what it has now.
 *
 * @param pool   Borrowed. May be used from several threads at once.
 * @param stats  Set up with blink_pool_stats_init(), and filled in.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; NOT_FOUND if the process that kept it is gone.
 */
blink_status blink_pool_stats_get(const struct blink_pool *pool,
                                  struct blink_pool_stats *stats,
                                  struct blink_error **err);

/**
 * What blink_pool_stats_get() tells, as text in the format of OpenMetrics, which Prometheus reads.
 *
 * @param pool  Borrowed. May be used from several threads at once.
 * @param out   Set on success; free with blink_bytes_free(). NULL on failure.
 * @param err   May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; NOT_FOUND if the process that kept it is gone.
 */
blink_status blink_pool_openmetrics(const struct blink_pool *pool,
                                    struct blink_bytes **out,
                                    struct blink_error **err);

/**
 * Closes a pool, also one that another process keeps, and waits until the claimed sandboxes are gone. Claims that wait fail, as
 * do later ones.
 *
 * @param pool        Borrowed. May be used from several threads at once.
 * @param timeout_ms  Milliseconds that they are waited for.
 * @param cancel      Borrowed. NULL: it cannot be cancelled.
 * @param err         May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); TIMEOUT if some are still in use: the pool is closed nevertheless; INVALID_ARGUMENT; NOT_FOUND if
 *         its process is gone; CANCELLED.
 */
blink_status blink_pool_drain(const struct blink_pool *pool,
                              uint64_t timeout_ms,
                              const struct blink_cancel *cancel,
                              struct blink_error **err);

/**
 * Frees a pool, which closes it; one that another process keeps goes on. Claimed sandboxes stay with who has them.
 *
 * @param pool  Taken. NULL does nothing. Calls that are under way on it end first.
 */
void blink_pool_free(struct blink_pool *pool);

/**
 * Names a process for as long as its sandbox runs: blink_sandbox_attach() takes it.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
uint64_t blink_process_id(const struct blink_process *process);

/**
 * Its number among the sandbox's processes.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @return 0 if it could not be started, and for NULL or an invalid handle.
 */
uint32_t blink_process_pid(const struct blink_process *process);

/**
 * Reads what a program has written; waits while there is nothing. Several threads take turns.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param stream   A blink_stream.
 * @param buffer   Room for what is read.
 * @param length   How many bytes fit; at least 1.
 * @param count    Set to the number of bytes that were read; 0 is the stream's end.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. Nothing is lost by it.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); BUSY if someone else has attached to the process; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_process_read(const struct blink_process *process,
                                int32_t stream,
                                uint8_t *buffer,
                                size_t length,
                                size_t *count,
                                const struct blink_cancel *cancel,
                                struct blink_error **err);

/**
 * Reads what a program has written; never waits.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param stream   A blink_stream.
 * @param buffer   Room for what is read.
 * @param length   How many bytes fit; at least 1.
 * @param count    Set to the number of bytes that were read; 0 is the stream's end.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); WOULD_BLOCK if there is nothing now; BUSY while another thread reads the stream, or if
 *         someone else has attached to the process; SANDBOX_DIED.
 */
blink_status blink_process_try_read(const struct blink_process *process,
                                    int32_t stream,
                                    uint8_t *buffer,
                                    size_t length,
                                    size_t *count,
                                    struct blink_error **err);

/**
 * How many bytes of a program's stream were before the next one that is read: where to attach again later. After an attach, it
 * says where the oldest byte is that is still there.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param stream   A blink_stream.
 * @param offset   Set to the number of bytes; 0 on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_process_offset(const struct blink_process *process,
                                  int32_t stream,
                                  uint64_t *offset,
                                  struct blink_error **err);

/**
 * A file descriptor to poll for a stream: POLLIN says that blink_process_try_read() is worth a try. It is ready until that
 * has answered BLINK_STATUS_WOULD_BLOCK, and stays ready at the stream's end. Nothing else is to be done with it: do not
 * read from it, and do not close it.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param stream   A blink_stream.
 * @param fd       Set to the descriptor, which is there until the process is freed. -1 on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); RESOURCE_EXHAUSTED if there are no more descriptors.
 */
blink_status blink_process_fd(const struct blink_process *process,
                              int32_t stream,
                              int32_t *fd,
                              struct blink_error **err);

/**
 * A file descriptor to poll for a program's end: POLLIN says that blink_process_wait() returns without waiting, since the program has
 * ended and its output was taken or discarded, or since its sandbox has ended. It stays ready. Do not read from it, and do not close
 * it.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param fd       Set to the descriptor, which is there until the process is freed. -1 on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); RESOURCE_EXHAUSTED if there are no more descriptors.
 */
blink_status blink_process_exit_fd(const struct blink_process *process,
                                   int32_t *fd,
                                   struct blink_error **err);

/**
 * Throws away what a stream still holds, and all that is to come: the program is not held back by it. Reading it then finds
 * its end. Waits for a thread that reads it now.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param stream   A blink_stream.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_process_discard(const struct blink_process *process,
                                   int32_t stream,
                                   struct blink_error **err);

/**
 * Writes to a program's standard input; waits while the program does not take it. That the program reads no more is no
 * failure: its exit tells.
 *
 * @param process  Borrowed. May be used from several threads at once, which take turns.
 * @param data     Bytes. NULL with a length of 0.
 * @param length   How many they are.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. A part may have been written then.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if the command asked for no stdin_piped, or the input was closed;
 *         SANDBOX_DIED; CANCELLED.
 */
blink_status blink_process_write(const struct blink_process *process,
                                 const uint8_t *data,
                                 size_t length,
                                 const struct blink_cancel *cancel,
                                 struct blink_error **err);

/**
 * Ends a program's standard input, behind everything that was written. Does nothing if there is none.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_process_close_stdin(const struct blink_process *process,
                                       struct blink_error **err);

/**
 * Tells a program's terminal a new size. Without a terminal nothing happens.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param rows     At least 1.
 * @param cols     At least 1.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_process_resize(const struct blink_process *process,
                                  uint16_t rows,
                                  uint16_t cols,
                                  struct blink_error **err);

/**
 * Sends a signal.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param signal   Linux's number, such as 15 for SIGTERM.
 * @param tree     false: to its process group. true: to everything that it has started, also what has left that.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if it is not a signal; NOT_FOUND once it was released; SANDBOX_DIED.
 */
blink_status blink_process_signal(const struct blink_process *process,
                                  int32_t signal,
                                  bool tree,
                                  struct blink_error **err);

/**
 * Waits until a program has ended and all of its output was read or discarded. May be called again, also after it has
 * failed.
 *
 * @param process     Borrowed. May be used from several threads at once.
 * @param timeout_ms  Milliseconds to wait; 0 means no limit.
 * @param exit        Set up with blink_exit_init(), and filled in; its text belongs to the process. May be NULL.
 * @param cancel      Borrowed. NULL: it cannot be cancelled. The program goes on.
 * @param err         May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); TIMEOUT if it has not ended by then, and goes on; SANDBOX_DIED; BUSY if someone else
 *         has attached to the process; CANCELLED.
 */
blink_status blink_process_wait(const struct blink_process *process,
                                uint64_t timeout_ms,
                                struct blink_exit *exit,
                                const struct blink_cancel *cancel,
                                struct blink_error **err);

/**
 * Kills a program and everything that it has started.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND once it was released; SANDBOX_DIED.
 */
blink_status blink_process_kill(const struct blink_process *process,
                                struct blink_error **err);

/**
 * Forgets a program in its sandbox: it is killed if it runs, and its output and exit can no longer be asked for. The handle
 * still wants to be freed.
 *
 * @param process  Borrowed. May be used from several threads at once.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND once it was released; SANDBOX_DIED.
 */
blink_status blink_process_release(const struct blink_process *process,
                                   struct blink_error **err);

/**
 * Frees a process's handle, and closes its file descriptors. The program goes on, and its standard input does not end:
 * attach to it again with its id.
 *
 * @param process  Taken. NULL does nothing. Calls that are under way on it end first.
 */
void blink_process_free(struct blink_process *process);

/**
 * What is kept of standard output, or of all output where the process has a terminal: bytes that do not end with NUL.
 *
 * @param logs    Borrowed. May be used from several threads at once.
 * @param length  Set to the number of bytes. May be NULL.
 * @return There until the logs are freed. NULL if there are no bytes, and for an invalid handle.
 */
const uint8_t *blink_process_logs_stdout(const struct blink_process_logs *logs,
                                         size_t *length);

/**
 * What is kept of standard error: bytes that do not end with NUL.
 *
 * @param logs    Borrowed. May be used from several threads at once.
 * @param length  Set to the number of bytes. May be NULL.
 * @return There until the logs are freed. NULL if there are no bytes, and for an invalid handle.
 */
const uint8_t *blink_process_logs_stderr(const struct blink_process_logs *logs,
                                         size_t *length);

/**
 * How many bytes of standard output came before those that are kept.
 *
 * @param logs  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
uint64_t blink_process_logs_stdout_offset(const struct blink_process_logs *logs);

/**
 * How many bytes of standard error came before those that are kept.
 *
 * @param logs  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
uint64_t blink_process_logs_stderr_offset(const struct blink_process_logs *logs);

/**
 * Frees logs with their bytes.
 *
 * @param logs  Taken. NULL does nothing.
 */
void blink_process_logs_free(struct blink_process_logs *logs);

/**
 * Sets up a blink_process_info to be filled in.
 *
 * @param info  Written.
 * @param size  sizeof(blink_process_info).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_process_info_init(struct blink_process_info *info,
                                     size_t size);

/**
 * The number of processes in a list.
 *
 * @param list  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
size_t blink_process_list_count(const struct blink_process_list *list);

/**
 * A process of a list.
 *
 * @param list   Borrowed. May be used from several threads at once.
 * @param index  From 0.
 * @param info   Set up with blink_process_info_init(), and filled in. Its strings belong to the list.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_process_list_get(const struct blink_process_list *list,
                                    size_t index,
                                    struct blink_process_info *info,
                                    struct blink_error **err);

/**
 * How a process of a list has ended.
 *
 * @param list   Borrowed. May be used from several threads at once.
 * @param index  From 0.
 * @param exit   Set up with blink_exit_init(), and filled in. Its text belongs to the list.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); BUSY if it still runs; INVALID_ARGUMENT.
 */
blink_status blink_process_list_exit(const struct blink_process_list *list,
                                     size_t index,
                                     struct blink_exit *exit,
                                     struct blink_error **err);

/**
 * Frees a list with its strings.
 *
 * @param list  Taken. NULL does nothing.
 */
void blink_process_list_free(struct blink_process_list *list);

/**
 * Makes and boots a sandbox. If the call is cancelled, nothing is left behind.
 *
 * @param blink    Borrowed. May be used from several threads at once.
 * @param options  Borrowed. NULL is the defaults.
 * @param cancel   Borrowed. NULL: it cannot be cancelled.
 * @param out      Set on success; free with blink_sandbox_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for options that cannot be right; BUSY if a port is taken;
 *         ISOLATION_UNAVAILABLE and IMAGE_UNAVAILABLE, whose message names alternatives; RESOURCE_EXHAUSTED; TIMEOUT if it does
 *         not boot in time; CANCELLED.
 */
blink_status blink_sandbox_create(const struct blink *blink,
                                  const struct blink_sandbox_options *options,
                                  const struct blink_cancel *cancel,
                                  struct blink_sandbox **out,
                                  struct blink_error **err);

/**
 * Fetches the image of a sandbox where it is not stored, so that blink_sandbox_create() finds it: what is stored under a
 * name is good enough, while blink_image_pull() asks the registry again. Given up half-way, what came so far is kept.
 *
 * @param blink    Borrowed. May be used from several threads at once.
 * @param options  The sandbox's. Borrowed. NULL is the defaults, which need no image.
 * @param cancel   Borrowed. NULL: it cannot be cancelled.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return As blink_sandbox_create(), as far as it can be told before a boot.
 */
blink_status blink_sandbox_fetch_image(const struct blink *blink,
                                       const struct blink_sandbox_options *options,
                                       const struct blink_cancel *cancel,
                                       struct blink_error **err);

/**
 * Takes up a detached sandbox that an earlier process has made. Its programs run as before; the environment, folder and
 * user that it was made with no longer apply to new ones. Its ports are published again.
 *
 * @param blink   Borrowed. May be used from several threads at once.
 * @param id      As blink_sandbox_id() gave it.
 * @param cancel  Borrowed. NULL: it cannot be cancelled.
 * @param out     Set on success; free with blink_sandbox_free(). NULL on failure.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; BUSY while another process has it, or a port; SANDBOX_DIED if it has ended; PROTOCOL if
 *         something other than its agent answers.
 */
blink_status blink_sandbox_open(const struct blink *blink,
                                const char *id,
                                const struct blink_cancel *cancel,
                                struct blink_sandbox **out,
                                struct blink_error **err);

/**
 * Lists the ids of the sandboxes that were made detached and not removed.
 *
 * @param blink  Borrowed. May be used from several threads at once.
 * @param out    Set on success; free with blink_strings_free(). NULL on failure.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); UNSUPPORTED in a child process.
 */
blink_status blink_sandbox_list(const struct blink *blink,
                                struct blink_strings **out,
                                struct blink_error **err);

/**
 * Names a sandbox among all of its home.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @return There until the sandbox is freed. NULL for NULL or an invalid handle.
 */
const char *blink_sandbox_id(const struct blink_sandbox *sandbox);

/**
 * The isolation that a sandbox really has.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @return "microvm" or "namespace", a static string. NULL for NULL or an invalid handle.
 */
const char *blink_sandbox_isolation(const struct blink_sandbox *sandbox);

/**
 * The version of a sandbox's guest agent: of one that an earlier process has made, perhaps an older one.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @return Its name and version, there until the sandbox is freed. NULL for NULL or an invalid handle.
 */
const char *blink_sandbox_agent(const struct blink_sandbox *sandbox);

/**
 * Why a sandbox has ended, if it has: the failure that all calls in it meet.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @return Borrowed from the sandbox, and there until that is freed: do not free it. NULL while it has not ended, and for NULL
 *         or an invalid handle.
 */
const struct blink_error *blink_sandbox_death(const struct blink_sandbox *sandbox);

/**
 * A port of a sandbox that programs of the host reach.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @param index    From 0, in the order in which the ports were asked for.
 * @param port     Set to the port, with the one that the host really has; its text belongs to the sandbox.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT also if the index is out of range.
 */
blink_status blink_sandbox_published(const struct blink_sandbox *sandbox,
                                     size_t index,
                                     struct blink_port *port,
                                     struct blink_error **err);

/**
 * The host's port that leads into a sandbox.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @param index    From 0, in the order in which the ports were asked for.
 * @return 0 if the index is out of range, and for NULL or an invalid handle.
 */
uint16_t blink_sandbox_published_port(const struct blink_sandbox *sandbox,
                                      size_t index);

/**
 * Runs a command and waits for it. A command that exits with another code than 0, or is killed when its time is over, is no
 * failure: the output says so; blink_output_check() makes one of it.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @param command  Borrowed.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. A cancelled command is killed with all that it has started.
 * @param out      Set on success; free with blink_output_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT and NOT_FOUND for a command that cannot be right; RESOURCE_EXHAUSTED;
 *         SANDBOX_DIED; CANCELLED.
 */
blink_status blink_sandbox_exec(const struct blink_sandbox *sandbox,
                                const struct blink_command *command,
                                const struct blink_cancel *cancel,
                                struct blink_output **out,
                                struct blink_error **err);

/**
 * Starts a command, whose input and output stream.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @param command  Borrowed.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. It cancels the start only.
 * @param out      Set on success; free with blink_process_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return As blink_sandbox_exec().
 */
blink_status blink_sandbox_spawn(const struct blink_sandbox *sandbox,
                                 const struct blink_command *command,
                                 const struct blink_cancel *cancel,
                                 struct blink_process **out,
                                 struct blink_error **err);

/**
 * Attaches to a process that was spawned earlier, also by an earlier host process. Whoever was attached to it is not any
 * more.
 *
 * @param sandbox        Borrowed. May be used from several threads at once.
 * @param id             As blink_process_id() gave it.
 * @param stdout_offset  Where its standard output goes on: the bytes that were read; 0 for the oldest of its last MiB.
 * @param stderr_offset  As stdout_offset, for its standard error.
 * @param cancel         Borrowed. NULL: it cannot be cancelled.
 * @param out            Set on success; free with blink_process_free(). NULL on failure.
 * @param err            May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND if it was released; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_sandbox_attach(const struct blink_sandbox *sandbox,
                                  uint64_t id,
                                  uint64_t stdout_offset,
                                  uint64_t stderr_offset,
                                  const struct blink_cancel *cancel,
                                  struct blink_process **out,
                                  struct blink_error **err);

/**
 * Lists the spawned processes that were not released.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @param out      Set on success; free with blink_process_list_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); SANDBOX_DIED.
 */
blink_status blink_sandbox_processes(const struct blink_sandbox *sandbox,
                                     struct blink_process_list **out,
                                     struct blink_error **err);

/**
 * The files of a sandbox.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @param out      Set on success; free with blink_files_free(). NULL on failure. It may outlive the sandbox's handle.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), even if it has ended: what is done with the files fails then.
 */
blink_status blink_sandbox_files(const struct blink_sandbox *sandbox,
                                 struct blink_files **out,
                                 struct blink_error **err);

/**
 * Asks a sandbox's agent for a sign of life.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @param cancel   Borrowed. NULL: it cannot be cancelled.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); SANDBOX_DIED; CANCELLED.
 */
blink_status blink_sandbox_ping(const struct blink_sandbox *sandbox,
                                const struct blink_cancel *cancel,
                                struct blink_error **err);

/**
 * Ends a sandbox and deletes everything in it, even if it is detached. Calls that are under way in it, and all that come
 * later, fail with BLINK_STATUS_SANDBOX_DIED; only this one does nothing then. The handle still wants to be freed.
 *
 * @param sandbox  Borrowed. May be used from several threads at once.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INTERNAL if something of it could not be removed, which the message names.
 */
blink_status blink_sandbox_remove(const struct blink_sandbox *sandbox,
                                  struct blink_error **err);

/**
 * Frees a sandbox's handle. The sandbox ends and is removed with it, unless it is detached or a session's.
 *
 * @param sandbox  Taken. NULL does nothing. Calls that are under way on it end first.
 */
void blink_sandbox_free(struct blink_sandbox *sandbox);

/**
 * Sets options to their defaults.
 *
 * @param options  Written.
 * @param size     sizeof(blink_sandbox_options).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_sandbox_options_init(struct blink_sandbox_options *options,
                                        size_t size);

/**
 * Opens a session and starts it, or creates it if there is none of that name.
 *
 * @param blink    Borrowed. May be used from several threads at once.
 * @param name     Its name.
 * @param options  Borrowed. NULL is the defaults.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. A session that is being made may be there afterwards.
 * @param out      Set on success; free with blink_session_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if the name is invalid, and for options that the session was not made with;
 *         BUSY while another process changes it, or has its micro-VM, which the message names; otherwise as
 *         blink_sandbox_create().
 */
blink_status blink_session_open(const struct blink *blink,
                                const char *name,
                                const struct blink_session_options *options,
                                const struct blink_cancel *cancel,
                                struct blink_session **out,
                                struct blink_error **err);

/**
 * Opens a session that is there, without starting it.
 *
 * @param blink        Borrowed. May be used from several threads at once.
 * @param name         Its name.
 * @param patience_ms  Milliseconds for which others are waited for that change it, or keep it from being changed later; 0
 *                     does not wait.
 * @param cancel       Borrowed. NULL: it cannot be cancelled.
 * @param out          Set on success; free with blink_session_free(). NULL on failure.
 * @param err          May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND; BUSY if another process changes it, or has its micro-VM; CANCELLED.
 */
blink_status blink_session_take(const struct blink *blink,
                                const char *name,
                                uint64_t patience_ms,
                                const struct blink_cancel *cancel,
                                struct blink_session **out,
                                struct blink_error **err);

/**
 * Removes what no session, checkpoint or fork needs, and what processes that ended half-way have left.
 *
 * @param blink        Borrowed. May be used from several threads at once.
 * @param freed_bytes  Set to how many bytes that has freed. May be NULL.
 * @param err          May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); BUSY while another process makes or removes something of the kind.
 */
blink_status blink_session_prune(const struct blink *blink,
                                 uint64_t *freed_bytes,
                                 struct blink_error **err);

/**
 * Names a session it stays the same when the session is renamed.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @return There until the session is freed. NULL for NULL or an invalid handle.
 */
const char *blink_session_id(const struct blink_session *session);

/**
 * The name that a session has now. Any process can change it: see blink_session_rename().
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @return There until the session is freed, also when the name changes. NULL for NULL or an invalid handle.
 */
const char *blink_session_name(const struct blink_session *session);

/**
 * Whether opening a session has made it.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @return false for NULL or an invalid handle.
 */
bool blink_session_was_created(const struct blink_session *session);

/**
 * What the archive that a session was imported from has asked for and was not given, each as "disk_mib 65536 (it is 2048)".
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param out      Set on success to a list, empty for a session that was opened; free with blink_strings_free(). NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0).
 */
blink_status blink_session_declined(const struct blink_session *session,
                                    struct blink_strings **out,
                                    struct blink_error **err);

/**
 * Starts a session from its disk, or takes up the sandbox that still runs. Does nothing if it is running already. Whatever needs
 * it to run starts it by itself.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. It may run afterwards.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return As blink_session_open(); NOT_FOUND once it was removed.
 */
blink_status blink_session_start(const struct blink_session *session,
                                 const struct blink_cancel *cancel,
                                 struct blink_error **err);

/**
 * Ends a session's sandbox; what its programs have written to its disk stays. Does nothing if it is not running.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); BUSY while other processes use it, whom the message names; INTERNAL if the machine cannot be
 *         ended.
 */
blink_status blink_session_stop(const struct blink_session *session,
                                struct blink_error **err);

/**
 * The sandbox that a session runs in, with its commands, processes, files, connections and ports. The session is started if it is
 * not running; where it runs already, this costs next to nothing.
 *
 * The sandbox ends with blink_session_stop() and blink_session_restore(): its calls fail with BLINK_STATUS_SANDBOX_DIED then, and
 * this function returns the next one. A session whose sandbox is held is not idle.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param cancel   Borrowed. NULL: it cannot be cancelled. The session may run afterwards.
 * @param out      Set on success; free with blink_sandbox_free(), which leaves the session as it is. NULL on failure.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return As blink_session_open(); NOT_FOUND once the session was removed.
 */
blink_status blink_session_sandbox(const struct blink_session *session,
                                   const struct blink_cancel *cancel,
                                   struct blink_sandbox **out,
                                   struct blink_error **err);

/**
 * Gives a session another name.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param name     The new one.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; ALREADY_EXISTS.
 */
blink_status blink_session_rename(const struct blink_session *session,
                                  const char *name,
                                  struct blink_error **err);

/**
 * Ends a session and removes everything of it: its disk, its checkpoints, its name. Forks of it stay whole. Calls that come
 * later fail with BLINK_STATUS_NOT_FOUND; only this one does nothing then. The handle still wants to be freed.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); BUSY while other processes have it open, whom the message names; INTERNAL if something of it
 *         could not be removed, which the message names.
 */
blink_status blink_session_remove(const struct blink_session *session,
                                  struct blink_error **err);

/**
 * As blink_session_remove(), also while other processes have the session open: their calls fail from then on.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); BUSY while another process changes it; INTERNAL if something of it could not be removed, which
 *         the message names.
 */
blink_status blink_session_remove_by_force(const struct blink_session *session,
                                           struct blink_error **err);

/**
 * Lets go of a session, which stays. Its machine ends with its last user, unless it is warm: for a micro-VM that is a power
 * cut, so call blink_session_stop() first where the last seconds' writes matter.
 *
 * @param session  Taken. NULL does nothing. Calls that are under way on it end first.
 */
void blink_session_free(struct blink_session *session);

/**
 * Sets up a blink_session_info to be filled in.
 *
 * @param info  Written.
 * @param size  sizeof(blink_session_info).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_session_info_init(struct blink_session_info *info,
                                     size_t size);

/**
 * Lists all sessions of the home, by name, whoever has them.
 *
 * @param blink  Borrowed. May be used from several threads at once.
 * @param out    Set on success; free with blink_session_list_free(). NULL on failure.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); CORRUPT and UNSUPPORTED if the list of sessions is damaged, or of a later version.
 */
blink_status blink_session_list_all(const struct blink *blink,
                                    struct blink_session_list **out,
                                    struct blink_error **err);

/**
 * What there is to say about a session, whoever has it.
 *
 * @param blink  Borrowed. May be used from several threads at once.
 * @param name   Its name.
 * @param info   Set up with blink_session_info_init(), and filled in; free what is in it with blink_session_info_dispose().
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND.
 */
blink_status blink_session_info_find(const struct blink *blink,
                                     const char *name,
                                     struct blink_session_info *info,
                                     struct blink_error **err);

/**
 * What there is to say about a session that this process has, whatever its name is now.
 *
 * @param session  Borrowed. May be used from several threads at once.
 * @param info     Set up with blink_session_info_init(), and filled in; free what is in it with
 *                 blink_session_info_dispose().
 * @param err      May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_session_info_get(const struct blink_session *session,
                                    struct blink_session_info *info,
                                    struct blink_error **err);

/**
 * Frees what is in a blink_session_info, and sets it up to be filled in again.
 *
 * @param info  What blink_session_info_get() or blink_session_info_find() has filled in, or what was only set up. NULL does
 *              nothing.
 */
void blink_session_info_dispose(struct blink_session_info *info);

/**
 * The number of sessions in a list.
 *
 * @param list  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
size_t blink_session_list_count(const struct blink_session_list *list);

/**
 * A session of a list.
 *
 * @param list   Borrowed. May be used from several threads at once.
 * @param index  From 0.
 * @param info   Set up with blink_session_info_init(), and filled in. Its strings belong to the list.
 * @param err    May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
 */
blink_status blink_session_list_get(const struct blink_session_list *list,
                                    size_t index,
                                    struct blink_session_info *info,
                                    struct blink_error **err);

/**
 * Frees a list with its strings.
 *
 * @param list  Taken. NULL does nothing.
 */
void blink_session_list_free(struct blink_session_list *list);

/**
 * Sets options to their defaults.
 *
 * @param options  Written.
 * @param size     sizeof(blink_session_options).
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
 *         then fails, too.
 */
blink_status blink_session_options_init(struct blink_session_options *options,
                                        size_t size);

/**
 * The processes of a session that runs, also while another process has the session, or another handle of this one: of a
 * session that is warm and in a namespace. Others are taken first, as by blink_session_take().
 *
 * @param blink   Borrowed. May be used from several threads at once.
 * @param name    The session's name.
 * @param cancel  Borrowed. NULL: it cannot be cancelled.
 * @param out     Set on success; free with blink_processes_free(). NULL on failure.
 * @param err     May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND if there is no such session, and where it does not run; BUSY if another process
 *         starts it right now, or has its micro-VM, for longer than 10 s; CANCELLED.
 */
blink_status blink_processes_of(const struct blink *blink,
                                const char *name,
                                const struct blink_cancel *cancel,
                                struct blink_processes **out,
                                struct blink_error **err);

/**
 * The isolation that a session's processes have.
 *
 * @param processes  Borrowed. May be used from several threads at once.
 * @return "microvm" or "namespace", a static string. NULL for NULL or an invalid handle.
 */
const char *blink_processes_isolation(const struct blink_processes *processes);

/**
 * Lists all processes that were spawned and not released, and those that somebody waits for right now.
 *
 * @param processes  Borrowed. May be used from several threads at once.
 * @param out        Set on success; free with blink_process_list_free(). NULL on failure.
 * @param err        May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); SANDBOX_DIED if the session's sandbox has ended.
 */
blink_status blink_processes_list(const struct blink_processes *processes,
                                  struct blink_process_list **out,
                                  struct blink_error **err);

/**
 * What is kept of a process's output so far. Whoever is attached to it goes on.
 *
 * @param processes  Borrowed. May be used from several threads at once.
 * @param id         As blink_process_id() or a list gave it.
 * @param cancel     Borrowed. NULL: it cannot be cancelled.
 * @param out        Set on success; free with blink_process_logs_free(). NULL on failure.
 * @param err        May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND if it was released; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_processes_logs(const struct blink_processes *processes,
                                  uint64_t id,
                                  const struct blink_cancel *cancel,
                                  struct blink_process_logs **out,
                                  struct blink_error **err);

/**
 * Waits until a process has ended. Whoever is attached to it goes on.
 *
 * @param processes   Borrowed. May be used from several threads at once.
 * @param id          As blink_process_id() or a list gave it.
 * @param timeout_ms  Milliseconds to wait; 0 means no limit.
 * @param exit        Set up with blink_exit_init(), and filled in; its text belongs to the blink_processes. May be NULL.
 * @param cancel      Borrowed. NULL: it cannot be cancelled. The program goes on.
 * @param err         May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); TIMEOUT if it has not ended by then, and goes on; NOT_FOUND if it was released;
 *         SANDBOX_DIED; CANCELLED.
 */
blink_status blink_processes_wait(const struct blink_processes *processes,
                                  uint64_t id,
                                  uint64_t timeout_ms,
                                  struct blink_exit *exit,
                                  const struct blink_cancel *cancel,
                                  struct blink_error **err);

/**
 * Sends a signal to a process's group.
 *
 * @param processes  Borrowed. May be used from several threads at once.
 * @param id         As blink_process_id() or a list gave it.
 * @param signal     Linux's number, such as 15 for SIGTERM.
 * @param err        May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if it is not a signal; NOT_FOUND if it was released; SANDBOX_DIED.
 */
blink_status blink_processes_signal(const struct blink_processes *processes,
                                    uint64_t id,
                                    int32_t signal,
                                    struct blink_error **err);

/**
 * Kills a process and everything that it has started.
 *
 * @param processes  Borrowed. May be used from several threads at once.
 * @param id         As blink_process_id() or a list gave it.
 * @param err        May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND if it was released; SANDBOX_DIED.
 */
blink_status blink_processes_kill(const struct blink_processes *processes,
                                  uint64_t id,
                                  struct blink_error **err);

/**
 * Attaches to a process, as blink_sandbox_attach(): whoever was attached to it is not any more.
 *
 * @param processes      Borrowed. May be used from several threads at once.
 * @param id             As blink_process_id() or a list gave it.
 * @param stdout_offset  Where its standard output goes on; 0 for the oldest of its last MiB.
 * @param stderr_offset  As stdout_offset, for its standard error.
 * @param cancel         Borrowed. NULL: it cannot be cancelled.
 * @param out            Set on success; free with blink_process_free(). NULL on failure. It may outlive the blink_processes.
 * @param err            May be NULL. If set, free with blink_error_free().
 * @return BLINK_STATUS_OK (0); NOT_FOUND if it was released; SANDBOX_DIED; CANCELLED.
 */
blink_status blink_processes_attach(const struct blink_processes *processes,
                                    uint64_t id,
                                    uint64_t stdout_offset,
                                    uint64_t stderr_offset,
                                    const struct blink_cancel *cancel,
                                    struct blink_process **out,
                                    struct blink_error **err);

/**
 * Lets go of a session's processes, which go on.
 *
 * @param processes  Taken. NULL does nothing. Calls that are under way on it end first.
 */
void blink_processes_free(struct blink_processes *processes);

/**
 * Names a status, as this header does.
 *
 * @param status  Any number.
 * @return A static string, such as "BLINK_STATUS_NOT_FOUND"; NULL for a number that is no status of this version.
 */
const char *blink_status_name(int32_t status);

/**
 * Says which version of the library runs.
 *
 * @return A static string such as "0.1.0".
 */
const char *blink_version(void);

/**
 * The number of strings in a list.
 *
 * @param strings  Borrowed. May be used from several threads at once.
 * @return 0 for NULL or an invalid handle.
 */
size_t blink_strings_count(const struct blink_strings *strings);

/**
 * A string of a list.
 *
 * @param strings  Borrowed. May be used from several threads at once.
 * @param index    From 0.
 * @return Text in UTF-8, there until the list is freed. NULL if the index is out of range.
 */
const char *blink_strings_get(const struct blink_strings *strings,
                              size_t index);

/**
 * Frees a list with its strings.
 *
 * @param strings  Taken. NULL does nothing.
 */
void blink_strings_free(struct blink_strings *strings);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BLINK_H */
