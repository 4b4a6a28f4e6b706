//! Takes from a submission the files of an exercise, and nothing else: never through a symbolic link, never what is not a
//! file of text of a sane size.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::homework::catalogue::Exercise;

/// Bytes that one file may have.
const LARGEST: u64 = 1 << 20;

/// Something to grade.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// As a report is called.
    pub(crate) name: String,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A folder like a checkout, a lab, or its `exercises/`.
    Folder(PathBuf),
    Files(Vec<PathBuf>),
    /// Nothing that can be graded, and why.
    Nothing(String),
}

/// What came of looking for one file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Text(Vec<u8>),
    Missing,
    Refused(String),
}

impl Submission {
    /// Looks for one of an exercise's files. `one_lab`: whether it is clear which lab a bare file is for.
    pub(crate) fn take(&self, exercise: &Exercise, file: &str, one_lab: bool) -> Taken {
        match &self.what {
            What::Nothing(why) => Taken::Refused(why.clone()),
            What::Files(paths) => {
                let path = paths.iter().find(|p| p.file_name().is_some_and(|n| n == file));
                path.map_or(Taken::Missing, |p| read(p, file))
            }
            What::Folder(root) => {
                let lab = &exercise.lab;
                let mut places = vec![
                    format!("labs/{lab}/exercises/{file}"),
                    format!("{lab}/exercises/{file}"),
                    format!("{lab}/{file}"),
                ];
                if one_lab {
                    places.extend([format!("exercises/{file}"), file.to_owned()]);
                }
                for place in places {
                    match beneath(root, &place) {
                        Beneath::Absent => (),
                        Beneath::Link(link) => return Taken::Refused(format!("{link} is a symbolic link")),
                        Beneath::There(path) => return read(&path, &place),
                    }
                }
                Taken::Missing
            }
        }
    }
}

enum Beneath {
    Absent,
    Link(String),
    There(PathBuf),
}

/// Follows a path down, one name at a time, and no link.
fn beneath(root: &Path, place: &str) -> Beneath {
    let mut path = root.to_owned();
    for name in place.split('/') {
        path.push(name);
        match path.symlink_metadata() {
            Err(_) => return Beneath::Absent,
            Ok(kind) if kind.is_symlink() => {
                return Beneath::Link(path.strip_prefix(root).unwrap_or(&path).display().to_string());
            }
            Ok(_) => (),
        }
    }
    Beneath::There(path)
}

/// Reads a file that somebody else made.
fn read(path: &Path, name: &str) -> Taken {
    let refused = |why: &str| Taken::Refused(format!("{name} {why}"));
    match path.symlink_metadata() {
        Ok(kind) if kind.is_symlink() => return refused("is a symbolic link"),
        Ok(kind) if !kind.is_file() => return refused("is not a file"),
        Ok(kind) if kind.len() > LARGEST => return refused("is larger than 1 MB"),
        Ok(_) => (),
        Err(e) => return refused(&format!("cannot be read: {e}")),
    }
    // O_NONBLOCK: nobody waits for the other end, should it be a pipe by now.
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let mut text = Vec::new();
    match file.and_then(|f| f.take(LARGEST + 1).read_to_end(&mut text)) {
        Err(e) => refused(&format!("cannot be read: {e}")),
        Ok(n) if n as u64 > LARGEST => refused("is larger than 1 MB"),
        Ok(_) if std::str::from_utf8(&text).is_err() => refused("is not UTF-8"),
        Ok(_) => Taken::Text(text),
    }
}

/// The submissions of a class folder: each folder in it, by name. What is no folder is named in the second list.
pub(crate) fn class(folder: &Path) -> anyhow::Result<(Vec<Submission>, Vec<String>)> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if name.starts_with('.') {
            continue;
        }
        let what = if kind.is_dir() {
            What::Folder(entry.path())
        } else if kind.is_symlink() {
            What::Nothing("the submission is a symbolic link".into())
        } else {
            others.push(name);
            continue;
        };
        found.push(Submission { name, what });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((found, others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("benchtop-intake-{}-{name}", std::process::id()));
            fs::create_dir_all(folder.join("exercises")).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn refused(path: &Path) -> String {
        match read(path, "ex1.rs") {
            Taken::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_files_of_text_are_taken() {
        let folder = Folder::new("kinds");
        let file = folder.0.join("ex1.rs");
        fs::write(&file, "fn x() {}").unwrap();
        assert_eq!(read(&file, "ex1.rs"), Taken::Text(b"fn x() {}".to_vec()));
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert_eq!(refused(&file), "ex1.rs is not UTF-8");
        File::create(&file).unwrap().set_len(LARGEST + 1).unwrap();
        assert_eq!(refused(&file), "ex1.rs is larger than 1 MB");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(refused(&file), "ex1.rs is not a file");
        fs::remove_dir(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(refused(&file), "ex1.rs is not a file");
        fs::remove_file(&file).unwrap();
        symlink("/etc/passwd", &file).unwrap();
        assert_eq!(refused(&file), "ex1.rs is a symbolic link");
    }

    #[test]
    fn no_link_is_followed_on_the_way_down() {
        let folder = Folder::new("links");
        symlink("/etc", folder.0.join("labs")).unwrap();
        assert!(matches!(beneath(&folder.0, "labs/passwd"), Beneath::Link(l) if l == "labs"));
        assert!(matches!(beneath(&folder.0, "exercises"), Beneath::There(_)));
        assert!(matches!(beneath(&folder.0, "exercises/ex1.rs"), Beneath::Absent));
    }

    #[test]
    fn a_class_is_its_folders() {
        let folder = Folder::new("class");
        symlink("/etc", folder.0.join("mallory")).unwrap();
        fs::write(folder.0.join("notes.txt"), "").unwrap();
        fs::write(folder.0.join(".hidden"), "").unwrap();
        let (found, others) = class(&folder.0).unwrap();
        let names: Vec<_> = found.iter().map(|s| s.name.as_str()).collect();
        assert_eq!((names, others), (vec!["exercises", "mallory"], vec!["notes.txt".to_owned()]));
        assert!(matches!(found[1].what, What::Nothing(_)));
    }
}
