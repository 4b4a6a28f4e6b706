//! The zoo, one lock a file, in the order to read them.
//!
//! | file | waits by | unlock | fair | holder preempted |
//! | --- | --- | --- | --- | --- |
//! | `s1_tas` | swapping all the time | one store | no | all spin |
//! | `s2_ttas` | reading until free | one store | no | all spin |
//! | `s3_backoff` | reading, ever more rarely | one store | no | all spin, more idly |
//! | `s4_ticket` | reading one shared word | one store | first come | all spin, and so does each successor |
//! | `s5_mcs` | reading its own line | store to the next | first come | as ticket |
//! | `s6_clh` | reading the predecessor's line | one store | first come | as ticket |
//! | `s7_futex` | sleeping | swap, perhaps a wake | no | all sleep |
//! | `s8_adaptive` | spinning a little, then sleeping | swap, perhaps a wake | no | spin a little |
//! | `s9_parking` | spinning a little, yielding, then sleeping | one store | in the end | spin a little |
//! | `s10_rseq` | spinning only while the holder may be running | one store | in the end | stop at once |

mod lot;
pub mod s10_rseq;
pub mod s1_tas;
pub mod s2_ttas;
pub mod s3_backoff;
pub mod s4_ticket;
pub mod s5_mcs;
pub mod s6_clh;
pub mod s7_futex;
pub mod s8_adaptive;
pub mod s9_parking;

pub use s1_tas::Tas;
pub use s2_ttas::Ttas;
pub use s3_backoff::Backoff;
pub use s4_ticket::Ticket;
pub use s5_mcs::Mcs;
pub use s6_clh::Clh;
pub use s7_futex::FutexMutex;
pub use s8_adaptive::Adaptive;
pub use s9_parking::Parking;
pub use s10_rseq::RseqAware;
