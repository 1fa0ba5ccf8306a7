//! The books as any other program reads them, by statements of our own.

use super::database::Own;

/// A row of `hookledger_claims`.
#[derive(Debug, Clone)]
pub struct Claim {
    pub id: String,
    pub event_id: Option<String>,
    pub row: Option<(i64, String, i64)>,
    pub token: i64,
    pub model: String,
    pub prompt: i64,
    pub completion: i64,
    pub units: Option<i64>,
    pub femtos: i128,
    pub user: String,
    pub moved: i64,
    pub unpaid: i64,
}

/// A row of `hookledger_refunds`.
#[derive(Debug, Clone)]
pub struct Refund {
    pub claim: String,
    pub user: String,
    pub femtos: i128,
    pub moved: i64,
    pub unpaid_lowered: i64,
    pub transaction: Option<String>,
}

/// A row of `credit_transactions`, in the order of a user's history.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub id: String,
    pub user: String,
    pub kind: String,
    pub amount: i64,
    pub balance: i64,
    pub charge: Option<String>,
}

/// A side that is not charged: a row of the log, or an event.
#[derive(Debug, Clone)]
pub struct Left {
    pub state: String,
    pub token: i64,
    /// Of an event.
    pub event_id: Option<String>,
    /// Of a row.
    pub row: Option<(i64, String, i64)>,
    /// Model and token counts of a row that is kept whole.
    pub content: Option<(String, i64, i64)>,
}

#[derive(Debug, Default)]
pub struct Books {
    pub claims: Vec<Claim>,
    pub refunds: Vec<Refund>,
    pub transactions: Vec<Transaction>,
    /// Id, credits.
    pub usage: Vec<(String, i64)>,
    /// User, balance.
    pub balances: Vec<(String, i64)>,
    /// User, remainder in 1e-15 credit, unpaid credits.
    pub accounts: Vec<(String, i128, i64)>,
    pub rows: Vec<Left>,
    pub inbox: Vec<Left>,
    /// From, until, proof.
    pub spans: Vec<(i64, i64, String)>,
    /// Status and event id of `webhook_logs`.
    pub logged: Vec<(String, String)>,
}

type Line = Vec<Option<String>>;

fn text(line: &Line, column: usize) -> String {
    line[column].clone().unwrap_or_default()
}

fn number(line: &Line, column: usize) -> i64 {
    maybe(line, column).unwrap_or_else(|| panic!("column {column} of {line:?} is a number"))
}

fn maybe(line: &Line, column: usize) -> Option<i64> {
    line[column].as_ref().map(|text| text.parse().unwrap_or_else(|_| panic!("{text} is a whole number")))
}

fn femtos(line: &Line, column: usize) -> i128 {
    i128::from(number(line, column)) * super::prices::FEMTOS + i128::from(number(line, column + 1))
}

fn row(line: &Line, column: usize) -> Option<(i64, String, i64)> {
    Some((maybe(line, column)?, line[column + 1].clone()?, maybe(line, column + 2)?))
}

/// Casts every column to text.
fn select(columns: &str, rest: &str) -> String {
    let cast: Vec<String> = columns.split(", ").map(|column| format!("CAST({column} AS CHAR)")).collect();
    format!("SELECT {} FROM {rest}", cast.join(", "))
}

impl Books {
    pub async fn read(own: &mut Own) -> Self {
        let sql = select(
            "claim_id, event_id, row_second, row_digest, row_nth, remote_key_id, model, prompt_tokens, \
             completion_tokens, price_units, price_credits, price_femtos, user_id, credits_moved, credits_unpaid",
            "hookledger_claims ORDER BY call_second, claim_id",
        );
        let claims = own.rows(&sql).await.iter().map(claim).collect();
        let sql = select(
            "claim_id, user_id, price_credits, price_femtos, credits_moved, unpaid_lowered, transaction_id",
            "hookledger_refunds ORDER BY refund_id",
        );
        let refunds = own.rows(&sql).await.iter().map(refund).collect();
        let sql = select(
            "id, userId, type, amount, balance, ref",
            "credit_transactions WHERE id NOT LIKE 'opening-%' ORDER BY userId, createdAt, id",
        );
        let transactions = own.rows(&sql).await.iter().map(transaction).collect();
        let sql = select("id, creditCost", "usage_records ORDER BY id");
        let usage = own.rows(&sql).await.iter().map(|line| (text(line, 0), number(line, 1))).collect();
        let sql = select("userId, currentCredits", "user_credit_balances ORDER BY userId");
        let balances = own.rows(&sql).await.iter().map(|line| (text(line, 0), number(line, 1))).collect();
        let sql = select("user_id, remainder_femtos, unpaid_credits", "hookledger_accounts ORDER BY user_id");
        let account = |line: &Line| (text(line, 0), i128::from(number(line, 1)), number(line, 2));
        let accounts = own.rows(&sql).await.iter().map(account).collect();
        let sql = select(
            "state, open_token, row_second, row_digest, row_nth, content",
            "hookledger_rows ORDER BY row_second, row_digest, row_nth",
        );
        let rows = own.rows(&sql).await.iter().map(left_row).collect();
        let sql = select(
            "i.reason, i.remote_key_id, w.payload",
            "hookledger_inbox AS i JOIN webhook_logs AS w ON w.id = i.inbox_id ORDER BY i.inbox_id",
        );
        let inbox = own.rows(&sql).await.iter().map(left_event).collect();
        let sql = select("from_second, until_second, proof", "hookledger_spans ORDER BY from_second");
        let span = |line: &Line| (number(line, 0), number(line, 1), text(line, 2));
        let spans = own.rows(&sql).await.iter().map(span).collect();
        let sql = select("status, eventId", "webhook_logs ORDER BY id");
        let logged = own.rows(&sql).await.iter().map(|line| (text(line, 0), text(line, 1))).collect();
        Books { claims, refunds, transactions, usage, balances, accounts, rows, inbox, spans, logged }
    }
}

fn claim(line: &Line) -> Claim {
    Claim {
        id: text(line, 0),
        event_id: line[1].clone(),
        row: row(line, 2),
        token: number(line, 5),
        model: text(line, 6),
        prompt: number(line, 7),
        completion: number(line, 8),
        units: maybe(line, 9),
        femtos: femtos(line, 10),
        user: text(line, 12),
        moved: number(line, 13),
        unpaid: number(line, 14),
    }
}

fn refund(line: &Line) -> Refund {
    Refund {
        claim: text(line, 0),
        user: text(line, 1),
        femtos: femtos(line, 2),
        moved: number(line, 4),
        unpaid_lowered: number(line, 5),
        transaction: line[6].clone(),
    }
}

fn transaction(line: &Line) -> Transaction {
    Transaction {
        id: text(line, 0),
        user: text(line, 1),
        kind: text(line, 2),
        amount: number(line, 3),
        balance: number(line, 4),
        charge: line[5].clone(),
    }
}

fn left_row(line: &Line) -> Left {
    let content = line[5].as_ref().and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let content = content.and_then(|content| {
        let count = |name: &str| content[name].as_i64();
        Some((content["model"].as_str()?.to_owned(), count("prompt_tokens")?, count("completion_tokens")?))
    });
    Left { state: text(line, 0), token: maybe(line, 1).unwrap_or(-1), event_id: None, row: row(line, 2), content }
}

fn left_event(line: &Line) -> Left {
    // Where a collation takes two ids for equal, the later one is stored with a mark: the body has it as it was sent.
    let body: serde_json::Value = serde_json::from_str(&text(line, 2)).unwrap();
    let event_id = body["eventId"].as_str().map(str::to_owned);
    Left { state: text(line, 0), token: number(line, 1), event_id, row: None, content: None }
}
