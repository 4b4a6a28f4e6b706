//! The guest programs of the specs, assembled.
#![allow(unsafe_code, reason = "global_asm!, and the symbols that it defines")]
#![allow(dead_code, reason = "each spec runs one of them")]

use std::arch::global_asm;

/// Assembles `NAME.s`, as 64-bit code. It is copied to `layout::CODE`.
macro_rules! guest {
    ($function:ident, $start:ident, $end:ident, $file:literal, $doc:literal) => {
        // A section of its own, so that `.org` counts from the program's start.
        global_asm!(
            concat!(".pushsection .rodata.", stringify!($start), ",\"a\",@progbits\n"),
            concat!(".globl ", stringify!($start), ", ", stringify!($end)),
            concat!("\n", stringify!($start), ":\n.code64\n"),
            include_str!($file),
            concat!("\n", stringify!($end), ":\n.popsection"),
            options(raw)
        );
        #[doc = $doc]
        pub fn $function() -> &'static [u8] {
            unsafe extern "C" {
                static $start: u8;
                static $end: u8;
            }
            let start = &raw const $start;
            let len = (&raw const $end).addr() - start.addr();
            // SAFETY: both labels are in one section, `len` bytes apart, and the section is read-only data.
            unsafe { std::slice::from_raw_parts(start, len) }
        }
    };
}

guest!(counter, spec_counter, spec_counter_end, "counter.s", "A driver for the counter of exercise 1.");
guest!(channel, spec_channel, spec_channel_end, "channel.s", "A user of the channel of exercise 2.");
guest!(moving, spec_moving, spec_moving_end, "moving.s", "The guest that exercise 3 moves.");
