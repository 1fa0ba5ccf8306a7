//! The owners of the writing connections: each a thread that carries out transactions as they come, and answers after
//! the commit.
//!
//! No transaction leaves its owner and nothing it does is cancelled. After any error the connection is thrown away with
//! whatever it had begun; where only another transaction was in the way, the whole work is done again. A link that falls
//! silent without being cut is such an error too, see `silence`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::Rng;
use sqlx::{Connection, MySqlConnection};
use tokio::sync::{mpsc, oneshot};

use super::context::Context;
use super::{connect, locked_out, silence};
use crate::storage::fence::{Fence, may_write};
use crate::storage::pulse::OwnerPulse;
use crate::storage::{AsStoreError, StoreError};

/// Transactions that may wait for one owner.
const QUEUE: usize = 64;

/// How often a transaction is redone that others were in the way of.
const MAX_TRIES: u32 = 6;

/// First pause before it is redone, doubled each time, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(3);

/// How a transaction is to end.
pub enum End<T> {
    Commit(T),
    /// Nothing of it is to stay.
    RollBack(T),
}

type Job = Box<dyn for<'a> FnOnce(&'a mut Owner) -> BoxFuture<'a, ()> + Send>;

/// The way to one owner.
#[derive(Clone)]
pub struct Shard {
    jobs: mpsc::Sender<Job>,
    is_writable: Arc<AtomicBool>,
    /// Around what is asked for here.
    pub(super) fence: Option<Fence>,
    pub(super) pulse: Arc<OwnerPulse>,
}

impl Shard {
    pub fn start(number: usize, context: Arc<Context>) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let is_writable = Arc::new(AtomicBool::new(true));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("ledger-writer-{number}");
        let pulse = Arc::new(OwnerPulse::new(&*name, silence::patience(&context.options)));
        let owner = Owner {
            context,
            connection: None,
            session: None,
            fence: None,
            pulse: pulse.clone(),
            is_writable: is_writable.clone(),
            is_closed: false,
        };
        let work = move || {
            let _end = owner.pulse.until_end();
            runtime.block_on(owner.run(queue))
        };
        std::thread::Builder::new().name(name).spawn(work)?;
        Ok(Shard { jobs, is_writable, fence: None, pulse })
    }

    pub fn is_writable(&self) -> bool {
        self.is_writable.load(Ordering::Acquire) && !self.jobs.is_closed()
    }

    /// Until the next transaction shows otherwise, nothing can be written.
    pub fn doubt(&self) {
        self.is_writable.store(false, Ordering::Release);
    }

    /// Has a transaction carried out. `work` is called again from the start where others were in the way.
    pub async fn transact<T, E, W>(&self, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + AsStoreError + Send + 'static,
        W: for<'a> Fn(&'a mut MySqlConnection, &'a Context) -> BoxFuture<'a, Result<End<T>, E>> + Send + Sync + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let fence = self.fence.clone();
        let job: Job = Box::new(move |owner| {
            Box::pin(async move {
                owner.fence = fence;
                let outcome = AssertUnwindSafe(owner.transact(&work)).catch_unwind().await;
                match outcome {
                    Ok(result) => drop(reply.send(result)),
                    // The panic was logged where it happened; the caller learns that the outcome is unknown.
                    Err(_panic) => owner.connection = None,
                }
            })
        });
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Unavailable("it was closed".to_owned()),
        })?;
        answer.await.unwrap_or_else(|_| Err(StoreError::OutcomeUnknown.into()))
    }

    /// Lets what waits finish, then closes the connection.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |owner| {
            Box::pin(async move {
                owner.is_closed = true;
                owner.pulse.closes();
                if let Some(connection) = owner.connection.take() {
                    silence::bounded(&owner.context.options, connection.close()).await.ok();
                }
                reply.send(()).ok();
            })
        });
        if self.jobs.send(job).await.is_ok() {
            answer.await.ok();
        }
    }
}

pub struct Owner {
    context: Arc<Context>,
    connection: Option<MySqlConnection>,
    /// The server's number of the connection that was used last.
    session: Option<i64>,
    /// Around the work under way.
    fence: Option<Fence>,
    pulse: Arc<OwnerPulse>,
    is_writable: Arc<AtomicBool>,
    is_closed: bool,
}

impl Owner {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.recv().await {
            self.pulse.moves();
            job(&mut self).await;
            self.pulse.rests();
            if self.is_closed {
                return;
            }
        }
        self.pulse.closes();
    }

    async fn transact<T, E, W>(&mut self, work: &W) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + AsStoreError + Send,
        W: for<'a> Fn(&'a mut MySqlConnection, &'a Context) -> BoxFuture<'a, Result<End<T>, E>> + Sync,
    {
        let mut tries = 1;
        loop {
            let began = Instant::now();
            self.pulse.moves();
            let mut result = self.attempt(work).await;
            let is_contended =
                matches!(result.as_ref().err().and_then(AsStoreError::as_store_error), Some(StoreError::Contended(_)));
            // It waited in vain: for a row, or for a whole table, which no other try would get either.
            if is_contended
                && began.elapsed() >= connect::lock_wait(&self.context.options)
                && let Err(error) = self.look_at_tables().await
            {
                result = Err(error.into());
            }
            let failed = result.as_ref().err().and_then(AsStoreError::as_store_error);
            match failed {
                // What is taken after all these tries was not just being written: the data itself is in the way.
                Some(StoreError::Taken(reason)) if tries >= MAX_TRIES => {
                    return Err(StoreError::Refused(reason.clone()).into());
                }
                // Another session holds on to its lock. That says nothing against the events.
                Some(StoreError::Contended(_)) if tries >= MAX_TRIES => return result,
                Some(StoreError::Contended(_) | StoreError::Taken(_)) => {}
                Some(StoreError::Unavailable(_) | StoreError::OutcomeUnknown) => {
                    self.is_writable.store(false, Ordering::Release);
                    return result;
                }
                Some(_) => return result,
                None => {
                    self.is_writable.store(true, Ordering::Release);
                    return result;
                }
            }
            let pause = FIRST_PAUSE * 2u32.pow(tries - 1);
            let pause = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
            tokio::time::sleep(pause).await;
            tries += 1;
        }
    }

    /// Fails if another program keeps the platform's tables locked. The fresh connection is then the next try's.
    async fn look_at_tables(&mut self) -> Result<(), StoreError> {
        self.pulse.moves();
        let options = &self.context.options;
        let look = async {
            let mut connection = connect::writer(options).await?;
            locked_out::look(&mut connection).await?;
            let session = silence::session(&mut connection).await?;
            Ok::<_, StoreError>((connection, session))
        };
        let (connection, session) = silence::bounded(options, look).await??;
        (self.connection, self.session) = (Some(connection), session);
        Ok(())
    }

    /// One try, given up where the server falls silent.
    async fn attempt<T, E, W>(&mut self, work: &W) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + AsStoreError + Send,
        W: for<'a> Fn(&'a mut MySqlConnection, &'a Context) -> BoxFuture<'a, Result<End<T>, E>> + Sync,
    {
        let context = self.context.clone();
        match silence::bounded(&context.options, self.carry_out(work)).await {
            Ok(outcome) => outcome,
            // Its connection went with it.
            Err(silent) => {
                silence::end(&context.options, self.session.take()).await;
                Err(silent.into())
            }
        }
    }

    async fn connected(&mut self) -> Result<MySqlConnection, StoreError> {
        // One that was idle may have been closed by the server.
        if let Some(mut connection) = self.connection.take()
            && connection.ping().await.is_ok()
        {
            return Ok(connection);
        }
        let mut connection = connect::writer(&self.context.options).await?;
        self.session = silence::session(&mut connection).await?;
        Ok(connection)
    }

    /// A connection on which anything failed is not used again: the server may have ended its transaction by
    /// itself, and what follows would commit alone.
    async fn carry_out<T, E, W>(&mut self, work: &W) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + AsStoreError + Send,
        W: for<'a> Fn(&'a mut MySqlConnection, &'a Context) -> BoxFuture<'a, Result<End<T>, E>> + Sync,
    {
        if !may_write(self.fence.as_ref()) {
            return Err(StoreError::Replaced.into());
        }
        let mut connection = self.connected().await?;
        let mut transaction = connection.begin().await.map_err(StoreError::from)?;
        let outcome = match work(&mut transaction, &self.context).await {
            // What is thrown away with its connection is rolled back.
            Ok(End::Commit(_)) if !may_write(self.fence.as_ref()) => {
                tracing::warn!("what a replaced part of the daemon had asked for was rolled back");
                return Err(StoreError::Replaced.into());
            }
            Ok(End::Commit(value)) => {
                // The server may have committed before the link broke: only looking for the claim tells.
                transaction.commit().await.map_err(|error| match StoreError::from(error) {
                    redone @ (StoreError::Contended(_) | StoreError::Taken(_)) => redone,
                    _ => StoreError::OutcomeUnknown,
                })?;
                Ok(value)
            }
            Ok(End::RollBack(value)) => {
                transaction.rollback().await.map_err(StoreError::from)?;
                Ok(value)
            }
            Err(error) if error.as_store_error().is_none() => {
                transaction.rollback().await.map_err(StoreError::from)?;
                Err(error)
            }
            Err(error) => return Err(error),
        };
        self.connection = Some(connection);
        outcome
    }
}
