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
    let _dog = watchdog(30);
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

/// No room for the child's stack: those ways that map one say ENOMEM, and take no other way instead.
#[test]
fn without_memory_for_a_stack_the_spawn_fails_cleanly() {
    let _dog = watchdog(30);
    let _alone = common::alone();
    // A new thread has no stack for clone3 kept from before.
    let results = std::thread::spawn(|| {
        let ways = [Some(Way::PosixSpawn), Some(Way::Clone3), None];
        let ready = ways.map(|way| match way {
            Some(way) => Spawn::new("true").way(way).prepare().unwrap(),
            None => Spawn::new("true").prepare().unwrap(),
        });
        let mut results = Vec::with_capacity(ways.len());
        drop(vec![0u8; 64 << 10]); // so that small allocations find room
        let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
        setrlimit(Resource::RLIMIT_AS, 1 << 20, hard).unwrap();
        for ready in &ready {
            results.push(ready.spawn());
        }
        setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
        results
    })
    .join()
    .unwrap();
    for result in results {
        match result {
            Err(SpawnError::Create { source, .. }) => assert_eq!(source.errno, libc::ENOMEM, "{source}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(common::children(), Vec::<i32>::new());
}
