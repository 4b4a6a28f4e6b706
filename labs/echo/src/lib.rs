//! # What does io_uring save over epoll, and when?
//!
//! An echo server does nothing but input and output, so what it costs is what asking the kernel costs.
//!
//! ```text
//! epoll: who is ready?                      io_uring: do this, and say when it is done
//!
//!   epoll_wait --> { 3, 7, 9 }                     submissions            completions
//!   recv(3) send(3)                          user  [send 3][send 7] ...   ... [3: 64 B][7: 64 B]
//!   recv(7) send(7)                          ----------|-------------------------^---------
//!   recv(9) send(9)                          kernel    +--> sends, receives -----+
//!   epoll_wait --> ...                             one io_uring_enter for a whole batch
//!
//!   2 calls a request, and a share of a wait       a share of one call a request
//! ```
//!
//! The kernel's network code is the same for both, and most of the cost: what io_uring can save is the way
//! into the kernel and back. How much that is depends on how many requests can share a way, so on how
//! many connections are busy at once; with one connection there is nobody to share with.
//!
//! Six servers, from the oldest idea to the newest, and one interface to them ([`server::start`]):
//!
//! | stage | waits by | calls a request |
//! | --- | --- | --- |
//! | [`s1_blocking`] | a thread a connection | 2 |
//! | [`s2_poll`] | poll(2), over all connections | 2, and a share of a wait as long as the list |
//! | [`s3_epoll`] | epoll, level-triggered | 2, and a share of a wait |
//! | [`s4_epoll_edge`] | epoll, edge-triggered | as above |
//! | [`s5_oneshot`] | io_uring, one submission an operation | a share of one |
//! | [`s6_multishot`] | io_uring, multishot and a ring of buffers | a share of one |
//!
//! All of them are right, not only fast: what a client sends comes back whole and in order, also when it
//! does not read for a while, ends its side first, sends a byte at a time or 64 MiB at once, and when
//! descriptors, buffers or places in the completion queue run out.
//!
//! And how would you know? [`load`] is a generator that checks every byte, and has two clocks; [`measure`]
//! runs servers in turn, each side on a CPU of its own, and counts.
//!
//! References: [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html),
//! [io_uring(7)](https://man7.org/linux/man-pages/man7/io_uring.7.html),
//! [Axboe, Efficient IO with io_uring](https://kernel.dk/io_uring.pdf),
//! [Corbet, Ringing in a new asynchronous I/O API](https://lwn.net/Articles/776703/),
//! [Brooker, Open and closed](https://brooker.co.za/blog/2023/05/10/open-closed.html).

mod conn;
pub mod control;
pub mod counts;
mod listen;
pub mod load;
pub mod measure;
pub mod s1_blocking;
pub mod s2_poll;
pub mod s3_epoll;
pub mod s4_epoll_edge;
pub mod s5_oneshot;
pub mod s6_multishot;
pub mod server;
mod slab;
pub mod spec;
mod sys;
mod uring;
