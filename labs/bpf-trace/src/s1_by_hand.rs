//! Stage 1: a counter of all system calls, in eleven instructions and three calls of bpf(2), without any library.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use kit::SysError;

use crate::sys::bpf;

/// One instruction, `struct bpf_insn`: 8 bits of opcode, 4 of destination, 4 of source, a 16-bit offset and a 32-bit
/// constant. See Documentation/bpf/standardization/instruction-set.rst.
pub const fn insn(op: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
    op as u64 | (dst as u64) << 8 | (src as u64) << 12 | (off as u16 as u64) << 16 | (imm as u32 as u64) << 32
}

/// Where the program is.
pub const HERE: kit::Place = kit::here!();

/// The program. It is called with r1 = its context, which it does not need, and must leave a result in r0.
pub fn program(map: BorrowedFd<'_>) -> [u64; 11] {
    const PSEUDO_MAP_FD: u8 = 1;
    const MAP_LOOKUP_ELEM: i32 = 1;
    [
        insn(0x62, 10, 0, -4, 0),                         // *(u32 *)(r10 - 4) = 0
        insn(0xbf, 2, 10, 0, 0),                          // r2 = r10
        insn(0x07, 2, 0, 0, -4),                          // r2 += -4
        insn(0x18, 1, PSEUDO_MAP_FD, 0, map.as_raw_fd()), // r1 = map
        insn(0, 0, 0, 0, 0),                              // (the upper half of its address)
        insn(0x85, 0, 0, 0, MAP_LOOKUP_ELEM),             // call bpf_map_lookup_elem
        insn(0x15, 0, 0, 2, 0),                           // if r0 == 0 goto out
        insn(0xb7, 1, 0, 0, 1),                           // r1 = 1
        insn(0xdb, 0, 1, 0, 0),                           // lock *(u64 *)(r0 + 0) += r1
        insn(0xb7, 0, 0, 0, 0),                           // out: r0 = 0
        insn(0x95, 0, 0, 0, 0),                           // exit
    ]
}

/// The instructions in words, and what each is for.
pub const LINES: [(&str, &str); 10] = [
    ("     *(u32 *)(r10 - 4) = 0", "the key, on the stack: r10 is its top"),
    ("     r2 = r10", ""),
    ("     r2 += -4", "second argument: where the key is"),
    ("     r1 = map", "first argument; takes two instructions"),
    ("     call bpf_map_lookup_elem", "r0 = where the value is, or null"),
    ("     if r0 == 0 goto out", "the next step leaves this out"),
    ("     r1 = 1", ""),
    ("     lock *(u64 *)(r0 + 0) += r1", "atomic: other CPUs count as well"),
    ("out: r0 = 0", ""),
    ("     exit", ""),
];

/// Which instruction is the check for null.
pub const NULL_CHECK: usize = 6;

/// A counter that counts as long as it lives. Nothing is left of it when its three descriptors are closed.
#[derive(Debug)]
pub struct Counter {
    map: OwnedFd,
    program: OwnedFd,
    _link: OwnedFd,
}

impl Counter {
    /// Makes the map, has the program verified, and attaches it to where all system calls are entered.
    ///
    /// # Errors
    ///
    /// EPERM without CAP_BPF and CAP_PERFMON; the verifier's word in the error's detail if it refuses.
    pub fn start() -> Result<Self, SysError> {
        const ARRAY: u32 = 2;
        let map = bpf::map_create(ARRAY, 4, 8, 1)?;
        let instructions = program(map.as_fd());
        let program = bpf::prog_load(bpf::Code::raw_tp(&instructions), 1).program?;
        let link = bpf::attach(program.as_fd(), Some(c"sys_enter"))?;
        Ok(Self { map, program, _link: link })
    }

    /// System calls entered since the start, by all processes, this one's included.
    pub fn count(&self) -> Result<u64, SysError> {
        let mut value = [0; 8];
        bpf::map_lookup(self.map.as_fd(), 0, &mut value)?;
        Ok(u64::from_ne_bytes(value))
    }

    /// The program, to look at.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

/// Process and thread of the caller, by the numbers that they have outside of all PID namespaces and that programs know
/// them by: asked of the kernel by a program of three instructions, run in the caller's name (BPF_PROG_TEST_RUN, Linux
/// 5.10).
pub fn own_ids() -> Result<(u32, u32), SysError> {
    const GET_CURRENT_PID_TGID: i32 = 14;
    let half = |shift| {
        let code = [
            insn(0x85, 0, 0, 0, GET_CURRENT_PID_TGID), // r0 = process in the upper half, thread in the lower
            insn(0x77, 0, 0, 0, shift),                // r0 >>= shift
            insn(0x95, 0, 0, 0, 0),                    // exit: the lower half is the result
        ];
        let program = bpf::prog_load(bpf::Code::raw_tp(&code), 0).program?;
        bpf::test_run(program.as_fd(), &[])
    };
    Ok((half(32)?, half(0)?))
}
