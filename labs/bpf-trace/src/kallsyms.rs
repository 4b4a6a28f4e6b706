//! The kernel's functions by address, from /proc/kallsyms.

use kit::SysError;

/// The kernel's functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kallsyms {
    /// By address.
    Known(Vec<(u64, String)>),
    /// The kernel says 0 for each address: kernel.kptr_restrict.
    Hidden,
    /// There is no such file, or it cannot be read.
    Absent(SysError),
}

impl Kallsyms {
    /// Reads /proc/kallsyms.
    pub fn read() -> Self {
        match std::fs::read("/proc/kallsyms") {
            Ok(text) => Self::parse(&String::from_utf8_lossy(&text)),
            Err(e) => Self::Absent(SysError::io("read(\"/proc/kallsyms\")")(e)),
        }
    }

    /// Lines of address, type, name and, for modules, `[module]`.
    pub fn parse(text: &str) -> Self {
        let mut functions = Vec::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            // Code: global or not, weak or not.
            if matches!(kind, "t" | "T" | "w" | "W")
                && let Ok(address) = u64::from_str_radix(address, 16)
            {
                functions.push((address, name.to_owned()));
            }
        }
        if functions.iter().all(|(address, _)| *address == 0) {
            return Self::Hidden;
        }
        functions.sort_by_key(|(address, _)| *address);
        Self::Known(functions)
    }

    /// The name of the function at `address`; where there is none to be had, why, in brackets.
    pub fn name(&self, address: u64) -> String {
        match self {
            Self::Known(functions) => {
                let after = functions.partition_point(|(start, _)| *start <= address);
                match after.checked_sub(1).map(|i| &functions[i]) {
                    Some((_, name)) => name.clone(),
                    None => "[kernel, no name]".into(),
                }
            }
            Self::Hidden => "[kernel, hidden by kptr_restrict]".into(),
            Self::Absent(_) => "[kernel, no kallsyms]".into(),
        }
    }

    /// Why there are no names, and what would help.
    pub fn missing(&self) -> Option<(String, &'static str)> {
        match self {
            Self::Known(_) => None,
            Self::Hidden => Some((
                "/proc/kallsyms shows 0 for each address: kernel.kptr_restrict, or no CAP_SYSLOG".into(),
                "as root (--elevate); if not for root either: sysctl kernel.kptr_restrict=1 (until reboot)",
            )),
            Self::Absent(e) => Some((e.to_string(), "a kernel with CONFIG_KALLSYMS")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_reach_to_the_next_function() {
        let k = Kallsyms::parse(
            "ffffffff81000000 T _text\nffffffff81000100 t b\nffffffff81000180 D data\nffffffffa0000000 t in_module [m]\nrubbish\n",
        );
        assert_eq!(k.name(0xffff_ffff_8100_00ff), "_text");
        assert_eq!(k.name(0xffff_ffff_8100_0190), "b");
        assert_eq!(k.name(0xffff_ffff_a000_0004), "in_module");
        assert_eq!(k.name(4), "[kernel, no name]");
        assert_eq!(k.missing(), None);
    }

    #[test]
    fn zeros_are_said_to_be_hidden() {
        let k = Kallsyms::parse("0000000000000000 T _text\n0000000000000000 t b\n");
        assert_eq!(k, Kallsyms::Hidden);
        assert_eq!(k.name(1), "[kernel, hidden by kptr_restrict]");
        assert!(k.missing().unwrap().0.contains("kptr_restrict"));
    }
}
