//! Natural batching: what arrives while one batch is under way makes up the next. Idle, nothing waits.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::guard::Ending;
use super::mailbox::Unsent;
use crate::storage::StoreError;

/// Where one item's outcome goes.
pub type Reply<O> = oneshot::Sender<Result<O, StoreError>>;

/// Items that wait for a batch, each with a place for its outcome.
pub struct Batcher<T, O> {
    waiting: VecDeque<(T, Reply<O>)>,
    is_under_way: bool,
    capacity: usize,
}

impl<T, O> Batcher<T, O> {
    pub fn new(capacity: usize) -> Self {
        Batcher { waiting: VecDeque::new(), is_under_way: false, capacity }
    }

    /// Refuses what exceeds the bound; the caller's reply is dropped with it, which tells him.
    pub fn push(&mut self, item: T, reply: Reply<O>) -> Result<(), Unsent> {
        if self.waiting.len() >= self.capacity {
            return Err(Unsent::Full);
        }
        self.waiting.push_back((item, reply));
        Ok(())
    }

    /// The next batch of at most `max_batch` items, unless one is under way or nothing waits.
    pub fn begin(&mut self, max_batch: usize) -> Option<(Vec<T>, Vec<Reply<O>>)> {
        if self.is_under_way || self.waiting.is_empty() {
            return None;
        }
        self.is_under_way = true;
        let size = self.waiting.len().min(max_batch);
        Some(self.waiting.drain(..size).unzip())
    }

    /// Tells each caller, and makes room for the next batch. Whose outcome is whose is not to be guessed: where their
    /// numbers differ, nobody is told anything.
    pub fn finish(&mut self, replies: Vec<Reply<O>>, outcomes: Result<Vec<O>, StoreError>) -> Result<(), Ending> {
        self.is_under_way = false;
        match outcomes {
            Ok(outcomes) if outcomes.len() != replies.len() => {
                let (outcomes, items) = (outcomes.len(), replies.len());
                return Err(Ending::Error(format!("{outcomes} outcomes came back for a batch of {items}")));
            }
            Ok(outcomes) => {
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    reply.send(Ok(outcome)).ok();
                }
            }
            Err(error) => {
                for reply in replies {
                    reply.send(Err(error.clone())).ok();
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(batcher: &mut Batcher<u32, u32>, item: u32) -> oneshot::Receiver<Result<u32, StoreError>> {
        let (reply, answer) = oneshot::channel();
        batcher.push(item, reply).ok();
        answer
    }

    #[test]
    fn what_arrives_during_a_batch_makes_up_the_next() {
        let mut batcher = Batcher::new(10);
        let mut first = push(&mut batcher, 1);
        let (items, replies) = batcher.begin(2).unwrap();
        assert_eq!(items, [1]);
        let answers: Vec<_> = (2..=4).map(|item| push(&mut batcher, item)).collect();
        assert!(batcher.begin(2).is_none(), "one batch at a time");
        batcher.finish(replies, Ok(vec![10])).unwrap();
        assert_eq!(first.try_recv().unwrap().unwrap(), 10);
        let (items, replies) = batcher.begin(2).unwrap();
        assert_eq!(items, [2, 3], "at most max_batch");
        batcher.finish(replies, Err(StoreError::Overloaded)).unwrap();
        for mut answer in answers.into_iter().take(2) {
            assert!(answer.try_recv().unwrap().is_err());
        }
    }

    #[test]
    fn outcomes_that_nobody_can_assign_are_told_to_nobody() {
        let mut batcher = Batcher::new(10);
        let mut answers = [push(&mut batcher, 1), push(&mut batcher, 2)];
        let (_, replies) = batcher.begin(2).unwrap();
        assert!(matches!(batcher.finish(replies, Ok(vec![10])), Err(Ending::Error(_))));
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
    }

    #[test]
    fn a_full_batcher_tells_the_caller() {
        let mut batcher = Batcher::new(1);
        let mut kept = push(&mut batcher, 1);
        let mut refused = push(&mut batcher, 2);
        assert_eq!(refused.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(kept.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }
}
