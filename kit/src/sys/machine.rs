//! What the kernel, the processor and the C library say of themselves.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// Kernel release and architecture: uname(2).
pub fn uname() -> (String, String) {
    let Ok(name) = nix::sys::utsname::uname() else { return Default::default() };
    (name.release().to_string_lossy().into_owned(), name.machine().to_string_lossy().into_owned())
}

/// Processors that this thread may run on: sched_getaffinity(2).
///
/// On machines with more processors than `cpu_set_t` holds (1024) the call fails with EINVAL; then the number
/// of processors that are online.
pub fn cpus() -> usize {
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).count(),
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The hypervisor's signature; empty on bare metal and where the processor cannot be asked.
#[cfg(target_arch = "x86_64")]
pub fn hypervisor() -> String {
    use std::arch::x86_64::__cpuid;
    // Bit 31 of ECX of leaf 1 is never set by a real processor; hypervisors set it by convention.
    if __cpuid(1).ecx & (1 << 31) == 0 {
        return String::new();
    }
    let leaf = __cpuid(0x4000_0000);
    let bytes: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx].iter().flat_map(|r| r.to_le_bytes()).collect();
    let text: String = bytes.iter().filter(|b| b.is_ascii_graphic()).map(|&b| b as char).collect();
    // Signatures by the hypervisors' own documentation; the last characters of some are padding.
    let known =
        [("KVM", "KVM"), ("Microsoft", "Hyper-V"), ("VMware", "VMware"), ("Xen", "Xen"), ("TCG", "QEMU TCG")];
    match known.iter().find(|(signature, _)| text.starts_with(signature)) {
        Some((_, name)) => (*name).to_owned(),
        None if text.is_empty() => "unnamed".into(),
        None => text,
    }
}

/// The hypervisor's signature is asked for on x86-64 only.
#[cfg(not(target_arch = "x86_64"))]
pub fn hypervisor() -> String {
    String::new()
}

/// Width of the terminal behind a descriptor, in columns; `None` where there is no terminal.
#[cfg(feature = "session")]
pub fn columns(fd: i32) -> Option<usize> {
    // SAFETY: all zeros is a valid winsize.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize to the pointer, which is valid for that (ioctl_tty(2)).
    let result = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// C library and version: gnu_get_libc_version(3).
#[cfg(target_env = "gnu")]
pub fn libc_version() -> String {
    // SAFETY: takes nothing; returns a pointer to a static string (gnu_get_libc_version(3)).
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: not null, NUL-terminated, and lives as long as the program, as said above.
    let version = unsafe { std::ffi::CStr::from_ptr(version) };
    format!("glibc {}", version.to_string_lossy())
}

/// Other C libraries do not tell their version.
#[cfg(not(target_env = "gnu"))]
pub fn libc_version() -> String {
    if cfg!(target_env = "musl") { "musl".into() } else { "unknown".into() }
}
