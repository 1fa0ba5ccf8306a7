//! The behaviour suite: one binary that drives the real daemon through HTTP, the command line and the database.
//!
//! One file a concern. What breaks things and looks at the books lies in `tests/kit`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which the lint does not recognise as tests

#[macro_use]
#[path = "../kit/mod.rs"]
mod kit;

mod balance;
mod charges;
mod commands;
mod crashes;
mod faults;
mod intake;
mod limits;
mod money;
mod operation;
mod reload;
mod replay;
mod retention;
mod style;
mod tokens;
mod waiting;
