//! Threads that take turns, so that what they do together is the same in every run.
//!
//! One of them runs at a time. Who waits (every wait of the library goes through
//! [`Clock::relax`](portcullis::hw::Clock::relax)) lets the next one go on; once all wait, a
//! microsecond passes. So the work of CPUs takes no time and each of them has one to itself: what is
//! seen is who waits for whom, and how long.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

thread_local! {
    /// Which of the threads this one is.
    static ME: Cell<Option<usize>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It goes on as soon as it is its turn.
    Ready,
    /// It waits for time to pass.
    Waits,
    /// It is done, or has not begun.
    Away,
}

struct Table {
    states: Vec<State>,
    turn: usize,
}

/// Whose turn it is.
pub struct Turns {
    table: Mutex<Table>,
    changed: Condvar,
}

impl Turns {
    /// So many threads, the first to begin.
    pub fn new(threads: usize) -> Self {
        Self {
            table: Mutex::new(Table {
                states: vec![State::Ready; threads],
                turn: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, me: usize) {
        let mut table = self.table();
        while table.turn != me {
            let woken = self.changed.wait(table);
            table = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs `work` as the thread `me`, when it is its turn.
    pub fn take<R>(&self, me: usize, work: impl FnOnce() -> R) -> R {
        ME.set(Some(me));
        self.wait_for(me);
        let result = work();
        self.go_on(me, State::Away, || {});
        ME.set(None);
        result
    }

    /// The calling thread waits; others go on, or `tick` lets time pass. Of a thread that takes no
    /// turns: `tick` alone.
    pub fn pass(&self, tick: impl FnOnce()) {
        match ME.get() {
            Some(me) => {
                self.go_on(me, State::Waits, tick);
                self.wait_for(me);
            }
            None => tick(),
        }
    }

    fn go_on(&self, me: usize, state: State, tick: impl FnOnce()) {
        let mut table = self.table();
        table.states[me] = state;
        if !table.states.contains(&State::Ready) {
            // All wait: those that are not away go on after it.
            tick();
            for state in table.states.iter_mut().filter(|it| **it == State::Waits) {
                *state = State::Ready;
            }
        }
        let count = table.states.len();
        let next = (1..=count).map(|step| (me + step) % count);
        if let Some(next) = next.clone().find(|at| table.states[*at] == State::Ready) {
            table.turn = next;
        }
        drop(table);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    #[test]
    fn time_passes_when_all_wait_and_the_order_is_the_same_each_time() {
        let run = || {
            let (turns, clock) = (Turns::new(3), AtomicU64::new(0));
            let seen = Mutex::new(Vec::new());
            thread::scope(|scope| {
                for me in 0..3 {
                    let (turns, clock, seen) = (&turns, &clock, &seen);
                    scope.spawn(move || {
                        turns.take(me, || {
                            for _ in 0..me + 2 {
                                turns.pass(|| {
                                    clock.fetch_add(1, Ordering::Relaxed);
                                });
                                let now = clock.load(Ordering::Relaxed);
                                seen.lock().expect("whole").push((now, me));
                            }
                        });
                    });
                }
            });
            seen.into_inner().expect("whole")
        };
        let seen = run();
        assert_eq!(seen, run());
        // All three wait twice, two of them a third time, the last one a fourth.
        let times: Vec<u64> = seen.iter().map(|(now, _)| *now).collect();
        assert_eq!(times, [1, 1, 1, 2, 2, 2, 3, 3, 4]);
    }
}
