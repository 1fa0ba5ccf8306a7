//! `hookledger check-config`: shows what is in effect and where it came from. The checks themselves are `config`.

use serde::Serialize;

use super::Context;
use super::failure::Failure;
use super::output::table;
use crate::config::ReportEntry;

/// What a program gets.
#[derive(Serialize)]
struct Checked<'a> {
    entries: &'a [ReportEntry],
    warnings: &'a [String],
}

pub fn run(context: &Context) -> Result<(), Failure> {
    let loaded = context.load()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let checked = Checked { entries: &loaded.report.entries, warnings: &loaded.warnings };
    context.output.show(&checked, |checked| {
        let rows =
            checked.entries.iter().map(|entry| vec![entry.key.clone(), entry.value.to_string(), entry.origin.clone()]);
        table(&["key", "value", "from"], rows)
    })
}
