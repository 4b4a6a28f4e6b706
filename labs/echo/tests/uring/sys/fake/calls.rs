//! The system calls of the kernel made up.

use std::ptr::NonNull;

use nix::errno::Errno;

use super::*;

impl Kernel for Fake {
    fn setup(&self, entries: u32, params: &mut Params) -> Result<Fd, Errno> {
        let inner = &mut *self.0.0.borrow_mut();
        inner.call()?;
        must(!inner.open && entries > 0, "there is one ring", "what for?", "one setup", "another");
        inner.open = true;
        // As many as it likes, but not fewer than asked for.
        (params.sq_entries, params.cq_entries, params.features) = (SQ_ENTRIES, CQ_ENTRIES, 1);
        params.sq_off = SqOffsets {
            head: SQ_HEAD,
            tail: SQ_TAIL,
            ring_mask: SQ_MASK,
            array: ARRAY,
            ..Default::default()
        };
        params.cq_off =
            CqOffsets { head: CQ_HEAD, tail: CQ_TAIL, ring_mask: CQ_MASK, cqes: CQES, ..Default::default() };
        Ok(RING)
    }

    fn map(&self, ring: Fd, len: usize, offset: u64) -> Result<NonNull<u8>, Errno> {
        let inner = &mut *self.0.0.borrow_mut();
        inner.call()?;
        must(
            ring == RING && inner.open,
            "the ring that was set up is mapped",
            "which descriptor?",
            "77",
            format!("{ring}"),
        );
        let (at, needed) = match offset {
            OFF_RINGS => (inner.queues.start(), ARRAY as usize + 4 * SQ_ENTRIES as usize),
            OFF_SQES => (inner.sqes.start(), 64 * SQ_ENTRIES as usize),
            _ => return Err(Errno::EINVAL),
        };
        let next = "where does the last of its arrays end? How many entries has the kernel made?";
        must(
            len >= needed && len <= 4096,
            "a mapping is as long as what is in it",
            next,
            "all of it, and not a page more",
            format!("{len} bytes"),
        );
        inner.mapped.insert(at.as_ptr() as usize, len);
        Ok(at)
    }

    fn memory(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        let inner = &mut *self.0.0.borrow_mut();
        inner.call()?;
        let memory = Memory::new(len);
        inner.mapped.insert(memory.address(), len);
        let at = memory.start();
        inner.memory.push(memory);
        Ok(at)
    }

    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) {
        let inner = &mut *self.0.0.borrow_mut();
        let mapped = inner.mapped.remove(&(at.as_ptr() as usize));
        must(
            mapped == Some(len),
            "what is unmapped was mapped, with that length",
            "what did you ask for?",
            &format!("{mapped:?}"),
            format!("{len}"),
        );
    }

    fn enter(&self, ring: Fd, submit: u32, wait_for: u32, flags: u32) -> Result<u32, Errno> {
        let inner = &mut *self.0.0.borrow_mut();
        inner.enters += 1;
        must(ring == RING && inner.open, "the ring is entered", "which descriptor?", "77", format!("{ring}"));
        must(
            inner.enters < 200_000,
            "it comes to its end",
            "what do you ask the kernel for, again and again?",
            "an end",
            "200000 enters",
        );
        let take = submit.min(inner.habits.takes).min(inner.seen.len() as u32);
        for _ in 0..take {
            let Some(sqe) = inner.seen.pop_front() else { break };
            inner.sq_head = inner.sq_head.wrapping_add(1);
            inner.start(sqe);
        }
        let head = inner.queues.address() + SQ_HEAD as usize;
        inner.queues.write(head, &inner.sq_head.to_le_bytes());
        inner.flush();
        if flags & ENTER_GETEVENTS == 0 {
            must(
                wait_for == 0,
                "an enter that waits has IORING_ENTER_GETEVENTS",
                "which flag makes it wait?",
                "the flag",
                "none",
            );
            return Ok(take);
        }
        // As the real one: if it has not taken all, it does not wait either.
        if take < submit {
            return Ok(take);
        }
        if inner.enters.is_multiple_of(inner.habits.interrupts) {
            return if take == 0 && wait_for > 0 { Err(Errno::EINTR) } else { Ok(take) };
        }
        for _ in 0..100 {
            inner.step();
            if inner.cq_tail.wrapping_sub(inner.cq_head) >= wait_for {
                return Ok(take);
            }
        }
        let armed = inner.sockets.iter().filter(|s| s.receive.is_some() || s.send.is_some()).count();
        let missing = inner.sockets.iter().find(|s| s.received.len() < s.sent.len());
        let missing = missing.map_or(0, |s| s.sent.len() - s.received.len());
        let seen = format!(
            "{wait_for} completions waited for; {armed} sockets have an operation under way, \
             and a client waits for {missing} bytes of its echo"
        );
        let next = "which operation has ended, and who starts it again? Is the end of a socket noted?";
        must(false, "it waits only for what will come", next, "an operation that completes", seen);
        Err(Errno::EIO)
    }

    fn register_buffers(&self, ring: Fd, buffers: &BufReg) -> Result<(), Errno> {
        let inner = &mut *self.0.0.borrow_mut();
        inner.call()?;
        let (at, entries) = (buffers.ring_addr as usize, buffers.ring_entries);
        if ring != RING || !entries.is_power_of_two() || !at.is_multiple_of(4096) {
            return Err(Errno::EINVAL);
        }
        inner.bytes(at, 16 * entries as usize);
        inner.group = Group { at, entries, id: buffers.bgid, ..Group::default() };
        Ok(())
    }

    fn close(&self, ring: Fd) {
        let inner = &mut *self.0.0.borrow_mut();
        must(ring == RING && inner.open, "the ring is closed once", "who owns it?", "77", format!("{ring}"));
        inner.open = false;
    }
}
