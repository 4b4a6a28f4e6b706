//! Arguments and narration; the experiment is in the library.

mod options;
mod show_knobs;
mod show_map;
mod show_overload;
mod show_pair;
mod show_servers;

use std::io::Write as _;
use std::process::ExitCode;

use kit::Session;

use options::Options;

fn main() -> ExitCode {
    // A server for one of our own measurements: it talks to us, not to a reader.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("--child") {
        return child(&args.next().unwrap_or_default());
    }
    kit::main!(run)
}

fn run(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    o.check()?;
    o.note(s);
    match o {
        Options { serve: Some(addr), .. } => show_pair::serve(s, o, *addr),
        Options { connect: Some(addr), .. } => show_pair::connect(s, o, *addr),
        Options { map: true, .. } => show_map::show(s, o),
        Options { knobs: true, .. } => show_knobs::show(s, o),
        Options { overload: true, .. } => show_overload::show(s, o),
        _ => show_servers::show(s, o),
    }
}

fn child(spec: &str) -> ExitCode {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let served = match spec.parse() {
        Ok(spec) => echo::control::serve(spec, any, std::io::stdin().lock(), std::io::stdout().lock()),
        Err(e) => Err(std::io::Error::other(format!("{e}"))),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        // Who measured has gone, on Ctrl-C say: nobody is left to tell the counters to.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "echo --child: {e}");
            ExitCode::FAILURE
        }
    }
}
