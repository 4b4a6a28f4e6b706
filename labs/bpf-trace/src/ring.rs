//! Events from the kernel: records in a ring buffer, read in the order in which they were written.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};

/// A ring buffer's reading end.
pub struct Ring {
    ring: RingBuf<MapData>,
    /// Bytes that it holds.
    size: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Ring {
    pub(crate) fn new(map: aya::maps::Map) -> Result<Self, aya::maps::MapError> {
        let size = match &map {
            aya::maps::Map::RingBuf(data) => data.info()?.max_entries() as usize,
            _ => 0,
        };
        Ok(Self { ring: RingBuf::try_from(map)?, size })
    }

    /// Hands over every record that is there now, and those that come meanwhile, but no more than the ring holds: who
    /// writes faster than this reads does not keep it for ever.
    pub fn drain(&mut self, mut each: impl FnMut(Record<'_>)) {
        let mut seen = 0;
        while seen <= self.size
            && let Some(item) = self.ring.next()
        {
            seen += item.len();
            each(Record(&item));
        }
    }
}

/// A record, read from its begin on as the C structure lays it out; what was cut off reads as zeros.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a>(pub &'a [u8]);

impl<'a> Record<'a> {
    /// The next `n` bytes, as far as they are there.
    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        // Nearly always all of it is there; lengths that are known are read without a call.
        if let Some((array, rest)) = self.0.split_first_chunk() {
            self.0 = rest;
            return *array;
        }
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// The next `u32`.
    pub fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.array())
    }

    /// The next `u64`.
    pub fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.array())
    }

    /// The next `n` bytes as text that ends with the first NUL.
    pub fn text(&mut self, n: usize) -> String {
        text(self.bytes(n))
    }
}

/// Bytes up to the first NUL as text; what is not UTF-8 is replaced.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_record_reads_as_zeros() {
        let bytes = [1, 0, 0, 0, b'a', b'b', 0, b'c'];
        let mut r = Record(&bytes);
        assert_eq!(r.u32(), 1);
        assert_eq!(r.text(4), "ab");
        assert_eq!((r.u64(), r.u32(), r.text(3).as_str()), (0, 0, ""));
    }
}
