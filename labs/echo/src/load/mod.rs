//! The load generator: one thread, many connections, every byte checked.
//!
//! A **closed** loop sends the next request when an answer is there, so a slow server is asked less: the
//! load adapts to it, and the long waits are hardly sampled. An **open** loop has a timetable that the
//! server cannot change. Latency counts from the time at which a request *should* have been sent; counted
//! from when it *was* sent, the waiting in the client is lost, which is called coordinated omission
//! (G. Tene, "How NOT to measure latency"). Both are recorded here, side by side.

mod conn;
mod stream;
mod timetable;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kit::SysError;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::time::{ClockId, clock_gettime};

use conn::Conn;
pub use stream::{Random, Stream};
use timetable::Timetable;

/// When requests are to be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// Closed loop: when there is an answer to an earlier one.
    Closed,
    /// Open loop: so many a second, at equal distances.
    Constant(f64),
    /// Open loop: so many a second on average, independently of each other.
    Poisson(f64),
}

/// Bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Always as many.
    Fixed(usize),
    /// From 1 to so many, and cut at random into several sends.
    Random(usize),
}

/// What load to make.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The server.
    pub addr: SocketAddr,
    /// How many connections.
    pub connections: usize,
    /// Size of the requests.
    pub payload: Payload,
    /// Requests under way at once on a connection: 1 is ping-pong, more is streaming.
    pub depth: usize,
    /// When to send.
    pub arrivals: Arrivals,
}

/// When a run ends: new requests stop, and those under way are awaited.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After a time.
    Elapsed(Duration),
    /// After so many requests.
    Requests(u64),
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// An echo was not what was sent.
    #[error("connection {connection}: the echo differs in the {length} bytes from offset {offset} on")]
    Wrong {
        /// Which connection.
        connection: usize,
        /// Where in its stream.
        offset: u64,
        /// How many bytes were compared.
        length: usize,
    },
    /// The server closed a connection that waited for an echo.
    #[error("connection {connection}: closed by the server, {missing} bytes short")]
    Closed {
        /// Which connection.
        connection: usize,
        /// Bytes sent and not echoed.
        missing: u64,
    },
}

/// What a run has measured. Histograms are in nanoseconds.
#[derive(Debug, Clone)]
pub struct Report {
    /// Requests answered, each checked.
    pub requests: u64,
    /// Bytes echoed.
    pub bytes: u64,
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// CPU time of the generator's thread.
    pub cpu: Duration,
    /// From when a request should have been sent to its whole echo.
    pub latency: Histogram<u64>,
    /// From when it was sent: what a naive tool reports.
    pub naive: Histogram<u64>,
    /// How late the generator itself was with requests that nothing held up.
    pub late: Histogram<u64>,
}

impl Report {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Share of one CPU that the generator used, 0 to 1.
    pub fn cpu_share(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A percentile of the latency, in microseconds.
    pub fn us(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1e3
    }

    /// A percentile of the naive latency, in microseconds.
    pub fn naive_us(&self, percentile: f64) -> f64 {
        self.naive.value_at_percentile(percentile) as f64 / 1e3
    }
}

/// An empty histogram: 1 ns to 100 s, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).unwrap_or_else(|e| unreachable!("fixed bounds: {e}"))
}

/// Where requests are sent and their echoes compared.
pub const HERE: kit::Place = kit::here!();

/// User data of the timetable's timer.
const TIMER: u64 = u64::MAX;

/// Connections that stay open from run to run.
#[derive(Debug)]
pub struct Client {
    load: Load,
    epoll: Epoll,
    stream: Stream,
    conns: Vec<Conn>,
    random: Random,
}

/// One run.
struct Run {
    start: Instant,
    until: Until,
    timetable: Option<Timetable>,
    /// Requests started.
    started: u64,
    /// Requests whose time has come and which no connection is free for, by that time.
    waiting: VecDeque<u64>,
    /// Connections with room for another request, once for each.
    free: VecDeque<usize>,
    /// Connections that stopped in the middle of their sends, at random.
    paused: Vec<usize>,
    report: Report,
}

impl Run {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn open(&self, now: u64) -> bool {
        match self.until {
            Until::Elapsed(d) => now < d.as_nanos() as u64,
            Until::Requests(n) => self.started < n,
        }
    }
}

impl Client {
    /// Opens all connections.
    ///
    /// # Errors
    /// connect(2), epoll_create1(2), epoll_ctl(2).
    pub fn connect(load: Load) -> Result<Client, LoadError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(SysError::nix("epoll_create1"))?;
        let mut conns = Vec::with_capacity(load.connections);
        for who in 0..load.connections {
            let conn = Conn::connect(load.addr, who)?;
            epoll
                .add(&conn, EpollEvent::new(EpollFlags::EPOLLIN, who as u64))
                .map_err(SysError::nix("epoll_ctl(ADD)"))?;
            conns.push(conn);
        }
        Ok(Client { load, epoll, stream: Stream::default(), conns, random: Random::new(1) })
    }

    /// The load it makes.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Sends requests until the end given, and awaits every echo.
    ///
    /// # Errors
    /// [`LoadError`]: also when one byte of an echo is wrong.
    pub fn run(&mut self, until: Until) -> Result<Report, LoadError> {
        let timetable = Timetable::new(self.load.arrivals, &self.epoll, TIMER)?;
        let cpu = thread_cpu();
        let report = Report {
            requests: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            latency: histogram(),
            naive: histogram(),
            late: histogram(),
        };
        let mut run = Run {
            start: Instant::now(),
            until,
            timetable,
            started: 0,
            waiting: VecDeque::new(),
            free: (0..self.load.depth).flat_map(|_| 0..self.conns.len()).collect(),
            paused: Vec::new(),
            report,
        };
        let result = self.drive(&mut run);
        run.report.elapsed = run.start.elapsed();
        run.report.cpu = thread_cpu().saturating_sub(cpu);
        if let Some(timetable) = run.timetable {
            timetable.remove(&self.epoll)?;
        }
        result.map(|()| run.report)
    }

    fn drive(&mut self, run: &mut Run) -> Result<(), LoadError> {
        let mut events = [EpollEvent::empty(); 256];
        let mut buffer = vec![0; stream::LONGEST];
        loop {
            self.due(run)?;
            for at in std::mem::take(&mut run.paused) {
                self.send(run, at)?;
            }
            let idle = run.free.len() == self.conns.len() * self.load.depth;
            if idle && run.waiting.is_empty() && !run.open(run.now()) {
                return Ok(());
            }
            let now = run.now();
            if let Some(timetable) = &mut run.timetable {
                timetable.arm(now)?;
            }
            let timeout = if run.paused.is_empty() { EpollTimeout::from(100u8) } else { EpollTimeout::ZERO };
            let n = match self.epoll.wait(&mut events, timeout) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                Err(e) => return Err(SysError::new("epoll_wait", e as i32).into()),
            };
            for event in events[..n].iter().filter(|e| e.data() != TIMER) {
                let at = event.data() as usize;
                if event.events().intersects(EpollFlags::EPOLLOUT) {
                    self.send(run, at)?;
                }
                if event.events().intersects(!EpollFlags::EPOLLOUT) {
                    self.receive(run, at, &mut buffer)?;
                }
            }
        }
    }

    /// Starts what is due, as far as connections are free.
    fn due(&mut self, run: &mut Run) -> Result<(), LoadError> {
        let mut now = run.now();
        let Some(mut timetable) = run.timetable.take() else {
            while run.open(now) {
                let Some(at) = run.free.pop_front() else { break };
                run.started += 1;
                self.start(run, at, now, now)?;
                now = run.now();
            }
            return Ok(());
        };
        while timetable.next <= now && run.open(timetable.next) {
            run.started += 1;
            if run.free.is_empty() || !run.waiting.is_empty() {
                run.waiting.push_back(timetable.next);
            } else if let Some(at) = run.free.pop_front() {
                run.report.late.saturating_record(now - timetable.next);
                self.start(run, at, timetable.next, now)?;
            }
            timetable.advance(&mut self.random);
            now = run.now();
        }
        if !run.open(timetable.next) {
            timetable.over = true;
        }
        run.timetable = Some(timetable);
        Ok(())
    }

    fn start(&mut self, run: &mut Run, at: usize, due: u64, now: u64) -> Result<(), LoadError> {
        self.queue(at, due, now);
        self.send(run, at)
    }

    fn queue(&mut self, at: usize, due: u64, now: u64) {
        let size = match self.load.payload {
            Payload::Fixed(n) => n,
            Payload::Random(most) => self.random.between(1, most),
        };
        self.conns[at].queue(size, due, now);
    }

    fn send(&mut self, run: &mut Run, at: usize) -> Result<(), LoadError> {
        let cut = matches!(self.load.payload, Payload::Random(_)).then_some(&mut self.random);
        let was = self.conns[at].stuck;
        if self.conns[at].send(&self.stream, cut)? {
            run.paused.push(at);
        }
        let conn = &self.conns[at];
        if conn.stuck != was {
            let on =
                if conn.stuck { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            self.epoll
                .modify(conn, &mut EpollEvent::new(on, at as u64))
                .map_err(SysError::nix("epoll_ctl(MOD)"))?;
        }
        Ok(())
    }

    fn receive(&mut self, run: &mut Run, at: usize, buffer: &mut [u8]) -> Result<(), LoadError> {
        let got = self.conns[at].receive(&self.stream, buffer)?;
        if got == 0 {
            return Ok(());
        }
        run.report.bytes += got as u64;
        let now = run.now();
        let mut more = false;
        while let Some((due, sent)) = self.conns[at].answered() {
            run.report.requests += 1;
            run.report.latency.saturating_record(now.saturating_sub(due));
            run.report.naive.saturating_record(now.saturating_sub(sent));
            match run.waiting.pop_front() {
                Some(due) => self.queue(at, due, now),
                None if run.timetable.is_none() && run.open(now) => {
                    run.started += 1;
                    self.queue(at, now, now);
                }
                None => {
                    run.free.push_back(at);
                    continue;
                }
            }
            more = true;
        }
        // One send for all that the answers set free.
        if more { self.send(run, at) } else { Ok(()) }
    }
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
