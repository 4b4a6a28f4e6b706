//! io_uring: makes rings, each with one flag or feature that a lab uses.

use std::os::fd::AsFd as _;

use super::machine::{Who, read_number};
use super::{Answer, Finding, Fix};
use crate::error::{Obstacle, SysError};
use crate::sys::map::Map;
use crate::sys::uring;

pub(super) const NAMES: [&str; 5] =
    ["io_uring", "io_uring.sqpoll", "io_uring.defer_taskrun", "io_uring.buffer_ring", "io_uring.bundle"];

#[derive(Debug)]
pub(super) struct Uring {
    /// A plain ring: how many operations it has, and the feature bits.
    pub(super) ring: Answer<(usize, u32)>,
    pub(super) sqpoll: Answer<()>,
    pub(super) defer_taskrun: Answer<()>,
    pub(super) buffer_ring: Answer<()>,
    /// The sysctl kernel.io_uring_disabled (Linux 6.6): 0 for all, 1 for a group, 2 for nobody.
    pub(super) disabled: Option<i64>,
}

const SETUP_SQPOLL: u32 = 1 << 1;
const SETUP_SINGLE_ISSUER: u32 = 1 << 12;
const SETUP_DEFER_TASKRUN: u32 = 1 << 13;
const FEAT_RECVSEND_BUNDLE: u32 = 1 << 14;

impl Uring {
    pub(super) fn collect() -> Self {
        let with = |flags| uring::setup(flags).map(drop);
        Self {
            ring: ring(),
            sqpoll: with(SETUP_SQPOLL),
            defer_taskrun: with(SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN),
            buffer_ring: buffer_ring(),
            disabled: read_number("/proc/sys/kernel/io_uring_disabled"),
        }
    }
}

fn ring() -> Answer<(usize, u32)> {
    let (ring, features) = uring::setup(0)?;
    uring::enter(ring.as_fd())?;
    Ok((uring::operations(ring.as_fd())?, features))
}

fn buffer_ring() -> Answer<()> {
    let memory = Map::anonymous(4096)?;
    let (ring, _) = uring::setup(0)?;
    uring::buffer_ring(ring.as_fd(), &memory)
}

impl Uring {
    pub(super) fn judge(&self, who: &Who) -> Vec<Finding> {
        let ring = match &self.ring {
            Ok((operations, features)) => Finding::ok(
                NAMES[0],
                format!("made a ring, {operations} operations"),
                format!("features {features:#x}"),
            ),
            Err(e) => self.cannot(NAMES[0], e, who, "5.1"),
        };
        let flag = |name, answer: &Answer<()>, flag: &str, since: &str| match answer {
            Ok(()) => Finding::ok(name, flag, ""),
            Err(e) => self.cannot(name, e, who, since),
        };
        let bundle = match &self.ring {
            Ok((_, features)) if features & FEAT_RECVSEND_BUNDLE != 0 => {
                Finding::ok(NAMES[4], "IORING_FEAT_RECVSEND_BUNDLE is set", "")
            }
            Ok((_, features)) => {
                let e = SysError::new(format!("no IORING_FEAT_RECVSEND_BUNDLE in {features:#x}"), 0);
                Finding::old(NAMES[4], &e, "6.10")
            }
            Err(e) => self.cannot(NAMES[4], e, who, "5.1"),
        };
        vec![
            ring,
            flag(NAMES[1], &self.sqpoll, "a ring with IORING_SETUP_SQPOLL", "5.11"),
            flag(NAMES[2], &self.defer_taskrun, "a ring with IORING_SETUP_DEFER_TASKRUN", "6.1"),
            flag(NAMES[3], &self.buffer_ring, "registered a ring of buffers", "5.19"),
            bundle,
        ]
    }

    fn cannot(&self, name: &'static str, e: &SysError, who: &Who, since: &str) -> Finding {
        let allow = Fix::root("sudo sysctl kernel.io_uring_disabled=0", "all users reach io_uring's code");
        match (e.kind(), self.disabled) {
            (Obstacle::Forbidden, Some(n @ 1..)) => {
                Finding::no(name, e, format!("kernel.io_uring_disabled = {n}")).with_fix(allow)
            }
            (Obstacle::Forbidden, _) => Finding::filtered(name, e, who),
            _ if e.errno == libc::ENOMEM => {
                Finding::no(name, e, "RLIMIT_MEMLOCK is too small (before Linux 5.12)")
                    .with_fix(Fix::root("ulimit -l unlimited", "this shell may pin memory"))
            }
            _ => Finding::old(name, e, since),
        }
    }
}
