//! `--exits`: what it costs to leave, by the way out.

use kit::{Bars, Lines, Predict, Scale, Session, Summary, Table};
use kvm_hello::cost::{self, BATCH, Cost, Way};
use kvm_hello::error::Error;

use crate::draw;
use crate::show_hello::summary;

pub fn tell(s: &mut Session, samples: usize) -> anyhow::Result<()> {
    let samples = if s.quick() { samples.min(200) } else { samples };
    s.param("samples", samples);
    let progress = s.progress(Way::ALL.len() as u64, "leaving the guest");
    let (mut costs, mut missing) = (Vec::new(), Vec::new());
    for way in Way::ALL {
        progress.what(way.title());
        // A batch holds many events, so fewer batches do.
        let count = if way.batch() > 1 { samples / 4 } else { samples };
        match cost::measure(way, count) {
            Ok(cost) => costs.push(cost),
            // Without the plain exit there is nothing to compare with.
            Err(Error::Sys(call)) if way != Way::Port => missing.push((way, call)),
            // A guest that leaves by another way than it should is no missing feature.
            Err(e) => return Err(e.into()),
        }
        progress.add(1);
    }
    drop(progress);

    s.step_at("Leave the guest, and come back", cost::HERE);
    s.predict(Predict::new(
        "one store, three fates: a full exit, an ioeventfd, a coalesced store. Which order of cost?",
        ["all the same: a trap is a trap", "full exit by far the most", "coalesced the most: it copies"],
        1,
        "All three trap into KVM. Only the full exit goes on to us, through a system call's return and entry.",
    ));
    table(s, &costs);
    verdict(s, &costs);
    for (way, call) in missing {
        s.missing(way.title(), call.to_string(), "");
    }

    s.step_at("See how they spread", cost::HERE);
    let rows: Vec<_> = costs.iter().map(|c| (c.way.title(), draw::histogram(&c.samples))).collect();
    s.figure("How often which cost (log scale)", draw::histograms_text(&rows), draw::histograms_svg(&rows));
    s.lines(distribution(&costs));
    s.say(format!(
        "ioeventfd and coalesced MMIO are means of batches of {BATCH}, so their tails are flatter than the truth."
    ));

    s.step_at("Ask KVM who ran the instructions", kvm_hello::stats::HERE);
    emulation(s, &costs);

    for cost in &costs {
        let (events, arrived) = (cost.events, cost.arrived);
        s.check(
            &format!("{}_all_arrived", cost.way.metric()),
            events == arrived,
            format!("{arrived} of {events}"),
        );
    }
    s.so(
        "an exit is cheap in the kernel and dear in user space: that is why virtio has eventfds.",
        "--devices, --dirty",
    );
    Ok(())
}

fn table(s: &mut Session, costs: &[Cost]) {
    let mut table = Table::new(["way out", "n", "median", "p90", "p99", "ends in"]).right([1, 2, 3, 4]);
    for cost in costs {
        let all = summary(&cost.samples);
        s.metric_spread(cost.way.metric(), "ns", all);
        let us = |ns: f64| format!("{:.2} us", ns / 1000.0);
        table.push([
            cost.way.title().into(),
            all.n.to_string(),
            us(all.median),
            us(all.p90),
            us(all.p99),
            ends_in(cost.way).into(),
        ]);
    }
    s.table(table);
    let bars = costs.iter().fold(Bars::new("median cost of an event", "us"), |bars, c| {
        bars.bar(c.way.title(), summary(&c.samples).median / 1000.0, "")
    });
    s.bars(bars);
}

fn ends_in(way: Way) -> &'static str {
    match way {
        Way::Ioeventfd => "KVM",
        Way::Coalesced => "KVM, for later",
        Way::Irqfd => "guest, then us",
        _ => "our process",
    }
}

fn verdict(s: &mut Session, costs: &[Cost]) {
    let median = |way| costs.iter().find(|c| c.way == way).map(|c| summary(&c.samples).median);
    let times = |dear, cheap| median(dear).zip(median(cheap)).map(|(dear, cheap)| dear / cheap);
    if let (Some(eventfd), Some(coalesced)) =
        (times(Way::Port, Way::Ioeventfd), times(Way::Mmio, Way::Coalesced))
    {
        s.say(format!(
            "An ioeventfd is **{eventfd:.0} times** cheaper than a full exit, a coalesced store {coalesced:.0} \
             times: the guest goes on at once, and we look when we like."
        ));
    }
}

/// The share of events at or below a cost.
fn distribution(costs: &[Cost]) -> Lines {
    let lines = Lines::new("share of events at or below", "us", "share").scales(Scale::Log, Scale::Nines);
    costs.iter().filter(|c| matches!(c.way, Way::Port | Way::PortUser | Way::Ioeventfd | Way::Irqfd)).fold(
        lines,
        |lines, c| {
            let sorted =
                kit::stats::sorted(&c.samples.iter().map(|n| *n as f64 / 1000.0).collect::<Vec<_>>());
            let shares = (1..=60).map(|i| i as f64 / 61.0).chain([0.99, 0.995, 0.999]);
            let points = shares.map(|p| (kit::stats::percentile(&sorted, p), p)).collect();
            lines.series(c.way.title(), points)
        },
    )
}

fn emulation(s: &mut Session, costs: &[Cost]) {
    let counted: Vec<_> = costs.iter().filter_map(|c| Some((c, *c.emulated.as_ref().ok()?))).collect();
    if let Some(why) = costs.iter().find_map(|c| c.emulated.as_ref().err()) {
        s.missing("who ran the instructions", why.to_string(), "Linux 5.14 or later");
    }
    if counted.is_empty() {
        return;
    }
    let mut table = Table::new(["way out", "emulated an event", "so"]).right([1]);
    for (cost, emulated) in &counted {
        let so = match (*emulated >= 1.5, *emulated >= 0.5) {
            (true, _) => "KVM ran the guest's code",
            (_, true) => "KVM ran this instruction",
            _ => "the processor ran it",
        };
        table.push([cost.way.title().to_owned(), format!("{emulated:.2}"), so.to_owned()]);
    }
    s.table(table);
    let ring0 = counted.iter().find(|(c, _)| c.way == Way::Port).map_or(0.0, |(_, e)| *e);
    s.metric("emulated_per_exit", "1", ring0);
    let spread: Vec<Summary> = [Way::Port, Way::PortUser]
        .iter()
        .filter_map(|w| costs.iter().find(|c| c.way == *w))
        .map(|c| summary(&c.samples))
        .collect();
    if ring0 >= 1.5 && spread.len() == 2 {
        s.say(format!(
            "This KVM **emulates ring 0**: no processor leaves a guest there, so an exit is the way from KVM's \
             emulator to us and back. Ring 3 it runs; leaving that costs {:.1} us against {:.1}. \
             On most machines both are 1 to 2 us, and the emulator sees only MMIO.",
            spread[1].median / 1000.0,
            spread[0].median / 1000.0
        ));
    } else if ring0 < 0.5 {
        s.say("The processor runs ring 0 itself; KVM emulates only what **touches a device**.");
    }
}
