//! From a seed to a scenario: the rules of its world, and steps that use what those allow.

use super::random::Random;
use super::rules::{point, rules};
use super::scenario::{Call, LogFault, Naming, Road, Rules, Scenario, Step, TaskPart, Telling};

struct Generator {
    random: Random,
    rules: Rules,
    steps: Vec<Step>,
    next_call: usize,
    next_task: usize,
    /// Of owners and rates: calls of two epochs are never equal.
    epoch: i64,
    shapes: Vec<Shape>,
    /// Events that are still to be sent, and those that were.
    unsent: Vec<usize>,
    sent: Vec<usize>,
    loss_percent: u64,
    delay_percent: u64,
    lag_secs: i64,
    stamp_spread_ms: i64,
    webhooks_are_on: bool,
    /// Submissions whose money may go back: task, token, units.
    open_tasks: Vec<(usize, usize, i64)>,
}

#[derive(Clone, Copy)]
struct Shape {
    model: usize,
    prompt: i64,
    completion: i64,
    units: i64,
}

pub fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let rules = rules(&mut random);
    let mut generator = Generator {
        shapes: Vec::new(),
        loss_percent: random.pick(&[0, 10, 30, 60, 100]),
        delay_percent: random.pick(&[0, 10, 50]),
        lag_secs: random.pick(&[0, 3, rules.lookback_secs - 2, rules.lookback_secs * 3]),
        stamp_spread_ms: random.pick(&[0, 0, 1, rules.match_window_secs]) * 1000,
        steps: Vec::new(),
        next_call: 0,
        next_task: 0,
        epoch: 0,
        unsent: Vec::new(),
        sent: Vec::new(),
        webhooks_are_on: true,
        open_tasks: Vec::new(),
        rules,
        random,
    };
    generator.choose_shapes();
    for _ in 0..generator.random.range(4, 18) {
        generator.moment();
    }
    if !generator.open_tasks.is_empty() {
        generator.end_tasks();
    }
    Scenario { rules: generator.rules, steps: generator.steps }
}

impl Generator {
    fn choose_shapes(&mut self) {
        let count = self.random.range(1, 3);
        for _ in 0..count {
            let shape = Shape {
                model: self.random.index(2),
                prompt: self.random.range(1, 2),
                completion: self.random.range(0, 1),
                units: self.random.pick(&[0, 1, 7, 250, 251, 500, 113_007, 5_000_001]),
            };
            self.shapes.push(shape);
        }
        // Alike, and not equal.
        if self.random.chance(50) {
            let twin = Shape { units: self.shapes[0].units + 9, ..self.shapes[0] };
            self.shapes.push(twin);
        }
    }

    fn moment(&mut self) {
        match self.random.range(0, 99) {
            0..=41 => self.burst(),
            42..=49 => self.send_late(),
            50..=53 => self.repeat(),
            54..=63 => self.read(),
            64..=67 => self.look(),
            68..=73 => self.pause(),
            74..=81 => self.break_something(),
            82..=84 => self.steps.push(Step::Restart),
            85..=87 => self.trouble_the_log(),
            88..=90 => self.move_the_clock(),
            91..=94 => self.change_owner(),
            95..=96 => self.change_rate(),
            _ => self.task(),
        }
    }

    /// Some calls, mostly at once; their events, mostly at once.
    fn burst(&mut self) {
        let token = self.random.index(self.rules.tokens.len());
        let mut shape = self.random.pick(&self.shapes.clone());
        if !matches!(self.rules.telling, Telling::Exact | Telling::RoundedWithIds) {
            // Nothing else looks like these.
            shape = Shape { prompt: 100 + self.next_call as i64, units: shape.units * 10 + 7, ..shape };
        }
        shape.prompt += self.epoch * 100_000;
        let before_ms = self.event_before_ms();
        let mut fresh = Vec::new();
        for number in 0..self.random.pick(&[1, 1, 1, 2, 2, 3, 5]) {
            let is_same_burst = self.rules.telling != Telling::Exact;
            if number > 0 && !is_same_burst && self.random.chance(50) {
                let secs = self.random.pick(&[1, 2, self.rules.match_window_secs, self.rules.match_window_secs + 1]);
                self.steps.push(Step::Wait(secs));
            }
            let before_ms = if is_same_burst { before_ms } else { self.event_before_ms() };
            let call = self.call(token, shape, before_ms);
            if self.webhooks_are_on && !self.random.chance(self.loss_percent) {
                match self.random.chance(self.delay_percent) {
                    true => self.unsent.push(call.id),
                    false => fresh.push(call.id),
                }
            }
            self.steps.push(Step::Call(call));
        }
        self.send(fresh);
        if self.random.chance(60) {
            let secs = self.random.pick(&[1, 5, 30, 61]);
            self.steps.push(Step::Wait(secs));
        }
    }

    fn event_before_ms(&mut self) -> i64 {
        let window_ms = self.rules.match_window_secs * 1000;
        match self.rules.telling {
            Telling::Early => {
                let most = self.rules.dispute_window_secs * 1000 - 1;
                self.random.pick(&[window_ms + 1, window_ms + 30_000, most])
            }
            _ => match self.random.range(0, 4) {
                0 => self.stamp_spread_ms,
                1 => -self.stamp_spread_ms,
                2 if self.stamp_spread_ms > 0 => self.random.range(-self.stamp_spread_ms, self.stamp_spread_ms),
                _ => 0,
            },
        }
    }

    fn call(&mut self, token: usize, shape: Shape, event_before_ms: i64) -> Call {
        let id = self.next_call;
        self.next_call += 1;
        let event_units = match self.rules.telling {
            Telling::Exact | Telling::Early => shape.units,
            Telling::Rounded | Telling::RoundedWithIds => (shape.units + 50) / 100 * 100,
            Telling::Credits => shape.units % 100,
        };
        let is_lost = self.rules.loses_rows && self.random.chance(30);
        let row_after_secs =
            (!is_lost).then(|| if self.random.chance(40) { self.random.range(0, self.lag_secs) } else { 0 });
        let has_event_id = match self.rules.naming {
            Naming::RequestIds(percent) => self.random.chance(percent),
            _ => false,
        };
        Call {
            id,
            token,
            model: shape.model,
            prompt: shape.prompt,
            completion: shape.completion,
            units: shape.units,
            event_units,
            event_before_ms,
            has_event_id,
            row_after_secs,
            task: None,
        }
    }

    fn send(&mut self, mut calls: Vec<usize>) {
        if calls.is_empty() {
            return;
        }
        self.random.shuffle(&mut calls);
        self.sent.extend(&calls);
        let road = if self.random.chance(80) { Road::Settle } else { Road::Record };
        match self.random.chance(50) {
            true => self.steps.push(Step::Deliver { calls, road }),
            false => calls.into_iter().for_each(|call| self.steps.push(Step::Deliver { calls: vec![call], road })),
        }
    }

    fn send_late(&mut self) {
        let mut late = std::mem::take(&mut self.unsent);
        self.random.shuffle(&mut late);
        let kept = self.random.index(late.len() + 1);
        self.unsent = late.split_off(late.len() - kept.min(late.len()));
        self.send(late);
    }

    fn repeat(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let calls: Vec<usize> = (0..self.random.range(1, 3)).map(|_| self.random.pick(&self.sent.clone())).collect();
        if self.rules.logs_kept_secs.is_none() && self.random.chance(30) {
            self.steps.push(Step::Tamper(calls[0]));
        } else {
            self.send(calls);
        }
    }

    fn read(&mut self) {
        if self.random.chance(50) {
            let secs = self.random.pick(&[11, self.rules.lookback_secs + 1, self.rules.lookback_secs * 2]);
            self.steps.push(Step::Wait(secs));
        }
        let step = match self.random.range(0, 9) {
            0 => Step::Recheck,
            1..=4 => Step::Pass { reads_all: true },
            _ => Step::Pass { reads_all: false },
        };
        self.steps.push(step);
    }

    fn look(&mut self) {
        let step = match self.random.range(0, 10) {
            10 if self.rules.naming != Naming::LogIds => Step::Renumber,
            0..=3 => Step::SettleDue,
            4 => Step::SettleWoken,
            5 => Step::LookAtTokens,
            6 => Step::LookAtPrices,
            7 => Step::Retain,
            8 => {
                self.webhooks_are_on = !self.webhooks_are_on;
                Step::LookAtTokens
            }
            _ => Step::Truncate { restarts_ids: self.rules.naming != Naming::LogIds && self.random.chance(50) },
        };
        self.steps.push(step);
    }

    fn pause(&mut self) {
        let secs = self.random.pick(&[5, 60, 600, 1200, 4000, 7500]);
        self.steps.push(Step::Wait(secs));
    }

    fn break_something(&mut self) {
        let point = point(&mut self.random);
        let (panics, after) = (self.random.chance(40), self.random.pick(&[0, 0, 0, 1, 2]));
        self.steps.push(Step::Break { point, panics, after });
        let is_restarted = self.random.chance(40);
        match point.split('.').next() {
            Some("polling") => self.read(),
            _ if point.starts_with("store.task") => self.read(),
            _ => self.burst(),
        }
        if is_restarted {
            self.steps.push(Step::Restart);
        }
    }

    fn trouble_the_log(&mut self) {
        let count = self.random.range(1, 4) as u32;
        let fault = match self.random.range(0, 3) {
            0 => LogFault::Fails(count),
            1 => LogFault::FailsAfter(count),
            2 => LogFault::SumsAreZero(count),
            _ => LogFault::Shifts(count),
        };
        self.steps.push(Step::Log(fault));
        self.read();
    }

    fn move_the_clock(&mut self) {
        let skew = self.random.pick(&[0, 0, -120, -3600, 300, 7200, 90_000]);
        self.rules.jumps_ahead |= skew > 0;
        self.steps.push(Step::SetClock(skew));
    }

    fn change_owner(&mut self) {
        if matches!(self.rules.telling, Telling::Early | Telling::RoundedWithIds)
            && self.rules.tokens.iter().all(Option::is_some)
        {
            return;
        }
        let token = self.random.index(self.rules.tokens.len());
        let user = self.random.index(self.rules.balances.len());
        if self.rules.tokens[token].is_none() {
            self.epoch += 1;
            self.steps.push(Step::GiveKey { token, user });
            return;
        }
        if matches!(self.rules.telling, Telling::Early | Telling::RoundedWithIds) {
            return;
        }
        self.epoch += 1;
        let first_stays = self.random.chance(50);
        self.steps.push(match self.random.range(0, 4) {
            0 => Step::RePoint { token, user },
            1 => Step::HandOver { token, user },
            2 | 3 => Step::Share { token, user },
            _ => Step::Unshare { token, first_stays },
        });
        if self.random.chance(50) {
            self.burst();
            self.epoch += 1;
            self.steps.push(Step::Unshare { token, first_stays });
        }
    }

    fn change_rate(&mut self) {
        if self.rules.telling == Telling::Early {
            return;
        }
        self.epoch += 1;
        let rate = self.random.pick(&[1_000_000_000, 2_000_000_000, 123_456, 7_250_000]);
        self.steps.push(Step::SetRate(rate));
    }

    /// Submissions of one price; or what becomes of some that were made.
    fn task(&mut self) {
        if self.rules.telling != Telling::Exact || self.rules.loses_rows {
            return;
        }
        if self.open_tasks.is_empty() || self.random.chance(40) {
            return self.submit();
        }
        self.end_tasks();
    }

    fn end_tasks(&mut self) {
        let mut tasks = std::mem::take(&mut self.open_tasks);
        self.random.shuffle(&mut tasks);
        for (task, token, stated) in tasks {
            self.end_task(task, token, stated);
        }
    }

    fn submit(&mut self) {
        let token = self.random.index(self.rules.tokens.len());
        let units = 2_000 + self.next_call as i64 * 17 + self.epoch;
        let named = self.random.chance(50);
        let shape = Shape { model: 2, prompt: 0, completion: 0, units };
        for _ in 0..self.random.range(1, 3) {
            let task = self.next_task;
            self.next_task += 1;
            let before_ms = 0;
            let call = Call { task: Some(TaskPart::Submission { task, named }), ..self.call(token, shape, before_ms) };
            self.open_tasks.push((task, token, units));
            if !self.random.chance(self.loss_percent) {
                self.unsent.push(call.id);
            }
            self.steps.push(Step::Call(call));
        }
        self.send_late();
        let secs = self.random.pick(&[1, 20, 700]);
        self.steps.push(Step::Wait(secs));
    }

    fn end_task(&mut self, task: usize, token: usize, stated: i64) {
        let mut taken = stated;
        let as_negative = self.random.chance(30);
        if self.random.chance(30) && !self.rules.rounds_to_nearest {
            let shape = Shape { model: 2, prompt: 0, completion: 0, units: 900_000 + self.next_call as i64 };
            let call = self.call(token, shape, 0);
            self.steps.push(Step::Call(Call { task: Some(TaskPart::Further { task, stated }), ..call }));
            taken += shape.units;
            self.steps.push(Step::Wait(3));
        }
        let parts: Vec<i64> = match self.random.range(0, 4) {
            0 => vec![],
            1 => vec![taken / 3, taken - taken / 3],
            2 => vec![taken / 3],
            // The same refund is written twice: the second finds nothing left.
            3 => vec![taken, taken],
            _ => vec![taken],
        };
        for units in parts {
            let shape = Shape { model: 2, prompt: 0, completion: 0, units };
            let call = self.call(token, shape, 0);
            self.steps.push(Step::Call(Call { task: Some(TaskPart::Refund { task, stated, as_negative }), ..call }));
            self.steps.push(Step::Wait(2));
        }
    }
}
