//! An io_uring whose operations own the memory they use, so that using it is safe.
#![allow(unsafe_code, reason = "submissions are pointers that the kernel follows later")]

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::{EnterFlags, IoUring, cqueue, types};
use kit::SysError;
use nix::errno::Errno;

use super::bundle::SendRing;
use super::pool::Pool;
use crate::spec::{Knobs, Taskrun};

/// Group of the one ring of buffers.
pub(super) const GROUP: u16 = 0;
/// Marks operations that complete only if they fail.
const QUIET: u64 = 1 << 63;
/// Entries of the submission queue.
const ENTRIES: u32 = 1024;

/// A connection as the ring knows it: a descriptor of the process, or a place in the ring's own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sock {
    pub(super) number: u32,
    pub(super) fixed: bool,
}

/// A completion.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// What the submission was marked with.
    pub tag: u64,
    /// The result: a number of bytes, or a negated errno.
    pub result: i32,
    /// Whether the same submission will complete again (`IORING_CQE_F_MORE`).
    pub more: bool,
    quiet: bool,
    /// The first buffer used, if one was chosen by the kernel.
    pub(super) buffer: Option<u16>,
}

impl Done {
    /// The result as a number, or the errno.
    pub fn result(&self) -> Result<u32, Errno> {
        u32::try_from(self.result).map_err(|_| Errno::from_raw(self.result.wrapping_neg()))
    }
}

/// Memory that an operation under way uses.
#[derive(Debug)]
pub(super) enum Held {
    Bytes(Vec<u8>),
    /// For SENDMSG: the header points to the vector, and the vector into the pool.
    Gather {
        _iov: Vec<libc::iovec>,
        _header: Box<libc::msghdr>,
    },
}

/// A ring, its pool of buffers, and the memory of all operations under way.
pub struct Ring {
    pub(super) io: ManuallyDrop<IoUring>,
    pub(super) pool: ManuallyDrop<Option<Pool>>,
    /// By the place of the connection; each has at most one operation with memory at a time.
    pub(super) held: ManuallyDrop<Vec<Option<Held>>>,
    /// Rings to send bundles from, by the place of the connection.
    pub(super) sends: ManuallyDrop<Vec<Option<SendRing>>>,
    /// Completions taken early to make room.
    early: VecDeque<Done>,
    /// Operations that have not completed for good. Quiet ones are done when `enter` returns.
    under_way: usize,
    /// Size of the ring's own table of files, if connections go there.
    pub(super) table: Option<usize>,
    sqpoll: bool,
    /// Calls of io_uring_enter(2).
    pub enters: u64,
    /// Calls of io_uring_register(2) for send bundles.
    pub registers: u64,
    /// Submissions made.
    pub submitted: u64,
}

impl Ring {
    /// A ring with the knobs that the kernel grants, and what it refused.
    ///
    /// # Errors
    /// io_uring_setup(2): `ENOSYS`, `EPERM`, `ENOMEM`; io_uring_register(2): `EINVAL` before Linux 5.19.
    pub fn new(knobs: &Knobs, with_pool: bool) -> Result<(Ring, Vec<String>), SysError> {
        let mut notes = Vec::new();
        let io = setup(knobs, &mut notes)?;
        let mut table = knobs.fixed_files.then_some(0);
        if table.is_some() {
            let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
            let size = limit.map_or(1024, |(soft, _)| soft).min(1 << 15) as u32;
            table = match io.submitter().register_files_sparse(size) {
                Ok(()) => Some(size as usize),
                Err(e) => {
                    notes.push(format!("registered files refused ({e}): ordinary descriptors instead"));
                    None
                }
            };
        }
        let pool = with_pool.then(|| Pool::new(knobs.buffers)).transpose()?;
        if let Some(pool) = &pool {
            // SAFETY: the pool's entries are page-aligned, as many as said, and live until `Ring` is dropped,
            // which closes the ring first.
            unsafe { io.submitter().register_buf_ring_with_flags(pool.address(), pool.entries(), GROUP, 0) }
                .map_err(SysError::io("io_uring_register(PBUF_RING)"))?;
        }
        let ring = Ring {
            io: ManuallyDrop::new(io),
            pool: ManuallyDrop::new(pool),
            held: ManuallyDrop::new(Vec::new()),
            sends: ManuallyDrop::new(Vec::new()),
            early: VecDeque::new(),
            under_way: 0,
            table,
            sqpoll: knobs.sqpoll,
            enters: 0,
            registers: 0,
            submitted: 0,
        };
        Ok((ring, notes))
    }

    /// Operations that have not completed for good.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether bundles work (`IORING_FEAT_RECVSEND_BUNDLE`, Linux 6.10).
    pub fn has_bundles(&self) -> bool {
        self.io.params().is_feature_recvsend_bundle()
    }

    /// Whether a send that succeeds can be silent (`IORING_FEAT_CQE_SKIP`, Linux 5.17), and is done when
    /// io_uring_enter(2) returns: not so where another thread submits.
    pub fn can_be_quiet(&self) -> bool {
        self.io.params().is_feature_skip_cqe_on_success() && !self.sqpoll
    }

    /// How many connections its own table has room for; none if they are ordinary descriptors.
    pub fn table(&self) -> Option<usize> {
        self.table
    }

    /// The connection that an accept returned.
    pub fn sock(&self, accepted: u32) -> Sock {
        Sock { number: accepted, fixed: self.table.is_some() }
    }

    /// Submits all that is queued and waits until there is a completion or the time is over.
    ///
    /// # Errors
    /// io_uring_enter(2), other than for lack of completions or room.
    pub fn enter(&mut self, wait: bool, limit: Option<Duration>) -> Result<(), SysError> {
        if let Some(pool) = self.pool.as_ref() {
            pool.publish();
        }
        let mut want = u32::from(wait && self.early.is_empty());
        loop {
            let result = self.io_uring_enter(want, limit.filter(|_| want > 0));
            match result.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0))) {
                Ok(_) | Err(Errno::ETIME) => {}
                Err(Errno::EINTR) => {}
                // The completion queue is full, or memory is short: take completions, then go on.
                Err(Errno::EBUSY | Errno::EAGAIN) => self.take_early(),
                Err(e) => return Err(SysError::new("io_uring_enter", e as i32)),
            }
            // The kernel may take fewer submissions than there are; quiet sends count on all being taken.
            if self.sqpoll || self.io.submission().is_empty() {
                return Ok(());
            }
            want = 0;
        }
    }

    /// io_uring_enter(2), unless the kernel's thread submits and there is nothing else to ask for.
    fn io_uring_enter(&mut self, want: u32, limit: Option<Duration>) -> std::io::Result<usize> {
        let (submitter, sq, _) = self.io.split();
        let mut flags = EnterFlags::empty();
        // GETEVENTS also has the kernel put what did not fit into the completion queue.
        flags.set(EnterFlags::GETEVENTS, want > 0 || sq.cq_overflow() || sq.taskrun());
        // `need_wakeup` has the fence between our tail, stored by the last push, and its look at the flag.
        flags.set(EnterFlags::SQ_WAKEUP, self.sqpoll && sq.need_wakeup());
        // Full, and another thread empties it: sleep until there is room instead of asking again.
        flags.set(EnterFlags::SQ_WAIT, self.sqpoll && sq.is_full());
        if self.sqpoll && flags.is_empty() {
            return Ok(0);
        }
        let submit = sq.len() as u32;
        drop(sq);
        self.enters += 1;
        let Some(limit) = limit else {
            // SAFETY: no argument is passed, and the queues are those that the kernel made.
            return unsafe { submitter.enter::<libc::sigset_t>(submit, want, flags.bits(), None) };
        };
        flags.insert(EnterFlags::EXT_ARG);
        let time = types::Timespec::from(limit);
        let args = types::SubmitArgs::new().timespec(&time);
        // SAFETY: EXT_ARG says that the argument is an io_uring_getevents_arg, which SubmitArgs is; it and the
        // time that it points to live until the call returns.
        unsafe { submitter.enter(submit, want, flags.bits(), Some(&args)) }
    }

    /// The next completion, if there is one.
    pub fn next_done(&mut self) -> Option<Done> {
        let done = self.early.pop_front().or_else(|| self.io.completion().next().map(|c| done(&c)))?;
        if !done.more && !done.quiet {
            self.under_way = self.under_way.saturating_sub(1);
        }
        Some(done)
    }

    /// Whether completions wait in the kernel because the queue was full.
    pub fn overflowed(&mut self) -> bool {
        self.io.submission().cq_overflow()
    }

    fn take_early(&mut self) {
        let (io, early) = (&mut self.io, &mut self.early);
        early.extend(io.completion().map(|c| done(&c)));
    }

    /// Queues an entry.
    ///
    /// # Safety
    /// What the entry points to is valid until its last completion: owned by `held` or `pool`.
    pub(super) unsafe fn push(
        &mut self,
        sock: Option<Sock>,
        tag: u64,
        entry: Entry,
        quiet: bool,
    ) -> Result<(), SysError> {
        let mut flags = Flags::empty();
        // The entry's `fd` holds a descriptor or a place; the flag says which.
        flags.set(Flags::FIXED_FILE, sock.is_some_and(|s| s.fixed));
        flags.set(Flags::SKIP_SUCCESS, quiet);
        let entry = entry.flags(flags).user_data(if quiet { tag | QUIET } else { tag });
        while self.io.submission().is_full() {
            self.enter(false, None)?;
        }
        // SAFETY: the caller keeps the memory; there is room, so the push cannot fail.
        let _ = unsafe { self.io.submission().push(&entry) };
        self.submitted += 1;
        self.under_way += usize::from(!quiet);
        Ok(())
    }
}

impl Sock {
    pub(super) fn target(self) -> types::Fd {
        types::Fd(self.number as i32)
    }
}

fn done(c: &cqueue::Entry) -> Done {
    let flags = c.flags();
    let quiet = c.user_data() & QUIET != 0;
    Done {
        tag: c.user_data() & !QUIET,
        result: c.result(),
        more: cqueue::more(flags),
        quiet,
        buffer: cqueue::buffer_select(flags),
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: nothing uses the ring any more. It goes first: the kernel then forgets pool and files.
        unsafe { ManuallyDrop::drop(&mut self.io) };
        if self.under_way > 0 {
            // An error ended the server early. The kernel may still write to what it was given, so that
            // memory is never freed.
            return;
        }
        // SAFETY: no operation is under way, so nobody but us knows the memory.
        unsafe { ManuallyDrop::drop(&mut self.pool) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.held) };
        // SAFETY: as above; and with the ring closed, nothing is registered any more.
        unsafe { ManuallyDrop::drop(&mut self.sends) };
    }
}

/// io_uring_setup(2), with the deferral wished for or the next best one.
fn setup(knobs: &Knobs, notes: &mut Vec<String>) -> Result<IoUring, SysError> {
    let mut wish = if knobs.sqpoll { Taskrun::Interrupt } else { knobs.taskrun };
    loop {
        let mut builder = IoUring::builder();
        builder.setup_clamp();
        if knobs.sqpoll {
            builder.setup_sqpoll(50);
        } else {
            builder.setup_submit_all();
        }
        match wish {
            Taskrun::Interrupt => {}
            Taskrun::Coop => {
                builder.setup_coop_taskrun();
            }
            Taskrun::Defer => {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
        }
        builder.setup_cqsize(if knobs.cq_entries == 0 { 8 * ENTRIES } else { knobs.cq_entries });
        let entries = if knobs.cq_entries == 0 { ENTRIES } else { knobs.cq_entries.min(ENTRIES) };
        let (lower, name) = match wish {
            Taskrun::Defer => (Taskrun::Coop, "DEFER_TASKRUN"),
            Taskrun::Coop => (Taskrun::Interrupt, "COOP_TASKRUN"),
            Taskrun::Interrupt => return builder.build(entries).map_err(SysError::io("io_uring_setup")),
        };
        match builder.build(entries) {
            Ok(io) => return Ok(io),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                notes.push(format!("{name} refused (EINVAL): trying with less"));
                wish = lower;
            }
            Err(e) => return Err(SysError::io("io_uring_setup")(e)),
        }
    }
}
