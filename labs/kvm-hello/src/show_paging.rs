//! Page tables, drawn, and one address walked from the guest to the host.

use kit::{Predict, Session, Table};
use kvm_hello::layout;
use kvm_hello::mode::Mode;
use kvm_hello::paging::{Format, Tables, Walk, nested_loads};

use crate::draw;

/// The walk of the result's address in a mode, and what the second dimension costs.
pub fn tell(s: &mut Session, mode: Mode, walk: &Walk, host: u64) {
    let virt = mode.result_address();
    s.step_at(format!("Walk {virt:#x} by hand"), Tables::HERE);
    s.figure(
        "From guest-virtual to guest-physical to host-virtual",
        draw::walk_text(virt, walk, host),
        draw::walk_svg(virt, walk, host),
    );
    if let Some(physical) = walk.physical {
        s.say(format!(
            "**{} loads** from the guest's tables give guest-physical {physical:#x}. The host adds where the \
             mapping begins, {host:#x}: its own tables do the rest.",
            walk.steps.len()
        ));
        s.check("walk_finds_result", physical == layout::RESULT, format!("{virt:#x} leads to {physical:#x}"));
    }

    let format = mode.paging().unwrap_or(Format::FourLevels);
    let levels = if format == Format::TwoLevels { 2 } else { 4 };
    let loads = nested_loads(levels, 4);
    s.step_at("Count what the second dimension costs", Tables::HERE);
    s.predict(Predict::new(
        &format!("TLB miss in a guest with {levels} levels, on a host with 4: how many loads at most?"),
        [levels.to_string(), (levels + 4).to_string(), (levels * 4).to_string(), loads.to_string()],
        3,
        "Each of the guest's entries is at a guest-physical address, which costs a walk of the host's tables first; \
         so does the final address.",
    ));
    let mut table = Table::new(["to read", "host loads", "guest load", "so far"]).right([1, 2, 3]);
    for step in &walk.steps {
        let sum = 5 * (levels - step.level + 1);
        let entry = format!(
            "{} entry at {:#x}",
            Format::table_name(step.level),
            step.table + format.entry_size() * step.index
        );
        table.push([entry, "4".into(), "1".into(), sum.to_string()]);
    }
    table.push(["the page itself".into(), "4".into(), "-".into(), loads.to_string()]);
    s.table(table);
    s.say(format!(
        "**{loads} loads** instead of {levels}: (levels + 1) x (host levels + 1) - 1. Large pages on both sides make \
         it {}; shadow page tables, which KVM keeps where the processor cannot do this, make it 4, and every \
         change of a guest table an exit.",
        nested_loads(levels.saturating_sub(1), 3)
    ));
    s.metric("nested_loads", "1", f64::from(loads));
}
