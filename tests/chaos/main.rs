//! Chaos: a loaded daemon, everything that can go wrong, at random and again and again; and the books are right.
//!
//! A program of its own beside the suites (`harness = false`), since a run has a length and ends with a table.
//! docs/RELIABILITY.md tells what is done and how it is judged; `scripts/chaos.sh` runs it, `make test` a short one.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which the lint does not recognise as tests

#[allow(unused_imports, unused_macros)] // the kit's checks of itself are tests, and run in the behaviour suite
#[macro_use]
#[path = "../kit/mod.rs"]
mod kit;

mod actors;
mod calls;
mod chaos;
mod faults;
mod judge;
mod life;
mod load;
mod operator;
mod plan;
mod proof;
mod ready;
mod rig;
mod settings;
mod soak;
mod table;
mod tally;

use settings::{Mode, Settings};

fn main() {
    // What follows are the arguments of a test harness: a name filters.
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if !filters.is_empty() && !filters.iter().any(|filter| filter.contains("chaos")) {
        println!("chaos: not among {filters:?}");
        return;
    }
    let settings = Settings::read();
    match settings.mode {
        Mode::Chaos => chaos::run(&settings),
        Mode::Soak => soak::run(&settings),
        Mode::Ready => ready::run(&settings),
    }
}
