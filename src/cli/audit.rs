//! `hookledger audit`: proves that the books agree, and keeps which differences a person knows of.
//!
//! Reads the database itself, whether a daemon runs or not. What is compared is decided below.

use clap::{Args, Subcommand, value_parser};

use super::failure::{EXIT_FAILED, EXIT_FINE, Failure};
use super::{Context, audit_text, books_access};
use crate::app::database_options;
use crate::audit::{self, AuditOptions, AuditReport, SourceError};
use crate::clock;
use crate::config::Settings;
use crate::storage::audit::NewAcceptance;
use crate::storage::books::BooksError;
use crate::storage::{Store, open};

const ACCEPTED_ROUTE: &str = "/admin/v1/audit/accepted";

/// What is audited, and what counts.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArguments {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    /// Compare with new-api's log as well, over the time that is covered, from the oldest row that it still has
    #[arg(long)]
    against_source: bool,
    /// Let what is put down to other programs count: exit code 1 for it too
    #[arg(long)]
    strict: bool,
    /// How many differences to list at most of those that count, those of other programs, and those accepted
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Acknowledge a difference: it stays listed, and no longer counts
    Accept(AcceptArguments),
}

#[derive(Debug, Args)]
struct AcceptArguments {
    /// The difference's id, as listed
    #[arg(value_name = "ID")]
    id: String,
    /// Why it is no matter, for whoever audits later
    #[arg(long)]
    reason: String,
}

pub async fn run(arguments: AuditArguments, context: &Context) -> Result<u8, Failure> {
    let settings = context.settings()?;
    let AuditArguments { command, against_source, strict, limit } = arguments;
    if let Some(AuditCommand::Accept(AcceptArguments { id, reason })) = command {
        accept(&settings, NewAcceptance { id, reason }, context).await?;
        return Ok(EXIT_FINE);
    }
    if against_source && settings.newapi.access.is_none() {
        return Err(Failure::usage(SourceError::NoGateway.to_string()));
    }
    let options = AuditOptions::beside_a_daemon(usize::try_from(limit).unwrap_or(usize::MAX));
    let store = open::open(&database_options(&settings), clock::for_daemon()).await?;
    let audited = audited(store.as_ref(), &settings, options, against_source).await;
    store.close().await;
    let report = audited?;
    let is_whole = report.is_whole(strict);
    context.output.show(&report, |report| audit_text::tell(report, strict))?;
    Ok(if is_whole { EXIT_FINE } else { EXIT_FAILED })
}

async fn audited(
    store: &dyn Store,
    settings: &Settings,
    options: AuditOptions,
    against_source: bool,
) -> Result<AuditReport, Failure> {
    let mut report = audit::audit(store, options).await.map_err(BooksError::from)?;
    if against_source {
        let compared = audit::against_source(store, settings.clone(), options, &mut report).await;
        compared.map_err(|error| match error {
            SourceError::Store(error) => BooksError::from(error).into(),
            SourceError::NoGateway => Failure::usage(error.to_string()),
            error => Failure::refused(format!("the books could not be compared with new-api's log: {error}")),
        })?;
    }
    Ok(report)
}

async fn accept(settings: &Settings, new: NewAcceptance, context: &Context) -> Result<(), Failure> {
    let accepted = books_access::write(settings, ACCEPTED_ROUTE, new.checked()?, async |store, new| {
        store.accept_difference(new).await
    })
    .await?;
    context.output.show(&accepted, |accepted| {
        format!("{} is accepted: {}. It stays listed, and no longer counts", accepted.id, accepted.reason)
    })
}
