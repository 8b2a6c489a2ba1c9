//! The programs on the model.

use std::convert::Infallible;

use differential_programs::{ARENA_BYTES, Program, Target, programs, run};
use smmu_model::{Barrier, Identity, Machine, Mode, Outcome, Settings, Transaction};

use crate::log::{Log, ProgramLog};

/// Runs every program on a polite model that says of itself what QEMU's SMMUv3 does, with the arena
/// at `arena`.
pub fn run_on_model(arena: u64) -> Log {
    run_on(Settings::new(Identity::qemu(), Mode::Polite), arena)
}

/// Runs every program on a model of its own, made with `settings`, fresh from reset.
pub fn run_on(settings: Settings, arena: u64) -> Log {
    let run = |program| run_one(program, settings, arena);
    Log {
        arena,
        programs: programs().map(run).collect(),
    }
}

fn run_one(program: &Program, settings: Settings, arena: u64) -> ProgramLog {
    let mut target = Modelled {
        machine: Machine::new(arena, ARENA_BYTES, settings),
        arena,
    };
    let mut lines = Vec::new();
    let ran = run(program, &mut target, &mut |seen| {
        lines.push(seen.to_string());
    });
    match ran {
        Ok(()) => {}
        Err(never) => match never {},
    }
    ProgramLog {
        name: program.name.to_owned(),
        lines,
    }
}

struct Modelled {
    machine: Machine,
    arena: u64,
}

impl Target for Modelled {
    type Trouble = Infallible;

    fn arena(&self) -> u64 {
        self.arena
    }

    fn clear(&mut self) {
        // The machine is new, and its memory holds zeros.
    }

    fn store(&mut self, at: u64, value: u64) {
        let stored = self.machine.store(self.arena + at, value);
        stored.expect("a program stays in its arena");
    }

    fn load(&self, at: u64) -> u64 {
        let loaded = self.machine.load(self.arena + at);
        loaded.expect("a program stays in its arena")
    }

    fn publish(&mut self) {
        self.machine.barrier(Barrier::Publish);
    }

    fn observe(&mut self) {
        self.machine.barrier(Barrier::Observe);
    }

    fn read32(&self, register: u64) -> u32 {
        self.machine.smmu(0).read32(register)
    }

    fn write32(&mut self, register: u64, value: u32) {
        self.machine.smmu(0).write32(register, value);
    }

    fn write64(&mut self, register: u64, value: u64) {
        self.machine.smmu(0).write64(register, value);
    }

    fn relax(&mut self) {
        self.machine.advance(1);
    }

    fn device_writes(&mut self, stream: u32, to: u64, value: u16) -> Result<(), Infallible> {
        let bytes = u32::from(value).to_le_bytes();
        let smmu = self.machine.smmu(0);
        // What became of it is looked for in memory, as on QEMU.
        smmu.transact(Transaction::write(stream, to, &bytes));
        Ok(())
    }

    fn device_reads(&mut self, stream: u32, from: u64) -> Result<u32, Infallible> {
        let smmu = self.machine.smmu(0);
        let outcome = smmu.transact(Transaction::read(stream, from, 4));
        let found = match outcome {
            Outcome::Done { data, .. } => data.try_into().map_or(0, u32::from_le_bytes),
            _ => 0,
        };
        Ok(found)
    }
}
