//! The seeds that are run: some thousand with all tests, as many as wanted by hand.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::run::{report, run_seed};

/// With all tests.
const FIRST: u64 = 1;
const COUNT: u64 = 2000;
/// On a server, whose commits are durable.
const COUNT_ON_A_SERVER: u64 = 50;

pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.trim().parse().ok())
}

/// What panics on purpose says nothing.
fn quiet_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>().map(String::as_str);
        let is_meant = text.is_some_and(|text| text.starts_with("failpoint "));
        if !is_meant {
            usual(info);
        }
    }));
}

/// Runs on this thread, and alone in this process: fail points and planted bugs belong to all of it.
pub fn alone<T>(work: impl Future<Output = T>) -> T {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    static QUIET: std::sync::Once = std::sync::Once::new();
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    QUIET.call_once(quiet_panics);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn run_seeds(first: u64, count: u64, most_failures: usize) {
    let started = Instant::now();
    let mut failed = Vec::new();
    alone(async {
        for seed in first..first + count {
            let outcome = run_seed(seed).await;
            if !outcome.wrong.is_empty() {
                eprintln!("seed {seed}: {}", outcome.wrong.join("; "));
                failed.push(seed);
                if failed.len() >= most_failures {
                    break;
                }
            }
        }
        let secs = started.elapsed().as_secs_f64();
        eprintln!("seeds {first} to {}: {:.0} a second", first + count - 1, count as f64 / secs);
        if let Some(seed) = failed.first() {
            eprintln!("{}", report(*seed).await);
            panic!("seed {seed} fails");
        }
    });
}

#[test]
fn seeds_hold() {
    let count = if super::database::is_on_a_server() { COUNT_ON_A_SERVER } else { COUNT };
    run_seeds(FIRST, count, 1);
}

#[test]
fn the_same_seed_gives_the_same_trace_twice() {
    alone(async {
        for seed in FIRST..FIRST + 40 {
            let (one, other) = (run_seed(seed).await, run_seed(seed).await);
            assert_eq!(one.trace, other.trace, "seed {seed}");
        }
    });
}

#[test]
#[ignore = "as many as wanted: make simulate"]
fn simulate() {
    let (first, count) = (setting("SIMULATE_SEED").unwrap_or(FIRST), setting("SIMULATE_COUNT").unwrap_or(1000));
    run_seeds(first, count, setting("SIMULATE_FAILURES").unwrap_or(1) as usize);
}
