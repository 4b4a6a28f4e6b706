//! A Rust file: its length, where `unsafe` may be, what must not be left in it.

use std::path::Path;

use super::Found;

/// "About 300" and "about 400" lines, with a tenth more before anyone is stopped.
const LIB_LINES: usize = 330;
const FILE_LINES: usize = 440;

pub(super) fn check(path: &Path, text: &str, found: &mut Found) {
    let max = if path.ends_with("src/lib.rs") { LIB_LINES } else { FILE_LINES };
    // What there is to read: unit tests at the end do not count.
    let lines = text.lines().take_while(|l| *l != "#[cfg(test)]").count();
    if lines > max {
        found.add(
            path,
            max + 1,
            format!("{lines} lines"),
            "one idea a file: move one of its ideas into a file of its own",
        );
    }
    for (n, line) in text.lines().enumerate() {
        let forbids = line.contains("forbid(");
        let attribute = line.trim_start().starts_with('#') && line.contains("unsafe_code") && !forbids;
        if attribute && !may_be_unsafe(path) {
            found.add(
                path,
                n + 1,
                "allows unsafe code outside sys.rs",
                "move what is unsafe to src/sys.rs (or a file of src/sys/)",
            );
        }
        // Put together, so that this file does not find itself.
        for word in [concat!("TO", "DO"), concat!("FIX", "ME")] {
            if line.contains(word) {
                found.add(path, n + 1, format!("says {word}"), "do it, or open an issue");
            }
        }
    }
}

/// `sys.rs`, or a file below a folder `sys`; a spec, which decides for its exercise.
fn may_be_unsafe(path: &Path) -> bool {
    path.file_name().is_some_and(|f| f == "sys.rs")
        || is_spec(path)
        || path.parent().is_some_and(|folders| folders.iter().any(|f| f == "sys"))
}

/// `tests/ex1.rs`
fn is_spec(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    path.parent().is_some_and(|p| p.ends_with("tests"))
        && name.strip_prefix("ex").is_some_and(|n| n.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<(usize, String)> {
        let mut found = Found::default();
        check(Path::new(path), text, &mut found);
        found.0.into_iter().map(|v| (v.line, v.what)).collect()
    }

    #[test]
    fn unsafe_only_in_sys() {
        let text = "//! x\n#![allow(unsafe_code, reason = \"because\")]\n";
        assert_eq!(whats("labs/a/src/sys.rs", text), []);
        assert_eq!(whats("labs/a/src/sys/map.rs", text), []);
        assert_eq!(whats("labs/a/src/lib.rs", text), [(2, "allows unsafe code outside sys.rs".into())]);
    }

    #[test]
    fn a_spec_decides_for_its_exercise() {
        let text = "//! x\n#[allow(unsafe_code, reason = \"because\")]\nmod exercise;\n";
        assert_eq!(whats("labs/a/tests/ex1.rs", text), []);
        assert_eq!(whats("labs/a/tests/lab.rs", text).len(), 1);
        assert_eq!(whats("labs/a/tests/lab.rs", &text.replace("allow", "forbid")), []);
    }

    #[test]
    fn long_files_and_things_left_to_do() {
        let long = "x\n".repeat(331);
        assert_eq!(whats("labs/a/src/lib.rs", &long), [(331, "331 lines".into())]);
        assert_eq!(whats("labs/a/src/other.rs", &long), []);
        let left = format!("// {}: later\n", concat!("TO", "DO"));
        assert_eq!(whats("labs/a/src/x.rs", &left).len(), 1);
    }
}
