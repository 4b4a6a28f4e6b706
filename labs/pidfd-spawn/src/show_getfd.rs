//! `--getfd`: a live upgrade.

use kit::{Predict, Session, Table};
use pidfd_spawn::handover::{self, HandoverError};
use pidfd_spawn::leaks;

pub fn tell(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("Take the listening socket out of a running server", handover::HERE);
    s.predict(Predict::new(
        "the old server is killed. A client connects before the new one calls accept. What does it get?",
        ["connection refused", "an answer from the new server", "a reset"],
        1,
        "The socket lives as long as one descriptor does, and its queue with it. The client waits there.",
    ));
    let h = match handover::upgrade(&crate::show_race::program()?) {
        Ok(h) => h,
        Err(HandoverError::Sys(e)) if e.call.contains("pidfd_getfd") => {
            s.missing(
                "pidfd_getfd",
                e.to_string(),
                "Linux 5.6; and the right to ptrace the child (sysctl kernel.yama.ptrace_scope)",
            );
            return Ok(());
        }
        Err(e) => return Err(e.into()),
    };
    let us = h.took.as_secs_f64() * 1e6;
    let table = Table::new(["what", "result"])
        .row(["ask the old server".to_owned(), format!("{:?} on port {}", h.before, h.port)])
        .mark([
            format!("pidfd_getfd(old, {})", h.their_fd),
            format!("our descriptor {}, {us:.0} us", h.our_fd),
        ])
        .row(["kill the old server, reap it".to_owned(), "done".into()])
        .row(["a client connects".to_owned(), "waits in the socket's queue".into()])
        .row(["we accept and answer".to_owned(), format!("{:?}", h.after)])
        .row([
            "the same without the handover".to_owned(),
            if h.refused_without { "connection refused".into() } else { "connected?".to_owned() },
        ]);
    s.table(table);
    s.say("The old server was not asked and need not know: the right is that of ptrace, not of a protocol.");
    s.metric("getfd_us", "us", us);
    s.check("upgrade_refused_none", h.after == "new", format!("the client got {:?}", h.after));
    s.check("without_it_refused", h.refused_without, "the contrast: a port whose server was killed");
    let left = leaks::unreaped();
    s.check("no_zombies", left.is_empty(), format!("{} of our children are not reaped", left.len()));
    s.so("whoever holds a descriptor holds the thing; a pidfd lets you reach for it.", "--supervise, --wait");
    Ok(())
}
