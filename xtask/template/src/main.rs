//! Arguments and narration; the mechanism is in the library.

use std::process::ExitCode;

use kit::{Predict, Session, Summary};
use lab_template::cost;

#[derive(Debug, clap::Args)]
struct Options {
    /// Rounds of ten thousand calls
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

fn main() -> ExitCode {
    kit::main!(run)
}

fn run(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let rounds = if s.quick() { 10 } else { usize::from(o.rounds) };

    s.step("Ask the kernel, and time the asking");
    s.predict(Predict::new(
        "how many times dearer than reading a variable is a system call?",
        ["2 times", "100 times", "10,000 times"],
        1,
        "The way into the kernel and back takes some hundred nanoseconds; a load takes less than one.",
    ));
    let cost = cost::measure(rounds);
    let call = Summary::of(&cost.call_ns);
    s.measure("syscall_ns", "ns", call);
    s.say("The answer is one load in the kernel: the price is **the way there and back**.");

    s.step("Read the same number from a variable");
    let load = Summary::of(&cost.load_ns);
    s.measure("load_ns", "ns", load);
    s.say(format!("The system call is **{:.0} times** dearer.", call.median / load.median));

    let parent = std::os::unix::process::parent_id();
    s.check("parent_id", cost.parent == parent, format!("{} by syscall, {parent} by std", cost.parent));
    s.so("a system call is cheap, but not free", "--rounds 1000");
    Ok(())
}
