//! What a run has done and met, counted by name, for the table at its end.

use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Tally {
    counts: BTreeMap<String, u64>,
    /// Places where the process was killed.
    places: BTreeMap<String, u64>,
    /// From a kill to the first 200 of `/readyz`.
    ready: Vec<Duration>,
    pub rounds: u64,
    pub lives: u64,
    pub calls: u64,
    pub events: u64,
    pub statuses: BTreeMap<u16, u64>,
    pub forged: BTreeMap<u16, u64>,
}

/// Every kind of end of a process that is a kill.
pub const KILLS: [&str; 3] = [KILL_RANDOM, KILL_START, KILL_POINT];
pub const KILL_RANDOM: &str = "kill -9 at a random moment";
pub const KILL_START: &str = "kill -9 while it starts";
pub const KILL_POINT: &str = "killed at a fail point";
pub const TERMINATED: &str = "SIGTERM and a drain";
pub const GAVE_UP: &str = "exit 70 by its own decision";
pub const OTHER_EXIT: &str = "ended by itself with another code";
/// What the counts of actors that ended begin with.
pub const ACTOR: &str = "actor ";

impl Tally {
    pub fn count(&mut self, name: &str) {
        self.add(name, 1);
    }

    pub fn add(&mut self, name: &str, count: u64) {
        if count > 0 {
            *self.counts.entry(name.to_owned()).or_default() += count;
        }
    }

    pub fn killed_at(&mut self, place: &str) {
        self.count(KILL_POINT);
        *self.places.entry(place.to_owned()).or_default() += 1;
    }

    pub fn ready_after(&mut self, duration: Duration) {
        self.ready.push(duration);
    }

    pub fn of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    pub fn kills(&self) -> u64 {
        KILLS.iter().map(|name| self.of(name)).sum()
    }

    pub fn actor_failures(&self) -> u64 {
        self.counts.iter().filter(|(name, _)| name.starts_with(ACTOR)).map(|(_, count)| count).sum()
    }

    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    pub fn places(&self) -> &BTreeMap<String, u64> {
        &self.places
    }

    /// Median, 99th percentile, largest, and how many there are.
    pub fn ready_times(&self) -> Option<(Duration, Duration, Duration, usize)> {
        let mut sorted = self.ready.clone();
        sorted.sort();
        let last = sorted.len().checked_sub(1)?;
        Some((sorted[last / 2], sorted[last * 99 / 100], sorted[last], sorted.len()))
    }
}
