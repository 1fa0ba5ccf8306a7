//! Small wrong changes that a test can switch on, one at a time, to see that the simulation finds each of them.
//!
//! Only builds with the feature `failpoints` have them; in a release `is_on` is `false`, and what it guards is not there.

/// Every one of them: what is done wrong.
pub const ALL: &[&str] = &[
    "repeat_is_new",
    "ids_without_case",
    "window_off_by_one",
    "no_rearranging",
    "left_over_is_forgotten",
    "any_request_id_proves",
    "row_number_ignored",
    "row_id_is_identity",
    "covered_before_settled",
    "covered_too_early",
    "agreed_is_joined",
    "late_row_skipped",
    "remainder_of_before_the_batch",
    "rate_of_now",
    "refund_rounded_down",
    "refund_of_a_used_charge",
    "dispute_never_ends",
    "correction_skipped",
    "key_grace_ignored",
    "former_owner_ignored",
    "unpaid_is_forgotten",
    "clock_heard_long_ago",
    "waiting_rows_prove",
    "rivals_share_a_partner",
];

#[cfg(feature = "failpoints")]
mod switch {
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Place in `ALL`, from 1 on; 0: none.
    static ON: AtomicUsize = AtomicUsize::new(0);

    /// Whether this one is on.
    pub fn is_on(name: &'static str) -> bool {
        let on = ON.load(Ordering::Relaxed);
        debug_assert!(super::ALL.contains(&name), "{name} is missing in planted::ALL");
        on > 0 && super::ALL[on - 1] == name
    }

    /// Switches one on in place of any other, or all off. For this whole process.
    pub fn switch(name: Option<&str>) {
        let place = name.and_then(|name| super::ALL.iter().position(|known| *known == name));
        ON.store(place.map_or(0, |place| place + 1), Ordering::Relaxed);
    }
}

#[cfg(feature = "failpoints")]
pub use switch::{is_on, switch};

/// Nothing is planted in a release.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn is_on(_name: &'static str) -> bool {
    false
}
