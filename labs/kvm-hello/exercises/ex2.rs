//! Exercise 2: requests in shared memory, and a port to say that they are there. The statement, with the layout of a
//! request, is in the lab's README; `cargo xtask homework check kvm-hello ex2` says how far you are.
//!
//! The guest's memory comes as [`Memory`]. Reading or writing outside of it panics: in a monitor, that is a guest that
//! has stopped the host. The numbers of the protocol are in [`super::protocol`].

use super::protocol::Memory;
use kvm_hello::exits::Bus;

/// What the guest asks for: the fields of a request that are the guest's to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub op: u32,
    /// Physical address of the bytes.
    pub buffer: u64,
    /// How many.
    pub len: u32,
    /// Physical address of the next request; 0 if this is the last.
    pub next: u64,
}

impl Request {
    /// A request as it lies in memory.
    pub fn decode(_bytes: &[u8; 32]) -> Self {
        unimplemented!("TODO(you): little-endian, at the offsets of the statement")
    }
}

/// The host's end.
#[derive(Debug)]
pub struct Channel {
    // TODO(you): what has been printed, what can still be read, what the port answers.
}

impl Channel {
    /// Nothing printed; `input` is to be read by the guest.
    pub fn new(_input: &[u8]) -> Self {
        Self {}
    }

    /// All that the guest has printed.
    pub fn printed(&self) -> &[u8] {
        unimplemented!("TODO(you): what has been printed")
    }

    /// Answers the requests from the physical address `head` on.
    ///
    /// Whatever the guest has put there, and whatever its other processors put there meanwhile.
    pub fn doorbell(&mut self, _head: u64, _memory: &impl Memory) {
        unimplemented!("TODO(you): fetch, check, do, answer, follow")
    }

    /// What the guest reads from the port: how many requests the last doorbell has answered, and whether it had to stop.
    pub fn answer(&self) -> u32 {
        unimplemented!("TODO(you): a count, and a bit")
    }
}

/// The channel behind its port.
pub struct Port<M> {
    /// The host's end.
    pub channel: Channel,
    /// The guest's memory.
    pub memory: M,
}

impl<M: Memory> Bus for Port<M> {
    fn port_out(&mut self, _port: u16, _data: &[u8]) {
        unimplemented!("TODO(you): four bytes to the doorbell are an address; all else is ignored")
    }

    fn port_in(&mut self, _port: u16, _data: &mut [u8]) {
        unimplemented!("TODO(you): four bytes from the doorbell are the answer; all else reads as all ones")
    }
}
