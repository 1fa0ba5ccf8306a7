//! What saving the books and putting them back comes to, in the same words for every database.
//!
//! How it is done, and why it may be refused, is the business of each store.

use std::path::PathBuf;

use serde::Serialize;

/// The books of a backup, in numbers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupContents {
    pub bytes: u64,
    pub installation: String,
    /// Events that are logged, whatever became of them.
    pub events: i64,
    /// Calls that were charged.
    pub charges: i64,
    /// The event that was recorded last, and when (UTC); none where there are no events.
    pub newest_event: Option<String>,
    pub newest_event_at: Option<String>,
}

/// A backup that was made.
#[derive(Debug, Clone, Serialize)]
pub struct Saved {
    pub file: PathBuf,
    #[serde(flatten)]
    pub contents: BackupContents,
}

/// A backup that was put into its place.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    pub database: PathBuf,
    #[serde(flatten)]
    pub contents: BackupContents,
    /// It was made by an earlier version: the next start brings it up to date.
    pub is_outdated: bool,
}
