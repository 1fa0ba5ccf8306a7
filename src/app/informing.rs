//! Keeps the service manager informed while the daemon runs: ready as soon as events can be taken, one true line of how
//! it does whenever that changes, and a sign of life only while its parts get on with their work.
//!
//! It runs on the main thread, beside signals and Supervisor: if that thread hangs, the signs of life end as well.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::web;

use crate::http::admin::{self, AdminState};
use crate::http::server::HttpState;
use crate::systemd::{ServiceManager, watchdog_timeout};

/// Whether all parts get on; else which does not. Asked often, so it must be cheap.
pub(super) type Liveness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Between two looks: a change shows within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Signs of life for each time within which one must come: some may be late.
const SIGNS: u32 = 4;

/// Before the first sign that events can be taken.
const STARTING_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Informer {
    pub(super) manager: ServiceManager,
    pub(super) http: web::Data<HttpState>,
    pub(super) operators: web::Data<AdminState>,
    pub(super) liveness: Liveness,
}

impl Informer {
    /// Goes on until the process ends.
    pub(super) async fn run(self) {
        if !self.manager.is_there() {
            return;
        }
        self.wait_until_started().await;
        let watchdog = watchdog_timeout();
        let pause = watchdog.map_or(LONGEST_PAUSE, |timeout| (timeout / SIGNS).min(LONGEST_PAUSE));
        let mut told = self.line();
        self.manager.ready(&told);
        let mut is_alive = true;
        loop {
            if watchdog.is_some() {
                is_alive = self.look(is_alive);
            }
            let line = self.line();
            if line != told && !self.is_stopping() {
                self.manager.status(&line);
                told = line;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// What takes events is up; whether the operator lets any in is another matter.
    async fn wait_until_started(&self) {
        while self.http.what_cannot_work().is_some() {
            tokio::time::sleep(STARTING_PAUSE).await;
        }
    }

    fn look(&self, was_alive: bool) -> bool {
        // What stops has an end of its own: `server.shutdown_timeout`.
        if self.is_stopping() {
            self.manager.is_alive();
            return was_alive;
        }
        match (self.liveness)() {
            Ok(()) => {
                self.manager.is_alive();
                true
            }
            Err(reason) => {
                if was_alive {
                    tracing::error!(%reason, "no sign of life is given to the service manager until this passes");
                }
                false
            }
        }
    }

    fn line(&self) -> String {
        let line = admin::status_of(&self.operators).line();
        if self.manager.is_reload_refused() {
            return format!("{line}; the last reload was refused, and the configuration before it is in force");
        }
        line
    }

    fn is_stopping(&self) -> bool {
        self.http.is_stopping.load(Ordering::Acquire)
    }
}
