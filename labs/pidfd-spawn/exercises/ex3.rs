//! Exercise 3: a live upgrade. The statement is in the lab's README; `cargo xtask homework check pidfd-spawn ex3` says how
//! far you are.
//!
//! A server runs and knows nothing of us. We take a copy of its listening socket out of its hands, accept on it, and only
//! then tell it to end. What a copy shares with the original is the *open file description*: the queue of clients, but its
//! flags, too. Graded are the two parsers, which socket is taken, that no client is refused or dropped, that the old server
//! notices nothing before its time, and that it runs on if the new one cannot start.
//!
//! `PidFd` has what you need: `getfd`, `signal`, `ended_within`.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use pidfd_spawn::pidfd::PidFd;

/// The inode of the socket that listens on `port`; `table` is /proc/PID/net/tcp or tcp6.
///
/// ```text
///   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
///    0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 54321 1 …
/// ```
///
/// Ports are hexadecimal; `st` is the state, 0A for a socket that listens. Its connections have its port, too.
pub fn listening_inode(_table: &str, _port: u16) -> Option<u64> {
    unimplemented!("TODO(you): which line, which field?")
}

/// The lowest number that is open for the socket with this inode; `links` are the entries of /proc/PID/fd: number, and what
/// the link says, such as `socket:[54321]`.
pub fn number_of(_links: &[(i32, String)], _inode: u64) -> Option<i32> {
    unimplemented!("TODO(you): compare the whole of it")
}

/// A copy of the socket on which the process listens on `port`. `pid` is for /proc, `old` is the handle.
///
/// Nothing that the process could notice is changed. Between your look at /proc and `getfd` the number may have come to mean
/// something else, so look at what you got.
pub fn take_over(_old: &PidFd, _pid: i32, _port: u16) -> io::Result<TcpListener> {
    unimplemented!("TODO(you): tcp or tcp6, the number, getfd")
}

/// Replaces the server: takes its socket, has `start` begin to accept on it, tells the old server to end (SIGTERM), and waits
/// until it has: it has clients to finish. After `patience` it is killed.
///
/// If anything before the SIGTERM fails, the old server runs on as if nothing had been, and the error is returned.
pub fn upgrade<T>(
    _old: &PidFd,
    _pid: i32,
    _port: u16,
    _patience: Duration,
    _start: impl FnOnce(TcpListener) -> io::Result<T>,
) -> io::Result<T> {
    unimplemented!("TODO(you): in which order?")
}
