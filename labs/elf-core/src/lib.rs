//! # What is in a core dump, and how does a debugger get from bytes to a backtrace?
//!
//! When a process dies of a signal whose default is to dump core, the kernel writes what it was into an ELF file: no
//! code, no sections, only **segments** (the memory that is not in some file anyway) and **notes** (what was not in
//! memory: registers, the signal, which files were mapped where).
//!
//! ```text
//!   0      ELF header            e_type 4; how many program headers, and where
//!   64     program headers       one PT_NOTE, one PT_LOAD for each mapping
//!          notes                 NT_PRSTATUS of the thread that died, NT_PRPSINFO, NT_SIGINFO, NT_AUXV, NT_FILE,
//!                                NT_FPREGSET, NT_X86_XSTATE; then for each other thread PRSTATUS, FPREGSET, XSTATE
//!   4096…  memory                anonymous pages and those written to; of mapped files only the first page
//! ```
//!
//! From there to a backtrace, one stage a module:
//!
//! ```text
//!   s1_header ─ segments ─► s2_notes ─► s3_process  registers, mappings, signal
//!        └──────────────────► s4_memory ◄── s5_module   the mapped file, if its build-id is the same
//!                                 │
//!                 registers ─► s6_unwind   CFI, else frame pointer, else scan
//!                                 └─► s7_symbols   names, lines, inlined functions
//! ```
//!
//! [`Core::open`] is the first three stages: it costs what the notes cost, whatever the size of the core.
//! [`gcore`] and [`writer`] go the other way, [`collect`] has the kernel bring every core of the machine.
//!
//! The reader trusts nothing in the file. A core is evidence of a program that went wrong, often cut short by a full
//! disk or a limit, sometimes made by an attacker: every count is bounded by what is there, files are read by `pread` (a file
//! that shrinks then gives fewer bytes; mapped, it would give SIGBUS), and text is escaped before it is shown.
//!
//! References: elf(5), core(5), ptrace(2); the kernel's fs/binfmt_elf.c and fs/coredump.c; System V ABI, AMD64
//! supplement, §3.6 and figure 3.36; DWARF 5, §6.4; Intel SDM volume 1, chapter 13 (XSAVE).

pub mod catch;
pub mod cause;
pub mod collect;
pub mod core_file;
pub mod diff;
pub mod disasm;
mod error;
pub mod gcore;
mod maps;
mod part;
pub mod s1_header;
pub mod s2_notes;
pub mod s3_process;
pub mod s4_memory;
pub mod s5_module;
pub mod s6_unwind;
pub mod s7_symbols;
pub mod source;
mod sys;
pub mod victim;
pub mod writer;
pub mod xstate;

pub use core_file::{Core, ask_everything};
pub use error::{Error, Problem};
