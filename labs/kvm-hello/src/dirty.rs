//! Which pages did the guest write? KVM's two ways to tell; live migration and snapshots live on them.
//!
//! ```text
//! dirty log    a bit a page:      KVM_GET_DIRTY_LOG copies the bitmap and clears it     (all pages, always)
//! dirty ring   an entry a page:   KVM appends to a ring that we read by ourselves       (written pages only)
//! ```
//!
//! KVM API documentation, "KVM_GET_DIRTY_LOG" and "KVM_CAP_DIRTY_LOG_RING" (Linux 5.11).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kit::SysError;
use kvm_bindings::{KVM_CAP_DIRTY_LOG_RING, KVM_DIRTY_LOG_PAGE_OFFSET, kvm_enable_cap, kvm_regs};
use kvm_ioctls::VmFd;

use crate::error::{Error, kvm};
use crate::exits::{NoBus, Why};
use crate::layout;
use crate::machine::{Machine, Plan};
use crate::s4_long::enter_ring3;
use crate::sys::guest;
use crate::sys::kvm::reset_dirty_rings;
use crate::sys::mem::Mapping;

/// The guest's memory: 32 MiB, 8192 pages.
pub const MEMORY: usize = 32 << 20;
/// The pages that its "boot" writes: all from 1 MiB on.
pub const BOOT_PAGES: u64 = (MEMORY as u64 - BOOT_START) / 4096;
const BOOT_START: u64 = 1 << 20;
/// Entries in the dirty ring.
pub const RING: u32 = 4096;
/// Stores that the guest's work makes, to pages picked at random.
pub const STORES: u64 = 64;

/// How KVM was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    Nothing,
    /// By bitmap.
    Log,
    /// By ring.
    Ring,
}

/// What came of it.
#[derive(Debug)]
pub struct Tracked {
    /// Which way.
    pub method: Method,
    /// The pages that KVM says were written.
    pub pages: BTreeSet<u64>,
    /// The pages whose bytes differ from before: the truth.
    pub differ: BTreeSet<u64>,
    /// How long the guest took for its work.
    pub work: Duration,
    /// How long it took to get the list.
    pub collect: Duration,
}

impl Tracked {
    /// KVM named every page that was written, and no other but page tables.
    ///
    /// Tables may be named although nobody stored to them: with EPT's accessed and dirty flags on, a
    /// processor's own walk counts as a write to the guest's tables (Intel SDM volume 3, 30.3.5).
    pub fn exact(&self) -> bool {
        let tables = layout::TABLES / 4096..layout::TABLES / 4096 + TABLES;
        self.differ.is_subset(&self.pages)
            && self.pages.difference(&self.differ).all(|page| tables.contains(page))
    }
}

/// Pages that this guest's tables take, generously: a root, and a few for each 1 GiB that is mapped.
const TABLES: u64 = 16;

/// A guest that has booted and is about to work.
///
/// # Errors
/// A call that failed, or an exit that was not due.
pub fn booted(method: Method) -> Result<Machine, Error> {
    let ring = if method == Method::Ring { RING } else { 0 };
    let mut machine =
        Machine::build(&Plan { memory: MEMORY, cpuid: true, dirty_ring: ring, ..Plan::default() })?;
    machine.memory().write(layout::CODE as usize, guest::dirty().bytes);
    let regs = kvm_regs {
        rip: layout::CODE,
        rdi: BOOT_START,
        rcx: BOOT_PAGES,
        r8: SEED,
        r9: STORES,
        rbx: 1,
        ..Default::default()
    };
    enter_ring3(&mut machine, regs)?;
    run_to(&mut machine, 0x10, "the guest's boot")?;
    // Finishes the `out`, so that the registers say "behind it".
    machine.vcpu.settle()?;
    Ok(machine)
}

/// Lets a booted guest do its work; returns how long that took.
///
/// # Errors
/// A call that failed, or an exit that was not due.
pub fn work(machine: &mut Machine) -> Result<Duration, Error> {
    run_to(machine, 0x11, "the guest's work")
}

/// Runs the guest until it writes to a port.
fn run_to(machine: &mut Machine, port: u16, doing: &'static str) -> Result<Duration, Error> {
    machine.vcpu.set_deadline(Some(Duration::from_secs(30)))?;
    let exit = machine.run(&mut NoBus)?;
    machine.vcpu.set_deadline(None)?;
    match exit.why {
        Why::PortOut { port: seen, .. } if seen == port => Ok(exit.took),
        _ => Err(Error::Unexpected { doing, exit: Box::new(exit), rip: machine.regs()?.rip }),
    }
}

/// Where the written pages are found.
pub const HERE: kit::Place = kit::here!();

/// Lets a booted guest work, and finds the pages that it wrote.
///
/// # Errors
/// A call that failed, or an exit that was not due.
pub fn track(method: Method) -> Result<Tracked, Error> {
    let mut machine = booted(method)?;
    let before = Mapping::anonymous(MEMORY)?;
    before.copy_from(machine.memory());
    let mut ring = match method {
        Method::Ring => Some(Ring::map(&machine)?),
        _ => None,
    };
    if method != Method::Nothing {
        machine.vm.log_dirty(true)?;
    }
    let work = work(&mut machine)?;

    let start = Instant::now();
    let pages = match (&mut ring, method) {
        (Some(ring), _) => ring.collect(&machine)?,
        (None, Method::Log) => pages_of(&log(&machine)?),
        (None, _) => BTreeSet::new(),
    };
    let collect = start.elapsed();
    Ok(Tracked { method, pages, differ: differing(&before, machine.memory()), work, collect })
}

/// The bitmap: one bit a page that was written since the last call.
///
/// # Errors
/// What the ioctl says: `ENOENT` while nothing is noted ([`Vm::log_dirty`](crate::sys::kvm::Vm::log_dirty)).
#[doc(alias = "KVM_GET_DIRTY_LOG")]
pub fn log(machine: &Machine) -> Result<Vec<u64>, SysError> {
    machine.vm.fd().get_dirty_log(0, machine.memory().len()).map_err(kvm("KVM_GET_DIRTY_LOG"))
}

/// The numbers of the bits that are set.
pub fn pages_of(bitmap: &[u64]) -> BTreeSet<u64> {
    let mut pages = BTreeSet::new();
    for (i, word) in bitmap.iter().enumerate() {
        let mut rest = *word;
        while rest != 0 {
            pages.insert(64 * i as u64 + u64::from(rest.trailing_zeros()));
            rest &= rest - 1;
        }
    }
    pages
}

/// The ring of a vCPU, as KVM shows it: `struct kvm_dirty_gfn { flags u32, slot u32, offset u64 }`.
#[derive(Debug)]
struct Ring {
    entries: Mapping,
    next: usize,
}

/// The entry is filled: ours to read.
const DIRTY: u32 = 1;
/// We are done with the entry: KVM's to reuse.
const RESET: u32 = 2;
/// Bytes of an entry.
const ENTRY: usize = 16;

/// Turns the dirty ring on; only before the first vCPU.
pub(crate) fn enable_ring(vm: &VmFd, entries: u32) -> Result<(), SysError> {
    let bytes = u64::from(entries) * ENTRY as u64;
    let cap = kvm_enable_cap { cap: KVM_CAP_DIRTY_LOG_RING, args: [bytes, 0, 0, 0], ..Default::default() };
    vm.enable_cap(&cap).map_err(kvm("KVM_ENABLE_CAP(KVM_CAP_DIRTY_LOG_RING)"))
}

impl Ring {
    fn map(machine: &Machine) -> Result<Self, SysError> {
        let offset = i64::from(KVM_DIRTY_LOG_PAGE_OFFSET) * 4096;
        let entries = Mapping::vcpu(machine.vcpu.fd(), offset, RING as usize * ENTRY)?;
        Ok(Self { entries, next: 0 })
    }

    /// Reads all filled entries, and gives them back.
    fn collect(&mut self, machine: &Machine) -> Result<BTreeSet<u64>, SysError> {
        let mut pages = BTreeSet::new();
        loop {
            let at = self.next % RING as usize * ENTRY;
            // Acquire: pairs with KVM's release of the flag after it wrote slot and offset.
            if self.entries.load_acquire_u32(at) & DIRTY == 0 {
                break;
            }
            let low = u64::from(self.entries.read_u32(at + 8));
            let high = u64::from(self.entries.read_u32(at + 12));
            pages.insert(high << 32 | low);
            // Release: we have read the entry before KVM sees that it may be reused.
            self.entries.store_release_u32(at, RESET);
            self.next += 1;
        }
        reset_dirty_rings(machine.vm.fd())?;
        Ok(pages)
    }
}

/// The pages whose bytes differ: the naive way to know.
pub(crate) fn differing(before: &Mapping, after: &Mapping) -> BTreeSet<u64> {
    let (mut a, mut b) = ([0; 4096], [0; 4096]);
    (0..(before.len() / 4096))
        .filter(|page| {
            before.read(page * 4096, &mut a);
            after.read(page * 4096, &mut b);
            a != b
        })
        .map(|page| page as u64)
        .collect()
}

/// The seed of the guest's generator.
const SEED: u64 = 42;

/// The pages that the guest's program is bound to write, computed here: Knuth's MMIX generator, as in
/// `guest/dirty.s`, and page 0 for its result.
pub fn predicted() -> BTreeSet<u64> {
    let mut state = SEED;
    let mut pages = BTreeSet::from([0]);
    for _ in 0..STORES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pages.insert(4096 + (state >> 40 & 4095));
    }
    pages
}
