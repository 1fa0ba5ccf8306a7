//! Runs a scenario to its verdict, and makes a failing one small.

use std::collections::BTreeSet;

use hookledger::audit::{AuditOptions, audit};
use hookledger::storage::Store;

use super::books::Books;
use super::driver::Driver;
use super::generate::scenario;
use super::scenario::{Scenario, Step, TaskPart};
use super::verdict;

/// What a scenario came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What must not be; empty if all is well.
    pub wrong: Vec<String>,
    pub trace: Vec<String>,
}

/// Runs of a failing scenario until it counts as small.
const MOST_TRIES: usize = 400;

pub async fn run(scenario: &Scenario) -> Outcome {
    let mut driver = Driver::begin(scenario).await;
    driver.run(&scenario.steps).await;
    driver.become_quiet().await;
    let books = Books::read(&mut driver.own).await;
    let mut wrong = std::mem::take(&mut driver.wrong);
    wrong.extend(verdict::judge(&driver.world, &books));
    wrong.extend(audited(driver.store.as_ref()).await);
    Outcome { wrong, trace: std::mem::take(&mut driver.trace) }
}

/// What the audit says of the books: nothing differs, and nobody else wrote.
async fn audited(store: &dyn Store) -> Vec<String> {
    match audit(store, AuditOptions::default()).await {
        Ok(report) if report.is_whole(true) => Vec::new(),
        Ok(report) => {
            let told = report.differences.iter().chain(&report.of_others);
            told.map(|difference| format!("the audit finds {:?}: {}", difference.kind, difference.says)).collect()
        }
        Err(error) => vec![format!("the audit fails: {error}")],
    }
}

pub async fn run_seed(seed: u64) -> Outcome {
    run(&scenario(seed)).await
}

/// What is wrong, without its figures and names: that a smaller scenario fails in another way says nothing.
fn kinds(wrong: &[String]) -> BTreeSet<String> {
    let is_said = |letter: &char| letter.is_alphabetic() || *letter == ' ';
    wrong.iter().map(|text| text.rsplit(": ").next().unwrap_or(text).chars().filter(is_said).collect()).collect()
}

/// Nothing comes of a task that was never submitted.
fn with_submissions(steps: Vec<Step>) -> Vec<Step> {
    let part = |step: &Step| match step {
        Step::Call(call) => call.task,
        _ => None,
    };
    let submitted = |part: TaskPart| match part {
        TaskPart::Submission { task, .. } => Some(task),
        _ => None,
    };
    let tasks: BTreeSet<usize> = steps.iter().filter_map(part).filter_map(submitted).collect();
    let is_left = |step: &Step| match part(step) {
        Some(TaskPart::Further { task, .. } | TaskPart::Refund { task, .. }) => tasks.contains(&task),
        _ => true,
    };
    steps.into_iter().filter(is_left).collect()
}

/// Leaves out what the failure does not need: halves first, then single steps.
pub async fn shrink(failing: &Scenario) -> Scenario {
    let mut smallest = failing.clone();
    let wanted = kinds(&run(failing).await.wrong);
    let mut tries = 0;
    let mut length = smallest.steps.len().div_ceil(2);
    while length > 0 {
        let mut from = 0;
        let mut has_shrunk = false;
        while from < smallest.steps.len() && tries < MOST_TRIES {
            tries += 1;
            let mut steps: Vec<Step> = smallest.steps.clone();
            steps.drain(from..(from + length).min(steps.len()));
            let fewer = Scenario { steps: with_submissions(steps), ..smallest.clone() };
            if kinds(&run(&fewer).await.wrong).is_disjoint(&wanted) {
                from += length;
            } else {
                smallest = fewer;
                has_shrunk = true;
            }
        }
        if length == 1 && (!has_shrunk || tries >= MOST_TRIES) {
            break;
        }
        length = (length / 2).max(1);
    }
    smallest
}

/// What a person needs of a failing seed.
pub async fn report(seed: u64) -> String {
    let whole = scenario(seed);
    let small = shrink(&whole).await;
    let outcome = run(&small).await;
    format!(
        "seed {seed} fails, {} of its {} steps are enough:\n  {}\n{:?}\n{}\nreplay it: make simulate SEED={seed} N=1\n",
        small.steps.len(),
        whole.steps.len(),
        outcome.wrong.join("\n  "),
        small.rules,
        outcome.trace.join("\n"),
    )
}
