//! How far a look must reach: equal calls that follow each other closely are a chain, along which ties may have to be
//! rearranged from one end to the other.
//!
//! No looks here: they are in `neighbours`, which asks whether what it has seen of a chain is enough.

use std::time::Duration;

use super::near_claim::NearClaim;
use crate::domain::matching::Facts;
use crate::domain::planted;
use crate::domain::side::{Channel, Side};
use crate::domain::time::UnixMillis;

/// A look is doubled so many times, until a chain is in sight as a whole: from a quarter of an hour to four hours.
pub const MOST_WIDENINGS: u32 = 4;

/// More claims than these are not gathered for the sake of chains.
pub const MOST_CHAINED: usize = 10_000;

/// Seconds of a bucket, `hookledger_claims.call_bucket`: so long that few of them hold what is near, and so short that
/// the one in which calls are made stays in the database's cache.
const BUCKET_SECS: i64 = 4096;

/// Claims of one bucket, token, and count of prompt and completion tokens.
pub type InBucket = (i64, i64, i32, i32);

/// One side as looks need it.
pub struct Wanted {
    pub facts: Facts,
    pub channel: Channel,
    /// It waits or is disputed, and so is a partner to be had.
    pub is_open: bool,
}

impl Wanted {
    pub fn of(side: &Side, facts: Facts, is_open: bool) -> Self {
        Wanted { facts, channel: side.channel(), is_open }
    }

    pub fn at(&self) -> UnixMillis {
        self.facts.at
    }

    /// Where claims within reach are looked up.
    pub fn in_buckets(&self, reach: Duration) -> impl Iterator<Item = InBucket> + use<> {
        let (token, prompt, completion) = self.counts();
        let (from, until) = (self.at().minus(reach).as_secs(), self.at().plus(reach).as_secs());
        (from / BUCKET_SECS..=until / BUCKET_SECS).map(move |bucket| (bucket, token, prompt, completion))
    }

    /// Token, prompt and completion tokens.
    pub fn counts(&self) -> (i64, i32, i32) {
        (self.facts.token.get(), self.facts.prompt_tokens, self.facts.completion_tokens)
    }

    /// Whether the sides of this claim may be tied to it, as far as their times allow.
    pub fn equals(&self, claim: &NearClaim) -> bool {
        claim.counts() == self.counts() && (claim.is_adopted || is_equal(&claim.facts(self.at()), &self.facts))
    }

    /// Whether both look for a partner among the same sides, itself included.
    pub fn is_rival(&self, other: &Wanted) -> bool {
        !planted::is_on("rivals_share_a_partner")
            && !other.is_open
            && other.channel == self.channel
            && other.counts() == self.counts()
            && is_equal(&other.facts, &self.facts)
    }

    /// Whether an open side is a partner, as far as their times allow.
    pub fn may_have(&self, other: &Wanted) -> bool {
        other.is_open
            && other.channel != self.channel
            && other.counts() == self.counts()
            && is_equal(&other.facts, &self.facts)
    }

    /// When the claim's side of the other channel lies, if that has no partner.
    pub fn free_side_of(&self, claim: &NearClaim) -> Option<UnixMillis> {
        match (&claim.event, &claim.row, self.channel) {
            (Some((_, at)), None, Channel::Log) | (None, Some((_, at)), Channel::Webhook) => Some(*at),
            _ => None,
        }
    }
}

fn is_equal(one: &Facts, other: &Facts) -> bool {
    one.model == other.model && (one.units == other.units || one.units.is_none() || other.units.is_none())
}

/// What was seen of the chain that a side is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// Somewhere along it is a partner to be had.
    Leads,
    /// It is in sight as a whole, and has none.
    Ends,
    /// It goes on beyond what was looked at.
    IsCutOff,
}

/// Follows the chain of `side` among the claims and the other sides of the batch, as far as was looked.
pub fn follow<'a>(
    side: &Wanted,
    claims: impl Iterator<Item = &'a NearClaim>,
    batch: &[Wanted],
    window: Duration,
    looked: Duration,
) -> Chain {
    let mut links: Vec<Link> = Vec::new();
    let mut any_free = side.channel == Channel::Log;
    for claim in claims.filter(|claim| side.equals(claim)) {
        let is_free = side.free_side_of(claim).is_some();
        any_free |= is_free;
        let times = [&claim.event, &claim.row].into_iter().flatten().map(|(_, at)| at.as_millis());
        links.extend(times.map(|at| Link { at, is_free, is_rival: false }));
    }
    let beside = batch.iter().filter(|other| other.counts() == side.counts() && is_equal(&other.facts, &side.facts));
    for other in beside {
        let is_free = side.may_have(other);
        any_free |= is_free;
        links.push(Link { at: other.at().as_millis(), is_free, is_rival: side.is_rival(other) });
    }
    // Rows without an event are known from further away than what lies between.
    if !any_free {
        return Chain::Ends;
    }
    links.sort_unstable();
    let (at, window) = (side.at().as_millis(), millis(window));
    let later = walk(at, links.iter().filter(|link| link.at >= at), window);
    let earlier = walk(at, links.iter().rev().filter(|link| link.at < at), window);
    // Each of those that are put in together needs a partner of its own.
    if later.free + earlier.free >= (later.rivals + earlier.rivals).max(1) {
        Chain::Leads
    } else if later.reached + window > at + millis(looked) || earlier.reached - window < at - millis(looked) {
        Chain::IsCutOff
    } else {
        Chain::Ends
    }
}

/// Something that lies on a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Link {
    at: i64,
    is_free: bool,
    /// It is put in by the same batch, and looks for a partner as well.
    is_rival: bool,
}

/// What lies on one way along a chain, until the first gap.
struct Walked {
    reached: i64,
    free: usize,
    rivals: usize,
}

fn walk<'a>(from: i64, links: impl Iterator<Item = &'a Link>, window: i64) -> Walked {
    let mut walked = Walked { reached: from, free: 0, rivals: 0 };
    for link in links {
        if (link.at - walked.reached).abs() > window {
            break;
        }
        walked.reached = link.at;
        walked.free += usize::from(link.is_free);
        walked.rivals += usize::from(link.is_rival);
    }
    walked
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
