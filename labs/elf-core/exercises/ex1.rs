//! Exercise 1: walk the notes. The statement is in the lab's README; `cargo xtask homework check elf-core ex1` says how
//! far you are.
//!
//! ```text
//!   namesz  descsz  type  name …  pad  desc …  pad      (three 32-bit words, least significant byte first)
//! ```
//!
//! The bytes come from a file that nobody vouches for: whatever they say, nothing here panics, loops or allocates more
//! than there are bytes. Graded are the fields, the padding for both alignments, what is reported of a lie, and the file
//! table.

/// One note: its parts, borrowed from the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'a> {
    /// Who defined the type, without the NUL that ends it.
    pub owner: &'a [u8],
    pub kind: u32,
    pub desc: &'a [u8],
}

/// Why the walk ended before the segment did. `at` is where the note starts that is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Some bytes are left, but fewer than a header's 12.
    Header { at: usize, left: usize },
    /// The name leaves the segment: it says `says` bytes, and `left` are left after the header.
    Name { at: usize, says: u32, left: usize },
    /// The desc leaves the segment: it says `says` bytes, and `left` are left after the name and its padding.
    Desc { at: usize, says: u32, left: usize },
}

/// The notes of a segment, one after the other; after something broken, no more.
#[derive(Debug)]
pub struct Notes<'a> {
    bytes: &'a [u8],
    // TODO(you): what else must be remembered between two notes?
}

impl<'a> Notes<'a> {
    /// `align` is the segment's `p_align`: 8 means 8, anything else means 4.
    pub fn new(bytes: &'a [u8], _align: u64) -> Self {
        Self { bytes }
    }
}

impl<'a> Iterator for Notes<'a> {
    type Item = Result<Note<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        let _segment = self.bytes;
        unimplemented!("TODO(you): read the header, then cut the name and the desc out of the segment")
    }
}

/// One line of `NT_FILE`: a mapped file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped<'a> {
    pub start: u64,
    pub end: u64,
    /// Where in the file, in bytes.
    pub offset: u64,
    pub path: &'a [u8],
}

/// Reads the desc of `NT_FILE`; `None` if it says more than it holds.
///
/// ```text
///   count  page size  count × (start  end  offset in pages)  count × path NUL        (64-bit words)
/// ```
pub fn mapped_files(_desc: &[u8]) -> Option<Vec<Mapped<'_>>> {
    unimplemented!("TODO(you): first the numbers, then the paths")
}
