//! `--devices`: a serial port, a timer and a device of our own, and a driver for them.

use std::time::Duration;

use kit::{Listing, Predict, Session, Summary, Table};
use kvm_hello::devices::{self, PROMPT, TYPED, multiplier, timer};
use kvm_hello::layout;

use crate::show_hello::us;

pub fn tell(s: &mut Session, timeout: Duration) -> anyhow::Result<()> {
    let report = devices::run(timeout)?;

    s.step_at("A timer inside KVM", timer::HERE);
    s.predict(Predict::new(
        "the guest programs the timer with five `out`s. How many exits do we see?",
        ["five", "one", "none"],
        2,
        "The timer and the interrupt controllers are inside KVM: it answers those ports itself.",
    ));
    let gaps: Vec<f64> = report.intervals.iter().map(|d| us(*d)).collect();
    s.measure("tick_interval_us", "us", Summary::of(&gaps));
    s.say(format!(
        "**{} ticks**, asked for every {:.0} us. The guest slept in `hlt` between them: with a controller in KVM, \
         `hlt` is no exit either, our thread just sleeps.",
        report.ticks,
        us(timer::period(timer::DIVISOR))
    ));
    let shortest = report.intervals.iter().min().copied().unwrap_or_default();
    if shortest < timer::period(timer::DIVISOR) / 4 {
        s.say(format!(
            "Some came after only {:.0} us: our thread had to wait for a CPU, and KVM **makes up for ticks** that \
             were due meanwhile, so that the guest's clock does not go slow.",
            us(shortest)
        ));
    }

    s.step_at("A serial port in this process", devices::serial::HERE);
    let mut said = report.said.split_inclusive('>');
    s.listing(
        Listing::new("on the line")
            .line(
                format!("guest> {}", said.next().unwrap_or("").trim_end_matches('>')),
                "transmitter empty: the line rises for every byte",
            )
            .line(format!("we>    {}", TYPED.trim_end()), "received: the line stays up until all is read")
            .line(format!("guest> {}", said.next().unwrap_or("").trim()), "in capitals"),
    );
    s.table(
        Table::new(["", ""])
            .right([1])
            .row(["bytes sent", &report.said.len().to_string()])
            .row(["bytes received", &TYPED.len().to_string()])
            .row(["interrupt line raised", &report.serial_interrupts.to_string()])
            .row(["exits to its registers", &report.serial_exits.to_string()]),
    );
    s.say(format!(
        "The line rises once when the driver turns the interrupt on, and once after each of the prompt's {} bytes: \
         asking for the cause takes it down.",
        PROMPT.len()
    ));
    s.say(format!(
        "**{:.1} exits a byte**: ask for the cause, then move the byte. That is why there is virtio.",
        report.serial_exits as f64 / (report.said.len() + TYPED.len()) as f64
    ));

    s.step_at("A device of our own", multiplier::HERE);
    s.table(
        Table::new(["register", "guest", "value"])
            .row(["+0 identity", "reads", &format!("{:#x} \"MUL!\"", report.identity)])
            .row(["+4, +8 factors", "writes", "6, 7"])
            .row(["+12 product", "reads", &report.product.to_string()]),
    );
    s.say(format!(
        "A device is **a match on an address**: {} accesses, {} exits. No memory is there; that is what makes it one.",
        report.multiplier_exits, report.multiplier_exits
    ));

    s.metric("exits", "1", report.exits as f64);
    s.metric("serial_exits", "1", report.serial_exits as f64);
    s.metric("serial_interrupts", "1", report.serial_interrupts as f64);
    s.check("timer_ticked", report.ticks >= 20, format!("{} ticks", report.ticks));
    let echoed = report.said.ends_with(&TYPED.to_uppercase());
    s.check("serial_echo", echoed, format!("{:?}", report.said));
    let rises = report.serial_interrupts == 1 + PROMPT.len() as u64;
    s.check("serial_line", rises, format!("line raised {} times", report.serial_interrupts));
    s.check("device_identity", report.identity == multiplier::IDENTITY, format!("{:#x}", report.identity));
    s.check("device_product", report.product == layout::ANSWER, format!("6 x 7 = {}", report.product));
    s.so("a device is code behind an address: yours, or KVM's.", "--exits, --dirty");
    Ok(())
}
