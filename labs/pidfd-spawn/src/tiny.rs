//! Programs as small as can be: an ELF header, a segment, a few instructions. What is left of the
//! cost of running one is the kernel's.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;

use kit::SysError;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// `exit(0)`: what `true` does, without libc, loader or pages.
const TRUE: &[u8] = b"\x31\xff\xb8\x3c\0\0\0\x0f\x05";
/// `read(0, stack, 1)`, then `exit(0)`: ends when the pipe on its standard input closes.
const UNTIL_EOF: &[u8] = b"\x31\xc0\x31\xff\x48\x89\xe6\x6a\x01\x5a\x0f\x05\x31\xff\xb8\x3c\0\0\0\x0f\x05";

/// A program in memory, with a path that any process of ours can exec.
#[derive(Debug)]
pub struct Tiny {
    _file: File,
    path: String,
}

impl Tiny {
    /// A static `true`.
    ///
    /// # Errors
    /// memfd_create(2), write(2).
    pub fn exit_0() -> Result<Self, SysError> {
        Self::program(TRUE)
    }

    /// Ends when its standard input does.
    ///
    /// # Errors
    /// As above.
    pub fn until_eof() -> Result<Self, SysError> {
        Self::program(UNTIL_EOF)
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn program(code: &[u8]) -> Result<Self, SysError> {
        let fd = memfd_create("tiny", MFdFlags::MFD_CLOEXEC).map_err(SysError::nix("memfd_create"))?;
        let mut writer = File::from(fd);
        writer.write_all(&elf(code)).map_err(SysError::io("write"))?;
        // Opened anew for reading only: exec refuses a file that is open for writing (ETXTBSY).
        let own = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let file = File::open(own).map_err(SysError::io("open(memfd)"))?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        Ok(Self { _file: file, path })
    }
}

/// elf(5): a 64-bit header, one PT_LOAD segment of the whole file at 4 MiB, and the code behind it.
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let size = 64 + 56 + code.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    let put = |out: &mut Vec<u8>, words: &[u64]| words.iter().for_each(|w| out.extend(w.to_le_bytes()));
    put(&mut out, &[BASE + 120, 64, 0]); // entry, program headers, no sections
    out.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0"); // sizes and counts
    out.extend(b"\x01\0\0\0\x05\0\0\0"); // PT_LOAD, readable and executable
    put(&mut out, &[0, BASE, BASE, size, size, 4096]);
    out.extend(code);
    out
}
