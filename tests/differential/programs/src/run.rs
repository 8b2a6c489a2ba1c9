//! Running a program on any SMMU.

use crate::observation::{Observation, Record, State};
use crate::step::{Command, Program, Step};
use crate::word::{Word, plain};

/// How many bytes the arena has; it is aligned to as many.
pub const ARENA_BYTES: u64 = 1 << 21;

/// The linear stream table: 64 entries from the arena's first byte on.
pub(crate) const STREAM_TABLE: u64 = 0;
const COMMAND_QUEUE: u64 = 0x1000;
const EVENT_QUEUE: u64 = 0x2000;
const LOG2_STREAMS: u32 = 6;
const LOG2_COMMANDS: u32 = 7;
const LOG2_EVENTS: u32 = 4;

/// How often a register is looked at before the SMMU counts as stuck.
const POLLS: u32 = 10_000;
/// What devices write: this and the number of the write.
const FIRST_VALUE: u32 = 0xa500;

const CR0: u64 = 0x20;
const CR0ACK: u64 = 0x24;
const CR1: u64 = 0x28;
const CR2: u64 = 0x2c;
const GBPA: u64 = 0x44;
const GERROR: u64 = 0x60;
const GERRORN: u64 = 0x64;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const EVENTQ_BASE: u64 = 0xa0;
const EVENTQ_PROD: u64 = 0x1_00a8;
const EVENTQ_CONS: u64 = 0x1_00ac;

/// CR0: SMMUEN, EVENTQEN, CMDQEN.
const ALL_ON: u32 = 0b1101;
const QUEUES_ON: u32 = 0b1100;
const COMMANDS_ON: u32 = 0b1000;
const GBPA_UPDATE: u32 = 1 << 31;
/// GBPA: use incoming shareability, bypass.
const GBPA_BYPASS: u32 = 1 << 12;
const CMDQ_ERR: u32 = 1;

const SYNC: Command = [plain(0x46), plain(0)];
const CFGI_ALL: Command = [plain(0x04), plain(31)];
const TLBI_NSNH_ALL: Command = [plain(0x30), plain(0)];

/// An SMMU, the memory it sees, and the devices behind it.
///
/// Memory is the arena alone, by offset of its bytes; a word is 8 bytes.
pub trait Target {
    /// Why a device could not be told to do something.
    type Trouble;

    /// Where the arena is.
    fn arena(&self) -> u64;
    /// Fills the arena with zeros, while the SMMU is off.
    fn clear(&mut self);
    /// Stores a word.
    fn store(&mut self, at: u64, value: u64);
    /// Loads a word.
    fn load(&self, at: u64) -> u64;
    /// Makes stores seen before later register writes.
    fn publish(&mut self);
    /// Makes later loads see what a register told of.
    fn observe(&mut self);
    /// Reads a 32-bit register.
    fn read32(&self, register: u64) -> u32;
    /// Writes a 32-bit register.
    fn write32(&mut self, register: u64, value: u32);
    /// Writes a 64-bit register.
    fn write64(&mut self, register: u64, value: u64);
    /// Lets a moment pass.
    fn relax(&mut self);
    /// Has the device of `stream` write `value` to the 4 bytes at `to`; done when it returns.
    ///
    /// # Errors
    ///
    /// The device does not do as it is told.
    fn device_writes(&mut self, stream: u32, to: u64, value: u16) -> Result<(), Self::Trouble>;
    /// Has the device of `stream` read the 4 bytes at `from`; 0 if it gets none.
    ///
    /// # Errors
    ///
    /// The device does not do as it is told.
    fn device_reads(&mut self, stream: u32, from: u64) -> Result<u32, Self::Trouble>;
}

/// Brings the SMMU up anew, with memory cleared and caches emptied, runs `program`, and tells
/// `see` what there is to see: what becomes of each access, each event, and how it ends.
///
/// # Errors
///
/// As [`Target::device_writes`].
pub fn run<T: Target>(
    program: &Program,
    target: &mut T,
    see: &mut dyn FnMut(Observation),
) -> Result<(), T::Trouble> {
    let mut runner = Runner {
        target,
        see,
        produced: 0,
        first_command: 0,
        events_taken: 0,
        written: 0,
        sent: 0,
    };
    runner.bring_up();
    runner.steps(program.steps)?;
    let state = runner.state();
    (runner.see)(Observation::State(state));
    Ok(())
}

struct Runner<'a, T> {
    target: &'a mut T,
    see: &'a mut dyn FnMut(Observation),
    /// Commands put into the queue.
    produced: u32,
    /// How many of them were there before the program.
    first_command: u32,
    events_taken: u32,
    written: u32,
    sent: u64,
}

impl<T: Target> Runner<'_, T> {
    fn bring_up(&mut self) {
        let arena = self.target.arena();
        self.gbpa(GBPA_BYPASS);
        self.cr0(0);
        self.target.clear();
        let target = &mut *self.target;
        let errors = target.read32(GERROR);
        target.write32(GERRORN, errors);
        // Everything inner shareable write-back; events for unknown streams, E2H = 0.
        target.write32(CR1, 0xd75);
        target.write32(CR2, 0b010);
        target.write64(STRTAB_BASE, arena + STREAM_TABLE);
        target.write32(STRTAB_BASE_CFG, LOG2_STREAMS);
        target.write64(
            CMDQ_BASE,
            (arena + COMMAND_QUEUE) | u64::from(LOG2_COMMANDS),
        );
        target.write32(CMDQ_PROD, 0);
        target.write32(CMDQ_CONS, 0);
        target.write64(EVENTQ_BASE, (arena + EVENT_QUEUE) | u64::from(LOG2_EVENTS));
        target.write32(EVENTQ_PROD, 0);
        target.write32(EVENTQ_CONS, 0);
        self.cr0(COMMANDS_ON);
        self.commands(&[CFGI_ALL]);
        self.commands(&[TLBI_NSNH_ALL]);
        self.cr0(QUEUES_ON);
        self.cr0(ALL_ON);
        self.first_command = self.produced;
    }

    fn steps(&mut self, steps: &[Step]) -> Result<(), T::Trouble> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Result<(), T::Trouble> {
        let arena = self.target.arena();
        match *step {
            Step::All(steps) => return self.steps(steps),
            Step::Store(at, word) => self.target.store(at, word.at(arena)),
            Step::Entry(at, words) => {
                for (offset, word) in (0..).step_by(8).zip(words) {
                    self.target.store(at + offset, word.at(arena));
                }
            }
            Step::Fill {
                at,
                count,
                first,
                stride,
            } => {
                for index in 0..count {
                    let word = first.at(arena).wrapping_add(index * stride);
                    self.target.store(at + index * 8, word);
                }
            }
            Step::Commands(commands) => self.commands(commands),
            Step::Repair => self.repair(),
            Step::Write(stream, to) => return self.write(stream, to),
            Step::Read(stream, from) => return self.read(stream, from),
            Step::Burst(stream, to, times) => return self.burst(stream, to, times),
            Step::Register32(register, value) => self.target.write32(register, value),
            Step::Register64(register, word) => self.target.write64(register, word.at(arena)),
            Step::Cr0(value) => self.cr0(value),
            Step::Gbpa(value) => self.gbpa(value),
        }
        Ok(())
    }

    fn wait(&mut self, what: &'static str, is_done: impl Fn(&T) -> bool) {
        for _ in 0..POLLS {
            if is_done(self.target) {
                return;
            }
            self.target.relax();
        }
        (self.see)(Observation::Stuck(what));
    }

    fn cr0(&mut self, value: u32) {
        self.target.publish();
        self.target.write32(CR0, value);
        self.wait("CR0ACK", |target| target.read32(CR0ACK) == value);
    }

    fn gbpa(&mut self, value: u32) {
        self.target.write32(GBPA, value | GBPA_UPDATE);
        self.wait("GBPA", |target| target.read32(GBPA) & GBPA_UPDATE == 0);
    }

    fn put(&mut self, command: Command) {
        let arena = self.target.arena();
        let index = u64::from(self.produced % (1 << LOG2_COMMANDS));
        let at = COMMAND_QUEUE + index * 16;
        for (offset, word) in [0, 8].into_iter().zip(command) {
            self.target.store(at + offset, word.at(arena));
        }
        self.produced += 1;
    }

    fn commands(&mut self, commands: &[Command]) {
        for command in commands {
            self.put(*command);
        }
        self.put(SYNC);
        self.target.publish();
        self.target
            .write32(CMDQ_PROD, self.produced % (2 << LOG2_COMMANDS));
        self.consume();
    }

    /// Waits until every command is consumed or the SMMU stops, and tells of the latter.
    fn consume(&mut self) {
        let wanted = self.produced % (2 << LOG2_COMMANDS);
        self.wait("CMDQ_CONS", |target| {
            target.read32(CMDQ_CONS) % (2 << LOG2_COMMANDS) == wanted
                || (target.read32(GERROR) ^ target.read32(GERRORN)) & CMDQ_ERR != 0
        });
        let state = self.state();
        if state.stopped_at.is_some() {
            (self.see)(Observation::State(state));
        }
    }

    fn repair(&mut self) {
        let left = self.left();
        let end = self.produced;
        self.produced -= left;
        if left != 0 {
            self.put(SYNC);
        }
        self.produced = end;
        self.target.publish();
        let errors = self.target.read32(GERROR);
        self.target.write32(GERRORN, errors);
        self.consume();
    }

    /// How many commands are not consumed.
    fn left(&self) -> u32 {
        let consumed = self.target.read32(CMDQ_CONS);
        self.produced.wrapping_sub(consumed) % (2 << LOG2_COMMANDS)
    }

    fn state(&self) -> State {
        let left = self.left();
        let active = self.target.read32(GERROR) ^ self.target.read32(GERRORN);
        let flags = self.target.read32(EVENTQ_PROD) ^ self.target.read32(EVENTQ_CONS);
        State {
            stopped_at: (left != 0).then(|| self.produced - left - self.first_command),
            error: self.target.read32(CMDQ_CONS) >> 24 & 0x7f,
            active,
            overflow: flags >> 31 != 0,
        }
    }

    fn write(&mut self, stream: u32, to: Word) -> Result<(), T::Trouble> {
        let value = self.device_writes(stream, to)?;
        let landed = self.find(value);
        (self.see)(Observation::Wrote { stream, to, landed });
        self.take_events();
        Ok(())
    }

    fn device_writes(&mut self, stream: u32, to: Word) -> Result<u32, T::Trouble> {
        let value = FIRST_VALUE + self.written;
        self.written += 1;
        self.sent = to.at(self.target.arena());
        self.target.publish();
        self.target.device_writes(stream, self.sent, value as u16)?;
        self.target.observe();
        Ok(value)
    }

    /// Where in the arena the 4 bytes `value` are; nothing but a device's write puts them there.
    fn find(&self, value: u32) -> Option<u64> {
        let find_in = |at: u64| {
            let word = self.target.load(at);
            if word as u32 == value {
                return Some(at);
            }
            (word >> 32 == u64::from(value)).then_some(at + 4)
        };
        (0..ARENA_BYTES).step_by(8).find_map(find_in)
    }

    fn read(&mut self, stream: u32, from: Word) -> Result<(), T::Trouble> {
        self.sent = from.at(self.target.arena());
        self.target.publish();
        let found = self.target.device_reads(stream, self.sent)?;
        (self.see)(Observation::Read {
            stream,
            from,
            found,
        });
        self.take_events();
        Ok(())
    }

    fn burst(&mut self, stream: u32, to: Word, times: u32) -> Result<(), T::Trouble> {
        let mut landed = 0;
        for _ in 0..times {
            let value = self.device_writes(stream, to)?;
            landed += u32::from(self.find(value).is_some());
        }
        (self.see)(Observation::Burst {
            stream,
            to,
            times,
            landed,
        });
        let state = self.state();
        (self.see)(Observation::State(state));
        self.take_events();
        Ok(())
    }

    fn take_events(&mut self) {
        let produced = self.target.read32(EVENTQ_PROD);
        self.target.observe();
        while self.events_taken != produced % (2 << LOG2_EVENTS) {
            let index = u64::from(self.events_taken % (1 << LOG2_EVENTS));
            let at = EVENT_QUEUE + index * 32;
            let words = [0, 8, 16, 24].map(|offset| self.target.load(at + offset));
            let record = Record {
                words,
                arena: self.target.arena(),
                sent: self.sent,
            };
            (self.see)(Observation::Event(record));
            self.events_taken = (self.events_taken + 1) % (2 << LOG2_EVENTS);
        }
        let acknowledged = produced & 1 << 31 | self.events_taken;
        self.target.write32(EVENTQ_CONS, acknowledged);
    }
}
