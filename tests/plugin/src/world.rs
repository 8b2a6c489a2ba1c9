//! The SMMUs and devices over guest RAM: stores, time, what comes of them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use smmu_model::device::{Device, frame};
use smmu_model::{Landing, Memory, Record, Settings, Smmu, offset};

use crate::options::{self, Options};
use crate::ram::{Change, Ram};
use crate::verdict::{Breach, Counts, Landings, Tolerated, Verdict};
use crate::witness::Witnesses;

/// One SMMU, its frame, and the devices behind it.
struct Unit {
    smmu: Smmu,
    base: u64,
    register_stores: u64,
    seats: Vec<Seat>,
}

/// One device and its frame.
struct Seat {
    device: Arc<Device>,
    base: u64,
    stream: u32,
    register_stores: u64,
}

impl Unit {
    /// What the base register at `register` means, of `2^log2` bytes.
    fn extent(&self, register: u64, log2: u32) -> Range<u64> {
        let base = self.smmu.read64(register) & 0x000f_ffff_ffff_ffc0 & !((1 << log2) - 1);
        base..base.saturating_add(1 << log2)
    }

    /// The queues that are on: what each is, and where.
    fn queues(&self) -> Vec<(&'static str, Range<u64>)> {
        let queues = [
            ("command queue", offset::CMDQ_BASE, 4, 1 << 3),
            ("event queue", offset::EVENTQ_BASE, 5, 1 << 2),
            ("PRI queue", offset::PRIQ_BASE, 4, 1 << 1),
        ];
        let enables = self.smmu.read32(offset::CR0ACK);
        let on = queues.into_iter().filter(|it| enables & it.3 != 0);
        on.map(|(name, register, log2_entry, _)| {
            let log2 = (self.smmu.read32(register) & 0x1f).min(19) + log2_entry;
            (name, self.extent(register, log2))
        })
        .collect()
    }
}

/// A store of a CPU, as it was reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Store {
    /// Where.
    pub pa: u64,
    /// How many bytes; 16 for a pair.
    pub bytes: u64,
    /// What the report says was stored: the first and the second 64 bits.
    pub reported: [u64; 2],
    /// Where the instruction is, by its virtual address.
    pub pc: u64,
}

/// The SMMUs and devices over guest RAM.
///
/// Whoever drives it calls [`store`](Self::store) after every store to a frame or to a
/// [watched](Ram::is_watched) page, [`tick`](Self::tick) when time has passed, and looks at
/// [`is_over`](Self::is_over) after each.
pub struct World {
    options: Options,
    ram: Arc<Ram>,
    record: Arc<Record>,
    units: Vec<Unit>,
    now_us: u64,
    /// When the last store came.
    last_us: u64,
    /// Where the instruction is that stored to each watched word last.
    writers: HashMap<u64, u64>,
    counts: Counts,
    landings: Landings,
    witnesses: Witnesses,
    tolerated: Vec<Tolerated>,
    breaches: Vec<Breach>,
}

impl World {
    /// Everything after reset; the frames in `ram` show it.
    pub fn new(options: Options, ram: Arc<Ram>) -> Self {
        let record = Arc::new(Record::new());
        let unit = |(index, it): (usize, &options::Smmu)| {
            let memory = Arc::clone(&ram) as Arc<dyn Memory>;
            let settings = Settings {
                atc_timeout_us: options.atc_timeout_us,
                ..Settings::new(it.identity, options.mode)
            };
            let smmu = Smmu::new(settings, index, memory, Arc::clone(&record));
            let behind = options.devices.iter().filter(|it| it.smmu == index);
            let seats = behind
                .map(|it| Seat {
                    device: Device::new(&smmu, it.wiring),
                    base: it.base,
                    stream: it.wiring.stream,
                    register_stores: 0,
                })
                .collect();
            Unit {
                smmu,
                base: it.base,
                register_stores: 0,
                seats,
            }
        };
        let units = options.smmus.iter().enumerate().map(unit).collect();
        let tolerated = options.tolerated.iter().cloned().map(Tolerated::new);
        let mut world = Self {
            tolerated: tolerated.collect(),
            options,
            ram,
            record,
            units,
            now_us: 0,
            last_us: 0,
            writers: HashMap::new(),
            counts: Counts::default(),
            landings: Landings::default(),
            witnesses: Witnesses::default(),
            breaches: Vec::new(),
        };
        world.settle(None);
        world
    }

    /// Takes a store that was done by `now_ns` nanoseconds after the start.
    ///
    /// Nothing looks at memory before the store is told: it is there already, and would be found
    /// unreported.
    pub fn store(&mut self, now_ns: u64, store: Store) {
        self.set_clock(now_ns);
        self.last_us = self.now_us;
        match self.frame_at(store.pa) {
            Some((unit, None)) => self.smmu_store(unit, store),
            Some((unit, Some(seat))) => self.device_store(unit, seat, store),
            None => return self.memory_store(store),
        }
        self.settle(Some(store));
    }

    fn memory_store(&mut self, store: Store) {
        let changes = self.ram.changed(store.pa, store.bytes);
        self.counts.changes += changes.len() as u64;
        for change in &changes {
            self.writers.insert(change.pa, store.pc);
        }
        self.tell(&changes);
        self.find_unreported();
        self.find_breaches(Some(store));
    }

    /// The unit, and the seat if it is a device's, whose frame `pa` is in.
    fn frame_at(&self, pa: u64) -> Option<(usize, Option<usize>)> {
        let is_in = |base: u64, bytes: u64| (base..base + bytes).contains(&pa);
        self.units.iter().enumerate().find_map(|(at, unit)| {
            if is_in(unit.base, offset::PAGES_BYTES) {
                return Some((at, None));
            }
            let mut seats = unit.seats.iter();
            let seat = seats.position(|seat| is_in(seat.base, frame::FRAME_BYTES))?;
            Some((at, Some(seat)))
        })
    }

    /// A register write: of the value that was reported. Memory may already hold another: what
    /// [`show`](Self::show) put there for a store of another CPU (seen: half of the runs with two
    /// CPUs at once lost a doorbell so). That an atomic's report tells its operand does not matter:
    /// nobody does atomics on device registers.
    fn smmu_store(&mut self, at: usize, store: Store) {
        let unit = &mut self.units[at];
        unit.register_stores += 1;
        let [value, _] = store.reported;
        unit.smmu
            .write_noticed(store.pa - unit.base, store.bytes as usize, value);
        // What it hit may be no register at all, and reads as 0 again.
        let base = unit.base;
        for pa in (store.pa & !7..store.pa + store.bytes).step_by(8) {
            let value = unit.smmu.read64(pa - base);
            self.ram.poke(pa, value);
        }
        self.watch_tables(at);
        self.show(at);
    }

    /// Watches the queues and a linear stream table from when their registers say where they are:
    /// a store to them is of interest before the SMMU first reads it.
    fn watch_tables(&self, at: usize) {
        let unit = &self.units[at];
        for (_, range) in unit.queues() {
            self.watch(range);
        }
        let config = unit.smmu.read32(offset::STRTAB_BASE_CFG);
        if config >> 16 & 3 == 0 {
            self.watch(unit.extent(offset::STRTAB_BASE, (config & 0x3f).min(16) + 6));
        }
    }

    fn watch(&self, range: Range<u64>) {
        let is_in_ram = self.options.ram.start <= range.start && range.end <= self.options.ram.end;
        if is_in_ram {
            self.ram.watch(range);
        }
    }

    /// A register write to a device, of the reported value as well.
    fn device_store(&mut self, at: usize, seat: usize, store: Store) {
        let unit = &mut self.units[at];
        let seat = &mut unit.seats[seat];
        seat.register_stores += 1;
        let offset = store.pa - seat.base;
        match store.bytes {
            4 => seat.device.write32(offset, store.reported[0] as u32),
            8 => seat.device.write64(offset, store.reported[0]),
            16 => {
                seat.device.write64(offset, store.reported[0]);
                seat.device.write64(offset + 8, store.reported[1]);
            }
            // The frame has no narrower register.
            _ => {}
        }
        for pa in (store.pa & !7..store.pa + store.bytes).step_by(8) {
            self.ram.poke(pa, seat.device.read64(pa - seat.base));
        }
    }

    /// Tells every SMMU what the guest has changed in memory.
    fn tell(&self, changes: &[Change]) {
        for change in changes {
            for unit in &self.units {
                let Change { pa, old, new } = *change;
                unit.smmu.noticed_store(pa, Some(old), new);
            }
        }
    }

    fn set_clock(&mut self, now_ns: u64) {
        let passed = (now_ns / 1000).saturating_sub(self.now_us);
        self.now_us += passed;
        // All of them share it.
        self.record.pass(passed);
    }

    /// Lets the SMMUs and devices go on: it is `now_ns` nanoseconds after the start.
    pub fn tick(&mut self, now_ns: u64) {
        self.set_clock(now_ns);
        for unit in &self.units {
            unit.smmu.tick();
            unit.smmu.look_around();
            for seat in &unit.seats {
                seat.device.tick(self.now_us);
            }
        }
        self.settle(None);
    }

    /// Whether a device has something to do that takes time.
    pub fn is_busy(&self) -> bool {
        let mut seats = self.units.iter().flat_map(|unit| &unit.seats);
        seats.any(|seat| seat.device.read32(frame::STATUS) & !frame::status::REFUSED != 0)
    }

    /// Carries out what a register write or time has set off: stalls that ended, what reached
    /// memory, what the frames show now.
    fn settle(&mut self, cause: Option<Store>) {
        self.find_unreported();
        for unit in &self.units {
            for finished in unit.smmu.take_finished() {
                unit.seats.iter().for_each(|it| it.device.finish(&finished));
            }
        }
        for landing in self.record.take_landings() {
            self.judge(&landing);
            self.landings.add(&landing, self.now_us);
            self.witnesses.landed(&landing);
        }
        for (at, unit) in self.units.iter().enumerate() {
            for seat in &unit.seats {
                for mark in seat.device.take_marks() {
                    self.witnesses.mark((at, seat.stream), &mark, self.now_us);
                }
            }
        }
        self.find_breaches(cause);
        for at in 0..self.units.len() {
            self.show(at);
        }
    }

    /// Tells of the stores that were found although nobody reported them.
    fn find_unreported(&mut self) {
        loop {
            let found = self.ram.take_unreported();
            let Some(first) = found.first() else { return };
            self.counts.first_unreported.get_or_insert(first.pa);
            self.counts.unreported += found.len() as u64;
            self.tell(&found);
        }
    }

    fn find_breaches(&mut self, cause: Option<Store>) {
        for violation in self.record.violations_after(self.counts.told) {
            self.counts.told += 1;
            let is_it = |it: &&mut Tolerated| it.rule.covers(&violation);
            match self.tolerated.iter_mut().find(is_it) {
                Some(tolerated) => tolerated.times += 1,
                None => {
                    let breach = Breach::of_rule(&violation, cause, |pa| {
                        self.writers.get(&(pa & !7)).copied()
                    });
                    self.breaches.push(breach);
                }
            }
        }
    }

    /// Whether a landing was where none may be.
    fn judge(&mut self, landing: &Landing) {
        let end = landing.pa + landing.bytes as u64;
        let reaches = |range: &&Range<u64>| landing.pa < range.end && range.start < end;
        if let Some(kept) = self.options.kept.iter().find(reaches) {
            let (first, end) = (kept.start, kept.end);
            let what = format!("No device may reach {first:#x} to {end:#x} (`keep-out`).");
            let breach = Breach::of_landing("KeptOutReached", &what, landing, self.now_us);
            self.breaches.push(breach);
        }
        if !self.options.is_sealed || !landing.is_write {
            return;
        }
        for (at, unit) in self.units.iter().enumerate() {
            let queue = unit.queues().into_iter().find(|it| reaches(&&it.1));
            let found = match queue {
                Some((name, range)) => Some((range.start, name)),
                None => unit.smmu.sealed_at(landing.pa, landing.bytes as u64),
            };
            if let Some((pa, name)) = found {
                let what = format!("SMMU {at} has a live {name} at {pa:#x} (`sealed`).");
                let breach = Breach::of_landing("StructureReached", &what, landing, self.now_us);
                self.breaches.push(breach);
            }
        }
    }

    /// Puts into the frames of a unit what reading them must give.
    fn show(&self, at: usize) {
        let unit = &self.units[at];
        let mut low = 0;
        unit.smmu.export_registers(|at, value| {
            // Offsets come in pairs, the lower first.
            if at % 8 == 0 {
                low = u64::from(value);
            } else {
                self.put(unit.base + at - 4, low | u64::from(value) << 32);
            }
        });
        for seat in &unit.seats {
            let base = seat.base;
            seat.device.export(|at, value| self.put(base + at, value));
        }
    }

    /// Puts `value` there unless it is there.
    fn put(&self, pa: u64, value: u64) {
        if self.ram.peek(pa) != value {
            self.ram.poke(pa, value);
        }
    }

    /// Whether a rule was broken, so that the run must end.
    pub fn is_over(&self) -> bool {
        !self.breaches.is_empty()
    }

    /// What there is to tell of the run so far.
    pub fn verdict(&self) -> Verdict<'_> {
        Verdict {
            mode: self.options.mode,
            time_us: self.last_us,
            counts: &self.counts,
            landings_lost: self.record.landings_lost(),
            smmus: self
                .units
                .iter()
                .map(|unit| (unit.base, unit.register_stores, unit.smmu.syncs()))
                .collect(),
            devices: self
                .units
                .iter()
                .enumerate()
                .flat_map(|(at, unit)| unit.seats.iter().map(move |seat| (at, seat)))
                .map(|(at, seat)| (seat.base, at, seat.stream, seat.register_stores))
                .collect(),
            tolerated: &self.tolerated,
            breaches: &self.breaches,
            landings: &self.landings,
            witnesses: self.witnesses.all(|(smmu, stream), pasid| {
                let mut seats = self.units[smmu].seats.iter();
                let seat = seats.find(|seat| seat.stream == stream);
                seat.map_or(0, |seat| seat.device.tried(pasid))
            }),
            witnesses_lost: self.witnesses.lost(),
        }
    }
}
