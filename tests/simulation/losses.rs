//! Where rows are lost as well as events, nobody can tell two calls from one told twice: charges + disputed are then
//! events + rows - the largest one-to-one matching, found here by trying.

use super::books::Books;
use super::matching::largest;
use super::sender::event_ms;
use super::verdict::Group;
use super::world::{Made, Told, World};

/// One kind of calls.
pub fn judge(world: &World, _books: &Books, group: &Group) -> Vec<String> {
    let events: Vec<&Made> = group.calls.iter().copied().filter(|made| made.told == Told::Accepted).collect();
    let rows: Vec<&Made> = group.calls.iter().copied().filter(|made| made.call.row_after_secs.is_some()).collect();
    let apart = |event: &Made, row: &Made| (event_ms(&event.call, event.second) - row.second * 1000).abs();
    let agree = |event: &Made, row: &Made| {
        event.call.model == row.call.model
            && event.call.event_units == row.call.units
            && apart(event, row) <= world.rules.match_window_secs * 1000
    };
    let alike = |event: &Made, row: &Made| apart(event, row) <= world.rules.dispute_window_secs * 1000;
    let reach = |is_near: &dyn Fn(&Made, &Made) -> bool| -> Vec<Vec<usize>> {
        let near = |event: &&Made| (0..rows.len()).filter(|row| is_near(event, rows[*row])).collect();
        events.iter().map(near).collect()
    };
    let tied = largest(&reach(&agree), rows.len());
    let alike = largest(&reach(&|event, row| agree(event, row) || alike(event, row)), rows.len());
    let (calls, found) = (events.len() + rows.len() - tied, group.claims.len() + group.disputed);
    let mut wrong = Vec::new();
    if found != calls {
        wrong.push(format!(
            "{} charges and {} disputed for {} events and {} rows, of which {tied} pairs are the same call",
            group.claims.len(),
            group.disputed,
            events.len(),
            rows.len()
        ));
    }
    if group.disputed > alike - tied {
        wrong.push(format!("{} disputed, and at most {} pairs are alike", group.disputed, alike - tied));
    }
    wrong
}
