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
    /// The submission and what it cost beyond that.
    charges: Vec<&'a Made>,
    /// Units that rows ask back.
    asked: Vec<i64>,
}

/// What is wrong with what went back.
pub fn judge(world: &World, books: &Books) -> Vec<String> {
    // Least and most that goes back to each user.
    let mut expected: BTreeMap<String, (i128, i128)> = BTreeMap::new();
    for task in tasks(world).values() {
        let Some(submission) = task.submission else { continue };
        let (least, most) = task.goes_back(world);
        let (user, least) = match world.payer(submission.call.token, submission.second) {
            Payer::Must(user) => (user, least),
            Payer::Maybe(user) => (user, 0),
            Payer::Nobody => continue,
        };
        let sum = expected.entry(user_name(user)).or_default();
        *sum = (sum.0 + least, sum.1 + most);
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

impl Task<'_> {
    /// Least and most. What asks for more than is left stays open: such a task asks for all of it twice.
    fn goes_back(&self, world: &World) -> (i128, i128) {
        let rate = |made: &Made| world.rates.at(made.second);
        let price = |units: i64, made: &Made| femtos(units, rate(made), world.rules.quota_per_unit);
        let taken: i64 = self.charges.iter().map(|made| made.call.units).sum();
        let all: i128 = self.charges.iter().map(|made| price(made.call.units, made)).sum();
        let Some(first) = self.charges.first() else { return (0, 0) };
        let payer = |made: &Made| world.payer(made.call.token, made.second);
        if self.charges.iter().any(|made| payer(made) != payer(first)) {
            return (0, all);
        }
        if self.asked.contains(&taken) {
            return (all, all);
        }
        // A part of charges at several rates is left to a person.
        match self.charges.iter().all(|made| rate(made) == rate(first)) {
            true => {
                let units = self.asked.iter().sum::<i64>().min(taken);
                (price(units, first), price(units, first))
            }
            false => (0, all),
        }
    }
}

fn tasks(world: &World) -> BTreeMap<usize, Task<'_>> {
    let mut tasks: BTreeMap<usize, Task> = BTreeMap::new();
    for made in &world.calls {
        match made.call.task {
            Some(TaskPart::Submission { task, .. }) => {
                let task = tasks.entry(task).or_default();
                task.submission = Some(made);
                task.charges.insert(0, made);
            }
            Some(TaskPart::Further { task, .. }) => tasks.entry(task).or_default().charges.push(made),
            Some(TaskPart::Refund { task, .. }) => tasks.entry(task).or_default().asked.push(made.call.units),
            None => {}
        }
    }
    tasks
}
