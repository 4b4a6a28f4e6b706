//! Per-CPU structures under load: nothing lost, nothing twice, in an order that makes sense.

#![allow(missing_docs, reason = "test")]

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::unistd::gettid;
use rseq_spinlock::count::{CountError, Counted, Trouble, Which, count, slots_used};
use rseq_spinlock::cpus;
use rseq_spinlock::percpu::{Counter, CpuLock, FreeList, Rings, possible_cpus, usable};
use rseq_spinlock::sys::membarrier;
use rseq_spinlock::sys::rseq::Thread;
use rseq_spinlock::sys::sections::{ByCid, ByCpu, Index, Try, table};

/// The calling thread, or leave the test.
macro_rules! rseq {
    () => {
        match Thread::current() {
            Ok(thread) => thread,
            Err(e) => kit::skip!("rseq", "{e}"),
        }
    };
}

/// Signals have one handler in the process: one test at a time.
static SIGNALS: Mutex<()> = Mutex::new(());

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn rseq_counts_every_increment_in_any_trouble() {
    let _dog = kit::testing::watchdog(180);
    let _alone = SIGNALS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    rseq!();
    for trouble in [Trouble::Preemption, Trouble::Signals, Trouble::Migration] {
        match count(Which::Rseq, trouble, SHORT) {
            Ok(c) => assert_eq!(c.made, c.counted, "{trouble:?}: {c:?}"),
            // Nowhere to migrate to.
            Err(CountError::OneCpu) => {}
            Err(e) => panic!("{trouble:?}: {e}"),
        }
    }
}

/// Counts in trouble until an attempt has been aborted. Each bit of trouble hits a section by chance: on a busy machine
/// that takes a while, but not for ever. None: this machine cannot make that trouble.
fn until_aborted(trouble: Trouble) -> Option<Counted> {
    loop {
        let c = match count(Which::Rseq, trouble, SHORT) {
            Ok(c) => c,
            Err(CountError::OneCpu) => return None,
            Err(e) => panic!("{trouble:?}: {e}"),
        };
        assert_eq!(c.lost(), 0, "{trouble:?}: {c:?}");
        if c.aborts.sum() > 0 {
            return Some(c);
        }
    }
}

#[test]
fn signals_abort_and_are_told_apart() {
    let _dog = kit::testing::watchdog(180);
    let _alone = SIGNALS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    rseq!();
    let c = until_aborted(Trouble::Signals).expect("signals need no second CPU");
    assert!(c.aborts.signalled <= c.troubles, "{c:?}");
}

#[test]
fn membarrier_aborts_on_the_other_cpu() {
    let _dog = kit::testing::watchdog(180);
    let thread = rseq!();
    if let Err(e) = membarrier::abort_sections_on(thread.cpu_id()) {
        kit::skip!("membarrier.rseq", "{e}");
    }
    if until_aborted(Trouble::Membarrier).is_none() {
        kit::skip!("membarrier.rseq", "only one CPU to run on");
    }
}

fn slots_suffice_or_overflow<I: Index>(slots: usize) {
    let counter = Counter::<I>::new(slots);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let thread = Thread::current().expect("checked");
                for _ in 0..20_000 {
                    counter.add(thread);
                }
            });
        }
    });
    assert_eq!(counter.sum(), 80_000);
}

#[test]
fn more_cpus_than_slots_is_slower_not_wrong() {
    let _dog = kit::testing::watchdog(180);
    rseq!();
    for slots in [1, possible_cpus()] {
        slots_suffice_or_overflow::<ByCpu>(slots);
        if usable::<ByCid>().is_ok() {
            slots_suffice_or_overflow::<ByCid>(slots);
        }
    }
}

#[test]
fn concurrency_ids_are_dense() {
    let _dog = kit::testing::watchdog(180);
    if let Err(e) = usable::<ByCid>() {
        kit::skip!("rseq.mm_cid", "{e}");
    }
    let (by_cpu, by_cid) = slots_used().expect("usable").expect("a process more");
    assert_eq!(usize::from(by_cpu), cpus::allowed().expect("affinity").len().min(255));
    assert!(by_cid <= by_cpu);
}

#[test]
fn nodes_are_neither_lost_nor_doubled() {
    let _dog = kit::testing::watchdog(180);
    let thread = rseq!();
    const NODES: u32 = 64;
    let list: FreeList = FreeList::new(possible_cpus(), NODES);
    for node in 0..NODES {
        assert!(list.push(thread, node));
    }
    let owners: Vec<AtomicBool> = (0..NODES).map(|_| AtomicBool::new(false)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let thread = Thread::current().expect("checked");
                let mut mine = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..3 {
                        if let Some(node) = list.pop(thread) {
                            assert!(!owners[node as usize].swap(true, Ordering::AcqRel), "node {node} twice");
                            mine.push(node);
                        }
                    }
                    for node in mine.drain(..) {
                        assert!(owners[node as usize].swap(false, Ordering::AcqRel));
                        assert!(list.push(thread, node));
                    }
                }
            });
        }
        // Meanwhile, take from other CPUs' lists and give back to ours.
        let until = std::time::Instant::now() + SHORT;
        while std::time::Instant::now() < until {
            for cpu in 0..possible_cpus() as u32 {
                if let Ok(nodes) = list.take_all(cpu) {
                    for node in nodes {
                        assert!(!owners[node as usize].swap(true, Ordering::AcqRel), "node {node} twice");
                        assert!(owners[node as usize].swap(false, Ordering::AcqRel));
                        assert!(list.push(thread, node));
                    }
                }
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut all = Vec::new();
    list.for_each(|node| all.push(node));
    all.sort_unstable();
    assert_eq!(all, (0..NODES).collect::<Vec<_>>());
}

#[test]
fn running_down_another_cpu_needs_membarrier() {
    let _dog = kit::testing::watchdog(180);
    let thread = rseq!();
    if let Err(e) = membarrier::abort_sections_on(thread.cpu_id()) {
        kit::skip!("membarrier.rseq", "{e}");
    }
    // On a CPU that does not exist nothing runs; a list that does not exist is empty.
    assert!(membarrier::abort_sections_on(1 << 20).is_ok());
    let list: FreeList = FreeList::new(1, 1);
    assert!(list.take_all(1000).expect("no such list").is_empty());
}

#[test]
fn ring_items_come_out_once_and_in_order() {
    let _dog = kit::testing::watchdog(180);
    rseq!();
    let cpu = cpus::allowed().expect("affinity")[0];
    let rings: Rings = Rings::new(possible_cpus());
    let out = Mutex::new(Vec::new());
    let left = AtomicU64::new(2);
    std::thread::scope(|s| {
        for producer in 0..2u64 {
            let (rings, left) = (&rings, &left);
            s.spawn(move || {
                cpus::pin(cpus::ME, cpu).expect("allowed");
                let thread = Thread::current().expect("checked");
                for i in 0..20_000 {
                    while !rings.push(thread, producer << 32 | i) {
                        std::thread::yield_now();
                    }
                }
                left.fetch_sub(1, Ordering::Release);
            });
        }
        s.spawn(|| {
            cpus::pin(cpus::ME, cpu).expect("allowed");
            let thread = Thread::current().expect("checked");
            let mut got = Vec::new();
            loop {
                let done = left.load(Ordering::Acquire) == 0;
                match rings.pop(thread) {
                    Some(item) => got.push(item),
                    None if done => break,
                    None => std::thread::yield_now(),
                }
            }
            *out.lock().expect("no panic") = got;
        });
    });
    let out = out.into_inner().expect("no panic");
    assert_eq!(out.len(), 40_000);
    let mut next = HashMap::new();
    for item in out {
        let expected = next.entry(item >> 32).or_insert(0);
        assert_eq!(item & 0xffff_ffff, *expected, "each producer's items are in its order");
        *expected += 1;
    }
}

#[test]
fn the_cpu_lock_excludes_on_its_cpu() {
    let _dog = kit::testing::watchdog(180);
    rseq!();
    let lock: CpuLock = CpuLock::new(possible_cpus());
    let inside: Vec<AtomicU64> = (0..possible_cpus()).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let thread = Thread::current().expect("checked");
                for i in 0..5_000 {
                    let guard = lock.lock(thread).expect("a slot for each CPU");
                    let count = &inside[guard.cpu as usize];
                    assert_eq!(count.fetch_add(1, Ordering::AcqRel), 0);
                    if i % 100 == 0 {
                        // Perhaps to another CPU, with the lock of this one in hand.
                        std::thread::yield_now();
                    }
                    assert_eq!(count.fetch_sub(1, Ordering::AcqRel), 1);
                }
            });
        }
    });
    assert_eq!(lock.held(), 0);
}

/// A signal handler forks in the middle of sections: the child goes on with the same structure.
#[test]
fn a_child_forked_inside_goes_on() {
    use rseq_spinlock::sys::{child, signal};
    static COUNTER: std::sync::OnceLock<Counter> = std::sync::OnceLock::new();
    static BAD: AtomicU64 = AtomicU64::new(0);
    let _dog = kit::testing::watchdog(180);
    let _alone = SIGNALS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let thread = rseq!();
    let counter = COUNTER.get_or_init(|| Counter::new(possible_cpus()));
    fn in_child() -> bool {
        let (Some(counter), Ok(thread)) = (COUNTER.get(), Thread::current()) else { return false };
        let before = counter.sum();
        (0..100).for_each(|_| _ = counter.add(thread));
        counter.sum() == before + 100
    }
    signal::on_signal(Some(|| {
        if !child::fork_and_check(in_child) {
            BAD.fetch_add(1, Ordering::Relaxed);
        }
    }))
    .expect("sigaction");
    let stop = AtomicBool::new(false);
    let me = gettid();
    let mut made = 0;
    std::thread::scope(|s| {
        s.spawn(|| {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_micros(500));
                signal::send(me);
            }
            stop.store(true, Ordering::Relaxed);
        });
        while !stop.load(Ordering::Relaxed) {
            counter.add(thread);
            made += 1;
        }
    });
    signal::on_signal(None).expect("sigaction");
    assert_eq!(BAD.load(Ordering::Relaxed), 0);
    assert_eq!(counter.sum(), made);
}

#[test]
fn the_table_of_sections_is_sound() {
    rseq!();
    let counter: Counter = Counter::new(1);
    assert!(matches!(counter.try_add(rseq!()), Try::Done | Try::Aborted | Try::NoSlot));
    assert!(!table().is_empty());
    for entry in table() {
        assert!(entry.frame_ip < entry.start_ip && entry.start_ip < entry.post_commit_ip, "{entry:x?}");
        // struct rseq_cs must be 32-byte aligned, and the abort handler outside of the section.
        assert_eq!(entry.descriptor % 32, 0);
        assert!(!(entry.start_ip..entry.post_commit_ip).contains(&entry.abort_ip));
        let (_, abort) = entry.code();
        assert_eq!(abort[..4], 0x5305_3053u32.to_le_bytes());
    }
}
