//! Small texts and drawings that several views share.

use elf_core::s1_header::Segment;
use elf_core::s6_unwind::Backtrace;
use elf_core::s7_symbols::{Fold, Place, Symbols, fold};

/// `0x7ffd1000,64` or `4096,0x40`.
pub fn range(text: &str) -> Result<(u64, u64), String> {
    let (address, len) = text.split_once(',').ok_or("address and length, with a comma between")?;
    let len = number(len)?;
    if len > 1 << 20 {
        return Err("at most 1 MiB at a time".into());
    }
    Ok((number(address)?, len))
}

fn number(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| format!("{text:?}: {e}"))
}

/// `0x0a0b` as bytes, anything else as text.
pub fn needle(text: &str) -> Result<Vec<u8>, String> {
    match text.strip_prefix("0x") {
        Some(hex) if hex.is_ascii() && hex.len() % 2 == 0 && !hex.is_empty() => (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).map_err(|e| format!("{text:?}: {e}")))
            .collect(),
        Some(_) => Err(format!("{text:?}: two hex digits for each byte")),
        None if text.is_empty() => Err("nothing to look for".into()),
        None => Ok(text.as_bytes().to_vec()),
    }
}

/// `1 thread`, `2 threads`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes as people say them.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Whether the output is for programs (`--json`): then nothing is left out, shortened or rounded.
pub fn for_programs() -> bool {
    std::env::args().any(|a| a == "--json")
}

/// How many of something to show: for programs, or with -v, all.
pub fn most(s: &kit::Session, usual: usize) -> usize {
    if for_programs() || s.verbose() > 0 { usize::MAX } else { usual }
}

/// A column's text, cut to its width where people read it.
pub fn cell(text: &str, width: usize) -> String {
    if for_programs() { text.to_owned() } else { cut(text, width) }
}

/// At most `width` characters, the middle left out.
pub fn cut(text: &str, width: usize) -> String {
    let n = text.chars().count();
    if n <= width {
        return text.to_owned();
    }
    let (head, tail) = ((width - 1) * 2 / 3, (width - 1) - (width - 1) * 2 / 3);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(n - tail)).collect()
}

/// A function's name without type arguments and crate-internal detail: `<a::B as c::D>::e::<F>` is `e`.
pub fn brief(function: &str) -> String {
    let mut depth = 0_i32;
    let plain: String = function
        .chars()
        .filter(|c| {
            match c {
                '<' => depth += 1,
                '>' => depth -= 1,
                _ => return depth == 0,
            }
            false
        })
        .collect();
    let parts: Vec<&str> = plain.split("::").filter(|p| !p.is_empty()).collect();
    let short = parts[parts.len().saturating_sub(2)..].join("::");
    if short.is_empty() { function.to_owned() } else { short }
}

/// A place in one line: `read_price (victim.rs:212)`.
pub fn place(p: &Place) -> String {
    match &p.line {
        Some(line) => format!("{} ({})", brief(&p.function), line.rsplit('/').next().unwrap_or(line)),
        None => brief(&p.function),
    }
}

/// One line of a backtrace as it is shown.
pub struct Row {
    pub number: String,
    pub trust: &'static str,
    pub function: String,
    pub line: String,
}

/// The rows of a backtrace: recursion folded (×N), inlined functions marked, Rust's own library left out unless `all`;
/// and how many were left out.
pub fn rows(trace: &Backtrace, symbols: &mut Symbols<'_>, all: bool, limit: usize) -> (Vec<Row>, usize) {
    let mut rows: Vec<Row> = Vec::new();
    let mut hidden = 0;
    let folds = fold(trace);
    for Fold { start, len, times } in &folds {
        for (i, frame) in trace.frames[*start..start + len].iter().enumerate() {
            let places = symbols.frame(frame);
            let outer = places.len() - 1;
            for (j, p) in places.iter().enumerate() {
                if p.library && !all {
                    hidden += 1;
                    continue;
                }
                if rows.len() >= limit {
                    hidden += 1;
                    continue;
                }
                let repeat =
                    if *times > 1 && i == 0 && j == 0 { format!(" ×{times}") } else { String::new() };
                rows.push(Row {
                    number: format!("#{}{repeat}", start + i),
                    trust: if j < outer { "inlined" } else { frame.trust.name() },
                    function: if for_programs() { p.function.clone() } else { brief(&p.function) },
                    line: match &p.line {
                        Some(line) if for_programs() => line.clone(),
                        Some(line) => line.rsplit('/').next().unwrap_or(line).to_owned(),
                        None => p.module.clone(),
                    },
                });
            }
        }
    }
    (rows, hidden)
}

/// Segments to scale, as text (72 columns) and as SVG: what is in the core, what was left out. Gaps in the address
/// space are not to scale: there would be nothing else to see.
pub fn segments_drawing(segments: &[Segment]) -> (String, String) {
    const COLUMNS: u64 = 70;
    let total: u64 = segments.iter().map(|s| s.memsz).sum::<u64>().max(1);
    let (mut line, mut svg, mut x, mut done, mut column) = (String::new(), String::new(), 0.0, 0_u64, 0_u64);
    for s in segments {
        let mut part = |bytes: u64, saved: bool| {
            done += bytes;
            let until = (u128::from(done) * u128::from(COLUMNS) / u128::from(total)) as u64;
            let c = match (saved, s.flags & 1 != 0, s.flags & 2 != 0) {
                (false, ..) => '.',
                (true, true, _) => 'x',
                (true, _, true) => '#',
                (true, ..) => 'r',
            };
            line.extend(std::iter::repeat_n(c, (until - column) as usize));
            column = until;
            let width = bytes as f64 / total as f64 * 700.0;
            let fill = if saved { "var(--accent, #2a6fdb)" } else { "none" };
            svg += &format!(
                "<rect x=\"{x:.2}\" y=\"10\" width=\"{width:.2}\" height=\"26\" fill=\"{fill}\" stroke=\"currentColor\" stroke-width=\"0.3\"><title>{:#x} {} {}</title></rect>",
                s.vaddr,
                s.permissions(),
                size(bytes),
            );
            x += width;
        };
        part(s.filesz, true);
        part(s.memsz.saturating_sub(s.filesz), false);
    }
    let text = format!(
        "{line}\n# in the core, writable   x in the core, code   r in the core, read-only\n. mapped, but left out: never written to, or its file has it"
    );
    let svg = format!(
        "<svg viewBox=\"0 0 700 60\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\">{svg}<text x=\"0\" y=\"54\" font-size=\"11\" fill=\"currentColor\">filled: in the core · empty: mapped, left out · {} in {} mappings</text></svg>",
        size(total),
        segments.len()
    );
    (text, svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_to_what_is_read() {
        assert_eq!(brief("elf_core::victim::read_price"), "victim::read_price");
        assert_eq!(
            brief("<alloc::boxed::Box<dyn FnOnce()> as core::ops::FnOnce<()>>::call_once"),
            "call_once"
        );
        assert_eq!(brief("main"), "main");
        assert_eq!(brief("libc.so.6+0x1234"), "libc.so.6+0x1234");
        assert_eq!(cut("abcdefghij", 5), "ab…ij");
        assert_eq!(range("0x10,32"), Ok((16, 32)));
        assert!(range("12").is_err() && range("0,0x1000000").is_err());
        assert_eq!(needle("0x0aff"), Ok(vec![10, 255]));
        assert!(needle("0xabc").is_err() && needle("").is_err());
    }
}
