//! A zygote (fork server): start it while the process is small; it creates children ever after.
//!
//! What it is given: a plan in shared memory, and descriptors by SCM_RIGHTS. What it returns: the
//! pidfd, by SCM_RIGHTS too. The child is made with CLONE_PARENT, so it is *our* child and waiting
//! works as ever. Directory, umask and limits are those at the zygote's start.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use kit::SysError;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, recvmsg,
    sendmsg, shutdown, socketpair,
};

use super::{Started, Way, create, in_child, open_own_child, reap};
use crate::error::SpawnError;
use crate::pidfd::PidFd;
use crate::plan::Plan;
use crate::sys::create::Stack;
use crate::sys::zygote::{self as sys, Arena, MAX_FDS, Reply};

/// A running zygote; dropping it ends it, and its children go on.
#[derive(Debug)]
pub struct Zygote {
    pidfd: PidFd,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: OwnedFd,
    arena: Arena,
}

impl Zygote {
    /// Forks it, as big as we are now: start it early.
    ///
    /// # Errors
    /// [`SpawnError::Create`]: socketpair, mmap or fork failed.
    pub fn start() -> Result<Self, SpawnError> {
        let way = Way::Zygote;
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|e| create(way, "socketpair")(e as i32))?;
        let arena = Arena::new().map_err(create(way, "mmap"))?;
        let stack = Stack::new().map_err(create(way, "mmap"))?;
        let pid = sys::start(theirs.as_raw_fd(), &arena, &stack).map_err(create(way, "fork"))?;
        let Started { pidfd, .. } = open_own_child(way, pid)?;
        Ok(Self { pidfd: pidfd.into(), inner: Mutex::new(Inner { socket, arena }) })
    }

    /// The zygote's own handle.
    pub fn pidfd(&self) -> &PidFd {
        &self.pidfd
    }

    pub(crate) fn spawn(&self, plan: &Plan<'_>) -> Result<Started, SpawnError> {
        let way = Way::Zygote;
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fds: Vec<RawFd> =
            plan.moves.iter().map(|m| m.1).chain(plan.cgroup).map(|f| f.as_raw_fd()).collect();
        if fds.len() > MAX_FDS {
            return Err(SpawnError::Unsupported { way, what: "pass more than 253 descriptors" });
        }
        let Some(request) = inner.arena.lay(plan) else {
            return Err(SpawnError::Create { way, source: SysError::new("shared memory", libc::E2BIG) });
        };
        let rights = [ControlMessage::ScmRights(&fds)];
        let socket = inner.socket.as_raw_fd();
        let data = [IoSlice::new(sys::bytes_of(&request))];
        let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        sendmsg::<()>(socket, &data, rights, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(|e| create(way, "sendmsg to the zygote")(e as i32))?;

        let (reply, pidfd) = receive(socket)?;
        if reply.pid <= 0 {
            return Err(create(way, "clone3 in the zygote")(reply.errno));
        }
        match (inner.arena.failure(), pidfd) {
            (None, Some(pidfd)) => Ok(Started { pid: reply.pid, pidfd }),
            // Our descriptor table is full: the kernel dropped it. The child is ours all the same.
            (None, None) => open_own_child(way, reply.pid),
            (Some(failure), _) => {
                reap(reply.pid);
                Err(in_child(way, failure))
            }
        }
    }
}

fn receive(socket: RawFd) -> Result<(Reply, Option<OwnedFd>), SpawnError> {
    let failed = create(Way::Zygote, "recvmsg from the zygote");
    let mut bytes = [0u8; size_of::<Reply>()];
    let mut control = nix::cmsg_space!(RawFd);
    let mut data = [IoSliceMut::new(&mut bytes)];
    let (n, pidfd) = loop {
        match recvmsg::<()>(socket, &mut data, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Ok(msg) => {
                let fds = msg.cmsgs().into_iter().flatten().find_map(|c| match c {
                    ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                    _ => None,
                });
                break (msg.bytes, fds);
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(failed(e as i32)),
        }
    };
    if n != bytes.len() {
        return Err(failed(libc::EPIPE)); // the zygote is gone
    }
    let [a, b, c, d, e, f, g, h] = bytes;
    let reply = Reply { pid: i32::from_ne_bytes([a, b, c, d]), errno: i32::from_ne_bytes([e, f, g, h]) };
    Ok((reply, pidfd.map(crate::sys::raw::own)))
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Not only close: a child forked meanwhile may still hold a copy of our end.
        let _ = shutdown(inner.socket.as_raw_fd(), Shutdown::Both);
        let _ = self.pidfd.wait();
    }
}
