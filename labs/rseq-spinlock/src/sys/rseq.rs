//! Where the kernel and we meet: one `struct rseq` a thread.
//!
//! ```text
//! offset  0 cpu_id_start   CPU, always a valid index
//!         4 cpu_id         CPU, or -1 before registration
//!         8 rseq_cs        address of the descriptor of the section we are in; the kernel clears it
//!        16 flags
//!        20 node_id        Linux 6.3
//!        24 mm_cid         Linux 6.3: small dense number, unique among the *running* threads of the process
//!        28 slice_ctrl     Linux 7.0
//! ```
//!
//! The kernel writes it on the way back to user mode, after each preemption, migration and signal. Source:
//! `include/uapi/linux/rseq.h`, `kernel/rseq.c`; since Linux 4.18. glibc registers one for each thread since
//! 2.35 and tells its place as an offset from the thread pointer, which is `fs` on x86-64.
#![allow(unsafe_code, reason = "the area is reached relative to fs, and registered by a raw system call")]

use std::arch::asm;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, AtomicU32, AtomicU64, Ordering};

use kit::SysError;

use super::slice::SliceCtrl;

/// What must stand before each abort handler: the kernel jumps nowhere else. glibc registers with this value.
#[doc(alias = "RSEQ_SIG")]
pub const SIGNATURE: u32 = 0x5305_3053;

/// `struct rseq`, as far as this lab knows it. Atomics, because the kernel writes it behind our back.
#[derive(Debug)]
#[repr(C, align(32))]
struct Area {
    cpu_id_start: AtomicU32,
    cpu_id: AtomicU32,
    rseq_cs: AtomicU64,
    flags: AtomicU32,
    node_id: AtomicU32,
    mm_cid: AtomicU32,
    slice_ctrl: SliceCtrl,
}

/// Field offsets for the assembly.
pub const CPU_ID: usize = offset_of!(Area, cpu_id);
/// See [`CPU_ID`].
pub const RSEQ_CS: usize = offset_of!(Area, rseq_cs);
/// See [`CPU_ID`].
pub const MM_CID: usize = offset_of!(Area, mm_cid);

/// Why there is no rseq for this thread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RseqError {
    /// The system call failed: an old kernel (ENOSYS), or a seccomp filter (EPERM, ENOSYS).
    #[error("no restartable sequences: {0}")]
    Missing(SysError),
    /// Someone else has registered an area for this thread and does not say where (EINVAL, EBUSY, EPERM).
    #[error("another library has registered rseq for this thread and does not say where: {0}")]
    Taken(SysError),
    /// The kernel keeps less of the area than is asked for: 16 bytes for `cpu_id` and `rseq_cs`, 28 for `mm_cid`.
    #[error("the kernel keeps {kept} bytes of the rseq area up to date; this needs the first {needs}")]
    TooSmall {
        /// Bytes that it keeps.
        kept: u32,
        /// Bytes that are needed.
        needs: u32,
    },
    /// glibc has an area, but the kernel does not keep it for this thread: `cpu_id` is negative.
    #[error(
        "glibc's rseq area is not registered for this thread (cpu_id {0}): old kernel, or a seccomp filter"
    )]
    NotKept(i32),
}

/// Who registered the area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// glibc 2.35 or later did.
    Glibc,
    /// This lab did: no glibc, an older one, or `GLIBC_TUNABLES=glibc.pthread.rseq=0`.
    Own,
}

/// What is the same for all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Who registered.
    pub origin: Origin,
    /// From the thread pointer to the area, in bytes.
    pub offset: isize,
    /// How many bytes of it the kernel keeps up to date: 20, 28 with `mm_cid`, 32 with `slice_ctrl`.
    pub kept: u32,
}

impl Place {
    /// Whether the kernel keeps the first `needs` bytes.
    ///
    /// # Errors
    /// [`RseqError::TooSmall`].
    pub fn keeps(self, needs: u32) -> Result<(), RseqError> {
        let kept = self.kept;
        if kept < needs { Err(RseqError::TooSmall { kept, needs }) } else { Ok(()) }
    }
}

/// Offset of the area for [`cpu_hint`]; 0 until known (the thread control block itself is there).
static OFFSET: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    /// The area that we register where glibc has none.
    static OWN: Area = const {
        Area {
            cpu_id_start: AtomicU32::new(0),
            cpu_id: AtomicU32::new(u32::MAX),
            rseq_cs: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            node_id: AtomicU32::new(0),
            mm_cid: AtomicU32::new(0),
            slice_ctrl: SliceCtrl::new(),
        }
    };
}

/// Proof that rseq works on the calling thread; does not leave it.
#[derive(Debug, Clone, Copy)]
pub struct Thread {
    place: Place,
    _stays: PhantomData<*const ()>,
}

impl Thread {
    /// Finds the calling thread's area; registers one where glibc has not.
    ///
    /// # Errors
    /// See [`RseqError`].
    #[doc(alias = "__rseq_offset")]
    pub fn current() -> Result<Self, RseqError> {
        static PLACE: OnceLock<Place> = OnceLock::new();
        let place = *PLACE.get_or_init(find);
        place.keeps(RSEQ_CS as u32 + 8)?;
        let thread = Self { place, _stays: PhantomData };
        if place.origin == Origin::Own && thread.area().cpu_id.load(Ordering::Relaxed) as i32 == -1 {
            register(thread.area())?;
        }
        let cpu = thread.area().cpu_id.load(Ordering::Relaxed) as i32;
        if cpu < 0 {
            return Err(RseqError::NotKept(cpu));
        }
        OFFSET.store(place.offset, Ordering::Relaxed);
        Ok(thread)
    }

    /// Who registered, where, how much.
    pub fn place(self) -> Place {
        self.place
    }

    /// The CPU that we are on; may be another by the time you use it.
    pub fn cpu_id(self) -> u32 {
        self.area().cpu_id.load(Ordering::Relaxed)
    }

    /// Our concurrency id: below the number of CPUs, and below that of threads. None before Linux 6.3.
    pub fn mm_cid(self) -> Option<u32> {
        (self.place.kept >= MM_CID as u32 + 4).then(|| self.area().mm_cid.load(Ordering::Relaxed))
    }

    /// The descriptor that is armed now; 0 once the kernel has found us outside of its section.
    pub fn rseq_cs(self) -> u64 {
        self.area().rseq_cs.load(Ordering::Relaxed)
    }

    pub(super) fn slice_ctrl<'a>(self) -> &'a SliceCtrl {
        &self.area().slice_ctrl
    }

    fn area<'a>(self) -> &'a Area {
        let at = thread_pointer().wrapping_offset(self.place.offset).cast::<Area>();
        // SAFETY: `at` is the area of the calling thread, in its thread-local storage: aligned, 32 bytes
        // (glibc never reserves less), written by others only through the kernel, which atomics allow. It
        // lives as long as the thread, and `Self` is not Send.
        unsafe { &*at }
    }
}

/// The base of `fs`: where the thread control block is, whose first word is its own address (x86-64 psABI).
fn thread_pointer() -> *const u8 {
    let tp;
    // SAFETY: reads the word at fs:0, which the ABI defines for every thread; nothing else is touched.
    unsafe { asm!("mov {}, qword ptr fs:[0]", out(reg) tp, options(nostack, readonly, preserves_flags)) };
    tp
}

/// The CPU in the calling thread's area, if any thread has found one; for hints, so it registers nothing.
#[inline]
pub fn cpu_hint() -> Option<u32> {
    let offset = OFFSET.load(Ordering::Relaxed);
    if offset == 0 {
        return None;
    }
    let cpu: u32;
    // SAFETY: OFFSET is set once an area at that offset was found in the static thread-local storage of one
    // thread, and that has the same layout in all. An area that is not registered reads as -1.
    unsafe {
        asm!("mov {cpu:e}, dword ptr fs:[{offset} + {at}]", cpu = out(reg) cpu, offset = in(reg) offset,
            at = const CPU_ID, options(nostack, readonly, preserves_flags));
    }
    (cpu as i32 >= 0).then_some(cpu)
}

/// `slice_ctrl` in the calling thread's area, known when [`cpu_hint`] is.
#[inline]
pub(super) fn slice_ctrl<'a>() -> Option<&'a SliceCtrl> {
    let offset = OFFSET.load(Ordering::Relaxed);
    let at = thread_pointer().wrapping_offset(offset + offset_of!(Area, slice_ctrl) as isize);
    // SAFETY: as in `cpu_hint`, an offset that is not 0 leads to this thread's area, 32 bytes in its static
    // thread-local storage. The callers use the reference at once, on this thread.
    (offset != 0).then(|| unsafe { &*at.cast::<SliceCtrl>() })
}

/// Asks glibc; without it, our own thread-local area.
fn find() -> Place {
    // What the kernel fills: AT_RSEQ_FEATURE_SIZE, since 6.3; before, the first 20 bytes.
    // SAFETY: getauxval reads the process's auxiliary vector and returns an integer.
    let feature = match unsafe { libc::getauxval(27) } {
        0 => 20,
        n => n as u32,
    };
    if let (Some(offset), Some(size)) = (glibc::<isize>(c"__rseq_offset"), glibc::<u32>(c"__rseq_size"))
        && size > 0
    {
        return Place { origin: Origin::Glibc, offset, kept: kept(size, feature) };
    }
    let offset = OWN.with(|own| std::ptr::from_ref(own) as isize - thread_pointer() as isize);
    Place { origin: Origin::Own, offset, kept: feature.min(size_of::<Area>() as u32) }
}

/// How much the kernel keeps of an area of which glibc says `size`. glibc 2.35 says 32, the padded size;
/// later ones may say 20 or what is in use. The kernel accepts no registration below 32 bytes and fills all
/// of those that it knows.
fn kept(size: u32, feature: u32) -> u32 {
    size.max(size_of::<Area>() as u32).min(feature)
}

/// The value of a variable of glibc, if this libc has it.
fn glibc<T: Copy>(name: &std::ffi::CStr) -> Option<T> {
    // SAFETY: the name is a C string; RTLD_DEFAULT searches what is loaded.
    let at = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.cast::<T>();
    // SAFETY: not null means that libc defines it; <sys/rseq.h> gives the types: ptrdiff_t and unsigned int,
    // constant after start-up.
    (!at.is_null()).then(|| unsafe { at.read() })
}

/// rseq(2) for the calling thread.
fn register(own: &Area) -> Result<(), RseqError> {
    // SAFETY: the area is thread-local, 32-byte aligned and as long as we say; the kernel writes to it until
    // the thread ends, which is how long it lives.
    let r = unsafe { libc::syscall(libc::SYS_rseq, own, size_of::<Area>(), 0, SIGNATURE) };
    if r == 0 {
        return Ok(());
    }
    let error = SysError::last("rseq");
    match error.errno {
        libc::EINVAL | libc::EBUSY => Err(RseqError::Taken(error)),
        _ => Err(RseqError::Missing(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_keeps_what_it_knows_of_what_is_registered() {
        assert_eq!(kept(32, 20), 20);
        assert_eq!(kept(20, 28), 28);
        assert_eq!(kept(32, 28), 28);
        assert_eq!(kept(33, 64), 33);
    }

    /// No kernel registers less than 32 bytes (EINVAL); how much it keeps of them is what varies.
    #[test]
    fn an_area_that_is_kept_in_part_serves_in_part() {
        let keeps = |kept, needs| Place { origin: Origin::Glibc, offset: 8, kept }.keeps(needs);
        let (section, cid) = (RSEQ_CS as u32 + 8, MM_CID as u32 + 4);
        assert_eq!(keeps(20, section), Ok(()));
        assert_eq!(keeps(28, cid), Ok(()));
        assert_eq!(keeps(20, cid), Err(RseqError::TooSmall { kept: 20, needs: 28 }));
        let told = keeps(8, section).expect_err("rseq_cs is beyond").to_string();
        assert!(told.contains("8 bytes") && told.contains("first 16"), "{told}");
    }

    #[test]
    fn each_thread_has_its_own_area_and_the_kernel_keeps_it() {
        let Ok(here) = Thread::current() else { kit::skip!("rseq", "{:?}", Thread::current().err()) };
        assert!(here.cpu_id() < 1 << 16);
        assert!(cpu_hint().is_some());
        let mine = thread_pointer() as usize;
        std::thread::spawn(move || {
            let there = Thread::current().expect("registered here, so registered there");
            assert_ne!(thread_pointer() as usize, mine);
            assert!(there.cpu_id() < 1 << 16);
        })
        .join()
        .expect("no panic");
    }
}
