//! Fails `wraps`: it panics beyond 255.

/// The sum, modulo 256.
pub fn add(a: u8, b: u8) -> u8 {
    a + b
}
