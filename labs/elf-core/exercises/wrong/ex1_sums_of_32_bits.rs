//! Fails `a_lie_is_reported_and_ends_it`: lengths are padded as u32, and one close to the largest becomes 0.

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

const HEADER: usize = 12;

/// The notes of a segment, one after the other; after something broken, no more.
#[derive(Debug)]
pub struct Notes<'a> {
    bytes: &'a [u8],
    /// Where the next note starts: at the segment's length, or beyond it, there is none.
    at: usize,
    pad: usize,
}

impl<'a> Notes<'a> {
    /// `align` is the segment's `p_align`: 8 means 8, anything else means 4.
    pub fn new(bytes: &'a [u8], align: u64) -> Self {
        Self { bytes, at: 0, pad: if align == 8 { 8 } else { 4 } }
    }

    /// One note, and where the one after it starts.
    fn read(&self, at: usize) -> Result<(Note<'a>, usize), Broken> {
        let rest = &self.bytes[at..];
        let Some((header, after)) = rest.split_first_chunk::<HEADER>() else {
            return Err(Broken::Header { at, left: rest.len() });
        };
        let word = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let (namesz, descsz, kind) = (word(0), word(4), word(8));
        let (name_len, desc_len) = (namesz as usize, (descsz.wrapping_add(3) & !3).min(descsz) as usize);

        let Some(name) = after.get(..name_len) else {
            return Err(Broken::Name { at, says: namesz, left: after.len() });
        };
        // What is padded is the offset in the segment, not the length: with 8, the two differ.
        let desc_at = (at + HEADER + name_len).next_multiple_of(self.pad);
        let after = self.bytes.get(desc_at..).unwrap_or_default();
        let Some(desc) = after.get(..desc_len) else {
            return Err(Broken::Desc { at, says: descsz, left: after.len() });
        };
        let owner = name.split(|b| *b == 0).next().unwrap_or_default();
        // The last note's padding need not be there: then the next one would start beyond the end.
        Ok((Note { owner, kind, desc }, (desc_at + desc_len).next_multiple_of(self.pad)))
    }
}

impl<'a> Iterator for Notes<'a> {
    type Item = Result<Note<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let read = self.read(self.at);
        self.at = read.map_or(usize::MAX, |(_, next)| next);
        Some(read.map(|(note, _)| note))
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
pub fn mapped_files(desc: &[u8]) -> Option<Vec<Mapped<'_>>> {
    let word = |bytes: &[u8], i: usize| -> Option<u64> {
        bytes.get(8 * i..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
    };
    let (count, page) = (usize::try_from(word(desc, 0)?).ok()?, word(desc, 1)?);
    // The table must be there before anything is made as long as it says.
    let (table, mut paths) = desc[16..].split_at_checked(count.checked_mul(24)?)?;
    let mut files = Vec::with_capacity(count);
    for line in table.chunks_exact(24) {
        let end = paths.iter().position(|b| *b == 0)?;
        let (start, stop, offset) = (word(line, 0)?, word(line, 1)?, word(line, 2)?.checked_mul(page)?);
        files.push(Mapped { start, end: stop, offset, path: &paths[..end] });
        paths = &paths[end + 1..];
    }
    Some(files)
}
