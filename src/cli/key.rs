//! `hookledger key`: which user pays for which token of new-api.

use clap::{Args, Subcommand, value_parser};

use super::failure::Failure;
use super::output::or_dash;
use super::{Context, books_access};
use crate::storage::books::{KeyView, NewIgnore, NewKey, UnmatchedToken};

const ROUTE: &str = "/admin/v1/keys";
const IGNORED_ROUTE: &str = "/admin/v1/keys/ignored";

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Give a user a token of new-api, and print the new key's id
    Add(AddArguments),
    /// List the keys, newest first
    List(ListArguments),
    /// List the tokens that no key has and events wait for, each with the command that gives it to a user
    Unmatched(UnmatchedArguments),
    /// Say that a token is nobody's here: its calls are stored and never charged; without a token, list those
    Ignore(IgnoreArguments),
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
    /// On a platform's own database, which makes users, keys and credits itself: do it all the same
    #[arg(long)]
    platform_database: bool,
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

#[derive(Debug, Args)]
pub struct UnmatchedArguments {
    /// How many to list at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

#[derive(Debug, Args)]
pub struct IgnoreArguments {
    /// The token's id in new-api
    #[arg(value_name = "N", value_parser = value_parser!(i64).range(1..))]
    positional: Option<i64>,
    /// The same, by name
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(1..), conflicts_with = "positional")]
    remote_id: Option<i64>,
    /// From now on its calls wait for a key again; what was ignored until now stays uncharged
    #[arg(long)]
    undo: bool,
    /// On a platform's own database, which makes users, keys and credits itself: do it all the same
    #[arg(long)]
    platform_database: bool,
}

pub async fn run(command: KeyCommand, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    match command {
        KeyCommand::Add(AddArguments { user, remote_id, label, platform_database }) => {
            let key = NewKey { user, remote_id, label, platform_database };
            let created =
                books_access::write(&settings, ROUTE, key, async |store, key| store.add_key(key).await).await?;
            context.output.show(&created, |created| created.id.clone())
        }
        KeyCommand::Unmatched(UnmatchedArguments { limit }) => {
            let tokens = books_access::read(&settings, async |store| store.unmatched_tokens(limit).await).await?;
            let headers =
                ["token", "name", "calls", "quota", "credits", "first seen", "last seen", "to give it to a user"];
            context.output.list(&tokens, &headers, unmatched_row)
        }
        KeyCommand::Ignore(arguments) => ignore(arguments, context).await,
        KeyCommand::List(ListArguments { user, limit }) => {
            let keys = books_access::read(&settings, async |store| store.keys(user, limit).await).await?;
            let headers = ["id", "remote id", "user", "label", "status", "created", "last used"];
            context.output.list(&keys, &headers, row)
        }
    }
}

async fn ignore(arguments: IgnoreArguments, context: &Context) -> Result<(), Failure> {
    /// Ignored tokens that are listed.
    const LIMIT: u32 = 100_000;
    let settings = context.settings()?;
    let Some(remote_id) = arguments.positional.or(arguments.remote_id) else {
        if arguments.undo {
            return Err(Failure::usage("--undo needs the token's id"));
        }
        let tokens = books_access::read(&settings, async |store| store.ignored_tokens(LIMIT).await).await?;
        return context.output.list(&tokens, &["token"], |token| vec![token.remote_id.to_string()]);
    };
    let ignore = NewIgnore { remote_id, undo: arguments.undo, platform_database: arguments.platform_database };
    let ignored =
        books_access::write(&settings, IGNORED_ROUTE, ignore, async |store, ignore| store.ignore_token(ignore).await)
            .await?;
    context.output.show(&ignored, |ignored| match ignored.is_ignored {
        true => format!("token {} is ignored; waiting events closed: {}", ignored.remote_id, ignored.closed_events),
        false if ignored.closed_events > 0 => format!(
            "token {} was given to a user meanwhile and is not ignored; waiting events closed before that, which stay \
             uncharged: {}",
            ignored.remote_id, ignored.closed_events
        ),
        false => format!("token {} is no longer ignored", ignored.remote_id),
    })
}

fn unmatched_row(token: &UnmatchedToken) -> Vec<String> {
    vec![
        token.remote_id.to_string(),
        or_dash(token.name.as_deref()),
        token.calls.to_string(),
        token.quota.to_string(),
        token.credits.clone(),
        token.first_seen.clone(),
        token.last_seen.clone(),
        token.command.clone(),
    ]
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
