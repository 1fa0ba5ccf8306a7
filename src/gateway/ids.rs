//! Whether the ids of an answer are those of rows in a database, or were made up for this answer.
//!
//! A ClickHouse log store has no ids: new-api then numbers the rows of each answer from 1. Nothing may be told by those.

/// What one answer shows of its ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdEvidence {
    /// Nothing: there are no rows, no ids, or a single one that could be either.
    None,
    Real,
    MadeUp,
}

/// Judges the ids of one answer, in its order, newest first. `offset` rows lie on the pages before it.
pub(super) fn judge(ids: &[i64], offset: u64) -> IdEvidence {
    if ids.is_empty() || ids.iter().any(|id| *id <= 0) {
        return IdEvidence::None;
    }
    // Real ids fall along an answer, since newer rows come first; made-up ones count up, from 1 or on from the last page.
    let counts_up_from = |first: i64| ids.iter().zip(first..).all(|(id, expected)| *id == expected);
    let is_run =
        counts_up_from(1) || i64::try_from(offset).is_ok_and(|offset| counts_up_from(offset.saturating_add(1)));
    match (is_run, ids.len()) {
        (false, _) => IdEvidence::Real,
        (true, 1) => IdEvidence::None,
        (true, _) => IdEvidence::MadeUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_count_up_along_an_answer_are_made_up() {
        for (ids, offset, evidence) in [
            (&[][..], 0, IdEvidence::None),
            (&[1, 2, 3], 0, IdEvidence::MadeUp),
            (&[1, 2, 3], 100, IdEvidence::MadeUp),
            (&[101, 102], 100, IdEvidence::MadeUp),
            (&[101, 102], 200, IdEvidence::Real),
            (&[3, 2, 1], 0, IdEvidence::Real),
            (&[7, 8], 0, IdEvidence::Real),
            (&[1, 2, 4], 0, IdEvidence::Real),
            (&[1], 0, IdEvidence::None),
            (&[101], 100, IdEvidence::None),
            (&[9], 0, IdEvidence::Real),
            (&[0, 0], 0, IdEvidence::None),
        ] {
            assert_eq!(judge(ids, offset), evidence, "{ids:?} after {offset}");
        }
    }
}
