//! Any bytes as a core: `cargo +nightly fuzz run core` in labs/elf-core. Its corpus is also run by `tests/corpus.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Refused or read: only a panic, a hang or a lack of memory is a finding.
    let _ = elf_core::ask_everything(elf_core::source::Source::bytes(bytes.to_vec()));
});
