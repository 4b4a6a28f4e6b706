//! What a grader may want to look at in a submission. It is found, not forbidden: there are good reasons for each.

use std::collections::BTreeSet;

use crate::homework::words::{self, Word};

/// In a line that is no comment.
const LOOK_AT: [(&str, &str); 8] = [
    ("/proc/", "looks into /proc"),
    ("process_vm", "reads or writes a process's memory"),
    ("from_raw_fd", "takes a descriptor that it was not given"),
    ("include!", "takes in another file"),
    ("include_str!", "takes in another file"),
    ("include_bytes!", "takes in another file"),
    ("global_asm!", "has assembly outside functions"),
    (".section", "places something in the program by hand"),
];

/// The same, as whole words of the code.
const LOOK_AT_WORDS: [(&str, &str); 3] =
    [("exit", "ends the process"), ("abort", "ends the process"), ("_exit", "ends the process")];

/// Remarks on one file.
pub(crate) fn of(name: &str, text: &[u8], starter: &[u8]) -> Vec<String> {
    let (text, starter) = (String::from_utf8_lossy(text), String::from_utf8_lossy(starter));
    let says = |line: &str, word: &str| line.contains(word) && !line.trim_start().starts_with("//");
    let mut found = Vec::new();
    for (word, what) in LOOK_AT {
        if starter.contains(word) {
            continue;
        }
        if let Some(n) = text.lines().position(|l| says(l, word)) {
            found.push(format!("{name}:{}: {what} ({word})", n + 1));
        }
    }
    if !name.ends_with(".rs") {
        return found;
    }
    let (words, known) = (words::of(&text), words::of(&starter));
    for (word, what) in LOOK_AT_WORDS {
        if known.iter().all(|w| w.text != word)
            && let Some(at) = words.iter().find(|w| w.text == word)
        {
            found.push(format!("{name}:{}: {what} ({word})", at.line));
        }
    }
    if let Some(line) = twice_borrowed(&words) {
        found.push(format!(
            "{name}:{line}: has a reference to a reference: rustc's hole #25860 makes safe code unsafe by it (&&())"
        ));
    }
    found.extend(around(name, &words, &starter));
    found
}

/// The first line with `&&()` or `&'a &'b`: what it takes to stretch a lifetime in safe code, rust-lang/rust#25860.
fn twice_borrowed(words: &[Word<'_>]) -> Option<usize> {
    let found = words.iter().enumerate().find(|(n, _)| {
        let mut rest = words[*n..].iter().map(|w| w.text).peekable();
        let named =
            |rest: &mut std::iter::Peekable<_>| rest.next_if(|t: &&str| t.starts_with('\'')).is_some();
        let (one, first) = (rest.next() == Some("&"), named(&mut rest));
        let (two, second) = (rest.next() == Some("&"), named(&mut rest));
        one && two && (first && second || (rest.next(), rest.next()) == (Some("("), Some(")")))
    });
    found.map(|(_, w)| w.line)
}

/// Names of the spec that the starter does not name: the spec's own answers may be among them.
fn around(name: &str, words: &[Word<'_>], starter: &str) -> Vec<String> {
    // Its comments name some, too.
    let known = |word: &str| {
        ["super::", "crate::"].iter().any(|root| {
            let follows = |(at, _): (usize, _)| starter[at + root.len()..].strip_prefix(word);
            let ends = |after: &str| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            starter.match_indices(root).filter_map(follows).any(ends)
        })
    };
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for word in words::from_outside(words) {
        // A report stays readable, whatever there is.
        if found.len() < 8 && !known(word.text) && seen.insert(word.text) {
            let (line, text) = (word.line, word.text.chars().take(60).collect::<String>());
            let text = text.escape_debug();
            found.push(format!("{name}:{line}: takes what the starter does not from the spec ({text})"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_the_starter_says_is_not_remarked() {
        let text = b"// process::exit\nstd::process::exit(0);\ninclude_str!(\"x\")";
        assert_eq!(of("ex1.rs", text, b"").len(), 2);
        assert_eq!(of("ex1.rs", text, b"include_str!(\"a\")")[..], ["ex1.rs:2: ends the process (exit)"]);
    }

    /// The kinds of remarks on a file, by what is in their brackets.
    fn remarked(text: &str, starter: &str) -> Vec<String> {
        let all = of("ex1.rs", text.as_bytes(), starter.as_bytes());
        all.iter().filter_map(|r| Some(r.rsplit_once(" (")?.1.strip_suffix(')')?.to_owned())).collect()
    }

    #[test]
    fn ways_around_the_compiler_and_the_runner_are_remarked() {
        for (text, kind) in [
            ("static U: &'static &'static () = & &();", "&&()"),
            ("fn f<'a, 'b, T>(_: &'a\n&'b u8, v: &'b T) -> &'a T { v }", "&&()"),
            ("use std::process as p; p::exit(0)", "exit"),
            ("std::process::abort()", "abort"),
            ("std::fs::read(\"/proc/self/maps\")", "/proc/"),
            ("File::from_raw_fd(3)", "from_raw_fd"),
        ] {
            assert_eq!(remarked(text, ""), [kind], "{text}");
        }
        let honest =
            "// exit, &&()\nfn f(a: &[&str]) -> bool { exits(a) && (g() == ()) && &b'x' != \"abort\" }";
        assert_eq!(remarked(honest, ""), Vec::<String>::new());
    }

    #[test]
    fn what_is_taken_from_the_spec_is_remarked() {
        let starter = "//! In [`super::map`].\nuse super::bus::Bus;";
        assert_eq!(remarked("use super::{bus, map::A}; super::map::f()", starter), Vec::<String>::new());
        assert_eq!(
            remarked("super::some_notes(); super::ma(); crate::tick", starter),
            ["some_notes", "ma", "tick"]
        );
    }

    #[test]
    fn no_solution_is_remarked() {
        for exercise in crate::homework::catalogue::all().unwrap() {
            for file in exercise.files.iter() {
                let folder = exercise.exercises();
                let solution = folder.join("solutions").join(file);
                // A student's copy has none.
                let Ok(text) = fs::read(&solution) else { continue };
                let starter = fs::read(folder.join(file)).unwrap();
                assert_eq!(of(file, &text, &starter), Vec::<String>::new(), "{}", solution.display());
            }
        }
    }
}
