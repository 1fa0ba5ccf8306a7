//! A charge in words: every figure from the event to the balance on one screen, so that a picture of it settles a dispute.

use super::output::{facts, or_dash};
use crate::storage::charges::{ChargeDetail, ChargeView, RefundView, Refunded, Reversed};

/// A charge from its event to the balance, and what was given back of it.
pub fn explain(detail: &ChargeDetail) -> String {
    let ChargeDetail { charge, email, key_label, received_at, transaction, balance_before, refunds } = detail;
    let gone = |found: &Option<String>| found.clone().unwrap_or_else(|| "(gone)".to_owned());
    let mut lines = vec![
        ("charge", charge.id.clone()),
        ("user", format!("{} ({})", gone(email), charge.user_id)),
        ("key", format!("{} ({}), new-api's token {}", gone(key_label), charge.key_id, charge.remote_key_id)),
        ("call", format!("{} UTC", charge.called_at)),
        ("model", charge.model.clone()),
        ("tokens", format!("{} prompt, {} completion", charge.prompt_tokens, charge.completion_tokens)),
        ("told by", told_by(charge)),
        ("received", received_at.as_ref().map_or_else(|| "-".to_owned(), |at| format!("{at} UTC"))),
        ("request id", or_dash(charge.request_id.as_deref())),
        ("charged", format!("{} UTC", charge.settled_at)),
        ("price", price(charge)),
        ("remainder", remainder(charge)),
    ];
    lines.push(("deducted", deducted(charge)));
    if let (Some(transaction), Some(before)) = (transaction, balance_before) {
        lines.push(("balance", format!("{before} before, {} after", transaction.balance)));
        lines.push(("transaction", format!("{} at {} UTC", transaction.id, transaction.created_at)));
    }
    for refund in refunds {
        lines.push(("given back", given_back(refund)));
    }
    if !refunds.is_empty() {
        lines.push(("in all", format!("{} of {} credits given back", charge.refunded, charge.price)));
    }
    facts(&lines)
}

fn told_by(charge: &ChargeView) -> String {
    match (&charge.event_id, charge.log_id) {
        (Some(event), _) => format!("webhook, event {event}"),
        (None, Some(row)) => format!("new-api's log, row {row}"),
        (None, None) => charge.source.clone(),
    }
}

fn price(charge: &ChargeView) -> String {
    let ChargeView { price, usd_to_credits, quota_per_unit, .. } = charge;
    match charge.quota {
        Some(quota) => {
            format!(
                "{quota} quota units / {quota_per_unit} a dollar x {usd_to_credits} credits a dollar = {price} credits"
            )
        }
        None => format!("{price} credits, set by the sender"),
    }
}

fn remainder(charge: &ChargeView) -> String {
    let ChargeView { remainder_before, remainder_after, price, credits, unpaid, .. } = charge;
    if remainder_before == remainder_after && price.contains('.') {
        return format!("{remainder_before}, untouched: the price was rounded by itself");
    }
    let whole = credits + unpaid;
    format!("{remainder_before} before + {price} = {whole} whole credits, and {remainder_after} kept for the next call")
}

fn deducted(charge: &ChargeView) -> String {
    match charge.unpaid {
        0 => format!("{} credits", charge.credits),
        unpaid => format!("{} credits; {unpaid} unpaid, as the account was empty", charge.credits),
    }
}

fn given_back(refund: &RefundView) -> String {
    let RefundView { refunded_at, reason, amount, credits, unpaid_lowered, remainder_after, .. } = refund;
    let mut text = format!("{amount} credits at {refunded_at} UTC, \"{reason}\": {credits} whole credits");
    if *unpaid_lowered > 0 {
        text.push_str(&format!(" and {unpaid_lowered} less unpaid"));
    }
    text.push_str(&format!(", remainder {remainder_after}"));
    if let Some(transaction) = &refund.transaction {
        text.push_str(&format!(", balance {}", transaction.balance));
    }
    text
}

/// The figures of a charge beside its event.
pub fn charge_facts(charge: &ChargeView) -> Vec<(&'static str, String)> {
    vec![
        ("charge", charge.id.clone()),
        ("user", charge.user_id.clone()),
        ("key", charge.key_id.clone()),
        ("model", charge.model.clone()),
        ("tokens", format!("{} prompt, {} completion", charge.prompt_tokens, charge.completion_tokens)),
        ("price", price(charge)),
        ("remainder", remainder(charge)),
        ("deducted", deducted(charge)),
        ("given back", format!("{} credits", charge.refunded)),
    ]
}

pub fn tell_refund(refunded: &Refunded) -> String {
    let Refunded { id, charge, user_id, amount, credits, unpaid_lowered, balance, repeated, .. } = refunded;
    let done = if *repeated { "had been given back before; nothing was added now" } else { "given back" };
    let mut lines = vec![
        ("refund", id.clone()),
        ("charge", charge.clone()),
        ("user", user_id.clone()),
        ("amount", format!("{amount} credits {done}")),
        ("whole credits", credits.to_string()),
    ];
    if *unpaid_lowered > 0 {
        lines.push(("less unpaid", unpaid_lowered.to_string()));
    }
    lines.push(("remainder", format!("{} before, {} after", refunded.remainder_before, refunded.remainder_after)));
    lines.push(("balance", balance.to_string()));
    facts(&lines)
}

pub fn tell_reversal(reversed: &Reversed, is_dry_run: bool) -> String {
    let Reversed { charges, amount, credits, unpaid_lowered, refused, .. } = reversed;
    let done = if is_dry_run { "would be given back" } else { "given back" };
    let mut lines = vec![
        ("charges", format!("{charges} {done}")),
        ("amount", format!("{amount} credits")),
        ("whole credits", credits.to_string()),
    ];
    if *unpaid_lowered > 0 {
        lines.push(("less unpaid", unpaid_lowered.to_string()));
    }
    if *refused > 0 {
        lines.push(("refused", format!("{refused}: their users are gone, or the amount does not fit the books")));
    }
    facts(&lines)
}
