//! Fails `the_line_is_status_and_enable`: the status takes what is written, so a 0 clears it and a 1 sets it.

use kvm_hello::devices::Device;
use kvm_hello::exits::Bus;

use super::map::{BASE, CONTROL, COUNT, EXPIRED, IDENTITY, INTERRUPT, LIMIT, NAME, RESET, RUN, SIZE, STATUS};

/// The device: its registers, and what happens when time goes by. The default is the state after power-on.
#[derive(Debug, Default)]
pub struct Counter {
    /// Bits [`RUN`] and [`INTERRUPT`], no others.
    control: u32,
    count: u32,
    /// 0: none.
    limit: u32,
    expired: bool,
}

impl Counter {
    /// So many ticks of the clock have gone by.
    pub fn advance(&mut self, ticks: u32) {
        if self.control & RUN == 0 || ticks == 0 {
            return;
        }
        if self.limit == 0 {
            self.count = self.count.wrapping_add(ticks);
            return;
        }
        // At or beyond the limit (the guest may have lowered it), the next tick is the one.
        let until_first = self.limit.saturating_sub(self.count).max(1);
        if ticks < until_first {
            self.count += ticks;
        } else {
            self.count = (ticks - until_first) % self.limit;
            self.expired = true;
        }
    }

    /// Whether the device holds its interrupt line up. Derived, never stored: so no access can forget to change it.
    pub fn line(&self) -> bool {
        self.expired && self.control & INTERRUPT != 0
    }
}

impl Device for Counter {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            IDENTITY => NAME,
            CONTROL => self.control,
            COUNT => self.count,
            LIMIT => self.limit,
            STATUS if self.expired => EXPIRED,
            STATUS => 0,
            _ => u32::MAX,
        };
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(register) => *register = value.to_le_bytes(),
            Err(_) => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(bytes) = data.try_into() else { return };
        let value = u32::from_le_bytes(bytes);
        match offset {
            CONTROL if value & RESET != 0 => *self = Self::default(),
            CONTROL => self.control = value & (RUN | INTERRUPT),
            LIMIT => self.limit = value,
            // Writing a one clears: so nothing is lost that came between the guest's read and its write.
            STATUS => self.expired = value & EXPIRED != 0,
            _ => {}
        }
    }
}

/// The counter on a bus, and its wire to the interrupt controller.
pub struct Board<W> {
    counter: Counter,
    wire: W,
    /// What the wire was told last.
    up: bool,
}

impl<W: FnMut(bool)> Board<W> {
    /// A board just switched on: the line is down.
    pub fn new(wire: W) -> Self {
        Self { counter: Counter::default(), wire, up: false }
    }

    /// So many ticks have gone by.
    pub fn advance(&mut self, ticks: u32) {
        self.counter.advance(ticks);
        self.tell();
    }

    /// A system call: only where there is something to tell.
    fn tell(&mut self) {
        if self.counter.line() != self.up {
            self.up = !self.up;
            (self.wire)(self.up);
        }
    }
}

/// The register that a physical address means, if it is one of ours.
fn offset(address: u64) -> Option<u64> {
    address.checked_sub(BASE).filter(|offset| *offset < SIZE)
}

impl<W: FnMut(bool)> Bus for Board<W> {
    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        match offset(address) {
            Some(offset) => self.counter.read(offset, data),
            None => data.fill(0xff),
        }
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        if let Some(offset) = offset(address) {
            self.counter.write(offset, data);
            self.tell();
        }
    }
}
