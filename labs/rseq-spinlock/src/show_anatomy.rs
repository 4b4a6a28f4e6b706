//! `--anatomy`: one critical section, and what happens at each instruction.

use kit::{Hexdump, Listing, Predict, Session, Table};
use rseq_spinlock::anatomy::{Anatomy, dissect};
use rseq_spinlock::inject::{EVENTS, Event, InjectError, Part, Round, inject};
use rseq_spinlock::subject::Subject;

/// Which section to show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Section {
    #[default]
    CounterAdd,
    ListPush,
    ListPop,
    RingPush,
    RingPop,
    LockTake,
}

impl Section {
    fn subject(self) -> Subject {
        match self {
            Self::CounterAdd => Subject::CounterAdd,
            Self::ListPush => Subject::ListPush,
            Self::ListPop => Subject::ListPop,
            Self::RingPush => Subject::RingPush,
            Self::RingPop => Subject::RingPop,
            Self::LockTake => Subject::LockTake,
        }
    }
}

pub fn show(s: &mut Session, section: Section) -> anyhow::Result<()> {
    let subject = section.subject();
    s.param("section", subject.name());
    let anatomy = dissect(subject.kind()).ok_or(InjectError::NoSection)?;
    code(s, subject, &anatomy);
    descriptor(s, &anatomy);
    events(s, subject, &anatomy)?;
    s.so(
        "the commit is one store; whatever happens before it has not happened",
        "--section list-pop, --trace-aborts",
    );
    Ok(())
}

fn code(s: &mut Session, subject: Subject, anatomy: &Anatomy) {
    s.step(format!("Read the section: {}", subject.name()));
    let base = anatomy.entry.frame_ip;
    let mut listing = Listing::new("The section");
    let last = anatomy.lines.len() - 1;
    for (i, line) in anatomy.lines.iter().enumerate() {
        let note = match line.part {
            Part::Inside if i == last => "commit: the only store that others see",
            Part::Inside if line.ip == anatomy.entry.start_ip => "start_ip: which CPU are we on?",
            Part::Before if anatomy.lines[i + 1].part == Part::Inside => "armed: rseq_cs = the descriptor",
            _ => "",
        };
        listing = listing.line(format!("{:4x}  {}", line.ip - base, short(&line.text)), note);
    }
    s.listing(listing);
    let mut handler = Listing::new("Elsewhere: the abort handler");
    handler =
        handler.line(format!("      dd {:#x}", anatomy.signature), "the signature: without it, SIGSEGV");
    for (i, line) in anatomy.abort.iter().enumerate() {
        handler = handler.line(
            format!("      {}", short(&line.text)),
            if i == 0 { "abort_ip" } else { "and out: try again" },
        );
    }
    s.listing(handler);
    s.say("No lock prefix, no fence, no system call: **one store more** than the same code without rseq.");
}

/// Long addresses say nothing here.
fn short(text: &str) -> String {
    let verb = text.split(' ').next().unwrap_or(text);
    match text {
        _ if text.contains("rel ") => format!("{verb} (descriptor)"),
        _ if verb.starts_with('j') => format!("{verb} (out)"),
        _ => text.to_owned(),
    }
}

fn descriptor(s: &mut Session, anatomy: &Anatomy) {
    s.step("Read its descriptor, as the kernel does");
    let e = &anatomy.entry;
    let words = [0, e.start_ip, e.post_commit_ip - e.start_ip, e.abort_ip];
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    s.hexdump(
        Hexdump::new(&format!("struct rseq_cs at {:#x}", e.descriptor), 0, &bytes)
            .note(0, 8, "version 0, flags 0")
            .note(8, 8, "start_ip")
            .note(16, 8, format!("post_commit_offset: {} bytes", words[2]))
            .note(24, 8, "abort_ip"),
    );
    s.table(
        Table::new(["when", "the kernel, on the way back to user mode"])
            .row(["preempted", "writes cpu_id and mm_cid anew; ip inside? ip = abort_ip"])
            .row(["migrated", "the same: the CPU number that was read is stale"])
            .row(["signal", "ip inside? ip = abort_ip, before the handler's frame is built"])
            .row(["ip outside", "clears rseq_cs, so that it need not look again"]),
    );
}

fn events(s: &mut Session, subject: Subject, anatomy: &Anatomy) -> anyhow::Result<()> {
    s.step("Make each happen at each instruction");
    s.predict(Predict::new(
        "a signal handler does the same operation in the middle. Where does that hurt, without rseq?",
        ["nowhere", "between the first look and the commit", "everywhere in the section"],
        1,
        "Before the first look nothing is known yet; after the commit nothing is pending.",
    ));
    let mut columns: Vec<Vec<Round>> = Vec::new();
    for event in EVENTS {
        match inject(subject, true, event) {
            Ok(rounds) => columns.push(rounds),
            Err(e @ InjectError::OneCpu) => {
                s.missing("migration", e.to_string(), "a second CPU");
                columns.push(Vec::new());
            }
            Err(InjectError::Sys(e)) => {
                s.missing("the events", e.to_string(), "a container or filter that allows ptrace(2)");
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        }
    }
    let control = inject(subject, false, Event::Signal)?;
    let mut table = Table::new(["at", "instruction", "preempt", "signal", "migrate", "without rseq"]);
    for (i, round) in control.iter().enumerate() {
        let line = anatomy.lines.get(i);
        let outcome = |rounds: &Vec<Round>| {
            rounds.get(i).map_or("", |r| match (r.right, r.aborts) {
                (false, _) => "WRONG",
                (true, 0) => "-",
                (true, _) => "abort",
            })
        };
        let text = line.map_or("(after)".into(), |l| short(&l.text));
        let at = line.map_or_else(|| anatomy.entry.post_commit_ip, |l| l.ip) - anatomy.entry.frame_ip;
        let cells = [
            format!("{at:x}"),
            text.chars().take(34).collect(),
            outcome(&columns[0]).into(),
            outcome(&columns[1]).into(),
            outcome(&columns[2]).into(),
            if round.right { "-".into() } else { "WRONG".to_owned() },
        ];
        if round.right { table.push(cells) } else { table = table.mark(cells) }
    }
    s.table(table);
    let wrong = control.iter().filter(|r| !r.right).count();
    let aborts: u32 = columns.iter().flatten().map(|r| r.aborts).sum();
    s.metric("aborts", "1", f64::from(aborts));
    s.metric("wrong_without_rseq", "1", wrong as f64);
    s.say(format!("A signal goes wrong at **{wrong}** instructions without rseq, and at none with it."));
    let rounds: Vec<&Round> = columns.iter().flatten().collect();
    s.check("right_at_every_instruction", rounds.iter().all(|r| r.right), format!("{} rounds", rounds.len()));
    let exact = |r: &&Round| {
        let inside = u32::from(r.part == Part::Inside);
        r.aborts >= inside && r.aborts <= inside + r.disturbed
    };
    s.check("one_abort_inside_none_outside", rounds.iter().all(exact), format!("{aborts} aborts"));
    s.check("wrong_without_rseq", wrong > 0, format!("{wrong} instructions"));
    Ok(())
}
