//! `hookledger charges`: what was charged and why, and giving it back. What may be given back is decided below.

use clap::{ArgGroup, Args, Subcommand, value_parser};

use super::charge_text::{explain, tell_refund, tell_reversal};
use super::failure::Failure;
use super::output::or_dash;
use super::time::parse_time;
use super::{Context, books_access};
use crate::domain::time::UnixMillis;
use crate::storage::charges::{ChargeFilter, ChargeSelector, ChargeView, NewRefund, NewReversal, Reversed};
use crate::storage::refunding;

const REFUNDS_ROUTE: &str = "/admin/v1/charges/refunds";
const REVERSALS_ROUTE: &str = "/admin/v1/charges/reversals";

#[derive(Debug, Subcommand)]
pub enum ChargesCommand {
    /// List what was charged, newest calls first
    List(ListArguments),
    /// Explain one charge, from its event to the balance
    Show(ShowArguments),
    /// Give back all that is left of one charge, or a part of it; never more than was taken
    Refund(RefundArguments),
    /// Give back every charge of a selection (one filter at least), each as far as it was not given back yet
    Reverse(ReverseArguments),
}

/// Which charges.
#[derive(Debug, Args)]
pub struct FilterArguments {
    /// Only those of this user
    #[arg(long, value_name = "ID_OR_EMAIL")]
    user: Option<String>,
    /// Only those of this key
    #[arg(long, value_name = "KEY_ID")]
    key: Option<String>,
    /// Only those of this token of new-api
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(1..))]
    remote_id: Option<i64>,
    /// Only those of this model
    #[arg(long)]
    model: Option<String>,
    /// Calls made at this time or later (UTC: "2026-11-24 08:00:00", or RFC 3339), by the second
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// Calls made before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
}

impl From<FilterArguments> for ChargeFilter {
    fn from(arguments: FilterArguments) -> Self {
        let FilterArguments { user, key, remote_id, model, since, until } = arguments;
        ChargeFilter { user, key, remote_id, model, since_ms: since, until_ms: until }
    }
}

#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// How many to list at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["charge_id", "event", "request", "user"]))]
pub struct ShowArguments {
    /// The charge's id, which is that of its usage record
    #[arg(value_name = "CHARGE_ID")]
    charge_id: Option<String>,
    /// The charge of this event
    #[arg(long, value_name = "EVENT_ID")]
    event: Option<String>,
    /// The charge of the call with this request id of new-api
    #[arg(long, value_name = "REQUEST_ID")]
    request: Option<String>,
    /// The charge of this user nearest to --at, within five minutes
    #[arg(long, value_name = "ID_OR_EMAIL", requires = "at")]
    user: Option<String>,
    /// When the user's call was made (UTC: "2026-11-24 08:00:00", or RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "user")]
    at: Option<i64>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("part").args(["amount", "quota"]))]
pub struct RefundArguments {
    /// The charge's id
    #[arg(value_name = "CHARGE_ID")]
    charge_id: String,
    /// Only a part: credits, a decimal with up to 15 places [default: all that is left]
    #[arg(long, value_name = "CREDITS")]
    amount: Option<String>,
    /// Only a part: quota units, at the charge's own rate
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(1..))]
    quota: Option<i64>,
    /// Why, for whoever looks at the charge later
    #[arg(long)]
    reason: String,
    /// A word of your own: with the same one, money is given back once, however often this is run. A part needs one
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct ReverseArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Why, for whoever looks at the charges later
    #[arg(long)]
    reason: String,
    /// A word of your own: a repeat with the same one goes on with the same charges, and gives nothing twice. Needed
    /// without --dry-run
    #[arg(long, value_name = "KEY", required_unless_present = "dry_run")]
    idempotency_key: Option<String>,
    /// Tell what would be given back, and give nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(command: ChargesCommand, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    match command {
        ChargesCommand::List(ListArguments { filter, limit }) => {
            let filter = ChargeFilter::from(filter);
            let charges = books_access::read(&settings, async |store| store.charges(filter, limit).await).await?;
            let headers = ["charge", "call", "user", "token", "model", "price", "credits", "given back"];
            context.output.list(&charges, &headers, row)
        }
        ChargesCommand::Show(arguments) => {
            let selector = arguments.into_selector();
            let detail = books_access::read(&settings, async |store| store.charge(selector).await).await?;
            context.output.show(&detail, explain)
        }
        ChargesCommand::Refund(arguments) => {
            let RefundArguments { charge_id: charge, amount, quota, reason, idempotency_key } = arguments;
            let refund = NewRefund { charge, amount, quota, reason, idempotency_key };
            let refunded = books_access::write(&settings, REFUNDS_ROUTE, refund, async |store, refund| {
                refunding::refund(store, refund).await
            })
            .await?;
            context.output.show(&refunded, tell_refund)
        }
        ChargesCommand::Reverse(arguments) => reverse(arguments, context).await,
    }
}

impl ShowArguments {
    /// The arguments hold exactly one of them.
    fn into_selector(self) -> ChargeSelector {
        match self {
            ShowArguments { event: Some(id), .. } => ChargeSelector::Event(id),
            ShowArguments { request: Some(id), .. } => ChargeSelector::Request(id),
            ShowArguments { user: Some(user), at, .. } => {
                ChargeSelector::UserAt { user, at: UnixMillis::new(at.unwrap_or_default()) }
            }
            ShowArguments { charge_id, .. } => ChargeSelector::Id(charge_id.unwrap_or_default()),
        }
    }
}

async fn reverse(arguments: ReverseArguments, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let ReverseArguments { filter, reason, idempotency_key, dry_run } = arguments;
    let idempotency_key = idempotency_key.unwrap_or_else(|| "dry run".to_owned());
    let first = NewReversal { filter: filter.into(), reason, idempotency_key, dry_run, after: None };
    let mut total = Reversed { amount: "0".to_owned(), ..Reversed::default() };
    let mut page = first.clone();
    loop {
        let reversed: Reversed = books_access::write(&settings, REVERSALS_ROUTE, page, async |store, page| {
            refunding::reverse(store, page).await
        })
        .await?;
        total.add(&reversed);
        match reversed.next {
            None => break,
            after => page = NewReversal { after, ..first.clone() },
        }
    }
    context.output.show(&total, |total| tell_reversal(total, dry_run))
}

fn row(charge: &ChargeView) -> Vec<String> {
    vec![
        charge.id.clone(),
        charge.called_at.clone(),
        charge.user_id.clone(),
        charge.remote_key_id.to_string(),
        charge.model.clone(),
        charge.price.clone(),
        charge.credits.to_string(),
        or_dash(Some(charge.refunded.as_str()).filter(|refunded| *refunded != "0")),
    ]
}
