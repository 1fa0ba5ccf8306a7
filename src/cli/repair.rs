//! `hookledger repair`: puts our state and the platform's tables together again.

use clap::Args;

use super::failure::Failure;
use super::output::facts;
use super::{Context, books_access};
use crate::storage::repair::{Mended, NewRepair, Repaired};

const ROUTE: &str = "/admin/v1/repair";

#[derive(Debug, Args)]
pub struct RepairArguments {
    /// Tell what would be put right, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(arguments: RepairArguments, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let RepairArguments { dry_run } = arguments;
    let mut total = Repaired::default();
    let mut page = NewRepair { dry_run, after: None };
    loop {
        let repaired: Repaired =
            books_access::write(&settings, ROUTE, page, async |store, page| store.repair(page).await).await?;
        total.add(repaired);
        match total.next.clone() {
            None => break,
            after => page = NewRepair { dry_run, after },
        }
    }
    context.output.show(&total, |total| tell(total, dry_run))?;
    match &total.still_apart {
        Some(apart) => Err(Failure::refused(format!("{apart}; what could be repaired was"))),
        None => Ok(()),
    }
}

fn tell(repaired: &Repaired, is_dry_run: bool) -> String {
    if repaired.one_file {
        return "one file cannot come apart: there is nothing to do".to_owned();
    }
    if repaired.is_nothing() {
        return "nothing is missing on either side: there is nothing to do".to_owned();
    }
    let done = |yes: &str| if is_dry_run { format!("would be {yes}") } else { yes.to_owned() };
    let mended = |mended: Mended, yes: &str| format!("{} of {} credits {}", mended.count, mended.credits, done(yes));
    let mut lines = Vec::new();
    if let Some(installation) = &repaired.installation {
        lines.push(("installation", format!("{installation} {}", done("taken over"))));
    }
    lines.push(("charges on the platform's side", mended(repaired.booked_charges, "booked again")));
    lines.push(("refunds on the platform's side", mended(repaired.booked_refunds, "booked again")));
    lines.push(("credits that persons moved", mended(repaired.booked_grants, "booked again")));
    lines.push(("charges in the state", mended(repaired.rebuilt_charges, "rebuilt")));
    lines.push(("refunds in the state", mended(repaired.rebuilt_refunds, "rebuilt")));
    lines.push(("events that wait again", format!("{} {}", repaired.waiting_events, done("taken in"))));
    lines.push(("events that were charged", format!("{} {}", repaired.closed_events, done("closed"))));
    if repaired.lost_events > 0 {
        let lost = format!("{}: their bodies are lost, only their senders still have them", repaired.lost_events);
        lines.push(("events that are lost", lost));
    }
    let mut told = facts(&lines);
    if !repaired.not_rebuilt.is_empty() {
        told.push_str("\nwhat no repair brings back:");
        repaired.not_rebuilt.iter().for_each(|lost| told.push_str(&format!("\n- {lost}")));
    }
    told
}
