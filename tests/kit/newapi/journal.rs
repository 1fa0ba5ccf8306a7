//! What was asked of the server so far, so that a test can say how few requests something took.

use std::collections::{BTreeMap, VecDeque};

use super::request::{Endpoint, Request};

/// Older ones are forgotten; the counts stay.
const MAX_KEPT: usize = 10_000;

/// One request, and what came of it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub request: Request,
    /// None while it is not answered, and for ever if the connection is closed without an answer.
    pub status: Option<u16>,
}

/// All requests, in the order in which they were read.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
    /// How many were dropped from the front of `entries`.
    dropped: u64,
    counts: BTreeMap<Endpoint, u64>,
}

impl Journal {
    /// Its number, for [`Journal::answered`].
    pub fn write(&mut self, request: &Request) -> u64 {
        *self.counts.entry(request.endpoint).or_default() += 1;
        if self.entries.len() == MAX_KEPT {
            self.entries.pop_front();
            self.dropped += 1;
        }
        self.entries.push_back(Entry { request: request.clone(), status: None });
        self.dropped + self.entries.len() as u64 - 1
    }

    pub fn answered(&mut self, number: u64, status: u16) {
        let index = number.checked_sub(self.dropped).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.status = Some(status);
        }
    }

    pub fn count(&self, endpoint: Endpoint) -> u64 {
        self.counts.get(&endpoint).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.entries.iter().cloned().collect()
    }

    /// Counts from zero again. A request that is being answered is not written any more.
    pub fn forget(&mut self) {
        self.dropped += self.entries.len() as u64;
        self.entries.clear();
        self.counts.clear();
    }
}
