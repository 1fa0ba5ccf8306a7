//! Reload: the configuration is read anew, whole, as at a start; if it is right, all that can change is put in force.
//!
//! Which keys can is said in `config`. This is the one place that puts a reload in force and tells of it, whoever asked.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

use super::database::ledger_policy;
use super::parts::Parts;
use crate::actors::limits::Limits;
use crate::clock::SharedClock;
use crate::config::{ConfigError, Live, Loaded, Reloaded, Settings};
use crate::http::policy::RequestPolicy;
use crate::storage::Store;
use crate::systemd::ServiceManager;
use crate::telemetry::logs::Level;
use crate::telemetry::metrics;

/// Reads the configuration from where this process got it at its start.
pub type Load = Arc<dyn Fn() -> Result<Loaded, ConfigError> + Send + Sync>;

/// How long the files of a configuration may take to be read.
const LONGEST_READ: Duration = Duration::from_secs(30);

/// Why everything stayed as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// All problems at once, one a line.
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("its files could not be read within {LONGEST_READ:?}: is their disk there?")]
    NotRead,
    #[error("no thread could be started to read it: {0}")]
    Thread(std::io::Error),
}

/// Reloads on request, one at a time. Clones share what is in force.
#[derive(Clone)]
pub struct Reload {
    shared: Arc<Shared>,
}

struct Shared {
    load: Load,
    /// What the last good load came to.
    in_force: Mutex<Loaded>,
    holders: Holders,
}

/// Who goes by settings that a reload can change.
struct Holders {
    live: Live<Settings>,
    policy: Live<RequestPolicy>,
    limits: Arc<Limits>,
    store: Arc<dyn Store>,
    level: Level,
    clock: SharedClock,
}

impl Reload {
    /// `in_force` is what the daemon was started with.
    pub(super) fn new(load: Load, in_force: Loaded, live: Live<Settings>, parts: &Parts, level: Level) -> Self {
        let holders = Holders {
            live,
            policy: parts.policy.clone(),
            limits: parts.limits.clone(),
            store: parts.store.clone(),
            level,
            clock: parts.clock.clone(),
        };
        metrics::configuration_in_force(holders.clock.now().as_secs());
        Reload { shared: Arc::new(Shared { load, in_force: Mutex::new(in_force), holders }) }
    }

    /// Reloads each time that the process is hung up on. What comes during one reload makes for one more.
    pub(super) async fn on(self, mut hangups: Signal, manager: ServiceManager) {
        while hangups.recv().await.is_some() {
            manager.reloading();
            // Logged and counted where it happened.
            let outcome = self.run().await;
            manager.reloaded(outcome.is_ok());
        }
    }

    /// Reads the configuration and puts it in force, or changes nothing. Either is logged and counted here.
    pub async fn run(&self) -> Result<Reloaded, ReloadError> {
        let mut in_force = self.shared.in_force.lock().await;
        let outcome = self.read(in_force.clone()).await;
        match &outcome {
            Ok(reloaded) => {
                self.shared.holders.put_in_force(&reloaded.loaded.settings);
                *in_force = reloaded.loaded.clone();
                tell(reloaded);
                metrics::configuration_in_force(self.shared.holders.clock.now().as_secs());
                metrics::reload_applied();
            }
            Err(error) => {
                tell_refusal(error);
                metrics::reload_refused();
            }
        }
        outcome
    }

    async fn read(&self, in_force: Loaded) -> Result<Reloaded, ReloadError> {
        let (reply, outcome) = oneshot::channel();
        let load = self.shared.load.clone();
        // A thread of its own: a file that hangs must hold up neither the daemon nor its end.
        std::thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || {
                // Nobody waits any more if it took too long.
                reply.send(load().and_then(|fresh| in_force.replaced_by(fresh))).ok();
            })
            .map_err(ReloadError::Thread)?;
        match timeout(LONGEST_READ, outcome).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            _ => Err(ReloadError::NotRead),
        }
    }
}

impl Holders {
    /// Each holder takes its part whole, and nobody needs two of them to agree.
    fn put_in_force(&self, settings: &Settings) {
        self.level.change(&settings.log);
        self.limits.change(&settings.rate_limit);
        self.store.set_policy(ledger_policy(settings));
        self.live.replace(settings.clone());
        self.policy.replace(RequestPolicy::new(settings));
    }
}

fn tell(reloaded: &Reloaded) {
    for warning in &reloaded.loaded.warnings {
        tracing::warn!("{warning}");
    }
    match reloaded.changed.as_slice() {
        [] => tracing::info!("the configuration was read anew: nothing that a reload can change has changed"),
        changed => {
            tracing::info!("the configuration was read anew and holds from now on; changed: {}", changed.join(", "))
        }
    }
    if !reloaded.at_next_start.is_empty() {
        tracing::warn!("changed, and takes effect at the next start: {}", reloaded.at_next_start.join(", "));
    }
}

fn tell_refusal(error: &ReloadError) {
    match error {
        ReloadError::Config(error) => {
            for problem in error.problems() {
                tracing::error!("the configuration was not reloaded and stays as it was: {problem}");
            }
        }
        other => tracing::error!("the configuration was not reloaded and stays as it was: {other}"),
    }
}
