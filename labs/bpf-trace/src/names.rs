//! Numbers as names: system calls and errors.

/// The system calls of x86-64 from number 0 on, as in arch/x86/entry/syscalls/syscall_64.tbl.
const FROM_0: &str = "
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
    rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore
    madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket
    connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair
    setsockopt getsockopt clone fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget
    msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename
    mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown umask gettimeofday
    getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid
    getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid
    getpgid setfsuid setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo
    rt_sigsuspend sigaltstack utime mknod uselib personality ustat statfs fstatfs sysfs getpriority
    setpriority sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
    sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup modify_ldt
    pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2
    swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module
    get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid
    readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
    removexattr lremovexattr fremovexattr tkill time futex sched_setaffinity sched_getaffinity
    set_thread_area io_setup io_destroy io_getevents io_submit io_cancel get_thread_area lookup_dcookie
    epoll_create epoll_ctl_old epoll_wait_old remap_file_pages getdents64 set_tid_address restart_syscall
    semtimedop fadvise64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete
    clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes
    vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
    mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init
    inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat
    unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list
    get_robust_list splice tee sync_file_range vmsplice move_pages utimensat epoll_pwait signalfd
    timerfd_create eventfd fallocate timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2
    epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg
    fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg
    setns getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2
    seccomp getrandom memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2
    copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq";

/// Those from number 424 on: since then all architectures give a new call the same number. Up to Linux 6.19.
const FROM_424: &str = "
    pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig
    fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2
    mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret
    process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake
    futex_wait futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal
    setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr listns";

/// The bit by which the programs mark calls that came through the 32-bit entry, which has a table of its own.
const COMPAT: u32 = 1 << 31;

/// The name of a system call; its number where it has none here, with `i386:` before it for a 32-bit program's.
pub fn syscall(nr: u32) -> String {
    if nr & COMPAT != 0 {
        return format!("i386:{}", nr & !COMPAT);
    }
    let name = match nr {
        335 => Some("uretprobe"),
        336 => Some("uprobe"),
        0..335 => FROM_0.split_whitespace().nth(nr as usize),
        424.. => FROM_424.split_whitespace().nth(nr as usize - 424),
        _ => None,
    };
    name.map_or_else(|| format!("syscall {nr}"), str::to_owned)
}

/// The number of a system call, by name or number.
pub fn syscall_number(name: &str) -> Option<u32> {
    let at = |table: &str| table.split_whitespace().position(|n| n == name).map(|at| at as u32);
    at(FROM_0).or_else(|| at(FROM_424).map(|at| at + 424)).or_else(|| name.parse().ok())
}

/// The kind of a map, as in enum bpf_map_type; its number where it has no name here.
pub fn map_kind(kind: u32) -> String {
    let name = match kind {
        1 => "hash",
        2 => "array",
        5 => "hash, a copy for each CPU",
        6 => "array, a copy for each CPU",
        7 => "stacks",
        9 => "hash, oldest out",
        27 => "ring buffer",
        29 => "storage of tasks",
        other => return format!("kind {other}"),
    };
    name.into()
}

/// The names nearest to one that does not exist, for a hint.
pub fn similar_syscalls(name: &str) -> Vec<&'static str> {
    nearest(name, FROM_0.split_whitespace().chain(FROM_424.split_whitespace()))
}

/// The three names that are nearest to `wanted`, none that has little in common with it.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let limit = wanted.chars().count().div_ceil(2).max(2);
    let mut near: Vec<(usize, &str)> =
        names.map(|name| (distance(wanted, name), name)).filter(|(distance, _)| *distance <= limit).collect();
    near.sort();
    near.dedup();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Letters to insert, remove or replace to make one word of the other (Levenshtein, 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// An errno's symbol; those that only tracers see (the kernel restarts the call) by the names of
/// include/linux/errno.h.
pub fn errno(errno: u32) -> String {
    match errno {
        512 => "ERESTARTSYS".into(),
        513 => "ERESTARTNOINTR".into(),
        514 => "ERESTARTNOHAND".into(),
        516 => "ERESTART_RESTARTBLOCK".into(),
        _ => kit::SysError::new("", errno as i32).symbol(),
    }
}

/// What was said last, for those who ask the same again and again.
#[derive(Debug, Clone, Default)]
pub struct Memo {
    of: Option<u64>,
    said: String,
}

impl Memo {
    /// What `name` says of `number`.
    pub fn of(&mut self, number: u64, name: impl FnOnce(u64) -> String) -> &str {
        if self.of != Some(number) {
            *self = Self { of: Some(number), said: name(number) };
        }
        &self.said
    }
}

/// The call that opens, of the four that the view `open` sees.
pub fn open_call(nr: u32) -> &'static str {
    match nr {
        2 => "open",
        85 => "creat",
        257 => "openat",
        _ => "openat2",
    }
}

/// Flags of open(2), with those first that contain others. The kernel's own numbers: libc's O_LARGEFILE is 0, and its
/// O_SYNC and O_TMPFILE consist of two bits each.
const OPEN_FLAGS: [(u64, &str); 18] = [
    (0o4010000, "O_SYNC"),
    (0o20200000, "O_TMPFILE"),
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o10000, "O_DSYNC"),
    (0o20000, "O_ASYNC"),
    (0o40000, "O_DIRECT"),
    (0o100000, "O_LARGEFILE"),
    (0o200000, "O_DIRECTORY"),
    (0o400000, "O_NOFOLLOW"),
    (0o1000000, "O_NOATIME"),
    (0o2000000, "O_CLOEXEC"),
    (0o4000000, "__O_SYNC"),
    (0o10000000, "O_PATH"),
];

/// `O_WRONLY|O_CREAT`, bits without a name as a number behind them.
pub fn open_flags(flags: u64) -> String {
    let mode = match flags & 3 {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        2 => "O_RDWR",
        _ => "O_ACCMODE",
    };
    named(mode, flags & !3, &OPEN_FLAGS)
}

/// How openat2(2) is to resolve the path: `RESOLVE_BENEATH`.
pub fn resolve_flags(flags: u64) -> String {
    let names = ["NO_XDEV", "NO_MAGICLINKS", "NO_SYMLINKS", "BENEATH", "IN_ROOT", "CACHED"];
    let words: Vec<String> = (0..6).map(|bit| format!("RESOLVE_{}", names[bit])).collect();
    let table: Vec<(u64, &str)> = (0..6).map(|bit| (1 << bit, words[bit].as_str())).collect();
    named("", flags, &table)
}

fn named(first: &str, mut flags: u64, table: &[(u64, &str)]) -> String {
    let mut out = first.to_owned();
    let mut add = |word: &str| {
        if !out.is_empty() {
            out.push('|');
        }
        out.push_str(word);
    };
    for (bits, name) in table {
        if flags & bits == *bits {
            flags &= !bits;
            add(name);
        }
    }
    if flags != 0 {
        add(&format!("{flags:#x}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_libc() {
        for (nr, name) in [
            (libc::SYS_read, "read"),
            (libc::SYS_execve, "execve"),
            (libc::SYS_rseq, "rseq"),
            (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
            (libc::SYS_openat2, "openat2"),
            (libc::SYS_mseal, "mseal"),
        ] {
            assert_eq!(syscall(nr as u32), name);
            assert_eq!(syscall_number(name), Some(nr as u32));
        }
        assert_eq!(syscall(400), "syscall 400");
        assert_eq!(syscall(5 | COMPAT), "i386:5");
        assert_eq!(syscall_number("no such"), None);
    }

    #[test]
    fn flags_agree_with_libc() {
        for (flags, words) in [
            (libc::O_RDONLY, "O_RDONLY"),
            (libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, "O_WRONLY|O_CREAT|O_TRUNC"),
            (libc::O_RDWR | libc::O_SYNC, "O_RDWR|O_SYNC"),
            (libc::O_RDWR | libc::O_DSYNC, "O_RDWR|O_DSYNC"),
            (libc::O_RDWR | libc::O_TMPFILE, "O_RDWR|O_TMPFILE"),
            (libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_PATH, "O_RDONLY|O_DIRECTORY|O_CLOEXEC|O_PATH"),
            (libc::O_NOFOLLOW | libc::O_NOATIME | libc::O_NOCTTY, "O_RDONLY|O_NOCTTY|O_NOFOLLOW|O_NOATIME"),
            (libc::O_APPEND | libc::O_EXCL | libc::O_DIRECT, "O_RDONLY|O_EXCL|O_APPEND|O_DIRECT"),
            (libc::O_NONBLOCK | libc::O_ASYNC, "O_RDONLY|O_NONBLOCK|O_ASYNC"),
            (3, "O_ACCMODE"),
        ] {
            assert_eq!(open_flags(flags as u64), words);
        }
        assert_eq!(open_flags(1 << 40), "O_RDONLY|0x10000000000");
        assert_eq!(
            resolve_flags(libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV),
            "RESOLVE_NO_XDEV|RESOLVE_BENEATH"
        );
        assert_eq!(
            resolve_flags(libc::RESOLVE_CACHED | libc::RESOLVE_IN_ROOT),
            "RESOLVE_IN_ROOT|RESOLVE_CACHED"
        );
        assert_eq!(
            resolve_flags(libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS),
            "RESOLVE_NO_MAGICLINKS|RESOLVE_NO_SYMLINKS"
        );
    }

    #[test]
    fn names_nearly_right_are_offered() {
        assert_eq!(similar_syscalls("opanat")[0], "openat");
        assert_eq!(similar_syscalls("getpit")[0], "getpid");
        assert_eq!(similar_syscalls("zzzzzzzzzzzz"), Vec::<&str>::new());
    }

    #[test]
    fn errors_that_only_tracers_see_have_names() {
        assert_eq!(errno(2), "ENOENT");
        assert_eq!(errno(512), "ERESTARTSYS");
        assert_eq!(errno(4000), "errno 4000");
    }
}
