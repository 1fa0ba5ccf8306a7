//! The run's own record of what was called: what the books must say in the end, by a count that shares nothing with them.
//!
//! Each call has its own number of prompt tokens (a pair of equal calls share one), by which its charge is found
//! whatever channel told of it. A call is certain once its row is in the log, or its event was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Quota units of one credit, as the daemon of a run is told: 1,000 credits and 500,000 units a dollar.
pub const UNITS_PER_CREDIT: i64 = 500;

/// Calls that are equal in all that a channel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    pub user: usize,
    pub units: i64,
    /// How many of them must be charged; 0 for a forged one.
    pub times: i64,
}

#[derive(Debug, Default)]
pub struct Calls {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By number, from 1 on.
    expected: Vec<Expected>,
    /// Events that got a 2xx, after the number of their call.
    acknowledged: BTreeSet<(i64, String)>,
    /// Events that were sent at least once.
    sent: u64,
}

impl Calls {
    /// Notes calls, or none of them for a forgery; their number.
    pub fn add(&self, user: usize, units: i64, times: i64) -> i64 {
        let mut state = self.lock();
        state.expected.push(Expected { user, units, times });
        i64::try_from(state.expected.len()).expect("so many calls are not made")
    }

    pub fn sent(&self) {
        self.lock().sent += 1;
    }

    pub fn acknowledge(&self, event_id: &str, number: i64) {
        self.lock().acknowledged.insert((number, event_id.to_owned()));
    }

    /// What must be charged of each of these numbers.
    pub fn expected(&self, numbers: Range<i64>) -> BTreeMap<i64, Expected> {
        let state = self.lock();
        let known = numbers.start.max(1)..numbers.end.min(state.expected.len() as i64 + 1);
        let numbered = known.map(|number| (number, state.expected[number as usize - 1]));
        numbered.filter(|(_, call)| call.times > 0).collect()
    }

    /// The acknowledged events of the calls with these numbers.
    pub fn acknowledged(&self, numbers: Range<i64>) -> BTreeSet<(i64, String)> {
        let (from, to) = ((numbers.start, String::new()), (numbers.end, String::new()));
        self.lock().acknowledged.range(from..to).cloned().collect()
    }

    /// The number that the next call will have.
    pub fn next_number(&self) -> i64 {
        self.lock().expected.len() as i64 + 1
    }

    /// How many calls must be charged.
    pub fn count(&self) -> i64 {
        self.lock().expected.iter().map(|call| call.times).sum()
    }

    pub fn count_sent(&self) -> u64 {
        self.lock().sent
    }

    /// Quota units that each user's calls cost.
    pub fn units(&self, users: usize) -> Vec<i64> {
        let mut units = vec![0; users];
        for call in &self.lock().expected {
            units[call.user] += call.units * call.times;
        }
        units
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
