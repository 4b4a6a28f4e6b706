//! The calls that make a process, each running [`child::main`] in it.
#![allow(unsafe_code, reason = "a child that shares memory and stack cannot be made by safe code")]

use std::arch::asm;
use std::ffi::{c_char, c_void};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::child::{self, RawPlan};
use super::raw;

/// `CLONE_CLEAR_SIGHAND`, Linux 5.5: handlers become default actions, by the kernel, in one go.
pub(crate) const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
/// `CLONE_INTO_CGROUP`, Linux 5.7.
pub(crate) const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Blocks every signal of this thread, and on drop restores the mask.
///
/// A child made by vfork or clone3(CLONE_VM) starts with our mask; while it runs on our memory,
/// no handler of ours may run in it.
pub(crate) struct SignalsBlocked(u64);

impl SignalsBlocked {
    pub(crate) fn new() -> Self {
        Self(raw::set_mask(u64::MAX).unwrap_or(0))
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        let _ = raw::set_mask(self.0);
    }
}

/// A child's stack: 64 KiB with an unmapped page below, so that overrunning it faults.
#[derive(Debug)]
pub(crate) struct Stack {
    base: *mut c_void,
}

impl Stack {
    const SIZE: usize = 64 << 10;
    const GUARD: usize = 4096;

    pub(crate) fn new() -> Result<Self, i32> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping where the kernel likes; nothing is replaced.
        let base = unsafe { libc::mmap(ptr::null_mut(), Self::SIZE, prot, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(nix::errno::Errno::last_raw());
        }
        let stack = Self { base };
        // SAFETY: the lowest page of our own mapping, not used yet.
        if unsafe { libc::mprotect(base, Self::GUARD, libc::PROT_NONE) } != 0 {
            return Err(nix::errno::Errno::last_raw());
        }
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which no child uses: creating one returns after it has left.
        unsafe { libc::munmap(self.base, Self::SIZE) };
    }
}

/// `fork()`: a copy of the whole address space, page table by page table.
pub(crate) fn fork(plan: &RawPlan) -> Result<i32, i32> {
    // SAFETY: the child calls nothing but `child::main`, which needs no lock another thread may hold.
    match unsafe { libc::fork() } {
        // SAFETY: `plan` is a RawPlan (copied with the rest), and this is a new process.
        0 => unsafe { child::main((&raw const *plan).cast_mut().cast()) },
        -1 => Err(nix::errno::Errno::last_raw()),
        pid => Ok(pid),
    }
}

/// `vfork()`: no copy; the child runs on our memory and *our stack*, we sleep until it execs or ends.
///
/// A function that calls vfork and returns in the child would destroy the frame that the parent
/// returns to. So the child never returns: it calls `child::main` from inside the assembly.
pub(crate) fn vfork(plan: &RawPlan) -> Result<i32, i32> {
    let ret: isize;
    // SAFETY: in the child, the stack below rsp is free (no `nostack`, so no red zone and aligned to
    // 16), `child::main` gets a RawPlan (in rdi) and never returns. The parent sees only rax, rcx, r11 changed.
    unsafe {
        asm!("syscall",
             "test rax, rax",
             "jnz 2f",
             "xor ebp, ebp",
             "call {main}",
             "ud2",
             "2:",
             in("rdi") plan, main = in(reg) child::main as *const (),
             inlateout("rax") libc::SYS_vfork as isize => ret, out("rcx") _, out("r11") _);
    }
    if ret < 0 { Err(-ret as i32) } else { Ok(ret as i32) }
}

/// `clone3(CLONE_VM|CLONE_VFORK|CLONE_PIDFD|more)` on a stack of the child's own; pid and pidfd.
pub(crate) fn clone3(
    plan: &RawPlan,
    stack: &Stack,
    more: u64,
    cgroup: Option<RawFd>,
) -> Result<(i32, OwnedFd), i32> {
    let mut pidfd: RawFd = -1;
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64 | more;
    // With CLONE_PARENT the exit signal is the caller's own, and must be given as 0.
    let exit_signal = if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    let args = libc::clone_args {
        flags: flags | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        pidfd: &raw mut pidfd as u64,
        exit_signal,
        stack: stack.base as u64,
        stack_size: Stack::SIZE as u64,
        cgroup: cgroup.unwrap_or(0) as u64,
        child_tid: 0,
        parent_tid: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
    };
    let ret: isize;
    // SAFETY: `args` is a clone_args of the size given, and its pointers live through the call. The
    // child starts at the top of `stack`, aligned to 16, calls `child::main` with a RawPlan and never
    // returns. CLONE_VFORK: we sleep until it has left stack, plan and memory.
    unsafe {
        asm!("syscall",
             "test rax, rax",
             "jnz 2f",
             "xor ebp, ebp",
             "mov rdi, {plan}",
             "call {main}",
             "ud2",
             "2:",
             plan = in(reg) plan, main = in(reg) child::main as *const (),
             in("rdi") &raw const args, in("rsi") size_of::<libc::clone_args>(),
             inlateout("rax") libc::SYS_clone3 as isize => ret, out("rcx") _, out("r11") _);
    }
    if ret < 0 {
        return Err(-ret as i32);
    }
    // SAFETY: on success the kernel has put a new descriptor there, which is ours alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((ret as i32, pidfd))
}

/// What `posix_spawn` is told; its two C objects are freed on drop.
pub(crate) struct PosixSpawn {
    actions: libc::posix_spawn_file_actions_t,
    attr: libc::posix_spawnattr_t,
    flags: i32,
}

/// posix_spawn functions return the errno.
fn ok(errno: i32) -> Result<(), i32> {
    if errno == 0 { Ok(()) } else { Err(errno) }
}

impl PosixSpawn {
    pub(crate) fn new() -> Result<Self, i32> {
        // SAFETY: plain data, initialised by the next call before it is used.
        let mut actions = unsafe { std::mem::zeroed() };
        // SAFETY: `actions` is writable and not initialised yet.
        ok(unsafe { libc::posix_spawn_file_actions_init(&raw mut actions) })?;
        // SAFETY: plain data, initialised by the next call before it is used.
        let mut attr = unsafe { std::mem::zeroed() };
        // SAFETY: `attr` is writable and not initialised yet.
        ok(unsafe { libc::posix_spawnattr_init(&raw mut attr) })?;
        Ok(Self { actions, attr, flags: 0 })
    }

    /// Mask for the child, and SIGPIPE back to its default action.
    pub(crate) fn signals(&mut self, mask: u64) -> Result<(), i32> {
        // SAFETY: sigset_t is plain data; zero is the empty set, and bit n-1 is signal n on Linux.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        for signal in (1..=64).filter(|s| mask >> (s - 1) & 1 == 1) {
            // SAFETY: a valid set; for a number it does not like, it returns an error.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: initialised attributes and set.
        ok(unsafe { libc::posix_spawnattr_setsigmask(&raw mut self.attr, &raw const set) })?;
        // SAFETY: as above.
        let mut defaults: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: a valid set and signal.
        unsafe { libc::sigaddset(&raw mut defaults, libc::SIGPIPE) };
        self.flags |= libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        // SAFETY: initialised attributes and set.
        ok(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut self.attr, &raw const defaults) })
    }

    pub(crate) fn session(&mut self) {
        self.flags |= 0x80; // POSIX_SPAWN_SETSID, glibc 2.26; not in the libc crate for glibc
    }

    pub(crate) fn group(&mut self, group: i32) -> Result<(), i32> {
        self.flags |= libc::POSIX_SPAWN_SETPGROUP;
        // SAFETY: initialised attributes.
        ok(unsafe { libc::posix_spawnattr_setpgroup(&raw mut self.attr, group) })
    }

    /// `path` is copied.
    pub(crate) fn chdir(&mut self, path: &std::ffi::CStr) -> Result<(), i32> {
        // SAFETY: initialised actions and a NUL-terminated string.
        ok(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut self.actions, path.as_ptr()) })
    }

    /// With `from == to`, only its close-on-exec mark goes (glibc 2.29).
    pub(crate) fn dup2(&mut self, from: RawFd, to: RawFd) -> Result<(), i32> {
        // SAFETY: initialised actions; numbers are checked when they are used, in the child.
        ok(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.actions, from, to) })
    }

    /// Closing what is not open is no error.
    pub(crate) fn close(&mut self, fd: RawFd) -> Result<(), i32> {
        // SAFETY: initialised actions.
        ok(unsafe { libc::posix_spawn_file_actions_addclose(&raw mut self.actions, fd) })
    }

    /// glibc 2.34.
    pub(crate) fn close_from(&mut self, fd: RawFd) -> Result<(), i32> {
        // SAFETY: initialised actions.
        ok(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(&raw mut self.actions, fd) })
    }

    /// Runs it; the child's errno comes back without its step.
    pub(crate) fn spawn(&mut self, path: *const c_char, plan: &RawPlan) -> Result<i32, i32> {
        // SAFETY: initialised attributes; the flags are the ones whose values were set.
        ok(unsafe { libc::posix_spawnattr_setflags(&raw mut self.attr, self.flags as _) })?;
        let mut pid = 0;
        // SAFETY: `pid` is writable, both objects are initialised, and path, argv and envp are
        // strings and NULL-terminated arrays of the plan, which posix_spawn does not write to.
        ok(unsafe {
            libc::posix_spawn(
                &raw mut pid,
                path,
                &raw const self.actions,
                &raw const self.attr,
                plan.argv.cast(),
                plan.envp.cast(),
            )
        })?;
        Ok(pid)
    }
}

impl Drop for PosixSpawn {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, freed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.actions) };
        // SAFETY: initialised in `new`, freed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.attr) };
    }
}

/// Gives a `Command` a `pre_exec` closure that does nothing: std then forks instead of posix_spawn.
pub(crate) fn empty_pre_exec(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: the closure does nothing, which is safe also between fork and exec.
    unsafe { command.pre_exec(|| Ok(())) };
}

/// A seccomp filter on the calling thread that answers `clone3` with `errno`.
pub(crate) fn filter_clone3(errno: i32) -> Result<(), i32> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The system call's number is the first word of struct seccomp_data.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_clone3 as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes no pointer with this option.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(nix::errno::Errno::last_raw());
    }
    // SAFETY: `filter` points to a program of the length given, which is copied.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if done == 0 { Ok(()) } else { Err(nix::errno::Errno::last_raw()) }
}
