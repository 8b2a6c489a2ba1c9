//! Stalled transactions: STAG, RESUME, STALL_TERM, early retry (§3.12.2, §4.6).

use crate::core::Core;
use crate::event::Event;
use crate::transaction::{Outcome, Transaction};
use crate::violation::Rule;

/// What became of a transaction that had stalled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// The ticket of [`Outcome::Stalled`].
    pub ticket: u64,
    /// Its end; [`Outcome::Stalled`] never appears here.
    pub outcome: Outcome,
}

/// Where a stalled transaction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No record is written yet: no room, or no tag.
    Unrecorded,
    /// Recorded, waiting for an answer.
    Waiting,
    /// Told to end, which takes effect at this time; until then it may still be tried again.
    Ending { aborts: bool, due_us: u64 },
    /// It went through on an early retry; its tag is still to be answered.
    Gone,
}

#[derive(Clone, Debug)]
struct Stalled {
    ticket: u64,
    stag: u16,
    transaction: Transaction,
    event: Event,
    state: State,
}

/// All stalled transactions.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    next_ticket: u64,
    next_stag: u16,
    list: Vec<Stalled>,
    finished: Vec<Finished>,
}

impl Core {
    /// Stalls a transaction; `ticket` is the one that it has if it had stalled before.
    pub(crate) fn stall(
        &mut self,
        transaction: &Transaction,
        event: Event,
        ticket: Option<u64>,
    ) -> Outcome {
        let ticket = ticket.unwrap_or_else(|| {
            self.stalls.next_ticket += 1;
            self.stalls.next_ticket
        });
        let mut stalled = Stalled {
            ticket,
            stag: 0,
            transaction: transaction.clone(),
            event,
            state: State::Unrecorded,
        };
        self.record_stall(&mut stalled);
        self.stalls.list.push(stalled);
        Outcome::Stalled { ticket }
    }

    fn record_stall(&mut self, stalled: &mut Stalled) {
        let held = self
            .stalls
            .list
            .iter()
            .filter(|other| other.state != State::Unrecorded)
            .count();
        if held >= usize::from(self.id.stall_max.max(1)) {
            return;
        }
        // Records come in the order of what they tell.
        self.flush_events();
        if !self.can_write_event() {
            return;
        }
        let stag = self.free_stag();
        stalled.event.stag = Some(stag);
        if self.write_event(&stalled.event.clone()) {
            stalled.stag = stag;
            stalled.state = State::Waiting;
        }
    }

    fn free_stag(&mut self) -> u16 {
        loop {
            self.stalls.next_stag = self.stalls.next_stag.wrapping_add(1);
            let stag = self.stalls.next_stag;
            let is_held = |other: &Stalled| other.state != State::Unrecorded && other.stag == stag;
            if stag != 0 && !self.stalls.list.iter().any(is_held) {
                return stag;
            }
        }
    }

    fn finish(&mut self, ticket: u64, outcome: Outcome) {
        self.stalls.finished.push(Finished { ticket, outcome });
    }

    pub(crate) fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.stalls.finished)
    }

    /// CMD_RESUME.
    pub(crate) fn resume(&mut self, stream: u32, stag: u16, answer: Answer) {
        let is_it = |stalled: &Stalled| {
            stalled.transaction.stream == stream
                && stalled.stag == stag
                && matches!(stalled.state, State::Waiting | State::Gone)
        };
        let Some(at) = self.stalls.list.iter().position(is_it) else {
            return;
        };
        if self.stalls.list[at].state == State::Gone {
            self.stalls.list.remove(at);
            return;
        }
        match answer {
            Answer::Retry => {
                let stalled = self.stalls.list.remove(at);
                self.retry(stalled.ticket, &stalled.transaction);
            }
            Answer::Terminate { aborts } => self.end(at, aborts),
        }
    }

    fn retry(&mut self, ticket: u64, transaction: &Transaction) {
        let outcome = self.submit(transaction, Some(ticket));
        if !matches!(outcome, Outcome::Stalled { .. }) {
            self.finish(ticket, outcome);
        }
    }

    /// Tells the stalled transaction at `at` to end, now or soon.
    fn end(&mut self, at: usize, aborts: bool) {
        let due_us = self.now_us() + self.choices.termination_us();
        self.stalls.list[at].state = State::Ending { aborts, due_us };
        self.end_due();
    }

    fn end_due(&mut self) {
        let now = self.now_us();
        while let Some((at, aborts)) =
            self.stalls
                .list
                .iter()
                .enumerate()
                .find_map(|(at, stalled)| match stalled.state {
                    State::Ending { aborts, due_us } if due_us <= now => Some((at, aborts)),
                    _ => None,
                })
        {
            let stalled = self.stalls.list.remove(at);
            let outcome = if aborts {
                Outcome::Aborted
            } else {
                Outcome::RazWi
            };
            self.finish(stalled.ticket, outcome);
        }
    }

    /// CMD_STALL_TERM.
    pub(crate) fn stall_term(&mut self, stream: u32) {
        if let Ok((ste, _)) = self.stream_entry(stream)
            && !ste.aborts
        {
            self.violate(Rule::StallTermWhileLive, format!("stream {stream:#x}"));
        }
        self.stalls
            .list
            .retain(|stalled| stalled.transaction.stream != stream || stalled.state != State::Gone);
        for at in 0..self.stalls.list.len() {
            let stalled = &self.stalls.list[at];
            if stalled.transaction.stream == stream
                && !matches!(stalled.state, State::Ending { .. })
            {
                let due_us = self.now_us() + self.choices.termination_us();
                self.stalls.list[at].state = State::Ending {
                    aborts: true,
                    due_us,
                };
            }
        }
        self.end_due();
    }

    /// SMMUEN has become 0: all are aborted, and their tags are free.
    pub(crate) fn abort_stalls(&mut self) {
        for stalled in std::mem::take(&mut self.stalls.list) {
            if stalled.state != State::Gone {
                self.finish(stalled.ticket, Outcome::Aborted);
            }
        }
    }

    /// Writes the records that had no room, ends what is due, tries again early.
    pub(crate) fn run_stalls(&mut self) {
        if self.stalls.list.is_empty() {
            return;
        }
        self.end_due();
        let unrecorded = |stalled: &Stalled| stalled.state == State::Unrecorded;
        while self.can_write_event() {
            let Some(at) = self.stalls.list.iter().position(unrecorded) else {
                break;
            };
            let before = self.stalls.list.len();
            let stalled = self.stalls.list.remove(at);
            self.retry(stalled.ticket, &stalled.transaction);
            if self.stalls.list.len() == before && self.stalls.list.last().is_some_and(unrecorded) {
                break;
            }
        }
        for at in 0..self.stalls.list.len() {
            self.retry_early(at);
        }
        self.stalls
            .list
            .retain(|stalled| stalled.stag != 0 || stalled.state != State::Gone);
    }

    /// Lets the transaction at `at` through, if it would go through now and the model chooses so.
    fn retry_early(&mut self, at: usize) {
        let state = self.stalls.list[at].state;
        if state == State::Gone || !self.choices.retries_early() {
            return;
        }
        let transaction = self.stalls.list[at].transaction.clone();
        if let Ok(outcome) = self.attempt(&transaction) {
            let ticket = self.stalls.list[at].ticket;
            // A transaction told to end has no tag to be answered any more.
            if matches!(state, State::Ending { .. }) {
                self.stalls.list[at].stag = 0;
            }
            self.stalls.list[at].state = State::Gone;
            self.finish(ticket, outcome);
        }
    }

    /// How many stalls hold a tag.
    pub(crate) fn stalled(&self) -> usize {
        self.stalls.list.len()
    }
}

/// How software answers a stall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Retry,
    Terminate { aborts: bool },
}
