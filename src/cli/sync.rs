//! `hookledger sync`: has new-api's log read, by the daemon where one runs, and else by this command itself.
//!
//! What is read and charged is decided below; what would not be charged by itself is shown first.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::books_access::{self, Way};
use super::failure::Failure;
use super::output::facts;
use super::time::parse_time;
use super::{Context, admin_client};
use crate::actors::sync_document::{NewSync, SyncFailure, SyncState, SyncStatus, SyncTrouble, Synced};
use crate::actors::syncing::{self, SyncProgress};
use crate::clock;
use crate::config::Settings;

const ROUTE: &str = "/admin/v1/sync";

/// Between two looks at how the daemon's sync stands.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a daemon may stay without an answer, as one that is busy or restarts does.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub struct SyncArguments {
    /// Read every row of this time and later, whether it was read before or not (UTC: "2026-11-24 08:00:00", or
    /// RFC 3339). Reaching before coverage began shows the sum first, and charges only with --yes
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// Read rows of before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
    /// Settle only rows of this key's token: the key's id, or the token's id in new-api
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// Charge calls of the key as well that are older than it by more than ledger.key_grace, or that follow an owner
    /// whose key is gone; shows the sum first, and charges only with --yes
    #[arg(long, requires = "key")]
    beyond_grace: bool,
    /// Charge calls of before the platform's billing was taken over which the platform did not bill itself; shows the
    /// sum first, and charges only with --yes
    #[arg(long, requires = "since")]
    before_takeover: bool,
    /// Tell what would be charged, tied and given back, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// The sum that was shown is right: charge it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

pub async fn run(arguments: SyncArguments, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let SyncArguments { since, until, key, beyond_grace, before_takeover, dry_run, yes } = arguments;
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        return Err(Failure::usage("--until must be later than --since"));
    }
    let asked = NewSync { since_ms: since, until_ms: until, key, beyond_grace, before_takeover, dry_run, yes };
    let synced = sync(&settings, asked.clone()).await?;
    let wants_yes = synced.needs_yes && !asked.yes && !asked.dry_run;
    if wants_yes && synced.charged > 0 && !context.output.json && is_confirmed(&synced)? {
        let synced = sync(&settings, NewSync { yes: true, ..asked }).await?;
        return context.output.show(&synced, |synced| tell(synced, false));
    }
    context.output.show(&synced, |synced| tell(synced, wants_yes))
}

/// Asks a person at a terminal; nobody else can say yes here.
fn is_confirmed(synced: &Synced) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(false);
    }
    let unread = |error: io::Error| Failure::refused(format!("the answer cannot be read: {error}"));
    let mut stderr = io::stderr().lock();
    let (charged, credits) = (synced.charged, synced.credits);
    write!(stderr, "{charged} calls of {credits} credits would be charged. Charge them now? [y/N] ").map_err(unread)?;
    stderr.flush().map_err(unread)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(unread)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

async fn sync(settings: &Settings, asked: NewSync) -> Result<Synced, Failure> {
    let progress = Arc::new(Progress::new());
    let (synced, failure) = match books_access::way(settings, ROUTE, &asked).await? {
        Way::Daemon(begun) => follow(settings, begun, &progress).await?,
        Way::Direct(writing) => {
            let shown = progress.clone();
            let tell = move |at: SyncProgress| shown.show(at.done_secs, at.total_secs, at.rows, at.charged);
            let store = writing.store.clone();
            let ended = syncing::sync_alone(settings, store, clock::for_daemon(), &asked, &tell).await;
            writing.store.close().await;
            ended
        }
    };
    progress.bar.finish_and_clear();
    match failure {
        None => Ok(synced),
        Some(failure) => Err(failed(failure, &synced)),
    }
}

/// Looks until the daemon's sync has ended. It goes on without us, too.
async fn follow(
    settings: &Settings,
    begun: SyncStatus,
    progress: &Progress,
) -> Result<(Synced, Option<SyncFailure>), Failure> {
    let mut heard_at = Instant::now();
    let route = format!("{ROUTE}?id={}", begun.id);
    loop {
        let looked: Result<Option<SyncStatus>, Failure> = admin_client::find(&settings.admin.socket, &route).await;
        match looked {
            Ok(Some(status)) => {
                heard_at = Instant::now();
                progress.show(status.done_secs, status.total_secs, status.synced.read, status.synced.charged);
                if matches!(status.state, SyncState::Done | SyncState::Failed) {
                    return Ok((status.synced, status.failure));
                }
            }
            Ok(None) => return Err(lost("the daemon ended, or was restarted, before the sync did")),
            Err(failure) if heard_at.elapsed() > PATIENCE => return Err(failure),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn lost(what: &str) -> Failure {
    Failure::refused(format!("{what}: what was charged stays, and nothing is charged twice; repeat the command"))
}

fn failed(failure: SyncFailure, synced: &Synced) -> Failure {
    let SyncFailure { trouble, mut message } = failure;
    if synced.read > 0 && !synced.dry_run {
        let Synced { read, charged, credits, .. } = synced;
        message.push_str(&format!(
            "; before that, {read} rows were read and {charged} charged with {credits} credits, which stays"
        ));
    }
    match trouble {
        SyncTrouble::Configuration => Failure::usage(message),
        SyncTrouble::Database => Failure::database(message),
        SyncTrouble::Refused | SyncTrouble::Source | SyncTrouble::Interrupted => Failure::refused(message),
    }
}

/// A bar on a terminal's standard error; nothing elsewhere.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new() -> Self {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent}% of the time, {msg}, {elapsed}") {
            bar.set_style(style);
        }
        Progress { bar }
    }

    fn show(&self, done_secs: i64, total_secs: i64, rows: u64, charged: u64) {
        self.bar.set_length(total_secs.unsigned_abs());
        self.bar.set_position(done_secs.unsigned_abs());
        self.bar.set_message(format!("{rows} rows, {charged} charged"));
    }
}

fn tell(synced: &Synced, wants_yes: bool) -> String {
    let would = |done: &str| if synced.dry_run { format!("would be {done}") } else { done.to_owned() };
    let count = |count: u64| count.to_string();
    let (charged, tied, parked) = (would("charged"), would("tied"), would("parked"));
    let (disputed, refunded) = (would("disputed"), would("refunded"));
    let mut lines = vec![
        ("rows read", count(synced.read)),
        (charged.as_str(), count(synced.charged)),
        ("credits charged", synced.credits.to_string()),
        (tied.as_str(), count(synced.tied)),
        ("settled before", count(synced.already_claimed)),
        (parked.as_str(), count(synced.parked)),
        ("waiting", count(synced.waiting)),
        (disputed.as_str(), count(synced.disputed)),
        (refunded.as_str(), count(synced.refunded)),
        ("credits given back", synced.credits_given_back.to_string()),
        ("refunds open", count(synced.refunds_open)),
        ("nobody's", count(synced.ignored)),
        ("not bookable", count(synced.failed)),
    ];
    if let (Some(covered_until), Some(begins)) = (&synced.covered_until, &synced.coverage_begins) {
        lines.push(("coverage", format!("to {covered_until}, from {begins}")));
    }
    let mut text = facts(&lines);
    if let Some(why) = &synced.nothing_read_because {
        text.push_str(&format!("\nNothing was read: {why}."));
    }
    if wants_yes && synced.charged > 0 {
        text.push_str("\nNothing was charged yet: repeat the command with --yes if this sum is right.");
    } else if wants_yes {
        text.push_str("\nNothing was written: with --yes, what would be tied is tied.");
    }
    text
}
