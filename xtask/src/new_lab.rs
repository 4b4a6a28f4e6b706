//! `cargo xtask new-lab NAME`: a lab that builds, runs, passes its tests and is listed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{Usage, book, paths, report};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The lab's name: lower-case letters, digits and single dashes, as `kvm-hello`
    name: String,
}

/// The template is a lab of this name; a new lab is the template with another name.
const TEMPLATE: &str = "lab-template";
/// The one file of the template that does not go into the lab's folder.
const CHAPTER: &str = "CHAPTER.md";

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    let name = &options.name;
    validate(name).map_err(Usage)?;
    let root = paths::root();
    let lab = root.join("labs").join(name);
    let chapter = root.join("docs/labs").join(format!("{name}.md"));
    for path in [&lab, &chapter] {
        if path.symlink_metadata().is_ok() {
            bail!(Usage(format!("{} is there already, and stays as it is", paths::shown(path))));
        }
    }
    if taken(name)? {
        bail!(Usage(format!("a package called {name} is in the workspace already; take another name")));
    }
    // Made beside its place and moved there whole: a full disk leaves no half a lab behind.
    let template = root.join("xtask/template");
    let partial = root.join("labs").join(format!(".{name}.partial"));
    let made = copy(&template, &partial, name).and_then(|()| {
        fs::remove_file(partial.join(CHAPTER))?;
        fs::rename(&partial, &lab)?;
        Ok(())
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    made?;
    fs::create_dir_all(root.join("docs/labs"))?;
    let text = fs::read_to_string(template.join(CHAPTER)).context("xtask/template/CHAPTER.md")?;
    fs::write(&chapter, renamed(&text, name))?;
    add_to_changelog(&root.join("CHANGELOG.md"), name)?;
    book::generate()?;
    report::print(&format!(
        "made labs/{name} and docs/labs/{name}.md; the README, the CHANGELOG and the book name them\n\n  \
         cargo xtask run {name}\n  cargo test -p {name}\n  cargo xtask tidy\n\n\
         next: say in labs/{name}/Cargo.toml what it asks and needs, in src/lib.rs how it works\n"
    ))?;
    Ok(0)
}

/// Why `name` is not the name of a lab.
fn validate(name: &str) -> Result<(), String> {
    let fine = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let dashes = name.split('-').all(|part| !part.is_empty());
    if !fine || !dashes || !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.len() > 24 {
        return Err(format!(
            "{name:?} is no name for a lab\n  \
             lower-case letters, digits and single dashes, a letter first, at most 24 characters"
        ));
    }
    // Words that cannot be a crate: Rust's own, and those that cargo keeps for itself.
    let reserved = "abstract as async await become box break const continue crate do dyn else enum extern false final \
        fn for gen if impl in let loop macro match mod move mut priv pub ref return self static struct super trait \
        true try type typeof unsafe unsized use virtual where while yield \
        alloc build core debug deps examples incremental proc-macro release std test";
    if reserved.split_whitespace().any(|word| word == name) {
        return Err(format!("{name:?} is a word of Rust or of cargo; take another name"));
    }
    Ok(())
}

/// Whether the lock file has a package of that name: two cannot be told apart on cargo's command line.
fn taken(name: &str) -> anyhow::Result<bool> {
    let lock = fs::read_to_string(paths::root().join("Cargo.lock")).context("Cargo.lock")?;
    Ok(lock.lines().any(|l| l == format!("name = \"{name}\"")))
}

/// The template's text with the lab's name in it: as a package, as a crate, as a title.
fn renamed(text: &str, name: &str) -> String {
    text.replace(TEMPLATE, name)
        .replace(&TEMPLATE.replace('-', "_"), &name.replace('-', "_"))
        .replace("Lab template", &title(name))
}

/// `My lab` of `my-lab`.
fn title(name: &str) -> String {
    let words = name.replace('-', " ");
    words[..1].to_uppercase() + &words[1..]
}

fn copy(from: &Path, to: &Path, name: &str) -> anyhow::Result<()> {
    fs::create_dir(to).with_context(|| paths::shown(to))?;
    for entry in fs::read_dir(from).with_context(|| paths::shown(from))? {
        let path = entry?.path();
        let target: PathBuf = to.join(path.file_name().context("a file of a folder has a name")?);
        if path.is_dir() {
            copy(&path, &target, name)?;
        } else {
            let text = fs::read_to_string(&path).with_context(|| paths::shown(&path))?;
            fs::write(&target, renamed(&text, name)).with_context(|| paths::shown(&target))?;
        }
    }
    Ok(())
}

/// A line below the first heading of the changelog that has a list.
fn add_to_changelog(path: &Path, name: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).context("CHANGELOG.md")?;
    let line = format!("- `{name}`: what does a system call cost?\n");
    let at = text.find("\n- ").map_or(text.len(), |at| at + 1);
    fs::write(path, format!("{}{line}{}", &text[..at], &text[at..])).context("CHANGELOG.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["demo", "kvm-hello", "a1-b2"] {
            assert_eq!(validate(good), Ok(()));
        }
        for bad in
            ["", "-a", "a-", "a--b", "A", "a_b", "1a", "a b", "../x", "a/b", "é", "match", "test", "std"]
        {
            assert!(validate(bad).is_err(), "{bad}");
        }
        assert!(validate(&"a".repeat(25)).is_err());
    }

    #[test]
    fn the_name_goes_everywhere() {
        assert_eq!(renamed("lab-template lab_template Lab template", "my-demo"), "my-demo my_demo My demo");
    }
}
