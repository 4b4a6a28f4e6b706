//! The words of Rust code, as rustc's lexer sees them: nothing in comments or strings, and no spelling that hides one.

/// An identifier (without `r#`), a lifetime, a number, or one other character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

/// All words of a file, in their order.
pub(crate) fn of(text: &str) -> Vec<Word<'_>> {
    let text = text.trim_start_matches('\u{feff}');
    let words = from(text, 1);
    // `#!` that begins no attribute is a line for the shell, whatever stands in it.
    if text.starts_with("#!") && words.get(2).is_none_or(|w| w.text != "[") {
        return text.find('\n').map_or(Vec::new(), |end| from(&text[end..], 1));
    }
    words
}

fn from(text: &str, first: usize) -> Vec<Word<'_>> {
    let (mut words, mut line, mut rest) = (Vec::new(), first, text);
    while let Some(c) = rest.chars().next() {
        let (length, is_word) = match c {
            c if c.is_whitespace() => (c.len_utf8(), false),
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => (block(rest), false),
            '"' => (quoted(rest, '"'), false),
            '\'' => quote(rest),
            c if is_in_name(c) => {
                let length = name(rest);
                match (&rest[..length], &rest[length..]) {
                    ("r" | "br" | "cr", after) if raw(after) > 0 => (length + raw(after), false),
                    ("r", after) if after.starts_with('#') => (length + 1, false),
                    _ => (length, true),
                }
            }
            c => (c.len_utf8(), true),
        };
        let (text, after) = rest.split_at(length);
        if is_word {
            words.push(Word { line, text });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    words
}

fn is_in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn name(text: &str) -> usize {
    text.find(|c| !is_in_name(c)).unwrap_or(text.len())
}

/// Bytes of a comment that begins here; such comments nest.
fn block(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Bytes of a literal that begins here, up to the `end` that no `\` precedes.
fn quoted(text: &str, end: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == end => return at + 1,
            _ => (),
        }
    }
    text.len()
}

/// Bytes of what begins by `'` here, and whether that is a lifetime and no character.
fn quote(text: &str) -> (usize, bool) {
    let mut after = text.chars().skip(1);
    match (after.next(), after.next()) {
        (Some('\\'), _) => (quoted(text, '\''), false),
        (Some(c), Some('\'')) => (1 + c.len_utf8() + 1, false),
        _ => (1 + name(&text[1..]), true),
    }
}

/// Bytes of a raw string whose `r` was just before; 0 if it is none.
fn raw(text: &str) -> usize {
    let hashes = text.len() - text.trim_start_matches('#').len();
    if !text[hashes..].starts_with('"') {
        return 0;
    }
    let start = hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

/// Words that one `{…}` of names may have. A longer one is not read to its end: there may be as many as there are words.
const LONGEST: usize = 500;

/// The names that code takes from around its module: `X` of `super::X` and `crate::X`; `*` for all of them, and `super` or
/// `crate` itself where it is given another name, or has too many.
pub(crate) fn from_outside<'a>(words: &[Word<'a>]) -> Vec<Word<'a>> {
    let mut found = Vec::new();
    let at = |n: usize| words.get(n).map_or("", |w| w.text);
    let is_root = |text: &str| matches!(text, "super" | "crate" | "self");
    for (n, word) in words.iter().enumerate().filter(|(_, w)| matches!(w.text, "super" | "crate")) {
        if n >= 2 && (at(n - 2), at(n - 1), at(n + 1)) == ("pub", "(", ")") {
            continue;
        }
        match (at(n + 1), at(n + 2), at(n + 3)) {
            // It is looked at by itself.
            (":", ":", next) if is_root(next) && next != "self" => (),
            (":", ":", "{") => {
                let mut depth = 0;
                for (n, name) in words.iter().enumerate().skip(n + 3).take(LONGEST) {
                    match name.text {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ if depth == 1 && matches!(at(n - 1), "{" | ",") => found.push(*name),
                        _ => (),
                    }
                    if depth == 0 {
                        break;
                    }
                }
                if depth > 0 {
                    found.push(*word);
                }
            }
            (":", ":", _) if n + 3 < words.len() => found.push(words[n + 3]),
            _ => found.push(*word),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        of(text).iter().map(|w| w.text).collect()
    }

    #[test]
    fn comments_and_strings_have_no_words() {
        for text in [
            "a // std\nb",
            "a /* std /* \" */ std */ b",
            "a \"std \\\" std // \" b",
            "a r#\"std \" std\"# b",
            "a br\"\\\" b",
            "a '\"' b",
            "a '\\'' b",
            "a '\\u{73}' b",
            "a b'\"' b",
            "#!/bin/sh \" std\na b",
            "\u{feff}#!x'\"\na b",
        ] {
            let words: Vec<_> = texts(text).into_iter().filter(|w| !["b"].contains(w)).collect();
            assert_eq!(words, ["a"], "{text}");
            assert_eq!(texts(text).last(), Some(&"b"), "{text}");
        }
    }

    #[test]
    fn no_spelling_hides_a_word() {
        for text in [
            "r#std",
            "std ::x",
            "'a'; std",
            "&'a \"\" std",
            "'\"'; std; '\"'",
            "'\\\\'; std; '\\\\'",
            "r\"\\\"; std; r\"\\\"",
            "\"\\\\\"; std; \"\"",
            "#![a] std",
            "#! /* \n */ [a] std",
            "/* /* */ \" */ std /* \" */",
            "//\" \nstd",
            "1r; std",
        ] {
            assert!(texts(text).contains(&"std"), "{text}");
        }
        assert_eq!(of("\"\n\"\n/*\n*/ std")[0], Word { line: 4, text: "std" });
    }

    #[test]
    fn names_from_outside_are_found() {
        let names = |text| from_outside(&of(text)).iter().map(|w| w.text).collect::<Vec<_>>();
        assert_eq!(names("use super::sync::{AtomicU32, spin};"), ["sync"]);
        assert_eq!(names("use super::{a, b::{c, d}, self as e};"), ["a", "b", "self"]);
        assert_eq!(names("super::f(); self::super::super::g(); crate :: r#h()"), ["f", "g", "h"]);
        assert_eq!(names("use super::*; use crate as c; m!(super)"), ["*", "crate", "super"]);
        let many = format!("use super::{{{}}};", "a::{".repeat(LONGEST));
        assert_eq!(names(&many), ["a", "super"]);
        assert_eq!(names("pub(super) fn f() {} pub(crate) struct S; Self::new()"), Vec::<&str>::new());
    }
}
