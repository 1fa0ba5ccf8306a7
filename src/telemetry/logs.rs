//! Sets up structured logs: on standard error, or as entries of the journal with their fields.
//!
//! Rules of the house: a message reads alone, ids are fields, an error is logged once where it is handled, and
//! secrets, signatures, tokens and bodies are never logged.

use std::cell::RefCell;
use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{LogFormat, LogSettings};

/// Names the journal's fields of ours: `HOOKLEDGER_ACTOR=ledger`.
const FIELD_PREFIX: &str = "HOOKLEDGER";

/// What systemd says of the pipe that it gave for standard error: device and inode.
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// Libraries speak up from warnings on; hookledger itself at `log.level`. What the HTTP library says of requests that
/// it cannot read is left out: anybody can cause that, as often as he likes.
pub fn set_up(settings: &LogSettings) -> Level {
    let (filter, handle) = reload::Layer::new(filter(settings));
    let (shape, missing_journal) = shape(settings.format);
    // A second set-up in one process (a test) keeps the first.
    if tracing_subscriber::registry().with(filter).with(shape).try_init().is_ok() {
        log_panics();
    }
    if let Some(error) = missing_journal {
        tracing::warn!(%error, "the journal cannot be reached, so that the log goes to standard error as JSON");
    }
    Level { handle }
}

/// What writes the lines; and why the journal does not, where it was to.
fn shape<S>(format: LogFormat) -> (Box<dyn Layer<S> + Send + Sync>, Option<std::io::Error>)
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let base = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let is_terminal = std::io::stderr().is_terminal();
    let missing = match format {
        LogFormat::Text => return (base.with_ansi(is_terminal).boxed(), None),
        LogFormat::Auto if is_terminal => return (base.with_ansi(true).boxed(), None),
        LogFormat::Auto if !is_journal() => None,
        LogFormat::Auto | LogFormat::Journald => match tracing_journald::layer() {
            Ok(layer) => return (as_entries(layer).boxed(), None),
            Err(error) => Some(error),
        },
        LogFormat::Json => None,
    };
    (base.json().flatten_event(true).boxed(), missing)
}

/// With the journal's usual priorities: what is fine is `info`, which the library would call a notice.
fn as_entries(layer: tracing_journald::Layer) -> tracing_journald::Layer {
    let priorities =
        PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    layer.with_field_prefix(Some(FIELD_PREFIX.to_owned())).with_priority_mappings(priorities)
}

/// Whether standard error is what systemd connected with the journal, and not what somebody put in its place.
fn is_journal() -> bool {
    let Ok(named) = std::env::var(JOURNAL_VARIABLE) else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|found| named == format!("{}:{}", found.st_dev, found.st_ino))
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
