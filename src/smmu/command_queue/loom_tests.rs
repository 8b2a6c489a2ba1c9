use loom::model::Builder;
use loom::sync::atomic::AtomicU32;
use loom::thread;
use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::hw::Registers;
use crate::hw::loom_cpu::LoomCpu;
use crate::hw::testing::HostPlatform;
use crate::id::Vmid;

/// As often as so many times a thread is stopped where it need not be. More finds nothing more here,
/// and takes for ever.
const PREEMPTIONS: usize = 3;
/// Positions go round after 8.
const LOG2_ENTRIES: u8 = 2;

/// The two indices of a command queue, as CPUs see them: device memory, which orders nothing else.
#[derive(Clone)]
struct Indices(Arc<Inner>);

struct Inner {
    produced: AtomicU32,
    consumed: AtomicU32,
    /// The SMMU consumes nothing more. Set while one thread runs.
    is_stuck: AtomicBool,
}

impl Indices {
    fn new() -> Self {
        Self(Arc::new(Inner {
            produced: AtomicU32::new(0),
            consumed: AtomicU32::new(0),
            is_stuck: AtomicBool::new(false),
        }))
    }

    fn get_stuck(&self) {
        self.0.is_stuck.store(true, Ordering::Relaxed);
    }
}

impl Registers for Indices {
    fn read32(&self, offset: usize) -> u32 {
        match offset {
            offset::CMDQ_PROD => self.0.produced.load(Ordering::Relaxed),
            offset::CMDQ_CONS => self.0.consumed.load(Ordering::Relaxed),
            // No error is active.
            _ => 0,
        }
    }

    /// The SMMU consumes at once what it is told of. Its index is not ordered with what the CPU that
    /// told it stored, but by barriers of that CPU.
    fn write32(&self, offset: usize, value: u32) {
        match offset {
            offset::CMDQ_PROD => {
                self.0.produced.store(value, Ordering::Relaxed);
                if !self.0.is_stuck.load(Ordering::Relaxed) {
                    self.0.consumed.store(value, Ordering::Relaxed);
                }
            }
            offset::CMDQ_CONS => self.0.consumed.store(value, Ordering::Relaxed),
            _ => {}
        }
    }

    fn read64(&self, _: usize) -> u64 {
        0
    }

    fn write64(&self, _: usize, _: u64) {}
}

type Cpu = LoomCpu<Indices>;

fn io(memory: &'static HostPlatform, indices: &Indices) -> Io<'static, Cpu> {
    Io::new(Box::leak(Box::new(LoomCpu::new(memory))), indices.clone())
}

/// So many commands, the last of them a CMD_SYNC.
fn train(count: usize) -> impl Iterator<Item = Command> {
    let command = Command::tlbi_nh_all(Vmid::new(1));
    core::iter::repeat_n(command, count - 1).chain([Command::sync()])
}

fn submit(queue: &CommandQueue, io: &Io<'_, Cpu>, count: usize) -> Ticket {
    queue.submit(io, train(count), 100).expect("there is room")
}

/// Runs `play` with an empty queue in every way that there is.
///
/// loom interleaves two threads where one of them writes what the other used last, and remembers one
/// use only: a thread that looked itself before it writes hides the other's. So who is to look late
/// is spawned, and the thread that spawns it goes first; what it stored need not be seen for that.
fn explore(
    play: impl Fn(&'static HostPlatform, Arc<CommandQueue>, Indices) + Sync + Send + 'static,
) {
    let memory: &HostPlatform = Box::leak(Box::new(HostPlatform::new()));
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        let frames = memory.allocate(12).expect("there is memory");
        let queue = Arc::new(CommandQueue::new(frames, LOG2_ENTRIES));
        play(memory, Arc::clone(&queue), Indices::new());
        let queue = Arc::into_inner(queue).expect("the others are gone");
        memory.free(queue.into_frames());
    });
}

#[test]
fn what_another_cpu_submits_meanwhile_is_no_corrupt_index() {
    explore(|memory, queue, indices| {
        let mine = io(memory, &indices);
        let ticket = submit(&queue, &mine, 1);
        let waiter = thread::spawn({
            let (queue, indices) = (Arc::clone(&queue), indices.clone());
            move || {
                let io = io(memory, &indices);
                assert_eq!(queue.wait(&io, &ticket, 100), Ok(()));
            }
        });
        let ticket = submit(&queue, &mine, 2);
        assert_eq!(queue.wait(&mine, &ticket, 100), Ok(()));
        waiter.join().expect("it does not panic");
        assert_eq!(queue.death(), None);
    });
}

#[test]
fn many_cpus_are_each_told_of_their_own() {
    explore(|memory, queue, indices| {
        let others: [_; 2] = core::array::from_fn(|_| {
            let (queue, indices) = (Arc::clone(&queue), indices.clone());
            thread::spawn(move || {
                let io = io(memory, &indices);
                let ticket = submit(&queue, &io, 1);
                assert_eq!(queue.wait(&io, &ticket, 100), Ok(()));
            })
        });
        for other in others {
            other.join().expect("it does not panic");
        }
        assert_eq!(queue.death(), None);
    });
}

#[test]
fn a_late_look_at_the_old_queue_confirms_nothing_of_the_new_one() {
    explore(|memory, queue, indices| {
        let mine = io(memory, &indices);
        let ticket = submit(&queue, &mine, 2);
        assert_eq!(queue.wait(&mine, &ticket, 100), Ok(()));
        indices.get_stuck();
        let old = submit(&queue, &mine, 1);
        let other = thread::spawn({
            let (queue, indices) = (Arc::clone(&queue), indices.clone());
            move || {
                let io = io(memory, &indices);
                assert!(
                    queue.wait(&io, &old, 1).is_err(),
                    "it is consumed by nobody"
                );
            }
        });
        let epoch = queue.suspend(&mine);
        queue.clear(&mine);
        queue.restart(epoch).expect("nobody closes it");
        let new = submit(&queue, &mine, 2);
        other.join().expect("it does not panic");
        let unconfirmed = queue.wait(&mine, &new, 0).map_err(|it| it.error);
        let waited_us = 0;
        assert_eq!(unconfirmed, Err(CommandError::SyncTimeout { waited_us }));
    });
}
