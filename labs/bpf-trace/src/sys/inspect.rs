//! What the kernel tells about a loaded program's code and maps: BPF_OBJ_GET_INFO_BY_FD.
#![allow(unsafe_code, reason = "bpf(2) has no wrapper in nix")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use kit::SysError;

use super::bpf::{Attr, INFO_LEN, bpf, prog_info, raw_info};

/// A program as it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// The bytecode after verification.
    pub bytecode: Vec<u64>,
    /// The machine code made of it; empty if the JIT is off or the kernel hides it.
    pub machine: Vec<u8>,
    /// Where the machine code is; 0 if the kernel hides it.
    pub address: u64,
    /// Where the machine code of a source line begins, and where its text is in the BTF's strings.
    pub lines: Vec<(u64, u32)>,
    /// The maps that it uses.
    pub map_ids: Vec<u32>,
}

/// `struct bpf_line_info`: instruction, where in the BTF's strings the file's name and the line are, line and column.
const LINE_INFO: usize = 16;

/// Reads a program as it runs.
pub fn running(program: BorrowedFd<'_>) -> Result<Running, SysError> {
    let first = raw_info(program, [0; INFO_LEN])?;
    let word = |info: &[u8; INFO_LEN], at: usize| {
        u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes")) as usize
    };
    let lengths = prog_info(program)?;
    let mut machine = vec![0_u8; lengths.jited_len as usize];
    let mut bytecode = vec![0_u64; lengths.xlated_len as usize / 8];
    let mut map_ids = vec![0_u32; word(&first, 52)];
    let mut address = [0_u64; 1];
    let mut lines = vec![0_u8; word(&first, 148) * LINE_INFO];
    let mut jited = vec![0_u64; word(&first, 168)];
    // Offsets of struct bpf_prog_info in include/uapi/linux/bpf.h: a count, and where a buffer for as many is. The
    // kernel fills what it shows, and puts a null in the place of a buffer for what it does not.
    let buffers = [
        (16, 24, machine.len(), machine.as_mut_ptr() as u64),
        (20, 32, bytecode.len() * 8, bytecode.as_mut_ptr() as u64),
        (52, 56, map_ids.len(), map_ids.as_mut_ptr() as u64),
        (104, 112, 1, address.as_mut_ptr() as u64),
        (148, 152, lines.len() / LINE_INFO, lines.as_mut_ptr() as u64),
        (168, 160, jited.len(), jited.as_mut_ptr() as u64),
    ];
    let mut info = [0; INFO_LEN];
    for (count, pointer, len, buffer) in buffers {
        info[count..count + 4].copy_from_slice(&(len as u32).to_ne_bytes());
        info[pointer..pointer + 8].copy_from_slice(&buffer.to_ne_bytes());
    }
    // Sizes of records: line_info_rec_size, jited_line_info_rec_size.
    info[172..176].copy_from_slice(&(LINE_INFO as u32).to_ne_bytes());
    info[176..180].copy_from_slice(&8_u32.to_ne_bytes());
    let told = raw_info(program, info)?;
    let hidden = |pointer: usize| told[pointer..pointer + 8] == [0; 8];
    if hidden(24) {
        machine.clear();
    }
    if hidden(32) {
        bytecode.clear();
    }
    if hidden(160) {
        jited.clear();
    }
    let line = |l: &[u8]| u32::from_ne_bytes(l[8..12].try_into().expect("four bytes"));
    let lines = jited.iter().copied().zip(lines.chunks_exact(LINE_INFO).map(line)).collect();
    Ok(Running { bytecode, machine, address: address[0], lines, map_ids })
}

/// A map, as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map {
    /// Its name: the first 15 bytes.
    pub name: String,
    /// enum bpf_map_type.
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Most entries.
    pub entries: u32,
    /// Bytes that it takes of the kernel's memory; `None`: it does not say.
    pub memory: Option<u64>,
}

/// Describes a map; and its id.
pub fn map(map: BorrowedFd<'_>) -> Result<(u32, Map), SysError> {
    const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
    // struct bpf_map_info, as far as the name.
    let mut info = [0_u8; 40];
    let mut attr =
        Attr::new().u32(0, map.as_raw_fd() as u32).u32(4, info.len() as u32).u64(8, info.as_mut_ptr() as u64);
    // SAFETY: info is writable and as long as info_len says.
    unsafe { bpf("bpf(BPF_OBJ_GET_INFO_BY_FD)", BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
    let described = Map {
        name: crate::ring::text(&info[24..40]),
        kind: word(0),
        key: word(8),
        value: word(12),
        entries: word(16),
        memory: memory(map),
    };
    Ok((word(4), described))
}

/// `memlock:` of a map's fdinfo; see proc_pid_fdinfo(5).
fn memory(map: BorrowedFd<'_>) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).ok()?;
    text.lines().find_map(|l| l.strip_prefix("memlock:")?.trim().parse().ok())
}
