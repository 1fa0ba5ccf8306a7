//! A person's word about a dispute: it moves money once, and what it closes stays closed.

use super::two_channels_books::{Ledger, Told, at};
use super::*;
use crate::domain::decision::{DecisionRefusal, Verdict};

const TIE: Verdict = Verdict::Tie { with: None };
const DISMISS: Verdict = Verdict::Dismiss { reason: None };

fn done(credits: i64) -> DecisionOutcome {
    DecisionOutcome::Done { credits: Credits::new(credits) }
}

/// An event of 2 credits that is charged, and its row of 8 that is disputed.
fn disputed_row() -> (Ledger, Subject) {
    let mut ledger = Ledger::default();
    ledger.event("e", &at(0).units(1000));
    ledger.rows(&[at(1).units(4000)]);
    ledger.cover(2000);
    let subject = ledger.open_rows().remove(0);
    (ledger, subject)
}

/// The other way round.
fn disputed_event() -> (Ledger, Subject) {
    let mut ledger = Ledger::default();
    ledger.rows(&[at(1).units(4000)]);
    let told = at(0).units(1000);
    ledger.event("e", &told);
    ledger.cover(2000);
    (ledger, Subject::Event(told.event("e")))
}

fn decide(ledger: &mut Ledger, subject: &Subject, verdict: &Verdict) -> DecisionOutcome {
    ledger.decide(vec![Decision { subject: subject.clone(), verdict: verdict.clone() }]).remove(0)
}

#[test]
fn each_decision_moves_what_it_says_and_once() {
    // Verdict, what it deducts, charges and balance in the end: of a row, of an event.
    let cases =
        [(TIE, (6, 1, -8), (0, 1, -8)), (Verdict::Charge, (8, 2, -10), (2, 2, -10)), (DISMISS, (0, 1, -2), (0, 1, -8))];
    for (verdict, of_row, of_event) in cases {
        for ((mut ledger, subject), (credits, charges, balance)) in
            [(disputed_row(), of_row), (disputed_event(), of_event)]
        {
            assert_eq!((ledger.charges(), ledger.open()), (1, 1));
            assert_eq!(decide(&mut ledger, &subject, &verdict), done(credits), "{verdict:?} {subject:?}");
            for again in [&TIE, &Verdict::Charge, &DISMISS] {
                assert_eq!(decide(&mut ledger, &subject, again), DecisionOutcome::Settled, "{verdict:?}, {again:?}");
            }
            ledger.rows(&[at(1).units(4000)]);
            ledger.event("e", &at(0).units(1000));
            ledger.cover(2000);
            assert_eq!((ledger.charges(), ledger.open(), ledger.balance), (charges, 0, balance), "{verdict:?}");
        }
    }
}

#[test]
fn two_decisions_of_one_batch_are_one_and_its_repeat() {
    let (mut ledger, subject) = disputed_row();
    let decision = |verdict: &Verdict| Decision { subject: subject.clone(), verdict: verdict.clone() };
    let outcomes = ledger.decide(vec![decision(&DISMISS), decision(&Verdict::Charge), decision(&TIE)]);
    assert_eq!(outcomes, [done(0), DecisionOutcome::Settled, DecisionOutcome::Settled]);
    assert_eq!((ledger.charges(), ledger.open(), ledger.balance), (1, 0, -2));
}

#[test]
fn what_a_person_closed_is_no_partner_any_more() {
    let (mut ledger, subject) = disputed_row();
    decide(&mut ledger, &subject, &DISMISS);
    assert!(matches!(ledger.event("true", &at(1).units(4000)), SettlementOutcome::Settled { .. }));
    assert_eq!((ledger.charges(), ledger.balance), (2, -10));
}

#[test]
fn a_person_may_name_the_charge_if_it_is_alike() {
    let mut ledger = Ledger::default();
    ledger.event("near", &at(0).units(3900));
    ledger.event("far", &at(0).units(1000));
    ledger.rows(&[at(1).units(4000)]);
    ledger.cover(2000);
    let subject = ledger.open_rows().remove(0);
    let stranger = RecordId::parse("no-such-charge").unwrap();
    let refused = DecisionOutcome::Refused(DecisionRefusal::NotAlike(stranger.clone()));
    assert_eq!(decide(&mut ledger, &subject, &Verdict::Tie { with: Some(stranger) }), refused);
    let far = ledger.charge_ids().remove(1);
    assert_eq!(decide(&mut ledger, &subject, &Verdict::Tie { with: Some(far) }), done(6));
    assert_eq!((ledger.charges(), ledger.open(), ledger.units()), (2, 0, 3900 + 4000));
}

#[test]
fn a_dispute_beside_a_charge_that_found_its_call_is_a_call_of_its_own() {
    let mut ledger = Ledger::default();
    ledger.event("e", &at(0).units(1000));
    ledger.rows(&[at(1).units(4000), at(2).units(5000)]);
    assert_eq!((ledger.charges(), ledger.open()), (1, 2));
    let subject = ledger.open_rows().into_iter().min_by_key(Subject::called_at).unwrap();
    assert_eq!(decide(&mut ledger, &subject, &TIE), done(6));
    assert_eq!((ledger.charges(), ledger.open(), ledger.balance), (2, 0, -18), "the other row is alike to nothing");
}

#[test]
fn what_is_not_disputed_is_refused() {
    let mut ledger = Ledger::default();
    let told = Told { second: 0, units: 500, model: "gpt-4", request: None };
    let unknown = Subject::Event(told.event("never came"));
    for verdict in [&TIE, &Verdict::Charge, &DISMISS] {
        let outcome = decide(&mut ledger, &unknown, verdict);
        assert!(matches!(outcome, DecisionOutcome::Refused(DecisionRefusal::NotDisputed(_))), "{outcome:?}");
    }
    assert_eq!((ledger.charges(), ledger.balance), (0, 0));
}
