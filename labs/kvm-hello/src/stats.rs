//! What KVM counts: its binary statistics, read from a file descriptor (Linux 5.14).
//!
//! KVM API documentation, "KVM_GET_STATS_FD". The file is a header, descriptors, and a block of
//! numbers; the first two never change:
//!
//! ```text
//! header       flags u32, name_size u32, num_desc u32, id_offset u32, desc_offset u32, data_offset u32
//! descriptor   flags u32, exponent i16, size u16, offset u32, bucket_size u32, name [u8; name_size]
//! data         u64s; a descriptor's `offset` counts from data_offset, its `size` counts u64s
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use kit::SysError;

use crate::machine::Machine;
use crate::sys::kvm::stats_fd;

/// Where the counters are read.
pub const HERE: kit::Place = kit::here!();

/// The counters of one vCPU, readable at any time.
#[derive(Debug)]
pub struct Stats {
    file: File,
    counters: Vec<Counter>,
    data_offset: u64,
}

/// One counter: its name and where its value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// As the kernel calls it: `exits`, `insn_emulation`.
    pub name: String,
    /// Bytes from the start of the data block.
    pub offset: u32,
    /// How many `u64`; more than one for a histogram.
    pub size: u16,
}

impl Stats {
    /// Opens the counters of a machine's vCPU.
    ///
    /// # Errors
    /// `ENOTTY` before Linux 5.14; what reading says.
    pub fn of_vcpu(machine: &Machine) -> Result<Self, SysError> {
        let file = stats_fd(machine.vcpu.fd())?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).map_err(SysError::io("read(stats)"))?;
        let [name_size, count, desc_offset, data_offset] = [4, 8, 16, 20].map(|at| u32_at(&header, at));
        let mut descriptors = vec![0; count as usize * (DESCRIPTOR + name_size as usize)];
        file.read_exact_at(&mut descriptors, u64::from(desc_offset)).map_err(SysError::io("read(stats)"))?;
        let counters = parse_descriptors(&descriptors, name_size as usize);
        Ok(Self { file, counters, data_offset: u64::from(data_offset) })
    }

    /// The value of a counter now.
    ///
    /// # Errors
    /// `ENOENT` if this kernel does not have it; what reading says.
    pub fn get(&self, name: &str) -> Result<u64, SysError> {
        let Some(counter) = self.counters.iter().find(|c| c.name == name) else {
            return Err(SysError::new("KVM_GET_STATS_FD", libc::ENOENT).with_detail(format!("no {name}")));
        };
        let mut bytes = [0; 8];
        let at = self.data_offset + u64::from(counter.offset);
        self.file.read_exact_at(&mut bytes, at).map_err(SysError::io("read(stats)"))?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// All counters that the kernel offers.
    pub fn counters(&self) -> &[Counter] {
        &self.counters
    }
}

/// Bytes of the header.
const HEADER: usize = 24;
/// Bytes of a descriptor before its name.
const DESCRIPTOR: usize = 16;

/// Reads a block of descriptors, each followed by a zero-padded name of `name_size` bytes.
pub fn parse_descriptors(block: &[u8], name_size: usize) -> Vec<Counter> {
    block
        .chunks_exact(DESCRIPTOR + name_size)
        .map(|d| {
            let name = &d[DESCRIPTOR..];
            let len = name.iter().position(|b| *b == 0).unwrap_or(name.len());
            Counter {
                name: String::from_utf8_lossy(&name[..len]).into_owned(),
                size: u16::from_ne_bytes([d[6], d[7]]),
                offset: u32_at(d, 8),
            }
        })
        .collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
