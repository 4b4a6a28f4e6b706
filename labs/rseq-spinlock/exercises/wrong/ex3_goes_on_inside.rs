//! Fails `an_interruption_at_any_instruction`: the abort handler jumps back into the section, which is not armed any
//! more: the second interruption is not noticed, and nobody learns of the first.

use std::arch::asm;

use super::section::{Link, List, SIGNATURE};

/// It is on the list.
pub const DONE: u32 = 0;
/// Interrupted before the commit: nothing has happened. Try again.
pub const ABORTED: u32 = 1;
/// There is no list for this CPU. Nothing has happened.
pub const NO_LIST: u32 = 2;
/// The list has `limit` nodes. Nothing has happened.
pub const FULL: u32 = 3;

/// One attempt to put `node`, which is on no list, on the list of this CPU.
pub fn try_push(area: isize, lists: &[List], links: &[Link], node: u32, limit: u32) -> u32 {
    let link = links[node as usize].0.as_ptr();
    let out: u32;
    // SAFETY: fs:[area] is the calling thread's struct rseq, as the caller says. s points to one of `lists`, which the bounds
    // check sees to, and `link` into `links`; all that is written is atomic. An abort changes no register but `out`, and all
    // are declared. The stack is not used.
    unsafe {
        asm!(
            // The descriptor: version, flags, start, length, abort.
            ".pushsection __rseq_cs, \"aw\"",
            ".balign 32",
            "6:",
            ".long 0, 0",
            ".quad 2f, 3f - 2f, 5f",
            ".popsection",
            // The abort handler, behind the signature, which is the end of an instruction that is never executed.
            ".pushsection .text.rseq_abort, \"ax\"",
            ".byte 0x0f, 0xb9, 0x3d",
            ".long {signature}",
            "5:",
            "jmp 2f",
            "8:",
            "mov {out:e}, {no_list}",
            "jmp 4f",
            ".popsection",
            // Armed: from 2 on the kernel looks at the descriptor.
            "lea {t}, [rip + 6b]",
            "mov qword ptr fs:[{area} + 8], {t}",
            "2:",
            // Which list is ours: read inside, or it may be that of another CPU by now.
            "mov {s:e}, dword ptr fs:[{area} + 4]",
            "cmp {s:e}, {len:e}",
            "jae 8b",
            "imul {s}, {s}, {stride}",
            "add {s}, {lists}",
            "mov {t}, qword ptr [{s}]",
            "mov {out:e}, {full}",
            "mov {new}, {t}",
            "shr {new}, 32",
            "cmp {new:e}, {limit:e}",
            "jae 4f",
            // Our node is not yet to be seen, so this is no commit.
            "mov dword ptr [{link}], {t:e}",
            "inc {new}",
            "shl {new}, 32",
            "or {new}, {node1}",
            // The commit.
            "mov qword ptr [{s}], {new}",
            "3:",
            "xor {out:e}, {out:e}",
            "4:",
            out = out(reg) out,
            t = out(reg) _,
            s = out(reg) _,
            new = out(reg) _,
            area = in(reg) area,
            len = in(reg) lists.len(),
            lists = in(reg) lists.as_ptr(),
            link = in(reg) link,
            node1 = in(reg) u64::from(node) + 1,
            limit = in(reg) limit,
            stride = const size_of::<List>(),
            signature = const SIGNATURE,
            no_list = const NO_LIST,
            full = const FULL,
            options(nostack),
        );
    }
    out
}
