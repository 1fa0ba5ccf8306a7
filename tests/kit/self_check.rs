//! The kit judged on its own, without a daemon: a broken judge finds no fault.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::books::Books;
use super::clock::MovableClock;
use super::events::Usage;
use super::exposition::sample;
use super::folder::TestFolder;
use super::process::{exit_code, run};
use super::proxy::Proxy;
use super::random::Random;
use super::sender::{Retry, deliver};
use super::sign::signature;
use super::wait::wait_until;
use super::wire::{Connection, http_request};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Serves each connection in turn on a thread of its own, for as long as the test process lives.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let address = listener.local_addr().expect("a listener has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn echo_server() -> SocketAddr {
    server(|mut stream| {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    })
}

/// Answers every request head with the same bytes, and closes on the word `close` in them.
fn canned_server(answer: &'static [u8]) -> SocketAddr {
    server(move |mut stream| {
        let mut buffer = [0; 8 * 1024];
        while let Ok(1..) = stream.read(&mut buffer) {
            let has_failed = stream.write_all(answer).is_err();
            if has_failed || answer.windows(5).any(|word| word == b"close") {
                return;
            }
        }
    })
}

fn open(address: SocketAddr) -> Connection {
    Connection::open(address, TIMEOUT).expect("the address takes connections")
}

#[test]
fn a_signature_is_that_of_the_standard() {
    // RFC 4231, test case 2.
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(signature("Jefe", b"what do ya want for nothing?"), expected);
}

#[test]
fn answers_are_read_by_length_by_chunks_and_to_the_end() {
    let request = http_request("GET", "/", &[], b"");
    let by_length = canned_server(b"HTTP/1.1 202 Accepted\r\ncontent-LENGTH: 9\r\n\r\n{\"a\":[1]}");
    let mut connection = open(by_length);
    for _ in 0..2 {
        let answer = connection.request(&request).unwrap();
        assert_eq!((answer.status, answer.json()["a"][0].as_i64()), (202, Some(1)), "on one connection");
        assert_eq!(answer.header("Content-Length"), Some("9"));
    }
    let chunks =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n\r\n0123456\r\r\n0\r\nT: t\r\n\r\n";
    let mut connection = open(canned_server(chunks));
    for _ in 0..2 {
        assert_eq!(connection.request(&request).unwrap().text(), "abc\r\n0123456\r");
    }
    let to_the_end = canned_server(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall");
    let answer = open(to_the_end).request(&request).unwrap();
    assert_eq!((answer.text().as_str(), answer.closes()), ("all", true));
    let head = canned_server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert!(open(head).request(&http_request("HEAD", "/", &[], b"")).unwrap().body.is_empty());
}

#[test]
fn an_answer_that_breaks_off_is_an_error() {
    let request = http_request("GET", "/", &[], b"");
    let broken = canned_server(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\nab");
    let error = open(broken).request(&request).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    let mut silent = open(server(std::mem::forget)); // kept open for as long as the process lives
    silent.set_timeout(Duration::from_millis(50));
    assert_eq!(silent.request(&request).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn requests_say_their_length_and_host_once() {
    let request = http_request("POST", "/p", &[("X-A", "b")], b"body");
    let text = String::from_utf8(request).unwrap();
    assert_eq!(text, "POST /p HTTP/1.1\r\nHost: hookledger.test\r\nX-A: b\r\nContent-Length: 4\r\n\r\nbody");
    let given = http_request("POST", "/", &[("host", "h"), ("content-length", "9")], b"");
    assert_eq!(given, b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n");
}

#[test]
fn usage_bodies_carry_numbers_as_they_were_given() {
    let usage = Usage::new("evt-\"1\"").remote_key(7).model("通义").tokens(1, 2).cost("2e-06").request_id("r");
    let json = usage.at_secs(1_766_300_000).json();
    let expected = r#"{"eventId":"evt-\"1\"","eventType":"usage","timestamp":1766300000,"data":DATA}"#;
    let data = r#"{"remoteKeyId":7,"model":"通义","promptTokens":1,"completionTokens":2,"cost":2e-06,"requestId":"r"}"#;
    assert_eq!(json, expected.replace("DATA", data));
    let odd = Usage::new("e").quota(5).data_field("quota", "-1").without_data_field("model").json();
    assert!(odd.contains(r#""quota":-1"#) && !odd.contains("model"), "{odd}");
}

#[test]
fn the_proxy_forwards_counts_cuts_and_refuses() {
    let proxy = Proxy::start(echo_server());
    let echo = |text: &[u8]| {
        let mut connection = open(proxy.address());
        connection.send(text).unwrap();
        connection.finish_sending().unwrap();
        connection.read_to_end().unwrap()
    };
    assert_eq!(echo(b"forward"), b"forward");
    assert_eq!(proxy.connections_taken(), 1);
    wait_until("the proxy forgets it", TIMEOUT, || (proxy.connections_open() == 0).then_some(()));

    let mut cut = open(proxy.address());
    cut.send(b"x").unwrap();
    wait_until("the proxy has taken it", TIMEOUT, || (proxy.connections_open() == 1).then_some(()));
    proxy.cut();
    assert!(matches!(cut.read_to_end().as_deref(), Ok(b"" | b"x") | Err(_)));
    assert_eq!(proxy.connections_open(), 0);

    proxy.refuse();
    let refused = Connection::open(proxy.address(), TIMEOUT).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.forward();
    assert_eq!(echo(b"again"), b"again");
}

#[test]
fn the_proxy_truncates_and_delays() {
    let proxy = Proxy::start(echo_server());
    let echo = || {
        let mut connection = open(proxy.address());
        connection.send(b"0123456789").unwrap();
        connection.read_to_end().unwrap()
    };
    proxy.truncate_to_client(4);
    assert_eq!((echo(), echo()), (b"0123".to_vec(), b"0123".to_vec()), "each connection is cut");
    proxy.forward();
    proxy.truncate_to_server(10);
    let echoed = echo();
    assert!(b"0123456789".starts_with(&echoed), "{echoed:?}");
    proxy.forward();

    proxy.delay(Duration::from_secs(3600));
    let mut held = open(proxy.address());
    held.set_timeout(Duration::from_millis(100));
    held.send(b"held").unwrap();
    assert_eq!(held.read_to_end().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    proxy.delay(Duration::from_millis(1));
    held.set_timeout(TIMEOUT);
    held.finish_sending().unwrap();
    assert_eq!(held.read_to_end().unwrap(), b"held", "a shorter delay counts for what is held already");
}

#[test]
fn the_sender_retries_until_a_2xx_and_reports_every_attempt() {
    let bodies = || (0..20).map(|number| Usage::new(format!("e{number}")).quota(1).json()).collect::<Vec<_>>();
    let kind = canned_server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    let report = deliver(kind, "secret", bodies(), 3, Retry::never());
    report.assert_all_acknowledged();
    assert_eq!((report.acknowledged().len(), report.statuses()), (20, [(200, 20)].into()));
    assert_eq!(report.deliveries[7].event_id().as_deref(), Some("e7"), "in the order given");

    let busy = canned_server(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let report = deliver(busy, "secret", bodies(), 2, Retry::times(3, Duration::ZERO));
    assert_eq!((report.unacknowledged().len(), report.statuses()), (20, [(503, 60)].into()));

    let proxy = Proxy::start(kind);
    proxy.refuse();
    let patience = Retry::until(TIMEOUT, Duration::from_millis(5));
    let ongoing = super::sender::start_delivery(proxy.address(), "secret", bodies(), 2, patience);
    assert_eq!(ongoing.acknowledged(), 0);
    proxy.forward();
    ongoing.finish().assert_all_acknowledged();
}

#[test]
fn samples_are_found_by_name_and_all_labels() {
    let text = "# TYPE a counter\na 1\na{x=\"1\",y=\"q\\\"}\"} 2.5\na_total{x=\"1\"} 7 1700000000\n";
    assert_eq!(sample(text, "a"), Some(1.0));
    assert_eq!(sample(text, r#"a{y="q\"}",x="1"}"#), Some(2.5));
    assert_eq!(sample(text, r#"a{x="1"}"#), None);
    assert_eq!(sample(text, r#"a_total{x="1"}"#), Some(7.0));
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let choices = |mut random: Random| {
        let mut order = [0, 1, 2, 3, 4, 5, 6, 7];
        random.shuffle(&mut order);
        (order, random.between(-3..=3), random.fork().next(), random.below(10) < 10)
    };
    assert_eq!(choices(Random::from_seed(7)), choices(Random::from_seed(7)));
    // The first number of SplitMix64 for the seed 0, as published.
    assert_eq!(Random::from_seed(0).next(), 0xE220_A839_7B1D_CDAF);
}

#[test]
fn a_program_is_run_with_its_input_and_its_exit_told() {
    let output = run(Command::new("sh").args(["-c", "cat; exit 3"]), &vec![b'x'; 300_000], TIMEOUT);
    assert_eq!((output.stdout.len(), exit_code(output.status)), (300_000, 3));
    let killed = run(Command::new("sh").args(["-c", "kill -9 $$"]), b"", TIMEOUT);
    assert_eq!(exit_code(killed.status), 137);
}

#[test]
fn the_movable_clock_holds_its_offset_in_a_file() {
    let folder = TestFolder::new();
    let clock = MovableClock::at(&folder.path().join("clock"));
    clock.advance(Duration::from_secs(60));
    clock.advance(Duration::from_secs(1));
    assert_eq!(std::fs::read_to_string(clock.file()).unwrap(), "61000");
    clock.set_offset_millis(-5);
    assert_eq!(MovableClock::at(clock.file()).offset_millis(), -5, "another handle sees it");
}

#[test]
fn books_are_read_and_written_from_outside() {
    let folder = TestFolder::new();
    let file = folder.path().join("books.db");
    std::fs::write(&file, b"").unwrap();
    let books = Books::at(&file);
    books.execute("CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (-5, 'it''s'), (2, NULL)");
    assert_eq!((books.scalar_i64("SELECT sum(a) FROM t"), books.count("t")), (-3, 2));
    assert_eq!(books.scalar_text("SELECT b FROM t WHERE a = -5"), "it's");
    assert_eq!(books.rows("SELECT * FROM t WHERE 0"), Vec::new());
    assert!(books.rows("SELECT b FROM t WHERE a = 2")[0]["b"].is_null());
}
