//! Which seconds are still to be covered: what lies between the spans that are.

use crate::storage::log::{Proof, Span};

/// Seconds from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub from_second: i64,
    pub until_second: i64,
}

impl Gap {
    /// What follows this second, if anything.
    pub fn after(self, second: i64) -> Option<Gap> {
        (second < self.until_second).then_some(Gap { from_second: second + 1, ..self })
    }

    /// What lies before this second, if anything.
    pub fn before(self, second: i64) -> Option<Gap> {
        (self.from_second < second).then_some(Gap { until_second: second - 1, ..self })
    }

    /// Of at least two seconds.
    pub fn halves(self) -> [Gap; 2] {
        let middle = self.from_second + (self.until_second - self.from_second) / 2;
        [Gap { until_second: middle, ..self }, Gap { from_second: middle + 1, ..self }]
    }
}

/// Seconds from `begin` to `end` that no span covers, oldest first. `spans` in the order of their seconds.
pub fn gaps(spans: &[Span], begin: i64, end: i64) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut next = begin;
    for span in spans.iter().filter(|span| span.until_second >= begin) {
        let until_second = (span.from_second - 1).min(end);
        if next <= until_second {
            gaps.push(Gap { from_second: next, until_second });
        }
        next = next.max(span.until_second + 1);
    }
    if next <= end {
        gaps.push(Gap { from_second: next, until_second: end });
    }
    gaps
}

/// Spans that are covered and to be read all the same.
pub fn reopened(spans: &[Span]) -> Vec<Gap> {
    let open = spans.iter().filter(|span| span.proof == Proof::Reopened);
    open.map(|span| Gap { from_second: span.from_second, until_second: span.until_second }).collect()
}

/// What is covered, in as few pieces as there are. `spans` in the order of their seconds.
pub fn covered_gaps(spans: &[Span]) -> Vec<Gap> {
    let mut covered: Vec<Gap> = Vec::new();
    for Span { from_second, until_second, .. } in spans.iter().copied() {
        match covered.last_mut().filter(|last| from_second <= last.until_second + 1) {
            Some(last) => last.until_second = last.until_second.max(until_second),
            None => covered.push(Gap { from_second, until_second }),
        }
    }
    covered
}

/// The last second up to which everything from `begin` on is covered; the one before `begin` where nothing is.
pub fn covered_until(spans: &[Span], begin: i64) -> i64 {
    let last = spans.iter().map(|span| span.until_second).max().unwrap_or(begin - 1);
    gaps(spans, begin, last).first().map_or(last.max(begin - 1), |gap| gap.from_second - 1)
}

/// The same, of what was read row by row.
pub fn read_until(spans: &[Span], begin: i64) -> i64 {
    let read: Vec<Span> = spans.iter().copied().filter(|span| span.proof == Proof::Read).collect();
    covered_until(&read, begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from_second: i64, until_second: i64, proof: Proof) -> Span {
        Span { from_second, until_second, proof }
    }

    #[test]
    fn what_no_span_holds_is_a_gap() {
        let spans = [span(10, 19, Proof::Read), span(30, 39, Proof::Agreed)];
        let gap = |from_second, until_second| Gap { from_second, until_second };
        assert_eq!(gaps(&spans, 5, 50), [gap(5, 9), gap(20, 29), gap(40, 50)]);
        assert_eq!(gaps(&spans, 10, 15), []);
        assert_eq!(gaps(&spans, 12, 25), [gap(20, 25)]);
        assert_eq!(gaps(&[], 3, 2), []);
    }

    #[test]
    fn what_touches_is_covered_in_one_piece() {
        let spans = [span(10, 19, Proof::Read), span(20, 39, Proof::Agreed), span(50, 59, Proof::Reopened)];
        let gap = |from_second, until_second| Gap { from_second, until_second };
        assert_eq!(covered_gaps(&spans), [gap(10, 39), gap(50, 59)]);
        assert_eq!(covered_gaps(&[]), []);
    }

    #[test]
    fn coverage_ends_before_the_first_gap() {
        let spans = [span(10, 19, Proof::Read), span(20, 39, Proof::Agreed), span(50, 59, Proof::Read)];
        assert_eq!(covered_until(&spans, 10), 39);
        assert_eq!(covered_until(&spans, 5), 4);
        assert_eq!(covered_until(&[], 5), 4);
        assert_eq!(read_until(&spans, 10), 19);
    }
}
