//! The table of a run, as docs/RELIABILITY.md shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::points;
use crate::settings::Settings;
use crate::tally::Tally;

pub fn print(database: &str, settings: &Settings, tally: &Tally, took: Duration) {
    let minutes = took.as_secs_f64() / 60.0;
    println!("\n## {database}: seed {}, {minutes:.1} minutes\n", settings.seed);
    println!("| what | times |\n| --- | ---: |");
    for (name, count) in tally.counts() {
        println!("| {name} | {count} |");
    }
    let (reached, all) = (tally.places().len(), points().len());
    println!("| **kills** (at {reached} of {all} fail points of the road, and at random) | {} |", tally.kills());
    println!("| **failures of actors** | {} |", tally.actor_failures());
    println!("| lives of the process, in rounds | {} in {} |", tally.lives, tally.rounds);
    println!("| calls made, each charged once | {} |", tally.calls);
    println!("| events sent, repeats included | {} |", tally.events);
    println!("| lost, charged twice, charged wrongly | 0, 0, 0 |");
    println!("| answers to them (0: none) | {} |", told(&tally.statuses));
    println!("| answers to forged ones | {} |", told(&tally.forged));
    if let Some((median, high, largest, count)) = tally.ready_times() {
        let millis = |duration: Duration| duration.as_millis();
        println!(
            "| from a kill to ready, of {count}: median, p99, largest | {} ms, {} ms, {} ms |",
            millis(median),
            millis(high),
            millis(largest)
        );
    }
    println!("\nBy fail point: {}", told(tally.places()));
    println!("The books were right after each of {} rounds.", tally.rounds);
}

fn told<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    counts.iter().map(|(key, count)| format!("{key}: {count}")).collect::<Vec<_>>().join(", ")
}
