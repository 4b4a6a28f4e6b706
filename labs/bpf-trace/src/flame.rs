//! A flame graph: stacks that begin alike share the boxes of what they have in common, and a box is as wide as what is
//! in it. Drawn as SVG without a script: labels are cut off by their boxes, whatever the width of the page.

use crate::stacks::{Frame, Kind, Stack, one_line};

/// Boxes narrower than this share of the whole are not drawn.
const LEAST: f64 = 0.0005;
const ROW: usize = 18;
const FOOT: usize = 26;
/// Room for a file's own title.
const HEAD: usize = 26;

/// A frame with all that it called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The frame.
    pub frame: Frame,
    /// All that is in it.
    pub weight: u64,
    /// What it called, by name.
    pub children: Vec<Node>,
}

impl Node {
    /// The tree of these stacks, below a root called `name`.
    pub fn tree(name: &str, stacks: &[Stack]) -> Self {
        let mut root = Self::new(Frame::new(name, Kind::Thread));
        for stack in stacks {
            let mut at = &mut root;
            at.weight += stack.weight;
            for frame in &stack.frames {
                let i = match at.children.binary_search_by(|n| n.frame.cmp(frame)) {
                    Ok(i) => i,
                    Err(i) => {
                        at.children.insert(i, Self::new(frame.clone()));
                        i
                    }
                };
                at = &mut at.children[i];
                at.weight += stack.weight;
            }
        }
        root
    }

    fn new(frame: Frame) -> Self {
        Self { frame, weight: 0, children: Vec::new() }
    }

    /// Rows of boxes that are as heavy as `least`.
    fn height(&self, least: u64) -> usize {
        let drawn = self.children.iter().filter(|n| n.weight >= least);
        1 + drawn.map(|n| n.height(least)).max().unwrap_or(0)
    }
}

/// What is drawn.
pub struct Drawing<'a> {
    /// What it shows, for readers that cannot see it.
    pub title: &'a str,
    /// The name of the lowest box.
    pub root: &'a str,
    /// A weight in words.
    pub say: &'a dyn Fn(u64) -> String,
    /// Whether it is a file of its own, with its own colour of paper.
    pub alone: bool,
}

impl std::fmt::Debug for Drawing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drawing").field("title", &self.title).finish_non_exhaustive()
    }
}

impl Drawing<'_> {
    /// The `<svg>` element.
    pub fn svg(&self, stacks: &[Stack]) -> String {
        let tree = Node::tree(self.root, stacks);
        let least = ((tree.weight as f64 * LEAST).ceil() as u64).max(1);
        let rows = tree.height(least);
        let head = if self.alone { HEAD } else { 0 };
        let height = head + rows * ROW + FOOT;
        // In per cent and pixels: a wider page shows more of each label, and none is drawn smaller.
        let mut out = format!(
            "<svg class=\"flame\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" \
             style=\"width:100%;height:{height}px;max-width:none\" width=\"100%\" height=\"{height}\"><title>{}</title>\n\
             <style>{STYLE}{}</style>\n",
            escape(self.title),
            if self.alone { ALONE } else { "" },
        );
        if self.alone {
            let title = format!("{}: {}", self.title, (self.say)(tree.weight));
            out.push_str(&format!("<text class=\"h\" x=\"3\" y=\"17\">{}</text>\n", escape(&title)));
        }
        let mut left_out = 0;
        self.boxes(&mut out, &tree, (0, &tree), head + (rows - 1) * ROW, least, &mut left_out);
        let mut x = 0;
        for (class, word) in
            [("u0", "program"), ("k0", "kernel"), ("n", "no name"), ("s", "state"), ("t", "thread")]
        {
            let used = class != "s" || stacks.iter().any(|s| s.frames.iter().any(|f| f.kind == Kind::State));
            if used {
                let y = height - 15;
                out.push_str(&format!(
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"11\" height=\"11\"/>\
                     <text x=\"{}\" y=\"{}\">{word}</text>\n",
                    x + 15,
                    y + 10
                ));
                x += 15 + 7 * word.len() + 14;
            }
        }
        if left_out > 0 {
            let title = format!("{left_out} boxes narrower than {} % are not drawn", 100.0 * LEAST);
            out.push_str(&format!("<desc>{title}</desc>\n"));
        }
        out.push_str("</svg>");
        out
    }

    /// The box of `node`, which begins after `from` of the whole, and those above it.
    fn boxes(
        &self,
        out: &mut String,
        node: &Node,
        (from, whole): (u64, &Node),
        y: usize,
        least: u64,
        left_out: &mut usize,
    ) {
        let share = |weight: u64| 100.0 * weight as f64 / whole.weight.max(1) as f64;
        let (x, width) = (share(from), share(node.weight));
        let name = one_line(&node.frame.name);
        out.push_str(&format!(
            "<svg x=\"{x:.4}%\" y=\"{y}\" width=\"{width:.4}%\" height=\"17\" \
             style=\"width:{width:.4}%;height:17px\"><title>{} ({}, {:.1} %)</title>\
             <rect class=\"{}\" width=\"100%\" height=\"17\"/>",
            escape(&name),
            escape(&(self.say)(node.weight)),
            share(node.weight),
            class(&node.frame),
        ));
        // A letter or two say nothing: no page is wide enough for a label in a narrower box.
        if width > 1.2 {
            out.push_str(&format!("<text x=\"3\" y=\"13\">{}</text>", escape(&name)));
        }
        out.push_str("</svg>\n");
        let mut from = from;
        for child in &node.children {
            if child.weight >= least {
                self.boxes(out, child, (from, whole), y.saturating_sub(ROW), least, left_out);
            } else {
                *left_out += 1;
            }
            from += child.weight;
        }
    }
}

/// Two shades for neighbours of a kind, by name: the same function has the same one everywhere.
fn class(frame: &Frame) -> String {
    let shade = frame.name.bytes().fold(7_u8, |h, b| h.wrapping_mul(31).wrapping_add(b)) % 3;
    match frame.kind {
        Kind::User => format!("u{shade}"),
        Kind::Kernel => format!("k{shade}"),
        Kind::Nameless => "n".into(),
        Kind::State => "s".into(),
        Kind::Thread => "t".into(),
    }
}

const STYLE: &str = "\
.flame text{font:12px ui-monospace,'DejaVu Sans Mono',Menlo,monospace;fill:#1c1e21}\
.flame .h{font-weight:600}.flame rect{stroke:#fdfdfb;stroke-width:.6}\
.flame .u0{fill:#f4b183}.flame .u1{fill:#f7c59f}.flame .u2{fill:#efa678}\
.flame .k0{fill:#9cc9e8}.flame .k1{fill:#b5d8ef}.flame .k2{fill:#86bbe0}\
.flame .n{fill:#d5d6da}.flame .s{fill:#e6d3ee}.flame .t{fill:#e3e2da}\
@media (prefers-color-scheme:dark){.flame text{fill:#f2f2f2}.flame rect{stroke:#16181b}\
.flame .u0{fill:#8f4a1c}.flame .u1{fill:#a3572a}.flame .u2{fill:#7d3f15}\
.flame .k0{fill:#22597f}.flame .k1{fill:#2c6a95}.flame .k2{fill:#1b4a6b}\
.flame .n{fill:#4a4d54}.flame .s{fill:#5b3f6e}.flame .t{fill:#3d3f3a}}";

/// The paper of a file of its own.
const ALONE: &str = "\
svg.flame{background:#fdfdfb}@media (prefers-color-scheme:dark){svg.flame{background:#16181b}}";

/// Names are whatever a program says: nothing in them may be read as markup. Characters that XML has no place for
/// are gone already.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str], weight: u64) -> Stack {
        Stack { frames: names.iter().map(|n| Frame::new(*n, Kind::User)).collect(), weight }
    }

    fn drawn(stacks: &[Stack]) -> String {
        let say = |n: u64| format!("{n} samples");
        Drawing { title: "t", root: "all", say: &say, alone: true }.svg(stacks)
    }

    #[test]
    fn a_box_is_as_wide_as_what_is_in_it() {
        let svg =
            drawn(&[stack(&["sh", "main", "a"], 30), stack(&["sh", "main", "b"], 60), stack(&["x"], 10)]);
        // all, sh, main, a, b, x: from the left by name.
        for (name, x, width) in [("all", 0, 100), ("sh", 0, 90), ("a", 0, 30), ("b", 30, 60), ("x", 90, 10)] {
            let n = width;
            let title = format!("<title>{name} ({n} samples, {width}.0 %)</title>");
            let at = svg.find(&title).unwrap_or_else(|| panic!("{name}: {svg}"));
            let tag = &svg[svg[..at].rfind("<svg").unwrap()..at];
            assert!(tag.contains(&format!("x=\"{x}.0000%\"")), "{tag}");
            assert!(tag.contains(&format!("width=\"{width}.0000%\"")), "{tag}");
        }
    }

    #[test]
    fn hostile_names_stay_text() {
        let svg = drawn(&[stack(&["</title><script>alert(1)</script>", "\"&\x1b\u{0}"], 1)]);
        assert!(!svg.contains("<script") && !svg.contains('\x1b') && !svg.contains('\0'), "{svg}");
        assert!(svg.contains("&lt;script&gt;") && svg.contains("&quot;&amp;??"), "{svg}");
    }

    #[test]
    fn nothing_to_draw_is_drawn() {
        assert!(drawn(&[]).ends_with("</svg>"));
        // A stack of one in a million is left out, not drawn as nothing.
        let svg = drawn(&[stack(&["much"], 1_000_000), stack(&["little"], 1)]);
        assert!(!svg.contains("little") && svg.contains("1 boxes narrower"), "{svg}");
    }
}
