//! The black-box test kit: drives the real binary from outside and judges its database by its own rules.
//!
//! Nothing here is imported from `src/`: an oracle that shares code with what it judges repeats its mistakes. The
//! kit is blocking and uses threads, so that a test needs no runtime. Only [`wait`] sleeps or reads the steady
//! clock, and only [`clock`] reads the calendar.
//!
//! - talking: [`wire`] (raw HTTP), [`sign`], [`events`] (bodies), [`sender`] (many at once, with retries);
//! - running: [`daemon`], what it keeps ([`daemon_files`]) and what a test asks of it ([`daemon_client`],
//!   [`exposition`], [`terminal`]), [`process`], [`folder`], [`ports`], a [`service_manager`];
//! - the gateway: [`newapi`] (a scriptable new-api);
//! - databases: [`database`] (which one the suite runs on, a fresh one a daemon), [`mariadb`] (its servers),
//!   [`platform`] (the other program that writes there);
//! - judging: [`books`] (looks at the database), [`agreement`] (what must hold in it), [`schema`] (JSON answers),
//!   [`promql`] (queries);
//! - breaking: [`proxy`] (the network), [`strace`] (the disk), [`clock`] (time), [`random`] (seeded choices).

#![allow(dead_code)] // a kit offers more than the tests of one day use
#![allow(clippy::unwrap_used, clippy::expect_used)] // a kit that finds its own footing gone ends the test

#[macro_use]
pub mod database;

pub mod agreement;
pub mod books;
pub mod clock;
pub mod daemon;
pub mod daemon_client;
pub mod daemon_files;
pub mod dump;
pub mod events;
pub mod exposition;
pub mod folder;
pub mod mariadb;
pub mod mounts;
pub mod newapi;
pub mod platform;
pub mod ports;
pub mod process;
pub mod promql;
pub mod proxy;
pub mod random;
pub mod schema;
pub mod sender;
pub mod service_manager;
pub mod sign;
pub mod strace;
pub mod terminal;
pub mod wait;
pub mod wire;

mod agreement_check;
mod books_file;
mod books_server;
mod database_check;
mod self_check;
