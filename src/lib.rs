//! hookledger: signed usage webhooks come in, credits are deducted exactly once.
//!
//! The map for a newcomer, from the outside in (dependencies point downward only):
//!
//! - [`app`] puts everything together and takes it apart again; [`cli`] is the command line.
//! - [`http`] speaks to senders and operators; [`actors`] are the five that live for months.
//! - [`storage`] is the only place that knows a database, [`gateway`] the only one that asks new-api.
//! - [`polling`] brings the one's rows into the other: what is read, when, and what counts as proved.
//! - [`domain`] decides about money, and knows none of the above.
//!
//! Beside them: [`config`] (what an operator can set), [`telemetry`] (logs and metrics), [`status`] (the document that
//! a running daemon tells of itself), [`systemd`] (what is told to a service manager, and what it hands over), [`clock`] (the one place that reads the time) and [`failpoint`] (where tests break
//! things on purpose).

pub mod actors;
pub mod app;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod failpoint;
pub mod gateway;
pub mod http;
pub mod polling;
pub mod setup;
pub mod status;
pub mod storage;
pub mod systemd;
pub mod telemetry;
