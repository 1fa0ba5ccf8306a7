//! `hookledger events replay`: settle again what is not settled, page by page.
//!
//! What is charged, and that it is charged once, is decided where all settlements are.

use clap::Args;

use super::failure::Failure;
use super::output::facts;
use super::time::parse_time;
use super::{Context, books_access};
use crate::actors::settling;
use crate::domain::decision::parse_row_id;
use crate::storage::books::{BooksError, NewReplay, Replayed};

const ROUTE: &str = "/admin/v1/events/replay";

#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// The sender's id of one event, or row:… of a row that could not be booked (`disputes list`)
    #[arg(value_name = "EVENT_ID", conflicts_with_all = ["all_failed", "since", "until"])]
    event_id: Option<String>,
    /// Everything that is failed or dead, rows of new-api's log included
    #[arg(long, required_unless_present_any = ["event_id", "since", "until"])]
    all_failed: bool,
    /// What was recorded at this time or later (UTC: "2026-11-24 08:00:00", or RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// What was recorded before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
    /// Charge calls that are older than their key by more than ledger.key_grace as well; shows the sum first, and
    /// charges only with --yes
    #[arg(long)]
    beyond_grace: bool,
    /// Tell what would be charged, and charge nothing
    #[arg(long)]
    dry_run: bool,
    /// The sum that --beyond-grace shows is right: charge it
    #[arg(long, requires = "beyond_grace")]
    yes: bool,
}

pub async fn run(arguments: ReplayArguments, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let ReplayArguments { event_id, since, until, beyond_grace, dry_run, yes, .. } = arguments;
    if let Some(event_id) = event_id.clone().filter(|id| parse_row_id(id).is_none()) {
        // An unknown id is a mistake; a settled one is found and left alone.
        books_access::read(&settings, async |store| store.event(event_id).await).await?;
    }
    let dry_run = dry_run || (beyond_grace && !yes);
    let first = NewReplay { event_id, since_ms: since, until_ms: until, beyond_grace, dry_run, after: None };
    let mut total = Replayed::default();
    let mut page = first.clone();
    loop {
        let replayed: Replayed = books_access::write(&settings, ROUTE, page, async |store, page| {
            settling::replay(store, page).await.map_err(BooksError::from)
        })
        .await?;
        total.tried += replayed.tried;
        total.charged += replayed.charged;
        total.credits += replayed.credits;
        total.already_charged += replayed.already_charged;
        total.still_failed += replayed.still_failed;
        match replayed.next {
            None => break,
            after => page = NewReplay { after, ..first.clone() },
        }
    }
    context.output.show(&total, |total| tell(total, dry_run, beyond_grace && !yes))
}

fn tell(total: &Replayed, dry_run: bool, wants_yes: bool) -> String {
    let charged = if dry_run { "would be charged" } else { "charged" };
    let mut text = facts(&[
        ("tried", total.tried.to_string()),
        (charged, total.charged.to_string()),
        ("credits", total.credits.to_string()),
        ("charged before", total.already_charged.to_string()),
        ("still not chargeable", total.still_failed.to_string()),
    ]);
    if total.tried == 0 {
        text.push_str("\nNothing that was asked for is unsettled.");
    }
    if wants_yes && total.charged > 0 {
        text.push_str("\nNothing was charged yet: repeat the command with --yes if this sum is right.");
    }
    text
}
