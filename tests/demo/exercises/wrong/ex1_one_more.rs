//! Fails `adds`: the sum is one too large.

/// The sum, modulo 256.
pub fn add(a: u8, b: u8) -> u8 {
    a.wrapping_add(b).wrapping_add(1)
}
