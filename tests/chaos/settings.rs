//! What a run is told by its environment: how long, from which seed, and how much at a time.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Chaos,
    Soak,
    Ready,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub mode: Mode,
    /// `CHAOS_SECS`, or `MINUTES`. The round that is under way then is finished.
    pub duration: Duration,
    /// `SEED`, or `HOOKLEDGER_TEST_SEED`: of the choices. What they meet is up to the machine.
    pub seed: u64,
    /// `LIVES`: lives of the daemon between two looks at the books.
    pub lives: usize,
    /// `RATE`: calls a second of a soak; without it, half of what was measured at full speed.
    pub rate: Option<u64>,
    /// `CALLS`: in the books before the time to ready is measured; a multiple of 200.
    pub calls: i64,
    /// `CHAOS_KILLS` and `CHAOS_FAILURES`: a run may end earlier once it has met that many; 0 for neither.
    pub enough_kills: u64,
    pub enough_failures: u64,
}

/// A short run, as `make test` makes it.
const SHORT_SECS: u64 = 1;
const SHORT_LIVES: usize = 8;
const LIVES: usize = 25;

impl Settings {
    pub fn read() -> Self {
        let minutes: Option<u64> = variable("MINUTES");
        let secs = minutes.map(|minutes| minutes * 60).or_else(|| variable("CHAOS_SECS"));
        let mode = match variable::<String>("CHAOS_MODE").as_deref() {
            None | Some("chaos") => Mode::Chaos,
            Some("soak") => Mode::Soak,
            Some("ready") => Mode::Ready,
            Some(other) => panic!("CHAOS_MODE={other} is none of chaos, soak, ready"),
        };
        let lives = if secs.is_some() { LIVES } else { SHORT_LIVES };
        Settings {
            mode,
            duration: Duration::from_secs(secs.unwrap_or(SHORT_SECS)),
            seed: variable("SEED")
                .or_else(|| variable("HOOKLEDGER_TEST_SEED"))
                .unwrap_or_else(|| rand::random::<u64>() >> 16),
            lives: variable("LIVES").unwrap_or(lives).max(1),
            rate: variable("RATE"),
            calls: variable("CALLS").unwrap_or(1_000_000),
            enough_kills: variable("CHAOS_KILLS").unwrap_or(0),
            enough_failures: variable("CHAOS_FAILURES").unwrap_or(0),
        }
    }
}

/// Absent where it is not set, or empty, as `make` hands it over.
fn variable<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}
