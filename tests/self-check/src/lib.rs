//! A board for the self-check: the hostile model's SMMUs, and test devices behind them.
//!
//! [`Board`] is an embedding host ([`Hypervisor`]) with devices that go on while time passes, and with
//! a place where one fault can be put in below the driver, as the image has in its own.
#![expect(
    unsafe_code,
    reason = "implementing `Platform` is the one promise that a host makes"
)]

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use portcullis::addr::Pa;
use portcullis::check::sabotage::Hook;
use portcullis::check::{Declared, Saboteur};
use portcullis::hw::{Barrier, Clock, Frames, Platform, Registers};
use portcullis::id::StreamId;
use portcullis_embedder::{Hypervisor, Wires};
use smmu_model::device::{Device, Wiring};
use smmu_model::{Machine, Settings};

thread_local! {
    /// The fault that is put in now; one for each test, as each runs in a thread of its own.
    static HOOK: Cell<Option<Hook>> = const { Cell::new(None) };
}

/// Where faults are put in.
pub const SABOTEUR: Saboteur = Saboteur {
    arm: |hook| HOOK.set(Some(hook)),
    disarm: || HOOK.set(None),
};

fn altered(at: u64, value: u64) -> Option<u64> {
    HOOK.get()
        .map_or(Some(value), |hook| hook(Pa::new(at), value))
}

/// A test device: where it is, and what the board says of it.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Behind which SMMU.
    pub smmu: usize,
    /// How it is built.
    pub wiring: Wiring,
    /// Whether it declares that it waits for the answers to stalls.
    pub can_stall: bool,
}

impl Placed {
    /// What firmware would say of it.
    pub fn declared(&self) -> Declared {
        Declared {
            stream: StreamId::new(self.wiring.stream),
            pasid_bits: self.wiring.pasid_bits,
            can_stall: self.can_stall,
        }
    }
}

/// A machine with SMMUs and test devices, and the host on it.
pub struct Board {
    host: Hypervisor,
    devices: Vec<(Placed, Arc<Device>)>,
}

impl Board {
    /// A board with these SMMUs and devices.
    pub fn new(smmus: &[Settings], devices: &[Placed]) -> Self {
        let host = Hypervisor::with_smmus(smmus);
        let devices = devices
            .iter()
            .map(|placed| {
                let smmu = host.machine().smmu(placed.smmu);
                (*placed, Device::new(smmu, placed.wiring))
            })
            .collect();
        Self { host, devices }
    }

    /// The host.
    pub const fn host(&self) -> &Hypervisor {
        &self.host
    }

    /// The machine: for what the model has to say.
    pub fn machine(&self) -> &Machine {
        self.host.machine()
    }

    /// The registers of the SMMU with this index.
    pub fn smmu_registers(&self, smmu: usize) -> Watched {
        Watched {
            wires: self.host.registers(smmu),
            base: (smmu as u64) << 32,
        }
    }

    /// The devices, each with its registers.
    pub fn devices(&self) -> impl Iterator<Item = (Placed, Frame<'_>)> {
        self.devices.iter().map(|(placed, device)| {
            let frame = Frame {
                board: self,
                device,
            };
            (*placed, frame)
        })
    }

    /// Lets the devices go on, and tells them what became of what had stalled.
    fn tick(&self) {
        let now_us = self.machine().record().now_us();
        for (placed, device) in &self.devices {
            device.tick(now_us);
            for finished in self.machine().smmu(placed.smmu).take_finished() {
                self.devices
                    .iter()
                    .filter(|(other, _)| other.smmu == placed.smmu)
                    .for_each(|(_, device)| device.finish(&finished));
            }
        }
    }
}

impl Clock for Board {
    fn now_us(&self) -> u64 {
        self.host.now_us()
    }

    fn relax(&self) {
        self.host.relax();
        self.tick();
    }
}

// SAFETY: everything is the host's, which has made this promise; a store that a fault swallows or
// changes is one to the same word.
unsafe impl Platform for Board {
    type Registers = Watched;

    fn allocate(&self, log2_bytes: u8) -> Option<Frames> {
        self.host.allocate(log2_bytes)
    }

    fn free(&self, frames: Frames) {
        self.host.free(frames);
    }

    fn pointer(&self, at: Pa) -> NonNull<AtomicU64> {
        self.host.pointer(at)
    }

    fn clean(&self, words: &[AtomicU64]) {
        self.host.clean(words);
    }

    fn store(&self, word: &AtomicU64, value: u64) {
        let at = self.machine().memory().address_of(word);
        if let Some(value) = altered(at.expect("a word of the board's memory"), value) {
            self.host.store(word, value);
        }
    }

    fn load(&self, word: &AtomicU64) -> u64 {
        self.host.load(word)
    }

    fn peek(&self, at: Pa) -> Option<u64> {
        self.host.peek(at)
    }

    fn barrier(&self, kind: Barrier) {
        self.host.barrier(kind);
    }
}

/// The registers of an SMMU, whose writes a fault can change.
#[derive(Clone)]
pub struct Watched {
    wires: Wires,
    base: u64,
}

impl Watched {
    fn altered(&self, offset: usize, value: u64) -> Option<u64> {
        altered(self.base + offset as u64, value)
    }
}

impl Registers for Watched {
    fn read32(&self, offset: usize) -> u32 {
        self.wires.read32(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        if let Some(value) = self.altered(offset, value.into()) {
            self.wires.write32(offset, value as u32);
        }
    }

    fn read64(&self, offset: usize) -> u64 {
        self.wires.read64(offset)
    }

    fn write64(&self, offset: usize, value: u64) {
        if let Some(value) = self.altered(offset, value) {
            self.wires.write64(offset, value);
        }
    }
}

/// The registers of a device.
pub struct Frame<'b> {
    board: &'b Board,
    device: &'b Device,
}

impl Registers for Frame<'_> {
    /// Time passes while one polls a device, as it does in a wait.
    fn read32(&self, offset: usize) -> u32 {
        self.board.tick();
        self.device.read32(offset as u64)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.device.write32(offset as u64, value);
    }

    fn read64(&self, offset: usize) -> u64 {
        self.board.tick();
        self.device.read64(offset as u64)
    }

    fn write64(&self, offset: usize, value: u64) {
        self.device.write64(offset as u64, value);
    }
}
