//! Bodies as a whole: what is no JSON object, what is too large, and what is kept byte for byte.

use super::rig::{
    Body, CHARGED, Intake, NOTHING, SIGNATURE, blames, chunked_request, events_request, processed, turned_away,
};
use crate::kit::books::quoted;
use crate::kit::daemon::SECRET;
use crate::kit::sign::signature;

/// `server.max_body_bytes`, unless set otherwise.
const LIMIT_BYTES: usize = 65_536;

/// An event of exactly so many bytes: an unknown field fills it.
fn filled(event_id: &str, bytes: usize) -> String {
    let body = Body::usage(event_id).set("padding", "\"\"").json();
    let missing = bytes - body.len();
    body.replace(r#""padding":"""#, &format!(r#""padding":"{}""#, "x".repeat(missing)))
}

#[test]
fn what_is_no_json_object_is_refused_as_a_whole() {
    let mut intake = Intake::start();
    let whole = Body::usage("never").json();
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".to_vec()),
        ("spaces", b"  \n".to_vec()),
        ("text", b"usage".to_vec()),
        ("a string", b"\"{}\"".to_vec()),
        ("a number", b"1".to_vec()),
        ("null", b"null".to_vec()),
        ("a form", b"eventId=e&eventType=usage".to_vec()),
        ("an array", format!("[{whole}]").into_bytes()),
        ("an array of the fields", br#"["e","usage",1766300000,{}]"#.to_vec()),
        ("truncated", whole.as_bytes()[..whole.len() - 1].to_vec()),
        ("truncated inside a string", whole.as_bytes()[..20].to_vec()),
        ("trailing garbage", format!("{whole}x").into_bytes()),
        ("a second object", format!("{whole}{whole}").into_bytes()),
        ("a trailing NUL", format!("{whole}\0").into_bytes()),
        ("a trailing comma", whole.replace("}}", "},}").into_bytes()),
        ("single quotes", whole.replace('"', "'").into_bytes()),
        ("a comment", format!("{{/* */{}", &whole[1..]).into_bytes()),
        ("a byte order mark", format!("\u{feff}{whole}").into_bytes()),
        ("UTF-16", whole.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a NUL byte in a name", whole.replace("never", "ne\0ver").into_bytes()),
        ("a raw line end in a name", whole.replace("never", "ne\nver").into_bytes()),
        ("no UTF-8", [whole.replace("never", "né").as_bytes(), b"\xff"].concat()),
        ("Latin-1 in a name", latin1(&whole.replace("never", "né"))),
        ("nested arrays", deep("[", "]").into_bytes()),
        ("nested and never closed", "[".repeat(60_000).into_bytes()),
        ("an object nested and never closed", r#"{"a":"#.repeat(12_000).into_bytes()),
    ];
    for (what, body) in rows {
        intake.check_body(what, body, &blames("JSON"), NOTHING);
    }
    intake.finish();
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("the text is Latin-1")).collect()
}

#[test]
fn depth_costs_nothing_and_counts_only_where_it_is_read() {
    let mut intake = Intake::start();
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_object = format!("{}1{}", r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
    for (what, path, json) in [
        ("deep arrays beside the fields", "extra", &deep),
        ("deep objects beside the fields", "extra", &deep_object),
        ("deep arrays in data", "data.extra", &deep),
        ("deep objects in data", "data.extra", &deep_object),
    ] {
        let body = Body::usage(what).set(path, json).json();
        intake.check_body(what, body, &processed(what), CHARGED);
    }
    for path in ["eventId", "eventType", "timestamp", "data", "data.model", "data.promptTokens", "data.cost"] {
        for json in [&deep, &deep_object] {
            let body = Body::usage("never").set(path, json).json();
            intake.check_body(&format!("deep {path}"), body, &blames(path), NOTHING);
        }
    }
    intake.finish();
}

#[test]
fn a_field_twice_is_refused_wherever_it_is_read() {
    let mut intake = Intake::start();
    let whole = Body::usage("never")
        .set("data.totalTokens", 150)
        .set("data.cost", "0.001")
        .set("data.creditCost", 1)
        .set("data.requestId", "\"r\"")
        .set("data.logId", 1)
        .json();
    let fields = [
        ("eventId", "\"never\""),
        ("eventType", "\"usage\""),
        ("timestamp", "1766300000"),
        ("data", "{}"),
        ("remoteKeyId", "1"),
        ("model", "\"gpt-4\""),
        ("promptTokens", "100"),
        ("completionTokens", "50"),
        ("totalTokens", "150"),
        ("cost", "0.001"),
        ("creditCost", "1"),
        ("quota", "500"),
        ("requestId", "\"r\""),
        ("logId", "1"),
    ];
    for (name, json) in fields {
        let first = format!("\"{name}\":");
        for doubled in [format!("{first}{json},{first}"), format!("{first}null,{first}")] {
            let body = whole.replacen(&first, &doubled, 1);
            assert_ne!(body, whole, "{name} is in the body");
            intake.check_body(&format!("{name} twice"), body, &blames(name), NOTHING);
        }
    }
    let escaped = whole.replacen("\"data\":", r#""d\u0061ta":null,"data":"#, 1);
    intake.check_body("once in other letters", escaped, &blames("data"), NOTHING);
    intake.finish();
}

#[test]
fn exactly_the_limit_is_taken_and_one_byte_more_is_not() {
    let mut intake = Intake::start();
    let mut spaced = Body::usage("spaces").json();
    spaced.push_str(&" ".repeat(LIMIT_BYTES - spaced.len()));
    intake.check_body("spaces", spaced, &processed("spaces"), CHARGED);
    intake.check_body("unknown field", filled("field", LIMIT_BYTES), &processed("field"), CHARGED);
    let chunks = chunked_request(SECRET, filled("chunks", LIMIT_BYTES).as_bytes(), 4096);
    intake.check("in chunks", &chunks, &processed("chunks"), CHARGED);

    let over = filled("never", LIMIT_BYTES + 1);
    intake.check_body("one byte more", &over, &turned_away(413), NOTHING);
    let chunks = chunked_request(SECRET, over.as_bytes(), 4096);
    intake.check("one byte more in chunks", &chunks, &turned_away(413), NOTHING);
    let chunk = chunked_request(SECRET, over.as_bytes(), LIMIT_BYTES + 1);
    intake.check("one byte more in one chunk", &chunk, &turned_away(413), NOTHING);
    intake.check_body("much more", filled("never", 10 * LIMIT_BYTES), &turned_away(413), NOTHING);

    let short = Body::usage("never").json();
    let right = signature(SECRET, short.as_bytes());
    for length in ["65537", "10000000", "18446744073709551615"] {
        let headers = [("Content-Length", length), (SIGNATURE, right.as_str())];
        let request = events_request(&headers, &short);
        intake.check(&format!("declared as {length}"), &request, &turned_away(413), NOTHING);
    }
    intake.finish();
}

#[test]
fn what_is_kept_is_kept_byte_for_byte() {
    let mut intake = Intake::start();
    let plain = |event_id: &str| Body::usage(event_id);
    let rows = [
        ("compact", plain("compact").json()),
        ("spaced", plain("spaced").json().replace(':', " :\t").replace(',', "\r\n , ")),
        ("framed", format!("\n\t {} \r\n", plain("framed").json())),
        ("not ASCII", plain("not ASCII").set("data.model", "\"通义-🦀-é-e\u{301}\"").json()),
        ("escaped", plain("escaped").set("data.model", r#""\u901a\u4e49-\ud83e\udd80\/\"\\""#).json()),
        ("numbers", plain("numbers").set("data.promptTokens", "1.00e2").set("unknown", "1E400").json()),
        ("escaped in an unknown field", {
            plain("escaped in an unknown field").set("data.extra", r#""a\u0000b\t""#).json()
        }),
        ("quotes", plain("quotes").set("extra", r#""'; DROP TABLE webhook_logs; --""#).json()),
    ];
    for (event_id, body) in rows {
        intake.check_body(event_id, &body, &processed(event_id), CHARGED);
        let sql = format!("SELECT hex(payload) FROM webhook_logs WHERE eventId = {}", quoted(event_id));
        let kept = intake.daemon.books().scalar_text(&sql);
        assert_eq!(kept, hex::encode_upper(&body), "{event_id}: {body}");
    }
    assert_eq!(intake.charge("escaped")["model"], "通义-🦀/\"\\");
    intake.finish();
}
