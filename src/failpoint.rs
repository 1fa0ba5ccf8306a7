//! Named places where a test makes the daemon fail: at every commit and at every hand-over.
//!
//! Only builds with the feature `failpoints` have them; in a release `hit` is an empty function. A test sets
//! them from outside, for example `FAILPOINTS="ledger.commit.before=100*off->1*return(kill)"`:
//! `panic` panics, `return(kill)` ends the process as `kill -9` would, `return(error)` fails the step,
//! `return(exit)` has an actor stop, `sleep(250)` blocks the thread, and so delays the step or makes it hang.
//! `return(stall)` makes a step that awaits something await it for ever.

/// Every place, in the order in which an event passes them.
pub const ALL: &[&str] = &[
    "receiver.handle",
    "receiver.forward",
    "ledger.handle",
    "ledger.batch.before",
    "store.settle.begin",
    "store.settle.planned",
    "store.settle.written",
    "store.settle.committed",
    "ledger.reply",
    "logger.handle",
    "logger.batch.before",
    "store.record.begin",
    "store.record.written",
    "store.record.committed",
    "logger.reply",
    "webhook.answer",
    "scheduler.wake",
    "supervisor.look",
    "store.rates.written",
    "store.grant.written",
    "store.grant.committed",
    "store.refund.written",
    "store.task_refunds.committed",
    "store.task_refunds.written",
    "store.refund.committed",
    "polling.piece.read",
    "polling.piece.settled",
    "polling.covered",
    "store.retention.written",
    "store.repair.page",
    "store.migrate.tables",
    "store.marker.before",
    "store.marker.written",
    "store.backup.begun",
    "store.backup.copied",
    "store.restore.begun",
    "store.restore.copied",
    "store.restore.placed",
];

/// A step that a test made fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a test made this step fail: {place}")]
pub struct InjectedFault {
    pub place: &'static str,
    pub kind: Injected,
}

/// What a failing place asks of the actor that passes it. Whoever else does takes it for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    Error,
    Exit,
    Stall,
}

/// Passes the place called `name`.
#[cfg(feature = "failpoints")]
pub fn hit(name: &'static str) -> Result<(), InjectedFault> {
    debug_assert!(ALL.contains(&name), "{name} is missing in failpoint::ALL");
    fail::fail_point!(name, |action| match action.as_deref() {
        Some("kill") => std::process::abort(),
        Some("exit") => Err(InjectedFault { place: name, kind: Injected::Exit }),
        Some("stall") => Err(InjectedFault { place: name, kind: Injected::Stall }),
        _ => Err(InjectedFault { place: name, kind: Injected::Error }),
    });
    Ok(())
}

/// Passes the place called `name`: nothing happens in a release.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &'static str) -> Result<(), InjectedFault> {
    Ok(())
}

/// Passes the place called `name` in a step that can be made to await for ever.
pub async fn pass(name: &'static str) -> Result<(), InjectedFault> {
    match hit(name) {
        Err(InjectedFault { kind: Injected::Stall, .. }) => std::future::pending().await,
        passed => passed,
    }
}

/// Reads the places to fail at from the environment variable `FAILPOINTS`; keep the value while the process lives.
#[cfg(feature = "failpoints")]
pub fn set_up() -> impl Sized {
    fail::FailScenario::setup()
}

/// Nothing to set up in a release.
#[cfg(not(feature = "failpoints"))]
pub fn set_up() -> impl Sized {}
