//! `cargo xtask bpf build`: compiles `labs/*/bpf/*.bpf.c`. The objects are committed, so that only who edits a program
//! needs clang; each carries a sum of what it was made from, so that one that is behind its source is noticed.

mod btf;
mod object;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use crate::{exit, labs, paths, report};

/// What the committed objects were made with; another clang may choose other instructions.
const CLANG: &str = "clang-14";

const INSTALL: &str = "\
install clang 14:  sudo apt-get install clang-14      (Debian, Ubuntu)
or any clang:      sudo dnf install clang             (Fedora; others: the package called clang)
or name one:       BENCHTOP_CLANG=/path/to/clang cargo xtask bpf build";

#[derive(Debug, Subcommand)]
pub(crate) enum Sub {
    /// Compile them with clang ($BENCHTOP_CLANG, clang-14 or clang)
    Build(Options),
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Write nothing; fail if a committed object is not what its source gives
    #[arg(long)]
    check: bool,
    /// Only the programs of this lab
    lab: Option<String>,
}

pub(crate) fn run(command: Sub) -> anyhow::Result<u8> {
    let Sub::Build(options) = command;
    let folders = match &options.lab {
        Some(lab) => vec![labs::find(lab)?.folder],
        None => labs::folders()?,
    };
    let Some(clang) = Clang::find() else {
        report::complain(&format!("no clang: programs in C cannot be compiled\n{INSTALL}"));
        return Ok(exit::UNAVAILABLE);
    };
    let sources: Vec<PathBuf> = folders.iter().flat_map(|f| programs(f)).collect();
    if !options.check {
        for source in &sources {
            clang.compile(source, &object_of(source))?;
            report::print(&format!("ok  {}\n", paths::shown(&object_of(source))))?;
        }
        return Ok(0);
    }
    let differences = clang.compare(&sources)?;
    report::print(&differences)?;
    if !differences.is_empty() {
        report::complain(&clang.advice());
        return Ok(exit::FAILED);
    }
    report::print("bpf: every object is what its source gives\n")?;
    Ok(0)
}

/// The same, as a step of `ci`: left out where there is no clang 14, unless `BENCHTOP_REQUIRE` names it.
pub(crate) fn check() -> anyhow::Result<()> {
    let required = std::env::var("BENCHTOP_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|r| [CLANG, "all"].contains(&r.trim()));
    let Some(clang) = Clang::find().filter(|c| c.is_the_one || required) else {
        if required {
            bail!("BENCHTOP_REQUIRE names {CLANG}, which is not there\n{INSTALL}");
        }
        report::note(&format!("left out: no {CLANG}, with which the committed objects are compared"));
        return Ok(());
    };
    let sources: Vec<PathBuf> = labs::folders()?.iter().flat_map(|f| programs(f)).collect();
    let differences = clang.compare(&sources)?;
    anyhow::ensure!(differences.is_empty(), "{differences}{}", clang.advice());
    Ok(())
}

/// The programs of a lab: `bpf/*.bpf.c`, by name.
fn programs(lab: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(lab.join("bpf")).into_iter().flatten().flatten().map(|f| f.path());
    let mut sources: Vec<PathBuf> = files.filter(|f| f.to_string_lossy().ends_with(".bpf.c")).collect();
    sources.sort();
    sources
}

/// `bpf/exec.bpf.o` for `bpf/exec.bpf.c`
fn object_of(source: &Path) -> PathBuf {
    source.with_extension("o")
}

/// The programs of a lab whose objects were made from something else than what is there now.
pub(crate) fn stale(lab: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for source in programs(lab) {
        let object = fs::read(object_of(&source)).unwrap_or_default();
        if object::sources(&object) != Some(sum(&source)?) {
            stale.push(source);
        }
    }
    Ok(stale)
}

/// Before a lab is built to be run: compiles what has been edited. `false`, with what to install, if that needs a
/// clang that is not there.
pub(crate) fn refresh(lab: &Path) -> anyhow::Result<bool> {
    for source in stale(lab)? {
        let name = paths::shown(&source);
        let Some(clang) = Clang::find() else {
            report::complain(&format!(
                "{name} has changed, or a header of it: it must be compiled anew, and there is no clang\n\
                 {INSTALL}\nthen again; or undo the change: git checkout -- {}",
                paths::shown(&lab.join("bpf"))
            ));
            return Ok(false);
        };
        report::note(&format!("compiling {name}, which has changed"));
        clang.compile(&source, &object_of(&source))?;
    }
    Ok(true)
}

/// What is to be done about a stale object, for `tidy`.
pub(crate) const REBUILD: &str = "cargo xtask bpf build, and commit the object";

/// A sum of a program and of all headers that it includes from its folder (FNV-1a, 64 bits).
fn sum(source: &Path) -> anyhow::Result<u64> {
    let folder = source.parent().context("a file is in a folder")?;
    let mut files = vec![source.to_owned()];
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut next = 0;
    while let Some(file) = files.get(next) {
        next += 1;
        let text = fs::read_to_string(file).with_context(|| paths::shown(file))?;
        for byte in text.bytes() {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        let included = text.lines().filter_map(|l| l.strip_prefix("#include \"")?.split_once('"'));
        for (name, _) in included {
            let header = folder.join(name);
            if !files.contains(&header) {
                files.push(header);
            }
        }
    }
    Ok(sum)
}

/// A compiler that is there.
#[derive(Debug)]
struct Clang {
    program: PathBuf,
    /// Whether it is the version that made the committed objects.
    is_the_one: bool,
    /// The first line of `--version`.
    version: String,
}

impl Clang {
    fn find() -> Option<Self> {
        let named = std::env::var_os("BENCHTOP_CLANG").map(PathBuf::from);
        let names = named.map_or_else(|| vec![CLANG.into(), "clang".into()], |named| vec![named]);
        names.into_iter().find_map(|program| {
            let out = Command::new(&program).arg("--version").stdin(Stdio::null()).output().ok()?;
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let version = text.lines().next()?.to_owned();
            let is_the_one = version.contains("clang version 14.");
            out.status.success().then_some(Self { program, is_the_one, version })
        })
    }

    fn advice(&self) -> String {
        let mut advice = "cargo xtask bpf build makes them anew; commit them with their sources".to_owned();
        if !self.is_the_one {
            advice += &format!("\n(they are made with {CLANG}; this is {}, which may differ)", self.version);
        }
        advice
    }

    /// Compiles `source`. The result holds nothing of where the checkout is.
    fn compile(&self, source: &Path, object: &Path) -> anyhow::Result<()> {
        let folder = source.parent().context("a file is in a folder")?;
        let file = source.file_name().context("a source has a name")?;
        let mut clang = Command::new(&self.program);
        clang.args(["-target", "bpf", "-g", "-O2", "-mcpu=v3", "-Wall", "-Werror"]);
        // Nothing is told of where the checkout is. It must still be a folder that leads to the source: clang reads it
        // once more, for the lines that the verifier quotes in its log.
        clang.arg("-fdebug-compilation-dir=.");
        clang.args(["-include", "/dev/stdin"]).arg("-c").arg(file).arg("-o").arg(object);
        let mut child = clang.current_dir(folder).stdin(Stdio::piped()).spawn()?;
        let sources = format!(
            "const unsigned long long SOURCES __attribute__((section(\"{}\"), used)) = {:#x};\n",
            object::SOURCES,
            sum(source)?
        );
        child.stdin.take().context("no stdin")?.write_all(sources.as_bytes())?;
        if !child.wait()?.success() {
            bail!("{} does not compile (see above)", paths::shown(source));
        }
        // Nine tenths of an object is DWARF, which nobody reads: the kernel has its types and lines from BTF.
        for strip in ["llvm-strip-14", "llvm-strip"] {
            let done = Command::new(strip).arg("-g").arg(object).stdin(Stdio::null()).status();
            if done.is_ok_and(|s| s.success()) {
                break;
            }
        }
        Ok(())
    }

    /// Compiles all again elsewhere: in words, where what is committed differs; empty if nowhere.
    fn compare(&self, sources: &[PathBuf]) -> anyhow::Result<String> {
        let folder = Scratch::new()?;
        let mut text = String::new();
        for (i, source) in sources.iter().enumerate() {
            let committed = object_of(source);
            let name = paths::shown(&committed);
            let Ok(there) = fs::read(&committed) else {
                text += &format!("{name}: is missing\n");
                continue;
            };
            let fresh = folder.0.join(format!("{i}.o"));
            self.compile(source, &fresh)?;
            let differences = object::differences(&there, &fs::read(&fresh)?)
                .with_context(|| format!("{name} is not an object of clang's"))?;
            for difference in differences {
                text += &format!("{name}: {difference}\n");
            }
        }
        Ok(text)
    }
}

/// A temporary folder, gone with this.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("benchtop-bpf-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_program_or_header_makes_objects_stale() {
        let copy = Scratch::new().unwrap();
        let bpf = copy.0.join("bpf");
        fs::create_dir(&bpf).unwrap();
        for file in fs::read_dir(paths::root().join("labs/bpf-trace/bpf")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), bpf.join(file.file_name())).unwrap();
        }
        let stale = || stale(&copy.0).unwrap();
        assert_eq!(stale(), Vec::<PathBuf>::new());
        let edit = |name: &str| {
            let text = fs::read_to_string(bpf.join(name)).unwrap();
            fs::write(bpf.join(name), format!("{text}/* edited */\n")).unwrap();
        };
        edit("exec.bpf.c");
        assert_eq!(stale(), [bpf.join("exec.bpf.c")]);
        edit("trace.h");
        assert_eq!(stale(), programs(&copy.0), "all include it");
        fs::remove_file(bpf.join("trace.h")).unwrap();
        assert!(super::stale(&copy.0).is_err(), "a header that is not there");
    }
}
