//! The composition root: settings become a running daemon, and a running daemon is drained and stopped.
//!
//! The order matters and stands here alone: database, prices, actors, listeners; and backwards.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::Actor;
use actix_web::dev::ServerHandle;
use actix_web::web;
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use crate::actors::ledger::{Ledger, LedgerParts};
use crate::actors::limits::Limits;
use crate::actors::logger::{Logger, LoggerParts};
use crate::actors::observed::Observed;
use crate::actors::receiver::{IntakePolicy, Receiver, ReceiverParts};
use crate::actors::scheduler::{Scheduler, SchedulerParts, start_cron};
use crate::actors::steps::StepTimes;
use crate::actors::supervisor::{ChildSpec, Supervisor, child, give_up_channel};
use crate::actors::{ActorName, Directory};
use crate::clock::{self, SharedClock};
use crate::config::{ConfigError, Loaded, Settings, ensure_secret};
use crate::domain::settlement::LedgerPolicy;
use crate::domain::signature::Verifier;
use crate::http::access::AccessToken;
use crate::http::admin::AdminState;
use crate::http::server::{self, HttpState};
use crate::setup::Setup;
use crate::status::ListenerStatus;
use crate::storage::sqlite::{MigrateError, SqliteOptions, SqliteStore, migrate};
use crate::storage::{ConfiguredPrices, LedgerStore, Store, StoreError};
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;

/// The supervisor inside gave up.
pub const EXIT_GAVE_UP: u8 = 70;

/// How long to wait between two tries to open the database.
const OPEN_PAUSE: Duration = Duration::from_millis(500);

/// What `serve` is asked beside its settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServeOptions {
    /// Print what to paste into new-api, the secret included, on standard output.
    pub print_setup: bool,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Database(#[from] MigrateError),
    #[error("the first price could not be stored: {0}")]
    Prices(StoreError),
    #[error(
        "server.listen: {0} cannot be listened on ({1}); another program has it (LetAiCode's own backend uses port \
         4000 as well): set server.listen to a free port"
    )]
    Listen(std::net::SocketAddr, std::io::Error),
    #[error("metrics.listen: {0} cannot be listened on ({1}); set it to a free port, or to \"\" to switch it off")]
    MetricsListen(std::net::SocketAddr, std::io::Error),
    #[error("admin.socket: {0} cannot be listened on ({1})")]
    AdminSocket(PathBuf, std::io::Error),
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error("the wake-ups cannot be set up: {0}")]
    Cron(#[from] tokio_cron_scheduler::JobSchedulerError),
    #[error("signals cannot be listened for: {0}")]
    Signals(std::io::Error),
}

impl StartError {
    fn exit_code(&self) -> u8 {
        match self {
            StartError::Database(MigrateError::Version(_)) | StartError::Config(_) => 2,
            StartError::Listen(..) | StartError::MetricsListen(..) | StartError::AdminSocket(..) => 2,
            StartError::Database(_) | StartError::Prices(_) => 3,
            StartError::Metrics(_) | StartError::Cron(_) | StartError::Signals(_) => 1,
        }
    }
}

/// How to open the embedded database that the settings name.
pub fn sqlite_options(settings: &Settings) -> SqliteOptions {
    SqliteOptions {
        path: settings.database.url.path().to_owned(),
        lock_wait: settings.database.lock_wait,
        max_readers: settings.database.max_connections,
        policy: LedgerPolicy {
            rounding: settings.ledger.rounding,
            overdraft: settings.ledger.overdraft,
            key_grace: settings.ledger.key_grace,
            retry: settings.retry.policy(),
        },
    }
}

/// Runs the daemon until a signal or its supervisor ends it.
pub fn serve(loaded: Loaded, options: ServeOptions) -> ExitCode {
    logs::set_up(&loaded.settings.log);
    let _fail_points = crate::failpoint::set_up();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let code = actix::System::new().block_on(async move {
        match Daemon::start(loaded.settings, options).await {
            Ok(daemon) => daemon.run().await,
            Err(error) => {
                tracing::error!("hookledger cannot start: {error}");
                error.exit_code()
            }
        }
    });
    ExitCode::from(code)
}

struct Daemon {
    store: Arc<SqliteStore>,
    settings: Settings,
    is_stopping: Arc<AtomicBool>,
    given_up: watch::Receiver<Option<String>>,
    servers: Vec<ServerHandle>,
    admin_socket: PathBuf,
    _supervisor: actix::Addr<Supervisor>,
    _cron: tokio_cron_scheduler::JobScheduler,
}

impl Daemon {
    async fn start(mut settings: Settings, options: ServeOptions) -> Result<Self, StartError> {
        let secret_file = ensure_secret(&mut settings)?;
        let clock = clock::for_daemon();
        let store = Arc::new(open_store(&settings, clock.clone()).await?);
        let configured_prices = ConfiguredPrices {
            usd_to_credits: settings.ledger.usd_to_credits,
            quota_per_unit: settings.ledger.quota_per_unit,
        };
        store.look_at_prices(configured_prices).await.map_err(StartError::Prices)?;
        let metrics = Metrics::install()?;
        let parts = Parts::new(&settings, clock, store.clone(), metrics.clone(), configured_prices);
        parts.observed.remember_last_event(parts.store.as_ref()).await;
        let (give_up, given_up) = give_up_channel();
        let (observed, clock) = (parts.observed.clone(), parts.clock.clone());
        let supervisor =
            Supervisor::new(settings.supervisor.clone(), parts.child_specs(), give_up, observed, clock).start();
        let cron = start_cron(parts.directory.clone()).await?;

        let is_stopping = Arc::new(AtomicBool::new(false));
        let state = web::Data::new(parts.http_state(&settings, is_stopping.clone()));
        let operators = web::Data::new(parts.admin_state(&settings, state.clone()));
        let (listen, public) = server::public(state, operators.clone())
            .map_err(|error| StartError::Listen(settings.server.listen, error))?;
        let mut servers = vec![public.handle()];
        actix::spawn(public);
        let mut metrics_listen = None;
        if let Some(address) = settings.metrics.listen {
            let (bound, server) =
                server::prometheus(address, metrics).map_err(|error| StartError::MetricsListen(address, error))?;
            servers.push(server.handle());
            actix::spawn(server);
            metrics_listen = Some(bound.to_string());
            tracing::info!(address = %bound, "metrics are served at /metrics");
        }
        let admin_socket = settings.admin.socket.clone();
        let admin = server::bind_admin_socket(&admin_socket)
            .and_then(|listener| server::admin(listener, operators.clone()))
            .map_err(|error| StartError::AdminSocket(admin_socket.clone(), error))?;
        servers.push(admin.handle());
        actix::spawn(admin);
        let listeners = ListenerStatus {
            server: listen.to_string(),
            metrics: metrics_listen,
            admin_socket: admin_socket.display().to_string(),
            admin_on_server: operators.token.is_some(),
        };
        operators.listeners.set(listeners).ok();

        let setup = Setup { settings: &settings, listen, secret_file: secret_file.as_deref() };
        setup.log();
        if options.print_setup {
            setup.print();
        }
        Ok(Daemon {
            store,
            settings,
            is_stopping,
            given_up,
            servers,
            admin_socket,
            _supervisor: supervisor,
            _cron: cron,
        })
    }

    /// Waits for the end, then drains: no new requests, what is under way is answered, the database is closed.
    async fn run(mut self) -> u8 {
        let code = match self.wait_for_end().await {
            Ok(signal) => {
                tracing::info!(signal, "stopping: no new requests, finishing what is under way");
                0
            }
            Err(reason) => {
                tracing::error!(%reason, "the supervisor gives up; draining, then exit {EXIT_GAVE_UP}");
                EXIT_GAVE_UP
            }
        };
        self.is_stopping.store(true, Ordering::Release);
        let drain = async {
            for server in &self.servers {
                server.stop(true).await;
            }
            self.store.close().await;
        };
        if tokio::time::timeout(self.settings.server.shutdown_timeout, drain).await.is_err() {
            tracing::error!("not everything finished within server.shutdown_timeout; what was answered is on disk");
        }
        std::fs::remove_file(&self.admin_socket).ok();
        tracing::info!("stopped");
        code
    }

    async fn wait_for_end(&mut self) -> Result<&'static str, String> {
        let listen = |kind| signal(kind).map_err(|error| StartError::Signals(error).to_string());
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => Ok("SIGTERM"),
            _ = interrupt.recv() => Ok("SIGINT"),
            reason = self.given_up.wait_for(Option::is_some) => {
                let reason = reason.ok().and_then(|reason| reason.clone());
                Err(reason.unwrap_or_else(|| "the supervisor is gone".to_owned()))
            }
        }
    }
}

/// Opens the database, waiting for one that is busy or away up to `database.start_timeout`.
async fn open_store(settings: &Settings, clock: SharedClock) -> Result<SqliteStore, MigrateError> {
    let options = sqlite_options(settings);
    let started = Instant::now();
    loop {
        let attempt = async {
            if settings.database.migrate {
                migrate(&options).await?;
            }
            SqliteStore::open(options.clone(), clock.clone()).await
        };
        match attempt.await {
            Err(error) if error.may_pass() && started.elapsed() < settings.database.start_timeout => {
                tracing::warn!(%error, "the database cannot be opened yet; trying again");
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Everything that the actors and handlers are made of.
struct Parts {
    store: Arc<dyn Store>,
    directory: Arc<Directory>,
    clock: SharedClock,
    ledger: LedgerParts,
    logger: LoggerParts,
    receiver: ReceiverParts,
    scheduler: SchedulerParts,
    observed: Arc<Observed>,
    limits: Arc<Limits>,
}

impl Parts {
    fn new(
        settings: &Settings,
        clock: SharedClock,
        store: Arc<dyn Store>,
        metrics: Metrics,
        configured_prices: ConfiguredPrices,
    ) -> Self {
        let directory = Arc::new(Directory::new(settings.server.max_in_flight));
        let limits = Arc::new(Limits::new(&settings.rate_limit));
        let observed = Arc::new(Observed::default());
        let is_webhook_enabled = settings.webhook.enabled;
        let max_batch = settings.ledger.max_batch;
        let secrets = settings.webhook.secrets.iter().map(|secret| secret.expose_secret());
        let policy = Arc::new(IntakePolicy {
            verifier: Verifier::new(secrets),
            is_enabled: settings.webhook.enabled,
            max_age: settings.webhook.max_age,
            max_future: settings.webhook.max_future,
        });
        Parts {
            ledger: LedgerParts {
                store: store.clone(),
                directory: directory.clone(),
                clock: clock.clone(),
                retry: settings.retry.policy(),
                max_batch,
            },
            logger: LoggerParts {
                store: store.clone(),
                directory: directory.clone(),
                clock: clock.clone(),
                max_batch,
                observed: observed.clone(),
            },
            receiver: ReceiverParts {
                directory: directory.clone(),
                clock: clock.clone(),
                limits: limits.clone(),
                policy,
                observed: observed.clone(),
            },
            scheduler: SchedulerParts {
                store: store.clone(),
                directory: directory.clone(),
                clock: clock.clone(),
                limits: limits.clone(),
                metrics,
                configured_prices,
                retention: settings.retention.policy,
                times: Arc::new(StepTimes::default()),
                observed: observed.clone(),
                is_webhook_enabled: Arc::new(move || is_webhook_enabled),
            },
            observed,
            limits,
            store,
            directory,
            clock,
        }
    }

    fn http_state(&self, settings: &Settings, is_stopping: Arc<AtomicBool>) -> HttpState {
        HttpState {
            directory: self.directory.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            server: settings.server.clone(),
            webhook: settings.webhook.clone(),
            balance_token: settings.balance.token.as_ref().map(AccessToken::new),
            in_flight: Semaphore::new(settings.server.max_in_flight),
            is_stopping,
        }
    }

    fn admin_state(&self, settings: &Settings, http: web::Data<HttpState>) -> AdminState {
        AdminState {
            store: self.store.clone(),
            directory: self.directory.clone(),
            http,
            observed: self.observed.clone(),
            limits: self.limits.clone(),
            token: settings.admin.token.as_ref().map(AccessToken::new),
            started_at: self.clock.now(),
            database_url: settings.database.url.to_string(),
            listeners: OnceLock::new(),
        }
    }

    /// One factory an actor, in the order of their start.
    fn child_specs(&self) -> Vec<ChildSpec> {
        let (ledger, logger) = (self.ledger.clone(), self.logger.clone());
        let (receiver, scheduler) = (self.receiver.clone(), self.scheduler.clone());
        vec![
            child(
                &self.directory,
                ActorName::Logger,
                |all| &all.logger,
                move |guard| Logger::new(logger.clone(), guard),
            ),
            child(
                &self.directory,
                ActorName::Ledger,
                |all| &all.ledger,
                move |guard| Ledger::new(ledger.clone(), guard),
            ),
            child(
                &self.directory,
                ActorName::Receiver,
                |all| &all.receiver,
                move |guard| Receiver::new(receiver.clone(), guard),
            ),
            child(
                &self.directory,
                ActorName::Scheduler,
                |all| &all.scheduler,
                move |guard| Scheduler::new(scheduler.clone(), guard),
            ),
        ]
    }
}
