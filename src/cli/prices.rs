//! `hookledger prices`: what calls are priced by, and when new-api's quota per unit changed.

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output::facts;
use super::time::parse_time;
use super::{Context, books_access};
use crate::storage::prices::{DatedValue, NewQuotaChange, PricesView, QuotaChange};

const ROUTE: &str = "/admin/v1/prices/quota-changes";

#[derive(Debug, Subcommand)]
pub enum PricesCommand {
    /// List the rates and the quota per unit with the time from which each counts, and the changes that wait for a second
    List,
    /// Say when new-api's quota per unit changed: calls of that time that waited for it are charged within a minute
    QuotaChanged(QuotaChangedArguments),
}

#[derive(Debug, Args)]
pub struct QuotaChangedArguments {
    /// The first second of the new one, in UTC, as "2026-11-24 08:00:00"; new-api's own log of operations tells it
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: i64,
}

pub async fn run(command: PricesCommand, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    match command {
        PricesCommand::List => {
            let prices = books_access::read(&settings, async |store| store.prices().await).await?;
            context.output.show(&prices, list)
        }
        PricesCommand::QuotaChanged(QuotaChangedArguments { at }) => {
            let change = NewQuotaChange { at_second: at.div_euclid(1000) };
            let named = books_access::write(&settings, ROUTE, change, async |store, change| {
                store.name_quota_change(change).await
            })
            .await?;
            context.output.show(&named, named_change)
        }
    }
}

fn list(prices: &PricesView) -> String {
    let dated = |name: &'static str, values: &[DatedValue]| {
        values.iter().map(|DatedValue { from, value }| (name, format!("{value} from {from} on"))).collect::<Vec<_>>()
    };
    let mut lines = dated("credits for a dollar", &prices.rates);
    lines.extend(dated("quota units of a dollar", &prices.quotas));
    lines.extend(prices.quota_changes.iter().map(|change| ("change of the quota per unit", of_change(change))));
    facts(&lines)
}

fn of_change(change: &QuotaChange) -> String {
    let QuotaChange { last_seen, first_seen, before, after, named, held, charged_by_the_old, credits_by_the_old } =
        change;
    let named = match named {
        Some(named) => format!("named: {named}"),
        None => "its second is not named yet".to_owned(),
    };
    format!(
        "from {before} to {after} between {last_seen} and {first_seen}, {named}; {held} calls wait, {charged_by_the_old} \
         were charged by {before} ({credits_by_the_old} credits)"
    )
}

fn named_change(change: &QuotaChange) -> String {
    let QuotaChange { last_seen, first_seen, before, after, named, held, charged_by_the_old, .. } = change;
    let mut told =
        format!("{after} counts from {} on: {held} calls are charged within a minute", named.as_deref().unwrap_or(""));
    if *charged_by_the_old > 0 {
        told.push_str(&format!(
            "\n{charged_by_the_old} calls between {last_seen} and {first_seen} were charged by {before} before the change \
             was seen: look at those after it (`hookledger charges list`), and set right what differs by `charges refund` \
             or `credits adjust`"
        ));
    }
    told
}
