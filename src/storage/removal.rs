//! What is cleared because it is old, as an owner of a writing connection is told; the same for every database.

/// What the owner of the writing connection is to clear.
#[derive(Debug)]
pub enum Removal {
    Processed(Vec<String>),
    Dead(Vec<String>),
    /// Seconds and ids.
    Claims(Vec<(i64, String)>),
    ForeignRecords(Vec<String>),
    LogRows(Vec<String>),
    /// Move the mark of the claims, which comes before any of them goes.
    Mark(i64),
}

impl Removal {
    pub fn is_empty(&self) -> bool {
        match self {
            Removal::Processed(ids) | Removal::Dead(ids) | Removal::ForeignRecords(ids) | Removal::LogRows(ids) => {
                ids.is_empty()
            }
            Removal::Claims(keys) => keys.is_empty(),
            Removal::Mark(_) => false,
        }
    }
}
