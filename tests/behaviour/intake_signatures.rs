//! Who knows the secret: every form of the signature header.

use super::rig::{
    Body, CHARGED, Expected, Intake, NOTHING, SIGNATURE, badly_signed, events_request, processed, unsigned,
};
use crate::kit::daemon::{DaemonOptions, SECRET};
use crate::kit::sign::signature;

#[test]
fn only_the_right_signature_opens_the_door() {
    let mut intake = Intake::start();
    let body = Body::usage("never").json();
    let right = signature(SECRET, body.as_bytes());
    let rows: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("one digit short", right[..63].to_owned()),
        ("half of it", right[..32].to_owned()),
        ("one digit long", format!("{right}0")),
        ("twice", format!("{right}{right}")),
        ("no hex", "g".repeat(64)),
        ("all zeros", "0".repeat(64)),
        ("one digit off", format!("{}{}", &right[..63], if right.ends_with('0') { '1' } else { '0' })),
        ("only the prefix", "sha256=".to_owned()),
        ("the prefix twice", format!("sha256=sha256={right}")),
        ("another algorithm's prefix", format!("sha1={right}")),
        ("space inside", format!("{} {}", &right[..32], &right[32..])),
        ("of other bytes", signature(SECRET, b"{}")),
        ("of the body and a line end", signature(SECRET, format!("{body}\n").as_bytes())),
        ("of another secret", signature("kit-secret-0123456789abcdef0123456780", body.as_bytes())),
        ("of no secret", signature("", body.as_bytes())),
        ("not ASCII", "ü".repeat(32)),
        ("digits of another script", "０".repeat(64)),
    ];
    intake.check("no signature", &events_request(&[], &body), &unsigned(), NOTHING);
    intake.check("no body either", &events_request(&[], ""), &unsigned(), NOTHING);
    let elsewhere = events_request(&[("X-Signature", &right)], &body);
    intake.check("under another name", &elsewhere, &unsigned(), NOTHING);
    for (what, header) in rows {
        intake.check(what, &events_request(&[(SIGNATURE, &header)], &body), &badly_signed(), NOTHING);
    }
    let mut raw = events_request(&[(SIGNATURE, &right)], &body);
    let at = raw.windows(64).position(|window| window == right.as_bytes()).expect("the signature is in the head");
    raw[at..at + 64].fill(0xFF);
    intake.check("bytes that are no text", &raw, &badly_signed(), NOTHING);
    intake.finish();
}

#[test]
fn every_form_that_senders_use_is_accepted() {
    let mut intake = Intake::start();
    type Form = fn(&str) -> String;
    let forms: [(&str, Form); 4] = [
        ("lower case", str::to_owned),
        ("upper case", str::to_uppercase),
        ("prefixed", |right| format!("sha256={right}")),
        ("prefixed upper case", |right| format!("sha256={}", right.to_uppercase())),
    ];
    for (what, form) in forms {
        let body = Body::usage(what).json();
        let header = form(&signature(SECRET, body.as_bytes()));
        intake.check(what, &events_request(&[(SIGNATURE, &header)], &body), &processed(what), CHARGED);
    }
    intake.finish();
}

#[test]
fn the_signature_is_over_the_bytes_as_they_came() {
    let mut intake = Intake::start();
    let compact = Body::usage("spaced").json();
    let spaced = compact.replace(':', " : ");
    let of_compact = signature(SECRET, compact.as_bytes());
    let request = events_request(&[(SIGNATURE, &of_compact)], &spaced);
    intake.check("signed as it would be written anew", &request, &badly_signed(), NOTHING);
    intake.check_body("signed as it was sent", &spaced, &processed("spaced"), CHARGED);
    intake.finish();
}

#[test]
fn all_live_secrets_count_and_no_other() {
    let secrets = ["old-secret-0123456789abcdef0123456789", "new-secret-0123456789abcdef0123456789"];
    let options = DaemonOptions { secret: secrets[1].to_owned(), ..DaemonOptions::new() };
    let mut intake = Intake::start_with(options.set("HOOKLEDGER__WEBHOOK__SECRETS", secrets.join(",")));
    let mut check = |what: &str, secret: &str, expected: &Expected, left| {
        let body = Body::usage(what).json();
        let header = signature(secret, body.as_bytes());
        intake.check(what, &events_request(&[(SIGNATURE, &header)], &body), expected, left);
    };
    check("the old one", secrets[0], &processed("the old one"), CHARGED);
    check("the new one", secrets[1], &processed("the new one"), CHARGED);
    check("a third", SECRET, &badly_signed(), NOTHING);
    check("both at once", &secrets.join(","), &badly_signed(), NOTHING);
    intake.finish();
}
