//! Stops a push at each of its instructions, and puts a node on the same list meanwhile, as another thread of that CPU
//! would. `src/inject.rs` says why this is done by breakpoints.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use rseq_spinlock::sys::child::{Traced, stop_here};

use super::{Link, List, Section};

/// Our node, and that of the other thread.
pub const OURS: u32 = 0;
pub const THEIRS: u32 = 1;
/// A list that holds theirs only.
const ONLY_THEIRS: u64 = 1 << 32 | (THEIRS as u64 + 1);

/// Attempts in a round after which nobody believes that one will succeed.
const MANY: usize = 20;

/// What came of a push that was stopped at one instruction.
#[derive(Debug)]
pub struct Round {
    pub instruction: String,
    /// Whether it is one of the section's, and so before the commit.
    pub inside: bool,
    /// The outcomes of all attempts.
    pub outcomes: Vec<u32>,
    /// Of the list that was pushed on: its count, and its nodes from the first on.
    pub list: (u32, Vec<u32>),
    /// How the child ended, if not as it should.
    pub end: Option<WaitStatus>,
}

/// A round for each instruction of the section, and one for the instruction after it. `push` is one attempt to push node
/// [`OURS`]; it is repeated while it says `aborted`.
pub fn rounds(
    section: &Section,
    cpus: usize,
    push: &dyn Fn(&[List], &[Link]) -> u32,
    aborted: u32,
) -> Vec<Round> {
    let after = section.start + section.len;
    let inside = section.code.iter().map(|i| (i.ip(), i.to_string()));
    let points = inside.chain([(after, "what comes after the commit".to_owned())]);
    points.map(|(ip, name)| round(ip, name, ip < after, cpus, push, aborted)).collect()
}

fn round(
    ip: u64,
    instruction: String,
    inside: bool,
    cpus: usize,
    push: &dyn Fn(&[List], &[Link]) -> u32,
    aborted: u32,
) -> Round {
    let (lists, links) = super::lists(cpus, 2);
    // Theirs is the last of its list.
    links[THEIRS as usize].0.store(0, Ordering::Relaxed);
    let outcomes: [AtomicU32; MANY + 1] = std::array::from_fn(|_| AtomicU32::new(u32::MAX));
    let child = Traced::fork(|| {
        for place in &outcomes[..MANY] {
            let outcome = push(&lists, &links);
            place.store(outcome, Ordering::Relaxed);
            if outcome != aborted {
                break;
            }
        }
        stop_here();
    });
    let child = child.expect("ptrace works here");
    let pid = child.0;
    let read =
        |at: usize| ptrace::read(pid, at as ptrace::AddressType).expect("PTRACE_PEEKDATA").cast_unsigned();
    let write = |at: usize, word: u64| {
        ptrace::write(pid, at as ptrace::AddressType, word.cast_signed()).expect("PTRACE_POKEDATA");
    };
    let go_on = || {
        ptrace::cont(pid, None).expect("PTRACE_CONT");
        child.wait().expect("waitpid")
    };
    let heads = || lists.iter().map(|list| std::ptr::from_ref(&list.head).addr());

    let code = read(ip as usize);
    write(ip as usize, code & !0xff | 0xcc);
    let mut stop = go_on();
    if stop == WaitStatus::Stopped(pid, Signal::SIGTRAP) {
        write(ip as usize, code);
        let mut registers = ptrace::getregs(pid).expect("PTRACE_GETREGS");
        registers.rip = ip;
        ptrace::setregs(pid, registers).expect("PTRACE_SETREGS");
        if inside {
            // On whatever CPU it is.
            heads().for_each(|head| write(head, ONLY_THEIRS));
        }
        // Off its CPU for a moment: that is what the section must notice.
        std::thread::sleep(Duration::from_millis(1));
        stop = go_on();
    }
    let mut round = Round { instruction, inside, outcomes: Vec::new(), list: (0, Vec::new()), end: None };
    if stop != WaitStatus::Stopped(pid, Signal::SIGSTOP) {
        round.end = Some(stop);
        return round;
    }
    let said = outcomes.iter().map(|place| read(std::ptr::from_ref(place).addr()) as u32);
    round.outcomes = said.take_while(|outcome| *outcome != u32::MAX).collect();
    let before = if inside { ONLY_THEIRS } else { 0 };
    let head = heads().map(read).find(|head| *head != before).unwrap_or(before);
    let mut next = head as u32;
    while next != 0 && round.list.1.len() < 3 {
        round.list.1.push(next - 1);
        next = links.get(next as usize - 1).map_or(0, |link| read(std::ptr::from_ref(link).addr()) as u32);
    }
    round.list.0 = (head >> 32) as u32;
    round
}
