//! Rows of the log as a batch brings them, and the sides that wait for their partner: looked at again whenever
//! something near them has changed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::alike_pairs::pair_alike;
use super::event::UsageEvent;
use super::known::KnownEvent;
use super::log_row::RowKind;
use super::log_snapshot::{NumberedRow, RowOutcome, RowState, RowWrite, TaskMark, UnownedRows};
use super::matching::{Node, Place, Standing};
use super::money::{AmountTooLarge, Credits, QuotaUnits};
use super::outcome::{Failure, SettlementOutcome};
use super::planner::{Booked, Planner};
use super::recording::WaitReason;
use super::settlement::{Batch, Purpose};
use super::side::{ConsumptionRow, Side, SideIdentity};
use super::time::UnixMillis;

/// Refunds of Midjourney are like that.
const WHOSE_IS_UNKNOWN: &str = "it names no token: nobody can know whose it is";

impl Planner<'_> {
    pub(super) fn settle_row(&mut self, numbered: &NumberedRow) -> RowOutcome {
        let outcome = self.settle_one_row(numbered);
        let is_stored = !matches!(
            outcome,
            RowOutcome::AlreadyClaimed | RowOutcome::Parked | RowOutcome::Ignored | RowOutcome::Deferred
        );
        self.plan.task_rows.extend(TaskMark::of(numbered).filter(|_| is_stored));
        outcome
    }

    fn settle_one_row(&mut self, numbered: &NumberedRow) -> RowOutcome {
        let NumberedRow { identity, row } = numbered;
        let state = self.log.as_ref().and_then(|log| log.known_rows.get(identity)).copied();
        let is_tried = match state {
            None => true,
            Some(RowState::Ambiguous | RowState::Held) => self.purpose != Purpose::Delivery,
            Some(RowState::Failed) => self.purpose.tries_failed_rows(),
            Some(RowState::BeforeTakeover) => self.purpose.reaches_before_takeover(),
            Some(_) => false,
        };
        if !is_tried {
            return RowOutcome::AlreadyClaimed;
        }
        let is_refund = row.is_refund();
        if row.token.is_nobody() && !is_refund {
            self.count_unowned(numbered);
            return RowOutcome::Ignored;
        }
        if is_refund {
            return self.open_refund(numbered);
        }
        let side = match ConsumptionRow::parse(identity.clone(), row) {
            Ok(side) => Side::Row(Arc::new(side)),
            Err(error) => return self.keep_row(numbered, RowState::Failed, Some(error.to_string())),
        };
        match self.charge(&side, state == Some(RowState::Ambiguous)) {
            Ok(Booked::Charged { credits, .. }) => RowOutcome::Charged { credits },
            Ok(Booked::Tied) => RowOutcome::Tied,
            // It was kept while several users had its token: it stays listed.
            Err((failure, WaitReason::UnknownKey | WaitReason::BeyondGrace)) if state.is_some() => {
                self.keep_row(numbered, RowState::Failed, Some(failure.message()))
            }
            // It stays as it is kept, and is not counted beside that.
            Err((failure, WaitReason::UnknownKey | WaitReason::BeyondGrace | WaitReason::Ignored))
                if state.is_some() =>
            {
                RowOutcome::Failed(failure.message())
            }
            Err((_, WaitReason::UnknownKey | WaitReason::BeyondGrace)) => {
                self.count_unowned(numbered);
                RowOutcome::Parked
            }
            Err((_, WaitReason::Ignored)) => {
                self.count_unowned(numbered);
                RowOutcome::Ignored
            }
            Err((_, WaitReason::Busy)) => RowOutcome::Deferred,
            Err((failure, WaitReason::Alike)) => self.keep_row(numbered, RowState::Waiting, Some(failure.message())),
            Err((failure, WaitReason::AmbiguousKey)) => {
                self.keep_row(numbered, RowState::Ambiguous, Some(failure.message()))
            }
            Err((failure, WaitReason::QuotaUnknown)) => {
                self.keep_row(numbered, RowState::Held, Some(failure.message()))
            }
            Err((_, WaitReason::Dismissed)) => self.keep_row(numbered, RowState::BeforeTakeover, None),
            Err((failure, _)) => self.keep_row(numbered, RowState::Failed, Some(failure.message())),
        }
    }

    /// A refund is stored first; which charge it gives back is looked for by itself.
    fn open_refund(&mut self, numbered: &NumberedRow) -> RowOutcome {
        let has_key = self.has_key(numbered.row.token);
        if !has_key && !numbered.row.token.is_nobody() {
            self.count_unowned(numbered);
            return RowOutcome::Parked;
        }
        let reason = numbered.row.token.is_nobody().then(|| WHOSE_IS_UNKNOWN.to_owned());
        self.keep_row(numbered, RowState::RefundOpen, reason)
    }

    fn keep_row(&mut self, numbered: &NumberedRow, state: RowState, reason: Option<String>) -> RowOutcome {
        let open = state.is_open().then(|| Arc::new(numbered.row.clone()));
        let identity = numbered.identity.clone();
        let (units, is_refund) = (numbered.row.quota_units, numbered.row.kind == RowKind::Refund);
        self.plan.rows.push(RowWrite {
            identity,
            state,
            claim: None,
            open,
            reason: reason.clone(),
            units,
            is_refund,
            task_id: numbered.row.task.as_ref().and_then(|task| task.task_id.clone()),
        });
        match state {
            RowState::RefundOpen => RowOutcome::RefundOpen,
            RowState::Failed => RowOutcome::Failed(reason.unwrap_or_default()),
            RowState::BeforeTakeover => RowOutcome::Ignored,
            _ => RowOutcome::Waiting,
        }
    }

    fn count_unowned(&mut self, numbered: &NumberedRow) {
        let row = &numbered.row;
        let is_same = |known: &&mut UnownedRows| known.token == row.token && known.second == row.second;
        let known = self.plan.unowned_rows.iter_mut().rev().take(64).find(is_same);
        let refund_count = i64::from(row.kind == RowKind::Refund);
        let (row_count, units) = if refund_count == 0 { (1, row.quota_units) } else { (0, 0) };
        match known {
            Some(known) => {
                known.row_count += row_count;
                known.units = known.units.saturating_add(units);
                known.refund_count += refund_count;
            }
            None => self.plan.unowned_rows.push(UnownedRows {
                source: numbered.identity.source.clone(),
                token: row.token,
                token_name: row.token_name.clone(),
                second: row.second,
                row_count,
                units,
                refund_count,
            }),
        }
    }

    /// An event that waits or is disputed beside a row.
    pub(super) fn is_open_side(&self, event: &UsageEvent) -> bool {
        self.log.as_ref().is_some_and(|log| log.open_events.contains_key(&event.event_id))
    }

    /// An event that waited is settled.
    pub(super) fn close(&mut self, event: &Arc<UsageEvent>) {
        let stored =
            self.log.as_ref().and_then(|log| log.open_events.get(&event.event_id)).map(|side| side.open.clone());
        let open = stored.or_else(|| match self.known.get(&event.event_id) {
            Some(KnownEvent::Open(open)) => Some(open.clone()),
            _ => None,
        });
        self.keep(event, open.as_ref(), None);
    }

    /// Charges every waiting side that is alike to no charge any more; where nothing is missing any more, says what is
    /// disputed.
    pub(super) fn revisit(&mut self, batch: &Batch) {
        let places: Vec<Place> = self.log.iter().flat_map(|log| log.neighbours.open()).collect();
        if places.is_empty() {
            return;
        }
        for place in &places {
            self.tie_open(*place);
        }
        let places: Vec<Place> = self.log.iter().flat_map(|log| log.neighbours.open()).collect();
        let covered_until = batch.covered_until_second.map(|second| UnixMillis::new(second.saturating_mul(1000)));
        let pairs = match (&self.log, covered_until) {
            (Some(log), Some(until)) => Some((until, pair_alike(&log.neighbours, &places, until, &log.policy))),
            _ => None,
        };
        for place in places {
            let Some(log) = &self.log else { return };
            let Standing::Open(side) = &log.neighbours.node(place).standing else { continue };
            let side = side.clone();
            let alike = log.neighbours.alike(place, &log.policy);
            let Some(alike) = alike else {
                self.charge_open(place, &side);
                continue;
            };
            let Some((until, pairs)) = &pairs else { continue };
            // What is not covered may still bring the true partner of either.
            let is_covered = [place, alike].into_iter().all(|place| log.neighbours.node(place).facts.at <= *until);
            match pairs.get(&place) {
                Some(partner) => self.dispute(place, *partner, &side),
                None if is_covered => self.charge_open(place, &side),
                None => {}
            }
        }
        if pairs.is_none() {
            self.reopen_disputes();
        }
        self.tell_what_came_of_waiting(batch);
    }

    /// A tie of this batch may have left more disputed sides than there are charges beside them: those that have none wait
    /// again, and whoever knows what is covered decides.
    fn reopen_disputes(&mut self) {
        let Some(log) = &self.log else { return };
        let places: Vec<Place> = log.neighbours.open().collect();
        let pairs = pair_alike(&log.neighbours, &places, UnixMillis::MAX, &log.policy);
        let events = log.open_events.values().filter(|side| side.is_disputed).map(|side| side.place);
        let rows = log.open_rows.values().filter(|side| side.is_disputed).map(|side| side.place);
        let disputed: HashSet<Place> = events.chain(rows).filter(|place| !pairs.contains_key(place)).collect();
        for place in places.into_iter().filter(|place| disputed.contains(place)) {
            self.let_wait(place);
        }
    }

    fn let_wait(&mut self, place: Place) {
        let Some(log) = &self.log else { return };
        match &log.neighbours.node(place).standing {
            Standing::Open(Side::Event(event)) => {
                let event = event.clone();
                let Some(open) = log.open_events.get(&event.event_id).map(|side| side.open.clone()) else { return };
                self.keep(&event, Some(&open), Some((Failure::Alike.message(), WaitReason::Alike)));
            }
            Standing::Open(Side::Row(row)) => {
                let identity = row.identity.clone();
                let Some(open) = log.open_rows.get(&identity).map(|side| side.row.clone()) else { return };
                self.keep_row(
                    &NumberedRow { identity, row: (*open).clone() },
                    RowState::Waiting,
                    Some(Failure::Alike.message()),
                );
            }
            _ => {}
        }
    }

    /// What came since it waits may be its partner, or have left it one.
    fn tie_open(&mut self, place: Place) {
        let Some(log) = &self.log else { return };
        let node = log.neighbours.node(place);
        // An earlier one of them may have found this one.
        let Standing::Open(side) = &node.standing else { return };
        let side = side.clone();
        let Ok(holder) = self.payer(&side, false) else { return };
        if let Ok(true) | Err(_) = self.adopt_open(place, &side) {
            return;
        }
        let tied = self.log.as_mut().and_then(|log| log.neighbours.tie(place, &log.policy));
        if let Some(tied) = tied {
            // What the books cannot hold now goes on waiting; it is listed as such.
            drop(self.settle_tied(place, &tied, holder));
        }
    }

    /// Nobody holds it up any more. If its owner cannot be charged now, it goes on waiting.
    fn charge_open(&mut self, place: Place, side: &Side) {
        let Ok(holder) = self.payer(side, false) else { return };
        drop(self.charge_alone(side, holder, None).inspect(|_| self.stand_charged(&[place])));
    }

    /// Since it came, another program may have billed its call.
    pub(super) fn adopt_open(&mut self, place: Place, side: &Side) -> Result<bool, AmountTooLarge> {
        let Some(record) = self.foreign.take(side.content()) else { return Ok(false) };
        let claim = self.adopt(side, record, None)?;
        self.stand_as(place, &claim);
        Ok(true)
    }

    fn dispute(&mut self, place: Place, partner: Place, side: &Side) {
        let Some(log) = &self.log else { return };
        let text = differences(log.neighbours.node(place), log.neighbours.node(partner));
        match side {
            Side::Event(event) => {
                let Some(open) = log.open_events.get(&event.event_id) else { return };
                if open.is_disputed {
                    return;
                }
                let open = open.open.clone();
                self.keep(event, Some(&open), Some((Failure::Disputed(text).message(), WaitReason::Disputed)));
            }
            Side::Row(row) => {
                let Some(open) = log.open_rows.get(&row.identity) else { return };
                if open.is_disputed {
                    return;
                }
                let (identity, open) = (row.identity.clone(), Some(open.row.clone()));
                let reason = Some(Failure::Disputed(text).message());
                let units = row.content.price.units().map_or(0, QuotaUnits::get);
                let state = RowState::Disputed;
                let task_id = row.task_id.clone();
                let write = RowWrite { identity, state, claim: None, open, reason, units, is_refund: false, task_id };
                self.plan.rows.push(write);
            }
        }
        self.plan.disputed += 1;
    }

    /// What waited at its own turn may have been charged by the end of the batch.
    fn tell_what_came_of_waiting(&mut self, batch: &Batch) {
        let mut credits: HashMap<SideIdentity, Credits> = HashMap::new();
        for charge in &self.plan.charges {
            let sides = [&charge.event, &charge.row];
            let identities = sides.into_iter().flatten().map(|side| side.identity.clone());
            credits.extend(identities.map(|identity| (identity, charge.credits)));
        }
        for (event, outcome) in batch.events.iter().zip(&mut self.plan.outcomes) {
            let identity = Side::Event(event.clone()).identity();
            if let (SettlementOutcome::Waits, Some(credits)) = (&outcome, credits.get(&identity)) {
                *outcome = SettlementOutcome::Settled { credits: *credits };
            }
        }
        for (row, outcome) in batch.rows.iter().zip(&mut self.plan.row_outcomes) {
            let (request_id, log_id) = (row.row.request_id.clone(), row.row.log_id);
            let identity = SideIdentity::Row { row: row.identity.clone(), request_id, log_id };
            if let (RowOutcome::Waiting, Some(credits)) = (&outcome, credits.get(&identity)) {
                *outcome = RowOutcome::Charged { credits: *credits };
            }
        }
    }
}

/// Which fields differ between a side and the alike one, for a person.
fn differences(side: &Node, other: &Node) -> String {
    let (mine, theirs) = (&side.facts, &other.facts);
    let mut parts = Vec::new();
    if mine.units != theirs.units || mine.credits != theirs.credits {
        parts.push(match (mine.units, theirs.units) {
            (Some(mine), Some(theirs)) => format!("price {} here, {} there", mine.get(), theirs.get()),
            _ => format!("price {} credits here, {} there", mine.credits, theirs.credits),
        });
    }
    if mine.model != theirs.model {
        parts.push(format!("model {} here, {} there", mine.model, theirs.model));
    }
    if mine.at != theirs.at {
        parts.push(format!("at {} here, {} there", mine.at.to_rfc3339(), theirs.at.to_rfc3339()));
    }
    let whose = match side.identity {
        SideIdentity::Event { .. } => "a row of the log",
        SideIdentity::Row { .. } => "an event",
    };
    match parts.is_empty() {
        true => format!("it may be the call of {whose} that is charged"),
        false => format!("it may be the call of {whose} that is charged; {}", parts.join("; ")),
    }
}
