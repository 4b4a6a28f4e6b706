//! bpf(2) and perf_event_open(2), as far as the probes go.
#![allow(unsafe_code, reason = "neither call has a wrapper in nix")]

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use crate::SysError;

/// `union bpf_attr` for BPF_PROG_LOAD, as far as attach_btf_id.
#[repr(C)]
#[derive(Debug, Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    padding: u32,
}

/// `r0 = 0; exit`: the smallest program that the verifier takes.
const RETURN_0: [u64; 2] = [0xb7, 0x95];

/// BPF_PROG_LOAD of a program that only returns 0; the verifier's log is the error's detail.
pub fn load(prog_type: u32, attach_type: u32, btf_id: u32) -> Result<OwnedFd, SysError> {
    let mut log = [0u8; 4096];
    let mut attr = ProgLoad {
        prog_type,
        expected_attach_type: attach_type,
        attach_btf_id: btf_id,
        insn_cnt: RETURN_0.len() as u32,
        insns: RETURN_0.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log_buf: log.as_mut_ptr() as u64,
        ..ProgLoad::default()
    };
    // SAFETY: `attr` and what it points to (code, licence, log) live across the call and have the sizes it states.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 5, &raw mut attr, size_of::<ProgLoad>()) };
    super::check_fd("bpf(BPF_PROG_LOAD)", fd).map_err(|e| {
        let said = log.split(|b| *b == 0).next().unwrap_or_default();
        let detail = String::from_utf8_lossy(said).trim().to_owned();
        e.with_detail(detail)
    })
}

/// BPF_RAW_TRACEPOINT_OPEN: attaches until the descriptor is closed. No name for what attach_btf_id names.
pub fn attach(program: BorrowedFd<'_>, name: Option<&CStr>) -> Result<OwnedFd, SysError> {
    let mut attr = [name.map_or(0, |n| n.as_ptr() as u64), program.as_raw_fd() as u64];
    // SAFETY: name and prog_fd are the 16 bytes of this command's attr; the name lives across the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 17, attr.as_mut_ptr(), size_of_val(&attr)) };
    super::check_fd("bpf(BPF_RAW_TRACEPOINT_OPEN)", fd)
}

/// A disabled perf event on the calling thread: type, config, and for probes config1 (a name) and config2.
pub fn perf_event(
    kind: u32,
    config: u64,
    name: Option<&CStr>,
    offset: u64,
    flags: u64,
) -> Result<File, SysError> {
    // struct perf_event_attr, 72 bytes (version 1): type and size, config, …, flags at 40, config1, config2.
    let mut attr = [0u64; 9];
    attr[0] = u64::from(kind) | 72 << 32;
    attr[1] = config;
    attr[5] = flags;
    attr[7] = name.map_or(0, |n| n.as_ptr() as u64);
    attr[8] = offset;
    let cloexec: libc::c_ulong = 8;
    // SAFETY: `attr` has the size that it states; a name that it points to lives across the call.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_mut_ptr(), 0, -1, -1, cloexec) };
    Ok(File::from(super::check_fd("perf_event_open", fd)?))
}

/// PERF_EVENT_IOC_SET_BPF: `program` runs at each of the event.
pub fn set_bpf(event: &File, program: BorrowedFd<'_>) -> Result<(), SysError> {
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    // SAFETY: takes a descriptor number by value.
    let set = unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) };
    super::check("ioctl(PERF_EVENT_IOC_SET_BPF)", libc::c_long::from(set)).map(drop)
}
