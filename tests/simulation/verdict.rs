//! Whether the books are right after quiet: what was charged against the calls of the scenario's own record.
//!
//! Nothing is matched here: equal calls are counted. Where rows are lost as well, `losses` says how many charges there
//! must be; whether the books agree with themselves is `agreement`.

use std::collections::{BTreeMap, BTreeSet};

use super::books::{Books, Claim};
use super::log::model_name;
use super::ownership::user_name;
use super::prices::{FEMTOS, femtos};
use super::scenario::{TaskPart, Telling};
use super::sender::event_ms;
use super::world::{Made, Payer, Told, World};
use super::{agreement, losses, tasks};

/// What makes calls alike: token, model, both token counts; where those are 0, the price.
pub type Kind = (usize, usize, i64, i64, Option<i64>);

const ANY_MODEL: usize = usize::MAX;

/// Calls of one kind. The scenario gives each stretch of an owner and of a rate kinds of its own.
pub struct Group<'a> {
    pub kind: Kind,
    pub calls: Vec<&'a Made>,
    pub claims: Vec<&'a Claim>,
    pub payers: BTreeSet<Payer>,
    /// Sides that are disputed.
    pub disputed: usize,
}

/// Everything that is wrong, in words.
pub fn judge(world: &World, books: &Books) -> Vec<String> {
    let mut wrong = agreement::judge(world, books);
    let groups = groups(world, books);
    let known: usize = groups.iter().map(|group| group.claims.len()).sum();
    if known != books.claims.len() {
        wrong.push(format!("{} charges are of no call that was made", books.claims.len() - known));
    }
    for group in &groups {
        let found = judge_group(world, books, group);
        wrong.extend(found.into_iter().map(|text| format!("calls of kind {:?}: {text}", group.kind)));
    }
    wrong.extend(tasks::judge(world, books));
    wrong.extend(left_over(world, books));
    wrong.extend(coverage(world, books));
    wrong
}

pub fn is_call(made: &Made) -> bool {
    !matches!(made.call.task, Some(TaskPart::Refund { .. }))
}

fn groups<'a>(world: &'a World, books: &'a Books) -> Vec<Group<'a>> {
    let mut calls: BTreeMap<Kind, Vec<&Made>> = BTreeMap::new();
    for made in world.calls.iter().filter(|made| is_call(made)) {
        let call = &made.call;
        let units = (call.prompt == 0 && call.completion == 0).then_some(call.units);
        // Where nothing is counted one by one, what is alike goes together.
        let model = if world.rules.loses_rows { ANY_MODEL } else { call.model };
        calls.entry((call.token, model, call.prompt, call.completion, units)).or_default().push(made);
    }
    let group = |(kind, calls): (Kind, Vec<&'a Made>)| {
        let (token, model, prompt, completion, units) = kind;
        let is_model = |name: &str| model == ANY_MODEL || name == model_name(model);
        let is_of_kind = |claim: &&Claim| {
            (claim.token, claim.prompt, claim.completion) == (token as i64 + 1, prompt, completion)
                && is_model(&claim.model)
                && (units.is_none() || claim.units == units)
        };
        let payers = calls.iter().map(|made| world.payer(token, made.second)).collect();
        let disputed = books.rows.iter().chain(&books.inbox).filter(|left| left.state == "disputed");
        let ids: BTreeSet<String> = calls.iter().map(|made| super::sender::event_id(made.call.id)).collect();
        let is_ours = |left: &&super::books::Left| match &left.event_id {
            Some(event_id) => ids.contains(event_id),
            None => left.content.as_ref().is_some_and(|(name, prompts, completions)| {
                left.token == token as i64 + 1 && is_model(name) && (*prompts, *completions) == (prompt, completion)
            }),
        };
        let disputed = disputed.filter(is_ours).count();
        Group { kind, claims: books.claims.iter().filter(is_of_kind).collect(), calls, payers, disputed }
    };
    calls.into_iter().map(group).collect()
}

fn judge_group(world: &World, books: &Books, group: &Group) -> Vec<String> {
    let mut wrong = Vec::new();
    let payer = match group.payers.iter().collect::<Vec<_>>()[..] {
        [payer] => *payer,
        // Made around a change: whoever it is, it is one of them.
        _ => return wrong,
    };
    let users: BTreeSet<&str> = group.claims.iter().map(|claim| claim.user.as_str()).collect();
    match payer {
        Payer::Nobody if !users.is_empty() => wrong.push(format!("{users:?} is charged, and nobody should be")),
        Payer::Must(user) | Payer::Maybe(user) if users.iter().any(|found| *found != user_name(user)) => {
            wrong.push(format!("{users:?} is charged instead of {}", user_name(user)));
        }
        _ => {}
    }
    wrong.extend(group.claims.iter().filter_map(|claim| price(world, group, claim)));
    let is_sure = matches!(payer, Payer::Must(_));
    if !is_sure && group.claims.len() > group.calls.len() {
        wrong.push(format!("{} charges for {} calls", group.claims.len(), group.calls.len()));
    }
    if !is_sure || world.deceived.contains(&group.kind.0) {
        return wrong;
    }
    match world.rules.loses_rows {
        true => wrong.extend(losses::judge(world, books, group)),
        false => wrong.extend(count(world, group)),
    }
    wrong
}

/// Each call has its row: as many charges as calls, at their prices.
fn count(world: &World, group: &Group) -> Vec<String> {
    let mut wrong = Vec::new();
    let (calls, charges) = (group.calls.len(), group.claims.len());
    if calls != charges {
        wrong.push(format!("{charges} charges for {calls} calls"));
    }
    let accepted = group.calls.iter().filter(|made| made.told == Told::Accepted).count();
    let units = |wanted: Option<i64>| group.claims.iter().filter(|claim| claim.units == wanted).count();
    match world.rules.telling {
        Telling::Exact | Telling::RoundedWithIds => {
            for (wanted, count) in count_by(group.calls.iter().map(|made| made.call.units)) {
                if units(Some(wanted)) != count {
                    wrong.push(format!("{} charges of {wanted} units for {count} calls", units(Some(wanted))));
                }
            }
            if group.disputed > 0 {
                wrong.push(format!("{} sides are disputed, and each has its partner", group.disputed));
            }
        }
        Telling::Rounded | Telling::Early => {
            // An event whose owner a wrong clock has dated is left to a person before anybody looks for its row.
            let is_told = match world.may_be_dated_ahead(group.kind.0) {
                false => group.disputed == accepted,
                true => group.disputed <= accepted,
            };
            if !is_told {
                wrong.push(format!("{} sides are disputed of {accepted} calls told twice", group.disputed));
            }
        }
        Telling::Credits if units(None) != accepted => {
            wrong.push(format!("{} charges in credits for {accepted} events in credits", units(None)));
        }
        Telling::Credits => {}
    }
    wrong
}

pub fn count_by<T: Ord>(of: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    of.for_each(|item| *counts.entry(item).or_insert(0) += 1);
    counts
}

/// What a charge cost is what one of its calls said, at the rate of its second.
fn price(world: &World, group: &Group, claim: &Claim) -> Option<String> {
    let quota = world.rules.quota_per_unit;
    let is_price = |made: &&Made| {
        let seconds = [made.second, event_ms(&made.call, made.second).div_euclid(1000)];
        let reach = world.rates_reach_back_secs();
        let rates = seconds.into_iter().flat_map(|second| world.rates.within(second, second + reach));
        let rates: BTreeSet<i64> = rates.collect();
        let at = |units: i64| rates.iter().map(|rate| femtos(units, *rate, quota)).collect::<Vec<_>>();
        match claim.units {
            None => claim.femtos == i128::from(made.call.event_units) * FEMTOS,
            Some(units) => {
                [made.call.units, made.call.event_units].contains(&units) && at(units).contains(&claim.femtos)
            }
        }
    };
    let is_said = group.calls.iter().any(is_price);
    (!is_said).then(|| format!("a charge of {:?} units cost {} femtos, which no call says", claim.units, claim.femtos))
}

/// What may still wait: calls that the rules leave to a person.
fn left_over(world: &World, books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    for left in books.rows.iter().chain(&books.inbox) {
        let settled = ["charged", "tied", "disputed", "refunded", "refund_open"];
        if settled.contains(&left.state.as_str()) {
            continue;
        }
        let token = usize::try_from(left.token - 1).ok().filter(|token| *token < world.tokens.len());
        let second = match (&left.row, &left.event_id) {
            (Some((second, ..)), _) => Some(*second),
            (None, event_id) => {
                let of_event = |made: &&Made| Some(super::sender::event_id(made.call.id)) == *event_id;
                world.calls.iter().find(of_event).map(|made| made.second)
            }
        };
        if left.state == "beyond_grace" && token.is_some_and(|token| world.may_be_dated_ahead(token)) {
            continue;
        }
        let payer = token.zip(second).map(|(token, second)| world.payer(token, second));
        if !matches!(payer, Some(Payer::Maybe(_) | Payer::Nobody)) {
            wrong.push(format!("{left:?} waits, and should be settled"));
        }
    }
    wrong
}

/// From the first reading on, without a gap, up to what may be covered.
fn coverage(world: &World, books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut next = super::world::BEGINS;
    for (from, until, proof) in &books.spans {
        if *from != next || until < from || proof == "reopened" {
            wrong.push(format!("the span {from} to {until} ({proof}) does not follow {next}"));
        }
        next = until + 1;
    }
    let coverable = world.now - world.rules.lookback_secs;
    if next - 1 != coverable {
        wrong.push(format!("covered until {} instead of {coverable}", next - 1));
    }
    wrong
}
