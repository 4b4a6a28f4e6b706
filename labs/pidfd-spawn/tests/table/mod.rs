//! What an exercise may do to descriptors, and two who do it: a model, and the kernel.

mod sys;

use std::collections::BTreeMap;

use kit::spec::property;
pub use sys::Real;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// The number is not open.
    Ebadf,
    /// No number is free.
    Emfile,
    /// Interrupted; here an error like any other.
    Eintr,
    /// The number is too high.
    Einval,
}

pub trait Table {
    /// `dup2(from, to)`: closes what is open as `to` and makes it the same as `from`, without FD_CLOEXEC. If they are the same
    /// number, nothing happens.
    fn dup2(&mut self, from: i32, to: i32) -> Result<(), Errno>;

    /// `fcntl(fd, F_DUPFD_CLOEXEC, lowest)`: the lowest free number from `lowest` on becomes the same as `fd`, with FD_CLOEXEC.
    fn dup_above(&mut self, fd: i32, lowest: i32) -> Result<i32, Errno>;

    /// `fcntl(fd, F_SETFD, 0)`.
    fn clear_cloexec(&mut self, fd: i32) -> Result<(), Errno>;

    /// `close`.
    fn close(&mut self, fd: i32) -> Result<(), Errno>;
}

/// An open number: what it stands for, and its FD_CLOEXEC.
pub type Entry = (u64, bool);

/// A table of descriptors that is nothing but a table.
#[derive(Debug, Clone)]
pub struct Model {
    pub open: BTreeMap<i32, Entry>,
    /// Numbers from here on cannot be used.
    pub limit: i32,
    /// The number of the call that fails, and how.
    pub fails: Option<(usize, Errno)>,
    pub calls: Vec<String>,
    pub dups: usize,
    pub stashes: usize,
}

impl Model {
    pub fn new(open: BTreeMap<i32, Entry>, limit: i32) -> Self {
        Self { open, limit, fails: None, calls: Vec::new(), dups: 0, stashes: 0 }
    }

    fn enter(&mut self, call: String) -> Result<(), Errno> {
        let n = self.calls.len();
        self.calls.push(call);
        property("it ends", "what makes each round of the loop smaller?").holds(
            n < 1000,
            "fewer than 1000 calls",
            format!("more, the last of them {:?}", &self.calls[n.saturating_sub(3)..]),
        );
        match self.fails {
            Some((at, errno)) if at == n => Err(errno),
            _ => Ok(()),
        }
    }
}

impl Table for Model {
    fn dup2(&mut self, from: i32, to: i32) -> Result<(), Errno> {
        self.dups += 1;
        self.enter(format!("dup2({from}, {to})"))?;
        let (what, _) = *self.open.get(&from).ok_or(Errno::Ebadf)?;
        if !(0..self.limit).contains(&to) {
            return Err(Errno::Ebadf);
        }
        if from != to {
            self.open.insert(to, (what, false));
        }
        Ok(())
    }

    fn dup_above(&mut self, fd: i32, lowest: i32) -> Result<i32, Errno> {
        self.stashes += 1;
        self.enter(format!("dup_above({fd}, {lowest})"))?;
        let (what, _) = *self.open.get(&fd).ok_or(Errno::Ebadf)?;
        if !(0..self.limit).contains(&lowest) {
            return Err(Errno::Einval);
        }
        let free = (lowest..self.limit).find(|n| !self.open.contains_key(n)).ok_or(Errno::Emfile)?;
        self.open.insert(free, (what, true));
        Ok(free)
    }

    fn clear_cloexec(&mut self, fd: i32) -> Result<(), Errno> {
        self.enter(format!("clear_cloexec({fd})"))?;
        self.open.get_mut(&fd).ok_or(Errno::Ebadf)?.1 = false;
        Ok(())
    }

    fn close(&mut self, fd: i32) -> Result<(), Errno> {
        self.enter(format!("close({fd})"))?;
        self.open.remove(&fd).map(drop).ok_or(Errno::Ebadf)
    }
}
