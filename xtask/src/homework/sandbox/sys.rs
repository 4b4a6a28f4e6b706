//! Calls that no crate at hand wraps: a seccomp filter, Landlock, and the loopback device.
#![allow(
    unsafe_code,
    reason = "prctl with a filter, three system calls and an ioctl that have no safe wrapper"
)]

use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use libc::{c_long, sock_filter};
use nix::errno::Errno;

use super::Plan;

/// Calls that are refused with EPERM: they reach beyond the process, and no exercise needs them.
const DENIED: [c_long; 18] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Refused too, but to a test that was given the capabilities.
const PRIVILEGED: [c_long; 2] = [libc::SYS_bpf, libc::SYS_perf_event_open];

/// See capabilities(7).
pub(super) const CAP_PERFMON: u32 = 38;
pub(super) const CAP_BPF: u32 = 39;

/// Takes all capabilities but these from what we start, root or not.
pub(super) fn keep_capabilities(kept: &[u32]) -> Result<(), Errno> {
    for capability in (0..64).filter(|c| !kept.contains(c)) {
        // SAFETY: it takes numbers, no pointer.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            // A number beyond the kernel's last.
            Ok(_) | Err(Errno::EINVAL) => (),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Nothing that we start inherits a descriptor but the first three: who started us may have left folders open, by which
/// one gets out of any view.
pub(super) fn keep_descriptors() {
    let (first, flags) = (3_u32, libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: it takes numbers, no pointer, and closes nothing yet.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) } == 0 {
        return;
    }
    // Before Linux 5.11 one by one.
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        if let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()).filter(|fd| *fd > 2)
        {
            // SAFETY: it takes numbers; a descriptor that is gone by now is an error that is nobody's concern.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Refused too, where the exercise is not about looking into processes: these reach one's own memory as well, and what
/// the spec knows is in there.
const LOOKING: [c_long; 2] = [libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];

/// Refused too, where the exercise is not about them.
const NESTING: [c_long; 12] = [
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
];

/// `struct seccomp_data`: where the call's number, the architecture and the low halves of two arguments are.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const FIRST_AT: u32 = 16;
const SECOND_AT: u32 = 24;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// A filter for us and all that we start. Needs no_new_privs. A call of another architecture ends the process.
pub(super) fn deny_calls(plan: &Plan) -> Result<(), Errno> {
    let load = |at: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at);
    let answer = |value: u32| statement(libc::BPF_RET | libc::BPF_K, value);
    let skip_if = |value: u32, if_so: u8, if_not: u8| sock_filter {
        jt: if_so,
        jf: if_not,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value)
    };
    let mut filter = vec![
        load(ARCHITECTURE_AT),
        skip_if(ARCHITECTURE, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER_AT),
        // The x32 calls of x86-64 have other numbers.
        sock_filter { jt: 0, jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0x4000_0000) },
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    if !plan.may_look {
        // prctl(PR_SET_DUMPABLE, 1): a spec has said 0, and it stays so.
        filter.extend([
            skip_if(libc::SYS_prctl as u32, 0, 6),
            load(FIRST_AT),
            skip_if(libc::PR_SET_DUMPABLE as u32, 0, 3),
            load(SECOND_AT),
            skip_if(0, 1, 0),
            answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            load(NUMBER_AT),
        ]);
    }
    let unless = |allowed: bool, calls: &'static [c_long]| if allowed { [].iter() } else { calls.iter() };
    let nesting = unless(plan.may_nest, &NESTING);
    let looking = unless(plan.may_look, &LOOKING);
    let privileged = unless(plan.privileged, &PRIVILEGED);
    for number in DENIED.iter().chain(nesting).chain(looking).chain(privileged) {
        filter.push(skip_if(*number as u32, 0, 1));
        filter.push(answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: PR_SET_SECCOMP reads a sock_fprog, which is alive and whose length is that of its filter.
    Errno::result(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
    })
    .map(drop)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// landlock_create_ruleset(2): a ruleset about these access rights to files; where the kernel knows that (6.12), also
/// about signals and abstract sockets, which then do not leave it.
pub(super) fn landlock_ruleset(access: u64) -> Result<OwnedFd, Errno> {
    // `struct landlock_ruleset_attr`: handled_access_fs, handled_access_net, scoped.
    const SCOPED: u64 = 0b11;
    let attributes: Vec<u8> = [access, 0, SCOPED].iter().flat_map(|a| a.to_ne_bytes()).collect();
    landlock_create(&attributes).or_else(|_| landlock_create(&attributes[..8]))
}

fn landlock_create(attributes: &[u8]) -> Result<OwnedFd, Errno> {
    // SAFETY: the kernel reads as many bytes as we say, and they are there.
    let fd = Errno::result(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), attributes.len(), 0)
    })?;
    // SAFETY: it is a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// landlock_add_rule(2): what is below `path` may be accessed so.
pub(super) fn landlock_allow(rules: &OwnedFd, path: &Path, access: u64) -> Result<(), Errno> {
    use nix::fcntl::{OFlag, open};
    let below = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
    // `struct landlock_path_beneath_attr`, packed: allowed_access, parent_fd.
    let mut rule = [0; 12];
    rule[..8].copy_from_slice(&access.to_ne_bytes());
    rule[8..].copy_from_slice(&below.as_fd().as_raw_fd().to_ne_bytes());
    const PATH_BENEATH: i32 = 1;
    // SAFETY: the kernel reads the 12 bytes of that struct.
    let added = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), PATH_BENEATH, rule.as_ptr(), 0)
    };
    Errno::result(added).map(drop)
}

/// landlock_restrict_self(2). Needs no_new_privs.
pub(super) fn landlock_restrict(rules: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: it takes a descriptor and flags, no pointer.
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) }).map(drop)
}

/// Gives up the controlling terminal, if there is one: what is started then cannot type into it.
pub(super) fn leave_terminal() {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return };
    // SAFETY: TIOCNOTTY takes no argument. It fails where the terminal is not ours, which is as good.
    let _ = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) };
}

/// Sets the loopback device of our network namespace up: exercises talk to themselves.
pub(super) fn loopback_up() -> Result<(), Errno> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zeroes is a valid ifreq: bytes and numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq with a name and flags, which this is.
    Errno::result(unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }).map(drop)
}
