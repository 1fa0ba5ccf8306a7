//! Unit tests of which call takes which record of another program.

use std::sync::Arc;

use super::*;
use crate::domain::event::Tokens;
use crate::domain::pricing::Price;

const NOW: i64 = 1_795_558_800_000;

fn at(millis: i64) -> UnixMillis {
    UnixMillis::new(NOW + millis)
}

fn token(number: i64) -> RemoteKeyId {
    RemoteKeyId::new(number).unwrap()
}

fn call(called_at: UnixMillis) -> Content {
    Content {
        remote_key_id: token(1),
        model: Arc::from("m"),
        tokens: Tokens { prompt: 10, completion: 5, total: 15 },
        price: Price::CreditCost(Credits::new(7)),
        called_at,
    }
}

fn record(id: &str, recorded_at: UnixMillis) -> (RemoteKeyId, ForeignRecord) {
    let record = ForeignRecord {
        id: RecordId::parse(id).unwrap(),
        key_id: KeyId::parse("k").unwrap(),
        user_id: UserId::parse("u").unwrap(),
        model: "m".to_owned(),
        prompt_tokens: 10,
        completion_tokens: 5,
        recorded_at,
        credits: Credits::new(3),
    };
    (token(1), record)
}

fn taken(records: &mut ForeignRecords, call: &Content) -> Option<String> {
    records.take(call).map(|record| record.id.to_string())
}

#[test]
fn each_record_takes_one_call_the_earliest_first() {
    let mut records = ForeignRecords::new([record("late", at(9)), record("early", at(-9)), record("other", at(-9))]);
    let call = call(at(0));
    assert_eq!(taken(&mut records, &call).as_deref(), Some("early"));
    assert_eq!(taken(&mut records, &call).as_deref(), Some("other"), "of one time the smaller id goes first");
    assert_eq!(taken(&mut records, &call).as_deref(), Some("late"));
    assert_eq!(taken(&mut records, &call), None);
}

#[test]
fn ten_records_leave_the_eleventh_call_free() {
    let mut records = ForeignRecords::new((0..10).map(|number| record(&format!("r{number}"), at(0))));
    let ties = (0..11).filter(|_| records.take(&call(at(0))).is_some()).count();
    assert_eq!(ties, 10);
}

#[test]
fn five_minutes_either_way_are_near_enough() {
    for (millis, ties) in [(-300_001, false), (-300_000, true), (300_000, true), (300_001, false)] {
        let mut records = ForeignRecords::new([record("r", at(millis))]);
        assert_eq!(records.take(&call(at(0))).is_some(), ties, "{millis} ms away");
    }
}

#[test]
fn token_model_and_both_counts_must_agree() {
    let changes: [fn(&mut Content); 4] = [
        |call| call.remote_key_id = token(2),
        |call| call.model = Arc::from("M"),
        |call| call.tokens.prompt = 11,
        |call| call.tokens.completion = 6,
    ];
    for change in changes {
        let mut call = call(at(0));
        change(&mut call);
        assert_eq!(ForeignRecords::new([record("r", at(0))]).take(&call), None, "{call:?}");
    }
    let mut same = call(at(0));
    same.tokens.total = 99;
    assert!(ForeignRecords::new([record("r", at(0))]).take(&same).is_some(), "the sum tells nothing more");
}

#[test]
fn a_model_is_compared_as_the_column_cuts_it() {
    let mut long = call(at(0));
    long.model = Arc::from("x".repeat(500).as_str());
    let (token, mut record) = record("r", at(0));
    record.model = "x".repeat(191);
    assert!(ForeignRecords::new([(token, record)]).take(&long).is_some());
}

#[test]
fn a_record_under_two_tokens_is_taken_once() {
    let (_, shared) = record("r", at(0));
    let mut records = ForeignRecords::new([(token(1), shared.clone()), (token(2), shared)]);
    let mut second = call(at(0));
    second.remote_key_id = token(2);
    assert!(records.take(&second).is_some());
    assert_eq!(records.take(&call(at(0))), None);
}

#[test]
fn spans_join_what_overlaps_and_begin_where_adoption_does() {
    let calls = [(1, 500_000), (1, 0), (1, 5_000_000), (2, 0), (3, -900_000)];
    let spans = spans(calls.into_iter().map(|(number, millis)| (token(number), at(millis))), at(-100_000));
    let expected = [
        (token(1), vec![(at(-100_000), at(800_000)), (at(4_700_000), at(5_300_000))]),
        (token(2), vec![(at(-100_000), at(300_000))]),
    ];
    assert_eq!(spans, BTreeMap::from(expected));
}
