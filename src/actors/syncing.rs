//! A sync from what was asked to what is told of it: the same inside a daemon, and in a command that found none.
//!
//! What is read, and what of it is allowed, is `polling`'s.

use std::sync::Arc;

use super::observed::Observed;
use super::polling::Polling;
use super::scheduler::configured_prices;
use super::sync_desk::moment;
use super::sync_document::{NewSync, SyncFailure, SyncTrouble, Synced};
use crate::clock::SharedClock;
use crate::config::{DatabaseUrl, Live, Settings};
use crate::domain::ids::RemoteKeyId;
use crate::domain::settlement::Leave;
pub use crate::polling::SyncProgress;
use crate::polling::{PassError, Report, SyncOrder, SyncRefused, Tell};
use crate::storage::{Store, StoreError};

const NOT_CONFIGURED: &str = "no new-api is configured whose log could be read: set newapi.base_url, \
                              newapi.access_token and newapi.user_id";

const NEVER_SERVED: &str = "no daemon was ever started on this database, so it is not stored yet from when on calls \
                            are billed here: start it once, or leave --dry-run away";

fn failure(trouble: SyncTrouble, message: impl ToString) -> SyncFailure {
    SyncFailure { trouble, message: message.to_string() }
}

impl From<StoreError> for SyncFailure {
    fn from(error: StoreError) -> Self {
        failure(SyncTrouble::Database, error)
    }
}

impl From<PassError> for SyncFailure {
    fn from(error: PassError) -> Self {
        let trouble = match &error {
            PassError::Store(_) => SyncTrouble::Database,
            PassError::Reading(_) | PassError::AnotherGateway(_) | PassError::Unreadable { .. } => SyncTrouble::Source,
        };
        failure(trouble, error)
    }
}

impl From<SyncRefused> for SyncFailure {
    fn from(refused: SyncRefused) -> Self {
        match refused {
            SyncRefused::Pass(error) => error.into(),
            refused => failure(SyncTrouble::Refused, refused),
        }
    }
}

/// Whether it can be read at all: what need not be asked of anybody.
pub fn check(settings: &Settings, asked: &NewSync) -> Result<(), SyncFailure> {
    if settings.newapi.access.is_none() {
        return Err(failure(SyncTrouble::Configuration, NOT_CONFIGURED));
    }
    let NewSync { since_ms, until_ms, key, beyond_grace, before_takeover, .. } = asked;
    let problem = match (since_ms, until_ms) {
        (Some(since), Some(until)) if since >= until => "the span ends before it begins",
        _ if *beyond_grace && key.is_none() => "going beyond the grace needs a key",
        (None, _) if *before_takeover => "reaching before the taking over needs a time from which on",
        _ => return Ok(()),
    };
    Err(failure(SyncTrouble::Refused, problem))
}

/// The sync of a command that found no daemon: what a daemon's start would have stored is stored first.
pub async fn sync_alone(
    settings: &Settings,
    store: Arc<dyn Store>,
    clock: SharedClock,
    asked: &NewSync,
    tell: Tell<'_>,
) -> (Synced, Option<SyncFailure>) {
    let live = Live::new(settings.clone());
    let polling = Polling::new(store.clone(), clock, live, Arc::new(Observed::default()));
    let ready = async {
        check(settings, asked)?;
        if asked.dry_run {
            let is_guest = matches!(settings.database.url, DatabaseUrl::Mysql(_));
            let is_served = !is_guest || store.note("taken_over_at_ms").await?.is_some();
            return if is_served { Ok(()) } else { Err(failure(SyncTrouble::Refused, NEVER_SERVED)) };
        }
        store.look_at_prices(configured_prices(settings, None)).await?;
        store.take_over(settings.webhook.max_age).await?;
        Ok(())
    };
    match ready.await {
        Ok(()) => polling.sync(asked, tell).await,
        Err(failure) => (Synced { dry_run: asked.dry_run, ..Synced::default() }, Some(failure)),
    }
}

impl Polling {
    /// Carries out the order that lies on the desk, if there is one.
    pub async fn sync_if_asked(&self) {
        let Some((asked, under_way)) = self.syncs.begin() else { return };
        let tell = |progress: SyncProgress| under_way.tell(progress);
        let (synced, failure) = self.sync(&asked, &tell).await;
        tracing::info!(
            dry_run = synced.dry_run,
            read = synced.read,
            charged = synced.charged,
            credits = synced.credits,
            failure = failure.as_ref().map(|failure| failure.message.as_str()),
            "a sync that was asked for has ended"
        );
        under_way.end(synced, failure);
    }

    /// What it came to, also where it failed.
    async fn sync(&self, asked: &NewSync, tell: Tell<'_>) -> (Synced, Option<SyncFailure>) {
        let mut synced = Synced { dry_run: asked.dry_run, ..Synced::default() };
        let failure = self.try_to_sync(asked, tell, &mut synced).await.err();
        (synced, failure)
    }

    async fn try_to_sync(&self, asked: &NewSync, tell: Tell<'_>, synced: &mut Synced) -> Result<(), SyncFailure> {
        let settings = self.live.get();
        check(&settings, asked)?;
        let gateway = self.source.gateway().map_err(|error| failure(SyncTrouble::Source, error))?;
        let Some(gateway) = gateway else { return Err(failure(SyncTrouble::Configuration, NOT_CONFIGURED)) };
        let order = self.order(asked).await?;
        let mut pass = self.new_pass(gateway);
        let plan = pass.plan_sync(order).await?;
        (synced.dry_run, synced.needs_yes) = (plan.is_dry_run(), plan.needs_yes());
        synced.nothing_read_because = plan.nothing_because().map(str::to_owned);
        let done = pass.carry_out(&plan, &self.turn, tell).await;
        count(&pass.report, synced);
        if !plan.is_dry_run() {
            self.tell_pass(&pass.report, done.clone()).await;
        }
        Ok(done?)
    }

    async fn order(&self, asked: &NewSync) -> Result<SyncOrder, SyncFailure> {
        let NewSync { since_ms, until_ms, key, beyond_grace, before_takeover, dry_run, yes } = asked;
        let token: Option<RemoteKeyId> = match key {
            None => None,
            Some(key) => match self.store.token_of(key).await? {
                Some(token) => Some(token),
                None => {
                    let unknown = format!("no key has the id {key:?}, nor a token of that id: `key list` shows them");
                    return Err(failure(SyncTrouble::Refused, unknown));
                }
            },
        };
        // Rows tell whole seconds: the first one that is not before a time.
        let second = |millis: i64| millis.div_euclid(1000) + i64::from(millis.rem_euclid(1000) > 0);
        Ok(SyncOrder {
            from_second: since_ms.map(second),
            until_second: until_ms.map(|millis| second(millis) - 1),
            token,
            leave: Leave { beyond_grace: *beyond_grace, before_takeover: *before_takeover, is_dry_run: *dry_run },
            has_said_yes: *yes,
        })
    }
}

fn count(report: &Report, synced: &mut Synced) {
    let tally = report.tally;
    let coverage = |second: fn(&crate::polling::Coverage) -> i64| report.coverage.as_ref().map(second).map(moment);
    *synced = Synced {
        dry_run: synced.dry_run,
        needs_yes: synced.needs_yes,
        read: tally.read(),
        charged: tally.charged,
        credits: tally.credits,
        tied: tally.tied,
        already_claimed: tally.already_claimed,
        parked: tally.parked,
        waiting: tally.waiting,
        disputed: report.disputed,
        refunded: report.refunded,
        credits_given_back: report.credits_given_back,
        refunds_open: report.refunds_open,
        ignored: tally.ignored,
        failed: tally.failed,
        nothing_read_because: synced.nothing_read_because.take(),
        coverage_begins: coverage(|known| known.begins),
        covered_until: coverage(|known| known.covered_until),
        read_until: coverage(|known| known.read_until),
    };
}
