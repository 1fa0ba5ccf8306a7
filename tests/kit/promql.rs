//! Reads out of a query of Prometheus which series it asks for. Whether it is a query at all, promtool judges.

use std::collections::BTreeSet;

const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Words that stand between series. Functions are told by the bracket that follows them.
const WORDS: [&str; 12] =
    ["and", "or", "unless", "offset", "bool", "sum", "max", "min", "avg", "count", "topk", "quantile"];

/// One selector of series: `name{label="value"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    pub name: String,
    pub matchers: Vec<Matcher>,
}

/// One condition of a selector; alternatives of a regular expression are taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    pub label: String,
    pub values: Vec<String>,
}

/// What a query names.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub selectors: Vec<Selector>,
    /// Labels by which it groups or matches.
    pub grouping: BTreeSet<String>,
}

pub fn read_query(text: &str) -> Query {
    let mut query = Query::default();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            rest = past(rest, ']').1;
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|character: char| character.is_ascii_alphanumeric() || character == '.');
        } else if is_of_name(first) {
            rest = read_name(rest, &mut query);
        } else {
            rest = &rest[first.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    query
}

fn read_name<'a>(text: &'a str, query: &mut Query) -> &'a str {
    let (name, rest) = text.split_at(text.find(|character| !is_of_name(character)).unwrap_or(text.len()));
    let rest = rest.trim_start();
    if GROUPING.contains(&name) {
        let (labels, rest) = past(rest, ')');
        let labels = labels.trim_start_matches('(').split(',').map(|label| label.trim().to_owned());
        query.grouping.extend(labels.filter(|label| !label.is_empty()));
        return rest;
    }
    if WORDS.contains(&name) || rest.starts_with('(') {
        return rest;
    }
    let (matchers, rest) = rest.strip_prefix('{').map_or(("", rest), |matchers| past(matchers, '}'));
    query.selectors.push(Selector { name: name.to_owned(), matchers: read_matchers(matchers) });
    rest
}

fn read_matchers(text: &str) -> Vec<Matcher> {
    let mut matchers = Vec::new();
    let mut rest = text;
    while let Some((label, after)) = rest.split_once(['=', '!']) {
        let is_expression = after.starts_with('~');
        let (_, after) = after.split_once('"').expect("a matcher has a value in quotes");
        let (value, after) = after.split_once('"').expect("the quotes are closed");
        let values = value.split(if is_expression { '|' } else { '\0' }).map(str::to_owned).collect();
        matchers.push(Matcher { label: label.trim_matches([',', ' ']).to_owned(), values });
        rest = after;
    }
    matchers
}

/// What stands before the next `end`, and what after it.
fn past(text: &str, end: char) -> (&str, &str) {
    text.split_once(end).unwrap_or_else(|| panic!("no {end} in {text}"))
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == ':'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_taken_apart() {
        let query = read_query(
            "sum by (job, le) (rate(a_bucket{x=\"1\", y=~\"2|3\"}[5m] offset 1w)) > 1e3\nunless on (z) b_total == 0 and c{w!=\"4\"}",
        );
        let names: Vec<&str> = query.selectors.iter().map(|selector| selector.name.as_str()).collect();
        assert_eq!(names, ["a_bucket", "b_total", "c"]);
        let matcher = |label: &str, values: &[&str]| Matcher {
            label: label.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        assert_eq!(query.selectors[0].matchers, [matcher("x", &["1"]), matcher("y", &["2", "3"])]);
        assert_eq!(query.selectors[2].matchers, [matcher("w", &["4"])]);
        let grouping: Vec<&str> = query.grouping.iter().map(String::as_str).collect();
        assert_eq!(grouping, ["job", "le", "z"]);
    }
}
