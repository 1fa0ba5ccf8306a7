//! `hookledger key`: which user pays for which token of new-api.

use clap::{Args, Subcommand, value_parser};

use super::failure::Failure;
use super::output::or_dash;
use super::{Context, books_access};
use crate::storage::books::{Books, KeyView, NewKey};

const ROUTE: &str = "/admin/v1/keys";

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Give a user a token of new-api, and print the new key's id
    Add(AddArguments),
    /// List the keys, newest first
    List(ListArguments),
}

#[derive(Debug, Args)]
pub struct AddArguments {
    /// Who pays for the token's calls
    #[arg(long, value_name = "ID_OR_EMAIL")]
    user: String,
    /// The token's id in new-api
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(1..))]
    remote_id: i64,
    /// A name for people to read
    #[arg(long)]
    label: Option<String>,
}

#[derive(Debug, Args)]
pub struct ListArguments {
    /// Only the keys of this user
    #[arg(long, value_name = "ID_OR_EMAIL")]
    user: Option<String>,
    /// How many to list at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

pub async fn run(command: KeyCommand, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    match command {
        KeyCommand::Add(AddArguments { user, remote_id, label }) => {
            let key = NewKey { user, remote_id, label };
            let created =
                books_access::write(&settings, ROUTE, key, async |store, key| store.add_key(key).await).await?;
            context.output.show(&created, |created| created.id.clone())
        }
        KeyCommand::List(ListArguments { user, limit }) => {
            let keys = books_access::read(&settings, async |store| store.keys(user, limit).await).await?;
            let headers = ["id", "remote id", "user", "label", "status", "created", "last used"];
            context.output.list(&keys, &headers, row)
        }
    }
}

fn row(key: &KeyView) -> Vec<String> {
    vec![
        key.id.clone(),
        or_dash(key.remote_key_id.as_deref()),
        key.email.clone(),
        key.label.clone(),
        key.status.clone(),
        key.created_at.clone(),
        or_dash(key.last_used_at.as_deref()),
    ]
}
