//! Who runs when several CPUs are at work: decided by a seed, at every point where it matters.
//!
//! CPUs are threads, and one of them has the baton. Each shared store, load, barrier, register
//! access and turn of a wait is a point at which it may have to hand it on, so a run comes again with
//! its seed. What no seed decides, real threads, is [`crowd`].

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::configuration::Draws;

/// More points than any race has: something waits for ever.
const MOST_POINTS: u64 = 4_000_000;

thread_local! {
    static CPU: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which CPU this thread is, if it runs in a race.
pub(crate) fn cpu() -> Option<usize> {
    CPU.get()
}

/// What a CPU does.
pub type Task<'a> = Box<dyn FnOnce() + Send + 'a>;

/// When the baton is handed on.
#[derive(Clone, Debug)]
pub enum Order {
    /// As drawn from this seed.
    Drawn(u64),
    /// CPU 0 runs to its point of this number, counted from 0; then the others to their end, one
    /// after the other; then it goes on. Whoever waits hands on in between.
    CutIn(u64),
}

#[derive(Debug)]
enum Rule {
    Drawn { draws: Draws, one_in: usize },
    CutIn { at: u64 },
}

#[derive(Debug)]
struct Race {
    turn: usize,
    is_done: Vec<bool>,
    rule: Rule,
    /// Points of all CPUs.
    points: u64,
    counts: Points,
}

/// What a race has counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Points {
    /// Points of CPU 0.
    pub first: u64,
    /// Turns of waits, of each CPU.
    pub waits: Vec<u64>,
}

impl Race {
    fn next_after(&self, cpu: usize) -> usize {
        let count = self.is_done.len();
        let others = (1..count).map(|step| (cpu + step) % count);
        others
            .into_iter()
            .find(|it| !self.is_done[*it])
            .unwrap_or(cpu)
    }

    /// Who goes on after this point of `cpu`.
    fn choose(&mut self, cpu: usize, is_wait: bool) -> usize {
        let next = self.next_after(cpu);
        let number = self.counts.first;
        if cpu == 0 {
            self.counts.first += 1;
        }
        self.counts.waits[cpu] += u64::from(is_wait);
        let hands_on = match &mut self.rule {
            Rule::Drawn { draws, one_in } => draws.below(if is_wait { 2 } else { *one_in }) == 0,
            Rule::CutIn { at } => is_wait || (cpu == 0 && number == *at),
        };
        if hands_on { next } else { cpu }
    }
}

/// The baton of one machine.
#[derive(Debug, Default)]
pub struct Schedule {
    is_on: AtomicBool,
    race: Mutex<Option<Race>>,
    handed_on: Condvar,
}

/// Gives the baton on when a CPU ends, however it ends.
struct Runner<'a> {
    schedule: &'a Schedule,
    cpu: usize,
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        CPU.set(None);
        let mut race = self.schedule.lock();
        if let Some(race) = race.as_mut() {
            race.is_done[self.cpu] = true;
            race.turn = race.next_after(self.cpu);
        }
        drop(race);
        self.schedule.handed_on.notify_all();
    }
}

impl Schedule {
    fn lock(&self) -> MutexGuard<'_, Option<Race>> {
        self.race.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A point of the CPU that this thread is, if it is one.
    pub fn point(&self, is_wait: bool) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let Some(cpu) = CPU.get() else { return };
        let mut guard = self.lock();
        let Some(race) = guard.as_mut() else { return };
        race.points += 1;
        let is_endless = race.points > MOST_POINTS;
        let next = race.choose(cpu, is_wait);
        if is_endless {
            drop(guard);
            panic!(
                "no end after {MOST_POINTS} points: CPU {cpu} waits for something that never comes"
            );
        }
        if next != cpu {
            race.turn = next;
            self.handed_on.notify_all();
            self.wait_for_turn(guard, cpu);
        }
    }

    fn wait_for_turn(&self, mut guard: MutexGuard<'_, Option<Race>>, cpu: usize) {
        while guard.as_ref().is_some_and(|race| race.turn != cpu) {
            let woken = self.handed_on.wait(guard);
            guard = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs the tasks, each on a CPU of its own, CPU 0 first; what was counted.
    ///
    /// # Panics
    ///
    /// If a task does.
    pub fn race(&self, order: &Order, tasks: Vec<Task<'_>>) -> Points {
        let rule = match order {
            Order::Drawn(seed) => {
                let mut draws = Draws::new(*seed);
                // Some races are dense, some are two long stretches with one cut.
                let one_in = 2 << draws.below(7);
                Rule::Drawn { draws, one_in }
            }
            Order::CutIn(at) => Rule::CutIn { at: *at },
        };
        *self.lock() = Some(Race {
            turn: 0,
            is_done: vec![false; tasks.len()],
            rule,
            points: 0,
            counts: Points {
                first: 0,
                waits: vec![0; tasks.len()],
            },
        });
        self.is_on.store(true, Ordering::Relaxed);
        thread::scope(|scope| {
            for (cpu, task) in tasks.into_iter().enumerate() {
                scope.spawn(move || {
                    CPU.set(Some(cpu));
                    let _runner = Runner {
                        schedule: self,
                        cpu,
                    };
                    self.wait_for_turn(self.lock(), cpu);
                    task();
                });
            }
        });
        self.is_on.store(false, Ordering::Relaxed);
        self.lock()
            .take()
            .map(|race| race.counts)
            .unwrap_or_default()
    }
}

/// Runs the tasks on real threads, all at once; no seed decides who is first.
///
/// # Panics
///
/// If a task does.
pub fn crowd(tasks: Vec<Task<'_>>) {
    thread::scope(|scope| {
        for task in tasks {
            scope.spawn(task);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who was at work at each of the points, two CPUs with `points` points each.
    fn played(order: &Order, points: usize) -> (Vec<usize>, u64) {
        let schedule = Schedule::default();
        let seen = Mutex::new(Vec::new());
        let task = |cpu| -> Task<'_> {
            let (schedule, seen) = (&schedule, &seen);
            Box::new(move || {
                for _ in 0..points {
                    seen.lock().expect("whole").push(cpu);
                    schedule.point(false);
                }
            })
        };
        let counted = schedule.race(order, vec![task(0), task(1)]);
        assert_eq!(counted.waits, [0, 0]);
        (seen.into_inner().expect("whole"), counted.first)
    }

    #[test]
    fn a_seed_decides_and_comes_again() {
        let runs: Vec<_> = (0..32)
            .map(|seed| played(&Order::Drawn(seed), 40))
            .collect();
        for (seed, run) in (0..).zip(&runs) {
            assert_eq!(*run, played(&Order::Drawn(seed), 40));
            assert_eq!(run.0.iter().filter(|cpu| **cpu == 1).count(), 40);
            assert_eq!(run.1, 40);
        }
        let mixed = |run: &(Vec<usize>, u64)| run.0.windows(2).filter(|it| it[0] != it[1]).count();
        assert!(runs.iter().any(|run| mixed(run) > 10), "some are dense");
        assert!(runs.iter().any(|run| mixed(run) < 6), "some are not");
    }

    #[test]
    fn another_cuts_in_at_exactly_one_point() {
        for at in 0..5 {
            let (seen, _) = played(&Order::CutIn(at), 4);
            // A cut behind the last point is none: the other comes when the first has ended.
            let before = (at as usize + 1).min(4);
            let mut expected = vec![0; before];
            expected.extend([1; 4]);
            expected.extend(vec![0; 4 - before]);
            assert_eq!(seen, expected, "{at}");
        }
    }
}
