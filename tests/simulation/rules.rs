//! The world of a scenario, as its seed chooses it: only what goes together.

use super::random::Random;
use super::scenario::{Naming, RowIds, Rules, Telling};

/// Where things break, and how often such a place is chosen.
const POINTS: &[(&str, u64)] = &[
    ("store.settle.begin", 2),
    ("store.settle.planned", 2),
    ("store.settle.written", 4),
    ("store.settle.committed", 6),
    ("store.record.begin", 1),
    ("store.record.written", 2),
    ("store.record.committed", 3),
    ("polling.piece.read", 3),
    ("polling.piece.settled", 4),
    ("polling.covered", 4),
    ("store.task_refunds.written", 2),
    ("store.task_refunds.committed", 3),
    ("store.retention.written", 1),
];

/// One of them.
pub fn point(random: &mut Random) -> &'static str {
    let total: u64 = POINTS.iter().map(|(_, weight)| weight).sum();
    let mut drawn = random.range(0, total as i64 - 1) as u64;
    for (point, weight) in POINTS {
        if drawn < *weight {
            return point;
        }
        drawn -= weight;
    }
    POINTS[0].0
}

pub fn rules(random: &mut Random) -> Rules {
    let loses_rows = random.chance(30);
    let users = random.range(1, 4) as usize;
    let telling = match loses_rows {
        true => Telling::Exact,
        false => random.pick(&[
            Telling::Exact,
            Telling::Exact,
            Telling::Exact,
            Telling::Exact,
            Telling::Rounded,
            Telling::RoundedWithIds,
            Telling::Early,
            Telling::Credits,
        ]),
    };
    let naming = match (loses_rows, telling) {
        (_, Telling::RoundedWithIds) => Naming::RequestIds(100),
        (true, _) | (_, Telling::Rounded | Telling::Early | Telling::Credits) => {
            random.pick(&[Naming::None, Naming::None, Naming::ForeignIds])
        }
        _ => random.pick(&[
            Naming::None,
            Naming::None,
            Naming::RequestIds(100),
            Naming::RequestIds(50),
            Naming::ForeignIds,
            Naming::LogIds,
        ]),
    };
    let match_window_secs = random.pick(&[2, 10, 60]);
    let is_bare = random.chance(15);
    let mut tokens: Vec<Option<usize>> = (0..random.range(1, 3)).map(|_| Some(random.index(users))).collect();
    if random.chance(30) {
        tokens.push(None);
    }
    Rules {
        loses_rows,
        balances: (0..users).map(|_| random.pick(&[0, 3, 50, 1000, 1_000_000])).collect(),
        tokens,
        refuses_overdraft: random.chance(20),
        rounds_to_nearest: random.chance(20),
        telling,
        naming,
        row_ids: random.pick(&[RowIds::Stable, RowIds::Stable, RowIds::MadeUp, RowIds::Absent]),
        is_bare,
        page_rows: if is_bare { 10 } else { random.pick(&[2, 3, 100, 100]) },
        rate_micros: random.pick(&[1_000_000_000, 1_000_000_000, 7_250_000, 333_333]),
        quota_per_unit: random.pick(&[500_000, 500_000, 300_000]),
        match_window_secs,
        dispute_window_secs: match_window_secs + random.pick(&[60, 600]),
        lookback_secs: random.pick(&[30, 120, 600]),
        full_read_secs: 7200,
        key_grace_secs: 3600,
        logs_kept_secs: random.chance(25).then_some(300),
        jumps_ahead: false,
    }
}
