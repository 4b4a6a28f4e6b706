//! Everything that a lab can show, with invented figures: `cargo run -p kit --example tour`.
//!
//! Its options plant what the tests of the kit look for: `--fail`, `--error`, `--hang`, `--lines N`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use kit::{
    Bars, Hexdump, Lanes, Lines, Listing, Predict, Scale, Session, Span, Summary, SysError, Table, cleanup,
};

#[derive(Debug, clap::Args)]
struct Options {
    /// A check that fails
    #[arg(long)]
    fail: bool,
    /// End early: sys, usage or unavailable
    #[arg(long)]
    error: Option<String>,
    /// Make this file, then wait for Ctrl-C, which removes it
    #[arg(long)]
    hang: Option<PathBuf>,
    /// Say this many lines
    #[arg(long, default_value_t = 0)]
    lines: usize,
}

fn main() -> ExitCode {
    kit::main!(run)
}

fn run(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    s.step("Ask a question before the answer is shown");
    s.predict(Predict::new(
        "how many system calls does a guest's letter cost?",
        ["none", "one: KVM_RUN", "two"],
        1,
        "The guest's OUT ends KVM_RUN, and the next KVM_RUN lets it go on.",
    ));
    let samples: Vec<f64> = (0..101).map(|i| 300.0 + f64::from(i)).collect();
    s.measure("letter_us", "us", Summary::of(&samples));
    s.say("A letter costs **one** round trip, guest to kernel to us and back; the rest of this sentence is here to show how long text is broken into lines.");
    for i in 0..o.lines {
        s.say(format!("line {i}"));
    }

    s.step("Show rows, bars and a waterfall");
    s.table(
        Table::new(["exit", "why", "took"])
            .right([0, 2])
            .row(["1", "IO out 0x3f8", "8.4 us"])
            .mark(["18", "HLT", "7.9 us"]),
    );
    s.bars(
        Bars::new("Where the time went", "ms")
            .with_share()
            .bar("create VM", 0.31, "")
            .bar("the rest", 0.08, ""),
    );
    s.bars(Bars::new("One after another", "us").from(0.0, "open", 20.0).from(20.0, "create VM", 310.0));

    s.step("Show curves and timelines");
    let cdf = |scale: f64| (1..=60).map(|i| (scale * 1.12f64.powi(i), 1.0 - 0.8f64.powi(i))).collect();
    s.lines(
        Lines::new("Latency, share of requests at or below", "us", "share")
            .scales(Scale::Log, Scale::Nines)
            .series("epoll", cdf(10.0))
            .series("io_uring", cdf(4.0)),
    );
    s.lanes(
        Lanes::new("Who holds the lock", "us")
            .lane(
                "thread 1",
                vec![Span::new(0.0, 40.0, "holds", "holds"), Span::new(40.0, 90.0, "off CPU", "")],
            )
            .lane(
                "thread 2",
                vec![Span::new(5.0, 90.0, "spins", "spins"), Span::moment(90.0, "", "gives up")],
            ),
    );

    s.step("Show bytes, code and what is missing");
    s.hexdump(
        Hexdump::new("The first bytes of an ELF file", 0, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0")
            .note(0, 4, "magic: \\x7f E L F")
            .note(4, 1, "class: 64-bit"),
    );
    s.listing(
        Listing::new("A guest").line("mov dx,0x3f8", "the port").line("out dx,al", "leaves the machine"),
    );
    s.figure("A drawing of the lab's own", "[a]--->[b]", "");
    s.missing("the slice extension", "prctl(79) = EINVAL", "a 7.x kernel");

    if let Some(path) = &o.hang {
        let made = path.clone();
        // Undoing is registered first: there is no moment at which Ctrl-C would leave the file.
        let _undo = cleanup::defer("remove the file", move || {
            let _ = std::fs::remove_file(made);
        });
        std::fs::write(path, "here")?;
        std::thread::sleep(Duration::from_secs(30));
    }
    match o.error.as_deref() {
        Some("sys") => return Err(SysError::new("open(\"/nowhere\")", 2).into()),
        Some("usage") => return Err(kit::Usage("--error wants something else".into()).into()),
        Some("unavailable") => {
            return Err(kit::Unavailable {
                what: "cannot open /dev/kvm".into(),
                why: "EACCES".into(),
                fix: vec!["fix: sudo usermod -aG kvm $USER".into()],
            }
            .into());
        }
        _ => {}
    }
    s.metric("answer", "1", 42.0);
    s.check("answer", !o.fail, if o.fail { "41 is not 42" } else { "42 is 42" });
    s.check("text", true, "the guest said hello");
    s.so(
        "a lab tells facts, and the kit shows them the same **four** ways",
        "--big, --step, --report FILE.html",
    );
    Ok(())
}
