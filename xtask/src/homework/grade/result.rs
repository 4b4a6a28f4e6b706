//! What a submission came to.

use serde::{Deserialize, Serialize};

use crate::homework::judge::{Failure, Outcome};

/// One submission, graded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Graded {
    pub(crate) schema: u32,
    pub(crate) submission: String,
    pub(crate) seed: u64,
    /// What was graded with what: the same digest again is the same result again.
    pub(crate) digest: String,
    pub(crate) points: u32,
    pub(crate) of: u32,
    pub(crate) not_gradable_here: u32,
    /// How well the submission was kept away from the grader.
    pub(crate) sandbox: Vec<String>,
    /// What somebody should look at, and counts for nothing.
    pub(crate) remarks: Vec<String>,
    pub(crate) exercises: Vec<ExerciseResult>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExerciseResult {
    pub(crate) lab: String,
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) points: u32,
    pub(crate) of: u32,
    pub(crate) not_gradable_here: u32,
    pub(crate) state: State,
    /// Why no test was run, where none was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) why: String,
    pub(crate) random: bool,
    pub(crate) tests: Vec<TestResult>,
}

/// How far an exercise came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Tested,
    /// It is the starter.
    NotStarted,
    Missing,
    /// Not a file, too large, not text.
    Refused,
    DoesNotCompile,
    /// The compiler came to no end in its time.
    CompileLate,
    /// The grader's fault, or the machine's: to be graded again.
    GraderFailed,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TestResult {
    pub(crate) name: String,
    pub(crate) points: u32,
    pub(crate) of: u32,
    #[serde(flatten)]
    pub(crate) outcome: Told,
}

/// [`Outcome`], as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Told {
    Passed,
    Failed(Failure),
    NotGradableHere { why: String },
    NotRun,
}

impl From<Outcome> for Told {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Passed => Self::Passed,
            Outcome::Failed(failure) => Self::Failed(failure),
            Outcome::NotHere(why) => Self::NotGradableHere { why },
        }
    }
}

impl ExerciseResult {
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.lab, self.id)
    }

    /// `11/20`, and what could not be graded.
    pub(crate) fn score(&self) -> String {
        score(self.points, self.of, self.not_gradable_here)
    }

    /// Adds up the tests.
    pub(crate) fn with_tests(mut self, tests: Vec<TestResult>) -> Self {
        self.points = tests.iter().map(|t| t.points).sum();
        self.not_gradable_here =
            tests.iter().filter(|t| matches!(t.outcome, Told::NotGradableHere { .. })).map(|t| t.of).sum();
        self.tests = tests;
        self
    }
}

impl Graded {
    pub(crate) fn score(&self) -> String {
        score(self.points, self.of, self.not_gradable_here)
    }

    /// Whether the grader could do its work.
    pub(crate) fn is_complete(&self) -> bool {
        self.exercises.iter().all(|e| e.state != State::GraderFailed)
    }

    /// Whether another run would find the same: a compiler that came to no end may have had a busy machine.
    pub(crate) fn is_final(&self) -> bool {
        self.is_complete() && self.exercises.iter().all(|e| e.state != State::CompileLate)
    }
}

/// `18/20, 4 not gradable here`
pub(crate) fn score(points: u32, of: u32, not_here: u32) -> String {
    match not_here {
        0 => format!("{points}/{of}"),
        n => format!("{points}/{of}, {n} not gradable here"),
    }
}
