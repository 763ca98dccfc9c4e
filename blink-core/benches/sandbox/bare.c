/* The least that a sandbox can cost: the same namespaces and mounts as one of Blink's, and a program in them.
 *
 *   bare LOWER UPPER WORK PROGRAM
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(call)                                                                                                     \
    do {                                                                                                                \
        if ((call) < 0) {                                                                                               \
            perror(#call);                                                                                              \
            exit(1);                                                                                                    \
        }                                                                                                               \
    } while (0)

static void write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY);
    CHECK(file);
    CHECK(write(file, text, strlen(text)));
    close(file);
}

static int run(char **arguments)
{
    char options[4096];
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s,userxattr", arguments[1], arguments[2], arguments[3]);
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    /* Whatever is there: it is seen by nobody else. */
    const char *root = "/mnt";
    CHECK(mount("overlay", root, "overlay", 0, options));
    CHECK(chdir(root));
    CHECK(mount("/usr", "usr", NULL, MS_BIND | MS_REC, NULL));
    CHECK(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    CHECK(mount("dev", "dev", "tmpfs", MS_NOSUID, "mode=755"));
    static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        char here[32], there[32];
        snprintf(here, sizeof here, "/dev/%s", devices[i]);
        snprintf(there, sizeof there, "dev/%s", devices[i]);
        close(open(there, O_CREAT, 0666));
        CHECK(mount(here, there, NULL, MS_BIND, NULL));
    }
    CHECK(mkdir("dev/pts", 0755));
    CHECK(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666,mode=620"));
    CHECK(mkdir("dev/shm", 0755));
    CHECK(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"));
    CHECK(mount("run", "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"));
    CHECK(syscall(SYS_pivot_root, ".", "."));
    CHECK(umount2(".", MNT_DETACH));
    CHECK(chdir("/"));
    execl(arguments[4], arguments[4], (char *)NULL);
    perror(arguments[4]);
    return 1;
}

int main(int count, char **arguments)
{
    if (count != 5)
        return 2;
    char uids[64], gids[64];
    snprintf(uids, sizeof uids, "0 %d 1", geteuid());
    snprintf(gids, sizeof gids, "0 %d 1", getegid());
    CHECK(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP));
    write_file("/proc/self/uid_map", uids);
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/gid_map", gids);
    pid_t child = fork();
    CHECK(child);
    if (child == 0)
        return run(arguments);
    int status;
    CHECK(waitpid(child, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
