//! The composition root: settings become a running daemon, and a running daemon is drained and stopped.
//!
//! The order matters and stands here alone: database, prices, actors, listeners; and backwards. What they are made of
//! is `parts`; what a running daemon takes over of a changed configuration is `reload`.

mod database;
mod give_ups;
mod parts;
mod reload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::Actor;
use actix_web::dev::ServerHandle;
use actix_web::web;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::actors::scheduler::{configured_prices, start_cron};
use crate::actors::sentinel::{self, LastResort};
use crate::actors::supervisor::{Supervisor, give_up_channel};
use crate::clock::{self, SharedClock};
use crate::config::{ConfigError, Live, Loaded, Settings, ensure_secret};
use crate::http::admin::Listeners;
use crate::http::server;
use crate::setup::Setup;
use crate::storage::open::{self, OpenError};
use crate::storage::takeover::FoundHistory;
use crate::storage::{Store, StoreError};
use crate::telemetry::logs::{self, Level};
use crate::telemetry::metrics::{self, Metrics};
use give_ups::GiveUps;
use parts::Parts;

pub use database::{database_options, sqlite_options};
pub use reload::{Load, Reload, ReloadError};

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
            StartError::Config(_) | StartError::StateFolder(..) => 2,
            StartError::Listen(..) | StartError::MetricsListen(..) | StartError::AdminSocket(..) => 2,
            StartError::Database(_) | StartError::Prices(_) | StartError::TakeOver(_) => 3,
            StartError::Metrics(_) | StartError::Cron(_) | StartError::Signals(_) | StartError::Sentinel(_) => 1,
        }
    }
}

/// Runs the daemon until a signal or its supervisor ends it. `load` reads its configuration, now and at each reload.
pub fn serve(load: Load, options: ServeOptions) -> Result<ExitCode, ConfigError> {
    let code = actix::System::new().block_on(async move {
        // Before the configuration is looked at: a hang-up from here on neither ends the start nor is missed.
        let hangups = signal(SignalKind::hangup());
        let loaded = load()?;
        let level = logs::set_up(&loaded.settings.log);
        let _fail_points = crate::failpoint::set_up();
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let start = async {
            let origin = Origin { load, level, hangups: hangups.map_err(StartError::Signals)? };
            Daemon::start(loaded, origin, options).await
        };
        match start.await {
            Ok(daemon) => Ok(daemon.run().await),
            Err(error) => {
                tracing::error!("hookledger cannot start: {error}");
                Ok(error.exit_code())
            }
        }
    });
    code.map(ExitCode::from)
}

/// What a reload goes back to.
struct Origin {
    load: Load,
    level: Level,
    hangups: Signal,
}

struct Daemon {
    store: Arc<dyn Store>,
    settings: Settings,
    is_stopping: Arc<AtomicBool>,
    given_up: watch::Receiver<Option<String>>,
    give_ups: GiveUps,
    servers: Vec<ServerHandle>,
    admin_socket: PathBuf,
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
        let give_ups = GiveUps::read(&settings, clock.clone());
        give_ups.wait().await;
        let store = open_store(&settings, clock.clone()).await?;
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
        let state = web::Data::new(parts.http_state(&settings, is_stopping.clone()));
        let operators = web::Data::new(parts.admin_state(&settings, state.clone()));
        let (listen, public) = server::public(state, operators.clone(), &settings.server)
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
        let (server, socket) = (listen.to_string(), admin_socket.display().to_string());
        operators.listeners.set(Listeners { server, metrics: metrics_listen, admin_socket: socket }).ok();
        actix::spawn(reload.on(origin.hangups));

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
            give_ups,
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

/// Opens the database, waiting for one that is busy or away up to `database.start_timeout`.
async fn open_store(settings: &Settings, clock: SharedClock) -> Result<Arc<dyn Store>, OpenError> {
    let options = database_options(settings);
    let started = Instant::now();
    loop {
        match open::open_for_daemon(&options, clock.clone(), settings.database.migrate).await {
            Err(error) if error.may_pass() && started.elapsed() < settings.database.start_timeout => {
                tracing::warn!(%error, "the database cannot be opened yet; trying again");
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            result => return result,
        }
    }
}
