//! Settings of reading new-api's log: when it is read, how far back, and what counts as the same call. How new-api is
//! asked is `newapi`.

use std::time::Duration;

use ::config::ValueKind;
use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::{Reader, Section};
use super::values::{self, Parsed};
use crate::domain::time::{UnixMillis, parse_utc};

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "polling",
    keys: &[
        ("mode", Kind::Text, Effect::AtReload),
        ("interval", Kind::Text, Effect::AtReload),
        ("cron", Kind::Text, Effect::AtReload),
        ("pull_interval", Kind::Text, Effect::AtReload),
        ("stale_after", Kind::Text, Effect::AtReload),
        ("stale_loss", Kind::Text, Effect::AtReload),
        ("probe_interval", Kind::Text, Effect::AtReload),
        ("sweep_interval", Kind::Text, Effect::AtReload),
        ("full_read_interval", Kind::Text, Effect::AtReload),
        ("match_window", Kind::Text, Effect::AtReload),
        ("dispute_window", Kind::Text, Effect::AtReload),
        ("lookback", Kind::Text, Effect::AtReload),
        ("recheck", Kind::Text, Effect::AtReload),
        ("settle_delay", Kind::Text, Effect::AtReload),
        ("start_from", Kind::Text, Effect::AtReload),
    ],
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Who decides that the log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollingMode {
    /// The state of the event channel does.
    Auto,
    /// The log is the main channel: read it all the time.
    Pull,
    /// Nobody: it is not read.
    Off,
}

/// Where coverage begins on the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// At that start.
    Now,
    At(UnixMillis),
}

/// Moments in UTC, as a crontab names them.
#[derive(Debug, Clone, PartialEq)]
pub struct CronExpression(Cron);

impl CronExpression {
    /// Whether a moment has come since `last`; before the first run, none has been missed.
    pub fn is_due(&self, last: Option<UnixMillis>, now: UnixMillis) -> bool {
        let Some(last) = last.filter(|last| *last < now) else { return false };
        let Some(last) = DateTime::<Utc>::from_timestamp_millis(last.as_millis()) else { return false };
        self.0.find_next_occurrence(&last, false).is_ok_and(|next| next.timestamp_millis() <= now.as_millis())
    }
}

/// When the log is read, and how its rows are held against events.
#[derive(Debug, Clone)]
pub struct PollingSettings {
    pub mode: PollingMode,
    /// Between runs while the event channel is stale or disabled.
    pub interval: Duration,
    /// Instead of the interval.
    pub cron: Option<CronExpression>,
    /// Between runs in mode `pull`.
    pub pull_interval: Duration,
    /// How long no event may come while the source has rows.
    pub stale_after: Duration,
    /// Part of an hour's rows that may come without their event, 0 to 1.
    pub stale_loss: f64,
    /// Between looks at new-api's options and status.
    pub probe_interval: Duration,
    /// Between runs while the event channel is healthy or idle.
    pub sweep_interval: Duration,
    /// How long a span may count as agreed by its figures before it is read all the same.
    pub full_read_interval: Duration,
    /// How far apart the times of an event and a row of the same call may lie.
    pub match_window: Duration,
    /// How far apart they may lie for one to wait for the other.
    pub dispute_window: Duration,
    /// A second can be covered only this long after it passed.
    pub lookback: Duration,
    /// How far back the figures are compared again once a day.
    pub recheck: Duration,
    /// Rows younger than this are left for the next run.
    pub settle_delay: Duration,
    pub start_from: StartFrom,
}

impl PollingSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let modes = [("auto", PollingMode::Auto), ("pull", PollingMode::Pull), ("off", PollingMode::Off)];
        let mode = section.choice("mode", &modes);
        let interval = section.duration("interval", SECOND..=DAY);
        let cron = section.parse_optional("cron", parse_cron);
        let pull_interval = section.duration("pull_interval", SECOND..=HOUR);
        let stale_after = section.duration("stale_after", SECOND..=7 * DAY);
        let stale_loss = section.parse("stale_loss", |kind| values::fraction(kind, 0.0..=1.0));
        let probe_interval = section.duration("probe_interval", SECOND..=DAY);
        let sweep_interval = section.duration("sweep_interval", SECOND..=7 * DAY);
        let full_read_interval = section.duration("full_read_interval", MINUTE..=365 * DAY);
        let match_window = section.duration("match_window", Duration::ZERO..=DAY);
        let dispute_window = section.duration("dispute_window", Duration::ZERO..=DAY);
        let lookback = section.duration("lookback", SECOND..=DAY);
        let recheck = section.duration("recheck", MINUTE..=365 * DAY);
        let settle_delay = section.duration("settle_delay", Duration::ZERO..=HOUR);
        let start_from = section.parse("start_from", parse_start_from);
        if section.is_set("interval") && section.is_set("cron") {
            section.refuse("cron", "must not be set beside polling.interval: keep one of the two");
        }
        not_longer(&mut section, ("match_window", match_window), ("dispute_window", dispute_window));
        not_longer(&mut section, ("settle_delay", settle_delay), ("lookback", lookback));
        not_longer(&mut section, ("lookback", lookback), ("recheck", recheck));
        if let Some(recheck) = recheck.filter(|recheck| *recheck < DAY) {
            section.warn(format!(
                "polling.recheck is {}: figures are compared once a day, so that rows which came late can be missed",
                values::show_duration(recheck)
            ));
        }
        Some(PollingSettings {
            mode: mode?,
            interval: interval?,
            cron: cron?,
            pull_interval: pull_interval?,
            stale_after: stale_after?,
            stale_loss: stale_loss?,
            probe_interval: probe_interval?,
            sweep_interval: sweep_interval?,
            full_read_interval: full_read_interval?,
            match_window: match_window?,
            dispute_window: dispute_window?,
            lookback: lookback?,
            recheck: recheck?,
            settle_delay: settle_delay?,
            start_from: start_from?,
        })
    }
}

/// Notes a problem with the first key if it exceeds the second.
fn not_longer(
    section: &mut Section<'_>,
    (key, value): (&str, Option<Duration>),
    (bounding_key, bound): (&str, Option<Duration>),
) {
    if let (Some(value), Some(bound)) = (value, bound)
        && value > bound
    {
        let (value, bound) = (values::show_duration(value), values::show_duration(bound));
        section.refuse(key, format!("must not be longer than polling.{bounding_key}, {bound}; got {value}"));
    }
}

/// Five fields as in a crontab, or six with the seconds first.
fn parse_cron(kind: &ValueKind) -> Parsed<CronExpression> {
    let refused = || {
        format!(
            "must be a cron expression of five fields such as \"*/5 * * * *\", or of six with the seconds first; got {}",
            values::describe(kind)
        )
    };
    let fields: Vec<&str> = values::text(kind)?.split_whitespace().collect();
    let expression = match fields.len() {
        5 => format!("0 {}", fields.join(" ")),
        6 => fields.join(" "),
        _ => return Err(refused()),
    };
    let parser = CronParser::builder().seconds(Seconds::Required).build();
    parser.parse(&expression).map(CronExpression).map_err(|_| refused())
}

fn parse_start_from(kind: &ValueKind) -> Parsed<StartFrom> {
    let text = values::text(kind)?;
    if text.eq_ignore_ascii_case("now") {
        return Ok(StartFrom::Now);
    }
    let at = parse_utc(text).filter(|millis| *millis >= 0);
    at.map(|millis| StartFrom::At(UnixMillis::new(millis))).ok_or_else(|| {
        format!("must be \"now\", or a time in UTC such as \"2026-11-24 08:00:00\"; got {}", values::describe(kind))
    })
}
