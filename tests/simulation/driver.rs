//! Carries out a scenario, step by step, through the steps that the daemon's actors call: no actors, no HTTP.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hookledger::actors::{retaining, settling};
use hookledger::config::{Live, Settings};
use hookledger::domain::event::{Delivery, UsageEvent};
use hookledger::domain::money::{QuotaPerUnit, Rate};
use hookledger::domain::outcome::{Failure, RecordOutcome, SettlementOutcome};
use hookledger::domain::retention::RetentionPolicy;
use hookledger::domain::settlement::Purpose;
use hookledger::polling::Source;
use hookledger::storage::{ConfiguredPrices, Store, StoreError, Waiting};

use super::database::{Fresh, Own};
use super::ownership;
use super::scenario::{Road, Scenario, Step};
use super::sender;
use super::world::{BEGINS, Told, World};

/// A scenario at work.
pub struct Driver {
    pub world: World,
    pub database: Fresh,
    pub own: Own,
    pub store: Arc<dyn Store>,
    pub source: Source,
    pub settings: Arc<Settings>,
    pub probed_at: Option<i64>,
    /// Fail points that are set.
    armed: Vec<&'static str>,
    pub trace: Vec<String>,
    /// What must not be, found on the way.
    pub wrong: Vec<String>,
}

/// What a step came to.
pub enum Did {
    Done(String),
    /// It failed, as steps do when somebody breaks them.
    Failed(String),
    Panicked,
}

fn base_settings() -> Settings {
    let environment = [
        ("WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef"),
        ("HOOKLEDGER__DATABASE__URL", "sqlite:///nonexistent/simulation.db"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    hookledger::config::load(None, environment).unwrap().settings
}

fn secs(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(0) as u64)
}

impl Driver {
    pub async fn begin(scenario: &Scenario) -> Self {
        let rules = &scenario.rules;
        let world = World::new(rules);
        let database = Fresh::new(rules, Arc::new(world.clock.clone())).await;
        let own = database.connect().await;
        let mut settings = base_settings();
        let polling = &mut settings.polling;
        polling.match_window = secs(rules.match_window_secs);
        polling.dispute_window = secs(rules.dispute_window_secs);
        polling.lookback = secs(rules.lookback_secs);
        polling.settle_delay = secs(rules.lookback_secs.min(10));
        polling.full_read_interval = secs(rules.full_read_secs);
        polling.recheck = secs(4 * 86_400);
        settings.ledger.key_grace = secs(rules.key_grace_secs);
        let store = database.open(rules, Arc::new(world.clock.clone())).await;
        let source = Source::new(Live::new(settings.clone()));
        let mut driver = Driver {
            world,
            database,
            own,
            store,
            source,
            settings: Arc::new(settings),
            probed_at: None,
            armed: Vec::new(),
            trace: Vec::new(),
            wrong: Vec::new(),
        };
        driver.populate(scenario).await;
        driver
    }

    /// Users and keys, the first prices, and where reading begins: what a start finds and does.
    async fn populate(&mut self, scenario: &Scenario) {
        for (user, credits) in scenario.rules.balances.iter().enumerate() {
            self.own.execute(&ownership::new_user(user, *credits)).await;
        }
        for (token, owner) in scenario.rules.tokens.iter().enumerate() {
            if let Some(user) = owner {
                self.add_key(token, *user, BEGINS - 86_400).await;
            }
        }
        self.set_rate_option(scenario.rules.rate_micros).await;
        self.must_do(&Step::LookAtPrices).await;
        self.must_do(&Step::Pass { reads_all: true }).await;
        self.world.wait(120);
    }

    pub async fn add_key(&mut self, token: usize, user: usize, created: i64) {
        let key = format!("key-{token}-{}", self.world.tokens[token].keys.len());
        self.own.execute(&ownership::new_key(&key, user, token, created)).await;
        self.world.tokens[token].keys.push(key);
    }

    pub async fn set_rate_option(&mut self, micros: i64) {
        let rate = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        self.own.execute("DELETE FROM options WHERE `key` = 'UsdToCreditsRate'").await;
        let sql = format!(
            "INSERT INTO options (`key`, value, updatedAt) VALUES ('UsdToCreditsRate', '{rate}', '2026-11-24')"
        );
        self.own.execute(&sql).await;
    }

    pub async fn run(&mut self, steps: &[Step]) {
        for (number, step) in steps.iter().enumerate() {
            let did = self.take(step).await;
            let text = match did {
                Did::Done(text) => text,
                Did::Failed(text) => format!("failed: {text}"),
                Did::Panicked => "panicked".to_owned(),
            };
            self.trace.push(format!("{number:3} +{:<5} {step:?} -> {text}", self.world.now - BEGINS));
        }
    }

    /// One step, whatever becomes of it. What nobody broke must not fail.
    pub async fn take(&mut self, step: &Step) -> Did {
        self.world.tick();
        let may_fail = !self.armed.is_empty() || self.world.log.is_faulty();
        let done = AssertUnwindSafe(self.carry_out(step)).catch_unwind().await;
        match done {
            Ok(Ok(text)) => Did::Done(text),
            Ok(Err(text)) => {
                if !may_fail {
                    self.wrong.push(format!("{step:?} failed, and nobody broke it: {text}"));
                }
                Did::Failed(text)
            }
            Err(_panic) => {
                if !may_fail {
                    self.wrong.push(format!("{step:?} panicked, and nobody broke it"));
                }
                Did::Panicked
            }
        }
    }

    /// A step that nothing may hinder.
    pub async fn must_do(&mut self, step: &Step) -> String {
        self.heal();
        match self.take(step).await {
            Did::Done(text) => text,
            Did::Failed(text) => format!("failed: {text}"),
            Did::Panicked => "panicked".to_owned(),
        }
    }

    pub fn heal(&mut self) {
        self.armed.drain(..).for_each(fail::remove);
        self.world.log.heal();
    }

    async fn carry_out(&mut self, step: &Step) -> Result<String, String> {
        match step {
            Step::Wait(seconds) => self.world.wait(*seconds),
            Step::Call(call) => self.world.make(call),
            Step::SetClock(skew) => self.world.set_skew(*skew),
            Step::Log(fault) => self.world.log.fault(*fault),
            Step::Deliver { calls, road } => return self.deliver(calls, *road).await,
            Step::Tamper(call) => return self.tamper(*call).await,
            Step::SettleDue => return self.settle_waiting(Waiting::Due).await,
            Step::SettleWoken => return self.settle_waiting(Waiting::Woken).await,
            Step::LookAtTokens => self.store.look_at_tokens().await.map_err(|error| error.to_string())?,
            Step::LookAtPrices => self.look_at_prices().await?,
            Step::Pass { reads_all } => return self.pass(*reads_all, false).await,
            Step::Recheck => return self.pass(true, true).await,
            Step::Retain => return self.retain().await,
            Step::Break { point, panics, after } => self.arm(point, *panics, *after),
            Step::Restart => self.restart().await,
            Step::Renumber => self.world.log.lock().renumber(),
            Step::SetRate(micros) => self.change_rate(*micros).await,
            Step::Truncate { restarts_ids } => return Ok(self.truncate(*restarts_ids).await),
            step => return Ok(self.change_owner(step).await),
        }
        Ok("done".to_owned())
    }

    fn arm(&mut self, point: &'static str, panics: bool, after: u32) {
        let action = if panics { "panic" } else { "return(error)" };
        fail::cfg(point, &format!("{after}*off->1*{action}->off")).unwrap();
        self.armed.push(point);
    }

    /// The process is gone, with what it held in memory, and another one starts.
    async fn restart(&mut self) {
        let clock = Arc::new(self.world.clock.clone());
        self.store = self.database.open(&self.world.rules, clock).await;
        self.source = Source::new(Live::new((*self.settings).clone()));
        self.probed_at = None;
    }

    async fn deliver(&mut self, calls: &[usize], road: Road) -> Result<String, String> {
        let mut events: Vec<(usize, Arc<UsageEvent>)> = Vec::new();
        for id in calls {
            if let Some(event) = self.event(*id) {
                events.push((*id, event));
            }
        }
        if events.is_empty() {
            return Ok("nothing to deliver".to_owned());
        }
        let failed = match road {
            Road::Record => None,
            Road::Settle => match self.settle(&events).await {
                Ok(text) => return Ok(text),
                Err(error) => Some(error),
            },
        };
        // What the ledger could not do, the logger does: the event is safe, and settled later.
        let deliveries = events.iter().map(|(_, event)| Delivery::Usage((**event).clone())).collect();
        match (self.store.record(deliveries).await, failed) {
            (Ok(outcomes), failed) => {
                for ((id, _), outcome) in events.iter().zip(&outcomes) {
                    self.accept(*id, matches!(outcome, RecordOutcome::Conflict));
                }
                let failed = failed.map(|error| format!(" after: {error}")).unwrap_or_default();
                Ok(format!("{}{failed}", recorded(&outcomes)))
            }
            (Err(error), _) => Err(error.to_string()),
        }
    }

    fn event(&mut self, id: usize) -> Option<Arc<UsageEvent>> {
        let (rules, log_id) = (self.world.rules.clone(), self.world.log.id_of(id));
        let made = self.world.find(id)?;
        if made.told == Told::Never {
            made.told = Told::Unknown;
        }
        let second = made.second;
        let body = made.body.get_or_insert_with(|| sender::body(&rules, &made.call, second, log_id)).clone();
        match sender::parsed(&body) {
            Delivery::Usage(event) => Some(Arc::new(event)),
            Delivery::Notice(_) => None,
        }
    }

    async fn settle(&mut self, events: &[(usize, Arc<UsageEvent>)]) -> Result<String, StoreError> {
        let batch = events.iter().map(|(_, event)| event.clone()).collect();
        let outcomes = settling::settle(self.store.as_ref(), batch, Purpose::Delivery).await?;
        for ((id, _), outcome) in events.iter().zip(&outcomes) {
            self.accept(*id, matches!(outcome, SettlementOutcome::Conflict));
            let token = self.world.find(*id).map(|made| made.call.token);
            let Some(token) = token.map(|token| &mut self.world.tokens[token]) else { continue };
            match outcome {
                SettlementOutcome::Settled { .. } | SettlementOutcome::Unpaid { .. } | SettlementOutcome::Waits => {
                    token.is_sighted = true;
                }
                SettlementOutcome::Failed(Failure::UnknownKey(_)) => token.was_seen_unknown = true,
                _ => {}
            }
        }
        Ok(outcomes.iter().map(told).collect::<Vec<_>>().join(", "))
    }

    fn accept(&mut self, id: usize, conflicts: bool) {
        if conflicts {
            self.wrong.push(format!("the event of call {id} contradicts itself"));
        }
        if let Some(made) = self.world.find(id) {
            made.told = Told::Accepted;
        }
    }

    /// An event that is known, with another price: an alarm, and no charge.
    async fn tamper(&mut self, id: usize) -> Result<String, String> {
        let Some(made) = self.world.find(id).filter(|made| made.told == Told::Accepted) else {
            return Ok("not known".to_owned());
        };
        let (mut call, second) = (made.call.clone(), made.second);
        call.event_units += 1_000;
        let body = sender::body(&self.world.rules, &call, second, None);
        let Delivery::Usage(event) = sender::parsed(&body) else { return Ok("no event".to_owned()) };
        let settled = settling::settle(self.store.as_ref(), vec![Arc::new(event)], Purpose::Delivery).await;
        let outcomes = settled.map_err(|error| error.to_string())?;
        if outcomes != [SettlementOutcome::Conflict] {
            self.wrong.push(format!("the event of call {id} with another price came to {outcomes:?}"));
        }
        Ok("conflict".to_owned())
    }

    async fn settle_waiting(&mut self, kind: Waiting) -> Result<String, String> {
        let mut after = None;
        loop {
            let page = settling::settle_waiting(self.store.as_ref(), kind, after, 8).await;
            match page.map_err(|error| error.to_string())?.next {
                None => return Ok("done".to_owned()),
                next => after = next,
            }
        }
    }

    async fn look_at_prices(&mut self) -> Result<(), String> {
        let configured = ConfiguredPrices {
            usd_to_credits: Rate::from_micros(self.world.rules.rate_micros).unwrap(),
            quota_per_unit: QuotaPerUnit::new(self.world.rules.quota_per_unit).unwrap(),
            keeps_quota: false,
            heard: None,
        };
        self.store.look_at_prices(configured).await.map(drop).map_err(|error| error.to_string())
    }

    async fn change_rate(&mut self, micros: i64) {
        self.settle_down().await;
        self.set_rate_option(micros).await;
        self.must_do_now(&Step::LookAtPrices).await;
        let (now, rates) = (self.world.now, &mut self.world.rates);
        rates.seen(now, micros);
        self.world.wait(60 - now.rem_euclid(60) + self.world.rules.match_window_secs + 5);
    }

    /// Before something changes that dates are kept of: our clock is right, and nothing is broken.
    pub async fn settle_down(&mut self) {
        self.heal();
        self.world.set_skew(0);
        // Events may be stamped that much ahead.
        self.world.wait(self.world.rules.match_window_secs + 2);
    }

    /// Within a step: the same, without a look whether it may fail.
    pub async fn must_do_now(&mut self, step: &Step) {
        let done = Box::pin(self.carry_out(step)).await;
        if let Err(error) = done {
            self.wrong.push(format!("{step:?} failed, and nobody broke it: {error}"));
        }
    }

    async fn retain(&mut self) -> Result<String, String> {
        let Some(kept) = self.world.rules.logs_kept_secs else { return Ok("for ever".to_owned()) };
        let policy = RetentionPolicy { webhook_logs: Some(secs(kept)), dead: None, claims: None };
        let now = hookledger::clock::Clock::now(&self.world.clock);
        let cleared = retaining::retain(self.store.as_ref(), &|| policy, now).await;
        cleared.map(|cleared| format!("cleared {}", cleared.processed)).map_err(|error| error.to_string())
    }
}

fn told(outcome: &SettlementOutcome) -> &'static str {
    match outcome {
        SettlementOutcome::Settled { .. } => "settled",
        SettlementOutcome::Unpaid { .. } => "unpaid",
        SettlementOutcome::AlreadySettled => "already settled",
        SettlementOutcome::Tied => "tied",
        SettlementOutcome::Conflict => "conflict",
        SettlementOutcome::Deferred => "deferred",
        SettlementOutcome::Waits => "waits",
        SettlementOutcome::Failed(_) => "stored as failed",
    }
}

fn recorded(outcomes: &[RecordOutcome]) -> String {
    let told = outcomes.iter().map(|outcome| match outcome {
        RecordOutcome::Recorded => "recorded",
        RecordOutcome::Known { .. } => "known",
        RecordOutcome::Conflict => "conflict",
    });
    told.collect::<Vec<_>>().join(", ")
}
