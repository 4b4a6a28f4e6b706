//! Where a spec's random inputs begin: drawn, given, or each student's own.

use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

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
    /// Gradescope's submission_metadata.json: the student is the one in it
    #[arg(long, value_name = "FILE", hide = true, requires = "secret", conflicts_with_all = ["student", "seed"])]
    metadata: Option<PathBuf>,
}

impl Seed {
    /// For one run: the given one, the student's, or a new one.
    pub(crate) fn one(&self) -> anyhow::Result<u64> {
        if let Some(file) = &self.metadata {
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            return self.of(&submitter(&text).with_context(|| file.display().to_string())?);
        }
        match (&self.student, &self.secret) {
            (Some(student), _) => self.of(student),
            (None, Some(_)) => Err(Usage("--secret needs --student ID: whose inputs?".into()).into()),
            (None, None) => self.seed.map_or_else(drawn, Ok),
        }
    }

    /// What is wrong with the words, before anything is built.
    pub(crate) fn check(&self, class: bool) -> anyhow::Result<()> {
        match self {
            Self { student: Some(_), .. } if class => {
                Err(Usage("--student is of one submission; a class takes --secret alone".into()).into())
            }
            Self { seed: Some(_), secret: Some(_), .. } => {
                Err(Usage("--seed and --secret both say which inputs: give one of them".into()).into())
            }
            Self { secret: Some(file), .. } if class => read_secret(file).map(drop),
            _ => self.one().map(drop),
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
        Ok(derived(&read_secret(file)?, student))
    }

    /// How to get the same again, in words.
    pub(crate) fn replay(seed: u64) -> String {
        format!("--seed {seed}")
    }
}

/// Who handed it in: the same for all that a student, or a group, hands in.
fn submitter(metadata: &str) -> anyhow::Result<String> {
    let metadata: serde_json::Value = serde_json::from_str(metadata)?;
    let users = metadata["users"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Of a group, the one who was on Gradescope first: the order of the others may change.
    let id = users.iter().filter_map(|u| u["id"].as_u64()).min();
    Ok(id.context("no user with an id in it")?.to_string())
}

/// A secret that is long enough not to be guessed.
pub(crate) fn read_secret(file: &Path) -> anyhow::Result<Vec<u8>> {
    let secret = fs::read(file).with_context(|| file.display().to_string())?;
    if secret.len() < 16 {
        let fix = format!("head -c 32 /dev/urandom > {}", file.display());
        return Err(Usage(format!("{} has less than 16 bytes\n  fix: {fix}", file.display())).into());
    }
    Ok(secret)
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
    fn who_hands_in_again_is_the_same() {
        // As in Gradescope's documentation, but for what is not read.
        let first = r#"{"id": 123456, "users": [{"email": "a@example.com", "id": 1234}, {"id": 99}]}"#;
        let again = r#"{"id": 123457, "users": [{"id": 99, "name": "B"}, {"id": 1234}]}"#;
        assert_eq!(submitter(first).unwrap(), "99");
        assert_eq!(submitter(again).unwrap(), "99");
        assert!(submitter("{}").is_err() && submitter("").is_err());
    }

    #[test]
    fn a_secret_without_a_student_is_a_mistake() {
        let secret = Seed { secret: Some("/dev/null".into()), ..Seed::default() };
        assert!(secret.one().is_err());
        assert!(secret.of("alice").is_err(), "an empty secret is none");
        assert_eq!(Seed { seed: Some(5), ..Seed::default() }.one().unwrap(), 5);
    }
}
