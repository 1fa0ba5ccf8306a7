//! The effective settings for `check-config`: key, value, origin. How they are printed is the command's business.

use std::collections::BTreeMap;
use std::fmt;

use ::config::{Value, ValueKind};
use serde::Serialize;

use super::keys::{self, Kind};

/// Stands for a secret, whatever its length.
const MASK: &str = "********";

/// Origin of what nobody set.
pub(super) const DEFAULT_ORIGIN: &str = "default";

/// Every key in the order of the reference file.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub entries: Vec<ReportEntry>,
}

/// One key as it is in effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReportEntry {
    /// `section.key`
    pub key: String,
    /// Secrets are masked.
    pub value: ReportValue,
    /// The file's path, `environment variable NAME`, or `default`.
    pub origin: String,
}

/// A value as it was written; paths are absolute.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ReportValue {
    /// The key has no value.
    None,
    Boolean(bool),
    Integer(i64),
    Text(String),
    List(Vec<String>),
}

impl fmt::Display for ReportValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReportValue::None => formatter.write_str("none"),
            ReportValue::Boolean(value) => value.fmt(formatter),
            ReportValue::Integer(value) => value.fmt(formatter),
            ReportValue::Text(text) => formatter.write_str(text),
            ReportValue::List(texts) => write!(formatter, "[{}]", texts.join(", ")),
        }
    }
}

impl Report {
    /// `shown` holds the values that differ in effect from what was written.
    pub(super) fn new(values: &BTreeMap<String, Value>, shown: &BTreeMap<String, String>) -> Self {
        let entries = keys::all().map(|(key, kind)| {
            let written = values.get(&key);
            let value = match shown.get(&key) {
                Some(text) => ReportValue::Text(text.clone()),
                None => written.map_or(ReportValue::None, |value| show(&value.kind, kind)),
            };
            let origin = written.and_then(Value::origin).unwrap_or(DEFAULT_ORIGIN).to_owned();
            ReportEntry { key, value, origin }
        });
        Report { entries: entries.collect() }
    }
}

fn show(written: &ValueKind, kind: Kind) -> ReportValue {
    match written {
        ValueKind::Array(elements) if kind == Kind::Secrets => ReportValue::List(vec![MASK.to_owned(); elements.len()]),
        _ if kind.is_secret() => ReportValue::Text(MASK.to_owned()),
        ValueKind::Array(elements) => {
            ReportValue::List(elements.iter().map(|element| element.kind.to_string()).collect())
        }
        ValueKind::Boolean(value) => ReportValue::Boolean(*value),
        ValueKind::I64(value) => ReportValue::Integer(*value),
        other => ReportValue::Text(other.to_string()),
    }
}
