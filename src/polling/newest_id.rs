//! Whether the ids of the log still rise: where they fall back, it was emptied or restored.

use crate::domain::log_row::LogRow;
use crate::storage::log::NewestId;

/// Several processes of one gateway write rows with seconds of their own clocks: so far apart, ids still rise.
const ID_ORDER_SECS: i64 = 60;

/// The newest row with an id after these, which are in the order of their seconds; and the ids between which the source
/// fell back, if it did.
pub fn newest_id(known: Option<NewestId>, rows: &[LogRow]) -> (Option<NewestId>, Option<(i64, i64)>) {
    let (mut newest, mut fell) = (known, None);
    for (second, log_id) in rows.iter().filter_map(|row| Some((row.second, row.log_id?))) {
        newest = Some(match newest {
            Some(before) if log_id < before.log_id && second > before.second + ID_ORDER_SECS => {
                fell = Some((before.log_id, log_id));
                NewestId { second, log_id }
            }
            Some(before) if log_id < before.log_id => before,
            Some(before) => NewestId { second: before.second.max(second), log_id },
            None => NewestId { second, log_id },
        });
    }
    (newest, fell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::RemoteKeyId;
    use crate::domain::log_row::RowKind;

    fn row(second: i64, log_id: i64) -> LogRow {
        LogRow {
            second,
            kind: RowKind::Consumption,
            token: RemoteKeyId::new(7).unwrap(),
            token_name: "alice-key".into(),
            model: "gpt-4".into(),
            prompt_tokens: 10,
            completion_tokens: 5,
            quota_units: 300,
            request_id: None,
            log_id: Some(log_id),
            task: None,
        }
    }

    #[test]
    fn ids_fell_where_a_much_younger_row_has_a_smaller_one() {
        let known = Some(NewestId { second: 1000, log_id: 90 });
        for (second, log_id, newest, fell) in [
            (1001, 91, (1001, 91), None),
            (500, 12, (1000, 90), None),
            // Another process's clock.
            (1060, 89, (1000, 90), None),
            // Written late.
            (900, 95, (1000, 95), None),
            (1061, 89, (1061, 89), Some((90, 89))),
        ] {
            let found = newest_id(known, &[row(second, log_id)]);
            let newest = Some(NewestId { second: newest.0, log_id: newest.1 });
            assert_eq!(found, (newest, fell), "{second} {log_id}");
        }
        assert_eq!(newest_id(None, &[]), (None, None));
    }
}
