//! Drawings of this lab's own: page tables, and histograms side by side.

use std::fmt::Write as _;

use kvm_hello::paging::{Format, PRESENT, Walk};

/// The walk, a line a table.
pub fn walk_text(virt: u64, walk: &Walk, host: u64) -> String {
    let mut text = format!("guest-virtual {virt:#x}\n");
    for step in &walk.steps {
        let name = Format::table_name(step.level);
        let bits = entry_bits(step.entry);
        let goes =
            if step.entry & PRESENT == 0 { "nowhere".into() } else { format!("{:#x}", step.entry & !0xfff) };
        let _ = writeln!(text, "  {name:<4} at {:#7x}  [{:>3}]  -> {goes:<8} {bits}", step.table, step.index);
    }
    if let Some(physical) = walk.physical {
        let offset = virt & (walk.page - 1);
        let _ = writeln!(text, "  + offset {offset:#x} in a page of {} KiB", walk.page >> 10);
        let _ = writeln!(text, "guest-physical {physical:#x}");
        let _ = writeln!(text, "  + {host:#x}, where the mapping begins");
        let _ = write!(text, "host-virtual {:#x}", host + physical);
    }
    text
}

/// The low bits of an entry, by letter.
fn entry_bits(entry: u64) -> String {
    let names = ["present", "write", "user"];
    let set: Vec<_> =
        names.iter().enumerate().filter(|(bit, _)| entry >> bit & 1 == 1).map(|(_, n)| *n).collect();
    set.join(" ")
}

/// The walk as tables beside each other, the used entry marked, arrows from one to the next.
pub fn walk_svg(virt: u64, walk: &Walk, host: u64) -> String {
    const W: usize = 150;
    let (count, top, height) = (walk.steps.len(), 40, 150);
    let width = (count + 1) * W + 10;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} 250\" role=\"img\" font-family=\"monospace\" font-size=\"11\" fill=\"currentColor\">\
         <title>page-table walk of {virt:#x}</title>\
         <text x=\"5\" y=\"16\">guest-virtual {virt:#x}</text>"
    );
    for (i, step) in walk.steps.iter().enumerate() {
        let entries = if count == 2 { 1024 } else { 512 };
        let x = 5 + i * W;
        let y = top + 8 + (step.index as usize * (height - 26)) / entries;
        let name = Format::table_name(step.level);
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"{top}\" width=\"100\" height=\"{height}\" fill=\"none\" stroke=\"currentColor\"/>\
             <rect x=\"{x}\" y=\"{y}\" width=\"100\" height=\"16\" fill=\"currentColor\" fill-opacity=\"0.15\" stroke=\"currentColor\"/>\
             <text x=\"{}\" y=\"{}\">[{}] {:#x}</text>\
             <text x=\"{x}\" y=\"{}\">{name} at {:#x}</text>",
            x + 4,
            y + 12,
            step.index,
            step.entry & !0xfff,
            top + height + 16,
            step.table,
        );
        let (x1, y1, x2) = (x + 100, y + 8, x + W);
        let _ = write!(
            svg,
            "<path d=\"M{x1} {y1} C {} {y1} {} {} {x2} {}\" fill=\"none\" stroke=\"currentColor\"/>\
             <circle cx=\"{x2}\" cy=\"{}\" r=\"3\"/>",
            x1 + 25,
            x2 - 25,
            top + 4,
            top + 4,
            top + 4
        );
    }
    let x = 5 + count * W;
    if let Some(physical) = walk.physical {
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"{top}\" width=\"130\" height=\"{height}\" fill=\"none\" stroke=\"currentColor\" stroke-dasharray=\"4 3\"/>\
             <text x=\"{}\" y=\"{}\">page, {} KiB</text><text x=\"{}\" y=\"{}\">+ {:#x}</text>\
             <text x=\"{x}\" y=\"{}\">physical {physical:#x}</text>\
             <text x=\"5\" y=\"240\">host-virtual {host:#x} + {physical:#x} = {:#x}</text>",
            x + 6,
            top + 18,
            walk.page >> 10,
            x + 6,
            top + 36,
            virt & (walk.page - 1),
            top + height + 16,
            host + physical,
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Logarithmic buckets: how many samples fall into each quarter of a power of ten from 100 ns on.
pub const BUCKETS: usize = 20;

const BOUNDS: [u64; 4] = [178, 316, 562, 1000];

/// Counts samples (nanoseconds) by bucket; the first and last take what lies outside.
pub fn histogram(samples: &[u64]) -> [usize; BUCKETS] {
    let mut counts = [0; BUCKETS];
    for sample in samples {
        // The upper bounds of the buckets are 100 ns times 10^(1/4), 10^(2/4), …
        let bucket = (0..BUCKETS - 1)
            .find(|b| *sample < BOUNDS[b % 4] * 10u64.pow(*b as u32 / 4))
            .unwrap_or(BUCKETS - 1);
        counts[bucket] += 1;
    }
    counts
}

/// Histograms as one line each: the denser the character, the more samples.
pub fn histograms_text(rows: &[(&str, [usize; BUCKETS])]) -> String {
    const SHADES: &[u8] = b" .:-=+*#";
    let mut text = format!("{:<14}  0.1us   1us     10us    100us   1ms\n", "");
    for (name, counts) in rows {
        let most = counts.iter().copied().max().unwrap_or(0).max(1);
        // By the logarithm, so that a tail of a few samples still shows.
        let shade =
            |n: usize| if n == 0 { 0 } else { 1 + (6 * n.ilog2() / most.ilog2().max(1)).min(6) as usize };
        let strip: String = counts.iter().flat_map(|n| [SHADES[shade(*n)] as char; 2]).collect();
        let _ = writeln!(text, "{:<14} |{strip}|", short(name));
    }
    text.pop();
    text
}

/// A way's name without the words that the others do not need: 14 columns, so that a line fits --big.
fn short(name: &str) -> String {
    [" write", " store", " round trip"].iter().fold(name.to_owned(), |name, word| name.replace(word, ""))
}

/// Histograms as small multiples.
pub fn histograms_svg(rows: &[(&str, [usize; BUCKETS])]) -> String {
    let (bar, height, left) = (24, 44, 170);
    let width = left + BUCKETS * bar + 20;
    let total = rows.len() * (height + 10) + 30;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {total}\" role=\"img\" font-size=\"12\" fill=\"currentColor\"><title>histograms of exit costs</title>"
    );
    for (i, (name, counts)) in rows.iter().enumerate() {
        let base = (i + 1) * (height + 10);
        let most = counts.iter().copied().max().unwrap_or(0).max(1);
        let _ = write!(svg, "<text x=\"5\" y=\"{base}\">{name}</text>");
        for (b, n) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            let tall = (height * n / most).max(1);
            let _ = write!(
                svg,
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{tall}\" fill-opacity=\"0.7\"><title>{n}</title></rect>",
                left + b * bar,
                base - tall,
                bar - 2
            );
        }
        let _ = write!(
            svg,
            "<path d=\"M{left} {base} H{}\" stroke=\"currentColor\" stroke-opacity=\"0.4\"/>",
            width - 20
        );
    }
    for (power, label) in ["0.1 us", "1 us", "10 us", "100 us", "1 ms"].iter().enumerate() {
        let _ = write!(svg, "<text x=\"{}\" y=\"{}\">{label}</text>", left + power * 4 * bar, total - 8);
    }
    svg.push_str("</svg>");
    svg
}
