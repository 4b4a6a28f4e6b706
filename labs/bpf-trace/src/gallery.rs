//! Programs that the verifier must refuse: each is submitted, and so is the same, mended.

use kit::SysError;

use crate::error::TraceError;
use crate::sys::{bpf, rights};
use crate::tracer::Plan;
use crate::verify::Submission;

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/gallery.bpf.o");
/// The source of the programs, as the object was compiled from it.
const SOURCE: &str = include_str!("../bpf/gallery.bpf.c");
/// Where it is.
pub const FILE: &str = "labs/bpf-trace/bpf/gallery.bpf.c";

/// A program that must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhibit {
    /// Its function; the mended one's has `_mended` behind it.
    pub name: &'static str,
    /// What is wrong.
    pub title: &'static str,
    /// What it would do to the machine.
    pub danger: &'static str,
    /// What the verifier's log says, in the words of some kernel: each has one of them.
    pub reasons: &'static [&'static str],
    /// Whether it is submitted with CAP_BPF alone. The kernel trusts CAP_PERFMON with its own memory's content, so it
    /// lets root's programs hand out addresses and leftovers.
    pub cap_bpf_only: bool,
}

/// All of them.
pub const EXHIBITS: [Exhibit; 9] = [
    Exhibit {
        name: "loop",
        title: "A loop without a bound",
        danger: "The program runs inside a system call; while it goes round, that CPU does nothing else, for ever.",
        reasons: &["infinite loop detected", "back-edge", "too complex", "too large"],
        cap_bpf_only: false,
    },
    Exhibit {
        name: "bounds",
        title: "One past the end of a map's value",
        danger: "Call 512 would count in whatever the kernel keeps behind the array.",
        reasons: &[
            "invalid access to map value",
            "outside of the allowed memory range",
            "outside of the array range",
        ],
        cap_bpf_only: false,
    },
    Exhibit {
        name: "null",
        title: "A value that may not be there",
        danger: "The first thread that is not in the map yet would write to address 8, in the kernel.",
        reasons: &["invalid mem access 'map_value_or_null'"],
        cap_bpf_only: false,
    },
    Exhibit {
        name: "pointer",
        title: "Memory behind a number",
        danger: "A raw tracepoint's arguments are numbers: who knows what is there? Only a helper that survives a bad address may look.",
        reasons: &["invalid mem access 'scalar'", "invalid mem access 'inv'"],
        cap_bpf_only: false,
    },
    Exhibit {
        name: "leak",
        title: "An address of the kernel's, handed out",
        danger: "Who reads the map learns where the kernel keeps its packets, which is what address randomisation hides.",
        reasons: &["leaks addr into map"],
        cap_bpf_only: true,
    },
    Exhibit {
        name: "stack",
        title: "Eight bytes that nobody wrote",
        danger: "The map would receive what an earlier function left on the kernel's stack: keys, addresses, data of others.",
        reasons: &["invalid read from stack", "invalid indirect read from stack"],
        cap_bpf_only: true,
    },
    Exhibit {
        name: "result",
        title: "A program without a result",
        danger: "The kernel acts on r0 (a filter's is the length to keep); this would be whatever was in it.",
        reasons: &["R0 !read_ok"],
        cap_bpf_only: false,
    },
    Exhibit {
        name: "helper",
        title: "A helper for another kind of program",
        danger: "The helper would take the registers of a system call for a packet.",
        reasons: &["cannot use helper", "unknown func"],
        cap_bpf_only: false,
    },
    Exhibit {
        name: "reference",
        title: "Taken and not given back",
        danger: "Room in the ring buffer that is reserved and never submitted stops the readers for good.",
        reasons: &["Unreleased reference", "reference leak"],
        cap_bpf_only: false,
    },
];

/// A line of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file.
    pub number: u32,
    /// Its text, tabs as four spaces.
    pub text: String,
    /// In a refused program: the verifier stopped here. In a mended one: the other has no such line.
    pub marked: bool,
}

/// What became of an exhibit.
#[derive(Debug)]
pub struct Verdict {
    /// The source.
    pub refused: Vec<Line>,
    /// The error, with the verifier's reason; `None`: it was loaded, which must not be.
    pub error: Option<SysError>,
    /// The verifier's log.
    pub log: String,
    /// The mended source.
    pub mended: Vec<Line>,
    /// How many instructions of it the verifier walked through, if it loaded it.
    pub verified: Result<u32, SysError>,
}

impl Verdict {
    /// The line of the log that has one of the reasons for which the exhibit was made to be refused.
    pub fn reason(&self, exhibit: &Exhibit) -> Option<&str> {
        self.error.as_ref()?;
        exhibit.reasons.iter().find_map(|reason| self.log.lines().find(|line| line.contains(reason)))
    }
}

/// The programs, ready to be submitted.
#[derive(Debug)]
pub struct Gallery(Submission);

impl Gallery {
    /// Makes the maps.
    pub fn open() -> Result<Self, TraceError> {
        Ok(Self(Submission::new(&Plan { object: OBJECT, ..Plan::default() })?))
    }

    /// Submits both programs of an exhibit. None of them is ever attached.
    pub fn submit(&self, exhibit: &Exhibit) -> Result<Verdict, TraceError> {
        let submit = |name: &str| match exhibit.cap_bpf_only {
            true => rights::with_cap_bpf_only(|| self.0.submit(name, 1))?,
            false => self.0.submit(name, 1),
        };
        let bad = submit(exhibit.name)?;
        let name = format!("{}_mended", exhibit.name);
        let good = submit(&name)?;
        let mut refused = function(SOURCE, exhibit.name);
        if bad.program.is_err() {
            mark_fault(&mut refused, &bad.log);
        }
        let mut mended = function(SOURCE, &name);
        for line in &mut mended {
            let as_before =
                |l: &Line| l.text.replace(exhibit.name, &name) == line.text || l.text == line.text;
            line.marked = !refused.iter().any(as_before);
        }
        let verified = good.program.and_then(|p| Ok(bpf::prog_info(std::os::fd::AsFd::as_fd(&p))?.verified));
        Ok(Verdict { refused, error: bad.program.err(), log: bad.log, mended, verified })
    }
}

/// The lines of the function `name`, from its `SEC` on.
fn function(source: &str, name: &str) -> Vec<Line> {
    let lines: Vec<&str> = source.lines().collect();
    let head = lines.iter().position(|l| l.contains(&format!(" {name}(")) && !l.ends_with(';'));
    let from = head.and_then(|h| h.checked_sub(1)).unwrap_or(lines.len());
    let len = lines[from..].iter().position(|l| *l == "}").map_or(0, |end| end + 1);
    let line = |(i, text): (usize, &&str)| Line {
        number: (from + i) as u32 + 1,
        text: text.replace('\t', "    "),
        marked: false,
    };
    lines[from..from + len].iter().enumerate().map(line).collect()
}

/// Marks the line that a log was at when it ended. The verifier quotes a line when it comes to it: `; text @ file:line`,
/// before Linux 6.9 only `; text`.
fn mark_fault(lines: &mut [Line], log: &str) {
    let quoted = log.lines().rev().filter_map(|l| l.strip_prefix("; "));
    let at = quoted.filter_map(|quote| match quote.rsplit_once(" @ ") {
        Some((_, place)) => {
            let number: u32 = place.rsplit_once(':')?.1.parse().ok()?;
            lines.iter().position(|l| l.number == number)
        }
        None => lines.iter().rposition(|l| l.text.trim() == quote.trim()),
    });
    if let Some(at) = at.into_iter().next() {
        lines[at].marked = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: &str =
        "int a(int);\nSEC(\"x\")\nint a(int b)\n{\n\treturn b;\n}\nSEC(\"x\")\nint ab(int b)\n{\n}\n";

    #[test]
    fn a_function_is_found_by_its_whole_name() {
        let lines = function(C, "a");
        assert_eq!(lines.iter().map(|l| l.number).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert_eq!(lines[3].text, "    return b;");
        assert_eq!(function(C, "ab")[0].number, 7);
        assert_eq!(function(C, "b"), []);
    }

    #[test]
    fn the_line_is_known_from_old_logs_and_new_ones() {
        for log in
            ["; return b; @ a.c:5\n0: (95) exit\n;  @ a.c:0\nR0 !read_ok", "; return b;\n0: (95) exit\nR0"]
        {
            let mut lines = function(C, "a");
            mark_fault(&mut lines, log);
            assert_eq!(lines.iter().filter(|l| l.marked).map(|l| l.number).collect::<Vec<_>>(), [5], "{log}");
        }
        let mut lines = function(C, "a");
        mark_fault(&mut lines, "0: (95) exit");
        assert!(lines.iter().all(|l| !l.marked));
    }

    #[test]
    fn each_exhibit_has_both_its_sources() {
        for e in EXHIBITS {
            for name in [e.name.to_owned(), format!("{}_mended", e.name)] {
                let lines = function(SOURCE, &name);
                assert!(lines.len() > 4 && lines.len() < 14, "{name}");
                assert!(lines[0].text.starts_with("SEC("), "{name}");
            }
        }
    }
}
