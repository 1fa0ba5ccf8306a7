//! The platform's own database, on MySQL or MariaDB, in which hookledger is a guest.
//!
//! Users are spread over several owners of writing connections, so that different users don't wait for each other. What
//! serialises is in the database: a settlement first writes its tokens' and users' own rows, then reads. Nothing outside
//! this folder knows that.

mod apart;
mod audit;
mod audit_sql;
mod belonging;
mod books;
mod books_read;
mod books_write;
mod charges;
mod connect;
mod context;
mod coverage;
mod disputes;
pub mod error;
mod fenced;
mod foreign;
mod inbox;
mod lock;
mod locked_out;
mod log;
mod log_store;
mod migrate;
mod options;
mod prices;
mod privileges;
mod rebooking;
mod rebuilding;
mod record;
mod refunds;
mod reinbox;
mod repair;
mod retention;
mod route;
mod server;
mod settle;
mod shard;
mod silence;
mod snapshot;
mod source_looks;
mod takeover;
mod task_refunds;
mod tokens;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::{MySqlConnection, MySqlPool};

use super::agreed::CheckedSpans;
use super::noticed::Noticed;
use super::removal::Removal;
use super::takeover::{FoundHistory, TakenOver};
use super::{
    AmbiguousToken, AsStoreError, ConfiguredPrices, DiskUsage, InboxCounts, LedgerStore, OldRows, Page, PagePlace,
    Part, Poison, PriceLook, Selection, StoreError, Waiting, WaitingEvent,
};
use crate::clock::SharedClock;
use crate::domain::event::{Delivery, UsageEvent};
use crate::domain::ids::RecordIds;
use crate::domain::outcome::{RecordOutcome, SettlementOutcome};
use crate::domain::repair::Apart;
use crate::domain::retention::BookTimes;
use crate::domain::settlement::{Batch, LedgerPolicy, Purpose};
use crate::domain::time::UnixMillis;
use crate::failpoint;
use context::Context;
use server::{CheckError, Checked};
use shard::{End, Shard};
use takeover::{AdoptedFrom, LastLook};

pub use migrate::MysqlOpenError;
pub use options::{MysqlOptions, TlsMode};

/// The platform's database, open.
#[derive(Clone)]
pub struct MysqlStore {
    shards: Vec<Shard>,
    /// Records what the shards could not settle in time, so it never waits behind them.
    recorder: Shard,
    readers: MySqlPool,
    /// For the question that each call waits for: no operator's long look holds these up.
    balance_readers: MySqlPool,
    context: Arc<Context>,
    /// What the last look found of our state and the platform's tables.
    apart: Arc<ArcSwapOption<Apart>>,
    /// Whose turn it is with work that is no user's.
    turn: Arc<AtomicUsize>,
    last_look: Arc<LastLook>,
    noticed: Arc<Noticed>,
    checked_spans: Arc<CheckedSpans>,
}

/// Makes the own tables and brings them up to date.
pub async fn migrate(options: &MysqlOptions, clock: &SharedClock) -> Result<(), MysqlOpenError> {
    let migrated = async {
        // Before anything is made on a server that is not the one that was meant.
        look(options).await?;
        migrate::run(options, clock.now().as_millis()).await
    };
    match migrated.await {
        Err(error) => Err(privileges::explain(error, options).await),
        Ok(()) => Ok(()),
    }
}

/// Looks at the server, the account and the platform's tables.
async fn look(options: &MysqlOptions) -> Result<Checked, MysqlOpenError> {
    let mut connection = connect::writer(options).await?;
    privileges::check(&mut connection, options).await?;
    let checked = server::check(&mut connection, options).await.map_err(|error| match error {
        CheckError::Problem(problem) => MysqlOpenError::Server(problem),
        CheckError::Database(error) => MysqlOpenError::Open(error),
    })?;
    connect::close(connection).await;
    Ok(checked)
}

impl MysqlStore {
    /// Opens a database whose own tables are there and up to date, once the server has passed its check.
    pub async fn open(options: MysqlOptions, clock: SharedClock) -> Result<Self, MysqlOpenError> {
        let looked = async { Ok((look(&options).await?, migrate::check(&options).await?)) };
        let (checked, installation) = match looked.await {
            Err(error) => return Err(privileges::explain(error, &options).await),
            Ok(looked) => looked,
        };
        for warning in &checked.warnings {
            tracing::warn!("{warning}");
        }
        let policy = Arc::new(ArcSwap::from_pointee(options.policy));
        let (names, ids) = (checked.names, RecordIds::new());
        let count = shard_count(options.shards);
        let (readers, balance_readers) = (connect::readers(&options), connect::readers(&options));
        let (own_id, adopted_from) = (ArcSwap::default(), AdoptedFrom::default());
        let has_log = AtomicBool::new(coverage::has_rows(&readers, &names).await.map_err(MysqlOpenError::Open)?);
        let skew = super::skew::Noted::default();
        let context = Context { options, policy, clock, installation: own_id, ids, names, adopted_from, has_log, skew };
        let context = Arc::new(context);
        context.take_installation(installation);
        takeover::remember(&readers, &context).await?;
        let shards = (0..count).map(|number| Shard::start(number, context.clone()));
        let shards = shards.collect::<Result<_, _>>().map_err(MysqlOpenError::Thread)?;
        let recorder = Shard::start(count, context.clone()).map_err(MysqlOpenError::Thread)?;
        let store = MysqlStore {
            shards,
            recorder,
            readers,
            balance_readers,
            context,
            turn: Arc::default(),
            last_look: Arc::default(),
            apart: Arc::default(),
            noticed: Arc::default(),
            checked_spans: Arc::default(),
        };
        // Before anything is settled or given.
        store.look_apart().await?;
        Ok(store)
    }

    /// One try to open the database for a daemon. `migrates`: the own tables may be made and brought up to date.
    pub async fn open_for_daemon(
        options: &MysqlOptions,
        clock: SharedClock,
        migrates: bool,
    ) -> Result<Self, MysqlOpenError> {
        if migrates {
            migrate(options, &clock).await?;
        }
        MysqlStore::open(options.clone(), clock).await
    }

    fn owners(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().chain([&self.recorder])
    }

    /// A transaction of no user in particular.
    async fn write<T, E, W>(&self, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + AsStoreError + Send + 'static,
        W: for<'a> Fn(&'a mut MySqlConnection, &'a Context) -> BoxFuture<'a, Result<End<T>, E>> + Send + Sync + 'static,
    {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        self.shards[turn].transact(work).await
    }
}

/// Two for each core are enough: a settlement waits for the server more than it works.
fn shard_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(2, |cores| cores.get()).clamp(2, 8),
        shards => shards,
    }
}

#[async_trait]
impl LedgerStore for MysqlStore {
    async fn parts(&self, events: Vec<Arc<UsageEvent>>) -> Vec<Part> {
        route::by_user(&self.readers, &self.context.names, &events, self.shards.len()).await
    }

    async fn settle(
        &self,
        lane: usize,
        events: Vec<Arc<UsageEvent>>,
        purpose: Purpose,
    ) -> Result<Vec<SettlementOutcome>, StoreError> {
        if self.is_apart() {
            return self.keep_unsettled(events, purpose).await;
        }
        Ok(self.settle_batch(lane, Batch::of_events(events), purpose).await?.outcomes)
    }

    async fn record(&self, deliveries: Vec<Delivery>) -> Result<Vec<RecordOutcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(deliveries.len());
        for part in route::by_size(&self.context.names, deliveries) {
            outcomes.extend(self.record_part(part).await?);
        }
        failpoint::hit("store.record.committed")?;
        Ok(outcomes)
    }

    async fn set_aside(&self, poison: Poison) -> Result<(), StoreError> {
        self.write(move |connection, context| {
            let poison = poison.clone();
            Box::pin(async move { record::set_aside(connection, context, &poison).await })
        })
        .await
    }

    async fn waiting(
        &self,
        kind: Waiting,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError> {
        if self.is_apart() {
            return Ok(Vec::new());
        }
        inbox::waiting(&self.readers, &self.context.names, kind, after, limit, self.context.clock.now()).await
    }

    async fn selected(
        &self,
        selection: Selection,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError> {
        inbox::selected(&self.readers, &self.context.names, selection, after, limit).await
    }

    async fn look_at_tokens(&self) -> Result<(), StoreError> {
        let seen = tokens::see(&self.readers, &self.context.names, self.context.clock.now()).await?;
        self.write(move |connection, context| {
            let seen = seen.clone();
            Box::pin(async move { tokens::note(connection, context, &seen).await })
        })
        .await
    }

    async fn take_over(&self, max_age: Duration) -> Result<Option<FoundHistory>, StoreError> {
        let (readers, context) = (&self.readers, &self.context);
        if takeover::marks(readers, &context.names).await?.taken_over_at.is_some() {
            return Ok(None);
        }
        let found = Arc::new(takeover::history(readers, context, context.clock.now(), max_age).await?);
        let stored = found.clone();
        let is_first = self
            .write(move |connection, context| {
                let found = stored.clone();
                Box::pin(async move { takeover::store(connection, context, &found).await })
            })
            .await?;
        takeover::remember(readers, context).await?;
        Ok(is_first.then(|| (*found).clone()))
    }

    async fn look_for_others(&self) -> Result<Option<TakenOver>, StoreError> {
        if let Some(seen) = takeover::see(&self.readers, &self.context, &self.last_look).await? {
            let seen = Arc::new(seen);
            self.write(move |connection, context| {
                let seen = seen.clone();
                Box::pin(async move { takeover::note(connection, context, &seen).await })
            })
            .await?;
        }
        takeover::told(&self.readers, &self.context).await
    }

    async fn look_at_prices(&self, configured: ConfiguredPrices) -> Result<PriceLook, StoreError> {
        let now = self.context.clock.now();
        let look = prices::look(&self.readers, &self.context.names, configured, now).await;
        if let Err(StoreError::Unavailable(_)) = look {
            // Owners that nobody asks for anything would not notice; the next probe tells.
            self.owners().for_each(Shard::doubt);
        }
        if let Some(look) = look? {
            return Ok(look);
        }
        self.write(move |connection, context| Box::pin(prices::store(connection, context, configured))).await
    }

    async fn book_times(&self) -> Result<BookTimes, StoreError> {
        retention::times(&self.readers, &self.context.names).await
    }

    async fn remember_claims_from(&self, second: i64) -> Result<(), StoreError> {
        self.remove(Removal::Mark(second)).await.map(drop)
    }

    async fn remove_old(
        &self,
        what: OldRows,
        before: UnixMillis,
        page: Page,
    ) -> Result<(u64, Option<PagePlace>), StoreError> {
        // A repair may need it.
        if self.is_apart() {
            return Ok((0, None));
        }
        let (removal, next) = retention::find(&self.readers, &self.context, what, before, &page).await?;
        if removal.is_empty() {
            return Ok((0, next));
        }
        Ok((self.remove(removal).await?, next))
    }

    fn set_policy(&self, policy: LedgerPolicy) {
        self.context.policy.store(Arc::new(policy));
    }

    async fn inbox_counts(&self) -> Result<InboxCounts, StoreError> {
        inbox::counts(&self.readers, &self.context.names).await
    }

    async fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        // Of the server's disk only the server could tell; it tells the size of its tables, a little late.
        let size: i64 = sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS SIGNED) FROM information_schema.tables \
             WHERE table_schema IN (?, ?)",
        )
        .bind(self.context.options.database.clone())
        .bind(self.context.options.state_schema.clone())
        .fetch_one(&self.readers)
        .await?;
        Ok(DiskUsage { size_bytes: u64::try_from(size).unwrap_or(0), free_bytes: None })
    }

    async fn ambiguous_tokens(&self, limit: usize) -> Result<Vec<AmbiguousToken>, StoreError> {
        inbox::ambiguous_tokens(&self.readers, &self.context.names, limit).await
    }

    async fn last_event_at(&self) -> Result<Option<UnixMillis>, StoreError> {
        inbox::last_event_at(&self.readers, &self.context.names).await
    }

    async fn look_whether_apart(&self) -> Result<Option<Apart>, StoreError> {
        self.look_apart().await
    }

    fn apart(&self) -> Option<Apart> {
        self.apart.load().as_deref().cloned()
    }

    async fn probe(&self) -> Result<(), StoreError> {
        // Each owner has a connection of its own to prove.
        for owner in self.owners() {
            owner.transact(|connection, context| Box::pin(prices::probe(connection, context))).await?;
        }
        Ok(())
    }

    fn is_writable(&self) -> bool {
        self.owners().all(Shard::is_writable)
    }

    async fn close(&self) {
        futures_util::future::join_all(self.owners().map(Shard::close)).await;
        self.readers.close().await;
        self.balance_readers.close().await;
    }
}
