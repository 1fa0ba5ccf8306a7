//! A scenario as plain data: what the world is like, and what happens in it, in order. A step means something whichever
//! others are left out, so that a failing scenario can be made small.

/// Everything that a seed decides.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub rules: Rules,
    pub steps: Vec<Step>,
}

/// How the sender tells of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// The price in quota units, or as an exact cost.
    Exact,
    /// A cost rounded to cents or so: it never equals the row's.
    Rounded,
    /// The same beside the call's own request id.
    RoundedWithIds,
    /// The start of a long stream: further from the row than the match window.
    Early,
    /// The price in credits alone.
    Credits,
}

/// What the sender and the log say of who a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    None,
    /// Request ids in the rows, and in these percent of the events.
    RequestIds(u64),
    /// The sender puts ids of its own there.
    ForeignIds,
    /// Ids of rows in the events.
    LogIds,
}

/// How the gateway numbers its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowIds {
    Stable,
    MadeUp,
    Absent,
}

#[derive(Debug, Clone)]
pub struct Rules {
    /// Rows may be lost for ever as well.
    pub loses_rows: bool,
    pub balances: Vec<i64>,
    /// First owner of each token; none: it has no key yet. Token `n` is remote id `n + 1`.
    pub tokens: Vec<Option<usize>>,
    pub refuses_overdraft: bool,
    pub rounds_to_nearest: bool,
    pub telling: Telling,
    pub naming: Naming,
    pub row_ids: RowIds,
    /// An older dialect without totals.
    pub is_bare: bool,
    pub page_rows: usize,
    pub rate_micros: i64,
    pub quota_per_unit: i64,
    pub match_window_secs: i64,
    pub dispute_window_secs: i64,
    pub lookback_secs: i64,
    pub full_read_secs: i64,
    pub key_grace_secs: i64,
    /// How long processed rows of `webhook_logs` stay.
    pub logs_kept_secs: Option<i64>,
    /// Our clock is set ahead at some time.
    pub jumps_ahead: bool,
}

/// What a row of the log is to asynchronous tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskPart {
    /// The submission; `named`: its row says which task it is.
    Submission { task: usize, named: bool },
    /// It cost more than was taken: a further charge.
    Further { task: usize, stated: i64 },
    /// So much goes back; older versions wrote it as consumption.
    Refund { task: usize, stated: i64, as_negative: bool },
}

/// One call as the gateway made it, and how its row and its event differ from it.
#[derive(Debug, Clone)]
pub struct Call {
    pub id: usize,
    pub token: usize,
    pub model: usize,
    pub prompt: i64,
    pub completion: i64,
    pub units: i64,
    /// What the event says; none: it cannot be told by an event.
    pub event_units: i64,
    /// How much earlier than the row the event is stamped.
    pub event_before_ms: i64,
    pub has_event_id: bool,
    /// How long after its second the row is there to be read; none: never.
    pub row_after_secs: Option<i64>,
    pub task: Option<TaskPart>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// Through the ledger.
    Settle,
    /// Made durable alone; settled later.
    Record,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFault {
    /// So many requests fail.
    Fails(u32),
    /// So many sums are 0, as when the gateway's database fails.
    SumsAreZero(u32),
    /// So many times rows that were to come later appear between two pages.
    Shifts(u32),
    /// Answers stop after so many requests, for two requests.
    FailsAfter(u32),
}

#[derive(Debug, Clone)]
pub enum Step {
    Wait(i64),
    Call(Call),
    Deliver {
        calls: Vec<usize>,
        road: Road,
    },
    /// The id of a known event with another price.
    Tamper(usize),
    SettleDue,
    SettleWoken,
    LookAtTokens,
    LookAtPrices,
    SetRate(i64),
    Pass {
        reads_all: bool,
    },
    Recheck,
    Retain,
    /// A token gets its first key.
    GiveKey {
        token: usize,
        user: usize,
    },
    /// The owner's key is pointed elsewhere, and another user gets the token.
    RePoint {
        token: usize,
        user: usize,
    },
    /// The key itself changes hands.
    HandOver {
        token: usize,
        user: usize,
    },
    /// A second user gets the token as well.
    Share {
        token: usize,
        user: usize,
    },
    /// One of the two loses it.
    Unshare {
        token: usize,
        first_stays: bool,
    },
    /// The next step but so many that passes here fails, or panics.
    Break {
        point: &'static str,
        panics: bool,
        after: u32,
    },
    Restart,
    /// From now on our clock is so far off.
    SetClock(i64),
    Log(LogFault),
    /// The log is moved: the same rows, with other ids.
    Renumber,
    /// Rows that were read go.
    Truncate {
        restarts_ids: bool,
    },
}
