//! `hookledger disputes`: what a person must decide, and the decisions. What they book is decided below.

use clap::{Args, Subcommand, value_parser};

use super::failure::Failure;
use super::output::or_dash;
use super::{Context, books_access};
use crate::storage::disputes::{Decided, DisputeFilter, DisputeView, NewDismissal, NewOwnCharge, NewTie};
use crate::storage::{Store, deciding};

const TIE_ROUTE: &str = "/admin/v1/disputes/tie";
const CHARGE_ROUTE: &str = "/admin/v1/disputes/charge";
const DISMISS_ROUTE: &str = "/admin/v1/disputes/dismiss";

#[derive(Debug, Subcommand)]
pub enum DisputesCommand {
    /// List what a person must decide, newest calls first: disputed events and rows, rows that could not be booked,
    /// refunds without a charge
    List(ListArguments),
    /// It is one call: join the disputed side and the charge beside it, at the row's price
    Tie(TieArguments),
    /// It is a call of its own: charge it now at its own price
    Charge {
        /// The event's id, or row:… as listed
        #[arg(value_name = "ID")]
        id: String,
    },
    /// It is no call to charge: close it without a charge
    Dismiss(DismissArguments),
}

#[derive(Debug, Args)]
pub struct ListArguments {
    /// Only those of tokens that this user has now
    #[arg(long, value_name = "ID_OR_EMAIL")]
    user: Option<String>,
    /// Only those of this token of new-api
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(0..))]
    remote_id: Option<i64>,
    /// How many to list at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

#[derive(Debug, Args)]
pub struct TieArguments {
    /// The event's id, or row:… as listed
    #[arg(value_name = "ID")]
    id: String,
    /// The charge's id [default: the listed one, nearest in price and then in time]
    #[arg(long, value_name = "CHARGE_ID")]
    with: Option<String>,
}

#[derive(Debug, Args)]
pub struct DismissArguments {
    /// The event's id, or row:… as listed
    #[arg(value_name = "ID")]
    id: String,
    /// Why, for whoever looks at it later
    #[arg(long)]
    reason: Option<String>,
}

pub async fn run(command: DisputesCommand, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let decided = match command {
        DisputesCommand::List(ListArguments { user, remote_id, limit }) => {
            let filter = DisputeFilter { user, remote_id };
            let disputes =
                books_access::read(&settings, async |store| deciding::list(store, filter, limit).await).await?;
            let headers =
                ["dispute", "kind", "call", "user", "token", "model", "tokens", "price", "why", "alike charge"];
            return context.output.list(&disputes, &headers, row);
        }
        DisputesCommand::Tie(TieArguments { id, with }) => {
            let ask = async |store: &dyn Store, new| deciding::tie(store, new).await;
            books_access::write(&settings, TIE_ROUTE, NewTie { id, with }, ask).await?
        }
        DisputesCommand::Charge { id } => {
            let ask = async |store: &dyn Store, new| deciding::charge(store, new).await;
            books_access::write(&settings, CHARGE_ROUTE, NewOwnCharge { id }, ask).await?
        }
        DisputesCommand::Dismiss(DismissArguments { id, reason }) => {
            let ask = async |store: &dyn Store, new| deciding::dismiss(store, new).await;
            books_access::write(&settings, DISMISS_ROUTE, NewDismissal { id, reason }, ask).await?
        }
    };
    context.output.show(&decided, tell)
}

fn row(dispute: &DisputeView) -> Vec<String> {
    vec![
        dispute.id.clone(),
        dispute.kind.as_str().to_owned(),
        dispute.called_at.clone(),
        or_dash(dispute.user_id.as_deref()),
        dispute.remote_key_id.to_string(),
        dispute.model.clone(),
        format!("{} + {}", dispute.prompt_tokens, dispute.completion_tokens),
        or_dash(dispute.price.as_deref()),
        or_dash(dispute.reason.as_deref()),
        or_dash(dispute.alike.as_ref().map(|alike| alike.charge_id.as_str())),
    ]
}

fn tell(decided: &Decided) -> String {
    let Decided { id, state, charge_id, credits, repeated } = decided;
    let charge = charge_id.as_ref().map(|charge| format!(", charge {charge}")).unwrap_or_default();
    let moved = match credits {
        _ if *repeated => "it was so before, nothing moved".to_owned(),
        0 => "no credits moved".to_owned(),
        1.. => format!("{credits} credits deducted"),
        _ => format!("{} credits given back", credits.unsigned_abs()),
    };
    format!("{id} is {state}{charge}: {moved}")
}
