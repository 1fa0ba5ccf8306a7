//! `hookledger credits`: gives credits and shows where they went.

use clap::{Args, Subcommand, value_parser};

use super::failure::Failure;
use super::output::{facts, or_dash};
use super::{Context, books_access};
use crate::storage::books::{CreditsView, Granted, NewAdjustment, NewGrant, TransactionView};

const GRANTS_ROUTE: &str = "/admin/v1/credits/grants";
const ADJUSTMENTS_ROUTE: &str = "/admin/v1/credits/adjustments";

#[derive(Debug, Subcommand)]
pub enum CreditsCommand {
    /// Add credits to a user's balance
    Grant(GrantArguments),
    /// Correct a user's balance, upwards or downwards
    Adjust(AdjustArguments),
    /// Show a user's balance
    Show(UserChoice),
    /// List what moved a user's balance, newest first
    History(HistoryArguments),
}

#[derive(Debug, Args)]
pub struct GrantArguments {
    /// Who gets them
    #[arg(long, value_name = "ID_OR_EMAIL")]
    user: String,
    /// How many whole credits
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(1..))]
    amount: i64,
    /// What for; the user sees it in the history
    #[arg(long)]
    reason: Option<String>,
    /// A word of your own: with the same one, the credits are granted once, however often this is run
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// On a platform's own database, which makes users, keys and credits itself: do it all the same
    #[arg(long)]
    platform_database: bool,
}

#[derive(Debug, Args)]
pub struct AdjustArguments {
    /// Whose balance
    #[arg(long, value_name = "ID_OR_EMAIL")]
    user: String,
    /// How many whole credits to add, or with a minus to take away
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    amount: i64,
    /// Why; the user sees it in the history
    #[arg(long)]
    reason: String,
    /// A word of your own: with the same one, the balance is moved once, however often this is run
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// On a platform's own database, which makes users, keys and credits itself: do it all the same
    #[arg(long)]
    platform_database: bool,
}

/// A user, with or without `--user` before the name.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct UserChoice {
    /// Whose
    #[arg(value_name = "ID_OR_EMAIL")]
    positional: Option<String>,
    /// The same, by name
    #[arg(long = "user", value_name = "ID_OR_EMAIL")]
    named: Option<String>,
}

impl UserChoice {
    /// The arguments hold exactly one of the two.
    fn into_user(self) -> String {
        self.named.or(self.positional).unwrap_or_default()
    }
}

#[derive(Debug, Args)]
pub struct HistoryArguments {
    #[command(flatten)]
    user: UserChoice,
    /// How many to list at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

pub async fn run(command: CreditsCommand, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    match command {
        CreditsCommand::Grant(GrantArguments { user, amount, reason, idempotency_key, platform_database }) => {
            let grant = NewGrant { user, amount, reason, idempotency_key, platform_database };
            let granted =
                books_access::write(&settings, GRANTS_ROUTE, grant, async |store, grant| store.grant(grant).await)
                    .await?;
            context.output.show(&granted, tell_grant)
        }
        CreditsCommand::Adjust(AdjustArguments { user, amount, reason, idempotency_key, platform_database }) => {
            let adjustment = NewAdjustment { user, amount, reason, idempotency_key, platform_database };
            let adjusted = books_access::write(&settings, ADJUSTMENTS_ROUTE, adjustment, async |store, adjustment| {
                store.adjust(adjustment).await
            })
            .await?;
            context.output.show(&adjusted, tell_adjustment)
        }
        CreditsCommand::Show(choice) => {
            let user = choice.into_user();
            let credits = books_access::read(&settings, async |store| store.credits(user).await).await?;
            context.output.show(&credits, tell_credits)
        }
        CreditsCommand::History(HistoryArguments { user, limit }) => {
            let user = user.into_user();
            let history = books_access::read(&settings, async |store| store.history(user, limit).await).await?;
            let headers = ["time", "type", "amount", "balance", "description", "reference"];
            context.output.list(&history, &headers, row)
        }
    }
}

fn tell_grant(granted: &Granted) -> String {
    let Granted { id, user_id, amount, balance, repeated } = granted;
    if *repeated {
        return format!(
            "{amount} credits were granted to {user_id} before, with this idempotency key (transaction {id}); \
             nothing was added, the balance is {balance}"
        );
    }
    format!("{amount} credits granted to {user_id} (transaction {id}); the balance is {balance}")
}

fn tell_adjustment(adjusted: &Granted) -> String {
    let Granted { id, user_id, amount, balance, repeated } = adjusted;
    if *repeated {
        return format!(
            "the balance of {user_id} was adjusted by {amount} before, with this idempotency key (transaction {id}); \
             nothing was moved, it is {balance}"
        );
    }
    format!("the balance of {user_id} was adjusted by {amount} (transaction {id}); it is {balance}")
}

fn tell_credits(credits: &CreditsView) -> String {
    facts(&[
        ("user", credits.user_id.clone()),
        ("email", credits.email.clone()),
        ("credits", credits.credits.to_string()),
        ("owed below one credit", credits.remainder.clone()),
        ("unpaid for want of balance", credits.unpaid.to_string()),
    ])
}

fn row(transaction: &TransactionView) -> Vec<String> {
    vec![
        transaction.created_at.clone(),
        transaction.kind.clone(),
        transaction.amount.to_string(),
        transaction.balance.to_string(),
        or_dash(transaction.description.as_deref()),
        or_dash(transaction.reference.as_deref()),
    ]
}
