//! Fails `it_stops_late_and_briefly`: it waits for the guest to calm down, however long that takes.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};

use super::moving::{Guest, Limits, PAGE, Place, REGISTERS, kind};
use kvm_hello::dirty::pages_of;

/// Sends a guest that runs.
///
/// # Errors
/// The stream's. Then the guest runs on here.
pub fn send(guest: &mut impl Guest, stream: &mut impl Write, limits: Limits) -> io::Result<()> {
    // Before the first page is read: what is written from now on will be sent again.
    guest.log(true);
    let sent = rounds(guest, stream, limits);
    guest.log(false);
    if sent.is_err() {
        guest.resume();
    }
    sent
}

fn rounds(guest: &mut impl Guest, stream: &mut impl Write, limits: Limits) -> io::Result<()> {
    let mut there = Sender { stream, not_zero: BTreeSet::new() };
    let mut left: BTreeSet<u64> = (0..guest.pages()).collect();
    loop {
        there.send(guest, &left)?;
        // The log first, then (in the next round) its pages: what is written in between is in the next log. The other
        // way round, a write between the two would be in no log and in no copy.
        left = pages_of(&guest.take_log());
        if left.len() as u64 <= limits.pause_at {
            break;
        }
    }
    let registers = guest.pause();
    // Written since the last log, which is not sent yet either.
    left.extend(pages_of(&guest.take_log()));
    there.send(guest, &left)?;
    there.stream.write_all(&header(registers.len() as u64, kind::END))?;
    there.stream.write_all(&registers)?;
    there.stream.flush()
}

fn header(number: u64, kind: u64) -> [u8; 8] {
    (number << 8 | kind).to_le_bytes()
}

/// The stream, and what its other end has.
struct Sender<'a, W> {
    stream: &'a mut W,
    /// Pages that are not zero there. All others are.
    not_zero: BTreeSet<u64>,
}

impl<W: Write> Sender<'_, W> {
    /// Sends these pages, as they are now.
    fn send(&mut self, guest: &mut impl Guest, pages: &BTreeSet<u64>) -> io::Result<()> {
        let mut bytes = [0; PAGE];
        for &page in pages {
            guest.read(page, &mut bytes);
            if bytes != [0; PAGE] {
                self.stream.write_all(&header(page, kind::BYTES))?;
                self.stream.write_all(&bytes)?;
                self.not_zero.insert(page);
            } else if self.not_zero.remove(&page) {
                self.stream.write_all(&header(page, kind::ZERO))?;
            }
        }
        Ok(())
    }
}

/// Receives a guest.
///
/// # Errors
/// The stream's; `UnexpectedEof` if it ends too early; `InvalidData` for what makes no sense.
pub fn receive(stream: &mut impl Read, place: &mut impl Place) -> io::Result<Vec<u8>> {
    let mut bytes = [0; PAGE];
    loop {
        let mut word = [0; 8];
        stream.read_exact(&mut word)?;
        let word = u64::from_le_bytes(word);
        let number = word >> 8;
        match word & 0xff {
            kind::BYTES if number < place.pages() => {
                stream.read_exact(&mut bytes)?;
                place.write(number, &bytes);
            }
            kind::ZERO if number < place.pages() => place.write(number, &[0; PAGE]),
            // Checked before memory is asked for: the number is the other side's word.
            kind::END if number <= REGISTERS => {
                let mut registers = vec![0; number as usize];
                stream.read_exact(&mut registers)?;
                return Ok(registers);
            }
            _ => {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    format!("a record that begins with {word:#x}"),
                ));
            }
        }
    }
}
