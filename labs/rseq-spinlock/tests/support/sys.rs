//! A lesser machine: a seccomp filter that answers a system call as an old or a strict kernel would.
#![allow(unsafe_code, reason = "a filter is installed between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Runs the command where system call `number` fails with `errno`.
pub fn without(command: &mut Command, number: libc::c_long, errno: libc::c_int) -> &mut Command {
    // SAFETY: the closure makes two system calls and allocates nothing, which is fit for the time between
    // fork and exec.
    unsafe { command.pre_exec(move || install(number as u32, errno as u32)) }
}

fn install(number: u32, errno: u32) -> io::Result<()> {
    let filter = |code, k, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The call's number is the first word of struct seccomp_data.
        filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1),
        filter(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno, 0, 0),
        filter(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: integers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `program` and the filter that it points to are alive during the call, which copies them.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
