//! Fails `wraps`: the sum stays at 255.

/// The sum, modulo 256.
pub fn add(a: u8, b: u8) -> u8 {
    a.saturating_add(b)
}
