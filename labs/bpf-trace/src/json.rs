//! Events as JSON, a line each, written straight into text: a million of them a second leave no time for a tree.

/// Lines of JSON objects.
#[derive(Debug, Default)]
pub struct Lines {
    /// What has been written so far.
    pub text: String,
}

impl Lines {
    /// Begins a line.
    pub fn begin(&mut self) {
        self.text.push('{');
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.text.push_str("}\n");
    }

    /// A number.
    #[inline(always)]
    pub fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let mut digits = [0_u8; 20];
        let (mut at, mut rest) = (digits.len(), value);
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.text.push_str(std::str::from_utf8(&digits[at..]).unwrap_or("0"));
    }

    /// A number that may be negative.
    #[inline(always)]
    pub fn signed(&mut self, key: &str, value: i64) {
        if value < 0 {
            self.key(key);
            self.text.push_str(&value.to_string());
        } else {
            self.number(key, value.unsigned_abs());
        }
    }

    /// Nothing, where there could be something.
    pub fn null(&mut self, key: &str) {
        self.key(key);
        self.text.push_str("null");
    }

    /// A word of ours, with nothing to escape.
    #[inline(always)]
    pub fn word(&mut self, key: &str, word: &str) {
        self.key(key);
        self.text.push('"');
        self.text.push_str(word);
        self.text.push('"');
    }

    /// A text. Bytes that are no UTF-8 become U+FFFD; where there are any, all of it stands once more, as hexadecimal
    /// digits, under `key` with `_hex` behind.
    #[inline(always)]
    pub fn text(&mut self, key: &str, bytes: &[u8]) {
        self.key(key);
        if !self.string(bytes) {
            self.key(&format!("{key}_hex"));
            self.string(hex(bytes).as_bytes());
        }
    }

    /// Texts, as [`text`](Self::text) has them.
    pub fn texts<'a>(&mut self, key: &str, items: impl Iterator<Item = &'a [u8]> + Clone) {
        self.array(key, items.clone(), |lines, item| lines.string(item));
        if items.clone().any(|i| std::str::from_utf8(i).is_err()) {
            self.array(&format!("{key}_hex"), items, |lines, item| lines.string(hex(item).as_bytes()));
        }
    }

    fn array<T>(
        &mut self,
        key: &str,
        items: impl Iterator<Item = T>,
        mut each: impl FnMut(&mut Self, T) -> bool,
    ) {
        self.key(key);
        self.text.push('[');
        for (n, item) in items.enumerate() {
            if n > 0 {
                self.text.push(',');
            }
            let _ = each(self, item);
        }
        self.text.push(']');
    }

    /// `true`, where it is.
    #[inline(always)]
    pub fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.key(key);
            self.text.push_str("true");
        }
    }

    /// Keys are ours, and need no escaping. Inlined, as are its callers: copies of a known length need no call.
    #[inline(always)]
    fn key(&mut self, key: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(key);
        self.text.push_str("\":");
    }

    /// Writes a string; whether it was UTF-8.
    fn string(&mut self, bytes: &[u8]) -> bool {
        let plain = |b: &u8| (b' '..0x7f).contains(b) & (*b != b'"') & (*b != b'\\');
        // Nearly always there is nothing to escape. Without an early end, many bytes are looked at together.
        if bytes.iter().fold(true, |all, b| all & plain(b))
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            self.text.push('"');
            self.text.push_str(text);
            self.text.push('"');
            return true;
        }
        self.escaped(bytes);
        std::str::from_utf8(bytes).is_ok()
    }

    #[cold]
    fn escaped(&mut self, bytes: &[u8]) {
        self.text.push('"');
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' | '\\' => self.text.extend(['\\', c]),
                    c if c < ' ' => self.text.push_str(&format!("\\u{:04x}", c as u32)),
                    c => self.text.push(c),
                }
            }
            if !chunk.invalid().is_empty() {
                self.text.push('\u{fffd}');
            }
        }
        self.text.push('"');
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes as a word of a shell (bash, zsh, ksh), so that a command line shows where each argument ends, and can be
/// pasted.
pub fn quoted(bytes: &[u8]) -> String {
    let harmless = |b: &u8| b.is_ascii_alphanumeric() || b"_-./=:,+@%".contains(b);
    if !bytes.is_empty() && bytes.iter().all(harmless) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let odd = |c: char| c.is_control() || c == '\'';
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(odd) => format!("'{text}'"),
        _ => {
            let mut out = "$'".to_owned();
            for chunk in bytes.utf8_chunks() {
                for c in chunk.valid().chars() {
                    match c {
                        '\n' => out.push_str("\\n"),
                        '\t' => out.push_str("\\t"),
                        '\'' | '\\' => out.extend(['\\', c]),
                        c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
                        c => out.push(c),
                    }
                }
                chunk.invalid().iter().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
            }
            out + "'"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json() {
        let mut lines = Lines::default();
        for bytes in [&b"plain"[..], b"", b"\"\\\n\x01\x7f", "\u{e9}\u{4e2d}".as_bytes(), b"a\xffb\xc3"] {
            lines.begin();
            lines.number("n", u64::MAX);
            lines.text("t", bytes);
            lines.texts("l", [bytes, b"z"].into_iter());
            lines.signed("s", -7);
            lines.word("w", "O_RDONLY");
            lines.null("z");
            lines.flag("f", true);
            lines.flag("no", false);
            lines.end();
            let line = std::mem::take(&mut lines.text);
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(read["n"], u64::MAX);
            assert_eq!(read["t"], String::from_utf8_lossy(bytes).into_owned());
            assert_eq!(read["l"][0], String::from_utf8_lossy(bytes).into_owned());
            assert_eq!(read["f"], true);
            assert_eq!((&read["s"], &read["w"], &read["z"]), (&(-7).into(), &"O_RDONLY".into(), &().into()));
            assert_eq!(line.matches('\n').count(), 1);
            let valid = std::str::from_utf8(bytes).is_ok();
            assert_eq!(read.get("t_hex").is_none(), valid);
            assert_eq!(read.get("l_hex").is_none(), valid);
        }
    }

    #[test]
    fn zero_has_a_digit() {
        let mut lines = Lines::default();
        lines.begin();
        lines.number("n", 0);
        lines.end();
        assert_eq!(lines.text, "{\"n\":0}\n");
    }

    #[test]
    fn words_are_a_shells() {
        assert_eq!(quoted(b"--flag=/a/b"), "--flag=/a/b");
        assert_eq!(quoted(b""), "''");
        assert_eq!(quoted(b"two words"), "'two words'");
        assert_eq!(quoted(b"it's"), "$'it\\'s'");
        assert_eq!(quoted(b"a\nb\xff\x1b"), "$'a\\nb\\xff\\x1b'");
    }

    #[test]
    fn a_shell_reads_them_back() {
        let odd: Vec<Vec<u8>> = vec![
            (1..=255).collect(),
            b"$HOME `x` \\ \"q\" *".to_vec(),
            "\u{e9} '\u{4e2d}'".into(),
            vec![0xc3, b'\'', b'\\', b'n'],
        ];
        for bytes in odd {
            let script = format!("printf %s {}", quoted(&bytes));
            let Ok(out) = std::process::Command::new("bash").args(["-c", &script]).output() else {
                kit::skip!("bash", "it would read them");
            };
            assert_eq!(out.stdout, bytes, "{script}");
        }
    }
}
