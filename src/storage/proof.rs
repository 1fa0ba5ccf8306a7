//! What a covered second rests on: the names in `hookledger_spans.proof`, on either database.

/// How a span came to be covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Every row of it was read and settled.
    Read,
    /// Its figures agreed with the books: its events count as tied.
    Agreed,
    /// It had agreed, and something came that makes it worth reading: covered all the same.
    Reopened,
}

impl Proof {
    /// The names of `hookledger_spans.proof`.
    pub fn as_str(self) -> &'static str {
        match self {
            Proof::Read => "read",
            Proof::Agreed => "agreed",
            Proof::Reopened => "reopened",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Proof::Read, Proof::Agreed, Proof::Reopened].into_iter().find(|proof| proof.as_str() == text)
    }
}
