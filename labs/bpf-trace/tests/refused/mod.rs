//! Three programs for a raw tracepoint that the verifier refuses. Each gets the address of two numbers of 64 bits; what
//! it is to do with the second one, `n`, is said here. The map is an array of 16 values of 64 bytes.

use bpf_trace::s1_by_hand::insn;

/// Byte `n` of the map's first value, 0 where there is no byte `n`.
pub fn index(map: i32) -> Vec<u64> {
    vec![
        insn(0x79, 6, 1, 8, 0),   //  0  r6 = n
        insn(0x62, 10, 0, -4, 0), //  1  *(u32 *)(r10 - 4) = 0: the key
        insn(0xbf, 2, 10, 0, 0),  //  2  r2 = r10
        insn(0x07, 2, 0, 0, -4),  //  3  r2 += -4
        insn(0x18, 1, 1, 0, map), //  4  r1 = map
        insn(0, 0, 0, 0, 0),
        insn(0x85, 0, 0, 0, 1), //  6  call bpf_map_lookup_elem
        insn(0x15, 0, 0, 3, 0), //  7  if r0 == 0 goto out
        insn(0x0f, 0, 6, 0, 0), //  8  r0 += r6
        insn(0x71, 0, 0, 0, 0), //  9  r0 = *(u8 *)(r0 + 0)
        insn(0x95, 0, 0, 0, 0), // 10  exit
        insn(0xb7, 0, 0, 0, 0), // 11  out: r0 = 0
        insn(0x95, 0, 0, 0, 0), // 12  exit
    ]
}

/// 1 + 2 + … + `n`; where `n` is more than 100, 1 + 2 + … + 100.
pub fn sum(_map: i32) -> Vec<u64> {
    vec![
        insn(0x79, 6, 1, 8, 0),  // 0  r6 = n
        insn(0xb7, 0, 0, 0, 0),  // 1  r0 = 0
        insn(0x15, 6, 0, 3, 0),  // 2  again: if r6 == 0 goto out
        insn(0x0f, 0, 6, 0, 0),  // 3  r0 += r6
        insn(0x07, 6, 0, 0, -1), // 4  r6 += -1
        insn(0x05, 0, 0, -4, 0), // 5  goto again
        insn(0x95, 0, 0, 0, 0),  // 6  out: exit
    ]
}

/// `n` plus the number of the calling process.
pub fn add(_map: i32) -> Vec<u64> {
    vec![
        insn(0x85, 0, 0, 0, 14), // 0  call bpf_get_current_pid_tgid
        insn(0x77, 0, 0, 0, 32), // 1  r0 >>= 32
        insn(0x79, 2, 1, 8, 0),  // 2  r2 = n
        insn(0x0f, 0, 2, 0, 0),  // 3  r0 += r2
        insn(0x95, 0, 0, 0, 0),  // 4  exit
    ]
}
