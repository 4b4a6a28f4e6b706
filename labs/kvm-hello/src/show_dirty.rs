//! `--dirty`: which pages were written; a machine frozen, thawed and cloned.

use std::time::Instant;

use kit::{Bars, Predict, Session, Table};
use kvm_hello::dirty::{self, BOOT_PAGES, MEMORY, Method, RING, STORES};
use kvm_hello::snapshot::{self, Snapshot};

use crate::show_hello::{ms, us};

pub fn tell(s: &mut Session, clones: u64) -> anyhow::Result<()> {
    s.param("clones", clones);
    tracking(s)?;
    let (snapshot, boot_us) = frozen(s)?;
    thawed(s, &snapshot, boot_us)?;
    cloned(s, &snapshot, clones)?;
    s.so(
        "a machine is data: its memory is a mapping, and a mapping can be shared until written.",
        "--exits, --misbehave",
    );
    Ok(())
}

fn tracking(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("Find the pages that the guest wrote", dirty::HERE);
    s.predict(Predict::new(
        &format!("the guest stores {STORES} times into 4096 pages at random. How does KVM know where?"),
        ["it reads every instruction", "it compares memory", "it write-protects pages, and notes the faults"],
        2,
        "The first store to a clean page traps (or the processor logs it, with PML); later ones are free until it is clean again.",
    ));
    let predicted = dirty::predicted();
    let mut named = Vec::new();
    let mut table =
        Table::new(["how", "pages", "right", "guest's work us", "to collect us", "reads"]).right([1, 3, 4]);
    for method in [Method::Nothing, Method::Log, Method::Ring] {
        let (name, reads) = match method {
            Method::Nothing => ("not at all", "-".to_owned()),
            Method::Log => ("dirty log", format!("a bit for each of {} pages", MEMORY / 4096)),
            Method::Ring => ("dirty ring", "an entry for each written page".to_owned()),
        };
        let tracked = match dirty::track(method) {
            Ok(tracked) => tracked,
            Err(e) if method == Method::Ring => {
                s.missing(
                    "the dirty ring",
                    e.to_string(),
                    "Linux 5.11 or later; the log shows the same pages",
                );
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let right = tracked.exact() && tracked.differ == predicted;
        table.push([
            name.to_owned(),
            tracked.pages.len().to_string(),
            if method == Method::Nothing {
                "-"
            } else if right {
                "yes"
            } else {
                "no"
            }
            .to_owned(),
            format!("{:.0}", us(tracked.work)),
            format!("{:.0}", us(tracked.collect)),
            reads,
        ]);
        if right && method != Method::Nothing {
            named.push(name);
        }
        let name = name.replace(' ', "_");
        s.metric(&format!("{name}_work_us"), "us", us(tracked.work));
        if method != Method::Nothing {
            s.metric(&format!("{name}_collect_us"), "us", us(tracked.collect));
            s.metric(&format!("{name}_pages"), "1", tracked.pages.len() as f64);
            let detail =
                format!("{} pages; compared byte by byte: {}", tracked.pages.len(), tracked.differ.len());
            s.check(&format!("{name}_exact"), right, detail);
        }
    }
    s.table(table);
    if !named.is_empty() {
        s.say(format!(
            "The {} named **the {} pages** that the program is bound to write, and comparing every byte finds the same.",
            named.join(" and the "),
            predicted.len()
        ));
    }
    s.say(format!(
        "A log costs by the size of the memory, a ring (here of {RING} entries) by what was written."
    ));
    Ok(())
}

fn frozen(s: &mut Session) -> anyhow::Result<(Snapshot, f64)> {
    s.step_at("Freeze a booted machine", snapshot::HERE);
    let start = Instant::now();
    let mut machine = dirty::booted(Method::Nothing)?;
    let boot = start.elapsed();
    let start = Instant::now();
    let snapshot = Snapshot::take(&mut machine)?;
    let took = start.elapsed();
    s.metric("boot_us", "us", us(boot));
    s.metric("snapshot_us", "us", us(took));
    s.say(format!(
        "\"Boot\" (a store to each of {BOOT_PAGES} pages) took {:.1} ms. The snapshot, registers and {} MiB of memory, \
         took **{:.1} ms**.",
        ms(boot),
        MEMORY >> 20,
        ms(took)
    ));
    Ok((snapshot, us(boot)))
}

fn thawed(s: &mut Session, snapshot: &Snapshot, boot_us: f64) -> anyhow::Result<()> {
    s.step_at("Have it again, three ways", snapshot::HERE);
    s.predict(Predict::new(
        "restore 32 MiB by copying, or by mapping the snapshot copy-on-write: how do they compare?",
        ["copying is faster: no faults later", "about the same", "the mapping is tens of times faster"],
        2,
        "Mapping copies nothing; each page is copied when it is first written, and most never are.",
    ));
    let (mut best, mut left) = ([f64::INFINITY; 3], 0);
    for _ in 0..3 {
        let start = Instant::now();
        drop(snapshot.restore_copy()?);
        best[0] = best[0].min(us(start.elapsed()));
        let start = Instant::now();
        let mut machine = snapshot.restore_cow()?;
        best[1] = best[1].min(us(start.elapsed()));
        dirty::work(&mut machine)?;
        let start = Instant::now();
        snapshot.reset(&mut machine)?;
        best[2] = best[2].min(us(start.elapsed()));
        left += snapshot.pages_changed(&machine)?;
    }
    s.check("reset_forgets_all", left == 0, format!("{left} pages differ after a reset"));
    let [copy, cow, reset] = best;
    s.bars(
        Bars::new("until it can run, best of 3", "us")
            .bar("boot again", boot_us, "")
            .bar("copy", copy, "32 MiB copied")
            .bar("copy-on-write", cow, "a new VM on a shared mapping")
            .bar("reset", reset, "the same VM, its writes forgotten"),
    );
    s.metric("restore_copy_us", "us", copy);
    s.metric("restore_cow_us", "us", cow);
    s.metric("reset_us", "us", reset);
    s.say(format!(
        "Copy-on-write is **{:.0} times** faster than a copy: what is not written is never copied.",
        copy / cow
    ));
    Ok(())
}

fn cloned(s: &mut Session, snapshot: &Snapshot, count: u64) -> anyhow::Result<()> {
    s.step_at(format!("Make {count} of it"), snapshot::HERE);
    let clones = snapshot::clones(snapshot, count)?;
    let mut table =
        Table::new(["clone", "ready us", "work us", "computed", "own pages"]).right([0, 1, 2, 3, 4]);
    for c in clones.iter().take(8) {
        table.push([
            c.id.to_string(),
            format!("{:.0}", us(c.ready)),
            format!("{:.0}", us(c.work)),
            format!("{}² = {}", c.id, c.result),
            c.own_pages.to_string(),
        ]);
    }
    s.table(table);
    let own: usize = clones.iter().map(|c| c.own_pages).sum();
    let whole = clones.len() * MEMORY / 4096;
    s.say(format!(
        "{} machines of {} MiB have **{own} pages of their own** together, of {whole}: they share the rest.",
        clones.len(),
        MEMORY >> 20
    ));
    s.metric("clone_own_pages", "1", own as f64);
    s.check(
        "clones_differ",
        clones.iter().all(|c| c.result == c.id * c.id),
        "each computed with its own number",
    );
    Ok(())
}
