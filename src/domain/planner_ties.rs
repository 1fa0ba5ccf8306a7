//! What finding a partner does: which charge has which sides from now on, and what a differing price corrects.

use super::accounts::{Movement, TransactionKind};
use super::log_snapshot::{LogSnapshot, NearCharge, RowState, RowWrite};
use super::matching::{Pair, Place, Standing, TieRule, Tied, facts};
use super::money::{AmountTooLarge, CreditFemtos, Credits, QuotaUnits, Remainder};
use super::outcome::Failure;
use super::ownership::KeyHolder;
use super::planner::{Booked, NotCharged, Planner, Sides, unbookable};
use super::planted;
use super::pricing::{ExactPrice, Rounding, credits_to_give_back, credits_to_move};
use super::recording::WaitReason;
use super::refund::ChargeKey;
use super::settlement::{ClaimSide, Correction, Tie};
use super::side::{Channel, Side, SideIdentity};

impl Planner<'_> {
    /// Ties the side, lets it wait, or charges it.
    pub(super) fn charge_among_neighbours(&mut self, side: &Side, holder: KeyHolder) -> Result<Booked, NotCharged> {
        let facts = facts(side, &self.prices).map_err(unbookable)?;
        let only_ties = self.only_ties(side);
        let Some(log) = &mut self.log else { return self.charge_alone(side, holder, None) };
        let place = log.neighbours.add(side.identity(), facts, Standing::New(side.clone()), false);
        if let Some(tied) = log.neighbours.tie(place, &log.policy) {
            return self.settle_tied(place, &tied, holder);
        }
        // What will never be charged has nothing to wait for.
        if only_ties {
            return Err((Failure::Stored(String::new()), WaitReason::Dismissed));
        }
        if log.neighbours.alike(place, &log.policy).is_some() {
            log.neighbours.set_standing(place, Standing::Open(side.clone()));
            return Err((Failure::Alike, WaitReason::Alike));
        }
        let booked = self.charge_alone(side, holder, None)?;
        self.stand_charged(&[place]);
        Ok(booked)
    }

    /// Ties a side that nobody pays for to a charge that has no other side of its channel; whether there was one.
    pub(super) fn tie_to_charge(&mut self, side: &Side) -> Result<bool, AmountTooLarge> {
        let facts = facts(side, &self.prices)?;
        let Some(log) = &mut self.log else { return Ok(false) };
        let place = log.neighbours.add(side.identity(), facts, Standing::New(side.clone()), false);
        let Some(pair) = log.neighbours.tie_to_charge(place, &log.policy) else {
            log.neighbours.close(place);
            return Ok(false);
        };
        let (mine, other) = self.ends(place, pair);
        let Some(claim) = self.charge_of(other) else { return Ok(false) };
        self.note_sides(&claim, pair);
        self.stand_as(mine, &claim);
        self.correct(&claim, pair)?;
        Ok(true)
    }

    /// Rows from before the platform's books were taken over only tie.
    pub(super) fn only_ties(&self, side: &Side) -> bool {
        let taken_over_at = self.log.as_ref().and_then(|log| log.taken_over_at);
        let is_before = taken_over_at.is_some_and(|at| side.content().called_at < at);
        side.channel() == Channel::Log && is_before && !self.purpose.reaches_before_takeover()
    }

    /// Keeps what tying a side changed. Charges stay with the sides of the other channel; at most one pair has none, and
    /// is charged now.
    pub(super) fn settle_tied(&mut self, place: Place, tied: &Tied, holder: KeyHolder) -> Result<Booked, NotCharged> {
        let mut booked = Booked::Tied;
        for pair in &tied.pairs {
            let (mine, other) = self.ends(place, *pair);
            match self.charge_of(other) {
                Some(claim) => {
                    self.note_sides(&claim, *pair);
                    self.stand_as(mine, &claim);
                    self.correct(&claim, *pair).map_err(unbookable)?;
                }
                None => {
                    let whose = self.whole_side(*pair, place).unwrap_or((mine, None));
                    let (_, Some(side)) = whose else { continue };
                    let sides = self.sides_of(*pair);
                    if let Some(record) = self.foreign.take(side.content()) {
                        let claim = self.adopt(&side, record, Some(sides)).map_err(unbookable)?;
                        [pair.event, pair.row].into_iter().for_each(|place| self.stand_as(place, &claim));
                        continue;
                    }
                    booked = self.charge_alone(&side, holder.clone(), Some(sides))?;
                    self.stand_charged(&[pair.event, pair.row]);
                }
            }
        }
        if let Some(left) = tied.left_over.filter(|_| !planted::is_on("left_over_is_forgotten")) {
            self.charge_left_over(left, holder)?;
        }
        Ok(booked)
    }

    /// A side whose charge went to the call that it was mistaken for is a call of its own.
    fn charge_left_over(&mut self, place: Place, holder: KeyHolder) -> Result<(), NotCharged> {
        let side = self.log.as_ref().and_then(|log| log.neighbours.node(place).as_side());
        let Some(side) = side else { return Ok(()) };
        self.charge_alone(&side, holder, None)?;
        self.stand_charged(&[place]);
        Ok(())
    }

    /// The end of a pair that lies in the channel of the side that was put in, and the other.
    fn ends(&self, place: Place, pair: Pair) -> (Place, Place) {
        let channel = self.log.as_ref().map(|log| log.neighbours.node(place).identity.channel());
        match channel {
            Some(Channel::Webhook) => (pair.event, pair.row),
            _ => (pair.row, pair.event),
        }
    }

    fn charge_of(&self, place: Place) -> Option<ChargeKey> {
        match &self.log.as_ref()?.neighbours.node(place).standing {
            Standing::Charged(claim) => Some(claim.clone()),
            _ => None,
        }
    }

    /// Which side of a pair is whole enough to be charged. The row's price decides, unless the event is priced in
    /// credits; where a side is of this batch, it is charged as itself.
    fn whole_side(&self, pair: Pair, place: Place) -> Option<(Place, Option<Side>)> {
        let log = self.log.as_ref()?;
        let whole = |at: Place| match &log.neighbours.node(at).standing {
            Standing::New(side) | Standing::Open(side) => Some(side.clone()),
            Standing::Charged(_) | Standing::Closed => None,
        };
        let is_final = log.neighbours.node(pair.event).facts.units.is_none();
        let order = if is_final { [pair.event, pair.row] } else { [pair.row, pair.event] };
        let found = order.into_iter().find_map(|at| whole(at).map(|side| (at, Some(side))));
        found.or_else(|| whole(place).map(|side| (place, Some(side))))
    }

    fn sides_of(&self, pair: Pair) -> Sides {
        let Some(log) = &self.log else { return (None, None, None) };
        let claim_side = |at: Place| {
            let node = log.neighbours.node(at);
            Some(ClaimSide { identity: node.identity.clone(), at: node.facts.at })
        };
        (claim_side(pair.event), claim_side(pair.row), Some(pair.rule))
    }

    pub(super) fn note_sides(&mut self, claim: &ChargeKey, pair: Pair) {
        let sides = self.sides_of(pair);
        self.plan.tied_by_request_id |= pair.rule == TieRule::Identity && self.share_request_id(pair);
        self.sides.insert(claim.clone(), sides);
    }

    fn share_request_id(&self, pair: Pair) -> bool {
        let Some(log) = &self.log else { return false };
        let [event, row] = [pair.event, pair.row].map(|at| log.neighbours.node(at).identity.request_id());
        event.is_some() && event == row
    }

    /// The sides are those of the charge that was planned last.
    pub(super) fn stand_charged(&mut self, places: &[Place]) {
        let Some(charge) = self.plan.charges.last() else { return };
        let claim = charge.key();
        // A later side of the batch may state another price.
        if let Some(log) = &mut self.log {
            log.charges.insert(claim.clone(), NearCharge::of(charge));
        }
        for place in places {
            self.stand_as(*place, &claim);
        }
    }

    pub(super) fn stand_as(&mut self, place: Place, claim: &ChargeKey) {
        let Some(log) = &mut self.log else { return };
        let node = log.neighbours.node(place);
        let was_open = match &node.standing {
            Standing::Open(Side::Event(event)) => Some(event.clone()),
            _ => None,
        };
        if let SideIdentity::Row { row, .. } = &node.identity {
            let state = if log.neighbours.partner(place).is_some() { RowState::Tied } else { RowState::Charged };
            let write = RowWrite {
                identity: row.clone(),
                state,
                claim: Some(claim.clone()),
                open: None,
                reason: None,
                units: node.facts.units.map_or(0, QuotaUnits::get),
                is_refund: false,
                task_id: node.task_id.clone(),
            };
            // A later tie of the same batch says what holds in the end.
            self.plan.rows.push(write);
        }
        log.neighbours.set_standing(place, Standing::Charged(claim.clone()));
        if let Some(event) = was_open {
            self.close(&event);
        }
    }

    /// A side that was settled beside the matching takes part in it from now on.
    pub(super) fn join_neighbours(&mut self, side: &Side, claim: ChargeKey, is_adopted: bool) {
        let Ok(facts) = facts(side, &self.prices) else { return };
        let Some(log) = &mut self.log else { return };
        let place = log.neighbours.add(side.identity(), facts, Standing::New(side.clone()), is_adopted);
        self.stand_as(place, &claim);
    }

    /// Books the difference where the sides of a charge state different prices: the row's decides, unless the event is
    /// priced in credits.
    pub(super) fn correct(&mut self, claim: &ChargeKey, pair: Pair) -> Result<(), AmountTooLarge> {
        let Some(log) = &self.log else { return Ok(()) };
        let Some(charge) = log.charges.get(claim).cloned() else { return Ok(()) };
        // A former owner's books, or such as another session holds, are left alone: it is told as a difference.
        let may_book = self.open_accounts.knows(&charge.user_id) && !self.busy_users.contains(&charge.user_id);
        let (event, row) = (log.neighbours.node(pair.event), log.neighbours.node(pair.row));
        let (event_facts, row_facts) = (event.facts.clone(), row.facts.clone());
        let is_certain = matches!(pair.rule, TieRule::Identity | TieRule::Person);
        let price = match (event_facts.units, row_facts.units) {
            (None, _) if charge.price.units.is_some() => {
                ExactPrice { units: None, credits: event_facts.credits, ..charge.price }
            }
            (Some(_), Some(units)) if is_certain && charge.price.units != Some(units) => {
                ExactPrice { units: Some(units), credits: charge.price.of_units(units)?, ..charge.price }
            }
            _ => return Ok(()),
        };
        self.plan.price_differences += 1;
        if !may_book || planted::is_on("correction_skipped") {
            return Ok(());
        }
        self.book_difference(claim, &charge, price, &event_facts.model)
    }

    fn book_difference(
        &mut self,
        claim: &ChargeKey,
        charge: &NearCharge,
        price: ExactPrice,
        model: &std::sync::Arc<str>,
    ) -> Result<(), AmountTooLarge> {
        let account = self.open_accounts.get(&charge.user_id);
        let (remainder, unpaid_before) = (account.remainder, account.unpaid);
        let (moved, remainder) = difference(charge.price.credits, price.credits, remainder, charge.rounding)?;
        // What was never paid is lowered first, and raised where the charge itself was refused.
        let lowered = Credits::new(charge.unpaid.get().min((-moved.get()).max(0)));
        let refused = moved > Credits::ZERO && self.refuses(&charge.user_id);
        let (credits, unpaid) = match refused {
            true => (Credits::ZERO, moved),
            false => (moved.checked_add(lowered)?, Credits::ZERO.checked_sub(lowered)?),
        };
        let movement = Movement {
            kind: if credits < Credits::ZERO { TransactionKind::Refund } else { TransactionKind::Deduct },
            amount: Credits::ZERO.checked_sub(credits)?,
            remainder,
            unpaid: unpaid_before.checked_add(unpaid)?,
            charge_id: Some(claim.id.clone()),
            description: model.clone(),
        };
        let transaction = self.open_accounts.book(&charge.user_id, movement, self.now, self.ids)?;
        self.plan.transactions.extend(transaction);
        let corrected = NearCharge {
            price,
            credits: charge.credits.checked_add(credits)?,
            unpaid: charge.unpaid.checked_add(unpaid)?,
            ..charge.clone()
        };
        self.plan.corrections.retain(|earlier| earlier.claim != *claim);
        self.plan.corrections.push(Correction {
            claim: claim.clone(),
            price,
            credits: corrected.credits,
            unpaid: corrected.unpaid,
        });
        if let Some(LogSnapshot { charges, .. }) = &mut self.log {
            charges.insert(claim.clone(), corrected);
        }
        Ok(())
    }

    /// Charges of this batch get their sides; for those of before, they are written.
    pub(super) fn write_sides(&mut self) {
        let mut sides = std::mem::take(&mut self.sides);
        for charge in &mut self.plan.charges {
            if let Some((event, row, rule)) = sides.remove(&charge.key()) {
                (charge.event, charge.row, charge.tie) = (event, row, rule);
            }
        }
        for adopted in &mut self.plan.adopted {
            let key = ChargeKey { call_second: adopted.recorded_at.as_secs(), id: adopted.charge.id.clone() };
            if let Some((event, row, rule)) = sides.remove(&key) {
                (adopted.charge.event, adopted.charge.row, adopted.charge.tie) = (event, row, rule);
            }
        }
        let tie = |(claim, (event, row, rule))| Some(Tie { claim, event: event?, row: row?, rule: rule? });
        self.plan.ties = sides.into_iter().filter_map(tie).collect();
        // The last word on each row.
        let mut seen = std::collections::HashSet::new();
        self.plan.rows.reverse();
        self.plan.rows.retain(|write| seen.insert(write.identity.clone()));
        self.plan.rows.reverse();
    }
}

/// Whole credits between two prices of one charge, signed, and what is owed below one credit afterwards.
fn difference(
    before: CreditFemtos,
    after: CreditFemtos,
    remainder: Remainder,
    rounding: Rounding,
) -> Result<(Credits, Remainder), AmountTooLarge> {
    if rounding == Rounding::Nearest {
        return Ok((after.to_nearest()?.checked_sub(before.to_nearest()?)?, remainder));
    }
    match after.checked_sub(before) {
        Ok(more) => credits_to_move(more, remainder, Rounding::Carry),
        Err(_) => {
            let (back, rest) = credits_to_give_back(before.checked_sub(after)?, remainder)?;
            Ok((Credits::ZERO.checked_sub(back)?, rest))
        }
    }
}
