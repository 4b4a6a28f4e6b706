//! An old server, in a process of its own, and the new one.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use pidfd_spawn::process::Child;
use pidfd_spawn::spawn::Spawn;

/// Set in the old server's environment: its address.
const OLD: &str = "EX3_OLD_SERVER";

fn only_sigterm() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set
}

/// Accepts until it is told to stop, and answers each client in a thread of its own. Returns the threads.
fn serve(
    listener: &TcpListener,
    answer: &'static str,
    mut stop: impl FnMut() -> bool,
) -> Vec<JoinHandle<()>> {
    let mut clients = Vec::new();
    while !stop() {
        // The socket has a receive timeout: without a client this ends, too.
        if let Ok((mut client, _)) = listener.accept() {
            // Not always: nobody may be reading, and a pipe that is full would stop us.
            if clients.len() < 10 {
                say("accepted");
            }
            clients.push(thread::spawn(move || {
                if client.set_read_timeout(None).is_ok() && client.read_exact(&mut [0]).is_ok() {
                    let _ = client.write_all(answer.as_bytes());
                }
            }));
        }
    }
    clients
}

/// Tells the test, where there is one that listens.
fn say(word: &str) {
    if std::env::var_os(OLD).is_some() {
        let _ = writeln!(io::stderr(), "{word}");
    }
}

/// Where this process is to be the old server, it is that and does not return.
pub fn old_server_if_told() {
    let Ok(address) = std::env::var(OLD) else { return };
    // More sockets than one: the right one is to be found.
    let _others = (TcpListener::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
    let listener = TcpListener::bind(address).expect("a free port");
    let to_itself = TcpStream::connect(listener.local_addr().expect("an address")).expect("a client");
    let _connection = listener.accept().expect("that client");
    setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::milliseconds(5)).expect("SO_RCVTIMEO");
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let term = SignalFd::with_flags(&only_sigterm(), flags).expect("a signalfd");
    say(&listener.local_addr().expect("an address").port().to_string());
    let clients = serve(&listener, "old", || matches!(term.read_signal(), Ok(Some(_))));
    say("stopping");
    clients.into_iter().for_each(|c| drop(c.join()));
    drop(to_itself);
    std::process::exit(0);
}

/// The old server, running.
pub struct Old {
    pub child: Child,
    pub port: u16,
    host: &'static str,
    said: BufReader<File>,
}

impl Old {
    /// Starts it: this program once more, with SIGTERM blocked from its first instruction on.
    pub fn start(host: &'static str) -> Self {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let nothing = File::options().write(true).open("/dev/null").expect("/dev/null");
        let child = Spawn::new(std::env::current_exe().expect("our own path"))
            .args(["--exact", "the_listening_socket_is_taken", "--include-ignored", "--nocapture"])
            .env(OLD, format!("{host}:0"))
            .fd(1, &nothing)
            .fd(2, &write)
            .mask(only_sigterm())
            .parent_death(Signal::SIGKILL)
            .spawn()
            .expect("the old server starts");
        drop(write);
        let mut old = Self { child, port: 0, host, said: BufReader::new(File::from(read)) };
        old.port = old.next_word().parse().expect("its port");
        old
    }

    /// What it says next; empty when it has ended.
    pub fn next_word(&mut self) -> String {
        let mut line = String::new();
        let _ = self.said.read_line(&mut line);
        line.trim().to_owned()
    }

    /// A client that is connected and has asked nothing yet.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(format!("{}:{}", self.host, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(stream)
    }

    /// The answer to a client, or what went wrong.
    pub fn ask(&self) -> String {
        self.connect().and_then(answer).unwrap_or_else(|e| e.to_string())
    }

    /// The flags of its listening sockets, as the kernel shows them.
    pub fn flags(&self) -> Vec<String> {
        let pid = self.child.pid();
        let mut all = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let is_socket =
                std::fs::read_link(entry.path()).is_ok_and(|l| l.to_string_lossy().starts_with("socket:"));
            if is_socket {
                let name = entry.file_name().display().to_string();
                let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{name}")).unwrap_or_default();
                let flags = info.lines().find(|l| l.starts_with("flags:")).unwrap_or_default().to_owned();
                all.push(format!("{name} {flags}"));
            }
        }
        all.sort();
        all
    }
}

/// Asks, on a connection that there is.
pub fn answer(mut client: TcpStream) -> io::Result<String> {
    client.write_all(b"?")?;
    let mut text = String::new();
    client.read_to_string(&mut text)?;
    Ok(text)
}

/// The new server; it ends when dropped.
pub struct New {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl New {
    pub fn start(listener: TcpListener) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            let clients = serve(&listener, "new", || told.load(Ordering::Relaxed));
            clients.into_iter().for_each(|c| drop(c.join()));
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for New {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
