//! Carries out what a person decided: a tie, a charge or an end without one, by the same steps as what ends by itself.

use std::sync::Arc;

use super::decision::{Decision, DecisionOutcome, DecisionRefusal, Subject, Verdict};
use super::event::UsageEvent;
use super::known::{OpenEvent, Standing as Known, standing};
use super::log_row::RowKind;
use super::log_snapshot::{NumberedRow, RowOutcome, RowState, RowWrite};
use super::matching::{Place, Standing, TieRule};
use super::money::Credits;
use super::outcome::Failure;
use super::planner::{NotCharged, Planner, unbookable};
use super::recording::WaitReason;
use super::side::{ConsumptionRow, Side};

/// Whether something was done: `false` where it was settled before.
type Carried = Result<bool, DecisionRefusal>;

impl Planner<'_> {
    pub(super) fn decide(&mut self, decision: &Decision) -> DecisionOutcome {
        let booked_before = self.plan.transactions.len();
        let carried = match &decision.subject {
            Subject::Event(event) => self.decide_event(event, &decision.verdict),
            Subject::Row(row) => self.decide_row(row, &decision.verdict).inspect(|_| self.remember(row)),
        };
        let moved = self.plan.transactions.iter().skip(booked_before).map(|transaction| transaction.amount.get());
        match carried {
            Ok(true) => DecisionOutcome::Done { credits: Credits::new(-moved.sum::<i64>()) },
            Ok(false) => DecisionOutcome::Settled,
            Err(refusal) => DecisionOutcome::Refused(refusal),
        }
    }

    fn decide_event(&mut self, event: &Arc<UsageEvent>, verdict: &Verdict) -> Carried {
        let open = match standing(self.known.get(&event.event_id), event) {
            Known::Open(open) => open,
            Known::Charged | Known::Closed(_) => return Ok(false),
            Known::New | Known::Conflicting => return Err(DecisionRefusal::NotDisputed("it is not stored".to_owned())),
        };
        let side = self.log.as_ref().and_then(|log| log.open_events.get(&event.event_id));
        let Some(place) = side.map(|side| side.place) else {
            return Err(DecisionRefusal::NotDisputed(open.message.unwrap_or_default()));
        };
        match verdict {
            Verdict::Dismiss { reason } => self.dismiss_event(event, &open, place, reason.as_deref()),
            verdict => self.decide_side(place, &Side::Event(event.clone()), verdict)?,
        }
        Ok(true)
    }

    fn decide_row(&mut self, numbered: &NumberedRow, verdict: &Verdict) -> Carried {
        let state = self.log.as_ref().and_then(|log| log.known_rows.get(&numbered.identity)).copied();
        let open = self.log.as_ref().and_then(|log| log.open_rows.get(&numbered.identity)).map(|side| side.place);
        match (state, verdict, open) {
            (Some(state), ..) if !state.is_open() => return Ok(false),
            (Some(RowState::RefundOpen | RowState::Failed), Verdict::Dismiss { reason }, _) => {
                self.dismiss_row(numbered, None, reason.as_deref());
            }
            (Some(RowState::RefundOpen), ..) => return Err(DecisionRefusal::IsRefund),
            (Some(RowState::Failed), Verdict::Tie { .. }, _) => return Err(DecisionRefusal::IsFailed),
            (Some(RowState::Failed), Verdict::Charge, _) => self.charge_failed(numbered)?,
            (_, Verdict::Dismiss { reason }, Some(place)) => {
                self.dismiss_row(numbered, Some(place), reason.as_deref());
            }
            (_, verdict, Some(place)) => {
                let side = ConsumptionRow::parse(numbered.identity.clone(), &numbered.row);
                let side = side.map_err(|error| DecisionRefusal::NotChargeable(error.to_string()))?;
                self.decide_side(place, &Side::Row(Arc::new(side)), verdict)?;
            }
            (state, ..) => {
                let state = state.map_or("it is not stored", RowState::as_str);
                return Err(DecisionRefusal::NotDisputed(state.to_owned()));
            }
        }
        Ok(true)
    }

    /// Another decision of the same batch finds what this one made of the row.
    fn remember(&mut self, row: &NumberedRow) {
        let written = self.plan.rows.iter().rev().find(|write| write.identity == row.identity);
        if let (Some(write), Some(log)) = (written, &mut self.log) {
            log.known_rows.insert(write.identity.clone(), write.state);
        }
    }

    fn decide_side(&mut self, place: Place, side: &Side, verdict: &Verdict) -> Result<(), DecisionRefusal> {
        let Verdict::Tie { with } = verdict else {
            let holder = self.payer(side, false).map_err(refused)?;
            if !self.adopt_open(place, side).map_err(unbookable).map_err(refused)? {
                self.charge_alone(side, holder, None).map_err(refused)?;
                self.stand_charged(&[place]);
            }
            return Ok(());
        };
        let Some(log) = &mut self.log else { return Err(DecisionRefusal::NothingAlike) };
        let charge = |other: Place| match &log.neighbours.node(other).standing {
            Standing::Charged(claim) => Some(claim.clone()),
            _ => None,
        };
        let alike = log.neighbours.all_alike(place, &log.policy);
        let named = alike.filter(|other| with.as_ref().is_none_or(|id| charge(*other).is_some_and(|it| it.id == *id)));
        let Some(other) = named.min_by_key(|other| log.neighbours.distance(place, *other)) else {
            return Err(with.clone().map_or(DecisionRefusal::NothingAlike, DecisionRefusal::NotAlike));
        };
        let Some(claim) = charge(other) else { return Err(DecisionRefusal::NothingAlike) };
        // The difference is booked with the tie, or nothing is.
        if log.charges.get(&claim).is_some_and(|charge| self.busy_users.contains(&charge.user_id)) {
            return Err(DecisionRefusal::Busy);
        }
        let pair = log.neighbours.pair(place, other, TieRule::Person);
        self.correct(&claim, pair).map_err(|error| DecisionRefusal::NotChargeable(error.to_string()))?;
        if let Some(log) = &mut self.log {
            log.neighbours.join(place, other, TieRule::Person);
        }
        self.note_sides(&claim, pair);
        self.stand_as(place, &claim);
        Ok(())
    }

    /// A row that could not be booked is settled as if it were read now.
    fn charge_failed(&mut self, numbered: &NumberedRow) -> Result<(), DecisionRefusal> {
        let side = ConsumptionRow::parse(numbered.identity.clone(), &numbered.row);
        let is_refund = numbered.row.kind == RowKind::Refund || numbered.row.quota_units < 0;
        match side {
            _ if is_refund => {}
            Ok(side) => {
                let side = Side::Row(Arc::new(side));
                if self.only_ties(&side) {
                    return Err(DecisionRefusal::BeforeTakeover);
                }
                self.payer(&side, false).map_err(refused)?;
            }
            Err(error) => return Err(DecisionRefusal::NotChargeable(error.to_string())),
        }
        match self.settle_row(numbered) {
            RowOutcome::Failed(reason) => Err(DecisionRefusal::NotChargeable(reason)),
            RowOutcome::Deferred => Err(DecisionRefusal::Busy),
            _ => Ok(()),
        }
    }

    fn dismiss_event(&mut self, event: &Arc<UsageEvent>, open: &OpenEvent, place: Place, reason: Option<&str>) {
        let message = Failure::Dismissed(words(reason)).message();
        self.keep(event, Some(open), Some((message, WaitReason::Dismissed)));
        self.close_side(place);
    }

    fn dismiss_row(&mut self, numbered: &NumberedRow, place: Option<Place>, reason: Option<&str>) {
        self.plan.rows.push(RowWrite {
            identity: numbered.identity.clone(),
            state: RowState::Dismissed,
            claim: None,
            open: None,
            reason: Some(Failure::Dismissed(words(reason)).message()),
            units: numbered.row.quota_units,
            is_refund: numbered.row.kind == RowKind::Refund,
            task_id: numbered.row.task.as_ref().and_then(|task| task.task_id.clone()),
        });
        if let Some(place) = place {
            self.close_side(place);
        }
    }

    fn close_side(&mut self, place: Place) {
        if let Some(log) = &mut self.log {
            log.neighbours.close(place);
        }
    }
}

fn words(reason: Option<&str>) -> String {
    reason.unwrap_or("it is no call of its own").to_owned()
}

fn refused((failure, reason): NotCharged) -> DecisionRefusal {
    match reason {
        WaitReason::Busy => DecisionRefusal::Busy,
        _ => DecisionRefusal::NotChargeable(failure.to_string()),
    }
}
