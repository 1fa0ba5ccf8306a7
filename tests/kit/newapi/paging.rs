//! Pages of the log and its statistics, as each generation of new-api answers them.

use serde::Serialize;
use serde_json::json;

use super::answer::Answer;
use super::log::Log;
use super::request::Request;
use super::rows::{CONSUMPTION, Row};

const DEFAULT_PAGE_SIZE: i64 = 10;
const MAX_PAGE_SIZE: i64 = 100;

/// Which generation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Pages from 1, newest first by second and id, rows with a `request_id`.
    #[default]
    Current,
    /// Pages from 1 (0 is taken for 1), newest first by id alone, rows without a `request_id`.
    Of2025,
    /// A bare list of at most 10 rows, pages from 0, newest first by id alone, rows without a `request_id`.
    BareList,
}

/// Where the gateway keeps its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogStore {
    #[default]
    Sql,
    /// Has no ids: each answer numbers its rows 1, 2, 3 …
    ClickHouse,
}

/// How rows are answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Habits {
    pub dialect: Dialect,
    pub store: LogStore,
    /// The times that a request asks for are passed over.
    pub ignores_times: bool,
}

/// The part of a list that a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct PageQuery {
    page: i64,
    page_size: i64,
}

/// A page on the wire.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    page: i64,
    page_size: i64,
    total: usize,
    items: Vec<T>,
}

impl PageQuery {
    /// `p`, and `page_size` or one of its older names.
    pub fn of(request: &Request, dialect: Dialect) -> Result<Self, Answer> {
        let absent_or = |name: &str| request.parameter(name).map(|_| request.number(name));
        let mut page = absent_or("p").unwrap_or(1);
        let size = ["page_size", "ps", "size"].into_iter().find_map(absent_or);
        let page_size = size.unwrap_or(DEFAULT_PAGE_SIZE).min(MAX_PAGE_SIZE);
        if dialect == Dialect::Of2025 && page == 0 {
            page = 1;
        }
        if page < 1 || page_size < 1 {
            return Err(Answer::refused("page and page_size must be positive integers"));
        }
        Ok(PageQuery { page, page_size })
    }

    pub fn cut<T>(self, all: impl Iterator<Item = T>) -> Page<T> {
        let skipped = (self.page - 1).saturating_mul(self.page_size);
        let all: Vec<T> = all.collect();
        let total = all.len();
        let start = usize::try_from(skipped).unwrap_or(usize::MAX);
        let length = usize::try_from(self.page_size).unwrap_or(0);
        let items = all.into_iter().skip(start).take(length).collect();
        Page { page: self.page, page_size: self.page_size, total, items }
    }
}

/// `GET /api/log/`
pub fn rows(log: &Log, request: &Request, habits: Habits) -> Answer {
    let kind = request.number("type");
    let mut found: Vec<&Row> = visible(log, request, habits).filter(|row| kind == 0 || row.kind == kind).collect();
    if habits.dialect != Dialect::Current {
        found.sort_by_key(|row| std::cmp::Reverse(row.id));
    }
    if habits.dialect == Dialect::BareList {
        let skipped = request.number("p").max(0).saturating_mul(DEFAULT_PAGE_SIZE);
        let found = found.into_iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX));
        let shown = found.take(usize::try_from(DEFAULT_PAGE_SIZE).unwrap_or(0));
        return Answer::data(&shown.enumerate().map(|(index, row)| shown_row(row, index, habits)).collect::<Vec<_>>());
    }
    let page = match PageQuery::of(request, habits.dialect) {
        Ok(query) => query.cut(found.into_iter()),
        Err(refusal) => return refusal,
    };
    let items = page.items.into_iter().enumerate().map(|(index, row)| shown_row(row, index, habits)).collect();
    Answer::data(&Page::<Row> { page: page.page, page_size: page.page_size, total: page.total, items })
}

fn shown_row(row: &Row, index: usize, habits: Habits) -> Row {
    let mut row = row.clone();
    if habits.store == LogStore::ClickHouse {
        row.id = i64::try_from(index + 1).expect("a page is short");
    }
    row.request_id = (habits.dialect == Dialect::Current).then(|| row.request_id.take().unwrap_or_default());
    row
}

/// `GET /api/log/stat`: of consumption, whatever `type` asks for. The rates are of the last minute before `now_secs`.
pub fn statistics(log: &Log, request: &Request, habits: Habits, now_secs: i64) -> Answer {
    let consumed = |row: &&Row| row.kind == CONSUMPTION;
    let quota: i64 = visible(log, request, habits).filter(consumed).map(|row| row.quota).sum();
    if habits.dialect == Dialect::BareList {
        return Answer::data(&json!({ "quota": quota }));
    }
    let named = |row: &&Row| has_names(row, request, habits);
    let recent: Vec<&Row> = log.visible(now_secs - 60, i64::MAX).filter(consumed).filter(named).collect();
    let tokens: i64 = recent.iter().map(|row| row.prompt_tokens + row.completion_tokens).sum();
    Answer::data(&Statistics { quota, rpm: recent.len(), tpm: tokens })
}

/// In the order of the wire.
#[derive(Debug, Serialize)]
struct Statistics {
    quota: i64,
    rpm: usize,
    tpm: i64,
}

fn visible<'a>(log: &'a Log, request: &'a Request, habits: Habits) -> impl Iterator<Item = &'a Row> {
    let bound = |name: &str, unbounded: i64| match request.number(name) {
        0 => unbounded,
        _ if habits.ignores_times => unbounded,
        secs => secs,
    };
    let range = (bound("start_timestamp", i64::MIN), bound("end_timestamp", i64::MAX));
    log.visible(range.0, range.1).filter(move |row| has_names(row, request, habits))
}

/// Filters other than times and type. What is not here is silently ignored.
fn has_names(row: &Row, request: &Request, habits: Habits) -> bool {
    let is_asked = |name: &str, value: &str| match request.parameter(name) {
        None | Some("") => true,
        Some(wanted) => wanted == value,
    };
    let model = request.parameter("model_name").unwrap_or_default();
    let channel = request.number("channel");
    is_asked("username", &row.username)
        && is_asked("token_name", &row.token_name)
        && is_asked("group", &row.group)
        && (habits.dialect != Dialect::Current || is_asked("request_id", row.request_id.as_deref().unwrap_or("")))
        && (channel == 0 || channel == row.channel)
        && (model.is_empty() || is_like(&row.model_name.to_lowercase(), &model.to_lowercase()))
}

/// SQL's `LIKE`.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut letters = pattern.chars();
    match letters.next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = letters.as_str();
            text.char_indices().any(|(at, _)| is_like(&text[at..], rest)) || is_like("", rest)
        }
        Some(letter) => {
            let mut characters = text.chars();
            let first = characters.next();
            first.is_some_and(|first| letter == '_' || letter == first)
                && is_like(characters.as_str(), letters.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn names_are_matched_as_sql_does() {
        assert!(is_like("gpt-4o", "gpt-4o") && is_like("gpt-4o", "gpt%") && is_like("gpt-4o", "%4_"));
        assert!(!is_like("gpt-4o-mini", "gpt-4o") && !is_like("gpt-4", "gpt-4_"));
        assert!(is_like("", "%") && is_like("abc", "%%c") && !is_like("abc", "%d"));
    }
}
