//! Names of code that a program makes at run time: /tmp/perf-PID.map, which runtimes write for perf(1). A line each:
//! address and size in hexadecimal, then the name (tools/perf/Documentation/jit-interface.txt).
//!
//! Whoever can write into that folder may have made the file, and what is traced may be hostile. So it is looked up in
//! the root folder of the process and nowhere else, must belong to root or to the process's user, must be a file
//! that has an end, and is read to a limit. As with perf, a file that a former process left there is believed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// So much of a file is read.
const LIMIT: u64 = 64 << 20;

/// So much of a name is kept.
const NAME: usize = 500;

/// A process's file, and what has been read of it.
#[derive(Debug)]
pub struct PerfMap {
    file: File,
    /// Up to where it has been read: whole lines.
    read: u64,
    names: Names,
}

impl PerfMap {
    /// The file of a process. It has the number that the process knows itself by, in the /tmp that it sees itself.
    pub fn open(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        // The innermost PID namespace's number is the last; of the user's four, the effective one is the second.
        let number: u32 = field("NSpid:")?.split_whitespace().next_back()?.parse().ok()?;
        let user: u32 = field("Uid:")?.split_whitespace().nth(1)?.parse().ok()?;
        let root = File::open(format!("/proc/{pid}/root")).ok()?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = File::from(openat2(root.as_fd(), format!("tmp/perf-{number}.map").as_str(), how).ok()?);
        let found = file.metadata().ok()?;
        let trusted = found.is_file() && (found.uid() == 0 || found.uid() == user);
        trusted.then(|| Self { file, read: 0, names: Names::default() })
    }

    /// The name of the code at an address. What the program has written meanwhile is read first.
    pub fn function(&mut self, address: u64) -> Option<&str> {
        self.follow();
        self.names.of(address)
    }

    fn follow(&mut self) {
        let size = self.file.metadata().map_or(0, |m| m.len()).min(LIMIT);
        if size < self.read {
            // It has been written anew.
            (self.read, self.names) = (0, Names::default());
        }
        if size == self.read {
            return;
        }
        let mut text = vec![0; (size - self.read) as usize];
        let Ok(got) = self.file.read_at(&mut text, self.read) else { return };
        // The last line may be under way.
        let whole = text[..got].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        text[..whole].split(|b| *b == b'\n').for_each(|line| self.names.add(line));
        self.read += whole as u64;
    }
}

/// Which addresses are whose: a piece by its begin, with its end. Pieces do not overlap.
#[derive(Debug, Default)]
struct Names(BTreeMap<u64, (u64, Box<str>)>);

impl Names {
    /// Takes in a line. Memory is used again: where pieces overlap, the later one holds.
    fn add(&mut self, line: &[u8]) {
        let Some((start, end, name)) = parsed(line) else { return };
        let before = self.0.range(..end).rev().take_while(|(_, (to, _))| *to > start);
        let overlapping: Vec<u64> = before.map(|(at, _)| *at).collect();
        for at in overlapping {
            let Some((to, old)) = self.0.remove(&at) else { continue };
            if to > end {
                self.0.insert(end, (to, old.clone()));
            }
            if at < start {
                self.0.insert(at, (start, old));
            }
        }
        self.0.insert(start, (end, name));
    }

    fn of(&self, address: u64) -> Option<&str> {
        let (_, (end, name)) = self.0.range(..=address).next_back()?;
        (address < *end).then_some(name)
    }
}

/// Begin, end and name.
fn parsed(line: &[u8]) -> Option<(u64, u64, Box<str>)> {
    let mut words = line.splitn(3, |b| *b == b' ');
    let mut number = || {
        let word = std::str::from_utf8(words.next()?).ok()?;
        u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
    };
    let (start, size) = (number()?, number()?);
    let name = words.next()?;
    let name = String::from_utf8_lossy(&name[..name.len().min(NAME)]);
    let name = name.trim();
    let end = start.saturating_add(size);
    (end > start && !name.is_empty()).then(|| (start, end, name.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Names {
        let mut names = Names::default();
        text.split('\n').for_each(|line| names.add(line.as_bytes()));
        names
    }

    #[test]
    fn a_line_is_address_size_and_a_name_that_may_have_blanks() {
        let names =
            names("1000 10 one\n0x2000 0x20 LazyCompile:~two a b.js:1\n3000 1 \n\n4000\nx y z\n5000 0 none");
        assert_eq!(names.of(0xfff), None);
        assert_eq!((names.of(0x1000), names.of(0x100f), names.of(0x1010)), (Some("one"), Some("one"), None));
        assert_eq!(names.of(0x201f), Some("LazyCompile:~two a b.js:1"));
        assert_eq!((names.of(0x3000), names.of(0x4000), names.of(0x5000)), (None, None, None));
    }

    #[test]
    fn what_makes_no_sense_is_no_crash() {
        let long = "n".repeat(100_000);
        let names =
            names(&format!("ffffffffffffffff ffffffffffffffff end\n1 2\n-1 5 x\n10 5 {long}\n 7 7 x"));
        assert_eq!(names.of(0x10).map(str::len), Some(NAME));
        assert_eq!(names.0.len(), 1, "what has no size left has no name: {names:?}");
        let mut names = Names::default();
        names.add(b"10 5 \xff\xfe\x1b[2J");
        assert!(names.of(0x10).is_some());
    }

    /// This test process's own file, and what [`PerfMap`] makes of it.
    fn opened(make: impl FnOnce(&std::path::Path)) -> Option<PerfMap> {
        let path = std::path::PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()));
        make(&path);
        let map = PerfMap::open(std::process::id());
        let _ = std::fs::remove_file(&path);
        map
    }

    // One test, since there is one such file.
    #[test]
    fn only_a_file_of_root_or_of_the_user_is_believed() {
        let _dog = kit::testing::watchdog(60);
        let line = "1000 10 name\n";
        assert_eq!(opened(|_| ()).map(|_| ()), None);
        let mut map = opened(|path| std::fs::write(path, line).unwrap()).unwrap();
        assert_eq!(map.function(0x1000), Some("name"));
        // Others: a link, a pipe that nobody writes into, a folder.
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, line).unwrap();
        assert!(opened(|path| std::os::unix::fs::symlink(&target, path).unwrap()).is_none());
        assert!(opened(|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap()).is_none());
        assert!(opened(|path| std::fs::create_dir(path).unwrap()).is_none());
        let _ = std::fs::remove_dir(format!("/tmp/perf-{}.map", std::process::id()));
        if !nix::unistd::geteuid().is_root() {
            kit::skip!("root", "giving a file away takes root");
        }
        let given = opened(|path| {
            std::fs::write(path, line).unwrap();
            std::os::unix::fs::chown(path, Some(65_534), None).unwrap();
        });
        assert!(given.is_none());
    }

    #[test]
    fn what_is_written_later_is_read_and_what_is_written_anew_replaces() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let opened = std::fs::File::open(file.path()).unwrap();
        let mut map = PerfMap { file: opened, read: 0, names: Names::default() };
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write("1000 10 one\n2000 10 unfin");
        assert_eq!(map.function(0x1000), Some("one"));
        assert_eq!(map.function(0x2000), None);
        write("1000 10 one\n2000 10 unfinished\n");
        assert_eq!(map.function(0x2000), Some("unfinished"));
        write("3000 10 x\n");
        assert_eq!(map.function(0x3000), Some("x"));
        assert_eq!(map.function(0x1000), None);
    }

    proptest! {
        #[test]
        fn the_later_line_holds(lines in prop::collection::vec((0_u64..60, 0_u64..20), 0..40)) {
            let mut names = Names::default();
            let mut oracle = [None; 100];
            for (i, (start, size)) in lines.iter().enumerate() {
                names.add(format!("{start:x} {size:x} {i}").as_bytes());
                oracle[*start as usize..(start + size) as usize].fill(Some(i));
            }
            for (address, expected) in oracle.iter().enumerate() {
                let expected = expected.map(|i| i.to_string());
                prop_assert_eq!(names.of(address as u64), expected.as_deref());
            }
        }
    }
}
