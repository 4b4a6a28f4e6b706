//! `--verifier`: programs that must be refused, the verifier's reason beside the line, and the same, mended.

use bpf_trace::gallery::{EXHIBITS, Exhibit, FILE, Gallery, Line, Verdict};
use kit::{Listing, Place, Predict, Session, Usage};

/// All exhibits, or the one of this name.
pub fn show(s: &mut Session, name: &str) -> anyhow::Result<()> {
    let chosen: Vec<&Exhibit> = EXHIBITS.iter().filter(|e| name.is_empty() || e.name == name).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = EXHIBITS.iter().map(|e| e.name).collect();
        return Err(Usage(format!("no exhibit {name:?}: there are {}", names.join(", "))).into());
    }
    let gallery = Gallery::open()?;
    let (mut refused, mut mended) = (0, 0);
    let mut wrong = Vec::new();
    for (i, exhibit) in chosen.iter().enumerate() {
        let verdict = gallery.submit(exhibit)?;
        let line = verdict.refused.first().map_or(1, |l| l.number + 1);
        s.step_at(exhibit.title, Place { file: FILE.into(), line });
        if i == 0 {
            s.predict(Predict::new(
                "Root loads a program that would hang or crash the machine, but not today. When does the kernel say no?",
                ["never: root may", "when it happens", "before the program runs at all"],
                2,
                "The verifier walks through every path that the program could take, whatever today's data would be.",
            ));
        }
        tell(s, exhibit, &verdict);
        if verdict.reason(exhibit).is_some() {
            refused += 1
        } else {
            wrong.push(format!("{} was not", exhibit.name))
        }
        if verdict.verified.is_ok() {
            mended += 1
        } else {
            wrong.push(format!("mended {} was", exhibit.name))
        }
    }
    let of = |n: i32| format!("{n} of {}{}", chosen.len(), if wrong.is_empty() { "" } else { ": see above" });
    s.metric("refused", "1", f64::from(refused));
    s.check(
        "refused",
        refused as usize == chosen.len(),
        format!("{}, each for the reason it was made for", of(refused)),
    );
    s.check("mended_loaded", mended as usize == chosen.len(), of(mended));
    s.so(
        "the verifier proves each path safe before the first run: there is nothing left to crash",
        "--inside: what it knew at each instruction",
    );
    Ok(())
}

fn tell(s: &mut Session, exhibit: &Exhibit, verdict: &Verdict) {
    let reason = match (verdict.reason(exhibit), &verdict.error) {
        (Some(reason), _) => reason.to_owned(),
        (None, Some(e)) => format!("refused, but for another reason: {e}"),
        (None, None) => "loaded: this kernel does not refuse it".into(),
    };
    let noted = verdict.refused.iter().any(|l| l.marked);
    s.listing(listing("", &verdict.refused, &reason));
    if !noted {
        s.say(format!("The verifier: {reason}"));
    }
    s.say(exhibit.danger);
    if exhibit.cap_bpf_only {
        s.say(
            "Submitted with CAP_BPF alone: who has CAP_PERFMON may see the kernel's memory, and is not refused this.",
        );
    }
    s.listing(listing("Mended:", &verdict.mended, "new"));
    match &verdict.verified {
        Ok(n) => s.say(format!("Loaded, after a walk through {n} instructions.")),
        Err(e) => s.say(format!("**Refused**: {e}")),
    }
    if s.verbose() > 0 {
        s.listing(Listing::text("The verifier's log:", &verdict.log));
    }
}

fn listing(title: &str, lines: &[Line], note: &str) -> Listing {
    lines
        .iter()
        .filter(|l| !l.text.starts_with("SEC(") || l.marked)
        .fold(Listing::new(title), |listing, line| {
            listing.line(&line.text, if line.marked { note } else { "" })
        })
}
