//! Limits of the whole process: a test program of its own, so that no other test suffers.
#![cfg(target_arch = "x86_64")]

mod common;

use std::sync::Arc;

use kit::testing::watchdog;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pidfd_spawn::error::SpawnError;
use pidfd_spawn::spawn::Spawn;
use pidfd_spawn::ways::Way;
use pidfd_spawn::ways::zygote::Zygote;

#[test]
fn without_free_descriptors_each_way_fails_cleanly() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    let zygote = Arc::new(Zygote::start().unwrap());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let used: u64 = common::open_fds().iter().map(|n| n.parse::<u64>().unwrap_or(0)).max().unwrap();
    // Fill every number up to a low limit.
    setrlimit(Resource::RLIMIT_NOFILE, used + 8, hard).unwrap();
    let mut filler = Vec::new();
    while let Ok(f) = std::fs::File::open("/dev/null") {
        filler.push(f);
    }
    let results = [Way::Fork, Way::Vfork, Way::PosixSpawn, Way::Clone3]
        .map(|way| (way, Spawn::new("true").way(way).spawn()));
    let by_zygote = Spawn::new("true").zygote(&zygote).spawn();
    drop(filler);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    drop(zygote);
    for (way, result) in results.into_iter().chain([(Way::Zygote, by_zygote)]) {
        match result {
            Err(SpawnError::Create { source, .. }) => assert_eq!(source.errno, libc::EMFILE, "{way}"),
            other => panic!("{way}: {other:?}"),
        }
    }
    assert_eq!(common::children(), Vec::<i32>::new());
}
