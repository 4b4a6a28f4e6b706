//! An area like the one that a thread shares with the kernel, but of which the kernel knows nothing.
#![allow(unsafe_code, reason = "asks where this thread's own storage is")]

use std::arch::asm;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The start of `struct rseq`.
#[repr(C, align(32))]
struct Area {
    cpu_id_start: AtomicU32,
    cpu_id: AtomicU32,
    rseq_cs: AtomicU64,
    rest: [AtomicU64; 2],
}

thread_local! {
    static AREA: Area = const {
        Area {
            cpu_id_start: AtomicU32::new(0),
            cpu_id: AtomicU32::new(0),
            rseq_cs: AtomicU64::new(0),
            rest: [const { AtomicU64::new(0) }; 2],
        }
    };
}

/// The calling thread runs on whatever CPU the spec says.
#[derive(Debug)]
pub struct Pretended;

impl Pretended {
    /// Where the area is, counted from the base of fs.
    pub fn area() -> isize {
        let base: usize;
        // SAFETY: reads the word at fs:0, which the ABI defines for every thread: the address of that word.
        unsafe {
            asm!("mov {}, qword ptr fs:[0]", out(reg) base, options(nostack, readonly, preserves_flags))
        };
        AREA.with(|area| std::ptr::from_ref(area).addr().wrapping_sub(base)).cast_signed()
    }

    pub fn cpu(cpu: u32) {
        AREA.with(|area| {
            area.cpu_id_start.store(cpu, Ordering::Relaxed);
            area.cpu_id.store(cpu, Ordering::Relaxed);
        });
    }

    /// The descriptor that is armed.
    pub fn armed() -> u64 {
        AREA.with(|area| area.rseq_cs.load(Ordering::Relaxed))
    }

    /// Whether anything was written where nothing of ours is.
    pub fn is_intact(cpu: u32) -> bool {
        AREA.with(|area| {
            let zero = area.rest.iter().all(|w| w.load(Ordering::Relaxed) == 0);
            let same = [&area.cpu_id, &area.cpu_id_start].iter().all(|id| id.load(Ordering::Relaxed) == cpu);
            zero && same
        })
    }
}
