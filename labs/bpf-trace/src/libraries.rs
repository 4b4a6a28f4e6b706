//! From the name of a program or a library to its file, as the shell and the dynamic loader find it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kit::SysError;

use crate::names;
use crate::target::TargetError;

/// A path if it has a slash; else a program on the PATH; else a library, by its whole name or without `lib` and what
/// follows. With a process: as that one has it mapped, through its own root folder.
pub(crate) fn find(name: &str, pid: Option<u32>) -> Result<PathBuf, TargetError> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match path.is_file() {
            true => Ok(path),
            false => Err(TargetError::NoFile { name: name.into(), near: Vec::new() }),
        };
    }
    if let Some(pid) = pid
        && let Some(path) = mapped(name, pid)?
    {
        return Ok(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let runs =
        |p: &PathBuf| fs::metadata(p).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if let Some(program) = std::env::split_paths(&path).map(|folder| folder.join(name)).find(runs) {
        return Ok(program);
    }
    let known = ld_so_cache(&fs::read("/etc/ld.so.cache").unwrap_or_default());
    match known.iter().find(|(library, _)| is_called(library, name)) {
        Some((_, path)) => Ok(path.into()),
        None => {
            let short = known.iter().map(|(library, _)| stem(library));
            let near = names::nearest(name, short).into_iter().map(str::to_owned).collect();
            Err(TargetError::NoFile { name: name.into(), near })
        }
    }
}

/// `libssl` of `libssl.so.3`.
fn stem(library: &str) -> &str {
    library.split(".so").next().unwrap_or(library)
}

/// Whether `libssl.so.3` is meant by `libssl.so.3`, `libssl` or `ssl`.
fn is_called(library: &str, name: &str) -> bool {
    let stem = stem(library);
    library == name || stem == name || stem.strip_prefix("lib") == Some(name)
}

/// The file that a process has mapped under this name. It is reached through the process's own root folder: it may be
/// in a container, where the path leads elsewhere.
fn mapped(name: &str, pid: u32) -> Result<Option<PathBuf>, SysError> {
    let maps = format!("/proc/{pid}/maps");
    let text = fs::read_to_string(&maps).map_err(SysError::io(format!("open(\"{maps}\")")))?;
    // start-end perms offset device inode   path
    let paths = text.lines().filter_map(|l| l.get(l.find('/')?..));
    let file_name = |p: &str| Path::new(p).file_name().and_then(|n| n.to_str().map(str::to_owned));
    let mut found = paths.filter(|p| file_name(p).is_some_and(|n| is_called(&n, name)));
    Ok(found.next().map(|p| PathBuf::from(format!("/proc/{pid}/root{p}"))))
}

/// Name and path of the 64-bit libraries that ldconfig has listed. The format is glibc's own affair: see
/// sysdeps/generic/dl-cache.h there.
fn ld_so_cache(bytes: &[u8]) -> Vec<(String, PathBuf)> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    const HEADER: usize = 48;
    const ENTRY: usize = 24;
    const X86_64: u32 = 0x0300;
    let Some(start) = bytes.windows(MAGIC.len()).position(|w| w == MAGIC) else { return Vec::new() };
    let cache = &bytes[start..];
    let word = |at: usize| Some(u32::from_ne_bytes(cache.get(at..at + 4)?.try_into().ok()?));
    let text = |at: u32| cache.get(at as usize..).map(crate::ring::text);
    let entries = word(20).unwrap_or(0) as usize;
    (0..entries.min(cache.len() / ENTRY))
        .filter_map(|i| {
            // Which kind of library; its name and its path, as offsets from the begin.
            let at = HEADER + i * ENTRY;
            let (flags, name, path) = (word(at)?, word(at + 4)?, word(at + 8)?);
            (flags & 0xff00 == X86_64).then(|| Some((text(name)?, PathBuf::from(text(path)?))))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_have_short_names() {
        for name in ["c", "libc", "libc.so.6"] {
            assert!(is_called("libc.so.6", name), "{name}");
        }
        assert!(!is_called("libcrypt.so.1", "c"));
        assert!(is_called("libstdc++.so.6", "stdc++"));
    }

    #[test]
    fn the_c_library_is_found_as_this_process_has_it_and_as_the_loader_would() {
        let mapped = find("c", Some(std::process::id())).unwrap();
        let cached = find("libc", None).unwrap();
        assert_eq!(fs::canonicalize(mapped).unwrap(), fs::canonicalize(cached).unwrap());
        assert!(find("sh", None).unwrap().ends_with("sh"));
        let unknown = find("libcc", None).unwrap_err().to_string();
        assert!(unknown.contains("libc"), "{unknown}");
    }

    #[test]
    fn a_damaged_cache_is_no_crash() {
        let whole = fs::read("/etc/ld.so.cache").unwrap_or_default();
        for end in (0..whole.len()).step_by(97) {
            ld_so_cache(&whole[..end]);
        }
    }
}
