//! `hookledger status`: how a running daemon does, on one screen.
//!
//! What is seen, and what should be done about it, is said by the daemon; here it is only laid out.

use std::io::{self, IsTerminal};

use super::Context;
use super::admin_client;
use super::failure::Failure;
use super::output::{or_dash, visible};
use crate::status::{ActorStatus, BacklogStatus, ChannelName, CoverageStatus, SourceStatus, Status, TakingOverStatus};

const ROUTE: &str = "/admin/v1/status";

/// Width of the names on the left.
const NAME_WIDTH: usize = 10;

const RESET: &str = "\u{1b}[0m";

/// What a piece of text means to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Good,
    Attention,
    Bad,
    Quiet,
}

impl Mood {
    fn escape(self) -> &'static str {
        match self {
            Mood::Good => "\u{1b}[32m",
            Mood::Attention => "\u{1b}[33m",
            Mood::Bad => "\u{1b}[31m",
            Mood::Quiet => "\u{1b}[2m",
        }
    }
}

/// Colours where a person reads and wants them.
#[derive(Debug, Clone, Copy)]
struct Paint {
    is_on: bool,
}

impl Paint {
    fn for_this_output() -> Self {
        // no-color.org: present and not empty.
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Paint { is_on: io::stdout().is_terminal() && !is_unwanted && !is_dumb }
    }

    fn text(self, mood: Mood, text: &str) -> String {
        let text = visible(text);
        if self.is_on { format!("{}{text}{RESET}", mood.escape()) } else { text.into_owned() }
    }
}

pub async fn run(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let socket = &settings.admin.socket;
    let Some(status) = admin_client::get::<Status>(socket, ROUTE).await? else {
        return Err(Failure::refused(format!("no daemon runs: nobody listens behind its socket {}", socket.display())));
    };
    context.output.show(&status, |status| tell(status, Paint::for_this_output()))
}

fn tell(status: &Status, paint: Paint) -> String {
    let mut lines = vec![
        line("hookledger", format!("{}, process {}", status.version, status.pid)),
        line("up", format!("{}, since {}", span(status.uptime_secs), visible(&status.started_at))),
        line("webhook", webhook(status, paint)),
        line("channel", channel(status, paint)),
        line("database", database(status, paint)),
        line("listening", listeners(status)),
    ];
    lines.extend(status.source.as_ref().map(|known| line("source", source(known, paint))));
    lines.extend(status.coverage.as_ref().map(|known| line("coverage", coverage(known))));
    lines.extend(status.taking_over.as_ref().map(taking_over));
    lines.extend(backlog(status.backlog.as_ref(), paint));
    lines.extend(named("actors", status.actors.iter().map(|one| actor(one, paint)).collect()));
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| {
            let name = paint.text(Mood::Bad, &condition.name);
            format!("{name} since {}: {}", visible(&condition.first_seen), visible(&condition.message))
        })
        .collect();
    lines.extend(named("conditions", if conditions.is_empty() { vec!["none".to_owned()] } else { conditions }));
    if !status.to_do.is_empty() {
        let advice = status.to_do.iter().map(|advice| paint.text(Mood::Attention, advice));
        lines.extend(named("to do", advice.collect()));
    }
    lines.join("\n")
}

fn line(name: &str, text: String) -> String {
    format!("{name:NAME_WIDTH$}  {text}")
}

/// The name stands before the first of its lines.
fn named(name: &str, texts: Vec<String>) -> Vec<String> {
    texts.into_iter().enumerate().map(|(index, text)| line(if index == 0 { name } else { "" }, text)).collect()
}

fn webhook(status: &Status, paint: Paint) -> String {
    match &status.webhook.why_not {
        None => paint.text(Mood::Good, "ready"),
        Some(reason) => paint.text(Mood::Bad, &format!("not ready: {reason}")),
    }
}

fn channel(status: &Status, paint: Paint) -> String {
    let (name, mood) = match status.channel.state {
        ChannelName::Healthy => ("healthy", Mood::Good),
        ChannelName::Pull => ("pull", Mood::Good),
        ChannelName::Idle => ("idle", Mood::Quiet),
        ChannelName::Disabled => ("disabled", Mood::Attention),
        ChannelName::Stale => ("stale", Mood::Bad),
    };
    let last = status.channel.last_event_at.as_deref().unwrap_or("never");
    format!("{} since {}, last event {}", paint.text(mood, name), visible(&status.channel.since), visible(last))
}

fn source(source: &SourceStatus, paint: Paint) -> String {
    let state = match (source.read, &source.out_of_reach_since) {
        (false, _) => paint.text(Mood::Quiet, "not read"),
        (true, Some(since)) => paint.text(Mood::Bad, &format!("no answer since {since}")),
        (true, None) => paint.text(Mood::Good, "read"),
    };
    let mut parts = vec![format!("{}, {state}", visible(&source.name))];
    parts.extend(source.version.as_ref().map(|version| format!("new-api {}", visible(version))));
    parts.extend(source.quota_per_unit.map(|quota| format!("{quota} units a dollar")));
    parts.extend(source.clock_ahead_secs.filter(|ahead| *ahead != 0).map(|ahead| match ahead {
        1.. => format!("clock {ahead}s ahead"),
        _ => format!("clock {}s behind", -ahead),
    }));
    parts.extend(source.last_pass_at.as_ref().map(|at| format!("last pass {}", visible(at))));
    if let (Some(at), Some(why)) = (&source.last_failure_at, &source.last_failure) {
        // RFC 3339 in UTC sorts as time does: an old failure is history.
        if source.last_pass_at.as_ref().is_none_or(|passed| passed < at) {
            parts.push(paint.text(Mood::Attention, &format!("failed {at}: {why}")));
        }
    }
    parts.join(", ")
}

fn coverage(coverage: &CoverageStatus) -> String {
    let CoverageStatus { begins, covered_until, read_until, behind_secs } = coverage;
    let (begins, covered_until, read_until) = (visible(begins), visible(covered_until), visible(read_until));
    format!("to {covered_until} ({} ago), read to {read_until}, from {begins}", span(*behind_secs))
}

fn database(status: &Status, paint: Paint) -> String {
    let database = &status.database;
    let state = match &database.problem {
        None => paint.text(Mood::Good, "writable"),
        Some(problem) => paint.text(Mood::Bad, &format!("not writable: {problem}")),
    };
    format!("{}, {state}", visible(&database.url))
}

fn taking_over(taking_over: &TakingOverStatus) -> String {
    let TakingOverStatus { at, adopted_records } = taking_over;
    line("taken over", format!("at {}, {adopted_records} of the platform's records adopted", visible(at)))
}

fn listeners(status: &Status) -> String {
    let listeners = &status.listeners;
    let admin = if listeners.admin_on_server { " (and admin)" } else { "" };
    let metrics = or_dash(listeners.metrics.as_deref());
    let text = format!("events{admin} {}, metrics {metrics}, admin {}", listeners.server, listeners.admin_socket);
    visible(&text).into_owned()
}

fn backlog(backlog: Option<&BacklogStatus>, paint: Paint) -> Vec<String> {
    let Some(backlog) = backlog else {
        return vec![line("backlog", "not counted yet".to_owned())];
    };
    let count = |count: i64, name: &str, mood: Mood| {
        let text = format!("{count} {name}");
        if count == 0 { text } else { paint.text(mood, &text) }
    };
    let age = backlog.oldest_pending_age_secs.map(|age| format!(" (oldest {})", span(age))).unwrap_or_default();
    vec![
        line(
            "backlog",
            format!(
                "{}{age}, {}, {}, {}, {}, {}, {}",
                count(backlog.pending, "pending", Mood::Quiet),
                count(backlog.failed, "failed", Mood::Attention),
                count(backlog.dead, "dead", Mood::Bad),
                count(backlog.parked_tokens, "tokens without a key", Mood::Attention),
                count(backlog.disputes_open, "disputes", Mood::Attention),
                count(backlog.refunds_open, "open refunds", Mood::Attention),
                count(backlog.unpaid_credits, "credits unpaid", Mood::Attention),
            ),
        ),
        line("", paint.text(Mood::Quiet, &format!("counted {}", backlog.counted_at))),
    ]
}

fn actor(actor: &ActorStatus, paint: Paint) -> String {
    let state = if actor.up { paint.text(Mood::Good, "up") } else { paint.text(Mood::Bad, "down") };
    let name = visible(&actor.name);
    let mut parts = vec![state];
    if actor.hung_threads > 0 {
        parts.push(paint.text(Mood::Bad, &format!("{} hung threads", actor.hung_threads)));
    }
    if let (Some(cause), Some(ended_at)) = (&actor.last_cause, &actor.last_ended_at) {
        let by_cause = actor.restarts_by_cause.iter().filter(|(_, count)| **count > 0);
        let by_cause: Vec<String> = by_cause.map(|(cause, count)| format!("{count} {cause}")).collect();
        let error = actor.last_error.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
        let restarts =
            format!("{} restarts ({}), last {ended_at}: {cause}{error}", actor.restarts, by_cause.join(", "));
        parts.push(paint.text(Mood::Attention, &restarts));
    }
    format!("{name:NAME_WIDTH$}  {}", parts.join(", "))
}

/// Seconds as people say them, in the two largest units.
fn span(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs}s"),
        (0, 0, _) => format!("{minutes}m {}s", secs % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (secs, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3_660, "1h 1m"), (90_000, "1d 1h")] {
            assert_eq!(span(secs), text);
        }
    }

    #[test]
    fn colours_are_escapes_around_the_text_and_nothing_else() {
        assert_eq!(Paint { is_on: true }.text(Mood::Bad, "a\u{1b}b"), "\u{1b}[31ma\\u{1b}b\u{1b}[0m");
        assert_eq!(Paint { is_on: false }.text(Mood::Bad, "ab"), "ab");
    }
}
