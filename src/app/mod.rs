//! The composition root: settings become a running daemon, and a running daemon is drained and stopped.
//!
//! The order matters and stands here alone: database, prices, actors, listeners; and backwards. What they are made of
//! is `parts`; what a running daemon takes over of a changed configuration is `reload`.

mod database;
mod descriptors;
mod file_modes;
mod give_ups;
mod informing;
mod listeners;
mod parts;
mod reload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::Actor;
use actix_web::web;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::actors::progress::Progress;
use crate::actors::scheduler::{configured_prices, start_cron};
use crate::actors::sentinel::{self, LastResort};
use crate::actors::supervisor::{Supervisor, give_up_channel};
use crate::clock::{self, SharedClock};
use crate::config::{ConfigError, Live, Loaded, Settings, ensure_secret};
use crate::setup::Setup;
use crate::storage::open::{self, OpenError};
use crate::storage::takeover::FoundHistory;
use crate::storage::{Store, StoreError};
use crate::systemd::{InheritedSockets, ServiceManager, SocketsError};
use crate::telemetry::logs::{self, Level};
use crate::telemetry::metrics::{self, Metrics};
use give_ups::GiveUps;
use informing::{Informer, Liveness};
use listeners::{Listening, Servers};
use parts::Parts;

pub use database::{database_options, sqlite_options};
pub use reload::{Load, Reload, ReloadError};

/// The supervisor inside gave up.
pub const EXIT_GAVE_UP: u8 = 70;

/// How long to wait between two tries to open the database.
const OPEN_PAUSE: Duration = Duration::from_millis(500);

/// How long the service manager is asked to wait for the next step of a start. A schema may take its time.
const LONGEST_STEP: Duration = Duration::from_secs(600);

/// What a stop may take beyond `server.shutdown_timeout`.
const STOP_MARGIN: Duration = Duration::from_secs(5);

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
    Database(#[from] OpenError),
    #[error(
        "the state folder {0} cannot be made ({1}): start where the daemon may write, or set admin.socket to a path \
         elsewhere"
    )]
    StateFolder(PathBuf, std::io::Error),
    #[error("the first price could not be stored: {0}")]
    Prices(StoreError),
    #[error("what other programs have billed could not be looked at: {0}")]
    TakeOver(StoreError),
    #[error(
        "server.listen: {0} cannot be listened on ({1}); another program has it (LetAiCode's own backend uses port \
         4000 as well): set server.listen to a free port"
    )]
    Listen(std::net::SocketAddr, std::io::Error),
    #[error("metrics.listen: {0} cannot be listened on ({1}); set it to a free port, or to \"\" to switch it off")]
    MetricsListen(std::net::SocketAddr, std::io::Error),
    #[error("admin.socket: {0} cannot be listened on ({1})")]
    AdminSocket(PathBuf, std::io::Error),
    #[error("{0}")]
    Sockets(#[from] SocketsError),
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error("the wake-ups cannot be set up: {0}")]
    Cron(#[from] tokio_cron_scheduler::JobSchedulerError),
    #[error("signals cannot be listened for: {0}")]
    Signals(std::io::Error),
    #[error("a thread that watches the supervisor cannot be started: {0}")]
    Sentinel(std::io::Error),
}

impl StartError {
    fn exit_code(&self) -> u8 {
        match self {
            StartError::Database(error) if error.is_held() || error.needs_a_person() => 2,
            StartError::Config(_) | StartError::StateFolder(..) | StartError::Sockets(_) => 2,
            StartError::Listen(..) | StartError::MetricsListen(..) | StartError::AdminSocket(..) => 2,
            StartError::Database(_) | StartError::Prices(_) | StartError::TakeOver(_) => 3,
            StartError::Metrics(_) | StartError::Cron(_) | StartError::Signals(_) | StartError::Sentinel(_) => 1,
        }
    }
}

/// Runs the daemon until a signal or its supervisor ends it. `load` reads its configuration, now and at each reload.
pub fn serve(load: Load, options: ServeOptions) -> Result<ExitCode, ConfigError> {
    // Before there is another thread, and before anything else is opened.
    let sockets = InheritedSockets::from_environment();
    let code = actix::System::new().block_on(async move {
        // Before the configuration is looked at: a hang-up from here on neither ends the start nor is missed.
        let hangups = signal(SignalKind::hangup());
        let loaded = load()?;
        let level = logs::set_up(&loaded.settings.log);
        let _fail_points = crate::failpoint::set_up();
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let manager = ServiceManager::from_environment();
        let start = async {
            let (hangups, sockets) = (hangups.map_err(StartError::Signals)?, sockets?);
            let origin = Origin { load, level, hangups, sockets, manager: manager.clone() };
            Daemon::start(loaded, origin, options).await
        };
        let code = match start.await {
            Ok(daemon) => daemon.run().await,
            Err(error) => {
                tracing::error!("hookledger cannot start: {error}");
                error.exit_code()
            }
        };
        manager.finish();
        Ok(code)
    });
    code.map(ExitCode::from)
}

/// What the process had before there were settings.
struct Origin {
    load: Load,
    level: Level,
    hangups: Signal,
    sockets: InheritedSockets,
    manager: ServiceManager,
}

struct Daemon {
    store: Arc<dyn Store>,
    settings: Settings,
    is_stopping: Arc<AtomicBool>,
    given_up: watch::Receiver<Option<String>>,
    terminate: Signal,
    interrupt: Signal,
    servers: Servers,
    manager: ServiceManager,
    /// The file of the admin socket, where the daemon made it.
    admin_socket: Option<PathBuf>,
    give_ups: GiveUps,
    _supervisor: actix::Addr<Supervisor>,
    _cron: tokio_cron_scheduler::JobScheduler,
}

impl Daemon {
    async fn start(mut loaded: Loaded, origin: Origin, options: ServeOptions) -> Result<Self, StartError> {
        let secret_file = ensure_secret(&mut loaded.settings)?;
        let settings = loaded.settings.clone();
        database::make_state_folder(&settings)
            .map_err(|error| StartError::StateFolder(settings.database.url.state_folder().to_owned(), error))?;
        let clock = clock::for_daemon();
        let manager = origin.manager;
        let give_ups = GiveUps::read(&settings, clock.clone());
        if give_ups.times() > 0 {
            manager.starting("starting: waiting, as the supervisor gave up before", LONGEST_STEP);
        }
        give_ups.wait().await;
        let store = open_store(&settings, clock.clone(), &manager).await?;
        for warning in file_modes::warnings(&settings, secret_file.as_deref()) {
            tracing::warn!("{warning}");
        }
        store.look_at_prices(configured_prices(&settings, None)).await.map_err(StartError::Prices)?;
        if let Some(found) = store.take_over(settings.webhook.max_age).await.map_err(StartError::TakeOver)? {
            tell_history(&found);
        }
        let metrics = Metrics::install()?;
        metrics::gave_up(give_ups.times());
        let live = Live::new(settings.clone());
        let parts = Parts::new(&live, clock, store.clone(), metrics.clone());
        parts.observed.remember_last_event(parts.store.as_ref()).await;
        let reload = Reload::new(origin.load, loaded, live, &parts, origin.level);
        let (give_up, given_up) = give_up_channel();
        let supervisor = parts.supervisor(&settings, give_up).start();
        sentinel::start(parts.progress.clone(), settings.supervisor.heartbeat, last_resort(give_ups.clone()))
            .map_err(StartError::Sentinel)?;
        actix::spawn(give_ups.clone().forget_when_healthy(settings.supervisor.window));
        let cron = start_cron(parts.directory.clone()).await?;

        let is_stopping = Arc::new(AtomicBool::new(false));
        let http = web::Data::new(parts.http_state(&settings, is_stopping.clone()));
        let operators = web::Data::new(parts.admin_state(&settings, http.clone()));
        // Before the first request: from here on an end is a drain.
        let ends = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [terminate, interrupt] = ends.map(|listening| listening.map_err(StartError::Signals));
        let (terminate, interrupt) = (terminate?, interrupt?);
        let Listening { servers, server, admin_socket } =
            listeners::listen(&settings, origin.sockets, &http, &operators, metrics)?;
        actix::spawn(reload.on(origin.hangups, manager.clone()));
        let informer =
            Informer { manager: manager.clone(), http, operators, liveness: liveness(parts.progress.clone()) };
        actix::spawn(informer.run());

        let setup = Setup { settings: &settings, listen: server, secret_file: secret_file.as_deref() };
        setup.log();
        if options.print_setup {
            setup.print();
        }
        Ok(Daemon {
            store,
            settings,
            is_stopping,
            given_up,
            terminate,
            interrupt,
            give_ups,
            servers,
            manager,
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
                self.give_ups.forget();
                0
            }
            Err(reason) => {
                tracing::error!(%reason, "the supervisor gives up; draining, then exit {EXIT_GAVE_UP}");
                self.give_ups.note(&reason);
                EXIT_GAVE_UP
            }
        };
        self.is_stopping.store(true, Ordering::Release);
        let within = self.settings.server.shutdown_timeout;
        self.manager.stopping("stopping: what is under way is finished", within + STOP_MARGIN);
        let drain = async {
            self.servers.stop(within).await;
            self.store.close().await;
        };
        if tokio::time::timeout(within, drain).await.is_err() {
            tracing::error!("not everything finished within server.shutdown_timeout; what was answered is on disk");
        }
        if let Some(socket) = &self.admin_socket {
            std::fs::remove_file(socket).ok();
        }
        tracing::info!("stopped");
        code
    }

    async fn wait_for_end(&mut self) -> Result<&'static str, String> {
        tokio::select! {
            _ = self.terminate.recv() => Ok("SIGTERM"),
            _ = self.interrupt.recv() => Ok("SIGINT"),
            reason = self.given_up.wait_for(Option::is_some) => {
                let reason = reason.ok().and_then(|reason| reason.clone());
                Err(reason.unwrap_or_else(|| "the supervisor is gone".to_owned()))
            }
        }
    }
}

/// Ends the process where nobody is left who could drain it.
#[allow(clippy::disallowed_methods)] // there is nothing to drain with
fn last_resort(give_ups: GiveUps) -> LastResort {
    Box::new(move |reason| {
        tracing::error!(%reason, "nothing can be drained any more: exit {EXIT_GAVE_UP} at once; what was answered is on disk");
        give_ups.note_at_once(reason);
        std::process::exit(i32::from(EXIT_GAVE_UP))
    })
}

fn tell_history(found: &FoundHistory) {
    let FoundHistory { taken_over_at, adopted_from, usage_records, webhook_logs, users, keys, .. } = found;
    tracing::info!(
        %taken_over_at, %adopted_from, usage_records, webhook_logs, users, keys,
        "first start on this database: {usage_records} usage records of other programs since {adopted_from} count as \
         charged, and so do {webhook_logs} events in webhook_logs; nothing of the history of {users} users and {keys} \
         keys will be billed"
    );
}

/// What the signs of life rest on.
fn liveness(progress: Arc<Progress>) -> Liveness {
    Arc::new(move || {
        let now = Instant::now();
        if progress.is_alive(now) {
            return Ok(());
        }
        let slowest = progress.slowest(now);
        Err(format!("no progress of {} for {} s", slowest.part, slowest.age.as_secs()))
    })
}

/// Opens the database, waiting for one that is busy or away up to `database.start_timeout`.
async fn open_store(
    settings: &Settings,
    clock: SharedClock,
    manager: &ServiceManager,
) -> Result<Arc<dyn Store>, OpenError> {
    let options = database_options(settings);
    let started = Instant::now();
    manager.starting("starting: opening the database", LONGEST_STEP);
    loop {
        match open::open_for_daemon(&options, clock.clone(), settings.database.migrate).await {
            Err(error) if error.may_pass() && started.elapsed() < settings.database.start_timeout => {
                tracing::warn!(%error, "the database cannot be opened yet; trying again");
                manager.starting(&format!("starting: waiting for the database: {error}"), LONGEST_STEP);
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            result => return result,
        }
    }
}
