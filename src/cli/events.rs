//! `hookledger events`: a look into the inbox, and at what was charged for one event.

use clap::{Args, Subcommand, ValueEnum, value_parser};

use super::charge_text::charge_facts;
use super::failure::Failure;
use super::output::{facts, or_dash};
use super::replay::{self, ReplayArguments};
use super::{Context, books_access};
use crate::domain::outcome::InboxStatus;
use crate::storage::books::{EventDetail, EventFilter, EventView};

#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// List the events, newest first
    List(ListArguments),
    /// Show one event: its body, and what was charged for it
    Show {
        /// The sender's id of the event
        #[arg(value_name = "EVENT_ID")]
        event_id: String,
    },
    /// Settle again what is not settled: one event, a range, or all that failed; nothing is ever charged twice
    Replay(ReplayArguments),
}

#[derive(Debug, Args)]
pub struct ListArguments {
    /// Only the events in this state
    #[arg(long)]
    status: Option<Status>,
    /// How many to list at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Status {
    /// Safe on disk, about to be settled
    Pending,
    /// Settled
    Processed,
    /// Not settled: tried again, or waiting for a key or for a person
    Failed,
    /// Given up
    Dead,
}

impl From<Status> for InboxStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => InboxStatus::Pending,
            Status::Processed => InboxStatus::Processed,
            Status::Failed => InboxStatus::Failed,
            Status::Dead => InboxStatus::Dead,
        }
    }
}

pub async fn run(command: EventsCommand, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    match command {
        EventsCommand::List(ListArguments { status, limit }) => {
            let status = status.map(|status| InboxStatus::from(status).as_str().to_owned());
            let filter = EventFilter { status, limit };
            let events = books_access::read(&settings, async |store| store.events(filter).await).await?;
            context.output.list(&events, &["event", "status", "created", "processed", "error"], row)
        }
        EventsCommand::Replay(arguments) => replay::run(arguments, context).await,
        EventsCommand::Show { event_id } => {
            let event = books_access::read(&settings, async |store| store.event(event_id).await).await?;
            context.output.show(&event, tell)
        }
    }
}

fn row(event: &EventView) -> Vec<String> {
    vec![
        event.event_id.clone(),
        event.status.clone(),
        event.created_at.clone(),
        event.processed_at.clone(),
        or_dash(event.error_message.as_deref()),
    ]
}

fn tell(detail: &EventDetail) -> String {
    let EventDetail { event, payload, charge } = detail;
    let mut lines = vec![
        ("event", event.event_id.clone()),
        ("status", event.status.clone()),
        ("error", or_dash(event.error_message.as_deref())),
        ("created", event.created_at.clone()),
        ("processed", event.processed_at.clone()),
        ("body", payload.clone()),
    ];
    match charge {
        Some(charge) => lines.extend(charge_facts(charge)),
        None => lines.push(("charge", "none".to_owned())),
    }
    facts(&lines)
}
