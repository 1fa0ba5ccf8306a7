//! What is wrong with a configuration, all of it at once: key, place, and what would be right.

use std::fmt;

/// One thing that must be changed before the daemon starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `section.key`, a section, or nothing where a whole file is at fault.
    pub key: Option<String>,
    /// The file's path, `environment variable NAME`, or `default`.
    pub place: String,
    /// What would be right. Never holds a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(formatter, "{key} ({}): {}", self.place, self.message),
            None => write!(formatter, "{}: {}", self.place, self.message),
        }
    }
}

/// The configuration can't be used. Displays every problem, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        ConfigError { problems }
    }

    /// A single problem with one file.
    pub(super) fn of_file(place: &std::path::Path, message: String) -> Self {
        ConfigError::new(vec![Problem { key: None, place: place.display().to_string(), message }])
    }

    /// Every problem that was found.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(formatter, "{line_break}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
