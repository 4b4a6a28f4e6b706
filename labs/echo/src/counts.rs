//! What a server counts about itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one server since its start. A snapshot is taken with [`Published::read`].
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])* pub $name: u64),* }

        /// The latest [`Counts`] of a running server, readable from any thread.
        ///
        /// Every field is a statistic of its own and orders nothing, so all accesses are Relaxed.
        #[derive(Debug, Default)]
        pub struct Published { $($name: AtomicU64),* }

        impl Counts {
            /// Names and values, in the order of declaration.
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            /// Sets a field by its name; unknown names are ignored.
            pub fn set(&mut self, name: &str, value: u64) {
                match name { $(stringify!($name) => self.$name = value,)* _ => {} }
            }

            /// What was counted since `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &Counts) -> Counts {
                Counts { $($name: self.$name.wrapping_sub(earlier.$name)),* }
            }
        }

        impl Published {
            /// Replaces the snapshot: for servers of one thread.
            pub fn store(&self, c: &Counts) { $(self.$name.store(c.$name, Relaxed);)* }
            /// Adds to the snapshot: for servers of many threads.
            pub fn add(&self, c: &Counts) { $(if c.$name != 0 { self.$name.fetch_add(c.$name, Relaxed); })* }
            /// The snapshot.
            pub fn read(&self) -> Counts { Counts { $($name: self.$name.load(Relaxed)),* } }
        }
    };
}

counters! {
    /// Calls of epoll_wait(2), poll(2) or io_uring_enter(2).
    wait,
    /// Calls of recv(2).
    recv,
    /// Calls of send(2).
    send,
    /// Calls of accept4(2).
    accept,
    /// Calls of epoll_ctl(2).
    ctl,
    /// Calls of shutdown(2), and of io_uring_register(2) while serving.
    other,
    /// Submissions to the ring.
    submissions,
    /// Completions taken from the ring.
    completions,
    /// Connections accepted.
    accepted,
    /// Connections closed.
    closed,
    /// Bytes received.
    bytes,
    /// Times a socket could not take all that was to be sent.
    blocked,
    /// Send bundles: sends of several buffers from a ring of the connection's own.
    bundled,
    /// Times accepting was paused for want of descriptors (EMFILE, ENFILE).
    paused,
    /// Receives that found no buffer in the ring (ENOBUFS).
    starved,
    /// Times the completion queue overflowed.
    overflowed,
    /// Most bytes held back for one connection whose client does not read; a maximum, not a sum.
    held_max,
    /// Connections cut off because they did not drain within the grace period.
    cut,
}

impl Counts {
    /// System calls made to serve: all but close(2).
    pub fn syscalls(&self) -> u64 {
        self.wait + self.recv + self.send + self.accept + self.ctl + self.other
    }
}
