//! What is true, whatever the daemon makes of it: the calls that were made, whose they are, and what they cost.

use std::collections::BTreeSet;

use super::clock::SimClock;
use super::log::Log;
use super::prices::Rates;
use super::scenario::{Call, Rules};

/// When every scenario begins: a whole minute.
pub const BEGINS: i64 = 1_795_500_000;

/// What the sender knows of an event that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Never,
    /// It was sent, and no answer came.
    Unknown,
    Accepted,
}

/// A call that was made.
#[derive(Debug, Clone)]
pub struct Made {
    pub call: Call,
    /// Of its row.
    pub second: i64,
    pub told: Told,
    /// As it was sent first.
    pub body: Option<String>,
}

/// Who has a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Nobody,
    One(usize),
    Two(usize, usize),
}

/// A stretch of time in which nothing changed about a token.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub from: i64,
    pub whose: Whose,
    /// It began because the key itself changed hands.
    pub by_hand_over: bool,
}

#[derive(Debug, Clone)]
pub struct Token {
    pub stretches: Vec<Stretch>,
    /// Ids of the keys that have it, in the order of `Whose`.
    pub keys: Vec<String>,
    /// A committed look has seen who owns it.
    pub is_sighted: bool,
    /// A committed look has seen that nobody does.
    pub was_seen_unknown: bool,
}

/// Who is to be charged for a call in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    Must(usize),
    /// Or nobody: whether it was settled in time decides.
    Maybe(usize),
    Nobody,
}

pub struct World {
    pub rules: Rules,
    pub now: i64,
    pub skew: i64,
    steps: i64,
    /// Our clock was behind at some time: dates of owners lay ahead of it.
    was_behind: bool,
    /// Tokens with a call of which only one side lies in a span that agreed: figures cannot tell it from another.
    pub deceived: BTreeSet<usize>,
    /// The latest time that our clock showed while it was ahead.
    ahead_until: i64,
    pub clock: SimClock,
    pub log: Log,
    pub calls: Vec<Made>,
    pub tokens: Vec<Token>,
    pub rates: Rates,
}

impl World {
    pub fn new(rules: &Rules) -> Self {
        let clock = SimClock::default();
        clock.show_millis(BEGINS * 1000);
        let token = |owner: &Option<usize>| Token {
            stretches: vec![Stretch { from: 0, whose: owner.map_or(Whose::Nobody, Whose::One), by_hand_over: false }],
            keys: Vec::new(),
            is_sighted: false,
            was_seen_unknown: false,
        };
        World {
            now: BEGINS,
            skew: 0,
            steps: 0,
            was_behind: false,
            ahead_until: 0,
            deceived: BTreeSet::new(),
            log: Log::new(rules, BEGINS),
            calls: Vec::new(),
            tokens: rules.tokens.iter().map(token).collect(),
            rates: Rates::from_the_beginning(rules.rate_micros),
            rules: rules.clone(),
            clock,
        }
    }

    pub fn wait(&mut self, seconds: i64) {
        self.now += seconds.max(0);
        self.tick();
    }

    pub fn set_skew(&mut self, skew: i64) {
        self.skew = skew;
        self.was_behind |= skew < 0;
        self.tick();
    }

    /// No two steps begin in the same millisecond.
    pub fn tick(&mut self) {
        self.steps = (self.steps + 1) % 1000;
        if self.skew > 0 {
            self.ahead_until = self.ahead_until.max(self.now + self.skew);
        }
        self.clock.show_millis((self.now + self.skew) * 1000 + self.steps);
        self.log.at(self.now);
    }

    pub fn make(&mut self, call: &Call) {
        self.log.write(call, self.now);
        self.calls.push(Made { call: call.clone(), second: self.now, told: Told::Never, body: None });
    }

    pub fn find(&mut self, id: usize) -> Option<&mut Made> {
        self.calls.iter_mut().find(|made| made.call.id == id)
    }

    pub fn whose(&self, token: usize) -> Whose {
        self.tokens[token].stretches.last().map_or(Whose::Nobody, |stretch| stretch.whose)
    }

    /// While our clock shows a time before a change of owner, events of this token are left to a person. Their rows are
    /// charged.
    pub fn may_be_dated_ahead(&self, token: usize) -> bool {
        self.was_behind && self.tokens[token].stretches.len() > 1
    }

    /// A change of the rate that a look saw while our clock was behind counts from so much earlier.
    pub fn rates_reach_back_secs(&self) -> i64 {
        // The furthest that the generator sets it back, and the rest of a minute.
        if self.was_behind { 3_660 } else { 0 }
    }

    /// A look that found no key was dated ahead, and the grace counts from the last one: what a later key's calls came to
    /// is left to a person.
    fn may_be_beyond_grace(&self, token: &Token, place: usize, second: i64) -> bool {
        let had_nobody = token.stretches[..place].iter().any(|stretch| matches!(stretch.whose, Whose::Nobody));
        had_nobody && second <= self.ahead_until - self.rules.key_grace_secs + 5
    }

    /// What the rules say of a call of this token at this second.
    pub fn payer(&self, token: usize, second: i64) -> Payer {
        let (at_token, token) = (token, &self.tokens[token]);
        let place = token.stretches.iter().rposition(|stretch| stretch.from <= second).unwrap_or(0);
        let (at, later) = (token.stretches[place], &token.stretches[place + 1..]);
        let ends_shared = matches!(token.stretches.last(), Some(Stretch { whose: Whose::Two(..), .. }));
        let (user, later, is_sure) = match at.whose {
            Whose::One(user) => (user, later, !self.may_be_beyond_grace(token, place, second)),
            Whose::Two(..) => match later.first() {
                Some(Stretch { whose: Whose::One(user), .. }) => (*user, &later[1..], true),
                _ => return Payer::Nobody,
            },
            Whose::Nobody => match later.first() {
                Some(Stretch { whose: Whose::One(user), from, .. }) => {
                    let age = from - second;
                    // Looks may have seen nobody a little later than the key was made.
                    if age > self.rules.key_grace_secs + 5 && token.was_seen_unknown && !self.rules.jumps_ahead {
                        return Payer::Nobody;
                    }
                    (*user, &later[1..], age < self.rules.key_grace_secs - 5 && !self.rules.jumps_ahead)
                }
                _ => return Payer::Nobody,
            },
        };
        let is_sure = is_sure && !(self.rules.loses_rows && self.may_be_dated_ahead(at_token));
        match is_sure && !ends_shared && !later.iter().any(|stretch| stretch.by_hand_over) {
            true => Payer::Must(user),
            false => Payer::Maybe(user),
        }
    }
}
