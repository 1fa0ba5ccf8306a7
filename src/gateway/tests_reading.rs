//! Complete reading against a log that is large, slow, old, without ids, or changes meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::scripted::{Reply, Request, Scripted, answer, success};
use super::*;

const START: i64 = 1_800_000_000;

/// Before each request for the log: its number from 1, and the log.
type Meanwhile = Box<dyn FnMut(usize, &mut Log) + Send>;

/// A log as new-api keeps it.
#[derive(Clone, Default)]
struct Log {
    /// `id` and `created_at`.
    rows: Vec<(i64, i64)>,
    is_bare: bool,
    has_made_up_ids: bool,
    /// A log store without an order among the rows of a second.
    is_shuffled: bool,
    /// Windows of more seconds are never answered in time.
    slow_beyond_secs: Option<i64>,
    /// This row has a price that cannot be read.
    odd_id: i64,
    ignores_time: bool,
    /// So many of its oldest rows count in the total and are on no page.
    hidden_from_pages: usize,
    /// So many rows the total does not count.
    uncounted: usize,
}

impl Log {
    /// `count` rows, spread over so many seconds.
    fn of(count: i64, seconds: i64) -> Self {
        Log {
            rows: (0..count).map(|index| (index + 1001, START + index * seconds / count)).collect(),
            ..Log::default()
        }
    }

    fn insert(&mut self, id: i64, second: i64) {
        self.rows.push((id, second));
    }

    fn delete(&mut self, id: i64) {
        self.rows.retain(|row| row.0 != id);
    }

    fn reply(&self, request: &Request, number: usize) -> Reply {
        let (from, to) = (request.number("start_timestamp"), request.number("end_timestamp"));
        if self.slow_beyond_secs.is_some_and(|limit| to - from >= limit) {
            return Reply::Hang;
        }
        let mut rows = self.rows.clone();
        if !self.ignores_time {
            rows.retain(|(_, second)| (from..=to).contains(second));
        }
        rows.sort_by_key(|(id, second)| {
            (-second, if self.is_shuffled { (id * 7919 * number as i64) % 101 } else { -id })
        });
        let total = rows.len();
        rows.truncate(total - self.hidden_from_pages.min(total));
        let (size, first) = if self.is_bare { (10, 0) } else { (request.number("page_size"), 1) };
        let offset = (request.number("p") - first) * size;
        let page = rows.iter().skip(offset as usize).take(size as usize).enumerate();
        let items: Vec<Value> = page.map(|(index, (id, second))| self.item(index, *id, *second)).collect();
        match self.is_bare {
            true => success(&json!(items)),
            false => success(
                &json!({"page": offset / size + 1, "page_size": size, "total": total - self.uncounted, "items": items}),
            ),
        }
    }

    fn item(&self, index: usize, id: i64, second: i64) -> Value {
        let shown_id = if self.has_made_up_ids { index as i64 + 1 } else { id };
        let quota = if id == self.odd_id { json!("a lot") } else { json!(id) };
        json!({
            "id": shown_id, "created_at": second, "type": 2, "token_id": 1, "token_name": "t", "model_name": "m",
            "prompt_tokens": 1, "completion_tokens": 1, "quota": quota, "request_id": format!("r-{id}"), "other": "",
        })
    }
}

struct Rig {
    server: Scripted,
    log: Arc<Mutex<Log>>,
}

impl Rig {
    async fn new(log: Log) -> Self {
        Self::with(log, |_, _| {}).await
    }

    async fn with(log: Log, meanwhile: impl FnMut(usize, &mut Log) + Send + 'static) -> Self {
        let log = Arc::new(Mutex::new(log));
        let (shared, mut meanwhile, mut number) = (log.clone(), Box::new(meanwhile) as Meanwhile, 0);
        let server = Scripted::serve(move |request| {
            number += 1;
            let mut log = shared.lock().unwrap();
            meanwhile(number, &mut log);
            log.reply(request, number)
        })
        .await;
        Rig { server, log }
    }

    fn reading(&self, seconds: i64) -> Reading {
        let gateway = self.server.gateway_with(|_, settings| {
            settings.timeout =
                Duration::from_millis(if self.log.lock().unwrap().slow_beyond_secs.is_some() { 3000 } else { 30_000 });
            settings.max_retries = 0;
        });
        let window = Window::new(START, START + seconds - 1).unwrap();
        Reading::new(Arc::new(gateway), window, RowKind::Consumption, Ids::Unknown)
    }

    /// Reads to the end; what was found is what the log holds now, in order, each row once.
    #[track_caller]
    fn assert_whole(&self, pieces: &[Piece], seconds: i64) {
        assert_eq!(pieces.first().unwrap().window.from_second(), START);
        assert_eq!(pieces.last().unwrap().window.to_second(), START + seconds - 1);
        for pair in pieces.windows(2) {
            assert_eq!(pair[0].window.to_second() + 1, pair[1].window.from_second(), "no gap");
        }
        for piece in pieces {
            assert!(piece.rows.iter().all(|row| piece.window.contains(row.second)));
        }
        let found: Vec<_> =
            pieces.iter().flat_map(|piece| &piece.rows).map(|row| (row.second, row.quota_units)).collect();
        assert!(found.is_sorted_by_key(|(second, _)| *second), "oldest first");
        let mut expected: Vec<_> = self.log.lock().unwrap().rows.iter().map(|(id, second)| (*second, *id)).collect();
        let mut sorted = found.clone();
        expected.sort_unstable();
        sorted.sort_unstable();
        assert!(sorted == expected, "{} rows found, {} there", found.len(), expected.len());
    }

    fn pages(&self) -> Vec<i64> {
        self.server.requests().iter().map(|request| request.number("p")).collect()
    }
}

async fn read_all(mut reading: Reading) -> Result<Vec<Piece>, ReadingError> {
    let mut pieces = Vec::new();
    while let Some(piece) = reading.next_piece().await? {
        pieces.push(piece);
    }
    Ok(pieces)
}

#[tokio::test]
async fn pages_become_whole_seconds_oldest_first() {
    let rig = Rig::new(Log::of(250, 60)).await;
    let pieces = read_all(rig.reading(60)).await.unwrap();
    rig.assert_whole(&pieces, 60);
    assert_eq!((pieces.len(), rig.pages()), (1, vec![1, 2, 3]));
    let ids: Vec<_> = pieces[0].rows.iter().filter_map(|row| row.log_id).collect();
    assert!(ids.len() == 250 && ids.is_sorted(), "as they were written");
    assert_eq!((pieces[0].ids, pieces[0].source_time.is_some()), (Ids::Stable, true));
}

#[tokio::test]
async fn an_empty_window_is_read_with_one_request() {
    let rig = Rig::new(Log::default()).await;
    let pieces = read_all(rig.reading(3600)).await.unwrap();
    rig.assert_whole(&pieces, 3600);
    assert_eq!((pieces.len(), rig.pages().len(), pieces[0].ids), (1, 1, Ids::Unknown));
}

#[tokio::test]
async fn a_large_window_is_halved_and_each_piece_can_be_committed() {
    let rig = Rig::new(Log::of(5000, 1000)).await;
    let mut reading = rig.reading(1000);
    let first = reading.next_piece().await.unwrap().unwrap();
    assert_eq!((first.window.from_second(), first.window.seconds(), first.rows.len()), (START, 125, 625));
    assert_eq!(rig.pages().len(), 3 + 7, "nothing of the next piece was asked for");
    let pieces = [vec![first], read_all(reading).await.unwrap()].concat();
    rig.assert_whole(&pieces, 1000);
    assert!(pieces.iter().all(|piece| piece.rows.len() <= 1000));
}

#[tokio::test]
async fn a_second_of_a_hundred_thousand_rows_is_read() {
    let mut log = Log::of(100_000, 1);
    log.rows.extend((0..50).map(|index| (200_000 + index, START + 1 + index)));
    let rig = Rig::new(log).await;
    let pieces = read_all(rig.reading(64)).await.unwrap();
    rig.assert_whole(&pieces, 64);
    assert_eq!((pieces[0].window.seconds(), pieces[0].rows.len()), (1, 100_000));
}

#[tokio::test]
async fn rows_that_come_or_go_between_pages_are_noticed() {
    let late = (5000, START + 59);
    type Change = fn(&mut Log);
    for (what, change) in [
        ("a row came", (|log| log.insert(5000, START + 59)) as Change),
        ("a row came among those that are read later", |log| log.insert(5000, START)),
        ("a row went", |log| log.delete(1250)),
        ("a row came and another went", |log| {
            log.insert(5000, START + 59);
            log.delete(1001);
        }),
    ] {
        let rig = Rig::with(Log::of(250, 60), move |number, log| {
            if number == 2 {
                change(log)
            }
        })
        .await;
        let pieces = read_all(rig.reading(60)).await.unwrap();
        rig.assert_whole(&pieces, 60);
        assert!(rig.pages().len() >= 5, "{what}: read again, {:?}", rig.pages());
    }
    let rig = Rig::with(Log::of(250, 60), move |number, log| {
        if number == 4 {
            log.insert(late.0, late.1)
        }
    })
    .await;
    assert_eq!(
        read_all(rig.reading(60)).await.unwrap()[0].rows.len(),
        250,
        "what comes afterwards is another reading's"
    );
}

#[tokio::test]
async fn a_log_that_never_rests_is_an_error_and_can_be_tried_again() {
    let rest = Arc::new(Mutex::new(false));
    let rests = rest.clone();
    let rig = Rig::with(Log::of(150, 1), move |number, log| {
        if !*rests.lock().unwrap() {
            log.insert(10_000 + number as i64, START);
        }
    })
    .await;
    let mut reading = rig.reading(1);
    let error = reading.next_piece().await.unwrap_err();
    let reason = "the total changed from page to page";
    assert_eq!(error, ReadingError::Restless { second: START, passes: 5, reason });
    *rest.lock().unwrap() = true;
    rig.assert_whole(&[reading.next_piece().await.unwrap().unwrap()], 1);
    assert_eq!(reading.next_piece().await, Ok(None));
}

#[tokio::test]
async fn a_longer_window_that_never_rests_is_divided() {
    // Each request finds one more row in the last second.
    let rig = Rig::with(Log::of(400, 40), |number, log| log.insert(10_000 + number as i64, START + 39)).await;
    let mut reading = rig.reading(40);
    let first = reading.next_piece().await.unwrap().unwrap();
    assert_eq!((first.window.seconds(), first.rows.len()), (20, 200));
}

#[tokio::test]
async fn a_total_that_does_not_fit_is_never_taken_for_whole() {
    for (log, reason) in [
        (Log { hidden_from_pages: 1, ..Log::of(5, 1) }, "there were fewer rows than the total says"),
        (Log { uncounted: 1, ..Log::of(5, 1) }, "there were more rows than the total says"),
    ] {
        let error = read_all(Rig::new(log).await.reading(1)).await.unwrap_err();
        assert_eq!(error, ReadingError::Restless { second: START, passes: 5, reason });
    }
}

#[tokio::test]
async fn a_window_that_takes_too_long_is_divided() {
    let rig = Rig::new(Log { slow_beyond_secs: Some(10), ..Log::of(120, 64) }).await;
    let pieces = read_all(rig.reading(64)).await.unwrap();
    rig.assert_whole(&pieces, 64);
    assert_eq!((pieces.len(), rig.pages().len()), (8, 9));
    let stuck = Rig::new(Log { slow_beyond_secs: Some(0), ..Log::of(120, 64) }).await;
    let mut reading = stuck.reading(64);
    let error = reading.next_piece().await.unwrap_err();
    assert!(matches!(error, ReadingError::Gateway(GatewayError::TimedOut { .. })), "{error}");
    assert_eq!(stuck.pages().len(), 3, "64 seconds, 8, 1");
}

#[tokio::test]
async fn an_error_in_the_middle_gives_nothing_away() {
    let rig = Rig::new(Log::of(250, 60)).await;
    let mut is_down = true;
    let log = rig.log.clone();
    let server = Scripted::serve(move |request| {
        if request.number("p") == 3 && std::mem::replace(&mut is_down, false) {
            return answer(500, "", "");
        }
        log.lock().unwrap().reply(request, 1)
    })
    .await;
    let rig = Rig { server, log: rig.log };
    let mut reading = rig.reading(60);
    let error = reading.next_piece().await.unwrap_err();
    assert_eq!(error, ReadingError::Gateway(GatewayError::ServerFailed { status: 500 }));
    rig.assert_whole(&[reading.next_piece().await.unwrap().unwrap()], 60);
}

#[tokio::test]
async fn a_filter_that_is_ignored_ends_the_reading() {
    let rig = Rig::new(Log { ignores_time: true, ..Log::of(250, 60) }).await;
    let error = read_all(rig.reading(30)).await.unwrap_err();
    let ReadingError::Gateway(error) = error else { panic!("{error}") };
    assert_eq!(error.condition(), Some("filter_ignored"));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_counts_and_is_told() {
    let rig = Rig::new(Log { odd_id: 1100, ..Log::of(250, 60) }).await;
    let pieces = read_all(rig.reading(60)).await.unwrap();
    assert_eq!((pieces[0].rows.len(), pieces[0].unreadable.len(), rig.pages().len()), (249, 1, 3));
    assert_eq!(pieces[0].unreadable[0].stated_id, Some(1100));
}

#[tokio::test]
async fn an_old_version_is_read_until_two_passes_agree() {
    let old = |count| Log { is_bare: true, ..Log::of(count, 60) };
    let rig = Rig::new(old(25)).await;
    rig.assert_whole(&read_all(rig.reading(60)).await.unwrap(), 60);
    assert_eq!(rig.pages(), [1, 0, 1, 2, 0, 1, 2], "the first one tells the dialect");
    let one_page = Rig::new(old(9)).await;
    one_page.assert_whole(&read_all(one_page.reading(60)).await.unwrap(), 60);
    assert_eq!(one_page.pages(), [1, 0], "one answer is sure");
    let full_page = Rig::new(old(10)).await;
    full_page.assert_whole(&read_all(full_page.reading(60)).await.unwrap(), 60);
    assert_eq!(full_page.pages(), [1, 0, 1, 0, 1]);
    // Between the passes, where no page shows it.
    let changed = Rig::with(old(25), |number, log| {
        if number == 5 {
            log.insert(5000, START)
        }
    })
    .await;
    changed.assert_whole(&read_all(changed.reading(60)).await.unwrap(), 60);
    assert_eq!(changed.pages().len(), 1 + 3 * 3);
}

#[tokio::test]
async fn an_old_version_is_not_paged_deep() {
    let rig = Rig::new(Log { is_bare: true, ..Log::of(700, 64) }).await;
    let pieces = read_all(rig.reading(64)).await.unwrap();
    rig.assert_whole(&pieces, 64);
    assert!(pieces.len() > 1 && rig.pages().iter().all(|page| *page < 20), "{:?}", rig.pages());
    let single = Rig::new(Log { is_bare: true, ..Log::of(305, 1) }).await;
    single.assert_whole(&read_all(single.reading(1)).await.unwrap(), 1);
}

#[tokio::test]
async fn made_up_ids_are_noticed_and_never_used() {
    let log = |count, seconds| Log { has_made_up_ids: true, ..Log::of(count, seconds) };
    for (count, pieces, requests) in [(80, 1, 1), (180, 2, 3)] {
        let rig = Rig::new(log(count, 60)).await;
        let read = read_all(rig.reading(60)).await.unwrap();
        rig.assert_whole(&read, 60);
        assert_eq!((read.len(), rig.pages().len()), (pieces, requests), "each piece is one answer");
        assert!(read.iter().all(|piece| piece.ids == Ids::MadeUp));
        assert!(read.iter().flat_map(|piece| &piece.rows).all(|row| row.log_id.is_none()));
    }
    let second = Rig::new(log(250, 1)).await;
    second.assert_whole(&read_all(second.reading(1)).await.unwrap(), 1);
    assert_eq!(second.pages(), [1, 2, 3, 1, 2, 3], "several answers for one second are read twice");
}

#[tokio::test]
async fn made_up_ids_of_single_rows_are_noticed() {
    // One row in each answer, and each has the id 1.
    let log = Log { has_made_up_ids: true, slow_beyond_secs: Some(1), ..Log::of(3, 3) };
    let pieces = read_all(Rig::new(log).await.reading(3)).await.unwrap();
    let ids: Vec<Ids> = pieces.iter().map(|piece| piece.ids).collect();
    assert_eq!(ids, [Ids::Unknown, Ids::MadeUp, Ids::MadeUp]);
    assert!(pieces.iter().flat_map(|piece| &piece.rows).all(|row| row.log_id.is_none()));
}

#[tokio::test]
async fn a_log_store_without_an_order_is_not_believed() {
    let log = |seconds| Log { has_made_up_ids: true, is_shuffled: true, ..Log::of(180, seconds) };
    let error = read_all(Rig::new(log(1)).await.reading(1)).await.unwrap_err();
    assert!(matches!(error, ReadingError::Restless { passes: 5, .. }), "{error}");
    let spread = Rig::new(log(4)).await;
    spread.assert_whole(&read_all(spread.reading(4)).await.unwrap(), 4);
}
