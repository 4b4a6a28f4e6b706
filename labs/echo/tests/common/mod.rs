//! What the tests share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use echo::control::Target;
use echo::load::{Arrivals, Load, Payload};
use echo::server::{self, Running};
use echo::spec::Spec;

/// Any port of this machine.
pub fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Every server and knob that can run here; says which cannot.
pub fn specs() -> Vec<Spec> {
    match server::uring_usable() {
        Ok(()) => Spec::all(),
        Err(e) => {
            kit::testing::skip("io_uring", &format!("the servers without it are tested all the same: {e}"));
            Spec::all().into_iter().filter(|s| !s.kind.is_uring()).collect()
        }
    }
}

/// A server in this process.
pub fn start(spec: Spec) -> Running {
    server::start(spec, any()).unwrap_or_else(|e| panic!("{spec}: {e}"))
}

/// The lab's binary, serving.
pub fn child(spec: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo"));
    command.args(["--child", spec]);
    command
}

/// The same with another number of descriptors.
pub fn child_with_descriptors(spec: &str, limit: u64) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {limit} && exec \"$0\" --child \"$1\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_echo"), spec]);
    command
}

/// A server process.
pub fn spawn(mut command: Command) -> Target {
    Target::spawn(&mut command).unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// A closed loop.
pub fn load(addr: SocketAddr, connections: usize, payload: Payload, depth: usize) -> Load {
    Load { addr, connections, payload, depth, arrivals: Arrivals::Closed }
}

/// A connection without Nagle's algorithm, so that what is written in pieces travels in pieces.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connect");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

/// Bytes that differ from place to place.
pub fn bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut random = echo::load::Random::new(seed);
    (0..n).map(|_| random.bits() as u8).collect()
}

/// Waits for something that must come true; the test's watchdog is the limit.
pub fn until(mut what: impl FnMut() -> bool) {
    while !what() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
