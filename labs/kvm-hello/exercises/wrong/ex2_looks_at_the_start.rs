//! Fails `bad_requests_do_nothing`: a buffer that begins in memory is believed to end there.

use std::collections::VecDeque;

use super::protocol::{
    BAD_BUFFER, BROKEN, DOORBELL, LONGEST, MOST, Memory, NO_SUCH_OP, OK, PRINT, READ, TOO_LONG,
};
use kvm_hello::exits::Bus;

/// Bytes of a request.
const SIZE: u64 = 32;
/// Where the answer goes.
const STATUS: u64 = 4;
const DONE: u64 = 20;

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
    pub fn decode(bytes: &[u8; 32]) -> Self {
        let four = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let eight = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Self { op: four(0), buffer: eight(8), len: four(16), next: eight(24) }
    }
}

/// Whether `len` bytes from `at` on are all memory. Both come from the guest: their sum may not fit.
fn is_memory(at: u64, len: u64, memory: &impl Memory) -> bool {
    at < memory.size() && len <= memory.size()
}

/// The host's end.
#[derive(Debug)]
pub struct Channel {
    printed: Vec<u8>,
    input: VecDeque<u8>,
    answer: u32,
}

impl Channel {
    /// Nothing printed; `input` is to be read by the guest.
    pub fn new(input: &[u8]) -> Self {
        Self { printed: Vec::new(), input: input.iter().copied().collect(), answer: 0 }
    }

    /// All that the guest has printed.
    pub fn printed(&self) -> &[u8] {
        &self.printed
    }

    /// Answers the requests from the physical address `head` on.
    pub fn doorbell(&mut self, head: u64, memory: &impl Memory) {
        self.answer = 0;
        let mut at = head;
        while at != 0 {
            if self.answer == MOST || !at.is_multiple_of(8) || !is_memory(at, SIZE, memory) {
                self.answer |= BROKEN;
                return;
            }
            // Fetched once: what was checked is what is done, whatever is in memory by then.
            let mut bytes = [0; SIZE as usize];
            memory.read(at, &mut bytes);
            let request = Request::decode(&bytes);
            let (status, done) = match self.serve(&request, memory) {
                Ok(done) => (OK, done),
                Err(status) => (status, 0),
            };
            memory.write(at + DONE, &done.to_le_bytes());
            // Last: a guest that sees it believes all the rest.
            memory.write(at + STATUS, &status.to_le_bytes());
            self.answer += 1;
            at = request.next;
        }
    }

    /// Does one request; says how many bytes it moved, or why none.
    fn serve(&mut self, request: &Request, memory: &impl Memory) -> Result<u32, u32> {
        if request.op != PRINT && request.op != READ {
            return Err(NO_SUCH_OP);
        }
        if request.len > LONGEST {
            return Err(TOO_LONG);
        }
        if !is_memory(request.buffer, request.len.into(), memory) {
            return Err(BAD_BUFFER);
        }
        let len = request.len as usize;
        if request.op == PRINT {
            let start = self.printed.len();
            self.printed.resize(start + len, 0);
            memory.read(request.buffer, &mut self.printed[start..]);
            return Ok(request.len);
        }
        let there = len.min(self.input.len());
        let bytes: Vec<u8> = self.input.drain(..there).collect();
        memory.write(request.buffer, &bytes);
        Ok(there as u32)
    }

    /// What the guest reads from the port.
    pub fn answer(&self) -> u32 {
        self.answer
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
    fn port_out(&mut self, port: u16, data: &[u8]) {
        if let (DOORBELL, Ok(address)) = (port, data.try_into()) {
            self.channel.doorbell(u32::from_le_bytes(address).into(), &self.memory);
        }
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        match (port, <&mut [u8; 4]>::try_from(&mut *data)) {
            (DOORBELL, Ok(four)) => *four = self.channel.answer().to_le_bytes(),
            _ => data.fill(0xff),
        }
    }
}
