//! `hookledger migrate`: creates the database or brings it up to date. How, is `storage`.

use serde_json::json;

use super::Context;
use super::failure::Failure;
use crate::app::sqlite_options;
use crate::config::Settings;
use crate::storage::sqlite::{self, DatabaseLock, MigrateError, Role};

pub async fn run(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    bring_up_to_date(&settings).await?;
    let database = settings.database.url.to_string();
    context.output.show(&json!({ "database": database }), |_| format!("{database} is up to date"))
}

async fn bring_up_to_date(settings: &Settings) -> Result<(), MigrateError> {
    let options = sqlite_options(settings)?;
    sqlite::make_folder(&options)?;
    match DatabaseLock::take(&options, Role::Command, settings.database.start_timeout).await {
        Ok(lock) => sqlite::migrate(&options, &lock).await,
        // Beside a daemon nothing is changed, and mostly nothing has to be.
        Err(MigrateError::Held(holder)) => match sqlite::check(&options).await {
            Err(MigrateError::Outdated(_)) => Err(MigrateError::Held(holder)),
            checked => checked,
        },
        Err(error) => Err(error),
    }
}
