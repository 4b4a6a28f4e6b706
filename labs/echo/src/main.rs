//! Arguments and narration; the experiment is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A server for one of our own measurements: it talks to us, not to a reader.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("--child") {
        return child(args.next().unwrap_or_default());
    }
    ExitCode::SUCCESS
}

fn child(spec: String) -> ExitCode {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let served = match spec.parse() {
        Ok(spec) => echo::control::serve(spec, any, std::io::stdin().lock(), std::io::stdout().lock()),
        Err(e) => Err(std::io::Error::other(format!("{e}"))),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("echo --child: {e}");
            ExitCode::FAILURE
        }
    }
}
