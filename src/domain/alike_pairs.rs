//! Which waiting side belongs to which alike charge: one to one, as many as possible. What that means for them is decided
//! in `planner_open`.

use std::collections::{HashMap, HashSet, VecDeque};

use super::matching::{MatchPolicy, Neighbours, Place};
use super::time::UnixMillis;

/// Pairs covered waiting sides with covered charges that are alike: as many as possible, the nearest first.
pub(super) fn pair_alike(
    neighbours: &Neighbours,
    open: &[Place],
    covered_until: UnixMillis,
    policy: &MatchPolicy,
) -> HashMap<Place, Place> {
    let is_covered = |place: &Place| neighbours.node(*place).facts.at <= covered_until;
    let waiting: Vec<Place> = open.iter().copied().filter(is_covered).collect();
    let mut edges: Vec<(i128, i64, Place, Place)> = Vec::new();
    for place in &waiting {
        let alike = neighbours.all_alike(*place, policy).filter(is_covered);
        edges.extend(alike.map(|other| {
            let (price, time) = neighbours.distance(*place, other);
            (price, time, *place, other)
        }));
    }
    edges.sort();
    let mut partner_of: HashMap<Place, Place> = HashMap::new();
    let mut taken_by: HashMap<Place, Place> = HashMap::new();
    let mut reach: HashMap<Place, Vec<Place>> = HashMap::new();
    for (_, _, place, other) in edges {
        reach.entry(place).or_default().push(other);
        if !partner_of.contains_key(&place) && !taken_by.contains_key(&other) {
            partner_of.insert(place, other);
            taken_by.insert(other, place);
        }
    }
    for place in waiting {
        if !partner_of.contains_key(&place) {
            make_room(place, &reach, &mut partner_of, &mut taken_by);
        }
    }
    partner_of
}

/// Moves earlier pairs aside, if that finds one for `start` as well.
fn make_room(
    start: Place,
    reach: &HashMap<Place, Vec<Place>>,
    partner_of: &mut HashMap<Place, Place>,
    taken_by: &mut HashMap<Place, Place>,
) {
    let mut came_from: HashMap<Place, Place> = HashMap::new();
    let mut seen = HashSet::from([start]);
    let mut queue = VecDeque::from([start]);
    while let Some(place) = queue.pop_front() {
        for other in reach.get(&place).into_iter().flatten() {
            if came_from.contains_key(other) {
                continue;
            }
            came_from.insert(*other, place);
            let Some(holder) = taken_by.get(other).copied() else {
                let mut free = *other;
                while let Some(place) = came_from.get(&free).copied() {
                    let given_up = partner_of.insert(place, free);
                    taken_by.insert(free, place);
                    match given_up {
                        Some(given_up) if place != start => free = given_up,
                        _ => return,
                    }
                }
                return;
            };
            if seen.insert(holder) {
                queue.push_back(holder);
            }
        }
    }
}
