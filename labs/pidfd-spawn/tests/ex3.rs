//! Spec of exercise 3: a live upgrade.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex3.rs"]
mod exercise;

mod server;

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use exercise::{listening_inode, number_of, take_over, upgrade};
use kit::spec::property;
use nix::sys::signal::Signal;
use pidfd_spawn::pidfd::End;
use server::{New, Old, answer, old_server_if_told};

/// Does something when dropped, so also in a panic of the student's code: who waits for it must not wait for ever.
struct Otherwise<F: FnMut()>(Option<F>);

impl<F: FnMut()> Otherwise<F> {
    fn new(what: F) -> Self {
        Self(Some(what))
    }

    fn not_if(mut self, well: bool) {
        if well {
            self.0 = None;
        }
    }
}

impl<F: FnMut()> Drop for Otherwise<F> {
    fn drop(&mut self) {
        if let Some(what) = &mut self.0 {
            what();
        }
    }
}

/// Longer than any client takes.
const LONG: Duration = Duration::from_secs(20);

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex3.rs"]
fn the_table_of_sockets() {
    kit::spec::run(|| {
        let tcp = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     
   0: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 11111 1 0000000000000000 20 4 30 10 -1
   1: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 22222 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 33333 1 0000000000000000 100 0 0 10 0
   3: 0100007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000 00000000  1000        0 44444 1 0000000000000000 100 0 0 10 0
   4: 0100007F:8080 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 55555 1 0000000000000000 100 0 0 10 0
";
        let what = property(
            "it is the socket that listens, not one of its connections",
            "which state has it, and in which base is the port?",
        );
        what.same(Some(44444), listening_inode(tcp, 8080));
        what.same(Some(33333), listening_inode(tcp, 53));
        what.same(Some(55555), listening_inode(tcp, 0x8080));
        let none = property("a port on which nobody listens has no socket", "is 8080 the same as 0x8080?");
        none.same(None, listening_inode(tcp, 0xd431));
        none.same(None, listening_inode("", 80));
        none.same(None, listening_inode("  sl  local_address rem_address   st\n garbage\n", 80));
        let tcp6 = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 66666 1 0000000000000000 100 0 0 10 0
";
        property("IPv6 has its port behind the last colon, too", "how long is the address?")
            .same(Some(66666), listening_inode(tcp6, 80));
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex3.rs"]
fn the_number_of_a_socket() {
    kit::spec::run(|| {
        let links: Vec<(i32, String)> = [
            (0, "/dev/null"),
            (9, "socket:[123]"),
            (3, "socket:[1234]"),
            (4, "anon_inode:[eventpoll]"),
            (5, "pipe:[123]"),
            (7, "socket:[123]"),
            (6, "/tmp/socket:[123]"),
            (8, "socket:[5123]"),
        ]
        .map(|(n, link)| (n, link.to_owned()))
        .to_vec();
        property("it is the lowest number whose link is that socket's", "is 123 the inode of socket:[1234]?")
            .same(
                (Some(7), Some(3), None),
                (number_of(&links, 123), number_of(&links, 1234), number_of(&links, 12)),
            );
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex3.rs"]
fn the_listening_socket_is_taken() {
    old_server_if_told();
    kit::spec::run(|| {
        for host in ["127.0.0.1", "[::1]"] {
            // Without IPv6, there is nothing to take.
            if TcpListener::bind(format!("{host}:0")).is_err() {
                continue;
            }
            let mut old = Old::start(host);
            let what = property(
                "what is taken is the socket that listens on the port",
                "which of its sockets has that inode?",
            );
            let said: io::Result<TcpListener> = take_over(old.child.pidfd(), old.child.pid(), old.port);
            let listener = match said {
                Ok(listener) => listener,
                Err(e) => return what.holds(false, "a listener", e),
            };
            what.same(Some(old.port), listener.local_addr().ok().map(|a| a.port()));
            let none = property(
                "a port on which the process does not listen is an error",
                "what if there is no such line?",
            );
            let other = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_or(1, |a| a.port());
            none.holds(take_over(old.child.pidfd(), old.child.pid(), other).is_err(), "an error", "Ok");
            // Only we are left: the queue is the same.
            let _ = old.child.signal(Signal::SIGKILL);
            let _ = old.child.wait();
            let new = New::start(listener).expect("a thread");
            property("clients come to whoever has the socket", "is it the socket itself, or another one?")
                .same("new".to_owned(), old.ask());
            property("of a process that has ended nothing is taken", "what does the handle say?").holds(
                take_over(old.child.pidfd(), std::process::id() as i32, old.port).is_err(),
                "an error",
                "Ok",
            );
            drop(new);
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex3.rs"]
fn the_old_one_notices_nothing() {
    kit::spec::run(|| {
        let old = Old::start("127.0.0.1");
        let before = old.flags();
        let what = property(
            "the old server's descriptors have the flags that they had",
            "what do a copy and its original share?",
        );
        let listener = take_over(old.child.pidfd(), old.child.pid(), old.port);
        what.same(Ok(before), listener.as_ref().map(|_| old.flags()).map_err(ToString::to_string));
        drop(listener);
        let what = property(
            "it serves on after its socket was taken",
            "what does closing a copy do, and what shutdown?",
        );
        for _ in 0..3 {
            what.same("old".to_owned(), old.ask());
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex3.rs"]
fn no_client_is_refused() {
    kit::spec::run(|| {
        let mut old = Old::start("127.0.0.1");
        let (done, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let (said, answers) = thread::scope(|scope| {
            let (old, done, stop) = (&old, &done, &stop);
            let clients = scope.spawn(move || {
                let (mut answers, mut after) = (vec![old.ask()], 0);
                // Some after the upgrade; the old server's answers end by themselves.
                while after < 5 && !stop.load(Ordering::Relaxed) {
                    after += i32::from(done.load(Ordering::Relaxed));
                    answers.push(old.ask());
                }
                answers
            });
            let unless_it_succeeds = Otherwise::new(|| stop.store(true, Ordering::Relaxed));
            let said = upgrade(old.child.pidfd(), old.child.pid(), old.port, LONG, New::start);
            unless_it_succeeds.not_if(said.is_ok());
            done.store(true, Ordering::Relaxed);
            (said, clients.join().expect("clients do not panic"))
        });
        let what = property("the upgrade succeeds", "which call failed?");
        if let Err(e) = &said {
            what.holds(false, "a new server", e);
        }
        let odd: Vec<&String> = answers.iter().filter(|a| *a != "old" && *a != "new").collect();
        property(
            "every client has an answer, before, during and after",
            "is there a time when nobody accepts?",
        )
        .holds(odd.is_empty(), "old or new", format!("{odd:?}"));
        property("afterwards the new server answers", "who has the socket?")
            .same(Some("new"), answers.last().map(String::as_str));
        property("the old server has ended by itself", "did it have the time?")
            .same(Some(End::Exited(0)), old.child.try_wait().ok().flatten().map(|e| e.end));
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex3.rs"]
fn clients_in_flight_are_finished() {
    kit::spec::run(|| {
        let mut old = Old::start("127.0.0.1");
        let client = old.connect().expect("a client");
        assert_eq!(old.next_word(), "accepted");
        let (pid, port) = (old.child.pid(), old.port);
        let handle = old.child.pidfd().try_clone().expect("another handle");
        let what = property(
            "a client that the old server has accepted gets its answer",
            "how is it told to end, and what does it do then?",
        );
        let (said, answer) = thread::scope(|scope| {
            let upgrade = scope.spawn(|| {
                let unless_it_succeeds = Otherwise::new(|| drop(handle.signal(Signal::SIGKILL)));
                let said = upgrade(&handle, pid, port, LONG, New::start);
                unless_it_succeeds.not_if(said.is_ok());
                said
            });
            // It answers only when asked, which is when it was told to stop.
            let word = loop {
                match old.next_word().as_str() {
                    "accepted" => {}
                    word => break word.to_owned(),
                }
            };
            let answer = if word == "stopping" {
                answer(client).map_err(|e| e.to_string())
            } else {
                Err("the old server was gone".to_owned())
            };
            (upgrade.join(), answer)
        });
        let said = said.expect("see the panic above").map(drop).map_err(|e| e.to_string());
        property("the upgrade succeeds", "which call failed?").same(Ok(()), said);
        what.same(Ok("old".to_owned()), answer);
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex3.rs"]
fn a_start_that_fails_changes_nothing() {
    kit::spec::run(|| {
        let mut old = Old::start("127.0.0.1");
        let refuse = |_: TcpListener| -> io::Result<()> { Err(io::Error::other("a bad configuration")) };
        let said = upgrade(old.child.pidfd(), old.child.pid(), old.port, LONG, refuse);
        property("the error of a new server that cannot start is returned", "what does start return?")
            .same(Err("a bad configuration".to_owned()), said.map_err(|e| e.to_string()));
        let what = property("then the old server runs on", "what was it told by then?");
        for _ in 0..3 {
            what.same("old".to_owned(), old.ask());
        }
        what.same(None, old.child.try_wait().ok().flatten().map(|e| e.end));
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex3.rs"]
fn who_does_not_end_is_ended() {
    kit::spec::run(|| {
        let mut old = Old::start("127.0.0.1");
        // A client that never asks: the old server waits for it.
        let client = old.connect().expect("a client");
        assert_eq!(old.next_word(), "accepted");
        let patience = Duration::from_millis(100);
        let said = upgrade(old.child.pidfd(), old.child.pid(), old.port, patience, New::start);
        let what = property(
            "when the upgrade returns the old server has ended, by force if need be",
            "who waits for what?",
        );
        what.same(
            Some(End::Killed { signal: libc::SIGKILL, core: false }),
            old.child.try_wait().ok().flatten().map(|e| e.end),
        );
        what.same(Ok(()), said.map(drop).map_err(|e| e.to_string()));
        drop(client);
    });
}
