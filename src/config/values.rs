//! Parsers of single values: from what a file or the environment holds to a type, or to words that say what is right.
//!
//! Keys, limits and defaults don't belong here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ::config::ValueKind;
use ipnet::IpNet;

/// A value, or a fragment that says what would be right.
pub(super) type Parsed<T> = Result<T, String>;

/// Longest piece of a refused text that a message repeats.
const SHOWN_CHARS: usize = 80;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// What was found, for the end of a message.
pub(super) fn describe(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(value) => format!("`{value}`"),
        ValueKind::String(text) => describe_text(text),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::Table(_) => "a section".to_owned(),
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) | ValueKind::Float(_) => {
            format!("the number {kind}")
        }
    }
}

fn describe_text(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("the text {:?}…", &text[..end]),
        None => format!("the text {text:?}"),
    }
}

pub(super) fn text(kind: &ValueKind) -> Parsed<&str> {
    match kind {
        ValueKind::String(text) => Ok(text.trim()),
        other => Err(format!("must be text in quotes; got {}", describe(other))),
    }
}

pub(super) fn boolean(kind: &ValueKind) -> Parsed<bool> {
    match kind {
        ValueKind::Boolean(value) => Ok(*value),
        other => Err(format!("must be true or false, without quotes; got {}", describe(other))),
    }
}

/// `250ms`, `30s`, `5m`, `2h`, `7d`: one whole number and one unit.
pub(super) fn duration(kind: &ValueKind) -> Parsed<Duration> {
    let refused = || format!("must be a duration such as 250ms, 30s, 5m, 2h or 7d; got {}", describe(kind));
    let ValueKind::String(text) = kind else { return Err(refused()) };
    let text = text.trim();
    let digits_end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let unit_millis = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, millis)| *millis);
    let millis = digits.parse::<u64>().ok().zip(unit_millis).and_then(|(count, unit)| count.checked_mul(unit));
    millis.map(Duration::from_millis).ok_or_else(refused)
}

/// A decimal within limits, both included. Never for money.
pub(super) fn fraction(kind: &ValueKind, limits: RangeInclusive<f64>) -> Parsed<f64> {
    let number = match kind {
        ValueKind::I64(number) => i32::try_from(*number).ok().map(f64::from),
        ValueKind::Float(number) => Some(*number),
        ValueKind::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| limits.contains(number)).ok_or_else(|| {
        let (least, most) = limits.into_inner();
        format!("must be a number between {least} and {most}, such as 0.5; got {}", describe(kind))
    })
}

/// No end of keeping, as it is written.
pub(super) const FOREVER: &str = "forever";

/// How long something is kept: a duration, or `forever`, which is none.
pub(super) fn retention(kind: &ValueKind) -> Parsed<Option<Duration>> {
    if text(kind).is_ok_and(|text| text.eq_ignore_ascii_case(FOREVER)) {
        return Ok(None);
    }
    duration(kind)
        .map(Some)
        .map_err(|_| format!("must be a duration such as 90d, or \"forever\"; got {}", describe(kind)))
}

/// A duration as it would be written in the file: in the largest unit that divides it.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let fitting = DURATION_UNITS.iter().rev().find(|(_, unit)| millis > 0 && millis.is_multiple_of(u128::from(*unit)));
    match fitting {
        Some((name, unit)) => format!("{}{name}", millis / u128::from(*unit)),
        None => format!("{millis}ms"),
    }
}

/// `127.0.0.1:4000`, `[::1]:4000`, `localhost:4000`.
pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    let refused = || {
        format!("must be an IP address and a port, such as 127.0.0.1:4000 or [::]:4000; got {}", describe_text(text))
    };
    // No other name is looked up: what is listened on must not depend on a resolver.
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().map_err(|_| refused())?;
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| refused())
}

/// All values, or all that is wrong with them in one fragment.
pub(super) fn collect_all<T>(parsed: impl Iterator<Item = Parsed<T>>) -> Parsed<Vec<T>> {
    let (mut values, mut messages) = (Vec::new(), Vec::new());
    for outcome in parsed {
        match outcome {
            Ok(value) => values.push(value),
            Err(message) => messages.push(message),
        }
    }
    if messages.is_empty() { Ok(values) } else { Err(messages.join("; ")) }
}

/// The texts of a list. `example` shows one element in the message.
pub(super) fn list<'a>(kind: &'a ValueKind, example: &str) -> Parsed<Vec<&'a str>> {
    let ValueKind::Array(elements) = kind else {
        return Err(format!("must be a list such as [\"{example}\"]; got {}", describe(kind)));
    };
    let texts = elements.iter().map(|element| match &element.kind {
        ValueKind::String(text) => Ok(text.as_str()),
        other => Err(format!("must be a list of texts in quotes; got {} in it", describe(other))),
    });
    collect_all(texts)
}

/// Addresses and networks; an address alone is a network of one.
pub(super) fn networks(kind: &ValueKind) -> Parsed<Vec<IpNet>> {
    let texts = list(kind, "10.0.0.0/8")?;
    let parsed = texts.into_iter().map(|text| {
        let network = text.trim().parse::<IpNet>().or_else(|_| text.trim().parse::<IpAddr>().map(IpNet::from));
        network.map(|network| network.trunc()).map_err(|_| {
            format!("must hold addresses or networks such as 192.0.2.7 or 10.0.0.0/8; got {}", describe_text(text))
        })
    });
    collect_all(parsed)
}

/// A path, made absolute from the working folder without touching the disk.
pub(super) fn path(kind: &ValueKind) -> Parsed<PathBuf> {
    let text = text(kind)?;
    if text.is_empty() {
        return Err("must be the path of a file; leave the key out if there is none".to_owned());
    }
    absolute(text)
}

/// Lexical: neither the file nor its folder need exist.
pub(super) fn absolute(text: &str) -> Parsed<PathBuf> {
    if text.chars().any(char::is_control) {
        return Err("must be a path without control characters".to_owned());
    }
    if text == "~" || text.starts_with("~/") {
        return Err("must be a path without `~`, which is not expanded here: write the folder out".to_owned());
    }
    std::path::absolute(text).map_err(|error| format!("must be a path that can be made absolute: {error}"))
}
