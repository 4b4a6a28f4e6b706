//! What clients send: a stream of bytes that can be checked at any place without being kept.

/// The stream repeats after a prime number of bytes, so that no buffer size divides it: bytes that are
/// lost, doubled or reordered by whole buffers do not look right by accident.
const PERIOD: usize = 65_521;
/// Longest slice that can be had in one piece.
pub const LONGEST: usize = 64 * 1024;

/// A stream of bytes, the same for all connections but begun at another place by each.
#[derive(Debug)]
pub struct Stream {
    bytes: Vec<u8>,
}

impl Default for Stream {
    fn default() -> Self {
        let mut random = Random::new(0x5eed);
        let period: Vec<u8> = (0..PERIOD).map(|_| random.bits() as u8).collect();
        Stream { bytes: period.into_iter().cycle().take(PERIOD + LONGEST).collect() }
    }
}

impl Stream {
    /// At most `len` bytes (and at most 64 KiB) of connection `who`, from `offset` on.
    pub fn slice(&self, who: usize, offset: u64, len: usize) -> &[u8] {
        let start = ((offset + who as u64 * 7919) % PERIOD as u64) as usize;
        &self.bytes[start..start + len.min(LONGEST)]
    }
}

/// xorshift64*, from Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator; the same seed gives the same numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next 32 random bits.
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.bits() as usize % (high - low + 1)
    }

    /// A number in (0, 1].
    pub fn unit(&mut self) -> f64 {
        (f64::from(self.bits()) + 1.0) / (f64::from(u32::MAX) + 1.0)
    }
}
