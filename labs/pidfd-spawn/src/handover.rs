//! A live upgrade: the new server takes the listening socket out of the old one's hands.
//!
//! `pidfd_getfd` needs no help from the other process: a server that was never written for it can be
//! replaced without one refused connection.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use kit::SysError;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use crate::process::Child;
use crate::spawn::Spawn;

/// The hidden argument with which this program is the old server.
pub const OLD_SERVER: &str = "--old-server";

/// Why it could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The old server did not start.
    #[error(transparent)]
    Spawn(#[from] crate::error::SpawnError),
    /// A system call failed; of `pidfd_getfd`, EPERM: ptrace is restricted here.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// Sockets.
    #[error("socket: {0}")]
    Io(#[from] std::io::Error),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// The port.
    pub port: u16,
    /// The number of the socket in the old server.
    pub their_fd: i32,
    /// Its number here.
    pub our_fd: i32,
    /// What pidfd_getfd took.
    pub took: Duration,
    /// The answer before.
    pub before: String,
    /// The answer to a client that connected after the old server's death.
    pub after: String,
    /// Whether, without the handover, that client is refused.
    pub refused_without: bool,
}

/// Listens, tells port and descriptor on standard output, answers every client with "old".
///
/// # Errors
/// Sockets.
pub fn old_server() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut out = std::io::stdout();
    writeln!(out, "{} {}", listener.local_addr()?.port(), listener.as_raw_fd())?;
    out.flush()?;
    for client in listener.incoming() {
        client?.write_all(b"old")?;
    }
    Ok(())
}

fn start(program: &Path) -> Result<(Child, u16, i32), HandoverError> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(SysError::nix("pipe2"))?;
    let child = Spawn::new(program).arg(OLD_SERVER).fd(1, &write).parent_death(Signal::SIGKILL).spawn()?;
    drop(write);
    let mut line = String::new();
    BufReader::new(File::from(read)).read_line(&mut line)?;
    let mut numbers = line.split_whitespace().filter_map(|n| n.parse::<i32>().ok());
    let (Some(port), Some(fd)) = (numbers.next(), numbers.next()) else {
        return Err(SysError::new("the old server did not say its port", libc::EPROTO).into());
    };
    Ok((child, port as u16, fd))
}

fn ask(client: &mut TcpStream) -> std::io::Result<String> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    client.read_to_string(&mut text)?;
    Ok(text)
}

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

/// Starts the old server (`program` is this program), replaces it, and asks before and after.
///
/// # Errors
/// [`HandoverError`].
pub fn upgrade(program: &Path) -> Result<Handover, HandoverError> {
    let (mut old, port, their_fd) = start(program)?;
    let before = ask(&mut TcpStream::connect(("127.0.0.1", port))?)?;

    let begin = Instant::now();
    let socket: OwnedFd = old.pidfd().getfd(their_fd)?;
    let took = begin.elapsed();
    old.signal(Signal::SIGKILL)?;
    old.wait()?;

    // Nobody accepts now, but the socket lives: the client waits in its queue.
    let mut client = TcpStream::connect(("127.0.0.1", port))?;
    let ours = TcpListener::from(socket);
    let our_fd = ours.as_raw_fd();
    ours.accept()?.0.write_all(b"new")?;
    let after = ask(&mut client)?;

    let (mut alone, port_alone, _) = start(program)?;
    alone.signal(Signal::SIGKILL)?;
    alone.wait()?;
    let refused_without = TcpStream::connect(("127.0.0.1", port_alone)).is_err();
    Ok(Handover { port, their_fd, our_fd, took, before, after, refused_without })
}
