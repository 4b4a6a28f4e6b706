//! The guest programs: assembled into read-only data here, copied into a guest's memory later.
#![allow(unsafe_code, reason = "global_asm!, and the symbols that it defines")]

use std::arch::global_asm;

/// A program as it will be in the guest's memory.
#[derive(Debug, Clone, Copy)]
pub struct Assembled {
    /// Code, then data.
    pub bytes: &'static [u8],
    /// How many of the bytes are code.
    pub code: usize,
}

/// Assembles `src/guest/NAME.s`, which marks with `guest_NAME_data` where its code ends.
macro_rules! guest_code {
    ($function:ident, $start:ident, $data:ident, $end:ident, $width:literal, $file:literal, $doc:literal) => {
        // A section of its own, so that `.org` counts from the program's start.
        global_asm!(
            concat!(".pushsection .rodata.", stringify!($start), ",\"a\",@progbits\n"),
            concat!(".globl ", stringify!($start), ", ", stringify!($data), ", ", stringify!($end)),
            concat!("\n", stringify!($start), ":\n", $width, "\n"),
            include_str!(concat!("../guest/", $file)),
            concat!("\n", stringify!($end), ":\n.code64\n.popsection"),
            options(raw)
        );
        #[doc = $doc]
        pub fn $function() -> Assembled {
            unsafe extern "C" {
                static $start: u8;
                static $data: u8;
                static $end: u8;
            }
            let start = &raw const $start;
            let len = (&raw const $end).addr() - start.addr();
            // SAFETY: both labels are in one section, `len` bytes apart, and the section is read-only data.
            let bytes = unsafe { std::slice::from_raw_parts(start, len) };
            Assembled { bytes, code: (&raw const $data).addr() - start.addr() }
        }
    };
}

guest_code!(real, guest_real, guest_real_data, guest_real_end, ".code16", "real.s", "Hello from 16 bits.");
guest_code!(
    protected,
    guest_protected,
    guest_protected_data,
    guest_protected_end,
    ".code32",
    "protected.s",
    "Hello from 32 bits."
);
guest_code!(long, guest_long, guest_long_data, guest_long_end, ".code64", "long.s", "Hello from 64 bits.");
guest_code!(user, guest_user, guest_user_data, guest_user_end, ".code64", "user.s", "Hello from ring 3.");
guest_code!(
    cost,
    guest_cost,
    guest_cost_data,
    guest_cost_end,
    ".code64",
    "cost.s",
    "One loop for each way out."
);
guest_code!(
    misbehave,
    guest_misbehave,
    guest_misbehave_data,
    guest_misbehave_end,
    ".code64",
    "misbehave.s",
    "Ways to go wrong, 16 bytes apart."
);
guest_code!(
    devices,
    guest_devices,
    guest_devices_data,
    guest_devices_end,
    ".code64",
    "devices.s",
    "A driver for three devices."
);
guest_code!(
    dirty,
    guest_dirty,
    guest_dirty_data,
    guest_dirty_end,
    ".code64",
    "dirty.s",
    "Boots slowly, works a little."
);
