//! When the requests of an open loop are due.

use std::time::Duration;

use kit::SysError;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{Arrivals, Random};

pub(super) struct Timetable {
    timer: TimerFd,
    /// When the next request is due, in nanoseconds from the start.
    pub next: u64,
    /// No request comes any more.
    pub over: bool,
    gap: f64,
    poisson: bool,
    /// The exact time, of which `next` is the whole part.
    exact: f64,
}

impl Timetable {
    /// None for a closed loop.
    pub fn new(arrivals: Arrivals, epoll: &Epoll, data: u64) -> Result<Option<Timetable>, SysError> {
        let (rate, poisson) = match arrivals {
            Arrivals::Closed => return Ok(None),
            Arrivals::Constant(rate) => (rate, false),
            Arrivals::Poisson(rate) => (rate, true),
        };
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
                .map_err(SysError::nix("timerfd_create"))?;
        // Edge-triggered: the timer is never read, each setting of it is a new edge.
        let on = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&timer, EpollEvent::new(on, data)).map_err(SysError::nix("epoll_ctl(ADD)"))?;
        Ok(Some(Timetable { timer, next: 0, over: false, gap: 1e9 / rate, poisson, exact: 0.0 }))
    }

    /// Goes on to the next request. The distance is exponentially distributed for Poisson arrivals.
    pub fn advance(&mut self, random: &mut Random) {
        self.exact += if self.poisson { -random.unit().ln() * self.gap } else { self.gap };
        self.next = self.exact as u64;
    }

    /// Sets the timer to the next request.
    pub fn arm(&mut self, now: u64) -> Result<(), SysError> {
        if self.over {
            return Ok(());
        }
        let left = Duration::from_nanos(self.next.saturating_sub(now).max(1));
        self.timer
            .set(Expiration::OneShot(TimeSpec::from(left)), TimerSetTimeFlags::empty())
            .map_err(SysError::nix("timerfd_settime"))
    }

    pub fn remove(self, epoll: &Epoll) -> Result<(), SysError> {
        epoll.delete(&self.timer).map_err(SysError::nix("epoll_ctl(DEL)"))
    }
}
