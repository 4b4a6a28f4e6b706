//! Spec of exercise 1: walk the notes.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex1.rs"]
mod exercise;

use std::fs;
use std::process::{Command, Stdio};

use elf_core::gcore::Stopped;
use elf_core::source::Source;
use elf_core::{Core, writer};
use exercise::{Note, Notes};
use kit::spec::property;
use kit::stats::SplitMix;

/// A note as this spec writes it: owner, type, desc.
type Plain = (Vec<u8>, u32, Vec<u8>);

/// The exercise's `Broken`, with an equality of this spec's own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Broken {
    Header { at: usize, left: usize },
    Name { at: usize, says: u32, left: usize },
    Desc { at: usize, says: u32, left: usize },
}

impl From<exercise::Broken> for Broken {
    fn from(theirs: exercise::Broken) -> Self {
        match theirs {
            exercise::Broken::Header { at, left } => Self::Header { at, left },
            exercise::Broken::Name { at, says, left } => Self::Name { at, says, left },
            exercise::Broken::Desc { at, says, left } => Self::Desc { at, says, left },
        }
    }
}

/// A mapped file: start, end, offset, path.
type Mapped = (u64, u64, u64, Vec<u8>);

fn mapped_files(desc: &[u8]) -> Option<Vec<Mapped>> {
    let files = exercise::mapped_files(desc)?;
    Some(files.iter().map(|f| (f.start, f.end, f.offset, f.path.to_vec())).collect())
}

/// Lays out notes in a segment, padded to `pad`; and where each note, and each desc, starts.
fn segment(notes: &[Plain], pad: usize) -> (Vec<u8>, Vec<(usize, usize)>) {
    let (mut bytes, mut places) = (Vec::new(), Vec::new());
    for (owner, kind, desc) in notes {
        let at = bytes.len();
        for word in [owner.len() as u32 + 1, desc.len() as u32, *kind] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(owner);
        bytes.push(0);
        // The padding is no zeros: it is not to be looked at.
        bytes.resize(bytes.len().next_multiple_of(pad), 0xaa);
        places.push((at, bytes.len()));
        bytes.extend(desc);
        bytes.resize(bytes.len().next_multiple_of(pad), 0xaa);
    }
    (bytes, places)
}

/// Walks, with an end even where the exercise has none.
fn walk(bytes: &[u8], align: u64) -> Vec<Result<Plain, Broken>> {
    let notes = Notes::new(bytes, align).take(bytes.len() / 12 + 2);
    notes
        .map(|n| match n {
            Ok(Note { owner, kind, desc }) => Ok((owner.to_vec(), kind, desc.to_vec())),
            Err(broken) => Err(broken.into()),
        })
        .collect()
}

/// Some notes whose names and descs have all lengths there are modulo 8, in the order that the seed says.
fn some_notes() -> Vec<Plain> {
    let mut random = SplitMix(kit::spec::seed());
    let mut notes: Vec<Plain> = (0..24)
        .map(|i| {
            let owner = (0..1 + i % 8).map(|c| b'A' + c as u8).collect();
            (owner, random.next_u64() as u32 | 1, vec![i as u8; i * 5 % 24])
        })
        .collect();
    for i in (1..notes.len()).rev() {
        notes.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
    }
    notes
}

fn good(notes: &[Plain]) -> Vec<Result<Plain, Broken>> {
    notes.iter().cloned().map(Ok).collect()
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex1.rs"]
fn a_note_has_three_parts() {
    kit::spec::run(|| {
        // GNU needs no padding, neither by 4 nor by 8.
        let one = [(b"GNU".to_vec(), 3, vec![1, 2, 3, 4, 5, 6, 7, 8])];
        let what = property(
            "owner, type and desc are what was written",
            "in which order are the three words, and which of the bytes of the name is not of the name?",
        );
        what.same(good(&one), walk(&segment(&one, 4).0, 4));
        property("a segment of nothing has no notes", "what if no byte is left?").same(vec![], walk(&[], 4));
        let empty = [(b"X".to_vec(), 7, vec![])];
        property("a desc may be empty", "is 0 bytes a lie?")
            .same(good(&empty), walk(&segment(&empty, 4).0, 4));
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex1.rs"]
fn name_and_desc_are_padded() {
    kit::spec::run(|| {
        let notes = some_notes();
        for align in [4, 0, 1] {
            property(
                format!("with p_align {align}, name and desc are padded to 4 bytes"),
                "the next part starts at a multiple of 4; what of a length that is one already?",
            )
            .same(good(&notes), walk(&segment(&notes, 4).0, align));
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex1.rs"]
fn eight_is_counted_from_the_segment() {
    kit::spec::run(|| {
        let notes = some_notes();
        property(
            "with p_align 8, each part starts at a multiple of 8 from the segment's start",
            "12 bytes of header and 4 of name: where does the desc start? Is it the length that is rounded up?",
        )
        .same(good(&notes), walk(&segment(&notes, 8).0, 8));
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex1.rs"]
fn a_lie_is_reported_and_ends_it() {
    kit::spec::run(|| {
        let notes = some_notes();
        let (bytes, places) = segment(&notes, 4);
        // Lengths that a sum of 32 bits, or one with the padding, makes small again.
        for says in [bytes.len() as u32, 0x7fff_ffff, 0xffff_fff0, 0xffff_fffd, u32::MAX] {
            let (at, desc) = places[10];
            let mut name = bytes.clone();
            name[at..at + 4].copy_from_slice(&says.to_le_bytes());
            let mut expected = good(&notes[..10]);
            expected.push(Err(Broken::Name { at, says, left: bytes.len() - at - 12 }));
            property(
                "a name that leaves the segment is reported, and no note follows",
                "what do you compare the length with before you cut, and can the sum overflow?",
            )
            .same(expected, walk(&name, 4));

            let mut lies = bytes.clone();
            lies[at + 4..at + 8].copy_from_slice(&says.to_le_bytes());
            let mut expected = good(&notes[..10]);
            expected.push(Err(Broken::Desc { at, says, left: bytes.len() - desc }));
            property(
                "a desc that leaves the segment is reported, and no note follows",
                "what do you compare the length with before you cut, and can the sum overflow?",
            )
            .same(expected, walk(&lies, 4));
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex1.rs"]
fn cut_anywhere() {
    kit::spec::run(|| {
        let notes = some_notes();
        for pad in [4, 8] {
            let (bytes, places) = segment(&notes, pad);
            for cut in 0..bytes.len() {
                // The note that the cut is in, or in whose last padding it is.
                let i = places.iter().rposition(|(at, _)| *at <= cut).unwrap_or(0);
                let ((at, desc), (owner, _, content)) = (places[i], &notes[i]);
                let (namesz, descsz) = (owner.len() as u32 + 1, content.len() as u32);
                let mut expected = good(&notes[..i]);
                let left = cut - at;
                if left >= 12 + namesz as usize && cut >= desc + content.len() {
                    expected.push(Ok(notes[i].clone()));
                } else if left >= 12 + namesz as usize && (cut >= desc || descsz > 0) {
                    let left = cut.saturating_sub(desc);
                    expected.push(Err(Broken::Desc { at, says: descsz, left }));
                } else if left >= 12 + namesz as usize {
                    // An empty desc whose place is beyond the cut: nothing of it is missing.
                    expected.push(Ok(notes[i].clone()));
                } else if left >= 12 {
                    expected.push(Err(Broken::Name { at, says: namesz, left: left - 12 }));
                } else if left > 0 {
                    expected.push(Err(Broken::Header { at, left }));
                }
                let seen = walk(&bytes[..cut], pad as u64);
                let same = expected.iter().zip(&seen).take_while(|(a, b)| a == b).count();
                property(
                    "a segment that was cut off still gives what is whole, and says what is not",
                    "what is missing: a header, a name, a desc, or only padding that nobody reads?",
                )
                .holds(
                    expected == seen,
                    format!(
                        "cut after {cut} bytes, padded to {pad}: note {same} is {:?}",
                        expected.get(same)
                    ),
                    format!("{:?}", seen.get(same)),
                );
            }
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex1.rs"]
fn files_are_a_table_and_then_names() {
    kit::spec::run(|| {
        let lines: [Mapped; 3] = [
            (0x40_0000, 0x40_3000, 0, b"/usr/bin/x".to_vec()),
            (0x7f00_0000_0000, 0x7f00_0000_1000, 0x2000, b"/lib/a b.so".to_vec()),
            (0x7f00_0000_2000, 0x7f00_0000_3000, 0x7000, b"/lib/a b.so".to_vec()),
        ];
        let desc = writer::files(&lines);
        let table = property("each line has its path, and its offset in bytes", "which unit has the offset?");
        table.same(Some(lines.to_vec()), mapped_files(&desc));
        let short =
            property("a table that says more than it holds is none", "is there a byte for each line?");
        for cut in 0..desc.len() {
            short.same(None, mapped_files(&desc[..cut]));
        }
        for count in [4, 1 << 40, u64::MAX / 24 + 1, u64::MAX] {
            let mut lies = desc.clone();
            lies[..8].copy_from_slice(&u64::to_le_bytes(count));
            short.same(None, mapped_files(&lies));
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex1.rs"]
fn the_notes_of_a_snapshot() {
    kit::spec::run(|| {
        let mut child =
            Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().expect("sleep(1) starts");
        let path = std::env::temp_dir().join(format!("ex1-{}.core", std::process::id()));
        let pid = child.id() as i32;
        // Past its execve: before it, the mappings would be ours.
        while !fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sleep\n") {
            std::thread::yield_now();
        }
        let written = Stopped::all_of(pid)
            .and_then(|s| s.write(&path).map_err(|e| kit::SysError::new(e.to_string(), 0)));
        let _ = child.kill();
        let _ = child.wait();
        let bytes = fs::read(&path);
        let _ = fs::remove_file(&path);
        written.expect("the lab's gcore works here");
        let bytes = bytes.expect("a core that was just written");

        let core = Core::read(Source::bytes(bytes.clone())).expect("the lab reads its own core");
        let notes = core.segments.iter().find(|s| s.is_note()).expect("a core has notes");
        let area = &bytes[notes.offset as usize..][..notes.filesz as usize];
        let expected: Vec<Result<Plain, Broken>> = core
            .notes
            .iter()
            .map(|n| Ok((n.owner.name().as_bytes().to_vec(), n.kind, n.desc(&core.source, u64::MAX))))
            .collect();
        let seen = walk(area, notes.align);
        property(
            "of a real core, the notes are those that the lab finds",
            "which is the first that differs?",
        )
        .holds(
            seen == expected,
            format!("{} notes", expected.len()),
            format!(
                "{} notes, the same up to {}",
                seen.len(),
                expected.iter().zip(&seen).take_while(|(a, b)| a == b).count()
            ),
        );
        let desc = expected.iter().flatten().find(|n| n.1 == elf_core::s2_notes::FILE).map(|n| n.2.clone());
        let files = mapped_files(desc.as_deref().unwrap_or_default()).unwrap_or_default();
        let paths: Vec<(u64, u64)> = files.iter().map(|f| (f.2, f.1 - f.0)).collect();
        let lab: Vec<(u64, u64)> = core.process.files.iter().map(|f| (f.offset, f.end - f.start)).collect();
        property("of a real core, the mapped files are those that the lab finds", "what is left over?")
            .same(lab, paths);
    });
}
