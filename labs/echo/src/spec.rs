//! Which server, with which knobs.

use std::fmt;
use std::str::FromStr;

/// The servers, from the oldest idea to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One thread a connection, blocking calls ([`s1_blocking`](crate::s1_blocking)).
    Blocking,
    /// One thread, poll(2) ([`s2_poll`](crate::s2_poll)).
    Poll,
    /// epoll(7), level-triggered ([`s3_epoll`](crate::s3_epoll)).
    Epoll,
    /// epoll(7), edge-triggered ([`s4_epoll_edge`](crate::s4_epoll_edge)).
    EpollEdge,
    /// io_uring, one submission per accept, receive and send ([`s5_oneshot`](crate::s5_oneshot)).
    Oneshot,
    /// io_uring, multishot accept and receive, ring of buffers ([`s6_multishot`](crate::s6_multishot)).
    Multishot,
}

impl Kind {
    /// All of them, in the order of the stages.
    pub const ALL: [Kind; 6] =
        [Kind::Blocking, Kind::Poll, Kind::Epoll, Kind::EpollEdge, Kind::Oneshot, Kind::Multishot];

    /// The name on the command line and in figures.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Blocking => "blocking",
            Kind::Poll => "poll",
            Kind::Epoll => "epoll",
            Kind::EpollEdge => "epoll-et",
            Kind::Oneshot => "oneshot",
            Kind::Multishot => "multishot",
        }
    }

    /// Whether it needs io_uring.
    pub fn is_uring(self) -> bool {
        matches!(self, Kind::Oneshot | Kind::Multishot)
    }
}

/// Where the kernel does the ring's deferred work (`task_work`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Taskrun {
    /// As it comes: the kernel interrupts the thread with an IPI if it must.
    Interrupt,
    /// At the next system call or interrupt (`IORING_SETUP_COOP_TASKRUN`, Linux 5.19).
    Coop,
    /// Only while the thread waits in io_uring_enter(2) (`IORING_SETUP_DEFER_TASKRUN` with
    /// `SINGLE_ISSUER`, Linux 6.1).
    Defer,
}

/// Where the knobs are.
pub const HERE: kit::Place = kit::here!();

/// What can be switched on a ring. Knobs do nothing to servers without a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Knobs {
    /// Where deferred work is done; what the kernel refuses falls back to the next lower one.
    pub taskrun: Taskrun,
    /// A send that succeeds posts no completion (`IOSQE_CQE_SKIP_SUCCESS`, Linux 5.17).
    pub quiet_sends: bool,
    /// Connections live in the ring's own table, not in the process's (direct descriptors, Linux 5.19).
    pub fixed_files: bool,
    /// One receive may fill several buffers (a bundle, Linux 6.10).
    pub bundles: bool,
    /// Several buffers are sent by a bundle (Linux 6.10) instead of a vectored send.
    pub send_bundles: bool,
    /// A kernel thread submits (`IORING_SETUP_SQPOLL`); excludes `taskrun` and `quiet_sends`.
    pub sqpoll: bool,
    /// Entries of the completion queue; 0 is enough for everything. Small ones make it overflow.
    pub cq_entries: u32,
    /// Buffers of the ring of buffers, a power of two. Few make receives find none.
    pub buffers: u16,
}

impl Knobs {
    /// All knobs off: what a first program with io_uring has.
    pub const PLAIN: Knobs = Knobs {
        taskrun: Taskrun::Interrupt,
        quiet_sends: false,
        fixed_files: false,
        bundles: false,
        send_bundles: false,
        sqpoll: false,
        cq_entries: 0,
        buffers: 128,
    };

    /// What serves small requests best.
    pub const BEST: Knobs =
        Knobs { taskrun: Taskrun::Defer, quiet_sends: true, fixed_files: true, ..Knobs::PLAIN };
}

/// A server to start.
///
/// ```
/// use echo::spec::{Kind, Spec};
/// let spec: Spec = "multishot+defer+fixed".parse().unwrap();
/// assert!(spec.kind == Kind::Multishot && spec.knobs.fixed_files);
/// assert_eq!(spec.to_string(), "multishot+defer+fixed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Which stage.
    pub kind: Kind,
    /// Its knobs.
    pub knobs: Knobs,
}

impl Spec {
    /// A stage with all knobs off.
    pub const fn plain(kind: Kind) -> Spec {
        Spec { kind, knobs: Knobs::PLAIN }
    }

    /// The best epoll server here: level-triggered, which needs no second receive to see that there is no more.
    pub const EPOLL: Spec = Spec::plain(Kind::Epoll);

    /// The best io_uring server here.
    pub const IO_URING: Spec = Spec { kind: Kind::Multishot, knobs: Knobs::BEST };

    /// Every stage and every knob once: what tests run through.
    pub fn all() -> Vec<Spec> {
        let mut specs: Vec<Spec> = Kind::ALL.into_iter().map(Spec::plain).collect();
        let more = [
            "oneshot+defer+fixed",
            "oneshot+sqpoll",
            "multishot+coop",
            "multishot+defer",
            "multishot+defer+quiet",
            "multishot+defer+quiet+fixed",
            "multishot+defer+quiet+bundle",
            "multishot+sendbundle",
            "multishot+defer+quiet+fixed+bundle+sendbundle",
            "multishot+coop+fixed+bundle",
            "multishot+sqpoll",
            "multishot+fixed+bundle+sendbundle+sqpoll",
        ];
        specs.extend(more.iter().filter_map(|s| s.parse::<Spec>().ok()));
        specs
    }
}

/// Not the name of a server or of a knob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no server or knob `{0}`; servers: blocking poll epoll epoll-et oneshot multishot io_uring; knobs, added with +: coop defer quiet fixed bundle sendbundle sqpoll cq=N bufs=N"
)]
pub struct UnknownSpec(String);

impl FromStr for Spec {
    type Err = UnknownSpec;

    /// `kind`, or `kind+knob+knob`; `io_uring` is the best one.
    fn from_str(s: &str) -> Result<Self, UnknownSpec> {
        let unknown = |w: &str| UnknownSpec(w.to_owned());
        let mut words = s.split('+');
        let first = words.next().unwrap_or_default();
        let mut spec = match first {
            "io_uring" | "uring" => Spec::IO_URING,
            name => {
                Spec::plain(Kind::ALL.into_iter().find(|k| k.name() == name).ok_or_else(|| unknown(name))?)
            }
        };
        for word in words {
            let knobs = &mut spec.knobs;
            match word.split_once('=') {
                None => match word {
                    "coop" => knobs.taskrun = Taskrun::Coop,
                    "defer" => knobs.taskrun = Taskrun::Defer,
                    "quiet" => knobs.quiet_sends = true,
                    "fixed" => knobs.fixed_files = true,
                    "bundle" => knobs.bundles = true,
                    "sendbundle" => knobs.send_bundles = true,
                    "sqpoll" => knobs.sqpoll = true,
                    _ => return Err(unknown(word)),
                },
                Some(("cq", n)) => knobs.cq_entries = n.parse().map_err(|_| unknown(word))?,
                Some(("bufs", n)) => {
                    knobs.buffers = n.parse().map_err(|_| unknown(word))?;
                    if !knobs.buffers.is_power_of_two() || knobs.buffers > 1 << 14 {
                        return Err(unknown(word));
                    }
                }
                Some(_) => return Err(unknown(word)),
            }
        }
        Ok(spec)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let k = &self.knobs;
        f.write_str(self.kind.name())?;
        match k.taskrun {
            Taskrun::Interrupt => {}
            Taskrun::Coop => f.write_str("+coop")?,
            Taskrun::Defer => f.write_str("+defer")?,
        }
        for (on, word) in [
            (k.quiet_sends, "+quiet"),
            (k.fixed_files, "+fixed"),
            (k.bundles, "+bundle"),
            (k.send_bundles, "+sendbundle"),
            (k.sqpoll, "+sqpoll"),
        ] {
            if on {
                f.write_str(word)?;
            }
        }
        if k.cq_entries != 0 {
            write!(f, "+cq={}", k.cq_entries)?;
        }
        if k.buffers != Knobs::PLAIN.buffers {
            write!(f, "+bufs={}", k.buffers)?;
        }
        Ok(())
    }
}
