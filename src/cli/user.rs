//! `hookledger user`: who has a balance.

use clap::{Args, Subcommand, value_parser};

use super::failure::Failure;
use super::output::or_dash;
use super::{Context, books_access};
use crate::storage::books::{NewUser, UserView};

const ROUTE: &str = "/admin/v1/users";

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user, and print the new id
    Add(AddArguments),
    /// List the users, newest first
    List(ListArguments),
}

#[derive(Debug, Args)]
pub struct AddArguments {
    /// The user's email address; every command takes it in place of the id
    #[arg(long)]
    email: String,
    /// A name for people to read
    #[arg(long)]
    name: Option<String>,
    /// Credits to begin with
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(i64).range(0..))]
    credits: i64,
    /// On a platform's own database, which makes users, keys and credits itself: do it all the same
    #[arg(long)]
    platform_database: bool,
}

#[derive(Debug, Args)]
pub struct ListArguments {
    /// How many to list at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

pub async fn run(command: UserCommand, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    match command {
        UserCommand::Add(AddArguments { email, name, credits, platform_database }) => {
            let user = NewUser { email, name, credits, platform_database };
            let created =
                books_access::write(&settings, ROUTE, user, async |store, user| store.add_user(user).await).await?;
            context.output.show(&created, |created| created.id.clone())
        }
        UserCommand::List(ListArguments { limit }) => {
            let users = books_access::read(&settings, async |store| store.users(limit).await).await?;
            context.output.list(&users, &["id", "email", "name", "credits", "keys", "created"], row)
        }
    }
}

fn row(user: &UserView) -> Vec<String> {
    vec![
        user.id.clone(),
        user.email.clone(),
        or_dash(user.name.as_deref()),
        user.credits.to_string(),
        user.keys.to_string(),
        user.created_at.clone(),
    ]
}
