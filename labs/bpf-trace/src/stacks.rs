//! Stacks with a weight, from the first caller to the last function: what `profile` and `offcpu` find.

/// What a frame is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The thread that all the others are of.
    Thread,
    /// A function of a program or a library.
    User,
    /// A function of the kernel.
    Kernel,
    /// Code whose name is not to be had.
    Nameless,
    /// No code, but what the thread was doing.
    State,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame {
    /// What it is of.
    pub kind: Kind,
    /// Its name, or in brackets why it has none.
    pub name: String,
}

impl Frame {
    /// A frame.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { kind, name: name.into() }
    }
}

/// A stack, and how much is in it: samples, or nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stack {
    /// The thread's name first, the innermost function last.
    pub frames: Vec<Frame>,
    /// How much.
    pub weight: u64,
}

impl Stack {
    /// The innermost frame that is code. Off the CPU every stack ends in the scheduler: there, who called it.
    pub fn leaf(&self) -> Option<&Frame> {
        let off_cpu = self.frames.iter().any(|f| f.kind == Kind::State);
        let scheduler = |f: &Frame| {
            off_cpu && f.kind == Kind::Kernel && f.name.trim_start_matches('_').starts_with("schedule")
        };
        self.frames.iter().rev().find(|f| !matches!(f.kind, Kind::State | Kind::Thread) && !scheduler(f))
    }
}

/// Equal stacks as one, heaviest first.
pub fn joined(stacks: impl IntoIterator<Item = Stack>) -> Vec<Stack> {
    let mut all = std::collections::BTreeMap::<Vec<Frame>, u64>::new();
    for stack in stacks {
        *all.entry(stack.frames).or_default() += stack.weight;
    }
    let mut all: Vec<Stack> = all.into_iter().map(|(frames, weight)| Stack { frames, weight }).collect();
    all.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.frames.cmp(&b.frames)));
    all
}

/// Functions by what was spent in them themselves, most first.
pub fn leaves(stacks: &[Stack]) -> Vec<(Frame, u64)> {
    let mut all = std::collections::BTreeMap::<&Frame, u64>::new();
    for stack in stacks {
        if let Some(leaf) = stack.leaf() {
            *all.entry(leaf).or_default() += stack.weight;
        }
    }
    let mut all: Vec<(Frame, u64)> = all.into_iter().map(|(f, n)| (f.clone(), n)).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all
}

/// The folded form that other flame graph programs read: frames with semicolons between them, a blank, the weight.
/// What would end a frame or a line is replaced.
pub fn folded(stacks: &[Stack], unit: u64) -> String {
    let mut text = String::new();
    for stack in stacks {
        let names: Vec<String> = stack.frames.iter().map(|f| one_line(&f.name).replace(';', ":")).collect();
        text.push_str(&format!("{} {}\n", names.join(";"), stack.weight / unit));
    }
    text
}

/// Text without what moves a terminal's cursor or breaks a line.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The heaviest stacks for a terminal: at most 76 columns, innermost function first.
pub fn in_words(stacks: &[Stack], most: usize) -> String {
    const WIDTH: usize = 76;
    const INDENT: usize = 17;
    const LINES: usize = 4;
    let sum: u64 = stacks.iter().map(|s| s.weight).sum();
    let mut text = String::new();
    for stack in stacks.iter().take(most) {
        let share = 100.0 * stack.weight as f64 / sum.max(1) as f64;
        let of = |kind| stack.frames.iter().find(|f| f.kind == kind).map(|f| one_line(&f.name));
        let state = of(Kind::State).map(|s| format!("  {s}")).unwrap_or_default();
        let head = format!("{share:5.1} %  {}{state}", of(Kind::Thread).unwrap_or_default());
        text.push_str(&head.chars().take(WIDTH).collect::<String>());
        text.push('\n');
        let is_kernel = |f: &&Frame| f.kind == Kind::Kernel;
        let is_user = |f: &&Frame| matches!(f.kind, Kind::User | Kind::Nameless);
        for (label, wanted) in [("kernel", &is_kernel as &dyn Fn(&&Frame) -> bool), ("user", &is_user)] {
            let names: Vec<String> =
                stack.frames.iter().rev().filter(wanted).map(|f| one_line(&f.name)).collect();
            for (i, line) in wrapped(&names, WIDTH - INDENT, LINES).iter().enumerate() {
                let label = if i == 0 { label } else { "" };
                text.push_str(&format!("         {label:<8}{line}\n"));
            }
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Names, an arrow from each to who called it, in at most `lines` lines of `width` columns.
fn wrapped(names: &[String], width: usize, lines: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let mut word: String = if i == 0 { name.clone() } else { format!("< {name}") };
        if word.chars().count() > width - 2 {
            word = word.chars().take(width - 3).chain(['…']).collect();
        }
        let full = out.len() == lines;
        match out.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width - 2 => {
                line.push(' ');
                line.push_str(&word);
            }
            Some(line) if full => {
                line.push_str(" …");
                break;
            }
            _ => out.push(word),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[(&str, Kind)], weight: u64) -> Stack {
        Stack { frames: names.iter().map(|(n, k)| Frame::new(*n, *k)).collect(), weight }
    }

    #[test]
    fn equal_stacks_are_one_and_the_heaviest_comes_first() {
        let a = [("sh", Kind::Thread), ("main", Kind::User)];
        let b = [("sh", Kind::Thread), ("read", Kind::Kernel)];
        let all = joined([stack(&a, 2), stack(&b, 4), stack(&a, 3)]);
        assert_eq!(all, [stack(&a, 5), stack(&b, 4)]);
        assert_eq!(leaves(&all)[0], (Frame::new("main", Kind::User), 5));
    }

    #[test]
    fn hostile_names_do_not_break_the_folded_form() {
        let text = folded(&[stack(&[("a;b\nc 7", Kind::Thread), ("\x1b[2J", Kind::User)], 9)], 1);
        assert_eq!(text, "a:b?c 7;?[2J 9\n");
    }

    #[test]
    fn words_for_the_terminal_fit() {
        let long = "x".repeat(300);
        let deep: Vec<(&str, Kind)> =
            std::iter::once((long.as_str(), Kind::Thread)).chain([(long.as_str(), Kind::User); 90]).collect();
        let text = in_words(&[stack(&deep, 1), stack(&[("sh", Kind::Thread)], 1)], 5);
        assert!(text.lines().all(|l| l.chars().count() <= 76), "{text}");
        assert!(text.lines().count() < 8, "{text}");
        assert_eq!(in_words(&[], 5), "");
    }
}
