//! Spec of exercise 3: a critical section by hand.

#![allow(missing_docs, reason = "test")]

#[allow(unsafe_code, reason = "critical sections are assembly")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex3.rs"]
mod exercise;

#[allow(dead_code, reason = "a starter calls nothing yet")]
mod section;

use exercise::{ABORTED, DONE, FULL, NO_LIST};
use kit::spec::property;
use rseq_spinlock::sys::rseq::Thread;
use section::{Link, List, OURS, Pretended, Section, THEIRS, lists, nodes, rounds};

/// All pushes pass here, so that there is one section and not one for each caller.
#[inline(never)]
fn push(area: isize, lists: &[List], links: &[Link], node: u32, limit: u32) -> u32 {
    exercise::try_push(area, lists, links, node, limit)
}

/// The section of the exercise, found by running it.
fn the_section() -> Section {
    Pretended::cpu(0);
    let (lists, links) = lists(1, 1);
    push(Pretended::area(), &lists, &links, 0, 9);
    property(
        "the address of a descriptor is at area + 8 when the section starts",
        "who tells the kernel that there is a section?",
    )
    .holds(Pretended::armed() != 0, "an address", "0");
    Section::at(Pretended::armed())
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex3.rs"]
fn on_the_list_of_this_cpu() {
    kit::spec::run(|| {
        let (lists, links) = lists(4, 8);
        let what = property(
            "a node is put first on the list of this CPU, and on no other",
            "how long is a list, and what do a head and a link hold?",
        );
        for (node, cpu) in [(5, 2), (0, 2), (3, 0), (7, 3), (1, 2)] {
            Pretended::cpu(cpu);
            what.same((node, DONE), (node, push(Pretended::area(), &lists, &links, node, 9)));
            what.same(true, Pretended::is_intact(cpu));
        }
        let all: Vec<(u32, Vec<u32>)> = lists.iter().map(|list| nodes(list, &links)).collect();
        what.same(vec![(1, vec![3]), (0, vec![]), (3, vec![1, 0, 5]), (1, vec![7])], all);
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex3.rs"]
fn no_list_or_no_room() {
    kit::spec::run(|| {
        let (all, links) = lists(8, 8);
        let what = property(
            "a CPU beyond the lists has none, and nothing happens",
            "may an index be trusted, even if the kernel gave it?",
        );
        for cpu in [4, 5, 1 << 20, u32::MAX] {
            Pretended::cpu(cpu);
            what.same((cpu, NO_LIST), (cpu, push(Pretended::area(), &all[..4], &links, 2, 9)));
            what.same(
                (cpu, vec![(0, vec![]); 8]),
                (cpu, all.iter().map(|list| nodes(list, &links)).collect()),
            );
        }
        Pretended::cpu(1);
        let what = property(
            "a list that has `limit` nodes takes no more, and nothing happens",
            "which half of the head is the count?",
        );
        let said = [4, 5, 6, 7].map(|node| push(Pretended::area(), &all[..4], &links, node, 3));
        what.same([DONE, DONE, DONE, FULL], said);
        what.same((3, vec![6, 5, 4]), nodes(&all[1], &links));
        what.same(FULL, push(Pretended::area(), &all[..4], &links, 7, 0));
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex3.rs"]
fn the_descriptor_says_where() {
    kit::spec::run(|| {
        let section = the_section();
        let what = property(
            "version and flags are 0, the length is that of some code",
            "what is the third word: an address, or a length?",
        );
        what.same(0, section.version_and_flags);
        what.holds(
            (8..=200).contains(&section.len) && !section.code.is_empty(),
            "code of 8 to 200 bytes",
            format!("{} bytes at {:#x}", section.len, section.start),
        );
        property(
            "the four bytes before the abort handler are the signature",
            "what does the kernel compare before it jumps?",
        )
        .same(format!("{:#x}", section::SIGNATURE), format!("{:#x}", section.signature));
        let (from, to) = (section.start, section.start + section.len);
        property("the abort handler is outside of the section", "what if it were interrupted there?").holds(
            !(from..to).contains(&section.abort),
            format!("not from {from:#x} to {to:#x}"),
            format!("{:#x}", section.abort),
        );
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex3.rs"]
fn the_commit_is_the_last_instruction() {
    kit::spec::run(|| {
        let section = the_section();
        property(
            "the last instruction of the section is one plain store of 8 bytes",
            "where does the length end, and how many stores change the list?",
        )
        .holds(
            section.ends_with_mov() && section.stores().last() == Some(&8),
            "… ; mov [list], register",
            section.listing(),
        );
        let stores: Vec<usize> = section.stores().into_iter().filter(|bytes| *bytes > 0).collect();
        property(
            "before it, only the link is stored",
            "what has happened if it is interrupted between two stores?",
        )
        .holds(
            stores == [4, 8],
            "stores of 4 and 8 bytes",
            format!("stores of {stores:?} bytes in {}", section.listing()),
        );
        property(
            "no call, no system call and no locked instruction is in the section",
            "what is it that needs none?",
        )
        .same(Vec::<String>::new(), section.strange());
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex3.rs"]
fn the_cpu_is_read_inside() {
    kit::spec::run(|| {
        let section = the_section();
        property(
            "the number of the CPU is read once, inside the section",
            "what if the thread is moved after it was read?",
        )
        .holds(section.reads_of_fs() == 1, "one instruction that reads fs:[…]", section.listing());
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex3.rs"]
fn an_interruption_at_any_instruction() {
    kit::spec::run(|| {
        let thread = Thread::current().expect("rseq works here");
        let area = thread.place().offset;
        let section = the_section();
        let cpus =
            nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF).ok().flatten().unwrap_or(1)
                as usize;
        let attempt = |lists: &[List], links: &[Link]| push(area, lists, links, OURS, 9);
        for round in rounds(&section, cpus, &attempt, ABORTED) {
            let at = format!("stopped at `{}`", round.instruction);
            property(
                "the thread survives an abort",
                "which signature is before the handler? Where does the handler go?",
            )
            .holds(round.end.is_none(), "it goes on", format!("{at}: {:?}", round.end));
            let aborts = round.outcomes.iter().filter(|o| **o == ABORTED).count();
            property(
                "an interruption before the commit is an abort, and the attempt says so",
                "what does the handler leave in the result, and does anything disarm the section?",
            )
            .holds(
                (!round.inside || aborts > 0) && round.outcomes.last() == Some(&DONE),
                "ABORTED, then DONE",
                format!("{:?}, {at}", round.outcomes),
            );
            let expected = if round.inside { (2, vec![OURS, THEIRS]) } else { (1, vec![OURS]) };
            property(
                "nothing is lost: what another thread has put there meanwhile is still there",
                "what was read before the interruption, and used after it?",
            )
            .holds(
                round.list == expected,
                format!("{} nodes, {:?}", expected.0, expected.1),
                format!("{} nodes, {:?}, {at}", round.list.0, round.list.1),
            );
        }
    });
}
