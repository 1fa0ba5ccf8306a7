//! Scenarios that found real faults, made small: each is run with every change.

use super::random::Random;
use super::run::run;
use super::scenario::{Call, LogFault, Road, Rules, Scenario, Step, TaskPart, Telling};
use super::seeds::alone;

fn rules(change: impl FnOnce(&mut Rules)) -> Rules {
    // As the generator makes them, and then as the scenario needs them.
    let mut rules = super::rules::rules(&mut Random::new(1));
    rules.loses_rows = false;
    rules.balances = vec![1_000];
    rules.tokens = vec![Some(0)];
    rules.telling = Telling::Exact;
    rules.naming = super::scenario::Naming::None;
    rules.row_ids = super::scenario::RowIds::Stable;
    (rules.is_bare, rules.page_rows) = (false, 100);
    (rules.match_window_secs, rules.dispute_window_secs, rules.lookback_secs) = (10, 610, 120);
    (rules.rate_micros, rules.quota_per_unit) = (1_000_000_000, 500_000);
    (rules.refuses_overdraft, rules.rounds_to_nearest, rules.logs_kept_secs) = (false, false, None);
    change(&mut rules);
    rules
}

/// A call of 500 units whose event is stamped so much earlier than its row.
fn call(id: usize, prompt: i64, event_before_ms: i64, row_after_secs: Option<i64>) -> Step {
    Step::Call(Call {
        id,
        token: 0,
        model: 1,
        prompt,
        completion: 1,
        units: 500,
        event_units: 500,
        event_before_ms,
        has_event_id: false,
        row_after_secs,
        task: None,
    })
}

/// Its event has the call's request id.
fn named(step: Step) -> Step {
    match step {
        Step::Call(call) => Step::Call(Call { has_event_id: true, ..call }),
        step => step,
    }
}

fn deliver(calls: &[usize]) -> Step {
    Step::Deliver { calls: calls.to_vec(), road: Road::Settle }
}

fn holds(rules: Rules, steps: Vec<Step>) {
    alone(async {
        let outcome = run(&Scenario { rules, steps }).await;
        assert!(outcome.wrong.is_empty(), "{}\n{}", outcome.wrong.join("\n"), outcome.trace.join("\n"));
    });
}

/// Its row was lost, and another call's event: their figures agree. Each proof joined the one before it and counted as
/// young as the last, so that nothing was ever read.
#[test]
fn what_agreed_is_read_however_often_the_log_is_swept() {
    let steps = vec![call(0, 1, 0, None), deliver(&[0]), call(1, 2, 0, Some(0))];
    holds(rules(|rules| rules.loses_rows = true), steps);
}

/// Our clock jumped ahead while the gateway was out of reach: seconds counted as read before they had come.
#[test]
fn what_was_heard_of_the_sources_clock_before_a_jump_covers_nothing() {
    let steps = vec![
        Step::Wait(4_000),
        Step::Log(LogFault::FailsAfter(2)),
        Step::Pass { reads_all: false },
        call(0, 1, 0, Some(100)),
        Step::SetClock(7_200),
        Step::Pass { reads_all: true },
    ];
    holds(rules(|rules| rules.jumps_ahead = true), steps);
}

/// A row that waits beside its event counted as a call of its own in the proof, in the place of one that nobody had read;
/// then its event counted as tied, and the row was charged.
#[test]
fn a_row_that_waits_beside_its_event_proves_nothing() {
    let steps = vec![
        call(0, 100, 40_000, Some(0)),
        deliver(&[0]),
        Step::Wait(30),
        Step::Pass { reads_all: true },
        call(1, 109, 40_000, Some(0)),
    ];
    holds(rules(|rules| rules.telling = Telling::Early), steps);
}

/// Proved while our clock was ahead: an event that came afterwards seemed to have come before, and its row was charged.
#[test]
fn what_was_proved_ahead_of_time_is_opened_again() {
    let steps = vec![
        Step::SetClock(7_200),
        Step::Pass { reads_all: false },
        call(0, 1, 40_000, Some(0)),
        Step::Deliver { calls: vec![0], road: Road::Record },
        Step::Wait(61),
    ];
    let early = |rules: &mut Rules| {
        (rules.telling, rules.jumps_ahead, rules.lookback_secs) = (Telling::Early, true, 30);
    };
    holds(rules(early), steps);
}

/// On a server, ids that the shared table takes for equal were refused together, and with them whoever was recorded
/// beside them.
#[test]
fn ids_that_a_collation_takes_for_equal_are_recorded_together() {
    let mut steps = vec![call(0, 1, 0, Some(0)), call(1, 2, 0, Some(0)), call(2, 3, 0, Some(0))];
    steps.push(Step::Deliver { calls: vec![0, 1, 2], road: Road::Record });
    holds(rules(|_| {}), steps);
}

/// An event of a span that had agreed was settled while our clock was behind, which was set right before the next pass:
/// the span stayed closed, and its row, which told the call differently beyond it, was charged as another.
#[test]
fn an_event_opens_a_span_that_had_agreed_whatever_the_clock_says() {
    let steps = vec![
        Step::Wait(240),
        call(0, 1, 40_000, Some(0)),
        deliver(&[0]),
        Step::Wait(200),
        Step::Pass { reads_all: false },
        Step::SetClock(-120),
        call(1, 2, 300_000, Some(200)),
        deliver(&[1]),
        Step::SetClock(120),
        Step::Wait(400),
        Step::Pass { reads_all: false },
    ];
    holds(rules(|rules| rules.telling = Telling::Early), steps);
}

/// Two rows of one batch, and near them one event without a row: each took the look as wide enough, and the second did
/// not see the end of the chain.
#[test]
fn rows_that_compete_for_one_event_look_along_the_chain() {
    let mut steps = vec![call(5, 2, 60_000, Some(0)), Step::Wait(2), call(6, 2, 60_000, Some(0)), Step::Wait(60)];
    steps.extend([call(7, 2, 0, Some(192)), deliver(&[5, 7, 6]), call(9, 2, 60_000, Some(316))]);
    steps.push(Step::Deliver { calls: vec![9], road: Road::Record });
    steps.extend([Step::Wait(61), Step::Pass { reads_all: true }]);
    let windows = |rules: &mut Rules| (rules.match_window_secs, rules.dispute_window_secs) = (60, 660);
    holds(rules(windows), steps);
}

/// A row was disputed beside an event whose own row came a match window later: further from the disputed one than a
/// batch looked for what its ties leave over.
#[test]
fn a_dispute_ends_however_far_the_true_partner_lies_on_the_other_side() {
    let steps = vec![
        call(2, 1, 0, Some(0)),
        Step::Wait(61),
        call(5, 1, 0, None),
        Step::Wait(60),
        call(6, 1, 0, Some(0)),
        deliver(&[5]),
    ];
    let changed = |rules: &mut Rules| {
        (rules.loses_rows, rules.lookback_secs) = (true, 30);
        (rules.match_window_secs, rules.dispute_window_secs) = (60, 120);
    };
    holds(rules(changed), steps);
}

/// The figures of a span agreed since it held an event of one call and the row of another: the event lay nearer to the
/// end of the span than events and rows had been seen apart.
#[test]
fn how_near_to_an_end_a_call_may_lie_is_what_was_seen() {
    let steps = vec![
        named(call(50, 7, 10_000, Some(0))),
        deliver(&[50]),
        Step::Wait(41),
        Step::Pass { reads_all: true },
        call(0, 2, 0, Some(0)),
        Step::Wait(61),
        call(3, 2, 8534, Some(0)),
        Step::Wait(11),
        call(6, 2, 10000, Some(0)),
        deliver(&[6]),
        deliver(&[3]),
        Step::Wait(20),
        Step::Pass { reads_all: false },
    ];
    let changed = |rules: &mut Rules| {
        (rules.loses_rows, rules.lookback_secs, rules.full_read_secs) = (true, 30, 7200);
        rules.naming = super::scenario::Naming::RequestIds(50);
    };
    holds(rules(changed), steps);
}

/// A request id took a row from an event that had agreed with it. That event's own row lay beside it, and was not in
/// sight: the event was charged a second time.
#[test]
fn an_event_that_gives_its_row_up_finds_its_own() {
    let steps = vec![
        named(call(2, 1, -1000, Some(63))),
        Step::Wait(3),
        named(call(4, 1, 1000, Some(0))),
        call(5, 1, 461, Some(15)),
        Step::Wait(2),
        call(6, 1, 1000, Some(112)),
        deliver(&[5, 6]),
        Step::Wait(121),
        Step::Pass { reads_all: true },
        deliver(&[4]),
    ];
    let changed = |rules: &mut Rules| {
        rules.naming = super::scenario::Naming::RequestIds(50);
        (rules.match_window_secs, rules.dispute_window_secs) = (2, 62);
    };
    holds(rules(changed), steps);
}

/// A chain went on through the row of an event that lay just beyond what was looked at.
#[test]
fn a_row_within_reach_is_in_sight_though_its_event_is_not() {
    let steps = vec![
        call(13, 2, 0, Some(0)),
        Step::Wait(1),
        call(14, 2, 0, None),
        Step::Wait(60),
        call(15, 2, 0, Some(0)),
        Step::Wait(60),
        deliver(&[14]),
        call(17, 2, 0, Some(0)),
        deliver(&[17]),
        Step::Wait(184),
        Step::Pass { reads_all: true },
        deliver(&[13]),
    ];
    let changed = |rules: &mut Rules| {
        (rules.loses_rows, rules.lookback_secs) = (true, 600);
        (rules.match_window_secs, rules.dispute_window_secs) = (60, 120);
    };
    holds(rules(changed), steps);
}

/// A row of no tokens and no price agreed by mere nearness, and its charge was made; the row that names the event came in
/// the same batch, and its price was not booked.
#[test]
fn a_price_is_corrected_in_the_batch_that_charged_it() {
    let free = |step: Step, units: i64| match step {
        Step::Call(call) => Step::Call(Call { has_event_id: true, units, event_units: 0, ..call }),
        step => step,
    };
    let steps = vec![
        free(call(0, 1, 0, Some(0)), 0),
        Step::Wait(11),
        Step::Pass { reads_all: true },
        free(call(9, 1, 232, Some(0)), 0),
        free(call(12, 1, -128, Some(0)), 9),
        Step::Deliver { calls: vec![12], road: Road::Record },
    ];
    let changed = |rules: &mut Rules| {
        (rules.telling, rules.naming) = (Telling::RoundedWithIds, super::scenario::Naming::RequestIds(100));
        (rules.match_window_secs, rules.dispute_window_secs, rules.lookback_secs) = (2, 62, 600);
        rules.row_ids = super::scenario::RowIds::Absent;
    };
    holds(rules(changed), steps);
}

/// A submission of 2000 units, or a row that gives as many back; both name their task.
fn of_task(id: usize, row_after_secs: i64, task: TaskPart) -> Step {
    match named(call(id, 0, 0, Some(row_after_secs))) {
        Step::Call(call) => {
            Step::Call(Call { model: 2, completion: 0, units: 2000, event_units: 2000, task: Some(task), ..call })
        }
        step => step,
    }
}

fn submission(id: usize, task: usize, row_after_secs: i64) -> Step {
    of_task(id, row_after_secs, TaskPart::Submission { task, named: true })
}

fn refund(id: usize, task: usize, row_after_secs: i64) -> Step {
    of_task(id, row_after_secs, TaskPart::Refund { task, stated: 2000, as_negative: false })
}

/// A refund that was read before the row of its submission was tied to the charge of an equal task. Then it was given back
/// a second time, of its own; and the other task's refund found nothing left.
#[test]
fn equal_tasks_whose_rows_come_late_are_each_given_back_once() {
    for (first, second) in [(1, 1), (1, 2)] {
        let steps = vec![
            submission(1, 1, 0),
            submission(2, 2, 998),
            Step::Wait(700),
            deliver(&[1]),
            Step::Pass { reads_all: false },
            refund(3, first, 0),
            refund(4, second, 1555),
        ];
        let changed = |rules: &mut Rules| {
            (rules.naming, rules.lookback_secs) = (super::scenario::Naming::RequestIds(100), 600);
        };
        holds(rules(changed), steps);
    }
}

/// A row gave its event up to the row that the event names, and got a charge of its own: its task was given back of both.
#[test]
fn a_task_whose_row_got_another_charge_is_given_back_once() {
    for (first, second) in [(2, 2), (1, 2), (2, 1)] {
        let steps = vec![
            submission(1, 1, 287),
            submission(2, 2, 0),
            deliver(&[1]),
            Step::Wait(240),
            Step::Pass { reads_all: true },
            refund(3, first, 200),
            refund(4, second, 0),
        ];
        let changed = |rules: &mut Rules| rules.naming = super::scenario::Naming::RequestIds(100);
        holds(rules(changed), steps);
    }
}
