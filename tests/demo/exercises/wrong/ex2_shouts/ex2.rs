//! Shouts.

/// What `ex2.txt` says.
pub fn greeting() -> &'static str {
    include_str!("ex2.txt").trim()
}
