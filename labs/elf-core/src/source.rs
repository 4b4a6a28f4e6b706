//! The bytes of a file, read with bounds.
//!
//! A core is read by `pread`, not mapped: a file that another process truncates while it is mapped
//! kills the reader with SIGBUS, and a page that was looked at once counts as the reader's memory.
//! `pread` returns fewer bytes instead, and what stays in memory is the small cache below.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::Error;

/// What is read at a time. Nearly all that a `pread` of one page costs is the call, and notes are read in order:
/// blocks of four pages cost half.
const BLOCK: usize = 16 << 10;
/// 8 blocks are 128 KiB: a stack being walked, the ELF tables and the notes around the cursor. Few, because memory that
/// is touched for the first time costs more than reading the page once more.
const SLOTS: usize = 8;

/// A file, or bytes that are already in memory (a vDSO out of a core, a fuzzer's input).
#[derive(Debug)]
pub struct Source {
    from: From,
    len: u64,
    cache: RefCell<Vec<Slot>>,
}

#[derive(Debug)]
enum From {
    File(File),
    Bytes(Vec<u8>),
}

/// One cached block; `have` bytes of it exist in the file.
#[derive(Debug)]
struct Slot {
    block: u64,
    have: usize,
    bytes: Box<[u8; BLOCK]>,
}

impl Source {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// open(2)'s errors, and [`Error::NotRegular`] for directories, devices and FIFOs.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        // O_NONBLOCK: a FIFO without a writer must not hang us before we see that it is one.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if !meta.is_file() {
            return Err(Error::NotRegular { path: path.to_owned() });
        }
        Ok(Self { from: From::File(file), len: meta.len(), cache: RefCell::default() })
    }

    /// Takes bytes as if they were a file.
    pub fn bytes(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len() as u64, from: From::Bytes(bytes), cache: RefCell::default() }
    }

    /// Length in bytes when it was opened. The file may have become shorter since.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it had no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads at `offset` into `buf`; returns how many bytes there were. Never fails: what cannot
    /// be read is not there.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> usize {
        match &self.from {
            From::Bytes(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|o| bytes.get(o..)).unwrap_or_default();
                let n = rest.len().min(buf.len());
                buf[..n].copy_from_slice(&rest[..n]);
                n
            }
            From::File(file) if buf.len() > BLOCK => pread_all(file, offset, buf),
            From::File(file) => self.read_cached(file, offset, buf),
        }
    }

    fn read_cached(&self, file: &File, offset: u64, buf: &mut [u8]) -> usize {
        let mut cache = self.cache.borrow_mut();
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = offset.checked_add(done as u64) else { break };
            let (block, within) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let slot = (block as usize) % SLOTS;
            while cache.len() <= slot {
                cache.push(Slot { block: u64::MAX, have: 0, bytes: Box::new([0; BLOCK]) });
            }
            let slot = &mut cache[slot];
            if slot.block != block {
                slot.have = pread_all(file, block * BLOCK as u64, &mut slot.bytes[..]);
                slot.block = block;
            }
            let there = slot.have.saturating_sub(within).min(buf.len() - done);
            if there == 0 {
                break;
            }
            buf[done..done + there].copy_from_slice(&slot.bytes[within..within + there]);
            done += there;
        }
        done
    }

    /// The next offset at or after `offset` that holds data, by lseek(2) SEEK_DATA (Linux 3.1):
    /// the holes of a sparse core need no reading. `offset` itself where the file cannot say.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        let From::File(file) = &self.from else { return (offset < self.len).then_some(offset) };
        let start = i64::try_from(offset).ok()?;
        match nix::unistd::lseek(file, start, nix::unistd::Whence::SeekData) {
            Ok(at) => u64::try_from(at).ok(),
            Err(nix::errno::Errno::ENXIO) => None,
            Err(_) => (offset < self.len).then_some(offset),
        }
    }

    /// Up to `len` bytes at `offset`; shorter where the file ends. Memory follows what is there,
    /// never what was asked for.
    pub fn read_vec(&self, offset: u64, len: u64) -> Vec<u8> {
        let there = self.len.saturating_sub(offset).min(len);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
        let n = self.read_at(offset, &mut bytes);
        bytes.truncate(n);
        bytes
    }
}

/// `pread` until `buf` is full or the file ends; a read error counts as the end.
fn pread_all(file: &File, offset: u64, buf: &mut [u8]) -> usize {
    let mut done = 0;
    while done < buf.len() {
        let Some(at) = offset.checked_add(done as u64).filter(|at| *at <= i64::MAX as u64) else { break };
        match file.read_at(&mut buf[done..], at) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    done
}

/// Integers of the file's byte order; `None` beyond the end.
#[derive(Debug, Clone, Copy)]
pub struct Ints<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Most significant byte first.
    pub big_endian: bool,
}

impl<'a> Ints<'a> {
    /// `N` bytes at `at`.
    pub fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    /// A 16-bit integer at byte `at`.
    pub fn u16(self, at: usize) -> Option<u16> {
        let b = self.array(at)?;
        Some(if self.big_endian { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) })
    }

    /// A 32-bit integer at byte `at`.
    pub fn u32(self, at: usize) -> Option<u32> {
        let b = self.array(at)?;
        Some(if self.big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) })
    }

    /// A signed 32-bit integer at byte `at`.
    pub fn i32(self, at: usize) -> Option<i32> {
        self.u32(at).map(u32::cast_signed)
    }

    /// A 64-bit integer at byte `at`.
    pub fn u64(self, at: usize) -> Option<u64> {
        let b = self.array(at)?;
        Some(if self.big_endian { u64::from_be_bytes(b) } else { u64::from_le_bytes(b) })
    }
}

/// Text out of a file that nobody vouches for: up to the first NUL, or all of it where there is
/// none; control characters are escaped, so that a core cannot talk to the reader's terminal.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    printable(&String::from_utf8_lossy(&bytes[..end]))
}

/// Escapes control characters.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
