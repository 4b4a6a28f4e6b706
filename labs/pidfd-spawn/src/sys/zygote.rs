//! The zygote: a process that does nothing but create others, and its shared memory.
//!
//! It is forked from a process that may have threads, so it may never allocate. Requests therefore
//! are not sent but laid down in memory that both share at the same address: a [`RawPlan`] whose
//! pointers mean the same on both sides.
#![allow(unsafe_code, reason = "lays out a plan in memory shared by two processes; runs after fork")]

use std::ffi::{c_char, c_void};
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::child::RawPlan;
use super::create::{self, CLONE_CLEAR_SIGHAND, Stack};
use super::raw;
use crate::error::Step;
use crate::fds::FdStep;
use crate::plan::{Plan, Strings};

/// The zygote's end of the socket, whatever number it had.
const SOCKET: RawFd = 3;
/// Most descriptors a message carries (SCM_MAX_FD in the kernel).
pub(crate) const MAX_FDS: usize = 253;
/// Received descriptors are moved here or higher, away from every target.
const HIGH: RawFd = 300;

/// Sent with the descriptors: what the zygote must know besides the plan.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Request {
    /// How many descriptors to map; with `cgroup`, one more follows.
    pub fds: u32,
    pub cgroup: u32,
    /// Where the plan expects the first.
    pub base: i32,
}

/// Sent back, with the pidfd if `errno` is 0 and `pid` is positive.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Reply {
    /// The child; 0: none was created, for the reason `errno`.
    pub pid: i32,
    pub errno: i32,
}

/// Plain data as bytes.
pub(crate) fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: used for Request and Reply: only u32 and i32 fields, no padding.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

/// Memory shared with the zygote: first the plan, then what it points to.
#[derive(Debug)]
pub(crate) struct Arena {
    base: *mut u8,
    used: usize,
}

// SAFETY: the mapping belongs to this value; moving it to another thread changes nothing about it.
unsafe impl Send for Arena {}

impl Arena {
    /// Room for the longest arguments that exec takes by default (2 MiB), and their pointers.
    const SIZE: usize = 8 << 20;

    pub(crate) fn new() -> Result<Self, i32> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping where the kernel likes; nothing is replaced.
        let base = unsafe { libc::mmap(ptr::null_mut(), Self::SIZE, prot, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(nix::errno::Errno::last_raw());
        }
        Ok(Self { base: base.cast(), used: 0 })
    }

    /// Copies `items` in; `None` if there is no room.
    fn put<T: Copy>(&mut self, items: &[T]) -> Option<*const T> {
        let start = self.used.next_multiple_of(align_of::<T>());
        let end = start.checked_add(size_of_val(items))?;
        if end > Self::SIZE {
            return None;
        }
        // SAFETY: start <= SIZE, the size of the mapping.
        let at = unsafe { self.base.add(start) }.cast::<T>();
        // SAFETY: [start, end) is in the mapping, aligned, and nobody reads it now: the zygote waits
        // for the request that follows.
        unsafe { ptr::copy_nonoverlapping(items.as_ptr(), at, items.len()) };
        self.used = end;
        Some(at)
    }

    fn strings(&mut self, strings: &Strings) -> Option<*const *const c_char> {
        let mut pointers = Vec::new();
        for s in strings.iter() {
            pointers.push(self.put(s.to_bytes_with_nul())?.cast::<c_char>());
        }
        pointers.push(ptr::null());
        self.put(&pointers)
    }

    /// Lays `plan` down, its mapping expecting descriptor i at `base + i`; `None` if it is too long.
    pub(crate) fn lay(&mut self, plan: &Plan<'_>) -> Option<Request> {
        let base = plan.above().max(HIGH);
        let copies: Vec<FdStep> =
            plan.moves.iter().zip(base..).map(|(&(to, _), from)| FdStep::Copy { from, to }).collect();
        let mut raw = plan.raw();
        self.used = size_of::<RawPlan>();
        raw.paths = self.strings(&plan.paths)?;
        raw.argv = self.strings(&plan.argv)?;
        raw.envp = self.strings(&plan.envp)?;
        if let Some(cwd) = &plan.cwd {
            raw.cwd = self.put(cwd.to_bytes_with_nul())?.cast();
        }
        raw.fds = self.put(&copies)?;
        raw.fd_count = copies.len();
        raw.gaps = self.put(&plan.gaps)?;
        raw.reset_handlers = false;
        raw.outcome = self.put(&[0u64])?.cast();
        self.used = 0;
        self.put(&[raw])?;
        Some(Request { fds: copies.len() as u32, cgroup: plan.cgroup.is_some().into(), base })
    }

    fn plan(&self) -> &RawPlan {
        // SAFETY: only called by the zygote after a request, before which `lay` has put one here; the
        // mapping is page-aligned.
        unsafe { &*self.base.cast::<RawPlan>() }
    }

    /// What the child of the last request left.
    pub(crate) fn failure(&self) -> Option<(Step, i32)> {
        // SAFETY: `outcome` of a plan laid down points into this mapping.
        let outcome: &AtomicU64 = unsafe { &*self.plan().outcome };
        // Relaxed: the reply by the socket, or the wait, orders it.
        Step::unpack(outcome.load(Relaxed))
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which no reference is left.
        unsafe { libc::munmap(self.base.cast::<c_void>(), Self::SIZE) };
    }
}

/// Forks the zygote, which serves `socket` until its end; its PID.
pub(crate) fn start(socket: RawFd, arena: &Arena, stack: &Stack) -> Result<i32, i32> {
    // Blocked in the zygote for good: it must not act on a Ctrl-C meant for its parent.
    let _blocked = create::SignalsBlocked::new();
    // SAFETY: the child calls nothing but `serve`, which only makes raw system calls.
    match unsafe { libc::fork() } {
        0 => serve(socket, arena, stack),
        -1 => Err(nix::errno::Errno::last_raw()),
        pid => Ok(pid),
    }
}

/// The zygote's life. No allocation, no lock, no panic.
fn serve(socket: RawFd, arena: &Arena, stack: &Stack) -> ! {
    for signal in 1..=64 {
        let _ = raw::default_action(signal, false);
    }
    if socket != SOCKET && raw::dup3(socket, SOCKET, libc::O_CLOEXEC).is_err() {
        raw::exit(1);
    }
    // Whatever else the parent had open is none of ours.
    let _ = raw::close_range(SOCKET as u32 + 1, u32::MAX, 0);
    while let Some(request) = receive() {
        let cgroup = (request.cgroup != 0).then_some(request.base + request.fds as RawFd);
        // CLONE_PARENT: a sibling of ours, so that who asked is its parent and may wait for it.
        let flags = CLONE_CLEAR_SIGHAND | libc::CLONE_PARENT as u64;
        match create::clone3(arena.plan(), stack, flags, cgroup) {
            Ok((pid, pidfd)) => {
                use std::os::fd::AsRawFd;
                send(Reply { pid, errno: 0 }, Some(pidfd.as_raw_fd()));
            }
            Err(errno) => send(Reply { pid: 0, errno }, None),
        }
        let _ = raw::close_range(SOCKET as u32 + 1, u32::MAX, 0);
    }
    raw::exit(0)
}

/// Space for a control message with descriptors, aligned as `cmsghdr` must be.
type Control = [u64; 2 + MAX_FDS.div_ceil(2)];

fn message(iov: &mut libc::iovec, control: &mut Control, length: usize) -> libc::msghdr {
    libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: iov,
        msg_iovlen: 1,
        msg_control: control.as_mut_ptr().cast(),
        msg_controllen: length,
        msg_flags: 0,
    }
}

/// The next request, its descriptors moved to where the plan expects them; `None` at the end.
fn receive() -> Option<Request> {
    let mut request = Request::default();
    let mut control: Control = [0; _];
    let mut iov = libc::iovec { iov_base: (&raw mut request).cast(), iov_len: size_of::<Request>() };
    let mut msg = message(&mut iov, &mut control, size_of::<Control>());
    // SAFETY: `msg` points to `request` and `control`, writable for the lengths given.
    let n = unsafe { raw::recvmsg(SOCKET, &mut msg, libc::MSG_CMSG_CLOEXEC) }.ok()?;
    let length = msg.msg_controllen;
    if n != size_of::<Request>() {
        return None;
    }
    // struct cmsghdr { size_t len; int level; int type; } and then the descriptors: 16 bytes on 64-bit.
    let count = length.saturating_sub(16) / size_of::<RawFd>();
    for (i, to) in (0..count.min(MAX_FDS)).zip(request.base..) {
        let word = control.get(2 + i / 2).copied().unwrap_or(0).to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = word;
        let fd = if i % 2 == 0 { [a, b, c, d] } else { [e, f, g, h] };
        raw::dup3(RawFd::from_ne_bytes(fd), to, libc::O_CLOEXEC).ok()?;
    }
    let _ = raw::close_range(SOCKET as u32 + 1, request.base as u32 - 1, 0);
    Some(request)
}

fn send(mut reply: Reply, pidfd: Option<RawFd>) {
    let mut control: Control = [0; _];
    // cmsg_len 20, level and type in the second word (little-endian), then the descriptor.
    control[0] = 20;
    control[1] = libc::SOL_SOCKET as u64 | (libc::SCM_RIGHTS as u64) << 32;
    control[2] = pidfd.unwrap_or(0) as u64;
    let mut iov = libc::iovec { iov_base: (&raw mut reply).cast(), iov_len: size_of::<Reply>() };
    let length = if pidfd.is_some() { 24 } else { 0 };
    let msg = message(&mut iov, &mut control, length);
    // SAFETY: `msg` points to `reply` and `control`, readable for the lengths given.
    let _ = unsafe { raw::sendmsg(SOCKET, &msg) };
}
