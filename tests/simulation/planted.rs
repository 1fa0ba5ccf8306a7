//! Whether the simulation finds what is wrong: small wrong changes, switched on one at a time.

use hookledger::domain::planted;

use super::run::run_seed;
use super::seeds::{alone, setting};

/// A seed that finds each of them, and that holds without it.
const FOUND_BY: &[(&str, u64)] = &[
    ("repeat_is_new", 11),
    ("ids_without_case", 1),
    ("window_off_by_one", 1),
    ("no_rearranging", 8),
    ("left_over_is_forgotten", 29),
    ("any_request_id_proves", 1),
    ("row_number_ignored", 3),
    ("row_id_is_identity", 11),
    ("covered_before_settled", 1),
    ("covered_too_early", 1),
    ("agreed_is_joined", 96),
    ("late_row_skipped", 21),
    ("remainder_of_before_the_batch", 2),
    ("rate_of_now", 4),
    ("refund_rounded_down", 39),
    ("refund_of_a_used_charge", 23),
    ("dispute_never_ends", 115),
    ("correction_skipped", 19),
    ("key_grace_ignored", 479),
    ("former_owner_ignored", 118),
    ("unpaid_is_forgotten", 13),
    ("clock_heard_long_ago", 1686),
    ("waiting_rows_prove", 1252),
    ("rivals_share_a_partner", 1419),
];

/// So many seeds may a planted bug take.
const MOST_SEEDS: u64 = 10_000;

async fn finds(name: &str, seed: u64) -> bool {
    planted::switch(Some(name));
    let outcome = run_seed(seed).await;
    planted::switch(None);
    !outcome.wrong.is_empty()
}

#[test]
fn each_is_found() {
    alone(async {
        let known: Vec<&str> = FOUND_BY.iter().map(|(name, _)| *name).collect();
        assert_eq!(known, planted::ALL, "each planted bug has its seed: make simulate-planted finds it");
        for (name, seed) in FOUND_BY {
            assert!(
                finds(name, *seed).await,
                "seed {seed} no longer finds {name}: make simulate-planted finds another"
            );
            let outcome = run_seed(*seed).await;
            assert!(outcome.wrong.is_empty(), "seed {seed} fails without {name}: {:?}", outcome.wrong);
        }
    });
}

#[test]
#[ignore = "by hand: make simulate-planted"]
fn find_each() {
    let first = setting("SIMULATE_SEED").unwrap_or(1);
    let (part, parts) = (setting("SIMULATE_PART").unwrap_or(0), setting("SIMULATE_PARTS").unwrap_or(1));
    alone(async {
        let mut missed = Vec::new();
        for (place, name) in planted::ALL.iter().enumerate() {
            if place as u64 % parts != part {
                continue;
            }
            let mut found = None;
            for seed in first..first + MOST_SEEDS {
                if finds(name, seed).await {
                    found = Some(seed);
                    break;
                }
            }
            match found {
                Some(seed) => eprintln!("    (\"{name}\", {seed}), // took {} seeds", seed - first + 1),
                None => missed.push(*name),
            }
        }
        assert!(missed.is_empty(), "not found within {MOST_SEEDS} seeds: {missed:?}");
    });
}
