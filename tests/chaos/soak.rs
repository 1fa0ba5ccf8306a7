//! Hours at an even load with nothing broken: memory and descriptors stay flat, and the books are exact in the end.
//!
//! Webhooks come in, the log is swept, and what is settled is cleared six minutes later.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::chaos::database;
use crate::judge::{assert_audited, own_count, wait_for_quiet};
use crate::kit::process::resident_kib;
use crate::kit::random::Random;
use crate::kit::wait::{Deadline, Stopwatch, pause};
use crate::load::{Load, Misfortunes, Pace};
use crate::rig::Rig;
use crate::settings::Settings;

const SENDERS: u64 = 16;
const BETWEEN_SAMPLES: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(90);
const QUARTERS: usize = 4;
/// What the last quarter may hold beyond the second.
const MOST_GROWTH: f64 = 0.02;
/// Shorter than this says nothing of growth: what a daemon needs at first is still being taken.
const LEAST_JUDGED: Duration = Duration::from_secs(1200);

/// Everything that recurs does so often, and events are cleared while others come in.
const SETTINGS: &[(&str, &str)] = &[
    ("HOOKLEDGER__POLLING__MODE", "auto"),
    ("HOOKLEDGER__POLLING__SWEEP_INTERVAL", "20s"),
    ("HOOKLEDGER__POLLING__LOOKBACK", "20s"),
    ("HOOKLEDGER__POLLING__PROBE_INTERVAL", "10s"),
    ("HOOKLEDGER__WEBHOOK__MAX_AGE", "5m"),
    ("HOOKLEDGER__WEBHOOK__MAX_FUTURE", "10s"),
    ("HOOKLEDGER__RETENTION__WEBHOOK_LOGS", "6m"),
    ("HOOKLEDGER__SUPERVISOR__MAX_RESTARTS", "0"),
    ("HOOKLEDGER__SUPERVISOR__WINDOW", "60s"),
    ("HOOKLEDGER__SUPERVISOR__HANG_TIMEOUT", "15s"),
];

#[derive(Debug, Clone, Copy)]
struct Sample {
    resident_kib: u64,
    descriptors: usize,
}

/// Bounded by `settings.duration`.
pub fn run(settings: &Settings) {
    println!("soak on {} for {:?}, seed {}", database(), settings.duration, settings.seed);
    let random = &mut Random::from_seed(settings.seed);
    let rig = Rig::start(SETTINGS);
    let process = rig.daemon.pid();
    let full_speed = warm_up(&rig, random, settings.duration / 10);
    let asked_for = settings.rate.map_or(full_speed / 2.0, |rate| rate as f64).max(1.0);
    let load = load(&rig, random, Duration::from_secs(SENDERS).div_f64(asked_for));
    let (before, began) = (rig.calls.count(), Stopwatch::start());
    let samples = sample(&rig, &load, process, settings.duration);
    let rate = (rig.calls.count() - before) as f64 / began.elapsed().as_secs_f64();
    let answers = load.close();
    println!("{rate:.0} calls a second of {asked_for:.0} that were asked for");
    wait_for_quiet(&rig);
    let problems = own_count(&rig, 1, &vec![0; rig.users.len()]);
    assert!(problems.is_empty(), "the books are wrong by the run's own count:\n{}", problems.join("\n"));
    assert_audited(&rig);
    assert!(rig.daemon.is_running() && rig.daemon.pid() == process, "the process was not restarted");
    let removed = rig.daemon.metric("hookledger_retention_removed_rows_total{kind=\"processed\"}");
    let runs = rig.daemon.metric("hookledger_poll_runs_total{outcome=\"done\"}");
    println!("{} calls, each charged once; answers {:?}", rig.calls.count(), answers.right);
    println!("{} passes over the log, {} settled events cleared", told(runs), told(removed));
    judge(&samples, settings.duration);
}

/// `between`: of each sender, from one call to the next.
fn load(rig: &Rig, random: &mut Random, between: Duration) -> Load {
    let threads = usize::try_from(SENDERS).expect("they are few");
    let pace = Pace { threads, between, misfortunes: Misfortunes::FEW };
    Load::start(rig.daemon.address(), rig.newapi.handle(), Arc::clone(&rig.calls), pace, random, Arc::default())
}

/// Senders that do not pause fill the caches, which at an even load would take as long as the soak itself. Answers the
/// calls a second.
fn warm_up(rig: &Rig, random: &mut Random, longest: Duration) -> f64 {
    let (duration, began) = (WARM_UP.min(longest), Stopwatch::start());
    let load = load(rig, random, Duration::ZERO);
    pause(duration);
    load.close();
    let (calls, secs) = (rig.calls.count(), began.elapsed().as_secs_f64());
    let full_speed = calls as f64 / secs;
    println!("at full speed: {calls} calls in {secs:.0} s, {full_speed:.0} a second");
    full_speed
}

fn told(metric: Option<f64>) -> String {
    metric.map_or("unknown".to_owned(), |value| format!("{value:.0}"))
}

fn sample(rig: &Rig, load: &Load, process: u32, duration: Duration) -> Vec<Sample> {
    let (deadline, began) = (Deadline::after(duration), Stopwatch::start());
    let mut samples = Vec::new();
    while !deadline.has_passed() {
        pause(BETWEEN_SAMPLES.min(deadline.remaining()));
        load.assert_going();
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).expect("the daemon runs").count();
        let sample = Sample { resident_kib: resident_kib(process), descriptors };
        samples.push(sample);
        if samples.len().is_multiple_of(60) {
            let (minutes, calls) = (began.elapsed().as_secs() / 60, rig.calls.count());
            println!(
                "after {minutes} minutes: {} KiB, {} descriptors, {calls} calls",
                sample.resident_kib, descriptors
            );
        }
    }
    samples
}

/// Prints a row a quarter; panics if the last holds more than the second by too much.
fn judge(samples: &[Sample], duration: Duration) {
    let mean = |values: &[Sample], of: fn(&Sample) -> f64| values.iter().map(of).sum::<f64>() / values.len() as f64;
    let memory = |sample: &Sample| sample.resident_kib as f64;
    let descriptors = |sample: &Sample| sample.descriptors as f64;
    let quarters: Vec<&[Sample]> = samples.chunks(samples.len().div_ceil(QUARTERS).max(1)).collect();
    println!(
        "\n| quarter | memory, mean | largest | descriptors, mean | largest |\n| --- | ---: | ---: | ---: | ---: |"
    );
    for (number, quarter) in quarters.iter().enumerate() {
        let largest = quarter.iter().map(|sample| sample.resident_kib).max().unwrap_or_default();
        let most = quarter.iter().map(|sample| sample.descriptors).max().unwrap_or_default();
        let (memory, descriptors) = (mean(quarter, memory), mean(quarter, descriptors));
        println!("| {} | {memory:.0} KiB | {largest} KiB | {descriptors:.1} | {most} |", number + 1);
    }
    let [_, second, _, last] = quarters[..] else { return println!("too few samples to compare quarters") };
    let growth = |of| mean(last, of) / mean(second, of) - 1.0;
    let (memory, descriptors) = (growth(memory), growth(descriptors));
    println!(
        "\nThe last quarter against the second: memory {:+.2} %, descriptors {:+.2} %",
        memory * 100.0,
        descriptors * 100.0
    );
    let is_judged = duration >= LEAST_JUDGED;
    assert!(!is_judged || (memory < MOST_GROWTH && descriptors < MOST_GROWTH), "memory or descriptors grow");
}
