//! How results are printed: tables and sentences for people, JSON for programs, all on standard output.
//!
//! What a result says is the business of its command; what is no result goes to standard error.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write as _};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, TableComponent, presets};
use serde::Serialize;

use super::failure::Failure;

/// The form that the caller asked for.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// One result: `value` for a program, `text` for a person.
    pub fn show<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string(value)
                .map_err(|error| Failure::refused(format!("the result cannot be written as JSON: {error}")))?;
            return print(&json);
        }
        print(&text(value))
    }

    /// Many results: an array for a program, a table for a person.
    pub fn list<T: Serialize>(self, items: &[T], headers: &[&str], row: fn(&T) -> Vec<String>) -> Result<(), Failure> {
        if items.is_empty() && !self.json {
            // Not a result: a program that counts lines would count it.
            eprintln!("nothing to list");
            return Ok(());
        }
        self.show(&items, |items| table(headers, items.iter().map(row)))
    }
}

/// A table that fits the terminal; elsewhere one line for each row, so that other programs can cut it up.
pub fn table(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    let is_for_a_person = io::stdout().is_terminal();
    if is_for_a_person {
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.remove_style(TableComponent::HorizontalLines).remove_style(TableComponent::MiddleIntersections);
        table.remove_style(TableComponent::LeftBorderIntersections);
        table.remove_style(TableComponent::RightBorderIntersections);
    } else {
        table.load_preset(presets::NOTHING).force_no_tty().set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(headers);
    for row in rows {
        table.add_row(row.iter().map(|cell| visible(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // What names a row is copied into the next command: it stays in one piece.
    if let Some(first) = table.column_mut(0).filter(|_| is_for_a_person) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    table.trim_fmt()
}

/// Facts about one thing, a line each.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> =
        facts.iter().map(|(name, value)| format!("{name:width$}  {}", visible(value)).trim_end().to_owned()).collect();
    lines.join("\n")
}

/// What stands in a cell that has nothing to show.
pub fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// Text that came from elsewhere, without the characters that would steer a terminal or break a line.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if letter.is_control() {
            write!(shown, "{}", letter.escape_default()).ok();
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

/// Prints a result and a line break.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let printed = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    match printed {
        Ok(()) => Ok(()),
        // Whoever read has seen enough, as `| head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::refused(format!("the result cannot be written to standard output: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_sent_cannot_steer_the_terminal() {
        assert_eq!(visible("通义 gpt"), "通义 gpt");
        assert_eq!(visible("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }

    #[test]
    fn facts_stand_in_two_columns() {
        let lines = facts(&[("id", "7".to_owned()), ("email", "a@b".to_owned()), ("name", String::new())]);
        assert_eq!(lines, "id     7\nemail  a@b\nname");
    }
}
