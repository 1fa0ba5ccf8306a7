//! Which rows of the log and which events of the books tell of one call, where figures proved that each row has its event:
//! pure, equal ones only, the nearest in time first.

use std::collections::{HashMap, HashSet};

use crate::domain::log_row::{LogRow, RowKind};
use crate::storage::audit::LoneEvent;

/// What is equal in a row and its event: token, token counts, and units with the model; those not where the event is
/// priced in credits.
type Likeness<'a> = (i64, i64, i64, Option<(i64, &'a str)>);

/// What found no partner, by place; and the events that did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unmatched {
    pub rows: Vec<usize>,
    pub events: Vec<usize>,
    pub matched_events: Vec<usize>,
}

/// Each row and each event takes part once, in pairs whose times are at most so far apart.
pub fn unmatched<'a>(rows: &'a [LogRow], events: &'a [LoneEvent], window_secs: i64) -> Unmatched {
    let mut free = Free::of(events);
    let mut rows_left: Vec<usize> = (0..rows.len()).collect();
    for is_priced in [true, false] {
        for apart_secs in 0..=window_secs {
            rows_left.retain(|place| !free.take(&rows[*place], is_priced, apart_secs));
        }
    }
    let taken = free.taken;
    let (matched_events, events) = (0..events.len()).partition(|place| taken.contains(place));
    Unmatched { rows: rows_left, events, matched_events }
}

/// Events that no row has taken, by likeness and second; the last of a second goes first.
struct Free<'a> {
    alike: HashSet<Likeness<'a>>,
    places: HashMap<(Likeness<'a>, i64), Vec<usize>>,
    taken: HashSet<usize>,
}

impl<'a> Free<'a> {
    fn of(events: &'a [LoneEvent]) -> Self {
        let mut free = Free { alike: HashSet::new(), places: HashMap::new(), taken: HashSet::new() };
        for (place, event) in events.iter().enumerate() {
            let price = event.units.map(|units| (units, event.model.as_str()));
            let likeness = (event.remote_key_id, event.prompt_tokens, event.completion_tokens, price);
            free.alike.insert(likeness);
            free.places.entry((likeness, event.call_second)).or_default().push(place);
        }
        free
    }

    /// Whether an event just so far from the row was free.
    fn take(&mut self, row: &'a LogRow, is_priced: bool, apart_secs: i64) -> bool {
        let price = is_priced.then_some((row.quota_units, &*row.model));
        let likeness: Likeness<'a> = (row.token.get(), row.prompt_tokens, row.completion_tokens, price);
        if row.kind != RowKind::Consumption || !self.alike.contains(&likeness) {
            return false;
        }
        let seconds = [row.second - apart_secs, row.second + apart_secs];
        let found = seconds.iter().find_map(|second| self.places.get_mut(&(likeness, *second))?.pop());
        found.is_some_and(|place| self.taken.insert(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::RemoteKeyId;

    fn row(second: i64) -> LogRow {
        LogRow {
            second,
            kind: RowKind::Consumption,
            token: RemoteKeyId::new(42).unwrap(),
            token_name: "k".into(),
            model: "m".into(),
            prompt_tokens: 1,
            completion_tokens: 1,
            quota_units: 500,
            request_id: None,
            log_id: None,
            task: None,
        }
    }

    fn event(call_second: i64, units: Option<i64>) -> LoneEvent {
        LoneEvent {
            call_second,
            claim_id: format!("c{call_second}"),
            event_id: "e".to_owned(),
            remote_key_id: 42,
            model: "m".to_owned(),
            prompt_tokens: 1,
            completion_tokens: 1,
            units,
            user_id: "u".to_owned(),
            moved: 1,
        }
    }

    fn left(rows: &[LogRow], events: &[LoneEvent]) -> (Vec<i64>, Vec<i64>) {
        let left = unmatched(rows, events, 60);
        assert_eq!(left.events.len() + left.matched_events.len(), events.len());
        (
            left.rows.iter().map(|place| rows[*place].second).collect(),
            left.events.iter().map(|place| events[*place].call_second).collect(),
        )
    }

    #[test]
    fn of_equal_calls_the_one_too_many_is_left_where_it_is() {
        let seconds = [30, 60, 90, 120, 150];
        let events: Vec<_> = seconds.map(|second| event(second, Some(500))).into();
        let mut rows: Vec<_> = seconds.map(row).into();
        assert_eq!(left(&rows, &events), (vec![], vec![]));
        rows.insert(3, row(105));
        assert_eq!(left(&rows, &events), (vec![105], vec![]));
        assert_eq!(left(&seconds.map(row), &[&events[..], &[event(100, Some(500))]].concat()), (vec![], vec![100]));
        let skewed: Vec<_> = seconds.map(|second| event(second - 7, Some(500))).into();
        assert_eq!(left(&rows, &skewed), (vec![105], vec![]));
        assert_eq!(left(&[row(0)], &[event(61, Some(500))]), (vec![0], vec![61]), "too far apart");
    }

    #[test]
    fn what_differs_is_no_partner_and_an_event_in_credits_comes_last() {
        assert_eq!(left(&[row(0)], &[event(0, Some(501))]), (vec![0], vec![0]));
        assert_eq!(left(&[row(0)], &[event(0, None), event(40, Some(500))]), (vec![], vec![0]));
        assert_eq!(left(&[row(0)], &[event(3, None)]), (vec![], vec![]));
        let refund = LogRow { kind: RowKind::Refund, ..row(0) };
        assert_eq!(left(&[refund], &[event(0, Some(500))]), (vec![0], vec![0]));
    }
}
