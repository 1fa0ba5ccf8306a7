//! Which event and which row tell of the same call: a one-to-one matching of sides, as large as it can be.
//!
//! Pure, over the sides of a few tokens as the books hold them. New sides are put in one by one; a tie may rearrange
//! earlier ones, since among equal calls it matters how many are tied, and not which. What is alike without being the
//! same is told to the caller, who lets it wait. The rules: LEDGER, "The same call, seen twice".

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::event::{Content, Tokens, UsageEvent};
use super::ids::{RemoteKeyId, RequestId};
use super::money::{AmountTooLarge, CreditFemtos, FEMTOS_PER_CREDIT, QuotaUnits};
use super::planted;
use super::pricing::{Price, PriceBook};
use super::refund::ChargeKey;
use super::side::{Channel, ConsumptionRow, Side, SideIdentity};

pub use super::side::TieRule;
use super::time::UnixMillis;

/// How far an adopted record and a side may lie apart.
pub const ADOPTED_WITHIN: Duration = Duration::from_secs(300);

/// The operator's windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// `polling.match_window`
    pub match_window: Duration,
    /// `polling.dispute_window`
    pub dispute_window: Duration,
}

/// The operator's windows, and what the source has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatchPolicy {
    /// `polling.match_window`
    pub match_window: Duration,
    /// `polling.dispute_window`
    pub dispute_window: Duration,
    /// An event was tied by its request id within the last day: different request ids prove different calls.
    pub request_ids_prove: bool,
}

/// What matching compares of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub token: RemoteKeyId,
    pub model: Arc<str>,
    pub prompt_tokens: i32,
    pub completion_tokens: i32,
    /// Absent where the sender priced in credits.
    pub units: Option<QuotaUnits>,
    /// The price in credits, at the rate of its second.
    pub credits: CreditFemtos,
    pub at: UnixMillis,
}

impl Facts {
    fn counts(&self) -> (RemoteKeyId, i32, i32) {
        (self.token, self.prompt_tokens, self.completion_tokens)
    }
}

/// What matching compares of a side.
pub fn facts(side: &Side, prices: &PriceBook) -> Result<Facts, AmountTooLarge> {
    let content = side.content();
    let price = prices.price(content.price, content.called_at)?;
    Ok(Facts {
        token: content.remote_key_id,
        model: content.model.clone(),
        prompt_tokens: content.tokens.prompt,
        completion_tokens: content.tokens.completion,
        units: price.units,
        credits: price.credits,
        at: content.called_at,
    })
}

/// What became of a side as far as money goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is a side of this charged call.
    Charged(ChargeKey),
    /// It waits or is disputed; whole, so that it can be charged.
    Open(Side),
    /// Of the batch at hand, and not decided yet.
    New(Side),
    /// A person closed it: it is no call's side.
    Closed,
}

/// Place of a side among its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(usize);

/// One side among its neighbours.
#[derive(Debug, Clone)]
pub struct Node {
    pub identity: SideIdentity,
    pub facts: Facts,
    pub standing: Standing,
    /// Its charge is another program's: what it cost says nothing.
    pub is_adopted: bool,
    /// The asynchronous task of a row that is not stored yet.
    pub task_id: Option<Arc<str>>,
    partner: Option<(Place, TieRule)>,
}

impl Node {
    /// The side as far as the books tell of it. None where it was priced in credits: such sides are never left over.
    pub fn as_side(&self) -> Option<Side> {
        let (prompt, completion) = (self.facts.prompt_tokens, self.facts.completion_tokens);
        let content = Content {
            remote_key_id: self.facts.token,
            model: self.facts.model.clone(),
            tokens: Tokens { prompt, completion, total: prompt.checked_add(completion)? },
            price: Price::Quota(self.facts.units?),
            called_at: self.facts.at,
        };
        Some(match self.identity.clone() {
            SideIdentity::Event { event_id, request_id, log_id } => {
                let payload = Arc::from("");
                Side::Event(Arc::new(UsageEvent { event_id, content, request_id, log_id, payload }))
            }
            SideIdentity::Row { row: identity, request_id, log_id } => {
                Side::Row(Arc::new(ConsumptionRow { identity, content, request_id, log_id, task_id: None }))
            }
        })
    }
}

/// Two sides of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub event: Place,
    pub row: Place,
    pub rule: TieRule,
}

/// What tying a side came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tied {
    /// The pair that the side itself is in.
    pub own: Pair,
    /// Every pair that is new, the own one included.
    pub pairs: Vec<Pair>,
    /// A charged side that gave its partner up to the one that it names, and found no other.
    pub left_over: Option<Place>,
}

/// The sides of a few tokens, and their ties.
#[derive(Debug, Default)]
pub struct Neighbours {
    nodes: Vec<Node>,
    /// What agrees or is alike has the same token and the same token counts.
    by_counts: HashMap<(RemoteKeyId, i32, i32), Vec<Place>>,
    by_request: HashMap<(RemoteKeyId, RequestId), Vec<Place>>,
}

impl Neighbours {
    pub fn add(&mut self, identity: SideIdentity, facts: Facts, standing: Standing, is_adopted: bool) -> Place {
        let place = Place(self.nodes.len());
        self.by_counts.entry(facts.counts()).or_default().push(place);
        if let Some(request_id) = identity.request_id() {
            self.by_request.entry((facts.token, request_id.clone())).or_default().push(place);
        }
        let task_id = match &standing {
            Standing::New(Side::Row(row)) | Standing::Open(Side::Row(row)) => row.task_id.clone(),
            _ => None,
        };
        self.nodes.push(Node { identity, facts, standing, is_adopted, task_id, partner: None });
        place
    }

    /// Ties two sides as the books hold them.
    pub fn join(&mut self, one: Place, other: Place, rule: TieRule) {
        self.nodes[one.0].partner = Some((other, rule));
        self.nodes[other.0].partner = Some((one, rule));
    }

    pub fn node(&self, place: Place) -> &Node {
        &self.nodes[place.0]
    }

    pub fn partner(&self, place: Place) -> Option<Place> {
        self.nodes[place.0].partner.map(|(partner, _)| partner)
    }

    /// Takes a side out of the matching.
    pub fn close(&mut self, place: Place) {
        self.nodes[place.0].standing = Standing::Closed;
        self.by_counts.values_mut().chain(self.by_request.values_mut()).for_each(|places| {
            places.retain(|other| *other != place);
        });
    }

    pub fn set_standing(&mut self, place: Place, standing: Standing) {
        self.nodes[place.0].standing = standing;
    }

    /// Sides that wait or are disputed.
    pub fn open(&self) -> impl Iterator<Item = Place> + '_ {
        let is_open = |node: &Node| matches!(node.standing, Standing::Open(_)) && node.partner.is_none();
        self.nodes.iter().enumerate().filter(move |(_, node)| is_open(node)).map(|(number, _)| Place(number))
    }

    /// A charged side without a partner that may be the same call, although it differs: the nearest in price, then in
    /// time.
    pub fn alike(&self, place: Place, policy: &MatchPolicy) -> Option<Place> {
        self.all_alike(place, policy).min_by_key(|other| self.distance(place, *other))
    }

    /// Every charged side without a partner that may be the same call.
    pub fn all_alike<'a>(&'a self, place: Place, policy: &'a MatchPolicy) -> impl Iterator<Item = Place> + 'a {
        let side = self.node(place);
        self.others(place).filter(move |other| {
            let node = self.node(*other);
            node.partner.is_none() && matches!(node.standing, Standing::Charged(_)) && is_alike(side, node, policy)
        })
    }

    /// How far two sides are apart: in price, in 1e-15 credit, then in milliseconds.
    pub fn distance(&self, one: Place, other: Place) -> (i128, i64) {
        distance(self.node(one), self.node(other))
    }

    fn rule_of(&self, one: Place, other: Place) -> TieRule {
        let (one, other) = (self.node(one), self.node(other));
        if one.is_adopted || other.is_adopted {
            TieRule::Adoption
        } else if one.facts.units.is_none() || other.facts.units.is_none() {
            TieRule::Nearest
        } else {
            TieRule::Agreement
        }
    }

    /// Two sides, each in its place.
    pub fn pair(&self, one: Place, other: Place, rule: TieRule) -> Pair {
        match self.nodes[one.0].identity.channel() {
            Channel::Webhook => Pair { event: one, row: other, rule },
            Channel::Log => Pair { event: other, row: one, rule },
        }
    }

    /// Sides of the other channel with the same token and token counts.
    fn others(&self, place: Place) -> impl Iterator<Item = Place> + '_ {
        let node = &self.nodes[place.0];
        let places = self.by_counts.get(&node.facts.counts()).map(Vec::as_slice).unwrap_or_default();
        self.of_other_channel(node.identity.channel(), places)
    }

    fn of_other_channel<'a>(&'a self, channel: Channel, places: &'a [Place]) -> impl Iterator<Item = Place> + 'a {
        places.iter().copied().filter(move |other| self.nodes[other.0].identity.channel() != channel)
    }
}

/// How far two sides are apart: in price, where they differ there, then in time.
fn distance(one: &Node, other: &Node) -> (i128, i64) {
    let price = (one.facts.credits.get() - other.facts.credits.get()).abs();
    (price, (one.facts.at.as_millis() - other.facts.at.as_millis()).abs())
}

fn within(one: &Facts, other: &Facts, window: Duration) -> bool {
    let apart = one.at.as_millis().abs_diff(other.at.as_millis());
    u128::from(apart) + u128::from(planted::is_on("window_off_by_one")) <= window.as_millis()
}

fn same_tokens(one: &Facts, other: &Facts) -> bool {
    one.counts() == other.counts()
}

/// Rule 1: the same request id; where one of them has none, the same id of the row.
fn is_exact(one: &Node, other: &Node, policy: &MatchPolicy) -> bool {
    match (one.identity.request_id(), other.identity.request_id()) {
        (Some(one), Some(other)) => one == other,
        _ => {
            one.identity.log_id().is_some()
                && one.identity.log_id() == other.identity.log_id()
                && same_tokens(&one.facts, &other.facts)
                && within(&one.facts, &other.facts, policy.match_window)
        }
    }
}

/// Different request ids prove different calls, as long as this source is known to put the calls' own ids there.
/// Different ids of rows prove nothing.
fn is_proved_different(one: &Node, other: &Node, policy: &MatchPolicy) -> bool {
    let (one, other) = (one.identity.request_id(), other.identity.request_id());
    (policy.request_ids_prove || planted::is_on("any_request_id_proves"))
        && one.is_some()
        && other.is_some()
        && one != other
}

/// Rule 2, but for the proof that they are different.
fn agrees(one: &Node, other: &Node, policy: &MatchPolicy) -> bool {
    let (left, right) = (&one.facts, &other.facts);
    if left.model != right.model || !same_tokens(left, right) {
        return false;
    }
    if one.is_adopted || other.is_adopted {
        return within(left, right, ADOPTED_WITHIN);
    }
    within(left, right, policy.match_window) && prices_agree(left, right)
}

fn prices_agree(one: &Facts, other: &Facts) -> bool {
    match (one.units, other.units) {
        (Some(one), Some(other)) => one == other,
        // A price in credits is the sender's: only calls that tell nothing else must agree in it.
        _ if one.prompt_tokens != 0 || one.completion_tokens != 0 => true,
        _ => (one.credits.get() - other.credits.get()).abs() <= FEMTOS_PER_CREDIT,
    }
}

/// Whether two sides of one token may be one call told differently.
fn is_alike(one: &Node, other: &Node, policy: &MatchPolicy) -> bool {
    let (left, right) = (&one.facts, &other.facts);
    let says_nothing = left.prompt_tokens == 0 && left.completion_tokens == 0;
    same_tokens(left, right)
        && (!says_nothing || left.model == right.model || left.units == right.units)
        && within(left, right, policy.dispute_window)
        && !is_proved_different(one, other, policy)
}

#[path = "rearranging.rs"]
mod rearranging;

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
