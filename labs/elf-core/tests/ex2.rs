//! Spec of exercise 2: from registers to a backtrace.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex2.rs"]
mod exercise;

mod cfi;
mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use elf_core::Core;
use elf_core::s4_memory::Lookup;
use elf_core::s5_module::Elf;
use elf_core::s6_unwind::Trust;
use elf_core::victim::Crash;
use kit::spec::property;
use kit::stats::SplitMix;

/// What the exercise has by the same names, with an equality of this spec's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Registers {
    ip: u64,
    sp: u64,
    bp: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    base: Base,
    offset: i64,
    bp_at: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Sp,
    Bp,
}

const ENTRY: Row = Row { base: Base::Sp, offset: 8, bp_at: None };
const MOST: usize = 10_000;

impl Registers {
    fn of(theirs: exercise::Registers) -> Self {
        Self { ip: theirs.ip, sp: theirs.sp, bp: theirs.bp }
    }

    fn theirs(self) -> exercise::Registers {
        exercise::Registers { ip: self.ip, sp: self.sp, bp: self.bp }
    }
}

impl Row {
    fn of(theirs: exercise::Row) -> Self {
        let base = match theirs.base {
            exercise::Base::Sp => Base::Sp,
            exercise::Base::Bp => Base::Bp,
        };
        Self { base, offset: theirs.offset, bp_at: theirs.bp_at }
    }

    fn theirs(self) -> exercise::Row {
        let base = match self.base {
            Base::Sp => exercise::Base::Sp,
            Base::Bp => exercise::Base::Bp,
        };
        exercise::Row { base, offset: self.offset, bp_at: self.bp_at }
    }
}

/// Reads a word of the dead process.
type Read<'a> = &'a dyn Fn(u64) -> Option<u64>;

fn by_frame_pointer(now: Registers, read: Read<'_>) -> Option<Registers> {
    exercise::by_frame_pointer(now.theirs(), read).map(Registers::of)
}

fn by_row(row: Row, now: Registers, read: Read<'_>) -> Option<Registers> {
    exercise::by_row(row.theirs(), now.theirs(), read).map(Registers::of)
}

fn row(program: &[u8], target: u64) -> Option<Row> {
    exercise::row(program, target).map(Row::of)
}

fn unwind(now: Registers, read: Read<'_>, row_of: &dyn Fn(u64) -> Option<Row>) -> Vec<Registers> {
    let frames = exercise::unwind(now.theirs(), read, &|ip| row_of(ip).map(Row::theirs));
    frames.into_iter().map(Registers::of).collect()
}

/// Where the made-up stack starts.
const S: u64 = 0x7ffe_0000;

/// A stack: words by address, everything else unreadable; ends a walk that does not end.
struct Stack {
    words: BTreeMap<u64, u64>,
    reads: Cell<usize>,
}

impl Stack {
    fn new(words: &[(u64, u64)]) -> Self {
        Self { words: words.iter().copied().collect(), reads: Cell::new(0) }
    }

    fn word(&self, address: u64) -> Option<u64> {
        self.reads.set(self.reads.get() + 1);
        property("the walk ends", "must a caller's frame be above?").holds(
            self.reads.get() < 4 * MOST,
            format!("fewer than {} words read", 4 * MOST),
            "more",
        );
        self.words.get(&address).copied()
    }

    fn walk(&self, now: Registers, rows: &[(u64, Row)]) -> Vec<Registers> {
        let row_of = |ip: u64| rows.iter().rev().find(|(start, _)| *start <= ip).map(|(_, row)| *row);
        unwind(now, &|a| self.word(a), &row_of)
    }
}

fn frame(ip: u64, sp: u64, bp: u64) -> Registers {
    Registers { ip, sp, bp }
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex2.rs"]
fn frame_pointers_lead_to_the_callers() {
    kit::spec::run(|| {
        let stack = Stack::new(&[
            (S + 0x20, S + 0x60), // bp of the innermost: saved bp, return address
            (S + 0x28, 0x1111),
            (S + 0x60, S + 0x90),
            (S + 0x68, 0x2222),
            (S + 0x90, 0),
            (S + 0x98, 0x3333),
        ]);
        let read = |a| stack.word(a);
        let one: Option<Registers> = by_frame_pointer(frame(0x1000, S, S + 0x20), &read);
        property(
            "the caller's bp is at [bp], its ip above that, its sp above both",
            "what had been pushed when bp was set, and what is left of it after the return?",
        )
        .same(Some(frame(0x1111, S + 0x30, S + 0x60)), one);
        let expected = vec![
            frame(0x1000, S, S + 0x20),
            frame(0x1111, S + 0x30, S + 0x60),
            frame(0x2222, S + 0x70, S + 0x90),
            frame(0x3333, S + 0xa0, 0),
        ];
        property(
            "without rules, the chain of frame pointers is followed to its end",
            "what does a saved bp of 0 say?",
        )
        .same(expected, stack.walk(frame(0x1000, S, S + 0x20), &[]));
        let none = property("a return address of 0 is no caller", "who calls the first function of all?");
        let last = Stack::new(&[(S + 0x20, S + 0x60), (S + 0x28, 0)]);
        none.same(None, by_frame_pointer(frame(0x1000, S, S + 0x20), &|a| last.word(a)));
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex2.rs"]
fn the_chain_only_goes_up() {
    kit::spec::run(|| {
        let start = frame(0x1000, S, S + 0x20);
        let up = property("a chain that leads down, or in a circle, ends", "must a caller's frame be above?");
        for saved in [S + 0x20, S + 0x10, S, S - 0x100] {
            // The second frame's saved bp leads back.
            let stack = Stack::new(&[
                (S + 0x20, S + 0x40),
                (S + 0x28, 0x1111),
                (S + 0x40, saved),
                (S + 0x48, 0x2222),
                (S + 0x10, S + 0x20),
                (S + 0x18, 0x3333),
                (S - 0x100, S + 0x20),
                (S - 0xf8, 0x4444),
                (S, S),
                (S + 8, 0x5555),
            ]);
            let expected = vec![start, frame(0x1111, S + 0x30, S + 0x40), frame(0x2222, S + 0x50, saved)];
            up.same(expected, stack.walk(start, &[]));
        }
        let not = property("what is no frame pointer is not followed", "what else may be in bp?");
        let stack = Stack::new(&[
            (S - 8, S),
            (S, 0x1111),
            (S + 4, S),
            (S + 12, 0x2222),
            (u64::MAX - 7, 1),
            (S + 0x80, S),
        ]);
        // Below sp; not a multiple of 8; without a return address; not mapped; at the end of the address space.
        for bp in [S - 8, S + 4, S + 0x80, S + 0x100, 0, u64::MAX, u64::MAX - 7] {
            not.same(None, by_frame_pointer(frame(0x1000, S, bp), &|a| stack.word(a)));
            not.same(vec![frame(0x1000, S, bp)], stack.walk(frame(0x1000, S, bp), &[]));
        }
        let long = |a: u64| if a.is_multiple_of(16) { Some(a + 16) } else { Some(0x1111) };
        property(
            format!("no more than {MOST} frames are followed"),
            "what if a whole gigabyte looks like a stack?",
        )
        .same(MOST, unwind(frame(0x1000, S, S), &long, &|_| None).len());
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex2.rs"]
fn a_rule_leads_to_the_caller() {
    kit::spec::run(|| {
        let words: Vec<(u64, u64)> = (0..64).map(|i| (S + 8 * i, 0x10_0000 + i)).collect();
        let stack = Stack::new(&words);
        let read = |a| stack.word(a);
        let now = frame(0x1000, S + 0x40, S + 0x80);
        let what = property(
            "CFA is the base plus the offset, the return address right below it, sp is the CFA",
            "which word did the call push, and where does sp stand once it is popped?",
        );
        what.same(Some(frame(0x10_0008, S + 0x48, S + 0x80)), by_row(ENTRY, now, &read));
        let sp = Row { base: Base::Sp, offset: 0x60, bp_at: None };
        what.same(Some(frame(0x10_0013, S + 0xa0, S + 0x80)), by_row(sp, now, &read));
        let bp = Row { base: Base::Bp, offset: 16, bp_at: Some(-16) };
        what.same(Some(frame(0x10_0011, S + 0x90, 0x10_0010)), by_row(bp, now, &read));
        let deep = Row { base: Base::Sp, offset: 0x60, bp_at: Some(-0x28) };
        property(
            "bp is where the rule says; if it says nothing, bp is what it was",
            "is it saved by everybody?",
        )
        .same(Some(frame(0x10_0013, S + 0xa0, 0x10_000f)), by_row(deep, now, &read));
        let none = property("a rule that needs what is not there gives no caller", "can the sum overflow?");
        for (row, now) in [
            (Row { offset: 0x1000, ..ENTRY }, now),
            (Row { bp_at: Some(0x1000), ..sp }, now),
            (ENTRY, frame(1, u64::MAX - 4, 0)),
            (Row { offset: -8, ..ENTRY }, frame(1, 4, 0)),
            (Row { offset: 0, ..ENTRY }, frame(1, 0, 0)),
        ] {
            none.same(None, by_row(row, now, &read));
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex2.rs"]
fn the_program_gives_the_rule() {
    kit::spec::run(|| {
        // push rbp (1 byte); mov rbp, rsp (3); …; a cold path that has popped it again; the rest.
        let program = [
            0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x02, 0x90, 0x0a, 0xc6, 0x0c, 7, 8, 0x41, 0x0b, 0x03,
            0x00, 0x02, 0x0e, 0x90, 0x01, 0x00,
        ];
        let sp = Row { base: Base::Sp, offset: 16, bp_at: Some(-16) };
        let bp = Row { base: Base::Bp, offset: 16, bp_at: Some(-16) };
        let what = property(
            "each instruction counts from the byte that it was advanced to",
            "does it count at that byte, too?",
        );
        for (at, expected) in [(0, ENTRY), (1, sp), (3, sp), (4, bp), (147, bp)] {
            what.same((at, Some(expected)), (at, row(&program, at)));
        }
        let what = property("recall brings back the whole row", "which parts of the row had changed since?");
        for (at, expected) in [(148, ENTRY), (149, bp), (660, bp)] {
            what.same((at, Some(expected)), (at, row(&program, at)));
        }
        property("a ULEB128 has seven bits a byte", "what does the eighth say?")
            .same(Some(Row { offset: 144, ..bp }), row(&program, 661));
        property("other registers are read past", "which of them does a caller's caller need?")
            .same(Some(Row { offset: 16, ..ENTRY }), row(&[0x83, 0x85, 0x01, 0x8c, 3, 0xcc, 0x0e, 16], 0));
        let none = property("what is cut off, or not known, is no rule", "what does `get` say at the end?");
        for cut in
            [&[0x0e][..], &[0x0e, 0x80], &[0x86], &[0x02], &[0x03, 1], &[0x04, 0, 0, 0], &[0x0c, 7], &[0x0b]]
        {
            none.same((cut, None), (cut, row(cut, 9)));
        }
        none.same(None, row(&[0x0c, 10, 0], 0));
        none.same(None, row(&[0x0f, 1, 0], 0));
        property("what comes after the target does not matter", "when is enough read?")
            .same(Some(ENTRY), row(&[0x41, 0x0f], 0));
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex2.rs"]
fn rules_of_this_program() {
    kit::spec::run(|| {
        let elf = Elf::open(Path::new("/proc/self/exe")).expect("a program can read itself");
        let (address, bytes) = elf.section(".eh_frame").expect("Rust programs have unwind tables");
        let mut random = SplitMix(kit::spec::seed());
        let mut targets = SplitMix(kit::spec::seed() ^ 1);
        let functions = cfi::functions(address, &bytes);
        let mut compared = 0;
        // One in eight, each time others: all of them take seconds.
        for function in functions.iter().filter(|_| random.next_u64().is_multiple_of(8)) {
            for target in [0, function.len - 1, targets.next_u64() % function.len] {
                let Some((base, offset, bp_at)) = cfi::row(address, &bytes, function, target) else {
                    continue;
                };
                let base = if base == 6 { Base::Bp } else { Base::Sp };
                compared += 1;
                let (expected, seen) = (Some(Row { base, offset, bp_at }), row(function.program, target));
                property(
                    "for every function of this program the rule is gimli's",
                    "what does each byte of it say?",
                )
                .holds(
                    expected == seen,
                    format!("{expected:?}, {target} bytes into the function of {:02x?}", function.program),
                    format!("{seen:?}"),
                );
            }
        }
        assert!(compared > 1000, "{compared} of {} functions", functions.len());
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex2.rs"]
fn rules_and_frame_pointers_together() {
    kit::spec::run(|| {
        let stack = Stack::new(&[
            (S + 0x18, 0x2000), // 0x1000 has a frame of 0x20: returns to the first byte after 0x1fff
            (S + 0x38, 0x3010), // 0x1fff: 0x20 as well
            (S + 0x80, 0),      // 0x3010: by frame pointer
            (S + 0x88, 0x4000),
        ]);
        let start = frame(0x1000, S, S + 0x80);
        let by_20 = Row { offset: 0x20, ..ENTRY };
        let wild = Row { offset: 0x500, ..ENTRY };
        let nowhere = Row { offset: -0x100, ..ENTRY };
        // The function that starts at 0x2000 has nothing to do with it.
        let rows = [(0x1000, by_20), (0x2000, wild), (0x3000, wild), (0x4000, nowhere)];
        let expected = vec![
            start,
            frame(0x2000, S + 0x20, S + 0x80),
            frame(0x3010, S + 0x40, S + 0x80),
            frame(0x4000, S + 0x90, 0),
        ];
        property(
            "the rule of a caller is that of its call; where it leads nowhere the frame pointer may know",
            "a call can be the last instruction of its function: whose byte is the return address then?",
        )
        .same(expected, stack.walk(start, &rows));
        property("the innermost frame is asked for its own instruction", "has it been executed?").same(
            vec![frame(0x2000, S, 0)],
            Stack::new(&[(S + 0x18, 0x1111)]).walk(frame(0x2000, S, 0), &[(0x1000, by_20), (0x2000, wild)]),
        );
        // A rule that does not lead up: CFA is sp itself.
        let stack = Stack::new(&[(S - 8, 0x1234), (S + 0x40, 0), (S + 0x48, 0x5000)]);
        let still = Row { offset: 0, ..ENTRY };
        property("a rule that does not lead up is not followed", "must a caller's frame be above?").same(
            vec![frame(0x1000, S, S + 0x40), frame(0x5000, S + 0x50, 0)],
            stack.walk(frame(0x1000, S, S + 0x40), &[(0x1000, still), (0x4fff, nowhere)]),
        );
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex2.rs"]
fn threads_of_a_snapshot() {
    kit::spec::run(|| {
        let (victim, dir) = common::victim(Crash::Park, 3);
        let path = dir.path().join("snapshot");
        victim.snapshot(&path).expect("the lab's gcore works here");
        let mut core = Core::open(&path).expect("the lab reads its own core");
        let memory = core.memory(&Lookup::default());
        let tables: Vec<_> = memory
            .modules
            .iter()
            .filter_map(|m| {
                let elf = m.elf.as_ref().ok()?;
                Some((m.range, m.bias, elf.section(".eh_frame")?, elf.section(".eh_frame_hdr")?))
            })
            .collect();
        let row_of = |ip: u64| {
            let (_, bias, table, hdr) = tables.iter().find(|t| (t.0.0..t.0.1).contains(&ip))?;
            let at = ip.wrapping_sub(*bias);
            let (program, target) = cfi::function_at((table.0, &table.1), (hdr.0, &hdr.1), at)?;
            row(program, target)
        };
        let mut compared = 0;
        for (thread, trace) in core.process.threads.iter().zip(core.backtraces(&memory)) {
            let (Some(r), Some(trace)) = (&thread.registers, trace) else { continue };
            // The lab knows more rules than this exercise: compare as far as these are enough.
            let known =
                trace.frames.iter().take_while(|f| matches!(f.trust, Trust::Registers | Trust::Cfi)).count();
            let lab: Vec<(u64, u64)> = trace.frames[..known].iter().map(|f| (f.pc, f.sp)).collect();
            let bp = r.by_name("rbp").expect("a register");
            let frames = unwind(frame(r.rip(), r.rsp(), bp), &|a| memory.u64(a), &row_of);
            let seen: Vec<(u64, u64)> = frames.iter().take(known).map(|f| (f.ip, f.sp)).collect();
            compared += known;
            property(
                format!("the backtrace of thread {} is the lab's, as (ip, sp)", thread.tid),
                "which is the first frame that differs, and which rule led there?",
            )
            .same(lab, seen);
        }
        assert!(compared >= 12, "only {compared} frames");
    });
}
