//! Exercise 1: a counter in memory space, with a reset and an interrupt. The statement, with the map of the registers,
//! is in the lab's README; `cargo xtask homework check kvm-hello ex1` says how far you are.
//!
//! `kvm_hello::devices::multiplier` is a device that you may start from. The spec has the numbers: [`super::map`].

use kvm_hello::devices::Device;
use kvm_hello::exits::Bus;

/// The device: its registers, and what happens when time goes by.
#[derive(Debug, Default)]
pub struct Counter {
    // TODO(you): what has to be remembered from one access to the next?
}

impl Counter {
    /// So many ticks of the clock have gone by. Takes no longer for four billion than for one.
    pub fn advance(&mut self, _ticks: u32) {
        unimplemented!("TODO(you): count, expire, start again")
    }

    /// Whether the device holds its interrupt line up.
    pub fn line(&self) -> bool {
        unimplemented!("TODO(you): of which two bits is it made?")
    }
}

impl Device for Counter {
    /// The guest reads at `offset`. `data` is as long as the access is wide.
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {
        unimplemented!("TODO(you): answer whole registers; all else reads as all ones")
    }

    /// The guest writes at `offset`.
    fn write(&mut self, _offset: u64, _data: &[u8]) {
        unimplemented!("TODO(you): take whole registers; ignore all else")
    }
}

/// The counter on a bus, at [`super::map::BASE`], and its wire to the interrupt controller.
pub struct Board<W> {
    // TODO(you): the counter, and what the wire was told last.
    wire: W,
}

impl<W: FnMut(bool)> Board<W> {
    /// A board just switched on. `wire` is one `KVM_IRQ_LINE`: `true` raises the line, `false` lowers it.
    pub fn new(wire: W) -> Self {
        Self { wire }
    }

    /// So many ticks have gone by.
    pub fn advance(&mut self, _ticks: u32) {
        (self.wire)(false);
        unimplemented!("TODO(you): the line may have changed")
    }
}

impl<W: FnMut(bool)> Bus for Board<W> {
    fn mmio_read(&mut self, _address: u64, _data: &mut [u8]) {
        unimplemented!("TODO(you): is the address one of the device's?")
    }

    fn mmio_write(&mut self, _address: u64, _data: &[u8]) {
        unimplemented!("TODO(you): is the address one of the device's? The line may have changed")
    }
}
