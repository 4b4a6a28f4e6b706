//! `--preempt`: the holder loses its CPU, and who pays.

use std::time::Duration;

use kit::{Lanes, Predict, Session, Span, Summary, SysError, Table};
use rseq_spinlock::locks::{Adaptive, Mcs, RseqAware, Tas, Ticket};
use rseq_spinlock::preempt::{Doing, GRANT, How, Play, Scene, play};
use rseq_spinlock::sys::rseq::Thread;
use rseq_spinlock::sys::slice;
use rseq_spinlock::throttle::Throttle;
use rseq_spinlock::{Lock, RawLock};

type Act = fn(Play) -> Result<Scene, SysError>;

const LOCKS: [(&str, Act); 5] = [
    (Tas::NAME, play::<Tas>),
    (Ticket::NAME, play::<Ticket>),
    (Mcs::NAME, play::<Mcs>),
    (Adaptive::NAME, play::<Adaptive>),
    (RseqAware::NAME, play::<RseqAware>),
];

pub fn show(s: &mut Session, thread: Thread) -> anyhow::Result<()> {
    let throttle = Throttle::read();
    let burst = throttle.within(Duration::from_millis(6));
    let takes = if s.quick() { 1 } else { 9 };
    s.step("Take the CPU from a thread that holds the lock");
    s.predict(Predict::new(
        "the holder is off its CPU for 6 ms, with three waiters. What does each lock burn?",
        ["nothing: they wait", "a few microseconds", "up to 6 ms and more, for each CPU with a spinner"],
        2,
        "A spinner cannot see that the holder is not running. On the holder's own CPU it even keeps it from running.",
    ));
    let mut table =
        Table::new(["lock", "holder off", "waited", "burnt spinning", "all through after"]).right(1..5);
    let mut how = How::Preempted;
    let mut shown = Vec::new();
    let mut burnt_by = Vec::new();
    for (name, act) in LOCKS {
        let mut scenes = take(act, Play { burst, deferred: false }, takes)?;
        let summary = |value: fn(&Scene) -> f64| Summary::of(&scenes.iter().map(value).collect::<Vec<_>>());
        let ms = |us: f64| format!("{:.2} ms", us / 1e3);
        let burnt = summary(|s| s.burnt_us);
        let end = summary(|s| s.end_us);
        table.push([
            name.to_owned(),
            ms(summary(|s| s.off_us).median),
            ms(summary(|s| s.waited_us).median),
            ms(burnt.median),
            ms(end.median),
        ]);
        s.metric_spread(&format!("{name}_preempted_burnt_us"), "us", burnt);
        s.metric_spread(&format!("{name}_preempted_end_us"), "us", end);
        burnt_by.push((name, burnt.median));
        scenes.sort_by(|a, b| a.burnt_us.total_cmp(&b.burnt_us));
        let middle = scenes.swap_remove(scenes.len() / 2);
        how = middle.how;
        shown.push((name, middle));
    }
    s.table(table);
    s.say(format!("Three waiters; the median of {takes}. **Burnt** is CPU time that did nobody any good."));
    burnt_by.sort_by(|a, b| a.1.total_cmp(&b.1));
    if let [(first, least), .., (last, most)] = burnt_by[..] {
        s.say(format!(
            "Least burnt: **{first}** ({:.2} ms). Most: **{last}** ({:.2} ms).",
            least / 1e3,
            most / 1e3
        ));
    }
    if how == How::Preempted {
        told(s, throttle, burst);
    } else {
        s.missing(
            "real preemption",
            "SCHED_FIFO is not permitted: the holder sleeps inside its section instead",
            "CAP_SYS_NICE or ulimit -r 1; in a cgroup, cpu.rt_runtime_us",
        );
    }
    s.step("Watch one of each");
    for (name, scene) in &shown {
        lanes(s, name, scene);
    }
    s.say(
        "The rseq-aware waiter on the holder's CPU reads its own CPU number in the lock word: the holder cannot be running. It \
         sleeps at once and tells the others. Nobody can tell them that a stranger took the CPU: then their limit ends it.",
    );
    extension(s, thread, burst, takes)?;
    s.step("Directed yield");
    s.say(
        "A hypervisor has the same trouble one floor down: a virtual CPU that holds a guest's lock is preempted by the host. \
         There the spinner's `pause` loop makes the CPU exit to the host (pause-loop exiting), and KVM's directed yield \
         (`kvm_vcpu_on_spin`) gives the rest of the slice to another virtual CPU of that guest, one that was preempted and may \
         be the holder. User space has no call to yield *to* a thread: it can only get out of the way, which is what sleeping does.",
    );
    let lasts = shown.iter().all(|(_, scene)| scene.actors.iter().skip(2).all(|a| !a.stretches.is_empty()));
    s.check("every_waiter_got_in", lasts, format!("{} locks", shown.len()));
    s.so("what one preemption costs is up to the waiters: spin blindly, and everyone pays", "--locks");
    Ok(())
}

/// What the kernel does to an intruder that does not stop.
fn told(s: &mut Session, throttle: Throttle, burst: Duration) {
    let burst = burst.as_secs_f64() * 1e3;
    s.say(match throttle {
        Throttle::Share { runtime, period } => format!(
            "The intruder has real-time priority for **{burst:.0} ms**. One that never stopped would be throttled: real-time \
             threads get {} of each {} ms here (sched_rt_runtime_us), so a holder waits for that at most.",
            runtime.as_millis(),
            period.as_millis()
        ),
        Throttle::Unlimited => format!(
            "The intruder has real-time priority for **{burst:.0} ms**. Nothing would throttle one that never stopped: \
             sched_rt_runtime_us is -1 here, and a holder on its CPU would wait for ever."
        ),
        Throttle::Unknown => format!("The intruder has real-time priority for **{burst:.0} ms**."),
    });
}

fn take(act: Act, play: Play, takes: usize) -> Result<Vec<Scene>, SysError> {
    (0..takes).map(|_| act(play)).collect()
}

fn lanes(s: &mut Session, name: &str, scene: &Scene) {
    let mut lanes = Lanes::new(name, "us");
    for actor in &scene.actors {
        let spans = actor
            .stretches
            .iter()
            // Too short to be seen.
            .filter(|st| st.to - st.from > scene.end_us / 300.0 || st.doing == Doing::Holds)
            .map(|st| {
                let kind = match st.doing {
                    Doing::Holds => "holds",
                    Doing::Off => "off",
                    Doing::Spins => "spins",
                    Doing::Waits => "waits",
                    Doing::Computes => "runs",
                };
                Span::new(st.from, st.to, kind, kind)
            })
            .collect();
        lanes = lanes.lane(format!("{}, CPU {}", actor.name, actor.cpu), spans);
    }
    s.lanes(lanes);
}

/// Asking for a little more time: for real where the kernel can, and simulated.
fn extension(s: &mut Session, thread: Thread, burst: Duration, takes: usize) -> anyhow::Result<()> {
    s.step("Ask for a little more time");
    if super::slice(s, thread).is_some() {
        let lock = Lock::<RseqAware, u64>::new(0);
        let (held, before) = (100_000, slice::grants());
        (0..held).for_each(|_| *lock.lock() += 1);
        let granted = slice::grants() - before;
        s.metric("slices_granted", "1", granted as f64);
        s.say(format!(
            "This kernel has the slice extension. A holder of the rseq-aware lock asked for it {held} times, and was granted \
             **{granted}**: only when the slice ends inside does the kernel need to.",
        ));
    }
    let scenes = take(play::<Tas>, Play { burst, deferred: true }, takes)?;
    if scenes.iter().any(|scene| scene.how == How::Sleeps) {
        s.missing("the simulation of it", "SCHED_FIFO is not permitted", "CAP_SYS_NICE or ulimit -r 1");
        return Ok(());
    }
    let burnt = Summary::of(&scenes.iter().map(|s| s.burnt_us).collect::<Vec<_>>());
    s.metric_spread("tas_deferred_simulated_burnt_us", "us", burnt);
    s.say(format!(
        "**Simulated**: whoever would take the holder's CPU looks at a flag that the holder sets, and stays back for {} us. \
         With that, the waiters of the plain test-and-set lock burn **{:.2} ms**. Linux 7.0 does it in the scheduler.",
        GRANT.as_micros(),
        burnt.median / 1e3
    ));
    Ok(())
}
