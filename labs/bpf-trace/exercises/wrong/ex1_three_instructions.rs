//! Fails `two_cpus_lose_nothing`: load, add and store: another CPU may add in between.

use bpf_trace::s1_by_hand::insn;

/// Entries of the map: one for each errno, and 0, which is none.
pub const ENTRIES: u32 = 4096;

const LOOKUP: i32 = 1;
const PID_TGID: i32 = 14;

/// Counts the failing calls of process `tgid`, by errno.
pub fn program(map: i32, tgid: u32) -> Vec<u64> {
    vec![
        insn(0x79, 6, 1, 8, 0),           //  0  r6 = what the call returned; r6 to r9 survive calls
        insn(0x87, 6, 0, 0, 0),           //  1  r6 = -r6: an errno is 1 to 4095 now, all else is more or 0
        insn(0x15, 6, 0, 15, 0),          //  2  if r6 == 0 goto out
        insn(0x25, 6, 0, 14, 4095),       //  3  if r6 > 4095 goto out, compared as unsigned
        insn(0x85, 0, 0, 0, PID_TGID),    //  4  r0 = process in the upper half, thread in the lower
        insn(0x77, 0, 0, 0, 32),          //  5  r0 >>= 32
        insn(0xb4, 1, 0, 0, tgid as i32), //  6  w1 = tgid, the upper half 0
        insn(0x5d, 0, 1, 10, 0),          //  7  if r0 != r1 goto out
        insn(0x63, 10, 6, -4, 0),         //  8  *(u32 *)(r10 - 4) = r6: the key
        insn(0xbf, 2, 10, 0, 0),          //  9  r2 = r10
        insn(0x07, 2, 0, 0, -4),          // 10  r2 += -4
        insn(0x18, 1, 1, 0, map),         // 11  r1 = map
        insn(0, 0, 0, 0, 0),
        insn(0x85, 0, 0, 0, LOOKUP),      // 13  call bpf_map_lookup_elem
        insn(0x15, 0, 0, 3, 0),           // 14  if r0 == 0 goto out
        insn(0x79, 1, 0, 0, 0),           // 15  r1 = *(u64 *)(r0 + 0)
        insn(0x07, 1, 0, 0, 1),           // 16  r1 += 1
        insn(0x7b, 0, 1, 0, 0),           // 17  *(u64 *)(r0 + 0) = r1
        insn(0xb7, 0, 0, 0, 0),           // 18  out: r0 = 0
        insn(0x95, 0, 0, 0, 0),           // 19  exit
    ]
}
