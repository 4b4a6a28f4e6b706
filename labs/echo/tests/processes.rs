//! Servers in processes of their own: limits, refusals, and other people's clients.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};

use common::{child, child_with_descriptors, connect, spawn, until};
use echo::control::Target;
use echo::load::{Client, Payload, Until};
use echo::spec::{Kind, Spec};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Says a word and hears it.
fn greet(stream: &mut TcpStream, word: &str) {
    let mut echo = vec![0; word.len()];
    let said = stream.write_all(word.as_bytes()).and_then(|()| stream.read_exact(&mut echo));
    assert!(said.is_ok() && echo == word.as_bytes(), "{word}: {said:?}, {echo:?}");
}

#[test]
fn out_of_descriptors_it_serves_on_and_later_serves_the_others() {
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let mut server = spawn(child_with_descriptors(&spec.to_string(), 40));
        let mut clients: Vec<TcpStream> = (0..60).map(|_| connect(server.addr())).collect();
        until(|| server.counts().unwrap().paused > 0);
        let accepted = server.counts().unwrap().accepted as usize;
        assert!((10..60).contains(&accepted), "{spec}: {accepted}");
        // Who is in is served, in the order of connecting.
        for client in &mut clients[..accepted] {
            greet(client, &format!("{spec} lacks descriptors"));
        }
        // It waits for descriptors; it does not spin.
        let busy = server.counts().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        let waits = server.counts().unwrap().since(&busy).wait;
        assert!(waits < 1000, "{spec}: {waits} waits in 100 ms with nothing to do");
        // Who leaves makes room for who waits.
        clients.drain(..40);
        for client in &mut clients {
            greet(client, &format!("{spec} has descriptors again"));
        }
    }
}

#[test]
fn ten_thousand_connections() {
    let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let limit = getrlimit(Resource::RLIMIT_NOFILE).unwrap().0;
    // The two ends are in two processes, so each needs a descriptor a connection.
    let connections = limit.saturating_sub(200).min(10_000) as usize;
    if connections < 10_000 {
        kit::testing::skip(
            "rlimit_nofile",
            &format!("{connections} connections only, not 10,000: RLIMIT_NOFILE {limit}"),
        );
    }
    // Each stage once, and the best: the other knobs change nothing about how many connections there are.
    let stages = Kind::ALL.map(Spec::plain).into_iter().chain([Spec::IO_URING]);
    let here = common::specs();
    for spec in stages.filter(|spec| here.contains(spec)) {
        let _dog = kit::testing::watchdog(180);
        let mut server = spawn(child(&spec.to_string()));
        let load = common::load(server.addr(), connections, Payload::Random(100), 1);
        let mut client = Client::connect(load).unwrap_or_else(|e| panic!("{spec}: {e}"));
        let requests = 2 * connections as u64;
        let report = client.run(Until::Requests(requests)).unwrap_or_else(|e| panic!("{spec}: {e}"));
        assert_eq!(report.requests, requests, "{spec}");
        until(|| server.counts().unwrap().accepted == connections as u64);
        drop(client);
        let counts = server.stop().unwrap();
        assert_eq!((counts.closed, counts.cut), (connections as u64, 0), "{spec}");
    }
}

#[test]
fn no_descriptor_is_left_when_clients_are_gone() {
    // Of all threads: they do not share one table.
    let open = |pid: u32| -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        tasks.map(|t| std::fs::read_dir(t.path().join("fd")).map_or(0, Iterator::count)).max().unwrap_or(0)
    };
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let mut server = spawn(child(&spec.to_string()));
        let pid = server.pid().unwrap();
        let before = open(pid);
        let mut client = Client::connect(common::load(server.addr(), 50, Payload::Random(100), 1)).unwrap();
        client.run(Until::Requests(200)).unwrap();
        drop(client);
        until(|| server.counts().unwrap().closed == 50 && open(pid) == before);
    }
}

#[test]
fn other_peoples_clients_get_their_echo() {
    let python = "import socket,sys\n\
        s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\n\
        d=sys.stdin.buffer.read();s.sendall(d);s.shutdown(socket.SHUT_WR)\n\
        while True:\n  b=s.recv(65536)\n  if not b: break\n  sys.stdout.buffer.write(b)\n";
    let text = common::bytes(50_000, 11);
    let mut clients: Vec<(&str, Vec<String>)> = Vec::new();
    if has("socat") {
        clients.push(("socat", vec!["-t10".into(), "-".into(), "TCP:127.0.0.1:PORT".into()]));
    }
    // Only some end their side at the end of the input.
    let usage = Command::new("nc").arg("-h").output().map(|o| [o.stdout, o.stderr].concat());
    if usage.is_ok_and(|text| String::from_utf8_lossy(&text).contains("-N")) {
        clients.push(("nc", vec!["-N".into(), "127.0.0.1".into(), "PORT".into()]));
    }
    if has("python3") {
        clients.push(("python3", vec!["-c".into(), python.into(), "PORT".into()]));
    }
    if clients.is_empty() {
        kit::skip!("clients", "no socat, nc or python3 installed");
    }
    for spec in common::specs() {
        let server = common::start(spec);
        let port = server.addr.port().to_string();
        for (program, args) in &clients {
            let _dog = kit::testing::watchdog(180);
            let args: Vec<String> = args.iter().map(|a| a.replace("PORT", &port)).collect();
            let mut client = Command::new(program)
                .args(&args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|e| panic!("{program}: {e}"));
            let mut stdin = client.stdin.take().unwrap();
            let text = text.clone();
            let writer = std::thread::spawn({
                let text = text.clone();
                move || stdin.write_all(&text)
            });
            let output = client.wait_with_output().unwrap();
            writer.join().unwrap().unwrap();
            assert!(output.stdout == text, "{program} against {spec}: {} bytes", output.stdout.len());
        }
    }
}

/// A server under strace, which lies to it about a system call.
fn under_strace(inject: &str, spec: &str) -> Result<Target, kit::SysError> {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=io_uring_setup,io_uring_register", "-e", inject])
        .args([env!("CARGO_BIN_EXE_echo"), "--child", spec]);
    Target::spawn(&mut command)
}

#[test]
fn a_forbidden_or_missing_ring_is_named_and_a_refused_flag_is_replaced() {
    let _dog = kit::testing::watchdog(180);
    if !has("strace") {
        kit::skip!("strace", "not installed");
    }
    match under_strace("inject=io_uring_setup:error=ENOSYS:when=99", "epoll") {
        Ok(server) => drop(server.stop()),
        Err(e) => kit::skip!("ptrace", "strace does not run here: {e}"),
    }
    if let Err(e) = echo::server::uring_usable() {
        kit::skip!("io_uring", "{e}");
    }
    for (errno, symbol) in [("EPERM", "EPERM"), ("ENOSYS", "ENOSYS")] {
        for spec in ["oneshot", "multishot+defer"] {
            let error = under_strace(&format!("inject=io_uring_setup:error={errno}"), spec).unwrap_err();
            assert_eq!((error.call.as_ref(), error.symbol().as_str()), ("io_uring_setup", symbol));
        }
        let server = under_strace(&format!("inject=io_uring_setup:error={errno}"), "epoll").unwrap();
        greet(&mut connect(server.addr()), "the epoll half runs all the same");
    }
    // A kernel without DEFER_TASKRUN, and one without COOP_TASKRUN either.
    for (when, refused) in [("1", 1), ("1..2", 2)] {
        let inject = format!("inject=io_uring_setup:error=EINVAL:when={when}");
        let server = under_strace(&inject, "multishot+defer").unwrap();
        assert_eq!(server.notes().len(), refused, "{:?}", server.notes());
        greet(&mut connect(server.addr()), "with less");
    }
}

#[test]
fn counters_agree_with_strace() {
    if !has("strace") {
        kit::skip!("strace", "not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let log = folder.path().join(spec.to_string());
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-o"])
            .arg(&log)
            .args(["-e", "trace=epoll_wait,poll,io_uring_enter,recvfrom,sendto,accept4,epoll_ctl"]);
        command.args([env!("CARGO_BIN_EXE_echo"), "--child", &spec.to_string()]);
        let mut server = match Target::spawn(&mut command) {
            Ok(server) => server,
            Err(e) => kit::skip!("ptrace", "strace does not run here: {e}"),
        };
        let mut client = Client::connect(common::load(server.addr(), 10, Payload::Fixed(64), 1)).unwrap();
        client.run(Until::Requests(500)).unwrap();
        drop(client);
        until(|| server.counts().unwrap().closed == 10);
        let counts = server.stop().unwrap();
        // strace writes its last lines when the process has ended.
        let mut text = String::new();
        until(|| {
            text = std::fs::read_to_string(&log).unwrap();
            text.contains("io_uring_enter(") || text.contains("poll(") || text.contains("epoll_wait(")
        });
        let calls = |name: &str| {
            // A call cut in two by another thread's is counted where it begins.
            let call = format!(" {name}(");
            // Rust's runtime polls descriptors 0 to 2 before main.
            text.lines().filter(|l| l.contains(&call) && !l.contains("poll([{fd=0,")).count() as u64
        };
        let waits = calls("epoll_wait") + calls("io_uring_enter") + calls("poll");
        let seen = (calls("recvfrom"), calls("sendto"), calls("accept4"), calls("epoll_ctl"), waits);
        assert_eq!((counts.recv, counts.send, counts.accept, counts.ctl, counts.wait), seen, "{spec}");
    }
}

#[test]
fn a_client_that_ends_its_side_first_still_gets_everything() {
    let data = common::bytes(3 << 20, 12);
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let server = common::start(spec);
        let mut stream = connect(server.addr);
        let mut writer = stream.try_clone().unwrap();
        let sent = data.clone();
        let thread = std::thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut echo = Vec::new();
        stream.read_to_end(&mut echo).unwrap();
        thread.join().unwrap();
        assert!(echo == data, "{spec}: {} of {}", echo.len(), data.len());
    }
}
