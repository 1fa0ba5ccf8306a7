//! `hookledger migrate`: creates the database or brings it up to date. How, is `storage`.

use serde_json::json;

use super::Context;
use super::failure::Failure;
use crate::app::database_options;
use crate::clock;
use crate::storage::open;

pub async fn run(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let patience = settings.database.start_timeout;
    open::migrate(&database_options(&settings), &clock::for_daemon(), patience).await?;
    let database = settings.database.url.to_string();
    context.output.show(&json!({ "database": database }), |_| format!("{database} is up to date"))
}
