//! A live upgrade: at no time is there nobody who accepts, and until the new server does, the old one knows nothing.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

use kit::SysError;
use nix::sys::signal::Signal;
use pidfd_spawn::pidfd::PidFd;

/// A socket that listens, in the column `st`.
const LISTENS: &str = "0A";

/// The inode of the socket that listens on `port`.
pub fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let (_, local_port) = local.rsplit_once(':')?;
        let state = fields.nth(1)?;
        let is_it = state == LISTENS && u16::from_str_radix(local_port, 16) == Ok(port);
        fields.nth(5).filter(|_| is_it)?.parse().ok()
    })
}

/// The lowest number that is open for the socket with this inode.
pub fn number_of(links: &[(i32, String)], inode: u64) -> Option<i32> {
    let wanted = format!("socket:[{inode}]");
    links.iter().filter(|(_, link)| *link == wanted).map(|(number, _)| *number).min()
}

/// What /proc/PID/fd says.
fn links(pid: i32) -> io::Result<Vec<(i32, String)>> {
    let read = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        // Closed since: then it is none.
        let link = fs::read_link(entry.path()).ok()?;
        Some((number, link.to_string_lossy().into_owned()))
    };
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().filter_map(read).collect())
}

fn os_error(e: SysError) -> io::Error {
    io::Error::from_raw_os_error(e.errno)
}

/// A copy of the socket on which the process listens on `port`.
pub fn take_over(old: &PidFd, pid: i32, port: u16) -> io::Result<TcpListener> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "it listens on no such port");
    let inode = ["tcp", "tcp6"]
        .iter()
        .find_map(|name| listening_inode(&fs::read_to_string(format!("/proc/{pid}/net/{name}")).ok()?, port))
        .ok_or_else(missing)?;
    let number = number_of(&links(pid)?, inode).ok_or_else(missing)?;
    let socket: OwnedFd = old.getfd(number).map_err(os_error)?;
    // The number was looked up by PID and may have been closed and opened since: what matters is what we got.
    if nix::sys::stat::fstat(&socket)?.st_ino != inode {
        return Err(missing());
    }
    Ok(TcpListener::from(socket))
}

/// Replaces the server.
pub fn upgrade<T>(
    old: &PidFd,
    pid: i32,
    port: u16,
    patience: Duration,
    start: impl FnOnce(TcpListener) -> io::Result<T>,
) -> io::Result<T> {
    let new = start(take_over(old, pid, port)?)?;
    // From here on there is somebody who accepts. ESRCH: it has ended by itself.
    let _ = old.signal(Signal::SIGTERM);
    if !old.ended_within(patience) {
        let _ = old.signal(Signal::SIGKILL);
        while !old.ended_within(Duration::from_secs(1)) {}
    }
    Ok(new)
}
