//! `hookledger backup`: saves the books into one file. How, is `storage`.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::failure::Failure;
use super::output::{facts, or_dash};
use crate::app::sqlite_options;
use crate::storage::backup::{BackupContents, Saved};
use crate::storage::sqlite;

#[derive(Debug, Args)]
pub struct BackupArguments {
    /// The file to make; it must not exist yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub async fn run(arguments: BackupArguments, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let saved = sqlite::backup(&sqlite_options(&settings)?, &arguments.file).await?;
    context.output.show(&saved, |Saved { file, contents }| {
        let file = [("file", file.display().to_string())];
        facts(&[&file[..], &contents_facts(contents)].concat())
    })
}

/// What is in a backup, for people.
pub fn contents_facts(contents: &BackupContents) -> Vec<(&'static str, String)> {
    let newest = match &contents.newest_event_at {
        Some(time) => format!("{} of {time}", or_dash(contents.newest_event.as_deref())),
        None => or_dash(None),
    };
    vec![
        ("bytes", contents.bytes.to_string()),
        ("installation", contents.installation.clone()),
        ("events", contents.events.to_string()),
        ("charges", contents.charges.to_string()),
        ("newest event", newest),
    ]
}
