//! A serial port like the 16550 of a PC, without FIFO and without the baud rate: bytes go at once.
//!
//! ```text
//! +0  data               write: send; read: what was received
//! +1  interrupt enable   bit 0: a byte was received; bit 1: the transmitter is empty
//! +2  interrupt cause    1 none, 2 transmitter empty, 4 byte received
//! +5  line status        bit 0: a byte waits; bits 5 and 6: the transmitter is empty
//! ```
//!
//! Source: National Semiconductor PC16550D data sheet, section 8.

use std::collections::VecDeque;

use super::Device;

/// The first register's port on a PC's first serial port.
pub const FIRST_PORT: u16 = 0x3f8;
/// The last one's.
pub const LAST_PORT: u16 = 0x3ff;
/// Its interrupt line.
pub const LINE: u32 = 4;

const RECEIVED: u8 = 1 << 0;
const EMPTY: u8 = 1 << 1;

/// The port's state.
#[derive(Debug, Default)]
pub struct Serial {
    enabled: u8,
    /// The transmitter became empty, and nobody has asked for the cause since.
    empty_unseen: bool,
    received: VecDeque<u8>,
    sent: Vec<u8>,
    /// Registers that only remember: line and modem control, scratch.
    plain: [u8; 8],
}

impl Serial {
    /// Everything sent so far.
    pub fn sent(&self) -> &[u8] {
        &self.sent
    }

    /// Puts bytes on the line, towards the guest.
    pub fn type_in(&mut self, bytes: &[u8]) {
        self.received.extend(bytes);
    }

    /// The state of the interrupt line.
    pub fn wants_interrupt(&self) -> bool {
        self.cause() != 1
    }

    fn cause(&self) -> u8 {
        if self.enabled & RECEIVED != 0 && !self.received.is_empty() {
            4
        } else if self.enabled & EMPTY != 0 && self.empty_unseen {
            2
        } else {
            1
        }
    }
}

/// Where its registers are.
pub const HERE: kit::Place = kit::here!();

impl Device for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        data[0] = match offset {
            0 => self.received.pop_front().unwrap_or(0),
            1 => self.enabled,
            2 => {
                let cause = self.cause();
                // Asking for this cause is what takes it back.
                self.empty_unseen &= cause != 2;
                cause
            }
            5 => 0x60 | u8::from(!self.received.is_empty()),
            _ => self.plain[offset as usize & 7],
        };
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match offset {
            0 => {
                self.sent.push(data[0]);
                self.empty_unseen = true;
            }
            1 => {
                // Enabling it while the transmitter is empty counts as becoming empty.
                self.empty_unseen |= data[0] & EMPTY & !self.enabled != 0;
                self.enabled = data[0];
            }
            _ => self.plain[offset as usize & 7] = data[0],
        }
    }
}
