//! An audit's report for people: what, whose, when, how much, and what to do.

use std::fmt::Write as _;

use super::output::visible;
use crate::audit::{AuditReport, Difference, SourceReport};

pub fn tell(report: &AuditReport, strict: bool) -> String {
    let mut text = String::new();
    if let Some(apart) = &report.apart {
        writeln!(text, "{apart}: run `hookledger repair` before anything else.\n").ok();
    }
    let counted = |of_others: bool| -> u64 {
        report.counts.iter().filter(|(kind, _)| kind.is_of_others() == of_others).map(|(_, count)| count).sum()
    };
    let (own, others) = (counted(false), counted(true));
    let differences = if own == 1 { "difference" } else { "differences" };
    chapter(&mut text, &format!("{own} {differences}:"), &report.differences);
    let judged = if strict { "they count" } else { "they count with --strict only" };
    let heading = format!("{others} put down to other programs, while our own chain is whole ({judged}):");
    chapter(&mut text, &heading, &report.of_others);
    chapter(&mut text, "Accepted, and not counted:", &report.accepted);
    if report.more > 0 {
        writeln!(text, "{} more are not listed: see --limit.\n", report.more).ok();
    }
    let unverified = report.unverified + report.unverified_of_others;
    if unverified > 0 {
        let of_others = report.unverified_of_others;
        writeln!(text, "{unverified} more were seen and not kept, {of_others} of them of other programs.\n").ok();
    }
    for gone in &report.no_longer_found {
        let what = match report.source {
            Some(_) => "and is not there any more",
            None => "and was not found: it is over, or only --against-source sees it",
        };
        writeln!(text, "{} was accepted ({}), {what}.", gone.id, visible(&gone.reason)).ok();
    }
    for note in &report.notes {
        writeln!(text, "Note: {note}").ok();
    }
    text.push_str(&looked_at(report));
    if let Some(source) = &report.source {
        text.push_str(&compared(source));
    }
    let verdict = match (report.is_whole(strict), others) {
        (true, 0) => "The books agree.",
        (true, _) => "The books agree; other programs moved balances.",
        (false, _) => "The books differ.",
    };
    text.push_str(verdict);
    text
}

fn chapter(text: &mut String, heading: &str, differences: &[Difference]) {
    if differences.is_empty() {
        return;
    }
    writeln!(text, "{heading}\n").ok();
    for one in differences {
        let kind = serde_json::to_value(one.kind).ok();
        let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or_default().replace('_', " ");
        writeln!(text, "{}  {kind}", one.id).ok();
        writeln!(text, "  {}", visible(&one.says)).ok();
        let whose = match (&one.user_id, &one.email) {
            (Some(user), Some(email)) => Some(format!("user {} ({user})", visible(email))),
            (Some(user), None) => Some(format!("user {user}")),
            _ => None,
        };
        let when = match (&one.since, &one.until) {
            (Some(since), Some(until)) => Some(format!("between {since} and {until}")),
            (Some(since), None) => Some(format!("since {since}")),
            (None, Some(until)) => Some(format!("before {until}")),
            (None, None) => None,
        };
        let amount = (one.credits != "0").then(|| format!("{} credits", one.credits));
        let facts: Vec<String> = [whose, when, amount].into_iter().flatten().collect();
        if !facts.is_empty() {
            writeln!(text, "  {}", facts.join(", ")).ok();
        }
        match &one.accepted {
            Some(known) => writeln!(text, "  accepted on {}: {}\n", known.accepted_at, visible(&known.reason)).ok(),
            None => writeln!(text, "  {}\n", one.what_to_do).ok(),
        };
    }
}

fn looked_at(report: &AuditReport) -> String {
    let seen = &report.looked_at;
    let (charges, transactions) = (seen.charges, seen.transactions);
    let mut text = format!(
        "Looked at: charges {charges}, transactions {transactions}, refunds {}, users {}.\n",
        seen.refunds, seen.users
    );
    if seen.erased_charges > 0 {
        let (charges, credits) = (seen.erased_charges, seen.erased_credits);
        writeln!(text, "Erased with their user or key: {charges} charges of {credits} credits.").ok();
    }
    if seen.adopted_charges > 0 {
        writeln!(text, "Billed by another program: {} calls.", seen.adopted_charges).ok();
    }
    if seen.unpaid_credits > 0 {
        writeln!(text, "Unpaid, refused for want of balance: {} credits.", seen.unpaid_credits).ok();
    }
    text
}

fn compared(source: &SourceReport) -> String {
    let SourceReport { source, since, until, spans_agreed, spans_read } = source;
    match since.as_ref().zip(until.as_ref()) {
        Some((since, until)) => format!(
            "Compared with new-api's log ({source}) from {since} to {until}: {spans_agreed} spans agreed by their figures, \
             {spans_read} were read row by row.\n"
        ),
        None => format!(
            "Nothing was compared with new-api's log ({source}): no second of it is covered, or it has no row of that time.\n"
        ),
    }
}
