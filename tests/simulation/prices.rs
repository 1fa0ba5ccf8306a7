//! What calls cost, by the oracle's own arithmetic: plain integers, in units of 1e-15 credit.

pub const FEMTOS: i128 = 1_000_000_000_000_000;

/// From which second on which rate counts: credits for one dollar, in millionths.
#[derive(Debug, Clone)]
pub struct Rates(Vec<(i64, i64)>);

impl Rates {
    pub fn from_the_beginning(micros: i64) -> Self {
        Rates(vec![(0, micros)])
    }

    /// A look at this second has seen another rate: it counts from the next whole minute.
    pub fn seen(&mut self, second: i64, micros: i64) {
        let from = (second.div_euclid(60) + 1) * 60;
        if self.at(from) == micros {
            return;
        }
        self.0.retain(|(since, _)| *since < from);
        self.0.push((from, micros));
    }

    /// Every rate that counts in a second of this span.
    pub fn within(&self, from: i64, until: i64) -> Vec<i64> {
        let later = self.0.iter().filter(|(since, _)| (from + 1..=until).contains(since)).map(|(_, micros)| *micros);
        std::iter::once(self.at(from)).chain(later).collect()
    }

    pub fn at(&self, second: i64) -> i64 {
        self.0.iter().rev().find(|(since, _)| *since <= second).map_or(self.0[0].1, |(_, micros)| *micros)
    }
}

/// Quota units at a rate, halves upwards.
pub fn femtos(units: i64, rate_micros: i64, quota_per_unit: i64) -> i128 {
    let (scaled, divisor) =
        (i128::from(units) * i128::from(rate_micros) * (FEMTOS / 1_000_000), i128::from(quota_per_unit));
    (2 * scaled + divisor) / (2 * divisor)
}

/// To the nearest whole credit, halves upwards.
pub fn nearest(femtos: i128) -> i128 {
    (2 * femtos + FEMTOS).div_euclid(2 * FEMTOS)
}

#[test]
fn a_rate_counts_from_the_next_minute() {
    let mut rates = Rates::from_the_beginning(7);
    rates.seen(119, 9);
    assert_eq!([119, 120, 5000].map(|second| rates.at(second)), [7, 9, 9]);
    rates.seen(100, 8);
    assert_eq!([119, 120].map(|second| rates.at(second)), [7, 8]);
    assert_eq!((rates.within(100, 119), rates.within(100, 120)), (vec![7], vec![7, 8]));
    assert_eq!(femtos(1, 1_000_000_000, 500_000), 2 * FEMTOS / 1000);
    assert_eq!([nearest(FEMTOS / 2), nearest(FEMTOS / 2 - 1), nearest(3 * FEMTOS)], [1, 0, 3]);
}
