//! How a side finds its partner: by an exact identity, or by agreement, for which earlier ties may be rearranged.

use std::collections::{HashMap, VecDeque};

use super::{
    MatchPolicy, Neighbours, Node, Pair, Place, Standing, TieRule, Tied, agrees, distance, is_exact,
    is_proved_different, planted,
};

impl Neighbours {
    /// Finds a partner for a side that has none. Ties that rest on agreement may be rearranged for it.
    pub fn tie(&mut self, place: Place, policy: &MatchPolicy) -> Option<Tied> {
        if let Some(other) = self.exact_partner(place, policy) {
            return Some(self.tie_exactly(place, other, policy));
        }
        let path = self.augmenting_path(place, policy)?;
        let mut pairs = Vec::with_capacity(path.len());
        for (one, other) in path {
            let rule = self.rule_of(one, other);
            self.join(one, other, rule);
            pairs.push(self.pair(one, other, rule));
        }
        let own = pairs.iter().find(|pair| pair.event == place || pair.row == place).copied()?;
        Some(Tied { own, pairs, left_over: None })
    }

    /// Ties a side that has no partner to the nearest free charge that is its call: nothing else changes.
    pub fn tie_to_charge(&mut self, place: Place, policy: &MatchPolicy) -> Option<Pair> {
        let is_free = |other: &Place| {
            let node = self.node(*other);
            node.partner.is_none() && matches!(node.standing, Standing::Charged(_))
        };
        let exact = self.exact_partner(place, policy).filter(is_free);
        let agreeing = self.others(place).filter(|other| is_free(other) && self.may_tie(place, *other, policy));
        let nearest = agreeing.min_by_key(|other| distance(self.node(place), self.node(*other)));
        let (other, rule) = match (exact, nearest) {
            (Some(other), _) => (other, TieRule::Identity),
            (None, Some(other)) => (other, self.rule_of(place, other)),
            (None, None) => return None,
        };
        self.join(place, other, rule);
        Some(self.pair(place, other, rule))
    }

    /// What was tied to the partner by mere agreement gives way, and looks for another: its own, if that is there. Each
    /// such step leaves one more tie by identity, which stays.
    fn tie_exactly(&mut self, place: Place, other: Place, policy: &MatchPolicy) -> Tied {
        let left = self.partner(other);
        if let Some(left) = left {
            self.nodes[left.0].partner = None;
        }
        self.join(place, other, TieRule::Identity);
        let own = self.pair(place, other, TieRule::Identity);
        let mut tied = Tied { own, pairs: vec![own], left_over: left };
        let Some(further) = left.and_then(|left| self.tie(left, policy)) else { return tied };
        tied.pairs.extend(further.pairs);
        tied.left_over = further.left_over;
        tied
    }

    /// A side with the same exact identity that is free, or tied by mere agreement; of several, one that also agrees,
    /// then a free one, then the nearest.
    fn exact_partner(&self, place: Place, policy: &MatchPolicy) -> Option<Place> {
        let side = self.node(place);
        let request = side.identity.request_id().map(|request| (side.facts.token, request.clone()));
        let same_request = request.and_then(|request| self.by_request.get(&request)).map(Vec::as_slice);
        let same_request = self.of_other_channel(side.identity.channel(), same_request.unwrap_or_default());
        let same_log_id = self.others(place).filter(|_| side.identity.log_id().is_some());
        let candidates = same_request.chain(same_log_id).filter(|other| {
            let node = self.node(*other);
            let is_to_be_had = match node.partner {
                None => true,
                // Ids of rows change with their table: they take nothing from anybody.
                Some((_, TieRule::Agreement)) => share_request_id(side, node),
                Some(_) => false,
            };
            is_to_be_had && is_exact(side, node, policy)
        });
        candidates.min_by_key(|other| {
            let node = self.node(*other);
            (!agrees(side, node, policy), node.partner.is_some(), distance(side, node))
        })
    }

    /// The shortest way from a free side to another, over ties that are to be undone: the pairs that replace them.
    fn augmenting_path(&self, start: Place, policy: &MatchPolicy) -> Option<Vec<(Place, Place)>> {
        let mut came_from: HashMap<Place, Place> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(side) = queue.pop_front() {
            let mut reachable: Vec<Place> = self
                .others(side)
                .filter(|other| !came_from.contains_key(other) && self.may_tie(side, *other, policy))
                .collect();
            reachable.sort_by_key(|other| {
                let node = self.node(*other);
                (
                    node.partner.is_some(),
                    !matches!(node.standing, Standing::Charged(_)),
                    distance(self.node(side), node),
                )
            });
            for other in reachable {
                came_from.insert(other, side);
                match self.nodes[other.0].partner {
                    None => return Some(self.way_back(start, other, &came_from)),
                    Some(_) if planted::is_on("no_rearranging") => {}
                    // What rests on an identity or on a person's word stays.
                    Some((partner, TieRule::Agreement)) => queue.push_back(partner),
                    Some(_) => {}
                }
            }
        }
        None
    }

    fn way_back(&self, start: Place, end: Place, came_from: &HashMap<Place, Place>) -> Vec<(Place, Place)> {
        let mut pairs = Vec::new();
        let mut other = end;
        while let Some(side) = came_from.get(&other).copied() {
            pairs.push((side, other));
            if side == start {
                break;
            }
            let Some(previous) = self.partner(side) else { break };
            other = previous;
        }
        pairs
    }

    fn may_tie(&self, side: Place, other: Place, policy: &MatchPolicy) -> bool {
        let (side, other) = (self.node(side), self.node(other));
        agrees(side, other, policy) && !is_proved_different(side, other, policy)
    }
}

fn share_request_id(one: &Node, other: &Node) -> bool {
    one.identity.request_id().is_some() && one.identity.request_id() == other.identity.request_id()
}
