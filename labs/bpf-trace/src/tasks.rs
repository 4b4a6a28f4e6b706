//! The kernel's list of tasks, by a program that it calls for each of them: what `ps` reads from /proc, in one read.

use std::io::Read as _;

use aya::programs::Program;

use crate::error::{TraceError, refused};
use crate::ring::Record;
use crate::tracer::{Plan, Tracer, kernel_btf};

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/tasks.bpf.o");

/// A thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// Its process, as this process's PID namespace knows it.
    pub pid: u32,
    /// The thread, as this process's PID namespace knows it.
    pub tid: u32,
    /// The process, as the outermost PID namespace knows it.
    pub outermost: u32,
    /// The process, as its own PID namespace knows it.
    pub inside: u32,
    /// The thread's name.
    pub comm: String,
}

/// All threads of this process's PID namespace, but for those that are closed to it. Linux 5.8.
pub fn list() -> Result<Vec<Task>, TraceError> {
    /// Bytes of `struct record`.
    const RECORD: usize = 32;
    let mut tracer = Tracer::load(&Plan { object: OBJECT, ..Plan::default() })?;
    let Program::Iter(program) = tracer.program_mut("task")? else {
        return Err(TraceError::Object("task is no iterator".into()));
    };
    program.load("task", kernel_btf()?)?;
    let link = program.attach().and_then(|id| program.take_link(id)).map_err(|e| refused(&e))?;
    let mut file = link.into_file().map_err(|e| TraceError::Object(e.to_string()))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(kit::SysError::io("read(iter/task)"))?;
    let task = |bytes| {
        let mut r = Record(bytes);
        let (outermost, pid, inside, tid) = (r.u32(), r.u32(), r.u32(), r.u32());
        Task { pid, tid, outermost, inside, comm: r.text(16) }
    };
    Ok(bytes.chunks_exact(RECORD).map(task).collect())
}
