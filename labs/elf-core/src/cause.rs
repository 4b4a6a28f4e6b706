//! Why it died: `NT_SIGINFO` decoded, and said in one sentence.

use crate::source::Ints;

/// The part of `siginfo_t` that tells the cause (sigaction(2), include/uapi/asm-generic/siginfo.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[doc(alias = "siginfo_t")]
pub struct Siginfo {
    /// `si_signo`.
    pub signal: i32,
    /// `si_code`: why it was sent; positive from the kernel.
    pub code: i32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_addr`: the address touched, or of the instruction (SIGILL, SIGFPE).
    pub address: Option<u64>,
    /// `si_pid`, `si_uid`: who sent it, where a process did.
    pub sender: Option<(i32, u32)>,
}

impl Siginfo {
    /// Decodes the desc of `NT_SIGINFO`; `None` if it is too short.
    pub fn parse(desc: Ints<'_>, is_64: bool) -> Option<Self> {
        let (signal, errno, code) = (desc.i32(0)?, desc.i32(4)?, desc.i32(8)?);
        // The union follows three ints, aligned to its pointers.
        let union = if is_64 { 16 } else { 12 };
        // SI_USER, SI_QUEUE, SI_TKILL and the other codes below 1 are sent by processes; SI_KERNEL (0x80) has no address.
        let (mut address, mut sender) = (None, None);
        if code <= 0 {
            sender = Some((desc.i32(union)?, desc.u32(union + 4)?));
        } else if matches!(signal, 4 | 5 | 7 | 8 | 11) && code != 0x80 {
            address = if is_64 { desc.u64(union) } else { desc.u32(union).map(u64::from) };
        }
        Some(Self { signal, code, errno, address, sender })
    }

    /// The code's name and meaning.
    pub fn code_name(&self) -> (&'static str, &'static str) {
        match (self.signal, self.code) {
            (11, 1) => ("SEGV_MAPERR", "nothing is mapped there"),
            (11, 2) => ("SEGV_ACCERR", "the mapping does not allow it"),
            (11, 3) => ("SEGV_BNDERR", "a bounds check failed"),
            (11, 4) => ("SEGV_PKUERR", "a protection key forbids it"),
            (11, 10) => ("SEGV_CPERR", "the shadow stack disagrees"),
            (7, 1) => ("BUS_ADRALN", "unaligned"),
            (7, 2) => ("BUS_ADRERR", "the mapped file ends before it"),
            (7, 3) => ("BUS_OBJERR", "the hardware could not read it"),
            (7, 4 | 5) => ("BUS_MCEERR", "the memory is broken"),
            (8, 1) => ("FPE_INTDIV", "integer division by zero, or an overflowing quotient"),
            (8, 2) => ("FPE_INTOVF", "integer overflow"),
            (8, 3) => ("FPE_FLTDIV", "floating-point division by zero"),
            (8, 4..=8) => ("FPE_FLT", "a floating-point exception that was not masked"),
            (4, 1) => ("ILL_ILLOPC", "no such instruction"),
            (4, 2) => ("ILL_ILLOPN", "no such operand"),
            (4, _) if self.code > 0 => ("ILL", "the CPU refused the instruction"),
            (5, 1) => ("TRAP_BRKPT", "a breakpoint"),
            (5, 2) => ("TRAP_TRACE", "a single step"),
            (31, 1) => ("SYS_SECCOMP", "seccomp forbids the system call"),
            (_, 0x80) => ("SI_KERNEL", "the kernel, without an address: often a non-canonical one"),
            (_, 0) => ("SI_USER", "kill(2)"),
            (_, -1) => ("SI_QUEUE", "sigqueue(3)"),
            (_, -6) => ("SI_TKILL", "tgkill(2), as abort(3) and raise(3) do"),
            _ => ("?", "a code not known here"),
        }
    }
}

/// A signal's name.
pub fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |s| s.as_str().to_owned())
}

/// What is known about the fault beyond the signal.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The dead process's id: a signal of its own making reads differently.
    pub pid: Option<i32>,
    /// Where the instruction pointer stood, in words: `crash::read_null (victim.rs:12)`.
    pub place: Option<String>,
    /// How far the fault address is below the stack pointer's mapping, if it is the guard of a stack.
    pub stack_guard: bool,
    /// Whether the instruction pointer itself is the fault address: a jump into nothing.
    pub jumped: bool,
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

/// The cause in one sentence.
pub fn sentence(info: &Siginfo, context: &Context) -> String {
    let name = signal_name(info.signal);
    let place = context.place.as_ref().map(|p| format!(" in {p}")).unwrap_or_default();
    let (code, meaning) = info.code_name();
    match (info.signal, info.address, info.sender) {
        (_, _, Some((pid, _))) if Some(pid) == context.pid => match info.signal {
            6 => format!("It gave up itself: abort() raised {name}{place}."),
            _ => format!("It sent {name} to itself{place}."),
        },
        (_, _, Some((pid, uid))) => {
            format!("Process {pid} of user {uid} sent it {name} ({meaning}) while it was{place}.")
        }
        (11 | 7, Some(address), _) if context.jumped => {
            format!("{name}: it jumped to {address:#x}, and {meaning} ({code}).")
        }
        (11, Some(address), _) if context.stack_guard => {
            format!("{name}: the stack overflowed: {address:#x} is just below it ({code}){place}.")
        }
        (11 | 7, Some(address), _) if address < 4096 => {
            format!("{name}: it used a null pointer (address {address:#x}; {code}: {meaning}){place}.")
        }
        (11 | 7, Some(address), _) => {
            format!("{name}: it touched {address:#x}, and {meaning} ({code}){place}.")
        }
        (8 | 4 | 5, Some(address), _) => format!("{name}: {meaning} ({code}) at {address:#x}{place}."),
        _ => format!("{name}: {meaning} ({code}){place}."),
    }
}
