//! What is written about commands is what they do: the README and `tests/cmd`, line by line.

#[test]
fn commands_do_what_is_written() {
    let _dog = kit::testing::watchdog(300);
    if let Some(why) = tests::obstacle() {
        kit::skip!("cargo", "{why}");
    }
    // Builds it now, so that no case waits for that, or shows it.
    let (code, _, stderr) = tests::ran(tests::xtask(&tests::root(), &["--version"]));
    assert_eq!(code, Some(0), "{stderr}");
    trycmd::TestCases::new()
        .register_bin("cargo", tests::cargo())
        .env("CARGO_TARGET_DIR", tests::target().display().to_string())
        .case("../README.md")
        .case("cmd/*.trycmd");
}

#[test]
fn without_clang_it_is_said_what_to_install() {
    let _dog = kit::testing::watchdog(300);
    if let Some(why) = tests::obstacle() {
        kit::skip!("cargo", "{why}");
    }
    let mut build = tests::xtask(&tests::root(), &["bpf", "build", "--check"]);
    build.env("BENCHTOP_CLANG", "/no/such/clang");
    let (code, stdout, stderr) = tests::ran(build);
    assert_eq!(code, Some(4), "{stdout}{stderr}");
    assert!(stderr.contains("sudo apt-get install clang-14"), "{stderr}");
}

#[test]
fn the_checkout_is_in_shape() {
    let _dog = kit::testing::watchdog(300);
    if let Some(why) = tests::obstacle() {
        kit::skip!("cargo", "{why}");
    }
    let (code, stdout, stderr) = tests::ran(tests::xtask(&tests::root(), &["tidy"]));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}
