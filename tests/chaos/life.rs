//! One life of the daemon, from a start to an end, with what happens in between.

use std::fs;
use std::time::Duration;

use crate::chaos::Chaos;
use crate::kit::wait::{Deadline, Stopwatch, pause};
use crate::plan::{Ending, Plan};
use crate::tally::{ACTOR, GAVE_UP, KILL_RANDOM, KILL_START, OTHER_EXIT, TERMINATED};

const READY_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// As a shell shows an end by SIGABRT, which is how a fail point kills.
const ABORTED: i32 = 134;
const SUPERVISOR_GAVE_UP: i32 = 70;

const HANG_TIMEOUT: &str = "HOOKLEDGER__SUPERVISOR__HANG_TIMEOUT";

/// Between two looks whether a start has come to something.
const LOOK: Duration = Duration::from_millis(5);

impl Chaos {
    /// A life after the plan. The daemon does not run before, nor after.
    pub fn live(&mut self, plan: &Plan) {
        self.tally.lives += 1;
        self.rig.daemon.set_environment(HANG_TIMEOUT, "1500ms");
        if plan.fail_points.is_empty() {
            self.rig.daemon.unset_environment("FAILPOINTS");
        } else {
            self.rig.daemon.set_environment("FAILPOINTS", &plan.fail_points);
        }
        if plan.is_clock_put_right {
            self.rig.daemon.clock().set_offset_millis(self.latest_offset_millis);
        }
        let mut hold = plan.starts_locked.then(|| self.rig.daemon.books().hold_writers());
        self.rig.daemon.launch();
        if hold.is_some() {
            self.tally.count("started while another program locks the database");
            pause(Duration::from_millis(300));
            hold = None;
            self.down_since = None;
        }
        drop(hold);
        if plan.ending == Ending::KillStarting {
            pause(Duration::from_millis(plan.millis));
            return self.kill(KILL_START);
        }
        if let Some(code) = self.wait_ready_or_end() {
            return self.ended(code, plan);
        }
        if let Some(code) = self.go_through(plan) {
            return self.ended(code, plan);
        }
        match plan.ending {
            Ending::Terminate => self.terminate(plan),
            _ => self.kill(KILL_RANDOM),
        }
    }

    /// A life without faults, from which the next round takes over.
    pub fn live_well(&mut self) {
        self.rig.daemon.unset_environment("FAILPOINTS");
        // Nobody starts it again where a busy machine looked like a hang.
        self.rig.daemon.set_environment(HANG_TIMEOUT, "15s");
        self.rig.daemon.launch();
        let end = self.wait_ready_or_end();
        assert_eq!(end, None, "a daemon without faults ended:\n{}", self.log_tail());
    }

    pub fn kill(&mut self, name: &str) {
        let since = Stopwatch::start();
        self.rig.daemon.kill();
        // It may have been quicker.
        match self.rig.daemon.wait_exit(Duration::ZERO) {
            Some(SUPERVISOR_GAVE_UP) => self.gave_up(),
            _ => self.tally.count(name),
        }
        self.after_the_end(since);
    }

    /// The code with which it ended instead of getting ready.
    fn wait_ready_or_end(&mut self) -> Option<i32> {
        let deadline = Deadline::after(READY_TIMEOUT);
        loop {
            if self.rig.daemon.is_ready() {
                if let Some(since) = self.down_since.take() {
                    self.tally.ready_after(since.elapsed());
                }
                return None;
            }
            if let Some(code) = self.rig.daemon.wait_exit(Duration::ZERO) {
                return Some(code);
            }
            assert!(!deadline.has_passed(), "not ready within {READY_TIMEOUT:?}:\n{}", self.log_tail());
            pause(LOOK);
        }
    }

    /// The code with which it ended before its time.
    fn go_through(&mut self, plan: &Plan) -> Option<i32> {
        let parts = plan.disturbances.len() as u64 + 1;
        let part = Duration::from_millis(plan.millis / parts);
        for disturbance in &plan.disturbances {
            let is_of_the_point = matches!(plan.ending, Ending::AtPoint(_));
            let first = if is_of_the_point { Duration::from_millis(50) } else { part };
            if let Some(code) = self.rig.daemon.wait_exit(first) {
                return Some(code);
            }
            self.disturb(*disturbance);
        }
        self.rig.daemon.wait_exit(part)
    }

    fn ended(&mut self, code: i32, plan: &Plan) {
        // A fail point says nothing as it kills; a panic that cannot unwind aborts as well.
        let is_silent = !self.log_tail().ends_with("aborting.");
        match (code, plan.ending) {
            (ABORTED, Ending::AtPoint(place)) if is_silent => self.tally.killed_at(place),
            (SUPERVISOR_GAVE_UP, _) => self.gave_up(),
            _ => {
                self.tally.count(OTHER_EXIT);
                panic!("the daemon ended with {code} in {plan:?}:\n{}", self.log_tail());
            }
        }
        self.after_the_end(Stopwatch::start());
    }

    fn terminate(&mut self, plan: &Plan) {
        self.rig.daemon.signal("TERM");
        match self.rig.daemon.wait_exit(STOP_TIMEOUT) {
            Some(0) => self.tally.count(TERMINATED),
            Some(SUPERVISOR_GAVE_UP) => self.gave_up(),
            end => panic!("SIGTERM ended the daemon with {end:?} in {plan:?}:\n{}", self.log_tail()),
        }
        self.after_the_end(Stopwatch::start());
        self.down_since = None; // a figure of kills
    }

    fn after_the_end(&mut self, since: Stopwatch) {
        self.down_since = Some(since);
        for end in self.actor_log.new_ends() {
            let cause = match end.cause.as_str() {
                "panic" => "panicked",
                "error" => "failed",
                "hang" => "hung",
                _ => "stopped",
            };
            self.tally.count(&format!("{ACTOR}{} {cause}", end.actor));
        }
    }

    /// The next start would wait for a second or more, as it should; a run has no time for that.
    fn gave_up(&mut self) {
        self.tally.count(GAVE_UP);
        let log = self.rig.daemon.output().stderr;
        let said = log.lines().rev().find(|line| line.contains("70") || line.contains("gives up")).unwrap_or_default();
        println!("exit 70: {said}");
        fs::remove_file(self.rig.daemon.state_folder().join("gave-up.json")).ok();
    }

    pub fn log_tail(&self) -> String {
        let log = self.rig.daemon.output().stderr;
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}
