//! bpf(2) without a library: what stage 1, the gallery and `--inside` need of it.
#![allow(
    unsafe_code,
    reason = "bpf(2) has no wrapper in nix; its attr is a union that each command reads its own way"
)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use kit::SysError;

// enum bpf_cmd in include/uapi/linux/bpf.h
const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_TEST_RUN: i32 = 10;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_RAW_TRACEPOINT_OPEN: i32 = 17;

/// BPF_PROG_TYPE_RAW_TRACEPOINT
pub const RAW_TRACEPOINT: u32 = 17;

/// `union bpf_attr` as its bytes: 144 of them hold every command used here; what a command does not know must be 0.
#[repr(C, align(8))]
pub(super) struct Attr([u8; 144]);

impl Attr {
    pub(super) fn new() -> Self {
        Self([0; 144])
    }

    /// Puts a `__u32` member at `offset`.
    pub(super) fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    /// Puts a `__aligned_u64` member, often a pointer, at `offset`.
    pub(super) fn u64(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn get_u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.0[offset..offset + 4].try_into().expect("four bytes"))
    }
}

/// `int bpf(int cmd, union bpf_attr *attr, unsigned int size)`; [bpf(2)], Linux 3.18.
///
/// # Safety
///
/// - Every pointer in `attr` points to memory that is as large as the lengths in `attr` say and lives across the call.
/// - Memory that the command writes to is borrowed mutably by the caller.
///
/// [bpf(2)]: https://man7.org/linux/man-pages/man2/bpf.2.html
pub(super) unsafe fn bpf(name: &'static str, cmd: i32, attr: &mut Attr) -> Result<i32, SysError> {
    // SAFETY: the attr is 144 writable bytes, as stated; what it points to is the caller's promise.
    let done = unsafe { libc::syscall(libc::SYS_bpf, cmd, attr.0.as_mut_ptr(), attr.0.len()) };
    if done < 0 { Err(SysError::last(name)) } else { Ok(done as i32) }
}

/// Takes a descriptor that the kernel just returned.
pub(super) fn own(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor (close-on-exec) and nobody else has its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// BPF_MAP_CREATE: a map of `entries` values of `value` bytes under keys of `key` bytes.
///
/// # Errors
///
/// EPERM without CAP_BPF; EINVAL for sizes that the map's kind does not take; ENOMEM.
pub fn map_create(kind: u32, key: u32, value: u32, entries: u32) -> Result<OwnedFd, SysError> {
    let mut attr = Attr::new().u32(0, kind).u32(4, key).u32(8, value).u32(12, entries);
    // SAFETY: this command's attr holds no pointer.
    let fd = unsafe { bpf("bpf(BPF_MAP_CREATE)", BPF_MAP_CREATE, &mut attr) };
    fd.map(own)
}

/// BPF_MAP_LOOKUP_ELEM in a map whose key is a `u32`: fills `value`, which is as long as the map's values are
/// (for a map with a copy for each CPU, that many of them, each rounded up to 8 bytes).
///
/// # Errors
///
/// ENOENT if there is no such key.
pub fn map_lookup(map: BorrowedFd<'_>, key: u32, value: &mut [u8]) -> Result<(), SysError> {
    let mut attr = Attr::new()
        .u32(0, map.as_raw_fd() as u32)
        .u64(8, &raw const key as u64)
        .u64(16, value.as_mut_ptr() as u64);
    // SAFETY: key is the four bytes of this map's keys; value is borrowed mutably and, by this function's contract,
    // as long as the map's values.
    unsafe { bpf("bpf(BPF_MAP_LOOKUP_ELEM)", BPF_MAP_LOOKUP_ELEM, &mut attr) }.map(drop)
}

/// A program to be loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Code<'a> {
    /// enum bpf_prog_type.
    pub kind: u32,
    /// The instructions; they name their maps by descriptor.
    pub instructions: &'a [u64],
    /// enum bpf_attach_type, and the BTF id of what it is for, where the kind wants them.
    pub attach: (u32, u32),
    /// Which instruction is of which source line: the verifier then quotes the source in its log.
    pub lines: Option<Lines<'a>>,
}

impl<'a> Code<'a> {
    /// A program for a raw tracepoint, without anything else about it.
    pub fn raw_tp(instructions: &'a [u64]) -> Self {
        Self { kind: RAW_TRACEPOINT, instructions, ..Self::default() }
    }
}

/// Types of functions and places of lines, as clang put them into the object (`.BTF.ext`).
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a> {
    /// The object's BTF, loaded.
    pub btf: BorrowedFd<'a>,
    /// `struct bpf_func_info`: 8 bytes each.
    pub functions: &'a [u8],
    /// `struct bpf_line_info`: 16 bytes each.
    pub lines: &'a [u8],
}

/// What BPF_PROG_LOAD said: the program, or why not; and the verifier's log, which it writes in both cases.
#[derive(Debug)]
pub struct Loaded {
    /// The program; an error's detail is the log's last line.
    pub program: Result<OwnedFd, SysError>,
    /// The verifier's log.
    pub log: String,
}

/// BPF_LOG_FIXED, with a log level: of a log that is too long, the begin is kept and not the end. Linux 6.4.
pub const FIXED: u32 = 8;

/// BPF_PROG_LOAD. `log_level` as in the kernel: 0 says nothing, 1 what is needed to understand a refusal, 2 every
/// state, 4 the statistics alone; with [`FIXED`], a log of more than 16 MiB makes an error of ENOSPC. The licence is GPL.
pub fn prog_load(code: Code<'_>, log_level: u32) -> Loaded {
    // A log of no level must have no buffer: EINVAL otherwise. Too small a buffer is ENOSPC, whatever the verdict.
    let sizes: &[usize] = match log_level {
        0 => &[0],
        level if level & FIXED != 0 => &[1 << 24],
        _ => &[1 << 20, 1 << 24, 1 << 28],
    };
    let mut loaded = Loaded { program: Err(SysError::new("bpf(BPF_PROG_LOAD)", 0)), log: String::new() };
    for size in sizes {
        loaded = load_with_buffer(code, log_level, vec![0; *size]);
        if !loaded.program.as_ref().is_err_and(|e| e.errno == libc::ENOSPC) {
            break;
        }
    }
    loaded
}

fn load_with_buffer(code: Code<'_>, log_level: u32, mut log: Vec<u8>) -> Loaded {
    let buffer = if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 };
    let mut attr = Attr::new()
        .u32(0, code.kind)
        .u32(4, code.instructions.len() as u32)
        .u64(8, code.instructions.as_ptr() as u64)
        .u64(16, c"GPL".as_ptr() as u64)
        .u32(24, log_level)
        .u32(28, log.len() as u32)
        .u64(32, buffer)
        .u32(68, code.attach.0)
        .u32(108, code.attach.1);
    if let Some(lines) = &code.lines {
        attr = attr
            .u32(72, lines.btf.as_raw_fd() as u32)
            .u32(76, FUNC_INFO)
            .u64(80, lines.functions.as_ptr() as u64)
            .u32(88, lines.functions.len() as u32 / FUNC_INFO)
            .u32(92, LINE_INFO)
            .u64(96, lines.lines.as_ptr() as u64)
            .u32(104, lines.lines.len() as u32 / LINE_INFO);
    }
    // SAFETY: code, licence, log and line infos live across the call and have the lengths stated; the log is ours to
    // write to.
    let fd = unsafe { bpf("bpf(BPF_PROG_LOAD)", BPF_PROG_LOAD, &mut attr) };
    let said = log.split(|b| *b == 0).next().unwrap_or_default();
    let log = String::from_utf8_lossy(said).into_owned();
    let program = fd.map(own).map_err(|e| e.with_detail(refusal(&log)));
    Loaded { program, log }
}

/// Bytes of `struct bpf_func_info` and `struct bpf_line_info`.
const FUNC_INFO: u32 = 8;
const LINE_INFO: u32 = 16;

/// BPF_BTF_LOAD: an object's types. Linux 4.18.
pub fn btf_load(btf: &[u8]) -> Result<OwnedFd, SysError> {
    const BPF_BTF_LOAD: i32 = 18;
    let mut attr = Attr::new().u64(0, btf.as_ptr() as u64).u32(16, btf.len() as u32);
    // SAFETY: the types live across the call and have the length stated; there is no log buffer.
    let fd = unsafe { bpf("bpf(BPF_BTF_LOAD)", BPF_BTF_LOAD, &mut attr) };
    fd.map(own)
}

/// The line of a verifier's log that says what is wrong: the last but the statistics and the states of registers.
pub fn refusal(log: &str) -> String {
    let other = ["processed ", "verification time", "stack depth", "cur state:", "old state:"];
    let line = log.lines().rev().find(|l| !l.is_empty() && !other.iter().any(|s| l.starts_with(s)));
    line.unwrap_or_default().to_owned()
}

/// BPF_RAW_TRACEPOINT_OPEN: the program runs at each passage of the tracepoint `name`, until the result is closed.
/// No name for a program that names its tracepoint by BTF.
///
/// # Errors
///
/// ENOENT: no such tracepoint. Linux 4.17.
pub fn attach(program: BorrowedFd<'_>, name: Option<&CStr>) -> Result<OwnedFd, SysError> {
    let name = name.map_or(0, |n| n.as_ptr() as u64);
    let mut attr = Attr::new().u64(0, name).u32(8, program.as_raw_fd() as u32);
    // SAFETY: the name is a C string that lives across the call, or no pointer.
    let fd = unsafe { bpf("bpf(BPF_RAW_TRACEPOINT_OPEN)", BPF_RAW_TRACEPOINT_OPEN, &mut attr) };
    fd.map(own)
}

/// BPF_PROG_TEST_RUN of a raw tracepoint's program, with these arguments, on this CPU and by this thread: its return
/// value. Linux 5.10.
pub fn test_run(program: BorrowedFd<'_>, arguments: &[u64]) -> Result<u32, SysError> {
    // No arguments must be no pointer: EINVAL otherwise.
    let ctx = if arguments.is_empty() { 0 } else { arguments.as_ptr() as u64 };
    let mut attr =
        Attr::new().u32(0, program.as_raw_fd() as u32).u32(40, size_of_val(arguments) as u32).u64(48, ctx);
    // SAFETY: ctx_in is read only, lives across the call, and ctx_size_in is its size in bytes.
    unsafe { bpf("bpf(BPF_PROG_TEST_RUN)", BPF_PROG_TEST_RUN, &mut attr) }?;
    Ok(attr.get_u32(4))
}

/// What the kernel tells about a program: `struct bpf_prog_info`, the numbers of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgInfo {
    /// enum bpf_prog_type.
    pub kind: u32,
    /// Unique as long as it is loaded.
    pub id: u32,
    /// Bytes of machine code; 0: interpreted.
    pub jited_len: u32,
    /// Bytes of bytecode after verification.
    pub xlated_len: u32,
    /// Nanoseconds it ran, and how often: counted only while statistics are on ([`stats_on`]).
    pub run_time_ns: u64,
    /// How often it ran.
    pub run_count: u64,
    /// Runs that did not happen since one was under way on that CPU.
    pub recursion_misses: u64,
    /// Instructions that the verifier walked through.
    pub verified: u32,
}

/// BPF_OBJ_GET_INFO_BY_FD of a program.
pub fn prog_info(program: BorrowedFd<'_>) -> Result<ProgInfo, SysError> {
    let info = raw_info(program, [0; INFO_LEN])?;
    let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().expect("eight bytes"));
    // Offsets of struct bpf_prog_info in include/uapi/linux/bpf.h.
    Ok(ProgInfo {
        kind: word(0),
        id: word(4),
        jited_len: word(16),
        xlated_len: word(20),
        run_time_ns: long(192),
        run_count: long(200),
        recursion_misses: long(208),
        verified: word(216),
    })
}

pub(super) const INFO_LEN: usize = 232;

pub(super) fn raw_info(
    program: BorrowedFd<'_>,
    mut info: [u8; INFO_LEN],
) -> Result<[u8; INFO_LEN], SysError> {
    let mut attr = Attr::new()
        .u32(0, program.as_raw_fd() as u32)
        .u32(4, INFO_LEN as u32)
        .u64(8, info.as_mut_ptr() as u64);
    // SAFETY: info is writable and as long as info_len says. The only pointers that a caller of ours puts into it
    // (in `code`) point to buffers of the lengths beside them.
    unsafe { bpf("bpf(BPF_OBJ_GET_INFO_BY_FD)", BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// Whether a program of this id is loaded: BPF_PROG_GET_FD_BY_ID.
pub fn is_loaded(id: u32) -> Result<bool, SysError> {
    const BPF_PROG_GET_FD_BY_ID: i32 = 13;
    let mut attr = Attr::new().u32(0, id);
    // SAFETY: this command's attr holds no pointer.
    match unsafe { bpf("bpf(BPF_PROG_GET_FD_BY_ID)", BPF_PROG_GET_FD_BY_ID, &mut attr) } {
        Ok(fd) => {
            drop(own(fd));
            Ok(true)
        }
        Err(e) if e.errno == libc::ENOENT => Ok(false),
        Err(e) => Err(e),
    }
}

/// BPF_ENABLE_STATS: the kernel counts runs and run time of all programs until the result is closed. Costs two
/// readings of the clock for each run. Linux 5.8.
pub fn stats_on() -> Result<OwnedFd, SysError> {
    const BPF_ENABLE_STATS: i32 = 32;
    let mut attr = Attr::new(); // BPF_STATS_RUN_TIME is 0
    // SAFETY: this command's attr holds no pointer.
    let fd = unsafe { bpf("bpf(BPF_ENABLE_STATS)", BPF_ENABLE_STATS, &mut attr) };
    fd.map(own)
}

/// Returns when every run of a BPF program that was under way has ended: membarrier(2), whose global form waits until
/// no CPU is in a section that RCU protects, as these runs are. Linux 4.3; where it is missing, a moment of sleep.
pub fn wait_for_runs() {
    const MEMBARRIER_CMD_GLOBAL: i32 = 1;
    // SAFETY: takes numbers only.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
