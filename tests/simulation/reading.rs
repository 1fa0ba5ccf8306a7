//! The part of a scenario that reads the log: passes, what must hold behind coverage, and what the gateway clears.

use std::collections::BTreeMap;
use std::sync::Arc;

use hookledger::polling::{Eagerness, Pass, Report, probe};

use super::driver::Driver;
use super::sender::event_ms;
use super::world::{BEGINS, Made, Told};

/// Between two looks at the gateway itself.
const PROBE_EVERY_SECS: i64 = 60;

impl Driver {
    pub async fn pass(&mut self, reads_all: bool, rechecks: bool) -> Result<String, String> {
        let gateway = Arc::new(self.world.log.clone());
        let now = self.world.now + self.world.skew;
        if self.probed_at.is_none_or(|at| now < at || now - at >= PROBE_EVERY_SECS) {
            self.probed_at = Some(now);
            let gateway: Arc<dyn hookledger::gateway::Gateway> = gateway.clone();
            let clock = self.world.clock.clone();
            let now = || hookledger::clock::Clock::now(&clock);
            probe(&self.source, &gateway, self.store.as_ref(), now).await;
        }
        let mut pass = Pass {
            gateway,
            store: self.store.clone(),
            source: self.source.clone(),
            clock: Arc::new(self.world.clock.clone()),
            settings: self.settings.polling.clone(),
            key_grace_secs: self.world.rules.key_grace_secs,
            report: Report::default(),
        };
        let eagerness = if reads_all { Eagerness::ReadAll } else { Eagerness::Sweep };
        let mut done = pass.run(eagerness).await;
        if done.is_ok() && rechecks {
            done = pass.recheck().await;
        }
        let tally = pass.report.tally;
        let text = format!(
            "read {} charged {} tied {} parked {} waiting {} disputed {} refunded {} agreed {} covered {}",
            tally.read(),
            tally.charged,
            tally.tied,
            tally.parked,
            tally.waiting,
            pass.report.disputed,
            pass.report.refunded,
            pass.report.spans_agreed,
            pass.report.coverage.map_or(0, |coverage| coverage.covered_until - BEGINS),
        );
        self.look_behind_coverage().await;
        self.look_at_ends_of_spans().await;
        done.map(|()| text.clone()).map_err(|error| format!("{text}; {error}"))
    }

    /// Coverage moves only behind committed rows: what was read has every row that was there in time.
    async fn look_behind_coverage(&mut self) {
        let mut stored = self.counts_by_second("SELECT row_second AS second, 1 AS found FROM hookledger_rows").await;
        let unowned = "SELECT row_second AS second, row_count + refund_count AS found FROM hookledger_unowned_rows";
        for (second, found) in self.counts_by_second(unowned).await {
            *stored.entry(second).or_default() += found;
        }
        let mut there: BTreeMap<i64, i64> = BTreeMap::new();
        for entry in self.world.log.lock().entries.iter().filter(|entry| entry.is_on_time) {
            *there.entry(entry.second).or_default() += 1;
        }
        let spans =
            "SELECT CAST(from_second AS CHAR), CAST(until_second AS CHAR) FROM hookledger_spans WHERE proof = 'read'";
        for span in self.own.rows(spans).await {
            let (from, until) = (number(&span[0]), number(&span[1]));
            for (second, count) in there.range(from..=until) {
                let stored = stored.get(second).copied().unwrap_or_default();
                if stored < *count {
                    let second = second - BEGINS;
                    self.wrong.push(format!("second {second} counts as read with {stored} of its {count} rows"));
                }
            }
        }
    }

    /// A call whose event lies within a span that agreed, and its row behind it or nowhere: another's row stood for it.
    async fn look_at_ends_of_spans(&mut self) {
        let spans =
            "SELECT CAST(from_second AS CHAR), CAST(until_second AS CHAR) FROM hookledger_spans WHERE proof = 'agreed'";
        for span in self.own.rows(spans).await {
            let agreed = number(&span[0])..=number(&span[1]);
            let straddles = |made: &&Made| {
                let event_second = event_ms(&made.call, made.second).div_euclid(1000);
                let has_row = made.call.row_after_secs.is_some() && agreed.contains(&made.second);
                made.told == Told::Accepted && agreed.contains(&event_second) != has_row
            };
            let tokens = self.world.calls.iter().filter(straddles).map(|made| made.call.token);
            self.world.deceived.extend(tokens.collect::<Vec<_>>());
        }
    }

    async fn counts_by_second(&mut self, found: &str) -> BTreeMap<i64, i64> {
        let sql = format!("SELECT CAST(second AS CHAR), CAST(SUM(found) AS CHAR) FROM ({found}) AS f GROUP BY second");
        self.own.rows(&sql).await.iter().map(|line| (number(&line[0]), number(&line[1]))).collect()
    }

    /// The gateway's administrator clears what was read for certain.
    pub async fn truncate(&mut self, restarts_ids: bool) -> String {
        // As many late rows as are cleared, at the same price, would hide it from every figure.
        if self.world.log.lock().entries.iter().any(|entry| !entry.is_on_time && !entry.is_gone) {
            return "does not apply beside late rows".to_owned();
        }
        let sql = "SELECT CAST(r.row_second AS CHAR), CAST(COUNT(*) AS CHAR) FROM hookledger_rows AS r \
                   JOIN hookledger_spans AS s ON s.proof = 'read' AND r.row_second BETWEEN s.from_second AND s.until_second \
                   GROUP BY r.row_second";
        let known = self.own.rows(sql).await;
        let mut state = self.world.log.lock();
        let mut gone = 0;
        for (second, count) in known.iter().map(|line| (number(&line[0]), number(&line[1]))) {
            let of_second = state.entries.iter().filter(|entry| entry.second == second);
            let is_whole = of_second.clone().all(|entry| entry.id.is_some() && !entry.is_gone);
            if is_whole && of_second.count() as i64 == count {
                let entries = state.entries.iter_mut().filter(|entry| entry.second == second);
                gone += entries.map(|entry| entry.is_gone = true).count();
            }
        }
        if restarts_ids && gone > 0 {
            state.restart_ids();
        }
        format!("{gone} rows gone")
    }
}

fn number(text: &Option<String>) -> i64 {
    text.as_deref().unwrap_or_default().parse().unwrap()
}
