//! Why a trace cannot begin or go on: what the kernel said, and of what.

use aya::EbpfError;
use aya::programs::ProgramError;
use kit::SysError;

use crate::sys::bpf;

/// Why a trace cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The kernel tells no types: offsets in its structures are unknown.
    #[error("this kernel has no BTF: where members are in its structures is unknown")]
    NoBtf(#[source] SysError),
    /// A call failed: loading (with the verifier's word), attaching, reading a map.
    #[error("{0}")]
    Sys(#[from] SysError),
    /// The object does not fit this kernel or this program.
    #[error("{0}")]
    Object(String),
    /// None of a hook's programs can be attached.
    #[error("cannot attach to {hook}: {tried}")]
    Hook {
        /// The tracepoint.
        hook: String,
        /// What was tried, and what the kernel said.
        tried: String,
        /// The first refusal.
        #[source]
        source: SysError,
    },
}

impl From<EbpfError> for TraceError {
    fn from(e: EbpfError) -> Self {
        sys_error("load the object", &e).map_or_else(|| Self::Object(e.to_string()), Self::Sys)
    }
}

impl From<aya::maps::MapError> for TraceError {
    fn from(e: aya::maps::MapError) -> Self {
        sys_error("bpf(BPF_MAP_*)", &e).map_or_else(|| Self::Object(e.to_string()), Self::Sys)
    }
}

impl From<ProgramError> for TraceError {
    fn from(e: ProgramError) -> Self {
        Self::Sys(refused(&e))
    }
}

/// The system call behind an error of aya's, if there is one in its chain.
pub(crate) fn sys_error(call: &'static str, e: &(dyn std::error::Error + 'static)) -> Option<SysError> {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(errno) = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Some(SysError::new(call, errno));
        }
        next = e.source();
    }
    None
}

/// What the kernel said of a program that it does not take.
pub(crate) fn refused(e: &ProgramError) -> SysError {
    let call = match e {
        ProgramError::LoadError { .. } => "bpf(BPF_PROG_LOAD)",
        _ => "attach",
    };
    let detail = match e {
        ProgramError::LoadError { verifier_log, .. } => bpf::refusal(&verifier_log.to_string()),
        other => other.to_string(),
    };
    let found = sys_error(call, e).unwrap_or_else(|| SysError::new(call, 0));
    found.with_detail(detail)
}
