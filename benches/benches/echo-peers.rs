//! Our servers against tokio, monoio, compio and C: CPU time of the server for a request.
//!
//! Every server is a process of its own, pinned to one CPU, with the same generator on another; rounds in
//! turn. The program starts itself again as each of the servers: `echo-peers --child NAME`.

#[path = "../shared/scratch.rs"]
mod scratch;

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use benches::compare::{Asked, Comparison, Outcome, publish};
use benches::counts::{self, Counts};
use echo::control::{self, Target};
use echo::load::Until;
use echo::measure::{Cpus, Pair, ping_pong};
use scratch::Scratch;

/// Who takes part: a name, and whether it is one of ours.
const PEERS: [&str; 4] = ["C epoll", "tokio", "monoio", "compio"];
/// Bytes that every peer receives at a time, as our epoll server does.
const CHUNK: usize = 64 * 1024;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let result = match args.iter().position(|a| a == "--child") {
        Some(i) => child(args.get(i + 1).map_or("", String::as_str)),
        None => compare(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "echo-peers: {e}");
            ExitCode::FAILURE
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn compare() -> Result<()> {
    let asked = Asked::by_arguments();
    let folder = Scratch::new("echo-peers")?;
    let c = build_c(&folder.path);
    let outcomes = cells(asked, &c);
    publish(
        asked,
        "echo",
        &outcomes?,
        &[
            "Cost: CPU time of the server process for a request, in us, kernel threads included.",
            "Closed loop, one request under way a connection; every echo is checked by the generator.",
            "Goals: no cell worse than any peer; io_uring at most 0.90 of C epoll at 50 and 500 x 64 B; epoll at \
             most 1.00 of C epoll.",
        ],
    )?;
    Ok(())
}

fn cells(asked: Asked, c: &std::result::Result<PathBuf, String>) -> Result<Vec<Outcome>> {
    let cpus = Cpus::take()?;
    let each = Duration::from_millis(if asked.test { 5 } else { 80 });
    let mut outcomes = Vec::new();
    for payload in [64, 4096] {
        for connections in if asked.test { vec![1, 50] } else { vec![1, 50, 500] } {
            for ours in ["io_uring", "epoll"] {
                outcomes.push(cell(ours, connections, payload, asked, each, &cpus, c)?);
            }
        }
    }
    Ok(outcomes)
}

fn cell(
    ours: &str,
    connections: usize,
    payload: usize,
    asked: Asked,
    each: Duration,
    cpus: &Cpus,
    c: &std::result::Result<PathBuf, String>,
) -> Result<Outcome> {
    // epoll has its match in the peers that use epoll too.
    let peers: &[&str] = if ours == "epoll" { &["C epoll", "tokio"] } else { &PEERS };
    let title = format!("{ours}, {connections} x {payload} B");
    let unfair = "the peers have no backpressure, counters or orderly stop; tokio, monoio and compio are general \
                  runtimes with a task a connection; all share the machine's memory and caches";
    let mut comparison = Comparison::new(title, "us CPU a request", unfair);
    let headline = connections == 50 && payload == 64;
    if headline {
        comparison = comparison.headline();
    }
    for name in std::iter::once(&ours).chain(peers) {
        let pair = start(name, cpus, c)
            .and_then(|t| Pair::connect(t, ping_pong(connections, payload)).map_err(|e| e.to_string()));
        let pair = Rc::new(RefCell::new(pair));
        let counted = Rc::clone(&pair);
        comparison = comparison.contender(*name, move || match &mut *pair.borrow_mut() {
            Err(why) => Err(why.clone()),
            Ok(pair) => round(pair, each),
        });
        if headline {
            comparison = comparison.counted(move || counts(&mut counted.borrow_mut()));
        }
    }
    Ok(comparison.run(asked, 25))
}

/// What the server's process does for a request.
fn counts(pair: &mut std::result::Result<Pair, String>) -> Counts {
    let Ok(pair) = pair else { return Counts::new() };
    let Some(pid) = pair.target.pid() else { return Counts::new() };
    counts::of_process(pid, "request", || {
        let report = pair.client.run(Until::Elapsed(Duration::from_millis(200))).ok()?;
        Some(report.requests as f64)
    })
}

/// CPU time for a request, in microseconds. Peers have no counters, so this does not ask for them.
fn round(pair: &mut Pair, each: Duration) -> std::result::Result<f64, String> {
    let before = pair.target.usage().map_err(|e| e.to_string())?;
    let report = pair.client.run(Until::Elapsed(each)).map_err(|e| e.to_string())?;
    let after = pair.target.usage().map_err(|e| e.to_string())?;
    Ok((after.cpu - before.cpu).as_secs_f64() * 1e6 / report.requests.max(1) as f64)
}

fn start(
    name: &str,
    cpus: &Cpus,
    c: &std::result::Result<PathBuf, String>,
) -> std::result::Result<Target, String> {
    let mut command = match name {
        "C epoll" => Command::new(c.as_ref().map_err(String::clone)?),
        _ => {
            let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
            command.args(["--child", name]);
            command
        }
    };
    let started = cpus.on_server(|| Target::spawn(&mut command)).map_err(|e| e.to_string())?;
    started.map_err(|e| e.to_string())
}

fn build_c(folder: &Path) -> std::result::Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/echo_epoll.c");
    let program = folder.join("echo_epoll");
    let built = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(source).status();
    match built {
        Ok(status) if status.success() => Ok(program),
        Ok(status) => Err(format!("cc: {status}")),
        Err(e) => Err(benches::peers::failed("cc", &e)),
    }
}

fn child(name: &str) -> Result<()> {
    if let Ok(spec) = name.parse() {
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        return Ok(control::serve(spec, any, std::io::stdin().lock(), std::io::stdout().lock())?);
    }
    let (ready, go) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // As for our servers: the thread that waits for the end does not share the table of descriptors.
        let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES);
        let _ = ready.send(());
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    go.recv()?;
    // TCP_NODELAY is inherited from the listening socket.
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4096)?)?;
    nix::sys::socket::setsockopt(&listener, nix::sys::socket::sockopt::TcpNoDelay, &true)?;
    listener.set_nonblocking(true)?;
    writeln!(std::io::stdout(), "listening {}", listener.local_addr()?)?;
    std::io::stdout().flush()?;
    match name {
        "tokio" => with_tokio(listener),
        "monoio" => with_monoio(listener),
        "compio" => with_compio(listener),
        _ => Err(format!("no server {name}").into()),
    }
}

fn with_tokio(listener: std::net::TcpListener) -> Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut buffer = vec![0; CHUNK];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..n]).await.is_err() {
                        break;
                    }
                }
            });
        }
    })
}

fn with_monoio(listener: std::net::TcpListener) -> Result<()> {
    use monoio::io::{AsyncReadRent as _, AsyncWriteRentExt as _};
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build()?.block_on(async {
        let listener = monoio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            monoio::spawn(async move {
                let mut buffer: Vec<u8> = Vec::with_capacity(CHUNK);
                loop {
                    let (got, received) = stream.read(buffer).await;
                    if !matches!(got, Ok(1..)) {
                        break;
                    }
                    let (sent, mut received) = stream.write_all(received).await;
                    if sent.is_err() {
                        break;
                    }
                    received.clear();
                    buffer = received;
                }
            });
        }
    })
}

fn with_compio(listener: std::net::TcpListener) -> Result<()> {
    use compio::io::{AsyncRead as _, AsyncWriteExt as _};
    compio::runtime::Runtime::new()?.block_on(async {
        let listener = compio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            compio::runtime::spawn(async move {
                let mut buffer: Vec<u8> = Vec::with_capacity(CHUNK);
                loop {
                    let compio::BufResult(got, received) = stream.read(buffer).await;
                    if !matches!(got, Ok(1..)) {
                        break;
                    }
                    let compio::BufResult(sent, mut received) = stream.write_all(received).await;
                    if sent.is_err() {
                        break;
                    }
                    received.clear();
                    buffer = received;
                }
            })
            .detach();
        }
    })
}
