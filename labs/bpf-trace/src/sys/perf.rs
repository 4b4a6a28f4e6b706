//! Programs on events of perf's: tracepoints without tracefs being mounted anywhere, probes, a timer.
#![allow(unsafe_code, reason = "perf_event_open(2), fsopen(2) and fsmount(2) have no wrapper in nix")]

use std::ffi::CStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use kit::SysError;

fn own(call: &'static str, fd: libc::c_long) -> Result<OwnedFd, SysError> {
    if fd < 0 {
        return Err(SysError::last(call));
    }
    // SAFETY: the kernel has just returned this descriptor; nobody else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A tracefs of our own: a mount that is in no directory and ends with its descriptor. fsopen(2), Linux 5.2.
///
/// # Errors
///
/// EPERM without CAP_SYS_ADMIN; ENODEV if the kernel was built without tracefs.
pub fn private_tracefs() -> Result<OwnedFd, SysError> {
    const FSCONFIG_CMD_CREATE: u32 = 6;
    let cloexec = 1_u32;
    // SAFETY: the name is a C string; the flags are a number.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), cloexec) };
    let context = own("fsopen(\"tracefs\")", context)?;
    let none = std::ptr::null::<u8>();
    // SAFETY: this command takes neither key nor value: null, as fsconfig(2) wants it.
    let made =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) };
    if made < 0 {
        return Err(SysError::last("fsconfig(FSCONFIG_CMD_CREATE)"));
    }
    // SAFETY: takes numbers only.
    let mount = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), cloexec, 0) };
    own("fsmount(\"tracefs\")", mount)
}

/// The number of the tracepoint `group/name` (`raw_syscalls/sys_exit`), read from a tracefs.
pub fn tracepoint_id(tracefs: BorrowedFd<'_>, name: &str) -> Result<u64, SysError> {
    let path = format!("events/{name}/id");
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
    let file = nix::fcntl::openat(tracefs, path.as_str(), flags, nix::sys::stat::Mode::empty())
        .map_err(SysError::nix(format!("open(tracefs/{path})")))?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).map_err(SysError::io(format!("read(tracefs/{path})")))?;
    text.trim().parse().map_err(|_| SysError::new(format!("tracefs/{path}"), 0).with_detail(text))
}

/// Has `program` run at each passage of the tracepoint with this number, on every CPU, until the result is closed.
pub fn attach_tracepoint(program: BorrowedFd<'_>, id: u64) -> Result<OwnedFd, SysError> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    // Every process, on one CPU: a BPF program hangs on the tracepoint itself, not on the event's CPU.
    let event = Event { kind: PERF_TYPE_TRACEPOINT, config: id, pid: -1, cpu: 0, ..Event::default() };
    event.attach("perf_event_open(PERF_TYPE_TRACEPOINT)", program)
}

/// Has `program` run where a function begins: of the kernel by its name (`pmu` is `kprobe`), or of this process by its
/// file and the place in it (`uprobe`).
///
/// # Errors
///
/// ENOENT: the kernel has no such probes. EPERM: lockdown.
pub fn attach_probe(
    program: BorrowedFd<'_>,
    pmu: &'static str,
    name: &CStr,
    place: u64,
) -> Result<OwnedFd, SysError> {
    let path = format!("/sys/bus/event_source/devices/{pmu}/type");
    let text = std::fs::read_to_string(&path).map_err(SysError::io(format!("open(\"{path}\")")))?;
    let kind = text.trim().parse().map_err(|_| SysError::new(path, 0).with_detail(text.clone()))?;
    let event = Event { kind, name: Some(name), place, pid: 0, cpu: -1, ..Event::default() };
    event.attach("perf_event_open(probe)", program)
}

/// Has `program` run `hertz` times for each second of CPU time that this thread takes.
pub fn attach_cpu_clock(program: BorrowedFd<'_>, hertz: u64) -> Result<OwnedFd, SysError> {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    let event = Event { kind: PERF_TYPE_SOFTWARE, hertz, pid: 0, cpu: -1, ..Event::default() };
    event.attach("perf_event_open(PERF_COUNT_SW_CPU_CLOCK)", program)
}

/// What of `struct perf_event_attr` is used here, and whom to watch.
#[derive(Debug, Default)]
struct Event<'a> {
    kind: u32,
    config: u64,
    /// Samples a second; 0: none.
    hertz: u64,
    /// config1: a probe's function or file.
    name: Option<&'a CStr>,
    /// config2: a probe's place.
    place: u64,
    pid: i32,
    cpu: i32,
}

impl Event<'_> {
    /// Opens the event, hangs the program on it, and switches it on.
    fn attach(&self, call: &'static str, program: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
        const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
        const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
        const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
        const DISABLED: u64 = 1;
        const FREQ: u64 = 1 << 10;
        let flags = DISABLED | if self.hertz > 0 { FREQ } else { 0 };
        let name = self.name.map_or(0, |n| n.as_ptr() as u64);
        // The second version of struct perf_event_attr, 72 bytes: type and size, config, sample_freq, two words that
        // are not used, flags, two more, config1, config2.
        let attr =
            [u64::from(self.kind) | 72 << 32, self.config, self.hertz, 0, 0, flags, 0, name, self.place];
        // SAFETY: the attr is the 72 bytes that it states, and is only read; a name is a C string that lives across
        // the call.
        let event = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                attr.as_ptr(),
                self.pid,
                self.cpu,
                -1,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        let event = own(call, event)?;
        for (name, request, argument) in [
            ("ioctl(PERF_EVENT_IOC_SET_BPF)", PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()),
            ("ioctl(PERF_EVENT_IOC_ENABLE)", PERF_EVENT_IOC_ENABLE, 0),
        ] {
            // SAFETY: both requests take a number by value.
            if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } < 0 {
                return Err(SysError::last(name));
            }
        }
        Ok(event)
    }
}
