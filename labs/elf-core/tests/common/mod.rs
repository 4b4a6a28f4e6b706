//! What several tests need: a small made-up core, and victims.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::process::Command;

use elf_core::catch::Victim;
use elf_core::s2_notes::{AUXV, FILE, FPREGSET, PRPSINFO, PRSTATUS, SIGINFO};
use elf_core::victim::Crash;
use elf_core::writer::{Layout, Load, files, note, prpsinfo, prstatus};

/// Our own vDSO: a small, real ELF file with .eh_frame.
pub fn vdso() -> Vec<u8> {
    let auxv = std::fs::read("/proc/self/auxv").unwrap();
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
    let base = auxv.chunks(16).find(|e| word(&e[..8]) == 33).map(|e| word(&e[8..])).unwrap();
    let mut bytes = vec![0; 8192];
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, base).unwrap();
    bytes
}

pub const CODE: u64 = 0x40_0000;
pub const STACK: u64 = 0x7fff_0000_0000;
pub const VDSO: u64 = 0x7fff_8000_0000;
pub const TIDS: [i32; 3] = [1001, 1002, 1003];

/// Notes of three threads, the first of which died of SIGSEGV at 0x10.
pub fn notes() -> Vec<u8> {
    let mut notes = Vec::new();
    for (i, tid) in TIDS.iter().enumerate() {
        let mut registers = [0_u64; 27];
        registers[4] = STACK + 0x100; // rbp
        registers[16] = [CODE + 0x20, VDSO + 0xa00, 0][i]; // rip: code, the vDSO, nowhere
        registers[19] = STACK + 0x80; // rsp
        let registers: Vec<u8> = registers.iter().flat_map(|r| r.to_le_bytes()).collect();
        note(
            &mut notes,
            "CORE",
            PRSTATUS,
            &prstatus(if i == 0 { 11 } else { 0 }, [*tid, 1, 1001, 1], &registers),
        );
        if i == 0 {
            note(
                &mut notes,
                "CORE",
                PRPSINFO,
                &prpsinfo(b'R', [1000, 1000], [1001, 1, 1001, 1], b"made-up", b"made-up --arg"),
            );
            let mut siginfo = [0; 128];
            siginfo[0] = 11;
            siginfo[8] = 1;
            siginfo[16] = 0x10;
            note(&mut notes, "CORE", SIGINFO, &siginfo);
            let auxv =
                [(6, 4096), (3, CODE + 64), (33, VDSO), (31, STACK + 0xf00), (25, STACK + 0xe00), (0, 0_u64)];
            let auxv: Vec<u8> =
                auxv.iter().flat_map(|(k, v): &(u64, u64)| [*k, *v]).flat_map(u64::to_le_bytes).collect();
            note(&mut notes, "CORE", AUXV, &auxv);
            note(&mut notes, "CORE", FILE, &files(&[(CODE, CODE + 4096, 0, b"/made/up".to_vec())]));
        }
        note(&mut notes, "CORE", FPREGSET, &[0; 512]);
    }
    notes
}

/// A core of three threads: a page of code, one of stack, and the vDSO.
pub fn sample() -> Vec<u8> {
    sample_with(notes())
}

pub fn sample_with(notes: Vec<u8>) -> Vec<u8> {
    let vdso = vdso();
    let load = |vaddr, len, flags| Load { vaddr, memsz: len, filesz: len, flags };
    let loads = vec![load(CODE, 4096, 5), load(STACK, 4096, 6), load(VDSO, vdso.len() as u64, 5)];
    let (mut out, segments) = Layout { machine: 62, notes, loads }.head();
    let mut code = vec![0x90_u8; 4096];
    code[0x50] = 0xe8; // a call, so that 0x55 is a return address
    let mut stack = vec![0_u8; 4096];
    let mut put = |at: usize, word: u64| stack[at..at + 8].copy_from_slice(&word.to_le_bytes());
    put(0x100, STACK + 0x200); // saved rbp
    put(0x108, CODE + 0x55); // return address
    put(0x200, 0);
    put(0x208, CODE + 0x55);
    put(0x300, CODE + 0x55); // for the scan
    // argc, argv, envp, auxv, as execve leaves them
    for (i, word) in
        [2, STACK + 0xe10, STACK + 0xe20, 0, STACK + 0xe30, 0, 6, 4096, 3, CODE + 64].into_iter().enumerate()
    {
        put(0x800 + 8 * i, word);
    }
    stack[0xe10..0xe18].copy_from_slice(b"made-up\0");
    stack[0xe20..0xe26].copy_from_slice(b"--arg\0");
    stack[0xe30..0xe38].copy_from_slice(b"HOME=/x\0");
    stack[0x600..0x60e].copy_from_slice(b"BENCHTOP-HERE\0");
    for (segment, bytes) in segments.iter().zip([code, stack, vdso]) {
        out.resize(segment.offset as usize, 0);
        out.extend(bytes);
    }
    out
}

/// Starts a victim in a directory of its own.
pub fn victim(crash: Crash, threads: usize) -> (Victim, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_elf-core"));
    command.args(["--victim", crash.name(), "--threads-of-victim", &threads.to_string()]);
    let victim = Victim::start(command, crash, dir.path()).unwrap();
    (victim, dir)
}

/// All that another program says; `None` where it is not installed.
pub fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program).args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}
