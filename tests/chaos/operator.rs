//! An operator at the command line who gives credits and money back while the daemon dies under his commands, and repeats
//! each with its idempotency key until it succeeds.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::kit::daemon::Daemon;
use crate::kit::database::is_sqlite;
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// What adds to one user's balance, once.
#[derive(Debug)]
struct Order {
    user: usize,
    amount: i64,
    arguments: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Operator {
    given: u64,
    /// Credits that the finished orders gave, by user.
    added: Vec<i64>,
    open: Vec<(Order, Option<Child>)>,
    /// Charges of a credit or more of which nothing was given back, with their user.
    pub refundable: Vec<(String, usize)>,
}

impl Operator {
    pub fn new(users: usize) -> Self {
        Operator { added: vec![0; users], ..Operator::default() }
    }

    pub fn grants(&mut self, daemon: &Daemon, user: usize, user_id: &str) {
        let amount = 3 + self.given as i64 % 50;
        let mut arguments = vec!["credits", "grant", "--user", user_id].into_iter().map(str::to_owned).collect();
        self.key(&mut arguments, amount);
        if !is_sqlite() {
            arguments.push("--platform-database".to_owned());
        }
        self.begin(daemon, Order { user, amount, arguments });
    }

    /// Whether there was a charge to give one credit back of.
    pub fn refunds(&mut self, daemon: &Daemon) -> bool {
        let Some((charge, user)) = self.refundable.pop() else { return false };
        let mut arguments = vec!["charges".to_owned(), "refund".to_owned(), charge, "--reason".to_owned()];
        arguments.push("chaos".to_owned());
        self.key(&mut arguments, 1);
        self.begin(daemon, Order { user, amount: 1, arguments });
        true
    }

    fn key(&mut self, arguments: &mut Vec<String>, amount: i64) {
        self.given += 1;
        let words = ["--amount".to_owned(), amount.to_string(), "--idempotency-key".to_owned()];
        arguments.extend(words);
        arguments.push(format!("order-{}", self.given));
    }

    /// Starts the command and waits for nothing.
    fn begin(&mut self, daemon: &Daemon, order: Order) {
        let child = spawn(daemon, &order);
        self.open.push((order, Some(child)));
    }

    /// Repeats each order until it has succeeded. The daemon has to be well.
    pub fn finish(&mut self, daemon: &Daemon) {
        for (order, mut child) in std::mem::take(&mut self.open) {
            wait_until(&format!("{:?} succeeds", order.arguments), PATIENCE, || {
                let running = child.get_or_insert_with(|| spawn(daemon, &order));
                let status = running.try_wait().expect("a command can be waited for")?;
                child = None;
                status.success().then_some(())
            });
            self.added[order.user] += order.amount;
        }
    }

    /// Credits that were given so far, by user.
    pub fn added(&self) -> &[i64] {
        assert!(self.open.is_empty(), "every order is finished");
        &self.added
    }
}

fn spawn(daemon: &Daemon, order: &Order) -> Child {
    let arguments: Vec<&str> = order.arguments.iter().map(String::as_str).collect();
    let mut command = daemon.any_command(&arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a command can be started")
}
