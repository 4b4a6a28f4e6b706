//! Addresses of user stacks as names of functions.
//!
//! An address means something only together with the process's map of its memory, and that is gone when the process
//! is. So it is read as soon as an address is seen that is not in what is known of the process, and the files in it
//! are opened: through /proc/PID/map_files, which leads to the file itself, be it in a container or deleted. Their
//! tables are read when names are asked for, which may take a while, but nobody is being traced then.
//!
//! Stacks are those that frame pointers give. A function compiled without them hides its caller (GCC leaves them out
//! of small functions that call nobody, whatever it is told), and one that keeps something else in that register
//! ends the stack.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::elf_symbols::ElfSymbols;
use crate::perf_map::PerfMap;
use crate::stacks::{Frame, Kind};

/// Where processes are asked where their programs are.
pub const HERE: kit::Place = kit::here!();

/// A process with an address that is not in its map is not asked again at once: a broken stack has many of them.
const AGAIN: Duration = Duration::from_millis(20);

/// So many files are kept open, far less than a process may have.
const OPEN: usize = 400;

/// A program that a process runs: the process's PID, and the address of the kernel's account of its memory, which is
/// another one after exec.
pub type Program = (u32, u64);

/// A piece of a process's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind.
    pub end: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// The file: device and inode; inode 0: none.
    pub file: (String, u64),
    /// Its path, or a name in brackets; empty for memory that is in no file.
    pub path: String,
}

impl Mapping {
    /// A line of /proc/PID/maps, if it is code.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = (hex(start)?, hex(end)?);
        if !words.next()?.contains('x') {
            return None;
        }
        let offset = hex(words.next()?)?;
        let device = words.next()?.to_owned();
        let inode = words.next()?.parse().ok()?;
        let path = words.next().unwrap_or_default().trim_start().to_owned();
        Some(Self { start, end, offset, file: (device, inode), path })
    }
}

/// A file, or what stands for one.
#[derive(Debug)]
struct Module {
    /// As it is shown: without folders.
    name: String,
    /// The file, until its tables have been read.
    file: RefCell<Option<File>>,
    /// `None`: it is in no file, or it cannot be read.
    symbols: OnceCell<Option<ElfSymbols>>,
    /// Memory that is in no file: written by the program itself.
    made: bool,
}

impl Module {
    fn of_file(name: String, file: Option<File>) -> Self {
        Self { name, file: RefCell::new(file), symbols: OnceCell::new(), made: false }
    }

    fn in_memory(name: String, symbols: Option<ElfSymbols>) -> Self {
        let made = symbols.is_none();
        Self { name, file: RefCell::default(), symbols: OnceCell::from(symbols), made }
    }

    fn symbols(&self) -> Option<&ElfSymbols> {
        let read = || {
            let file = self.file.take()?;
            ElfSymbols::read(&file).map(with_debug_file)
        };
        self.symbols.get_or_init(read).as_ref()
    }
}

/// A mapping, and its file once an address in it has been seen: only such files are worth reading.
type Mapped = (Mapping, Option<Rc<Module>>);

#[derive(Debug, Default)]
struct Process {
    maps: BTreeMap<u64, Mapped>,
    asked: Pause,
    /// What it tells of the code that it makes itself: opened while the process is there.
    made: Option<RefCell<PerfMap>>,
    looked: Pause,
}

/// When something may be tried again: each time that nothing was found, the pause is twice as long.
#[derive(Debug, Default)]
struct Pause(Option<(Instant, Duration)>);

impl Pause {
    fn is_over(&self) -> bool {
        self.0.is_none_or(|(end, _)| end <= Instant::now())
    }

    fn begin(&mut self, found: bool) {
        let last = self.0.map_or(AGAIN, |(_, pause)| pause);
        let pause = if found { AGAIN } else { last * 2 };
        self.0 = Some((Instant::now() + pause, pause));
    }
}

/// What is known of processes and their files.
#[derive(Debug, Default)]
pub struct Symbols {
    processes: HashMap<Program, Process>,
    modules: HashMap<(String, u64), Rc<Module>>,
    vdso: Option<Rc<Module>>,
}

impl Symbols {
    /// Takes note of addresses while the process may still be asked about them: call it as early as possible.
    pub fn see(&mut self, program: Program, addresses: &[u64]) {
        let process = self.processes.entry(program).or_default();
        let known = addresses.iter().all(|a| find(&process.maps, *a).is_some());
        if !known && process.asked.is_over() {
            let before = process.maps.len();
            process.ask(program.0);
            process.asked.begin(process.maps.len() > before);
        }
        let makes_code =
            || addresses.iter().filter_map(|a| find(&process.maps, *a)).any(|(m, _)| may_be_made(m));
        if process.made.is_none() && process.looked.is_over() && makes_code() {
            process.made = if proc_is_ours() { PerfMap::open(program.0).map(RefCell::new) } else { None };
            process.looked.begin(false);
        }
        for address in addresses {
            let found = self.processes.get(&program).and_then(|p| find(&p.maps, *address));
            if let Some((mapping, None)) = found {
                let mapping = mapping.clone();
                let module = self.module(program.0, &mapping);
                if let Some(process) = self.processes.get_mut(&program) {
                    process.maps.insert(mapping.start, (mapping, Some(module)));
                }
            }
        }
    }

    /// The frame at an address. A caller's is that behind its call: `caller` looks one byte before.
    pub fn frame(&self, program: Program, address: u64, caller: bool) -> Frame {
        let at = address.wrapping_sub(u64::from(caller));
        let found = self.processes.get(&program).and_then(|p| find(&p.maps, at));
        let Some((mapping, Some(module))) = found else {
            return Frame::new("[unknown]", Kind::Nameless);
        };
        let offset = at - mapping.start + mapping.offset;
        let Some(symbols) = module.symbols() else {
            let made = self.processes.get(&program).and_then(|p| p.made.as_ref());
            let name = made.and_then(|map| map.borrow_mut().function(at).map(str::to_owned));
            let place =
                || if module.made { module.name.clone() } else { format!("{}+{offset:#x}", module.name) };
            let kind = if name.is_some() { Kind::User } else { Kind::Nameless };
            return Frame::new(name.unwrap_or_else(place), kind);
        };
        let address = symbols.address(offset).unwrap_or(offset);
        match symbols.function(address) {
            Some(name) => Frame::new(demangled(name), Kind::User),
            // By its begin, so that all that is in one function is one.
            None => Frame::new(format!("{}+{:#x}", module.name, symbols.start(address)), Kind::Nameless),
        }
    }

    fn module(&mut self, pid: u32, mapping: &Mapping) -> Rc<Module> {
        if mapping.path == "[vdso]" {
            let module = self
                .vdso
                .get_or_insert_with(|| Rc::new(Module::in_memory("[vdso]".into(), vdso(pid, mapping))));
            return module.clone();
        }
        if mapping.file.1 == 0 {
            let name = match mapping.path.as_str() {
                "" => "[code made at run time]".into(),
                other => other.to_owned(),
            };
            return Rc::new(Module::in_memory(name, None));
        }
        if let Some(module) = self.modules.get(&mapping.file) {
            return module.clone();
        }
        let (path, deleted) = match mapping.path.strip_suffix(" (deleted)") {
            Some(path) => (path, " (deleted)"),
            None => (mapping.path.as_str(), ""),
        };
        let name = Path::new(path).file_name().map_or_else(|| path.into(), |n| n.to_string_lossy());
        let module = Rc::new(Module::of_file(format!("{name}{deleted}"), open(pid, mapping, path)));
        if self.modules.len() >= OPEN {
            module.symbols();
        }
        self.modules.insert(mapping.file.clone(), module.clone());
        module
    }
}

impl Process {
    /// Reads where its code is; what is known already stays.
    fn ask(&mut self, pid: u32) {
        if !proc_is_ours() {
            return;
        }
        let Ok(text) = std::fs::read(format!("/proc/{pid}/maps")) else { return };
        for mapping in String::from_utf8_lossy(&text).lines().filter_map(Mapping::parse) {
            if self.maps.get(&mapping.start).is_none_or(|(known, _)| *known != mapping) {
                self.maps.insert(mapping.start, (mapping, None));
            }
        }
    }
}

/// Whether /proc has the numbers of this process's PID namespace: in others they are other processes'.
fn proc_is_ours() -> bool {
    static OURS: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
        std::fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == &*std::process::id().to_string())
    });
    *OURS
}

/// Whether a mapping can be code that the program has made itself: it is in no file, or in one that has never had a name.
fn may_be_made(mapping: &Mapping) -> bool {
    match mapping.path.as_str() {
        "[vdso]" | "[vsyscall]" => false,
        path => mapping.file.1 == 0 || path.starts_with("/memfd:") || path.starts_with("/dev/zero"),
    }
}

fn find(maps: &BTreeMap<u64, Mapped>, address: u64) -> Option<&Mapped> {
    maps.range(..=address).next_back().map(|(_, found)| found).filter(|(m, _)| address < m.end)
}

/// The file behind a mapping. `map_files` needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, and leads to files that have
/// no name any more; the path is looked up as the process itself would.
fn open(pid: u32, mapping: &Mapping, path: &str) -> Option<File> {
    let direct = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
    if let Ok(file) = File::open(direct) {
        return Some(file);
    }
    let file = File::open(format!("/proc/{pid}/root{path}")).ok()?;
    // Another file may be there by now.
    (file.metadata().ok()?.ino() == mapping.file.1).then_some(file)
}

/// A stripped file's names, where the distribution's package of them is installed.
fn with_debug_file(mut symbols: ElfSymbols) -> ElfSymbols {
    if let Some(id) = symbols.build_id.as_deref().filter(|id| symbols.stripped && id.len() > 2) {
        let (head, rest) = id.split_at(2);
        let path = format!("/usr/lib/debug/.build-id/{head}/{rest}.debug");
        if let Some(other) = File::open(path).ok().and_then(|file| ElfSymbols::read(&file)) {
            symbols.take_names(other);
        }
    }
    symbols
}

/// The code that the kernel puts into each process: an ELF file that is in memory only.
fn vdso(pid: u32, mapping: &Mapping) -> Option<ElfSymbols> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let size = (mapping.end - mapping.start).min(1 << 20);
    let mut image = vec![0; size as usize];
    memory.read_exact_at(&mut image, mapping.start).ok()?;
    ElfSymbols::read(image.as_slice())
}

/// A function's name as its author wrote it: Rust's without the hash that tells two of the same name apart, C++'s
/// without the types of parameters and result.
pub fn demangled(name: &str) -> String {
    // The linker's name for a version of a symbol: memcpy@@GLIBC_2.14.
    let name = name.split('@').next().unwrap_or(name);
    // Rust first: its older names are C++'s as well, with the hash for a last part.
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    // What the compiler split off a function is another one: work.cold.
    let (whole, part) = name.split_at(name.find('.').unwrap_or(name.len()));
    let short = cpp_demangle::DemangleOptions::new().no_params().no_return_type();
    let symbol = whole.starts_with("_Z").then(|| cpp_demangle::BorrowedSymbol::new(whole.as_bytes()).ok());
    let cpp = symbol.flatten().and_then(|s| s.demangle_with_options(&short).ok());
    cpp.map_or_else(|| name.to_owned(), |cpp| cpp + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_taken_from_a_map() {
        let line = "7f00-7f80 r-xp 00001000 fe:01 42    /usr/lib/a b.so (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!((mapping.start, mapping.end, mapping.offset), (0x7f00, 0x7f80, 0x1000));
        assert_eq!(
            (mapping.file, mapping.path.as_str()),
            (("fe:01".into(), 42), "/usr/lib/a b.so (deleted)")
        );
        assert_eq!(Mapping::parse("7f00-7f80 r-xp 00000000 00:00 0 ").unwrap().path, "");
        for other in ["7f00-7f80 rw-p 00000000 00:00 0 [heap]", "", "7f00", "x-y r-xp 0 0 0 p"] {
            assert_eq!(Mapping::parse(other), None, "{other}");
        }
    }

    #[inline(never)]
    fn a_known_function(n: u64) -> u64 {
        std::hint::black_box(n)
    }

    #[test]
    fn this_process_knows_its_own_functions() {
        let mut symbols = Symbols::default();
        let program = (std::process::id(), 0);
        let start = a_known_function as fn(u64) -> u64 as usize as u64;
        symbols.see(program, &[start, 4]);
        let inside = symbols.frame(program, start + 1, false);
        assert_eq!(inside.kind, Kind::User);
        assert!(inside.name.ends_with("::a_known_function"), "{inside:?}");
        // What returns to a function's begin was called by the one before it.
        assert_ne!(symbols.frame(program, start, true), inside);
        assert_eq!(symbols.frame(program, 4, false).name, "[unknown]");
        assert_eq!(symbols.frame((1 << 30, 0), start, false).name, "[unknown]");
    }

    #[test]
    fn the_vdso_has_names() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mapping = maps.lines().filter_map(Mapping::parse).find(|m| m.path == "[vdso]");
        let Some(mapping) = mapping else { kit::skip!("vdso", "this kernel has none") };
        let mut symbols = Symbols::default();
        let program = (std::process::id(), 0);
        let all: Vec<u64> = (mapping.start..mapping.end).step_by(8).collect();
        symbols.see(program, &all);
        let names: Vec<String> = all.iter().map(|a| symbols.frame(program, *a, false).name).collect();
        assert!(names.iter().any(|n| n.ends_with("clock_gettime")), "{names:?}");
    }

    #[test]
    fn names_are_as_they_were_written() {
        assert_eq!(demangled("_ZN4core3fmt5write17h0123456789abcdefE"), "core::fmt::write");
        assert_eq!(demangled("memcpy@@GLIBC_2.14"), "memcpy");
        assert_eq!(demangled("main"), "main");
        assert_eq!(demangled("_ZN5space5Thing4workEij"), "space::Thing::work");
        assert_eq!(demangled("_ZN5space5ThingC2Ev"), "space::Thing::Thing");
        assert_eq!(demangled("_ZN5space5Thing4workEij.cold"), "space::Thing::work.cold");
        assert_eq!(demangled("_Z5twiceIiET_S0_"), "twice<int>");
        assert_eq!(demangled("_ZplRK3BigS1_"), "operator+");
        for no_name in ["_Z", "_ZN", "_Z-", ""] {
            assert_eq!(demangled(no_name), no_name);
        }
    }
}
