//! A guest is made: its memory, its stage 2, its devices, its device tree.

use core::sync::atomic::Ordering;

use portcullis::addr::{Extent, Ipa};
use portcullis::arch::tlbi::Tlbi;
use portcullis::arch::{Devices, cpu};
use portcullis::discover::{List, Window, WindowKind};
use portcullis::guest::calls::guest_memory::Ram;
use portcullis::guest::calls::{GuestDevice, Place};
use portcullis::guest::description::{MAX_DEVICES, Planned, PlannedDevice, TREE_BYTES};
use portcullis::guest::psci::Cpus;
use portcullis::guest::tree::{self, Described, DescribedBridge, GuestTree};
use portcullis::hw::{Frames, Platform, PoolShape, View};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{Acquired, GuestConfig, GuestId, Owner, Quota, SpaceError};
use portcullis::spec::ste::Ats;
use portcullis::spec::vmsa::{
    Access, Attributes, BbmLevel, DeviceKind, Execute, Granule, MemoryType, Permissions,
    Shareability, WalkCoherency,
};

use super::Refusal;
use super::embedded::Exam;
use super::hardware::tag;
use super::world::{Built, MAX_PIECES, World, translate};

/// Memory of a guest for its CPUs and its devices.
const MEMORY: Attributes = Attributes {
    permissions: Permissions {
        access: Access::ReadWrite,
        execute: Execute::Allowed,
    },
    memory: MemoryType::WRITE_BACK,
    shareability: Shareability::Inner,
};

/// Registers of a device.
const REGISTERS: Attributes = Attributes {
    permissions: Permissions::READ_WRITE,
    memory: MemoryType::Device(DeviceKind::NGnRE),
    shareability: Shareability::Outer,
};

/// Tables of CDs, and CDs: enough for a quarter of a million spaces.
const WINDOW_BYTES: u64 = 16 << 20;
/// What one entry of the root covers, with the addresses that guests have.
const ROOT_ENTRY_BYTES: u64 = 1 << 30;
/// PASIDs have as many bits as there can be.
pub(crate) const PASID_BITS: u8 = 20;
/// Stage-2 tables of a guest, unless its description says otherwise.
const TABLE_PAGES: u64 = 4096;
/// What a guest's device tree takes at most: 192 bytes for each device, and the rest.
const TREE_MAX_BYTES: usize = 192 * MAX_DEVICES + 6144;
/// How many host bridges a guest may have functions behind.
const MAX_BRIDGES: usize = 16;

/// A part of making a guest failed.
fn of<T>(guest: &Planned, result: Result<T, SpaceError>) -> Result<T, Refusal> {
    result.map_err(|why| Refusal::Guest {
        name: guest.name,
        why,
    })
}

impl World {
    /// Makes a guest, as described; its first CPU is to start.
    ///
    /// What was taken for one that is refused stays taken: nothing starts then.
    pub(crate) fn build(&self, guest: usize) -> Result<(), Refusal> {
        let Some((planned, slot)) = self.planned(guest) else {
            return Ok(());
        };
        let (frames, ram) = self.memory_for(planned)?;
        let image = self.images.get(guest).copied().unwrap_or(&[]);
        let entry = planned.memory.base().as_u64() + planned.offset;
        self.copy(&ram, Ipa::new(entry), image);
        let id = of(planned, self.create(planned))?;
        let tree_at = Ipa::new(planned.memory.end().as_u64() - TREE_BYTES);
        for piece in &ram {
            let (ipa, pa, bytes) = (piece.ipa.base(), piece.pa, piece.ipa.size_bytes());
            let sizes = PageSizes::Largest;
            of(planned, self.iommu.map(id, ipa, pa, bytes, MEMORY, sizes))?;
        }
        let mut devices = List::new();
        let known = slot.devices.get();
        for (number, device) in planned.devices.iter().enumerate() {
            let Some((device_id, group)) = known.and_then(|it| it.get(number).copied()) else {
                continue;
            };
            self.map_registers(planned, id, *device)?;
            let is_new = !known.is_some_and(|it| it.iter().take(number).any(|it| it.1 == group));
            if is_new {
                // The guest's end gives its groups up, so that the token is not needed.
                let _: Acquired<'_, '_, _> =
                    of(planned, self.iommu.acquire(group, Owner::Guest(id)))?;
            }
            // As many as are planned.
            let _ = devices.push(self.describe(device_id, *device));
        }
        let mut blob = [0; TREE_MAX_BYTES];
        let bytes = self.tree(planned, &mut blob)?;
        self.copy(&ram, tree_at, blob.get(..bytes).unwrap_or(&[]));
        // Its CPUs begin with caches off.
        for piece in &frames {
            cpu::clean_and_invalidate(piece.words(self.host));
        }
        let walk = of(planned, self.iommu.cpu_walk_of(id))?;
        let walk = walk.ok_or(Refusal::Guest {
            name: planned.name,
            why: SpaceError::HostsTables,
        })?;
        let mut state = slot.state.lock();
        state.built = Some(Built {
            id,
            walk,
            ram,
            frames,
            devices,
        });
        state.cpus = Cpus::starting(planned.cpus.len(), entry, tree_at.as_u64());
        state.inside = 0;
        state.ending = None;
        slot.is_ending.store(false, Ordering::Release);
        Ok(())
    }

    /// Memory for a guest, cleared, in as few pieces as there are.
    fn memory_for(
        &self,
        planned: &Planned,
    ) -> Result<(List<Frames, MAX_PIECES>, List<Ram, MAX_PIECES>), Refusal> {
        let no_memory = |size_bytes| Refusal::GuestMemory {
            name: planned.name,
            size_bytes,
        };
        let (mut frames, mut ram) = (List::new(), List::new());
        let mut at = planned.memory.base().as_u64();
        let end = planned.memory.end().as_u64();
        while at < end {
            let left = end - at;
            // Aligned to its size for the largest blocks, to the guest as to us.
            let log2_bytes = left.ilog2().min(at.trailing_zeros()) as u8;
            let piece = self.piece(log2_bytes);
            let piece = piece.ok_or_else(|| no_memory(planned.memory.size_bytes()))?;
            let words = piece.words(self.host);
            cpu::clear(words);
            let bytes = piece.size_bytes();
            let ipa = Extent::<Ipa>::new(Ipa::new(at), bytes);
            let ipa = ipa.ok_or_else(|| no_memory(bytes))?;
            let pa = piece.base();
            let is_kept = ram.push(Ram { ipa, pa }).is_ok() && frames.push(piece).is_ok();
            if !is_kept {
                return Err(no_memory(planned.memory.size_bytes()));
            }
            at += bytes;
        }
        Ok((frames, ram))
    }

    /// The largest piece that there is, of at most so many bytes and of 2 MiB at least.
    fn piece(&self, log2_bytes: u8) -> Option<Frames> {
        (21..=log2_bytes)
            .rev()
            .find_map(|log2_bytes| self.host.allocate(log2_bytes))
    }

    /// Copies `bytes` into a guest's memory, which is zero there.
    fn copy(&self, ram: &[Ram], to: Ipa, bytes: &[u8]) {
        for (number, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            for (into, from) in word.iter_mut().zip(chunk) {
                *into = *from;
            }
            let at = Ipa::new(to.as_u64() + 8 * number as u64);
            if let Some(word_at) = self.word(ram, at) {
                word_at.store(u64::from_le_bytes(word), Ordering::Relaxed);
            }
        }
    }

    /// The word of a guest's memory at `at`, a multiple of 8.
    pub(crate) fn word(&self, ram: &[Ram], at: Ipa) -> Option<&core::sync::atomic::AtomicU64> {
        let pa = translate(ram, at)?;
        self.host.word(pa)
    }

    fn create(&self, planned: &Planned) -> Result<GuestId, SpaceError> {
        let machine = self.machine();
        let coherency = match machine.smmus.iter().all(|smmu| smmu.is_coherent) {
            true => WalkCoherency::Coherent,
            false => WalkCoherency::Clean,
        };
        let [.., table_pages] = planned.quotas;
        let config = GuestConfig {
            granule: Granule::Kib4,
            ipa_bits: self.ipa_bits,
            oas_bits: cpu::pa_bits(),
            bbm: BbmLevel::from_field(cpu::bbm_level()).unwrap_or(BbmLevel::Level0),
            coherency,
            tables: PoolShape {
                quota_pages: table_pages.map_or(TABLE_PAGES, u64::from),
                log2_pages_per_chunk: 4,
            },
            window: self.window(planned),
            window_bytes: WINDOW_BYTES,
            pasid_bits: PASID_BITS,
            quota: quota(planned),
        };
        self.iommu.create_guest_with_cpus(&config, &Tlbi)
    }

    /// Where the window of CDs of a guest is: at the start of the last run of addresses that one entry
    /// of the root covers in which it has nothing.
    ///
    /// In the lower half, for QEMU's SMMU finds nothing in the second table of a root of two.
    fn window(&self, planned: &Planned) -> Ipa {
        let given = self.given();
        let is_used = |first: u64| {
            let overlaps = |base: u64, end: u64| base < first + ROOT_ENTRY_BYTES && first < end;
            let registers = planned.devices.iter().flat_map(|it| given.registers(*it));
            let mut registers = registers.flatten();
            let memory = &planned.memory;
            overlaps(memory.base().as_u64(), memory.end().as_u64())
                || registers.any(|at| overlaps(at.base().as_u64(), at.end().as_u64()))
        };
        let entries = (1 << (self.ipa_bits - 1)) / ROOT_ENTRY_BYTES;
        let mut firsts = (1..entries).rev().map(|entry| entry * ROOT_ENTRY_BYTES);
        let free = firsts.find(|first| !is_used(*first));
        // One that overlaps is refused by name.
        Ipa::new(free.unwrap_or(0))
    }

    /// Shows a guest's CPUs the registers of a device, where they are; its devices too only where
    /// its memory lies within the same entry of the root.
    fn map_registers(
        &self,
        planned: &Planned,
        id: GuestId,
        device: PlannedDevice,
    ) -> Result<(), Refusal> {
        for at in self.given().registers(device).into_iter().flatten() {
            let (ipa, pa, bytes) = (Ipa::new(at.base().as_u64()), at.base(), at.size_bytes());
            let map = |view| {
                let sizes = PageSizes::Largest;
                self.iommu
                    .map_for(id, view, ipa, pa, bytes, REGISTERS, sizes)
            };
            let mapped = map(View::Cpus).or_else(|_| map(View::Both));
            of(planned, mapped)?;
        }
        Ok(())
    }

    /// Brings a device to its guest as from power-on, where that is possible.
    pub(crate) fn bring_up(&self, device: PlannedDevice) {
        let hardware = self.hardware;
        // One that cannot be reset was said to be so in the report.
        let _ = hardware.reset(tag(device));
        if let PlannedDevice::Function(place) = device
            && let Some(function) = hardware.functions.get(place)
            && let Some(ecam) = hardware.ecam_of(function)
        {
            // A function that does not take it does nothing for its guest.
            let _ = ecam.enable_memory(function.rid);
            let _ = ecam.enable_bus_master(function.rid);
        }
    }

    fn describe(&self, id: portcullis::space::DeviceId, device: PlannedDevice) -> GuestDevice {
        let none = Place::Mmio(Ipa::new(0));
        let (place, pasid_bits, can_stall) = match device {
            PlannedDevice::Platform(place) => match self.machine().devices.get(place) {
                Some(device) => {
                    let at = device.registers.map(|at| Ipa::new(at.base().as_u64()));
                    let place = at.map_or(none, Place::Mmio);
                    (place, device.pasid_bits, device.can_stall)
                }
                None => (none, 0, false),
            },
            PlannedDevice::Function(place) => match self.hardware.functions.get(place) {
                Some(function) => {
                    let rid = function.rid.as_u16();
                    let place = Place::Pci {
                        segment: function.segment,
                        bus: function.rid.bus(),
                        device: (rid >> 3 & 0x1f) as u8,
                        function: (rid & 7) as u8,
                    };
                    (place, 0, false)
                }
                None => (none, 0, false),
            },
        };
        GuestDevice {
            id,
            place,
            pasid_bits,
            can_stall,
            has_ats: self.ats(device) != Ats::Off,
        }
    }

    fn tree(&self, planned: &Planned, out: &mut [u8]) -> Result<usize, Refusal> {
        let machine = self.machine();
        let mut devices = List::<Described<'_>, MAX_DEVICES>::new();
        let mut segments = List::<usize, MAX_BRIDGES>::new();
        for device in &planned.devices {
            let described = match device {
                PlannedDevice::Platform(place) => machine.devices.get(*place).and_then(|it| {
                    let at = it.registers?;
                    let name = it.name.as_str();
                    Some(Described::Mmio {
                        name: name.split_once('@').map_or(name, |(name, _)| name),
                        compatible: it.compatible.as_str(),
                        at: (at.base().as_u64(), at.size_bytes()),
                        pasid_bits: it.pasid_bits,
                        can_stall: it.can_stall,
                        is_coherent: it.is_coherent,
                    })
                }),
                PlannedDevice::Function(place) => {
                    let function = self.hardware.functions.get(*place);
                    let bridge = function.and_then(|function| {
                        let mut bridges = machine.bridges.iter();
                        bridges.position(|it| super::devices::is_below(it, function))
                    });
                    if let Some(bridge) = bridge.filter(|it| !segments.contains(it)) {
                        let full = |_| Refusal::GuestTree { name: planned.name };
                        segments.push(bridge).map_err(full)?;
                    }
                    Some(Described::Function)
                }
            };
            // As many as are planned.
            let _ = devices.push(described.unwrap_or(Described::Function));
        }
        let mut ranges = [[(0, 0, 0, 0); 8]; MAX_BRIDGES];
        let mut counts = [0; MAX_BRIDGES];
        for ((bridge, ranges), count) in segments.iter().zip(&mut ranges).zip(&mut counts) {
            let windows = machine.bridges.get(*bridge).map(|bridge| &bridge.windows);
            for (range, window) in ranges.iter_mut().zip(windows.into_iter().flatten()) {
                *range = range_of(window);
                *count += 1;
            }
        }
        let mut bridges = List::<DescribedBridge<'_>, MAX_BRIDGES>::new();
        for ((place, ranges), count) in segments.iter().zip(&ranges).zip(counts) {
            let Some(bridge) = machine.bridges.get(*place) else {
                continue;
            };
            let Some(ecam) = bridge.ecam else { continue };
            // As many as there are segments.
            let _ = bridges.push(DescribedBridge {
                segment: bridge.segment,
                ecam: (ecam.base().as_u64(), ecam.size_bytes()),
                buses: (bridge.first_bus, bridge.last_bus),
                ranges: ranges.get(..count).unwrap_or(&[]),
            });
        }
        let is_examined = self.exam.is_some();
        let report = [("portcullis,report", Exam::report_at(planned).as_u64())];
        let guest = GuestTree {
            memory: (planned.memory.base().as_u64(), planned.memory.size_bytes()),
            cpus: planned.cpus.len(),
            devices: &devices,
            bridges: &bridges,
            chosen: if is_examined { &report } else { &[] },
        };
        tree::write(&guest, out).map_err(|_| Refusal::GuestTree { name: planned.name })
    }
}

/// How much a guest may have.
pub(crate) fn quota(planned: &Planned) -> Quota {
    let [spaces, bindings, handles, stalls, _] = planned.quotas;
    let usual = Quota::default();
    Quota {
        spaces: spaces.unwrap_or(usual.spaces),
        bindings: bindings.unwrap_or(usual.bindings),
        handles: handles.unwrap_or(usual.handles),
        stalls: stalls.unwrap_or(usual.stalls),
    }
}

/// A window as `ranges` has it (PCI bus binding: the space is in bits 25 and 24).
fn range_of(window: &Window) -> (u32, u64, u64, u64) {
    let space = match window.kind {
        WindowKind::Memory32 => 0x200_0000,
        WindowKind::Memory64 => 0x300_0000,
    };
    let (cpu, size_bytes) = (window.cpu.base().as_u64(), window.cpu.size_bytes());
    (space, window.pci_base, cpu, size_bytes)
}
