//! Fails `greets`: it says nothing.

/// What `ex2.txt` says.
pub fn greeting() -> &'static str {
    ""
}
