//! Where a spec's random inputs begin: drawn, given, or each student's own.

use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::Usage;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Seed {
    /// Draw the same random inputs again
    #[arg(long, value_name = "NUMBER", conflicts_with = "student")]
    seed: Option<u64>,
    /// Draw this student's own inputs; with --secret
    #[arg(long, value_name = "ID")]
    student: Option<String>,
    /// A file that only the instructor has: students' seeds come from it
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
}

impl Seed {
    /// For one run: the given one, the student's, or a new one.
    pub(crate) fn one(&self) -> anyhow::Result<u64> {
        match (&self.student, &self.secret) {
            (Some(student), _) => self.of(student),
            (None, Some(_)) => Err(Usage("--secret needs --student ID: whose inputs?".into()).into()),
            (None, None) => self.seed.map_or_else(drawn, Ok),
        }
    }

    /// Whether one was asked for.
    pub(crate) fn is_given(&self) -> bool {
        self.seed.is_some() || self.student.is_some()
    }

    /// For one student of a class: with a secret each has another, always the same; without, all share `common`.
    pub(crate) fn of_class(&self, student: &str, common: u64) -> anyhow::Result<u64> {
        if self.secret.is_some() { self.of(student) } else { Ok(common) }
    }

    fn of(&self, student: &str) -> anyhow::Result<u64> {
        let file = self.secret.as_ref().ok_or_else(|| Usage("--student needs --secret FILE".into()))?;
        let secret = fs::read(file).with_context(|| file.display().to_string())?;
        if secret.len() < 16 {
            let fix = format!("head -c 32 /dev/urandom > {}", file.display());
            return Err(Usage(format!("{} has less than 16 bytes\n  fix: {fix}", file.display())).into());
        }
        Ok(derived(&secret, student))
    }

    /// How to get the same again, in words.
    pub(crate) fn replay(seed: u64) -> String {
        format!("--seed {seed}")
    }
}

/// Bits of a seed: short enough to be typed again.
const BITS: u32 = 40;

/// A student's seed: the first bits of HMAC-SHA-256 (RFC 2104) under the secret.
fn derived(secret: &[u8], student: &str) -> u64 {
    short(hmac_sha256::HMAC::mac(student.as_bytes(), secret)[..8].try_into().unwrap_or_default())
}

/// A seed from the kernel.
pub(crate) fn drawn() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(short(bytes))
}

fn short(bytes: [u8; 8]) -> u64 {
    u64::from_be_bytes(bytes) >> (u64::BITS - BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_student_has_one_seed_by_one_secret() {
        // RFC 4231, test case 2.
        assert_eq!(derived(b"Jefe", "what do ya want for nothing?"), 0x5b_dcc1_46bf);
        let secret = [7; 32];
        assert_eq!(derived(&secret, "alice"), derived(&secret, "alice"));
        assert_ne!(derived(&secret, "alice"), derived(&secret, "bob"));
        assert_ne!(derived(&secret, "alice"), derived(&[8; 32], "alice"));
    }

    #[test]
    fn a_secret_without_a_student_is_a_mistake() {
        let secret = Seed { secret: Some("/dev/null".into()), ..Seed::default() };
        assert!(secret.one().is_err());
        assert!(secret.of("alice").is_err(), "an empty secret is none");
        assert_eq!(Seed { seed: Some(5), ..Seed::default() }.one().unwrap(), 5);
    }
}
