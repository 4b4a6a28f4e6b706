//! The verifier's log of level 2: what it knew of the registers at each instruction.

use std::collections::BTreeMap;

/// What the log says of one instruction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// How often the verifier came by: once for each path that it could not tell from an earlier one.
    pub visits: u32,
    /// The registers that the first visit changed or used, as they are after it.
    pub after: String,
    /// Jumps that led here: from where, and the registers then.
    pub arrivals: Vec<(usize, String)>,
    /// The helper that it calls.
    pub helper: String,
}

/// A log, understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// By instruction; those that no path leads to are missing.
    pub known: BTreeMap<usize, Known>,
    /// Instructions walked through, on all paths together.
    pub processed: u32,
    /// Microseconds that it took.
    pub microseconds: Option<u64>,
    /// Bytes of stack that the program uses.
    pub stack: Option<u32>,
}

impl Log {
    /// Reads a log of levels 2 and 4 (statistics). Lines that it does not know it skips: the format is nobody's promise.
    pub fn parse(log: &str) -> Self {
        let mut this = Self::default();
        let mut last = None;
        for line in log.lines() {
            if let Some(rest) = line.strip_prefix("processed ") {
                this.processed = number(rest).unwrap_or(0);
            } else if let Some(rest) = line.strip_prefix("verification time ") {
                this.microseconds = number(rest);
            } else if let Some(rest) = line.strip_prefix("stack depth ") {
                this.stack = number(rest);
            } else if let Some(rest) = line.strip_prefix("from ") {
                // from 6 to 9: R0=0 R10=fp0
                if let Some((from, rest)) = rest.split_once(" to ")
                    && let (Ok(from), Some((to, state))) = (from.parse(), rest.split_once(':'))
                    && let Ok(to) = to.parse()
                {
                    this.known.entry(to).or_default().arrivals.push((from, state.trim().to_owned()));
                }
            } else if let Some((at, rest)) = line.split_once(": ")
                && let Ok(at) = at.parse::<usize>()
            {
                this.line(at, rest, &mut last);
            }
        }
        this
    }

    fn line(&mut self, at: usize, rest: &str, last: &mut Option<usize>) {
        if let Some(rest) = rest.strip_prefix('(') {
            // 3: (18) r1 = 0xffff888102e04000       ; R1=map_ptr(ks=4,vs=8)
            let text = rest.split_once(") ").map_or(rest, |(_, text)| text);
            let (text, after) = text.split_once(" ; ").unwrap_or((text, ""));
            let known = self.known.entry(at).or_default();
            known.visits += 1;
            if known.visits == 1 {
                known.after = after.trim().to_owned();
                known.helper =
                    text.strip_prefix("call ").and_then(|t| t.split_once('#')).map_or("", |t| t.0).into();
            }
            *last = Some(at);
        } else if rest.starts_with('R') {
            // Before Linux 5.18, what is known after an instruction stood before the next.
            if let Some(known) = last.and_then(|l| self.known.get_mut(&l))
                && known.visits == 1
                && known.after.is_empty()
            {
                known.after = rest.trim().to_owned();
            }
            *last = None;
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_today_is_understood() {
        let log = Log::parse(
            "func#0 @0\nLive regs before insn:\n      0: .......... (62) *(u32 *)(r10 -4) = 0\n\
             0: R1=ctx() R10=fp0\n; int f(u64 *ctx) @ a.c:1\n\
             0: (85) call bpf_ktime_get_ns#5          ; R0=scalar()\n\
             1: (15) if r0 == 0x0 goto pc+1        ; R0=scalar(umin=1)\n2: (b7) r0 = 7                        ; R0=7\n\
             3: (95) exit\n\nfrom 1 to 3: R0=0 R10=fp0\n3: R0=0 R10=fp0\n3: (95) exit\n\
             verification time 174 usec\nstack depth 8\n\
             processed 10 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0\n",
        );
        assert_eq!((log.processed, log.microseconds, log.stack), (10, Some(174), Some(8)));
        assert_eq!(log.known[&0].helper, "bpf_ktime_get_ns");
        assert_eq!(log.known[&0].after, "R0=scalar()");
        assert_eq!(log.known[&3].visits, 2);
        assert_eq!(log.known[&3].arrivals, [(1, "R0=0 R10=fp0".to_owned())]);
        assert_eq!(log.known.len(), 4);
    }

    #[test]
    fn so_is_one_of_before_linux_5_18() {
        let log = Log::parse(
            "0: R1=ctx(id=0,off=0,imm=0) R10=fp0\n0: (b7) r0 = 0\n1: R0_w=inv0 R1=ctx(id=0,off=0,imm=0) R10=fp0\n\
             1: (95) exit\nprocessed 2 insns (limit 1000000)",
        );
        assert_eq!(log.known[&0].after, "R0_w=inv0 R1=ctx(id=0,off=0,imm=0) R10=fp0");
        assert_eq!(log.known[&1].after, "");
        assert_eq!(log.processed, 2);
    }
}
