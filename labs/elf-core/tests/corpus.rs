//! The fuzz target's corpus, as a plain test: what the fuzzer starts from, and whatever it finds later.

mod common;

use std::fs;
use std::path::Path;

use common::{notes, sample, sample_with};
use elf_core::ask_everything;
use elf_core::source::Source;
use elf_core::writer::{Layout, Load};
use kit::testing::watchdog;

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/core")
}

#[test]
fn every_file_of_the_corpus_is_survived() {
    let _dog = watchdog(180);
    let files: Vec<_> = fs::read_dir(corpus()).unwrap().flatten().map(|e| e.path()).collect();
    assert!(files.len() >= 8, "{}", files.len());
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let whole = ask_everything(Source::bytes(bytes.clone()));
        if file.file_stem().is_some_and(|n| n == "three-threads") {
            assert_eq!(whole.unwrap().0, 3);
        }
        // And each prefix that ends at a 64-byte boundary.
        for end in (0..bytes.len().min(8192)).step_by(64) {
            let _ = ask_everything(Source::bytes(bytes[..end].to_vec()));
        }
    }
}

/// Writes the seeds anew: `cargo test -p elf-core --test corpus -- --ignored`.
#[test]
#[ignore = "writes files: only to make the seeds anew"]
fn write_the_seeds() {
    let put = |name: &str, bytes: &[u8]| fs::write(corpus().join(name), bytes).unwrap();
    fs::create_dir_all(corpus()).unwrap();
    put("three-threads", &sample());
    put("headers-and-notes", &sample()[..4096]);
    put("no-notes", &sample_with(Vec::new()));
    put("cut-in-the-notes", &sample()[..700]);
    put("header", &sample()[..64]);
    put("empty", &[]);
    put("text", b"#!/bin/sh\necho not a core\n");
    let mut big_endian = sample()[..4096].to_vec();
    big_endian[5] = 2;
    put("wrong-byte-order", &big_endian);
    let mut small = sample()[..4096].to_vec();
    small[4] = 1;
    put("wrong-class", &small);
    let load = |i: u64| Load { vaddr: 4096 * i, memsz: 4096, filesz: 0, flags: 4 };
    let (mut many, _) = Layout { machine: 62, notes: notes(), loads: (0..20).map(load).collect() }.head();
    many[56..58].copy_from_slice(&[0xff, 0xff]); // PN_XNUM, and no section to look in
    put("pn-xnum", &many);
}
