//! What asynchronous tasks give back: each task at most what it took, at the rate of its submission.

use std::collections::BTreeMap;

use super::books::Books;
use super::ownership::user_name;
use super::prices::femtos;
use super::scenario::TaskPart;
use super::world::{Made, Payer, World};

/// Shares of a price are rounded by themselves.
const ROUNDED_FEMTOS: i128 = 64;

#[derive(Default)]
struct Task<'a> {
    submission: Option<&'a Made>,
    taken: i64,
    asked: i64,
}

/// What is wrong with what went back.
pub fn judge(world: &World, books: &Books) -> Vec<String> {
    // Least and most that goes back to each user.
    let mut expected: BTreeMap<String, (i128, i128)> = BTreeMap::new();
    for task in tasks(world).values() {
        let Some(submission) = task.submission else { continue };
        // What asks for more than was taken stays open: such a task asks for all of it twice.
        let units = task.asked.min(task.taken);
        let amount = femtos(units, world.rates.at(submission.second), world.rules.quota_per_unit);
        let (user, least) = match world.payer(submission.call.token, submission.second) {
            Payer::Must(user) => (user, amount),
            Payer::Maybe(user) => (user, 0),
            Payer::Nobody => continue,
        };
        let sum = expected.entry(user_name(user)).or_default();
        *sum = (sum.0 + least, sum.1 + amount);
    }
    let mut found: BTreeMap<String, i128> = BTreeMap::new();
    for refund in &books.refunds {
        *found.entry(refund.user.clone()).or_default() += refund.femtos;
        expected.entry(refund.user.clone()).or_default();
    }
    let is_right = |user: &String, (least, most): (i128, i128)| {
        let found = found.get(user).copied().unwrap_or_default();
        (least - ROUNDED_FEMTOS..=most + ROUNDED_FEMTOS).contains(&found)
    };
    let off = expected.into_iter().filter(|(user, sums)| !is_right(user, *sums));
    off.map(|(user, (least, most))| {
        let found = found.get(&user).copied().unwrap_or_default();
        format!("{user} got {found} femtos back instead of {least} to {most}")
    })
    .collect()
}

fn tasks(world: &World) -> BTreeMap<usize, Task<'_>> {
    let mut tasks: BTreeMap<usize, Task> = BTreeMap::new();
    for made in &world.calls {
        match made.call.task {
            Some(TaskPart::Submission { task, .. }) => {
                let task = tasks.entry(task).or_default();
                task.submission = Some(made);
                task.taken += made.call.units;
            }
            Some(TaskPart::Further { task, .. }) => tasks.entry(task).or_default().taken += made.call.units,
            Some(TaskPart::Refund { task, .. }) => tasks.entry(task).or_default().asked += made.call.units,
            None => {}
        }
    }
    tasks
}
