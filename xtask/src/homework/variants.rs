//! What can stand in an exercise's place: the starter, the solution, wrong ones, and a student's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::catalogue::Exercise;
use crate::paths;

/// Files to put in the place of the exercise's own.
#[derive(Debug, Clone)]
pub(crate) struct Variant {
    /// `starter`, `solution`, `wrong-relaxed_unlock`.
    pub(crate) name: String,
    /// Name in `exercises/`, and where it is taken from.
    pub(crate) files: BTreeMap<String, PathBuf>,
    /// For a wrong one: the test that must fail, and why.
    pub(crate) fails: Option<Mistake>,
}

/// What a wrong one says of itself: ``Fails `test`: why``.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) test: String,
    pub(crate) why: String,
}

/// What the student has.
pub(crate) fn starter(exercise: &Exercise) -> anyhow::Result<Variant> {
    from_folder(exercise, "starter", &exercise.exercises())
}

/// `exercises/solutions/`
pub(crate) fn solution(exercise: &Exercise) -> anyhow::Result<Variant> {
    from_folder(exercise, "solution", &exercise.exercises().join("solutions"))
}

/// All of the exercise's files, in a folder.
fn from_folder(exercise: &Exercise, name: &str, folder: &Path) -> anyhow::Result<Variant> {
    let files: BTreeMap<_, _> = exercise.files.iter().map(|f| (f.clone(), folder.join(f))).collect();
    for path in files.values() {
        ensure!(path.is_file(), "{} is missing", paths::shown(path));
    }
    Ok(Variant { name: name.to_owned(), files, fails: None })
}

/// `exercises/wrong/`: `ex1_slug.rs`, another of the exercise's files as `ex1_slug.bpf.c`, or a folder `ex1_slug/`
/// with some of its files. What a wrong one does not have is the solution's.
pub(crate) fn wrong(exercise: &Exercise) -> anyhow::Result<Vec<Variant>> {
    let folder = exercise.exercises().join("wrong");
    let mut found: BTreeMap<String, Variant> = BTreeMap::new();
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(rest) = file.strip_prefix(&format!("{}_", exercise.id)) else { continue };
        let (slug, files) = if path.is_dir() {
            (rest.to_owned(), folder_files(exercise, &path)?)
        } else {
            let (slug, ending) = rest.split_once('.').with_context(|| paths::shown(&path))?;
            let name = format!("{}.{ending}", exercise.id);
            ensure!(
                exercise.files.contains(&name),
                "{}: {name} is no file of the exercise",
                paths::shown(&path)
            );
            (slug.to_owned(), vec![(name, path.clone())])
        };
        let fails = mistake(&path)?;
        let variant = match found.entry(slug) {
            std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => {
                let name = format!("wrong-{}", free.key());
                free.insert(Variant { name, ..solution(exercise)? })
            }
        };
        variant.files.extend(files);
        variant.fails = variant.fails.take().or(fails);
    }
    Ok(found.into_values().collect())
}

fn folder_files(exercise: &Exercise, folder: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if exercise.files.contains(&name) {
            files.push((name, entry.path()));
        } else if name != "README.md" {
            bail!("{} is no file of the exercise", paths::shown(&entry.path()));
        }
    }
    Ok(files)
}

/// What a wrong file says of itself; of a folder, what its README.md or another of its files says.
fn mistake(path: &Path) -> anyhow::Result<Option<Mistake>> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            if let Some(found) = mistake(&entry?.path())? {
                return Ok(Some(found));
            }
        }
        return Ok(None);
    }
    let text = fs::read(path).with_context(|| paths::shown(path))?;
    Ok(String::from_utf8_lossy(&text).lines().find_map(named_mistake))
}

/// ``//! Fails `a_test`: why``, in whatever kind of comment.
fn named_mistake(line: &str) -> Option<Mistake> {
    let (before, rest) = line.split_once("Fails `")?;
    let (test, why) = rest.split_once("`:")?;
    let a_comment = before.chars().all(|c| !c.is_alphanumeric());
    a_comment.then(|| Mistake { test: test.to_owned(), why: why.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_one_names_the_test_and_the_mistake() {
        let mistake = Some(Mistake { test: "a_b".into(), why: "it is late".into() });
        assert_eq!(named_mistake("//! Fails `a_b`: it is late"), mistake);
        assert_eq!(named_mistake("/* Fails `a_b`: it is late"), mistake);
        assert_eq!(named_mistake("Fails `a_b`: it is late"), mistake);
        assert_eq!(named_mistake("// which Fails `a_b`: it is late"), None);
        assert_eq!(named_mistake("//! Fails a_b"), None);
    }
}
