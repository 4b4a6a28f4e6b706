//! Restartable sequences: who registered this thread, and what the kernel fills in.

use super::machine::Who;
use super::{Answer, Finding, Fix};
use crate::error::{Obstacle, SysError};
use crate::sys::rseq;

pub(super) const NAMES: [&str; 4] = ["rseq", "rseq.mm_cid", "rseq.slice", "membarrier.rseq"];

#[derive(Debug)]
pub(super) struct Rseq {
    /// Registering (and taking back) an area on a new thread: EINVAL or EBUSY if the C library was first.
    pub(super) register: Answer<()>,
    /// `__rseq_offset` and `__rseq_size` of the C library.
    pub(super) libc: Option<(isize, u32)>,
    /// What the kernel wrote there: cpu_id and mm_cid.
    pub(super) cpu_id: Option<u32>,
    pub(super) mm_cid: Option<u32>,
    /// AT_RSEQ_FEATURE_SIZE.
    pub(super) feature_size: u64,
    pub(super) slice: Answer<()>,
    pub(super) membarrier: Answer<()>,
}

/// Where mm_cid ends in struct rseq.
const WITH_MM_CID: u64 = 28;

impl Rseq {
    /// Runs on a new thread, as all of an area's questions do: one that nobody registered but the C library.
    pub(super) fn collect() -> Self {
        let libc = rseq::libc_registration();
        let field = |word| libc.and_then(|(offset, _)| rseq::field(offset, word));
        Self {
            register: rseq::register_once(),
            libc,
            cpu_id: field(1),
            mm_cid: field(6),
            feature_size: rseq::feature_size(),
            slice: rseq::slice_extension(),
            membarrier: rseq::membarrier_rseq(),
        }
    }

    pub(super) fn judge(&self, who: &Who) -> Vec<Finding> {
        let rseq = match (&self.register, self.libc) {
            (Ok(()), _) => Finding::ok(NAMES[0], "registered an area", "the C library had not"),
            (Err(e), Some((offset, size))) if matches!(e.errno, libc::EINVAL | libc::EBUSY) => Finding::ok(
                NAMES[0],
                format!(
                    "the C library registered it, cpu_id {}",
                    self.cpu_id.unwrap_or(u32::MAX).cast_signed()
                ),
                format!("__rseq_offset {offset}, size {size}"),
            ),
            (Err(e), _) if e.kind() == Obstacle::Forbidden => Finding::filtered(NAMES[0], e, who),
            (Err(e), _) if e.errno == libc::ENOSYS => Finding::old(NAMES[0], e, "4.18"),
            (Err(e), _) => Finding::no(NAMES[0], e, "registered by somebody who does not say where"),
        };
        let mm_cid = if self.feature_size >= WITH_MM_CID {
            let value = self.mm_cid.map_or_else(String::new, |v| format!(", mm_cid {v}"));
            Finding::ok(
                NAMES[1],
                "the kernel keeps mm_cid",
                format!("AT_RSEQ_FEATURE_SIZE {}{value}", self.feature_size),
            )
        } else {
            let e = SysError::new(format!("AT_RSEQ_FEATURE_SIZE is {}", self.feature_size), 0);
            Finding::old(NAMES[1], &e, "6.3")
        };
        let slice = match &self.slice {
            Ok(()) => Finding::ok(NAMES[2], "prctl(PR_RSEQ_SLICE_EXTENSION) answers", ""),
            Err(e) => Finding::no(NAMES[2], e, format!("kernel {} has none (7.0 does)", short(&who.release)))
                .with_fix(Fix::kernel("Linux 7.0 or newer")),
        };
        let membarrier = match &self.membarrier {
            Ok(()) => Finding::ok(NAMES[3], "restarted every CPU's sections", ""),
            Err(e) => Finding::old(NAMES[3], e, "5.10"),
        };
        vec![rseq, mm_cid, slice, membarrier]
    }
}

/// `6.18` of `6.18.44-fc-v669`.
fn short(release: &str) -> String {
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}
