//! Giving up rights, for one thread only.
#![allow(unsafe_code, reason = "capset(2) has no wrapper in nix")]

use kit::SysError;

/// Runs `f` in a thread that has CAP_BPF and no other capability: it may load programs, but is not trusted with what
/// the kernel's memory holds (that is CAP_PERFMON). Capabilities are each thread's own, so nobody else loses any.
///
/// # Errors
///
/// EPERM: the caller has no CAP_BPF to keep.
pub fn with_cap_bpf_only<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T, SysError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| keep_cap_bpf_only().map(|()| f()));
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn keep_cap_bpf_only() -> Result<(), SysError> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    const CAP_BPF: u32 = 39;
    // struct __user_cap_header_struct: version, thread (0: this one); two struct __user_cap_data_struct: effective,
    // permitted, inheritable, of capabilities 0 to 31, then of 32 to 63.
    let header = [LINUX_CAPABILITY_VERSION_3, 0];
    let bit = 1 << (CAP_BPF - 32);
    let data = [0, 0, 0, bit, bit, 0];
    // SAFETY: capset(2) reads both structures, which live across the call, and changes this thread's rights only.
    match unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(SysError::last("capset(CAP_BPF)")),
    }
}
