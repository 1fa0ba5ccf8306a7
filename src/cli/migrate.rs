//! `hookledger migrate`: creates the database or brings it up to date. How, is `storage`.

use serde_json::json;

use super::Context;
use super::failure::Failure;
use crate::app::sqlite_options;
use crate::storage::sqlite;

pub async fn run(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    sqlite::migrate(&sqlite_options(&settings)).await?;
    let database = settings.database.url.to_string();
    context.output.show(&json!({ "database": database }), |_| format!("{database} is up to date"))
}
