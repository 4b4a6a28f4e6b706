//! `.eh_frame` as gimli reads it, cut down to what an exercise is about.

use gimli::{
    BaseAddresses, CallFrameInstruction as Op, CfaRule, EhFrame, EhFrameHdr, EhFrameOffset, EndianSlice,
    FrameDescriptionEntry, LittleEndian, Pointer, Register, RegisterRule, UnwindContext, UnwindSection as _,
};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// A function's unwind table.
pub struct Function<'a> {
    pub start: u64,
    pub len: u64,
    /// Of its FDE, in the section.
    offset: usize,
    /// The instructions of its FDE.
    pub program: &'a [u8],
}

fn open(address: u64, bytes: &[u8]) -> (EhFrame<Slice<'_>>, BaseAddresses) {
    (EhFrame::new(bytes, LittleEndian), BaseAddresses::default().set_eh_frame(address))
}

/// The functions whose CIE starts with the rule that x86-64 functions start with.
pub fn functions(address: u64, bytes: &[u8]) -> Vec<Function<'_>> {
    let (section, bases) = open(address, bytes);
    let mut entries = section.entries(&bases);
    let mut found = Vec::new();
    while let Ok(Some(entry)) = entries.next() {
        let gimli::CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
        if fde.len() > 0 && starts_as_usual(&section, &bases, &fde) {
            let (start, len, offset) = (fde.initial_address(), fde.len(), fde.offset());
            let Some(program) = program(bytes, offset) else { continue };
            found.push(Function { start, len, offset, program });
        }
    }
    found
}

/// The program of the function at `at`, and how far into it that is; by the table in `.eh_frame_hdr`.
pub fn function_at<'a>(
    (address, bytes): (u64, &'a [u8]),
    (hdr_address, hdr): (u64, &[u8]),
    at: u64,
) -> Option<(&'a [u8], u64)> {
    let (section, bases) = open(address, bytes);
    let bases = bases.set_eh_frame_hdr(hdr_address);
    let hdr = EhFrameHdr::new(hdr, LittleEndian).parse(&bases, 8).ok()?;
    let Ok(Pointer::Direct(found)) = hdr.table()?.lookup(at, &bases) else { return None };
    let offset = EhFrameOffset(usize::try_from(found.checked_sub(address)?).ok()?);
    let fde = section.fde_from_offset(&bases, offset, EhFrame::cie_from_offset).ok()?;
    (fde.contains(at) && starts_as_usual(&section, &bases, &fde)).then_some(())?;
    Some((program(bytes, fde.offset())?, at - fde.initial_address()))
}

/// The rule by gimli: DWARF number of the base, offset, where bp is. None where it says more than an exercise's rule
/// can, or by instructions that it need not know.
pub fn row(
    address: u64,
    bytes: &[u8],
    function: &Function<'_>,
    target: u64,
) -> Option<(u16, i64, Option<i64>)> {
    let (section, bases) = open(address, bytes);
    let at = function.start + target;
    let offset = EhFrameOffset(function.offset);
    let fde = section.fde_from_offset(&bases, offset, EhFrame::cie_from_offset).ok()?;
    let mut instructions = fde.instructions(&section, &bases);
    while let Ok(Some(op)) = instructions.next() {
        match op {
            Op::AdvanceLoc { .. } | Op::DefCfaOffset { .. } | Op::Restore { .. } | Op::Nop => {}
            Op::RememberState | Op::RestoreState => {}
            Op::DefCfa { register, .. } | Op::DefCfaRegister { register } if [6, 7].contains(&register.0) => {
            }
            Op::Offset { register, .. } if register.0 != 16 => {}
            _ => return None,
        }
    }
    let mut context = UnwindContext::new();
    let row = fde.unwind_info_for_address(&section, &bases, &mut context, at).ok()?;
    let (base, offset) = match row.cfa() {
        CfaRule::RegisterAndOffset { register: Register(base @ (6 | 7)), offset } => (*base, *offset),
        _ => return None,
    };
    match row.register(Register(6)) {
        None | Some(RegisterRule::SameValue) => Some((base, offset, None)),
        Some(RegisterRule::Offset(at)) => Some((base, offset, Some(at))),
        _ => None,
    }
}

/// CFA is rsp + 8, the return address is at CFA - 8, lengths count 1 and offsets -8.
fn starts_as_usual(
    section: &EhFrame<Slice<'_>>,
    bases: &BaseAddresses,
    fde: &FrameDescriptionEntry<Slice<'_>>,
) -> bool {
    let cie = fde.cie();
    let mut ops = Vec::new();
    let mut instructions = cie.instructions(section, bases);
    while let Ok(Some(op)) = instructions.next() {
        if op != Op::Nop {
            ops.push(op);
        }
    }
    let usual = [
        Op::DefCfa { register: Register(7), offset: 8 },
        Op::Offset { register: Register(16), factored_offset: 1 },
    ];
    ops == usual
        && !cie.is_signal_trampoline()
        && (cie.code_alignment_factor(), cie.data_alignment_factor()) == (1, -8)
}

/// The instructions of the FDE at `offset`: after length, CIE pointer, two addresses of 4 bytes, and augmentation data.
fn program(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let entry = bytes.get(offset..)?;
    let (length, rest) = entry.split_first_chunk::<4>()?;
    let rest = rest.get(..u32::from_le_bytes(*length) as usize)?;
    // Augmentation data are a pointer or nothing: their length fits into one byte.
    let (augmentation, after) = rest.get(12..)?.split_first()?;
    after.get(usize::from(*augmentation)..)
}
