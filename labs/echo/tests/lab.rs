//! The generator's own invariants, and the command line.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{any, child, load, spawn};
use echo::load::{Arrivals, Client, Load, LoadError, Payload, Until};
use echo::spec::Spec;
use kit::testing::watchdog;

/// A server that echoes through `spoil`.
fn liar(spoil: fn(u64, &mut Vec<u8>)) -> SocketAddr {
    let listener = TcpListener::bind(any()).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut turn = 0;
        let mut buffer = [0; 1000];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            let mut echo = buffer[..n].to_vec();
            spoil(turn, &mut echo);
            turn += 1;
            if stream.write_all(&echo).is_err() {
                return;
            }
        }
    });
    addr
}

#[test]
fn a_wrong_echo_is_noticed() {
    let _dog = watchdog(180);
    let lies: [fn(u64, &mut Vec<u8>); 4] = [
        |turn, echo| echo[0] ^= u8::from(turn == 7),
        // A byte lost and another invented: the length is right.
        |turn, echo| {
            if turn == 7 {
                echo.remove(0);
                echo.push(0);
            }
        },
        |turn, echo| {
            if turn == 7 {
                echo.swap(10, 11);
            }
        },
        |turn, echo| {
            if turn == 7 {
                echo.push(1);
            }
        },
    ];
    for lie in lies {
        let mut client = Client::connect(load(liar(lie), 1, Payload::Fixed(64), 1)).unwrap();
        let told = client.run(Until::Requests(20));
        assert!(matches!(told, Err(LoadError::Wrong { connection: 0, .. })), "{told:?}");
    }
}

#[test]
fn a_server_that_hangs_up_is_noticed() {
    let _dog = watchdog(180);
    let listener = TcpListener::bind(any()).unwrap();
    let mut client = Client::connect(load(listener.local_addr().unwrap(), 1, Payload::Fixed(64), 1)).unwrap();
    drop(listener.accept().unwrap());
    let told = client.run(Until::Requests(1));
    assert!(matches!(told, Err(LoadError::Closed { .. } | LoadError::Sys(_))), "{told:?}");
}

#[test]
fn an_open_loop_asks_by_its_timetable_and_counts_everything() {
    let _dog = watchdog(180);
    let server = common::start(Spec::EPOLL);
    for arrivals in [Arrivals::Constant(20_000.0), Arrivals::Poisson(20_000.0)] {
        // One connection at a time is hardly enough: requests wait, and the two clocks differ.
        let mut client =
            Client::connect(Load { arrivals, ..load(server.addr, 2, Payload::Fixed(64), 1) }).unwrap();
        let report = client.run(Until::Elapsed(Duration::from_millis(500))).unwrap();
        // All 10,000 that were due have been asked and answered; a Poisson process has a spread of 100.
        assert!((9_000..11_000).contains(&report.requests), "{arrivals:?}: {}", report.requests);
        assert_eq!(report.latency.len(), report.requests);
        assert_eq!(report.naive.len(), report.requests);
        for percentile in [10.0, 50.0, 90.0, 99.0, 99.9, 100.0] {
            assert!(report.us(percentile) >= report.naive_us(percentile), "{arrivals:?} p{percentile}");
        }
    }
}

#[test]
fn a_closed_loop_has_one_clock_only() {
    let _dog = watchdog(180);
    let server = common::start(Spec::EPOLL);
    let mut client = Client::connect(load(server.addr, 10, Payload::Fixed(100), 4)).unwrap();
    let report = client.run(Until::Requests(5000)).unwrap();
    assert_eq!((report.requests, report.bytes), (5000, 500_000));
    assert_eq!(report.latency, report.naive);
}

#[test]
fn a_request_costs_epoll_two_calls_and_io_uring_a_share_of_one() {
    let _dog = watchdog(180);
    let calls = |spec: &str| {
        let mut server = spawn(child(spec));
        let mut client = Client::connect(load(server.addr(), 50, Payload::Fixed(64), 1)).unwrap();
        client.run(Until::Requests(1000)).unwrap();
        let before = server.counts().unwrap();
        let report = client.run(Until::Requests(20_000)).unwrap();
        let counts = server.counts().unwrap().since(&before);
        counts.syscalls() as f64 / report.requests as f64
    };
    let epoll = calls("epoll");
    assert!((2.0..3.1).contains(&epoll), "{epoll}");
    if let Err(e) = echo::server::uring_usable() {
        kit::skip!("io_uring", "{e}");
    }
    // One call a request at the very most: its send is submitted by the wait for the next.
    let ring = calls("io_uring");
    assert!(ring <= 1.01, "{ring}");
}

fn lab(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_echo")).args(args).output().expect("the lab's own binary starts")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn a_run_tells_its_metrics() {
    let _dog = watchdog(180);
    let output = lab(&["--json", "--quick"]);
    let run = json(&output);
    assert_eq!((output.status.code(), &run["ok"]), (Some(0), &true.into()), "{run}");
    let mut servers = vec!["epoll"];
    if echo::server::uring_usable().is_ok() {
        servers.push("io_uring");
    }
    for server in servers {
        for connections in [1, 50, 500] {
            for what in ["req_per_s", "p50_us", "p99_us", "cpu_us_per_request", "syscalls_per_request"] {
                let name = format!("{server}_c{connections}_{what}");
                assert!(run["metrics"][&name]["value"].as_f64() > Some(0.0), "{name}");
            }
        }
    }
}

#[test]
fn every_view_runs() {
    for view in [&["--knobs"][..], &["--overload"], &["--map"], &["--connections", "3", "--in-process"]] {
        let _dog = watchdog(180);
        let output = lab(&[&["--json", "--quick"], view].concat());
        let run = json(&output);
        assert_eq!((output.status.code(), &run["ok"]), (Some(0), &true.into()), "{view:?}: {run}");
    }
}

#[test]
fn where_io_uring_is_forbidden_the_epoll_half_still_runs() {
    let _dog = watchdog(180);
    let under_strace = |inject: &str, args: &[&str]| {
        let inject = format!("inject=io_uring_setup:{inject}");
        let trace = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=io_uring_setup", "-e", &inject];
        Command::new("strace").args(trace).arg(env!("CARGO_BIN_EXE_echo")).args(args).output()
    };
    let few = ["--json", "--quick", "--connections", "2"];
    let output = match under_strace("error=EPERM", &few) {
        Ok(output) if output.status.code() == Some(0) => output,
        other => kit::skip!("ptrace", "strace does not run here: {other:?}"),
    };
    let run = json(&output);
    assert_eq!(run["ok"], true);
    assert!(run["metrics"]["epoll_c2_req_per_s"]["value"].as_f64() > Some(0.0));
    assert!(run["metrics"]["io_uring_c2_req_per_s"].is_null());
    assert!(run.to_string().contains("kernel.io_uring_disabled"), "the fix is named");
    // Asked for by name, it is what the machine lacks.
    let output = under_strace("error=ENOSYS", &["--serve", "127.0.0.1:0", "--server", "io_uring"]).unwrap();
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn serve_and_connect_are_two_programs() {
    let _dog = watchdog(180);
    let mut server = Command::new(env!("CARGO_BIN_EXE_echo"))
        .args(["--serve", "127.0.0.1:0", "--server", "poll"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It says where: "poll listens on 127.0.0.1:40001; process 1234; Ctrl-C ...".
    let (mut said, mut out) = (String::new(), server.stdout.take().unwrap());
    let addr = loop {
        let mut byte = [0];
        out.read_exact(&mut byte).unwrap();
        said.push(char::from(byte[0]));
        let addr = said.split_once("127.0.0.1:").and_then(|(_, port)| port.split_once(';'));
        if let Some((port, _)) = addr {
            break format!("127.0.0.1:{port}");
        }
    };
    let pid = server.id().to_string();
    let asked = ["--connect", &addr, "--duration", "0.2", "--rate", "2000", "--poisson", "--json"];
    let output = lab(&[&asked[..], &["--server-pid", &pid]].concat());
    let run = json(&output);
    assert!(run["metrics"]["server_cpu_share"]["value"].as_f64() > Some(0.0), "{run}");
    assert_eq!(output.status.code(), Some(0));
    assert!(
        run["metrics"]["p99_99_us"]["value"].as_f64() >= run["metrics"]["naive_p99_99_us"]["value"].as_f64()
    );
    // Ctrl-C stops it, and says so by its exit code.
    let pid = nix::unistd::Pid::from_raw(server.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(130));
}

#[test]
fn the_bundled_recordings_replay() {
    let _dog = watchdog(180);
    for name in ["default", "knobs", "map", "overload"] {
        let output = lab(&["--replay", name, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert_eq!(json(&output)["recorded"], true);
    }
}

#[test]
fn wrong_options_are_usage_errors() {
    let _dog = watchdog(180);
    let wrong: [&[&str]; 12] = [
        &["--no-such-option"],
        &["--server", "nginx"],
        &["--server", "epoll+warp"],
        &["--map", "--knobs"],
        &["--connections", "0"],
        &["--connect", "127.0.0.1:1", "--rate", "0"],
        // What would be ignored.
        &["--map", "--payload", "512"],
        &["--rate", "1000"],
        &["--overload", "--duration", "1"],
        &["--server", "poll"],
        &["--overload", "--sqpoll"],
        &["--server-pid", "1"],
    ];
    for args in wrong {
        assert_eq!(lab(args).status.code(), Some(2), "{args:?}");
    }
}
