//! Settings of the allowances per source. How they are kept is the HTTP layer's business.

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::{Reader, Section};

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "rate_limit",
    keys: &[
        ("per_second", Kind::Number, Effect::AtReload),
        ("burst", Kind::Number, Effect::AtReload),
        ("bad_per_second", Kind::Number, Effect::AtReload),
        ("bad_burst", Kind::Number, Effect::AtReload),
        ("max_sources", Kind::Number, Effect::AtReload),
    ],
};

const HIGHEST_RATE: i64 = 10_000_000;

/// How many requests one source may send. Rightly signed ones and others have allowances of their own.
#[derive(Debug, Clone)]
pub struct RateLimitSettings {
    /// Of rightly signed requests; 0: no limit.
    pub per_second: u32,
    pub burst: u32,
    /// Of all others; 0: no limit.
    pub bad_per_second: u32,
    pub bad_burst: u32,
    /// Sources that are told apart at once; beyond, new ones share one allowance.
    pub max_sources: usize,
}

impl RateLimitSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let per_second = section.integer("per_second", 0..=HIGHEST_RATE);
        let burst = section.integer("burst", 0..=HIGHEST_RATE);
        let bad_per_second = section.integer("bad_per_second", 0..=HIGHEST_RATE);
        let bad_burst = section.integer("bad_burst", 0..=HIGHEST_RATE);
        let max_sources = section.integer("max_sources", 1..=10_000_000);
        refuse_empty_burst(&mut section, ("per_second", per_second), ("burst", burst));
        refuse_empty_burst(&mut section, ("bad_per_second", bad_per_second), ("bad_burst", bad_burst));
        if per_second == Some(0) {
            section.warn("rate_limit.per_second is 0: rightly signed requests are not limited");
        }
        if bad_per_second == Some(0) {
            section.warn("rate_limit.bad_per_second is 0: wrongly signed requests are not limited");
        }
        Some(RateLimitSettings {
            per_second: per_second?,
            burst: burst?,
            bad_per_second: bad_per_second?,
            bad_burst: bad_burst?,
            max_sources: max_sources?,
        })
    }
}

/// With an allowance that never holds one request, none would ever pass.
fn refuse_empty_burst(section: &mut Section<'_>, rate: (&str, Option<u32>), burst: (&str, Option<u32>)) {
    if let (Some(1..), Some(0)) = (rate.1, burst.1) {
        let message = format!("must be at least 1 while rate_limit.{} is above 0; for no limit, set that to 0", rate.0);
        section.refuse(burst.0, message);
    }
}
