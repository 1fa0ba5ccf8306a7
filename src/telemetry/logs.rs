//! Sets up structured logs on standard error.
//!
//! Rules of the house: a message reads alone, ids are fields, an error is logged once where it is handled, and
//! secrets, signatures, tokens and bodies are never logged.

use std::cell::RefCell;
use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{LogFormat, LogSettings};

/// Libraries speak up from warnings on; hookledger itself at `log.level`. What the HTTP library says of requests that
/// it cannot read is left out: anybody can cause that, as often as he likes.
pub fn set_up(settings: &LogSettings) -> Level {
    let (filter, handle) = reload::Layer::new(filter(settings));
    let is_text = match settings.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Text => true,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let base = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second set-up in one process (a test) keeps the first.
    let result = if is_text {
        registry.with(base.with_ansi(std::io::stderr().is_terminal()).with_target(false)).try_init()
    } else {
        registry.with(base.json().flatten_event(true).with_target(false)).try_init()
    };
    if result.is_ok() {
        log_panics();
    }
    Level { handle }
}

fn filter(settings: &LogSettings) -> EnvFilter {
    EnvFilter::new(format!("warn,actix_http=off,hookledger={}", settings.level))
}

/// How much is logged; a reload changes it.
#[derive(Clone)]
pub struct Level {
    handle: reload::Handle<EnvFilter, Registry>,
}

impl Level {
    pub fn change(&self, settings: &LogSettings) {
        // Fails where this set-up was not the first in its process (a test), and then nothing is logged by it.
        self.handle.reload(filter(settings)).ok();
    }
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What the panic said that this thread is in, or was in last: for whoever notices it while it unwinds.
pub fn last_panic_here() -> Option<String> {
    LAST_PANIC.try_with(|last| last.try_borrow().ok().and_then(|last| last.clone())).ok().flatten()
}

/// A panic is logged like any other failure: once, with its place.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        LAST_PANIC.try_with(|last| last.try_borrow_mut().map(|mut last| *last = Some(message.to_owned())).ok()).ok();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(%message, %place, %thread, "a part of the daemon panicked");
    }));
}
