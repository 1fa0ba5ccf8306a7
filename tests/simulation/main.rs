//! The simulation: one seed is one scenario, carried out through the production steps on a real database, and judged by
//! a small model that shares no code with what it judges.
//!
//! No actors, no HTTP, no waiting: one thread, a clock of our own, fail points. docs/TESTING.md tells how to run it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which the lint does not recognise as tests

mod agreement;
mod books;
mod clock;
mod database;
mod driver;
mod found;
mod generate;
mod log;
mod losses;
mod matching;
mod ownership;
mod planted;
mod prices;
mod quiet;
mod random;
mod reading;
mod rules;
mod run;
mod scenario;
mod seeds;
mod sender;
mod server;
mod tasks;
mod verdict;
mod world;
