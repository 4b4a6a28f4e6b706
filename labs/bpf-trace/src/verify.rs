//! A program of an object, submitted to the verifier by hand, so that its log can be read: also of one that it takes.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya_obj::btf::BtfKind;
use aya_obj::{Object, ProgramSection};

use crate::error::TraceError;
use crate::ring::text;
use crate::sys::bpf::{self, Code, Lines, Loaded};
use crate::tracer::{Plan, Tracer, kernel_btf};

/// An object whose maps are made and whose code is ready to be submitted.
pub struct Submission {
    /// Keeps the maps.
    maps: Tracer,
    object: Object,
    btf: Option<OwnedFd>,
    strings: Strings,
    /// Names of the object's sections: `tp_btf/sys_exit` says what its programs are for.
    sections: Vec<String>,
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submission").field("maps", &self.maps).finish_non_exhaustive()
    }
}

/// A program as it was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The instructions.
    pub code: Vec<u64>,
    /// Where the instructions of a source line begin, and that line.
    pub lines: Vec<(usize, String)>,
}

/// The strings of a BTF: texts of source lines among them.
#[derive(Debug, Clone, Default)]
pub struct Strings(Vec<u8>);

impl Strings {
    /// Those of a BTF as the kernel takes it: `struct btf_header` says where they are.
    pub fn of(btf: &[u8]) -> Self {
        let word =
            |at: usize| btf.get(at..at + 4).map(|w| u32::from_ne_bytes(w.try_into().expect("four bytes")));
        let strings = (|| btf.get((word(4)? + word(16)?) as usize..))();
        Self(strings.unwrap_or_default().to_vec())
    }

    /// The string at `offset`; empty if there is none.
    pub fn at(&self, offset: u32) -> String {
        self.0.get(offset as usize..).map(text).unwrap_or_default().trim().to_owned()
    }
}

impl Submission {
    /// Makes the maps of an object, and puts their descriptors and this kernel's offsets into its code.
    pub fn new(plan: &Plan<'_>) -> Result<Self, TraceError> {
        let maps = Tracer::load(plan)?;
        let bad = |e: &dyn std::fmt::Display| TraceError::Object(e.to_string());
        let mut object = Object::parse(plan.object).map_err(|e| bad(&e))?;
        let btf = match aya::features().btf() {
            Some(features) => object.fixup_and_sanitize_btf(features).map_err(|e| bad(&e))?,
            None => None,
        };
        let bytes = btf.map(aya_obj::btf::Btf::to_bytes);
        let strings = Strings::of(bytes.as_deref().unwrap_or_default());
        let btf = bytes.map(|bytes| bpf::btf_load(&bytes)).transpose()?;
        object.relocate_btf(kernel_btf()?).map_err(|e| bad(&e))?;
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let described = std::mem::take(&mut object.maps);
        let made = maps.map_fds();
        let fds = described.iter().filter_map(|(name, map)| {
            let (_, fd) = made.iter().find(|(n, _)| n == name)?;
            Some((name.as_str(), fd.as_raw_fd(), map))
        });
        object.relocate_maps(fds, &sections).map_err(|e| bad(&e))?;
        object.relocate_calls(&sections).map_err(|e| bad(&e))?;
        drop(made);
        let elf = goblin::elf::Elf::parse(plan.object).map_err(|e| bad(&e))?;
        let names = elf.section_headers.iter().map(|h| elf.shdr_strtab.get_at(h.sh_name).unwrap_or_default());
        let sections = names.map(str::to_owned).collect();
        Ok(Self { maps, object, btf, strings, sections })
    }

    /// The names of the object's programs, in order of the source.
    pub fn programs(&self) -> Vec<&str> {
        let mut names: Vec<_> =
            self.object.programs.iter().map(|(n, p)| (p.function_key(), n.as_str())).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
    }

    fn program(&self, name: &str) -> Result<(&aya_obj::Program, &aya_obj::Function), TraceError> {
        let program = self.object.programs.get(name);
        let program = program.ok_or_else(|| TraceError::Object(format!("no program {name}")))?;
        Ok((program, &self.object.functions[&program.function_key()]))
    }

    /// Texts of source lines, as a loaded program's line infos refer to them.
    pub fn strings(&self) -> &Strings {
        &self.strings
    }

    /// The maps by the descriptors that the code has for them.
    pub fn maps(&self) -> Vec<(BorrowedFd<'_>, String)> {
        self.maps.map_fds().into_iter().map(|(name, fd)| (fd, name.to_owned())).collect()
    }

    /// What is submitted.
    pub fn source(&self, name: &str) -> Result<Source, TraceError> {
        let (_, function) = self.program(name)?;
        let code = function
            .instructions
            .iter()
            .map(|i| crate::s1_by_hand::insn(i.code, i.dst_reg(), i.src_reg(), i.off, i.imm))
            .collect();
        let lines = function.line_info.line_info.iter();
        let lines = lines.map(|l| (l.insn_off as usize, self.strings.at(l.line_off))).collect();
        Ok(Source { code, lines })
    }

    /// Has the verifier look at the program `name`.
    pub fn submit(&self, name: &str, log_level: u32) -> Result<Loaded, TraceError> {
        const TRACING: u32 = 26;
        let (program, function) = self.program(name)?;
        let section = self.sections.get(program.section_index).map_or("", String::as_str);
        let target = |prefix: &str, kind| {
            let hook = section.split_once('/').map_or(section, |(_, hook)| hook);
            let id = kernel_btf()?.id_by_type_name_kind(&format!("{prefix}{hook}"), kind);
            id.map_err(|e| TraceError::Object(e.to_string()))
        };
        // enum bpf_prog_type; enum bpf_attach_type and the id of its target.
        let (kind, attach) = match program.section {
            ProgramSection::SocketFilter => (1, (0, 0)),
            ProgramSection::UProbe { .. } | ProgramSection::URetProbe { .. } => (2, (0, 0)),
            ProgramSection::TracePoint => (5, (0, 0)),
            ProgramSection::PerfEvent => (7, (0, 0)),
            ProgramSection::RawTracePoint => (bpf::RAW_TRACEPOINT, (0, 0)),
            ProgramSection::BtfTracePoint => (TRACING, (23, target("btf_trace_", BtfKind::Typedef)?)),
            ProgramSection::Iter { .. } => (TRACING, (28, target("bpf_iter_", BtfKind::Func)?)),
            ref other => return Err(TraceError::Object(format!("{name} is a {other:?}"))),
        };
        let instructions = self.source(name)?.code;
        let (functions, lines) = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
        let lines =
            self.btf.as_ref().map(|btf| Lines { btf: btf.as_fd(), functions: &functions, lines: &lines });
        Ok(bpf::prog_load(Code { kind, instructions: &instructions, attach, lines }, log_level))
    }
}
