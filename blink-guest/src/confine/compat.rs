//! The filter of programs of 32 bits, whose calls have other numbers.
//!
//! What has a counterpart among the calls of 64 bits gets its answer, rules about arguments included: these have the same places.
//! Of what only these programs have, most is an older or newer form of a call that is allowed. `socketcall` has the family of a
//! socket in memory, where a filter cannot read it: so it makes no sockets. Libraries that use `socket` itself can.

use super::filter::{Answer, Filter, Rule, Test};

/// Calls, and their numbers here.
#[rustfmt::skip]
const SAME: &[(i64, u32)] = &[
    (libc::SYS__sysctl, 149), (libc::SYS_accept4, 364), (libc::SYS_access, 33), (libc::SYS_acct, 51),
    (libc::SYS_add_key, 286), (libc::SYS_adjtimex, 124), (libc::SYS_alarm, 27), (libc::SYS_arch_prctl, 384),
    (libc::SYS_bind, 361), (libc::SYS_bpf, 357), (libc::SYS_brk, 45), (libc::SYS_capget, 184),
    (libc::SYS_capset, 185), (libc::SYS_chdir, 12), (libc::SYS_chmod, 15), (libc::SYS_chown, 182),
    (libc::SYS_chroot, 61), (libc::SYS_clock_adjtime, 343), (libc::SYS_clock_getres, 266),
    (libc::SYS_clock_gettime, 265), (libc::SYS_clock_nanosleep, 267), (libc::SYS_clock_settime, 264),
    (libc::SYS_clone, 120), (libc::SYS_close, 6), (libc::SYS_close_range, 436), (libc::SYS_connect, 362),
    (libc::SYS_copy_file_range, 377), (libc::SYS_creat, 8), (libc::SYS_delete_module, 129), (libc::SYS_dup, 41),
    (libc::SYS_dup2, 63), (libc::SYS_dup3, 330), (libc::SYS_epoll_create, 254), (libc::SYS_epoll_create1, 329),
    (libc::SYS_epoll_ctl, 255), (libc::SYS_epoll_pwait, 319), (libc::SYS_epoll_pwait2, 441),
    (libc::SYS_epoll_wait, 256), (libc::SYS_eventfd, 323), (libc::SYS_eventfd2, 328), (libc::SYS_execve, 11),
    (libc::SYS_execveat, 358), (libc::SYS_exit, 1), (libc::SYS_exit_group, 252), (libc::SYS_faccessat, 307),
    (libc::SYS_faccessat2, 439), (libc::SYS_fadvise64, 250), (libc::SYS_fallocate, 324),
    (libc::SYS_fanotify_init, 338), (libc::SYS_fanotify_mark, 339), (libc::SYS_fchdir, 133), (libc::SYS_fchmod, 94),
    (libc::SYS_fchmodat, 306), (libc::SYS_fchown, 95), (libc::SYS_fchownat, 298), (libc::SYS_fcntl, 55),
    (libc::SYS_fdatasync, 148), (libc::SYS_fgetxattr, 231), (libc::SYS_finit_module, 350),
    (libc::SYS_flistxattr, 234), (libc::SYS_flock, 143), (libc::SYS_fork, 2), (libc::SYS_fremovexattr, 237),
    (libc::SYS_fsconfig, 431), (libc::SYS_fsetxattr, 228), (libc::SYS_fsmount, 432), (libc::SYS_fsopen, 430),
    (libc::SYS_fspick, 433), (libc::SYS_fstat, 108), (libc::SYS_fstatfs, 100), (libc::SYS_fsync, 118),
    (libc::SYS_ftruncate, 93), (libc::SYS_futex, 240), (libc::SYS_futex_waitv, 449), (libc::SYS_futimesat, 299),
    (libc::SYS_get_mempolicy, 275), (libc::SYS_get_robust_list, 312), (libc::SYS_getcpu, 318),
    (libc::SYS_getcwd, 183), (libc::SYS_getdents, 141), (libc::SYS_getdents64, 220), (libc::SYS_getegid, 50),
    (libc::SYS_geteuid, 49), (libc::SYS_getgid, 47), (libc::SYS_getgroups, 80), (libc::SYS_getitimer, 105),
    (libc::SYS_getpeername, 368), (libc::SYS_getpgid, 132), (libc::SYS_getpgrp, 65), (libc::SYS_getpid, 20),
    (libc::SYS_getppid, 64), (libc::SYS_getpriority, 96), (libc::SYS_getrandom, 355), (libc::SYS_getresgid, 171),
    (libc::SYS_getresuid, 165), (libc::SYS_getrlimit, 76), (libc::SYS_getrusage, 77), (libc::SYS_getsid, 147),
    (libc::SYS_getsockname, 367), (libc::SYS_getsockopt, 365), (libc::SYS_gettid, 224), (libc::SYS_gettimeofday, 78),
    (libc::SYS_getuid, 24), (libc::SYS_getxattr, 229), (libc::SYS_init_module, 128),
    (libc::SYS_inotify_add_watch, 292), (libc::SYS_inotify_init, 291), (libc::SYS_inotify_init1, 332),
    (libc::SYS_inotify_rm_watch, 293), (libc::SYS_io_cancel, 249), (libc::SYS_io_destroy, 246),
    (libc::SYS_io_getevents, 247), (libc::SYS_io_setup, 245), (libc::SYS_io_submit, 248),
    (libc::SYS_io_uring_enter, 426), (libc::SYS_io_uring_register, 427), (libc::SYS_io_uring_setup, 425),
    (libc::SYS_ioctl, 54), (libc::SYS_ioperm, 101), (libc::SYS_iopl, 110), (libc::SYS_ioprio_get, 290),
    (libc::SYS_ioprio_set, 289), (libc::SYS_kcmp, 349), (libc::SYS_kexec_load, 283), (libc::SYS_keyctl, 288),
    (libc::SYS_kill, 37), (libc::SYS_landlock_add_rule, 445), (libc::SYS_landlock_create_ruleset, 444),
    (libc::SYS_landlock_restrict_self, 446), (libc::SYS_lchown, 16), (libc::SYS_lgetxattr, 230), (libc::SYS_link, 9),
    (libc::SYS_linkat, 303), (libc::SYS_listen, 363), (libc::SYS_listxattr, 232), (libc::SYS_llistxattr, 233),
    (libc::SYS_lremovexattr, 236), (libc::SYS_lseek, 19), (libc::SYS_lsetxattr, 227), (libc::SYS_lstat, 107),
    (libc::SYS_madvise, 219), (libc::SYS_mbind, 274), (libc::SYS_membarrier, 375), (libc::SYS_memfd_create, 356),
    (libc::SYS_migrate_pages, 294), (libc::SYS_mincore, 218), (libc::SYS_mkdir, 39), (libc::SYS_mkdirat, 296),
    (libc::SYS_mknod, 14), (libc::SYS_mknodat, 297), (libc::SYS_mlock, 150), (libc::SYS_mlock2, 376),
    (libc::SYS_mlockall, 152), (libc::SYS_mmap, 90), (libc::SYS_modify_ldt, 123), (libc::SYS_mount, 21),
    (libc::SYS_mount_setattr, 442), (libc::SYS_move_mount, 429), (libc::SYS_move_pages, 317),
    (libc::SYS_mprotect, 125), (libc::SYS_mq_getsetattr, 282), (libc::SYS_mq_notify, 281), (libc::SYS_mq_open, 277),
    (libc::SYS_mq_timedreceive, 280), (libc::SYS_mq_timedsend, 279), (libc::SYS_mq_unlink, 278),
    (libc::SYS_mremap, 163), (libc::SYS_msgctl, 402), (libc::SYS_msgget, 399), (libc::SYS_msgrcv, 401),
    (libc::SYS_msgsnd, 400), (libc::SYS_msync, 144), (libc::SYS_munlock, 151), (libc::SYS_munlockall, 153),
    (libc::SYS_munmap, 91), (libc::SYS_name_to_handle_at, 341), (libc::SYS_nanosleep, 162), (libc::SYS_open, 5),
    (libc::SYS_open_by_handle_at, 342), (libc::SYS_open_tree, 428), (libc::SYS_openat, 295), (libc::SYS_openat2, 437),
    (libc::SYS_pause, 29), (libc::SYS_perf_event_open, 336), (libc::SYS_personality, 136),
    (libc::SYS_pidfd_getfd, 438), (libc::SYS_pidfd_open, 434), (libc::SYS_pidfd_send_signal, 424),
    (libc::SYS_pipe, 42), (libc::SYS_pipe2, 331), (libc::SYS_pivot_root, 217), (libc::SYS_pkey_alloc, 381),
    (libc::SYS_pkey_free, 382), (libc::SYS_pkey_mprotect, 380), (libc::SYS_poll, 168), (libc::SYS_ppoll, 309),
    (libc::SYS_prctl, 172), (libc::SYS_pread64, 180), (libc::SYS_preadv, 333), (libc::SYS_preadv2, 378),
    (libc::SYS_prlimit64, 340), (libc::SYS_process_madvise, 440), (libc::SYS_process_mrelease, 448),
    (libc::SYS_process_vm_readv, 347), (libc::SYS_process_vm_writev, 348), (libc::SYS_pselect6, 308),
    (libc::SYS_ptrace, 26), (libc::SYS_pwrite64, 181), (libc::SYS_pwritev, 334), (libc::SYS_pwritev2, 379),
    (libc::SYS_quotactl, 131), (libc::SYS_quotactl_fd, 443), (libc::SYS_read, 3), (libc::SYS_readahead, 225),
    (libc::SYS_readlink, 85), (libc::SYS_readlinkat, 305), (libc::SYS_readv, 145), (libc::SYS_reboot, 88),
    (libc::SYS_recvfrom, 371), (libc::SYS_recvmmsg, 337), (libc::SYS_recvmsg, 372), (libc::SYS_remap_file_pages, 257),
    (libc::SYS_removexattr, 235), (libc::SYS_rename, 38), (libc::SYS_renameat, 302), (libc::SYS_renameat2, 353),
    (libc::SYS_request_key, 287), (libc::SYS_restart_syscall, 0), (libc::SYS_rmdir, 40), (libc::SYS_rseq, 386),
    (libc::SYS_rt_sigaction, 174), (libc::SYS_rt_sigpending, 176), (libc::SYS_rt_sigprocmask, 175),
    (libc::SYS_rt_sigqueueinfo, 178), (libc::SYS_rt_sigreturn, 173), (libc::SYS_rt_sigsuspend, 179),
    (libc::SYS_rt_sigtimedwait, 177), (libc::SYS_rt_tgsigqueueinfo, 335), (libc::SYS_sched_get_priority_max, 159),
    (libc::SYS_sched_get_priority_min, 160), (libc::SYS_sched_getaffinity, 242), (libc::SYS_sched_getattr, 352),
    (libc::SYS_sched_getparam, 155), (libc::SYS_sched_getscheduler, 157), (libc::SYS_sched_rr_get_interval, 161),
    (libc::SYS_sched_setaffinity, 241), (libc::SYS_sched_setattr, 351), (libc::SYS_sched_setparam, 154),
    (libc::SYS_sched_setscheduler, 156), (libc::SYS_sched_yield, 158), (libc::SYS_seccomp, 354),
    (libc::SYS_select, 82), (libc::SYS_semctl, 394), (libc::SYS_semget, 393), (libc::SYS_sendfile, 187),
    (libc::SYS_sendmmsg, 345), (libc::SYS_sendmsg, 370), (libc::SYS_sendto, 369), (libc::SYS_set_mempolicy, 276),
    (libc::SYS_set_mempolicy_home_node, 450), (libc::SYS_set_robust_list, 311), (libc::SYS_set_tid_address, 258),
    (libc::SYS_setdomainname, 121), (libc::SYS_setfsgid, 139), (libc::SYS_setfsuid, 138), (libc::SYS_setgid, 46),
    (libc::SYS_setgroups, 81), (libc::SYS_sethostname, 74), (libc::SYS_setitimer, 104), (libc::SYS_setns, 346),
    (libc::SYS_setpgid, 57), (libc::SYS_setpriority, 97), (libc::SYS_setregid, 71), (libc::SYS_setresgid, 170),
    (libc::SYS_setresuid, 164), (libc::SYS_setreuid, 70), (libc::SYS_setrlimit, 75), (libc::SYS_setsid, 66),
    (libc::SYS_setsockopt, 366), (libc::SYS_settimeofday, 79), (libc::SYS_setuid, 23), (libc::SYS_setxattr, 226),
    (libc::SYS_shmat, 397), (libc::SYS_shmctl, 396), (libc::SYS_shmdt, 398), (libc::SYS_shmget, 395),
    (libc::SYS_shutdown, 373), (libc::SYS_sigaltstack, 186), (libc::SYS_signalfd, 321), (libc::SYS_signalfd4, 327),
    (libc::SYS_socket, 359), (libc::SYS_socketpair, 360), (libc::SYS_splice, 313), (libc::SYS_stat, 106),
    (libc::SYS_statfs, 99), (libc::SYS_statx, 383), (libc::SYS_swapoff, 115), (libc::SYS_swapon, 87),
    (libc::SYS_symlink, 83), (libc::SYS_symlinkat, 304), (libc::SYS_sync, 36), (libc::SYS_sync_file_range, 314),
    (libc::SYS_syncfs, 344), (libc::SYS_sysfs, 135), (libc::SYS_sysinfo, 116), (libc::SYS_syslog, 103),
    (libc::SYS_tee, 315), (libc::SYS_tgkill, 270), (libc::SYS_time, 13), (libc::SYS_timer_create, 259),
    (libc::SYS_timer_delete, 263), (libc::SYS_timer_getoverrun, 262), (libc::SYS_timer_gettime, 261),
    (libc::SYS_timer_settime, 260), (libc::SYS_timerfd_create, 322), (libc::SYS_timerfd_gettime, 326),
    (libc::SYS_timerfd_settime, 325), (libc::SYS_times, 43), (libc::SYS_tkill, 238), (libc::SYS_truncate, 92),
    (libc::SYS_umask, 60), (libc::SYS_umount2, 52), (libc::SYS_uname, 122), (libc::SYS_unlink, 10),
    (libc::SYS_unlinkat, 301), (libc::SYS_unshare, 310), (libc::SYS_uselib, 86), (libc::SYS_userfaultfd, 374),
    (libc::SYS_ustat, 62), (libc::SYS_utime, 30), (libc::SYS_utimensat, 320), (libc::SYS_utimes, 271),
    (libc::SYS_vfork, 190), (libc::SYS_vhangup, 111), (libc::SYS_vmsplice, 316), (libc::SYS_wait4, 114),
    (libc::SYS_waitid, 284), (libc::SYS_write, 4), (libc::SYS_writev, 146), (libc::SYS_fchmodat2, 452),
];

/// Forms that only these programs have of calls that are allowed: with wider or narrower offsets, times, and ids, or a library's
/// own areas of memory.
#[rustfmt::skip]
const ALLOWED: &[u32] = &[
    7, 34, 48, 67, 68, 69, 72, 73, 117, 119, 126, 140, 142, 191, 192, 193, 194, 195, 196, 197, 198, 199, 200, 201,
    202, 203, 204, 205, 206, 207, 208, 209, 210, 211, 212, 213, 214, 215, 216, 221, 239, 243, 244, 268, 269, 272, 300,
    403, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 416, 417, 418, 419, 420, 421, 422, 423,
];

/// To set the clock, and to unmount.
const REFUSED: &[u32] = &[22, 25, 404];

const SOCKETCALL: u32 = 102;

/// The operations of `socketcall` that make sockets: one, or a pair.
const MAKE_SOCKETS: &[u32] = &[1, 8];

/// Adds it to a filter that has all its answers.
pub(super) fn add_to(filter: &mut Filter) {
    let mut own = Filter::new(libc::ENOSYS);
    for (call, number) in SAME {
        if let Some(answer) = filter.answer_to(*call) {
            own.answer(&[i64::from(*number)], &answer.clone());
        }
    }
    let all =
        |numbers: &[u32]| -> Vec<i64> { numbers.iter().map(|call| i64::from(*call)).collect() };
    own.answer(&all(ALLOWED), &Answer::Allowed);
    own.answer(&all(REFUSED), &Answer::Fails(libc::EPERM));
    let makes_sockets = Rule {
        error: libc::EPERM,
        tests: vec![Test::one_of(0, MAKE_SOCKETS)],
    };
    own.answer(&all(&[SOCKETCALL]), &Answer::FailsIf(vec![makes_sockets]));
    filter.set_narrow(own);
}
