//! The gateway's log: its rows, and whatever may happen to them behind a reader's back. Knows nothing of HTTP.

use std::collections::BTreeMap;

use super::rows::Row;

/// Rows by second and id, as a reader gets them from the back.
#[derive(Debug)]
pub struct Log {
    rows: BTreeMap<(i64, i64), Stored>,
    seconds_by_id: BTreeMap<i64, i64>,
    /// Hidden rows that are seen after so many reads more, by id.
    awaited_reads: BTreeMap<i64, u64>,
    next_id: i64,
}

#[derive(Debug)]
struct Stored {
    row: Row,
    is_visible: bool,
}

impl Default for Log {
    fn default() -> Self {
        let (rows, seconds_by_id, awaited_reads) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Log { rows, seconds_by_id, awaited_reads, next_id: 1 }
    }
}

impl Log {
    /// Adds a row, seen from now on. A row without an id gets the next one; answers its id.
    pub fn insert(&mut self, row: Row) -> i64 {
        self.add(row, true)
    }

    /// Adds a row that nobody sees until [`Log::reveal`]: it has its id and its second already, as an insert has that
    /// is not committed.
    pub fn insert_hidden(&mut self, row: Row) -> i64 {
        self.add(row, false)
    }

    /// Adds a row that is missing from so many answers with rows, and then there.
    pub fn insert_hidden_for_reads(&mut self, row: Row, reads: u64) -> i64 {
        let id = self.add(row, reads == 0);
        if reads > 0 {
            self.awaited_reads.insert(id, reads);
        }
        id
    }

    fn add(&mut self, mut row: Row, is_visible: bool) -> i64 {
        if row.id == 0 {
            row.id = self.next_id;
        }
        let id = row.id;
        self.next_id = self.next_id.max(id + 1);
        let former = self.seconds_by_id.insert(id, row.created_at);
        assert!(former.is_none(), "id {id} is in the log already");
        self.rows.insert((row.created_at, id), Stored { row, is_visible });
        id
    }

    fn stored(&mut self, id: i64) -> &mut Stored {
        let second = self.seconds_by_id.get(&id);
        let stored = second.and_then(|second| self.rows.get_mut(&(*second, id)));
        stored.unwrap_or_else(|| panic!("row {id} is not in the log"))
    }

    /// Hides a row that is there, as if its insert were not committed yet.
    pub fn hide(&mut self, id: i64) {
        self.stored(id).is_visible = false;
    }

    pub fn reveal(&mut self, id: i64) {
        self.stored(id).is_visible = true;
    }

    pub fn reveal_all(&mut self) {
        self.rows.values_mut().for_each(|stored| stored.is_visible = true);
    }

    /// As an administrator deletes old rows: those before that second. Ids go on.
    pub fn delete_before(&mut self, secs: i64) {
        self.rows.retain(|(created_at, _), _| *created_at >= secs);
        self.seconds_by_id.retain(|_, created_at| *created_at >= secs);
    }

    pub fn delete(&mut self, id: i64) {
        let second = self.seconds_by_id.remove(&id).unwrap_or_else(|| panic!("row {id} is not in the log"));
        self.rows.remove(&(second, id));
    }

    /// As a table is emptied: ids begin at 1 again.
    pub fn truncate(&mut self) {
        *self = Log::default();
    }

    /// As rows that were copied to another database: the same rows in the same order, under ids from this one on.
    pub fn renumber(&mut self, first_id: i64) {
        let old = std::mem::take(self);
        self.next_id = first_id;
        for (_, mut stored) in old.rows {
            stored.row.id = 0;
            self.add(stored.row, stored.is_visible);
        }
    }

    /// Changes a row in place, but not its id or second.
    pub fn change(&mut self, id: i64, change: impl FnOnce(&mut Row)) {
        let row = &mut self.stored(id).row;
        let key = (row.created_at, row.id);
        change(row);
        assert_eq!((row.created_at, row.id), key, "a row keeps its second and its id");
    }

    /// Rows were answered: hidden ones that wait for that draw nearer.
    pub fn count_read(&mut self) {
        let mut due = Vec::new();
        self.awaited_reads.retain(|id, reads| {
            *reads -= 1;
            if *reads == 0 {
                due.push(*id);
            }
            *reads > 0
        });
        for id in due.into_iter().filter(|id| self.seconds_by_id.contains_key(id)).collect::<Vec<_>>() {
            self.reveal(id);
        }
    }

    /// What can be seen of these seconds, both inclusive: newest first, of one second the highest id first.
    pub fn visible(&self, from_secs: i64, to_secs: i64) -> impl Iterator<Item = &Row> {
        let range = (from_secs <= to_secs).then(|| self.rows.range((from_secs, i64::MIN)..=(to_secs, i64::MAX)));
        let stored = range.into_iter().flat_map(|range| range.rev().map(|(_, stored)| stored));
        stored.filter(|stored| stored.is_visible).map(|stored| &stored.row)
    }

    /// All rows, the hidden ones too, in the order of a reader.
    pub fn rows(&self) -> Vec<Row> {
        self.rows.values().rev().map(|stored| stored.row.clone()).collect()
    }
}
