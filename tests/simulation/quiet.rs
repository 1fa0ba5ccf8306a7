//! The end of a scenario: nothing is broken any more, everything is sent that was to come, and time passes.

use super::driver::Driver;
use super::scenario::{Road, Step};
use super::world::Told;

impl Driver {
    /// Until nothing can change any more.
    pub async fn become_quiet(&mut self) {
        self.heal();
        self.world.set_skew(0);
        let rows_are_there = self.world.log.last_visible_at();
        self.world.wait(rows_are_there - self.world.now + 1);
        // A sender that got no answer goes on asking.
        let unanswered = self.world.calls.iter().filter(|made| made.told == Told::Unknown);
        for call in unanswered.map(|made| made.call.id).collect::<Vec<_>>() {
            self.quietly(Step::Deliver { calls: vec![call], road: Road::Settle }).await;
        }
        self.look_around().await;
        self.quietly(Step::Recheck).await;
        // In this time everything is read that was only proved.
        let rest = self.world.rules.full_read_secs * 3 / 5;
        for _ in 0..3 {
            self.world.wait(rest.max(self.world.rules.lookback_secs + 1));
            self.quietly(Step::Pass { reads_all: false }).await;
        }
        self.look_around().await;
        self.quietly(Step::Recheck).await;
        self.quietly(Step::Pass { reads_all: true }).await;
    }

    async fn look_around(&mut self) {
        for step in [Step::LookAtTokens, Step::SettleDue, Step::SettleWoken] {
            self.quietly(step).await;
        }
    }

    async fn quietly(&mut self, step: Step) {
        let text = self.must_do(&step).await;
        self.trace.push(format!("quiet {step:?} -> {text}"));
    }
}
