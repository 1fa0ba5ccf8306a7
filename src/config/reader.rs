//! Typed reading of the merged layers: every problem and warning is kept, and reading goes on after each.
//!
//! What a key means and how far it may go is said by its section.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use ::config::{Value, ValueKind};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use super::error::Problem;
use super::reload::Written;
use super::report::{DEFAULT_ORIGIN, Report};
use super::sources::{self, Layers};
use super::values::{self, Parsed};

/// The merged values, and what was found while reading them.
pub(super) struct Reader {
    values: BTreeMap<String, Value>,
    shown: BTreeMap<String, String>,
    files: BTreeMap<String, SecretString>,
    /// Texts of files as they were, for keys that keep them.
    kept_files: BTreeMap<String, SecretString>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

/// What is left of a reader after the last key.
pub(super) struct Outcome {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) report: Report,
    pub(super) written: Written,
}

impl Reader {
    pub(super) fn new(layers: Layers) -> Self {
        let Layers { values, problems, warnings } = layers;
        let (shown, files, kept_files) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Reader { values, shown, files, kept_files, problems, warnings }
    }

    /// A reader that takes the texts of these keys' files from here instead of from the disk.
    pub(super) fn with_files(mut self, kept_files: BTreeMap<String, SecretString>) -> Self {
        self.kept_files = kept_files;
        self
    }

    pub(super) fn section(&mut self, name: &'static str) -> Section<'_> {
        Section { reader: self, name }
    }

    pub(super) fn finish(self) -> Outcome {
        let report = Report::new(&self.values, &self.shown);
        let written = Written { values: self.values, files: self.files };
        Outcome { problems: self.problems, warnings: self.warnings, report, written }
    }

    /// What a key of any section holds, for checks across sections. Its own problems are not told again.
    pub(super) fn peek<T>(&self, key: &str, parser: impl FnOnce(&ValueKind) -> Parsed<T>) -> Option<T> {
        self.values.get(key).and_then(|value| parser(&value.kind).ok())
    }
}

/// The reader as one section sees it. A reading method gives `None` after it has noted a problem.
pub(super) struct Section<'reader> {
    reader: &'reader mut Reader,
    name: &'static str,
}

impl Section<'_> {
    /// A key that must have a value, if only its default.
    pub(super) fn parse<T>(&mut self, key: &str, parser: impl FnOnce(&ValueKind) -> Parsed<T>) -> Option<T> {
        let parsed = self.parse_optional(key, parser)?;
        if parsed.is_none() {
            self.refuse(key, "must have a value");
        }
        parsed
    }

    /// A key that may be absent: `Some(None)`.
    pub(super) fn parse_optional<T>(
        &mut self,
        key: &str,
        parser: impl FnOnce(&ValueKind) -> Parsed<T>,
    ) -> Option<Option<T>> {
        let Some(value) = self.reader.values.get(&self.path_of(key)) else { return Some(None) };
        match parser(&value.kind) {
            Ok(parsed) => Some(Some(parsed)),
            Err(message) => {
                self.refuse(key, message);
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        self.parse(key, values::boolean)
    }

    /// A whole number within limits, both included.
    pub(super) fn integer<T: TryFrom<i64>>(&mut self, key: &str, limits: RangeInclusive<i64>) -> Option<T> {
        self.parse(key, |kind| {
            let number = match kind {
                ValueKind::I64(number) if limits.contains(number) => T::try_from(*number).ok(),
                _ => None,
            };
            number.ok_or_else(|| {
                let (least, most) = limits.into_inner();
                format!("must be a whole number between {least} and {most}; got {}", values::describe(kind))
            })
        })
    }

    /// A duration within limits, both included.
    pub(super) fn duration(&mut self, key: &str, limits: RangeInclusive<Duration>) -> Option<Duration> {
        self.parse(key, |kind| {
            let duration = values::duration(kind)?;
            if limits.contains(&duration) {
                return Ok(duration);
            }
            let (least, most) = (values::show_duration(*limits.start()), values::show_duration(*limits.end()));
            Err(format!("must be between {least} and {most}; got {}", values::show_duration(duration)))
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.parse(key, |kind| {
            let found = values::text(kind).ok().and_then(|text| {
                choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, choice)| *choice)
            });
            found.ok_or_else(|| {
                let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                format!("must be one of {}; got {}", words.join(", "), values::describe(kind))
            })
        })
    }

    pub(super) fn networks(&mut self, key: &str) -> Option<Vec<IpNet>> {
        self.parse(key, values::networks)
    }

    /// The text of the file that a key names; a reload tells by it whether the file was changed.
    pub(super) fn read_file(&mut self, key: &str, path: &Path) -> Parsed<String> {
        let key = self.path_of(key);
        let text = match self.reader.kept_files.get(&key) {
            Some(text) => text.expose_secret().to_owned(),
            None => std::fs::read_to_string(path).map_err(|error| format!("must be readable: {error}"))?,
        };
        self.reader.files.insert(key, SecretString::from(text.as_str()));
        Ok(text)
    }

    /// Whether somebody set the key.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.origin_of(key).is_some_and(|origin| origin != DEFAULT_ORIGIN)
    }

    /// Whether the value comes from this variable of the environment.
    pub(super) fn is_from_variable(&self, key: &str, variable: &str) -> bool {
        self.origin_of(key).is_some_and(|origin| origin == sources::place_of(variable))
    }

    /// Notes a problem with a key of this section, at the place where its value was set.
    pub(super) fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let place = self.origin_of(key).unwrap_or(DEFAULT_ORIGIN).to_owned();
        self.reader.problems.push(Problem { key: Some(self.path_of(key)), place, message: message.into() });
    }

    /// Notes that a setting is legal and risky.
    pub(super) fn warn(&mut self, message: impl Into<String>) {
        self.reader.warnings.push(message.into());
    }

    /// Says what a key is in effect, where that differs from what was written.
    pub(super) fn show(&mut self, key: &str, effective: impl Display) {
        let key = self.path_of(key);
        self.reader.shown.insert(key, effective.to_string());
    }

    fn origin_of(&self, key: &str) -> Option<&str> {
        self.reader.values.get(&self.path_of(key)).and_then(Value::origin)
    }

    fn path_of(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }
}
