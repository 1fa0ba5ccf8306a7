//! Seeded choices: a test that fails by chance prints the seed with which it fails again.

use std::ops::RangeInclusive;

/// Names the seed of every `Random` that is made without one.
const SEED_VARIABLE: &str = "HOOKLEDGER_TEST_SEED";

/// SplitMix64: the same numbers for the same seed on every machine and with every version of every crate.
#[derive(Debug)]
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// Seeded from `HOOKLEDGER_TEST_SEED` if that is set, else by chance.
    pub fn new() -> Self {
        let given = std::env::var(SEED_VARIABLE).ok();
        let given = given.map(|text| text.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE}={text} is no number")));
        Random::from_seed(given.unwrap_or_else(rand::random))
    }

    pub fn from_seed(seed: u64) -> Self {
        Random { seed, state: seed }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Another generator, for another thread, which follows from the same seed.
    pub fn fork(&mut self) -> Self {
        Random { seed: self.seed, state: self.next() }
    }

    #[allow(clippy::should_implement_trait)] // endless: nothing to iterate to the end of
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is above zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        // The high half of the product is even to within bound / 2^64.
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the high half fits")
    }

    pub fn between(&mut self, range: RangeInclusive<i64>) -> i64 {
        let width = range.end().abs_diff(*range.start());
        let offset = if width == u64::MAX { self.next() } else { self.below(width + 1) };
        range.start().wrapping_add_unsigned(offset)
    }

    /// True in `times` of `out_of` cases.
    pub fn chance(&mut self, times: u64, out_of: u64) -> bool {
        self.below(out_of) < times
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("an index below a length fits")
    }
}

impl Default for Random {
    fn default() -> Self {
        Random::new()
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run this again with {SEED_VARIABLE}={}", self.seed);
        }
    }
}
