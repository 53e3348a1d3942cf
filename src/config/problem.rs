//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in a text: line and column, both counted from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl Place {
    /// The beginning of a text.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// Why a value is not accepted, before it is known where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub reason: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault without a hint.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: None }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what was written that is unknown, and which of the known spellings may have been meant.
    pub fn unknown(what: &str, written: &str, known: &[&str]) -> Self {
        let fault = Self::new(format!("unknown {what} {written:?}"));
        match nearest(written, known) {
            Some(meant) => fault.hint(format!("did you mean {meant:?}?")),
            None if known.is_empty() => fault,
            None => fault.hint(format!("known: {}", known.join(", "))),
        }
    }
}

/// Serde carries only one text through its errors; the hint travels behind a line break, which no reason contains.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}

impl From<String> for Fault {
    /// Undoes `Display`.
    fn from(text: String) -> Self {
        match text.split_once('\n') {
            Some((reason, hint)) => Self::new(reason).hint(hint),
            None => Self { reason: text, hint: None },
        }
    }
}

/// The known spelling that differs from `written` by little enough to be meant.
fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let written = written.to_lowercase();
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file.
    pub place: Place,
    /// Which key, such as `callers[2].class`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.place.line, self.place.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with one configuration, in the order of its text; at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    file: PathBuf,
    found: Vec<Problem>,
    /// The other files that were looked at, so that a watcher sees when one of them appears.
    pub(super) referenced: Vec<PathBuf>,
}

impl Problems {
    /// Sorts and keeps what was found, without repetitions.
    pub(super) fn new(file: &Path, mut found: Vec<Problem>, referenced: Vec<PathBuf>) -> Self {
        found.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| a.path.cmp(&b.path)));
        found.dedup();
        Self { file: file.to_owned(), found, referenced }
    }

    /// The file they are in, as it was named.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The problems, in the order of the text.
    pub fn all(&self) -> &[Problem] {
        &self.found
    }
}

/// One line for each problem: `file:line:column: key path: reason; hint`.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.found.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{problem}", self.file.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
