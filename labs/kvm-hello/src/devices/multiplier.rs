//! A device of our own: four registers of 32 bits in memory space. It multiplies.
//!
//! ```text
//! +0   identity   reads "MUL!"
//! +4   first factor
//! +8   second factor
//! +12  product    low 32 bits, computed when read
//! ```

use super::Device;
use crate::layout;

/// What register 0 reads.
pub const IDENTITY: u32 = u32::from_le_bytes(*b"MUL!");

/// The device's state.
#[derive(Debug, Default)]
pub struct Multiplier {
    factors: [u32; 2],
}

/// The register that a physical address means, if it is one of ours.
pub fn offset(address: u64) -> Option<u64> {
    address.checked_sub(layout::MMIO).filter(|offset| *offset < 16)
}

/// Where its registers are.
pub const HERE: kit::Place = kit::here!();

impl Device for Multiplier {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            0 => IDENTITY,
            4 => self.factors[0],
            8 => self.factors[1],
            12 => self.factors[0].wrapping_mul(self.factors[1]),
            // Between registers: as an empty bus.
            _ => u32::MAX,
        };
        let len = data.len().min(4);
        data[..len].copy_from_slice(&value.to_le_bytes()[..len]);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // Only whole registers: a device may be as strict as it likes.
        if let (4 | 8, Ok(bytes)) = (offset, <[u8; 4]>::try_from(data)) {
            self.factors[offset as usize / 4 - 1] = u32::from_le_bytes(bytes);
        }
    }
}
