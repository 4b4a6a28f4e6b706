//! What exercise 3 moves, and over what: the two ends as the exercise sees them, and a guest that lives in plain memory.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;

use kit::spec::property;
use kit::stats::SplitMix;

pub mod real;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// A guest that is to move. While it runs, it may write to any page before, in and after each of these calls.
pub trait Guest {
    /// Pages of memory, from number 0 on.
    fn pages(&self) -> u64;
    /// Has the pages noted that the guest writes from now on, or no longer.
    fn log(&mut self, on: bool);
    /// The pages noted since the last call, or since the log was switched on: bit 0 of the first word is page 0.
    fn take_log(&mut self) -> Vec<u64>;
    /// Copies a page out.
    fn read(&mut self, page: u64, to: &mut [u8; PAGE]);
    /// Stops it: when this returns, it writes no more. Returns its registers.
    fn pause(&mut self) -> Vec<u8>;
    /// Lets it run again; nothing, if it runs.
    fn resume(&mut self);
}

/// The memory that it arrives in: all zero at first.
pub trait Place {
    /// Pages of memory, from number 0 on.
    fn pages(&self) -> u64;
    /// Copies a page in.
    fn write(&mut self, page: u64, from: &[u8; PAGE]);
}

/// When to stop the guest.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At most so many rounds while it runs; the first, over all of memory, is one of them.
    pub rounds: u32,
    /// Earlier, if no more pages than this are left to be sent.
    pub pause_at: u64,
}

/// A record of the stream begins with a word: the page, shifted left by 8, and one of these.
pub mod kind {
    /// The page's bytes follow.
    pub const BYTES: u64 = 1;
    /// The page is zero.
    pub const ZERO: u64 = 2;
    /// The end. In place of a page, how many bytes of registers follow.
    pub const END: u64 = 3;
}

/// Most bytes of registers.
pub const REGISTERS: u64 = 65536;

/// When a guest in plain memory writes.
#[derive(Debug, Clone)]
pub enum Habit {
    /// Never.
    Still,
    /// At random, in every call; less as time goes by.
    Busy(SplitMix),
    /// So many pages in the first round, the second, …; the last of them for ever.
    Steady(Vec<u64>),
}

/// A guest in plain memory.
#[derive(Debug)]
pub struct Plain {
    pub memory: Vec<[u8; PAGE]>,
    pub habit: Habit,
    pub logging: bool,
    pub paused: Rc<Cell<bool>>,
    pub pauses: u32,
    noted: Vec<u64>,
    logs: usize,
    calls: u64,
    wrote: bool,
}

impl Plain {
    pub fn new(pages: usize, habit: Habit) -> Self {
        Self {
            memory: vec![[0; PAGE]; pages],
            habit,
            logging: false,
            paused: Rc::default(),
            pauses: 0,
            noted: vec![0; pages.div_ceil(64)],
            logs: 0,
            calls: 0,
            wrote: false,
        }
    }

    /// Writes to a page: as the guest does, so it is noted.
    pub fn set(&mut self, page: u64, byte: u8) {
        self.memory[page as usize].fill(byte);
        if self.logging {
            self.noted[page as usize / 64] |= 1 << (page % 64);
        }
    }

    /// What a guest does in a call other than `read`; a steady one, nothing.
    fn live_a_little(&mut self) {
        if !matches!(self.habit, Habit::Steady(_)) {
            self.live();
        }
    }

    fn live(&mut self) {
        if self.paused.get() {
            return;
        }
        self.calls += 1;
        let pages = self.memory.len() as u64;
        match &mut self.habit {
            Habit::Still => {}
            Habit::Busy(random) => {
                let may = if self.calls < 2 * pages { 2 } else { 16 };
                if random.next_u64() % may == 0 {
                    let (page, byte) = (random.next_u64() % pages, random.next_u64() % 3);
                    self.set(page, byte as u8);
                }
            }
            Habit::Steady(rates) => {
                let rate = rates[self.logs.min(rates.len() - 1)];
                if !std::mem::replace(&mut self.wrote, true) {
                    (0..rate).for_each(|page| self.set(page, self.logs as u8 + 2));
                }
            }
        }
    }
}

impl Guest for Plain {
    fn pages(&self) -> u64 {
        self.memory.len() as u64
    }

    fn log(&mut self, on: bool) {
        self.live_a_little();
        self.logging = on;
        self.noted.fill(0);
    }

    fn take_log(&mut self) -> Vec<u64> {
        self.live_a_little();
        self.logs += 1;
        if self.logs > 1000 {
            property("a move comes to its end", "what if the guest never calms down?").holds(
                false,
                "an end",
                "the log taken 1000 times",
            );
        }
        let words = self.noted.len();
        let log = std::mem::replace(&mut self.noted, vec![0; words]);
        self.wrote = false;
        self.live_a_little();
        log
    }

    fn read(&mut self, page: u64, to: &mut [u8; PAGE]) {
        self.live();
        *to = self.memory[page as usize];
        self.live();
    }

    fn pause(&mut self) -> Vec<u8> {
        // Up to the last moment.
        if let (false, Habit::Busy(random)) = (self.paused.get(), &mut self.habit) {
            let page = random.next_u64() % self.memory.len() as u64;
            self.set(page, 3 + self.memory[page as usize][0] % 3);
        }
        self.paused.set(true);
        self.pauses += 1;
        b"registers".to_vec()
    }

    fn resume(&mut self) {
        self.paused.set(false);
    }
}

/// What was sent, taken in small pieces; may break.
#[derive(Debug, Default)]
pub struct Wire {
    pub bytes: Vec<u8>,
    /// Bytes sent while the guest was stopped.
    pub while_paused: usize,
    pub paused: Rc<Cell<bool>>,
    /// After so many bytes.
    pub breaks_at: Option<usize>,
}

/// Most bytes that the wire takes at once: less than a page.
const AT_ONCE: usize = 1000;

impl Wire {
    /// A wire that knows when the guest is stopped.
    pub fn of(guest: &Plain) -> Self {
        Self { paused: Rc::clone(&guest.paused), ..Self::default() }
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let room = self.breaks_at.map_or(AT_ONCE, |at| at - self.bytes.len());
        if room == 0 {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        let taken = from.len().min(room).min(AT_ONCE);
        self.bytes.extend_from_slice(&from[..taken]);
        if self.paused.get() {
            self.while_paused += taken;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The spec's own receiver: memory and registers, and how many records there were of bytes and of zeros.
pub fn unpack(stream: &[u8], pages: usize) -> (Vec<[u8; PAGE]>, Vec<u8>, [u64; 2]) {
    let whole = property(
        "the stream has whole records up to its end",
        "what does a record begin with, and what ends it?",
    );
    let mut memory = vec![[0; PAGE]; pages];
    let (mut rest, mut records) = (stream, [0; 2]);
    loop {
        let Some((word, after)) = rest.split_first_chunk::<8>() else {
            whole.holds(false, "a record", format!("{} bytes at the end", rest.len()));
            continue;
        };
        let (word, mut after) = (u64::from_le_bytes(*word), after);
        let number = (word >> 8) as usize;
        let mut take = |len: usize| {
            whole.holds(after.len() >= len, format!("{len} bytes behind {word:#x}"), after.len());
            let (taken, left) = after.split_at(len);
            after = left;
            taken
        };
        match word & 0xff {
            kind::BYTES if number < pages => {
                memory[number].copy_from_slice(take(PAGE));
                records[0] += 1;
            }
            kind::ZERO if number < pages => {
                memory[number] = [0; PAGE];
                records[1] += 1;
            }
            kind::END => {
                let registers = take(number).to_vec();
                whole.holds(after.is_empty(), "the end", format!("{} bytes behind it", after.len()));
                return (memory, registers, records);
            }
            _ => whole.holds(false, "a kind of record and a page there is", format!("{word:#x}")),
        }
        rest = after;
    }
}
