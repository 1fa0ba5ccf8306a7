//! Reads values and series out of what Prometheus would scrape.

use std::collections::{BTreeMap, BTreeSet};

/// The value of the sample that has this name and exactly these labels, in whatever order, as in
/// `hookledger_events{status="failed"}`.
pub fn sample(exposition: &str, wanted: &str) -> Option<f64> {
    let (wanted_series, _) = split_sample(wanted).unwrap_or_else(|| panic!("{wanted} is no name of a sample"));
    exposition.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (series, value) = split_sample(line)?;
        let number = value.split_whitespace().next()?;
        (series == wanted_series).then(|| number.parse().unwrap_or_else(|_| panic!("{line} has no number")))
    })
}

/// One series of an exposition: its name and its labels.
pub type OwnedSeries = (String, BTreeMap<String, String>);

/// Every series that it holds.
pub fn all_series(exposition: &str) -> BTreeSet<OwnedSeries> {
    let samples = exposition.lines().filter(|line| !line.starts_with('#')).filter_map(split_sample);
    let owned = samples.map(|((name, labels), _)| {
        let labels = labels.into_iter().map(|(label, value)| (label.to_owned(), value));
        (name.to_owned(), labels.collect())
    });
    owned.collect()
}

type Series<'a> = (&'a str, BTreeMap<&'a str, String>);

/// Splits `name{label="value"} rest`, with or without labels.
fn split_sample(line: &str) -> Option<(Series<'_>, &str)> {
    let name_end = line.find(['{', ' ']).unwrap_or(line.len());
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = unescape(after)?;
            labels.insert(label, value);
            rest = after;
        }
    }
    (!name.is_empty()).then_some(((name, labels), rest))
}

/// Reads a label's value up to its closing quote.
fn unescape(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}
