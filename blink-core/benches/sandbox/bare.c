/* The least that a sandbox can cost: the same namespaces and mounts as one of Blink's, and a program in them.
 *
 *   bare LOWER DISK PROGRAM
 *
 * DISK has the folders `upper` and `work`.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
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

/* A user namespace with this map, made by a process that ends at once. */
static int user_namespace(const char *map)
{
    pid_t child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    CHECK(child);
    if (child == 0)
        for (;;)
            pause();
    char path[64];
    static const char *const maps[] = {"uid_map", "gid_map"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", child, maps[i]);
        write_file(path, map);
    }
    snprintf(path, sizeof path, "/proc/%d/ns/user", child);
    int namespace = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(namespace);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return namespace;
}

/* A folder whose files belong to other users, where a host's root asks for it. */
static int mapped(const char *path, int owners)
{
    int tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    CHECK(tree);
    if (owners >= 0) {
        struct mount_attr wanted = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = owners};
        CHECK(mount_setattr(tree, "", AT_EMPTY_PATH, &wanted, sizeof wanted));
    }
    return tree;
}

static int overlay(char **arguments, int owners)
{
    char lower[16], upper[16], work[16];
    int layer = mapped(arguments[1], owners), disk = mapped(arguments[2], owners);
    snprintf(lower, sizeof lower, "%d", layer);
    snprintf(upper, sizeof upper, "%d/upper", disk);
    snprintf(work, sizeof work, "%d/work", disk);
    CHECK(chdir("/proc/self/fd"));
    int context = fsopen("overlay", FSOPEN_CLOEXEC);
    CHECK(context);
    CHECK(fsconfig(context, FSCONFIG_SET_STRING, "lowerdir", lower, 0));
    CHECK(fsconfig(context, FSCONFIG_SET_STRING, "upperdir", upper, 0));
    CHECK(fsconfig(context, FSCONFIG_SET_STRING, "workdir", work, 0));
    if (geteuid() == 0) {
        CHECK(fsconfig(context, FSCONFIG_SET_STRING, "redirect_dir", "on", 0));
        CHECK(fsconfig(context, FSCONFIG_SET_STRING, "index", "on", 0));
    } else {
        CHECK(fsconfig(context, FSCONFIG_SET_FLAG, "userxattr", NULL, 0));
    }
    CHECK(fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    int made = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    CHECK(made);
    CHECK(chdir("/"));
    return made;
}

static void start_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(ioctl(any, SIOCSIFFLAGS, &request));
    close(any);
}

static void hide_of_proc(void)
{
    static const char *const unchangeable[] = {"bus", "fs", "irq", "sys", "sysrq-trigger"};
    static const char *const hidden[] = {
        "acpi", "asound", "config.gz", "interrupts", "kallsyms", "kcore", "key-users", "keys", "kmsg", "kpagecgroup",
        "kpagecount", "kpageflags", "latency_stats", "sched_debug", "schedstat", "scsi", "slabinfo", "timer_list",
        "timer_stats", "vmallocinfo"};
    char path[64];
    for (size_t i = 0; i < sizeof unchangeable / sizeof *unchangeable; i++) {
        snprintf(path, sizeof path, "proc/%s", unchangeable[i]);
        if (mount(path, path, NULL, MS_BIND, NULL) == 0)
            CHECK(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    }
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        struct stat found;
        snprintf(path, sizeof path, "proc/%s", hidden[i]);
        if (lstat(path, &found) < 0)
            continue;
        if (S_ISDIR(found.st_mode))
            CHECK(mount("nothing", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k"));
        else
            CHECK(mount("/dev/null", path, NULL, MS_BIND, NULL));
    }
}

static int run(char **arguments, int made)
{
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    /* Whatever is there: it is seen by nobody else. */
    const char *root = "/mnt";
    if (made < 0)
        made = overlay(arguments, -1);
    CHECK(move_mount(made, "", AT_FDCWD, root, MOVE_MOUNT_F_EMPTY_PATH));
    CHECK(chdir(root));
    CHECK(mount("/usr", "usr", NULL, MS_BIND | MS_REC, NULL));
    CHECK(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    hide_of_proc();
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
    CHECK(sethostname("bare", 4));
    start_loopback();
    close(user_namespace("0 0 1\n"));
    execl(arguments[3], arguments[3], (char *)NULL);
    perror(arguments[3]);
    return 1;
}

int main(int count, char **arguments)
{
    if (count != 4)
        return 2;
    char uids[64], gids[64];
    snprintf(uids, sizeof uids, "0 %d 1", geteuid());
    snprintf(gids, sizeof gids, "0 %d 1", getegid());
    int made = -1;
    if (geteuid() == 0) {
        int owners = user_namespace("0 0 65536\n");
        made = overlay(arguments, owners);
        close(owners);
    }
    CHECK(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP));
    write_file("/proc/self/uid_map", uids);
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/gid_map", gids);
    pid_t child = fork();
    CHECK(child);
    if (child == 0)
        return run(arguments, made);
    int status;
    CHECK(waitpid(child, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
