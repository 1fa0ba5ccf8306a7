//! What money and calls are, without any I/O: ids, prices, events, and the decision what a batch books.
//!
//! Nothing here opens a file, a socket or a database, reads the system clock, or knows a framework.
//! What needs the outside gets it as a value (a snapshot, an instant) and returns a value (a plan).

pub mod accounts;
pub mod adoption;
mod alike_pairs;
pub mod channel;
pub mod decimal;
pub mod decision;
pub mod event;
pub mod ids;
pub mod known;
pub mod log_row;
pub mod log_snapshot;
pub mod matching;
pub mod money;
pub mod outcome;
pub mod ownership;
pub mod parse;
mod planner;
mod planner_decisions;
mod planner_open;
mod planner_ties;
pub mod planted;
pub mod pricing;
pub mod recording;
pub mod refund;
pub mod repair;
pub mod retention;
pub mod retry;
pub mod settlement;
pub mod side;
pub mod signature;
pub mod task_refunds;
mod task_shares;
pub mod time;
