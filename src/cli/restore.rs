//! `hookledger restore`: puts a backup where `database.url` says. How, is `storage`.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::backup::contents_facts;
use super::failure::Failure;
use super::output::facts;
use crate::app::sqlite_options;
use crate::storage::backup::Restored;
use crate::storage::sqlite;

#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub async fn run(arguments: RestoreArguments, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let restored = sqlite::restore(&sqlite_options(&settings)?, &arguments.file).await?;
    context.output.show(&restored, |Restored { database, contents, is_outdated }| {
        let database = [("database", database.display().to_string())];
        let mut text = facts(&[&database[..], &contents_facts(contents)].concat());
        if *is_outdated {
            text.push_str(
                "\nAn earlier version made it: the next `hookledger serve` or `migrate` brings it up to date.",
            );
        }
        text
    })
}
