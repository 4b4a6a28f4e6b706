//! `NT_X86_XSTATE`: the XSAVE area, and `NT_FPREGSET`, its first 512 bytes.
//!
//! Layout: Intel SDM volume 1, chapter 13. Bytes 464–471 hold the mask of components that the kernel saves
//! (`sw_reserved`, arch/x86/include/uapi/asm/sigcontext.h), 512–519 `XSTATE_BV`: those that are not in their initial state.

use crate::source::Ints;

/// Which parts of the extended state there are, and the vector registers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Xstate {
    /// `XCR0` of the thread: what the kernel saves.
    pub enabled: u64,
    /// `XSTATE_BV`: what was in use.
    pub in_use: u64,
    /// `MXCSR`: rounding, masks and flags of SSE.
    pub mxcsr: u32,
    /// The 16 vector registers, low half first: XMM, and the upper halves of YMM where AVX was in use.
    #[serde(skip)]
    pub ymm: [[u128; 2]; 16],
}

/// Component names by bit of `XCR0`.
const COMPONENTS: [&str; 20] = [
    "x87",
    "SSE",
    "AVX",
    "MPX bounds",
    "MPX config",
    "AVX-512 masks",
    "AVX-512 upper",
    "AVX-512 high",
    "PT",
    "PKRU",
    "PASID",
    "CET user",
    "CET supervisor",
    "HDC",
    "UINTR",
    "LBR",
    "HWP",
    "AMX config",
    "AMX tiles",
    "APX",
];

impl Xstate {
    /// Decodes the desc; `None` if it is too short for the 16 XMM registers.
    pub fn parse(desc: &[u8]) -> Option<Self> {
        let ints = Ints { bytes: desc, big_endian: false };
        // An NT_FPREGSET says nothing about components: x87 and SSE are there.
        let (enabled, in_use) = match ints.u64(512) {
            Some(bv) => (ints.u64(464)?, bv),
            None => (3, 3),
        };
        let mut ymm = [[0; 2]; 16];
        for (i, register) in ymm.iter_mut().enumerate() {
            register[0] = u128::from_le_bytes(ints.array(160 + 16 * i)?);
            // AVX is the one component whose place is fixed by history: it follows the XSAVE header.
            if in_use & 4 != 0 {
                register[1] = ints.array(576 + 16 * i).map_or(0, u128::from_le_bytes);
            }
        }
        Some(Self { enabled, in_use, mxcsr: ints.u32(24)?, ymm })
    }

    /// Names of the components in `mask`.
    pub fn names(mask: u64) -> Vec<String> {
        (0..64)
            .filter(|bit| mask & (1 << bit) != 0)
            .map(|bit| COMPONENTS.get(bit).map_or_else(|| format!("bit {bit}"), |n| (*n).to_owned()))
            .collect()
    }
}
