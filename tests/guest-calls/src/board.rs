//! The machine, its guests, and their end.

use std::sync::{Arc, Mutex, PoisonError};

use portcullis::addr::{Extent, Ipa, Pa};
use portcullis::guest::calls::guest_memory::Ram;
use portcullis::guest::calls::{GuestDevice, Place};
use portcullis::hw::{Barrier, Frames, Platform, PoolShape};
use portcullis::id::StreamId;
use portcullis::smmu::{Firmware, QueueIndices, Settings, Smmu, Unpublished};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{
    Acquired, DeviceDescription, GuestConfig, GuestId, Iommu, IommuSettings, Owner, Ownership,
    Quota, ResetPolicy, SmmuId, SpaceError,
};
use portcullis::spec::stage1::{PageAccess, Stage1Descriptor};
use portcullis::spec::ste::Ats;
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, WalkCoherency};
use portcullis_guest::TableRegisters;
use smmu_model::device::{Device, Misconduct, Wiring, frame};
use smmu_model::{Faults, Identity, Mode, Rule};

use crate::host::Host;

/// How many guests there are.
pub const GUESTS: usize = 2;
/// Where a guest sees its memory.
pub const IPA: u64 = 0x4000_0000;
/// How much it has.
pub const RAM_BYTES: u64 = 1 << LOG2_RAM;
/// Where its tables are: two pages for each of [`SPACES`].
pub const TABLES: u64 = IPA;
/// Where the page is that the tables of a space lead to: one for each of [`SPACES`].
pub const DATA: u64 = IPA + 0x2_0000;
/// Where a list of 64 ranges is.
pub const LIST: u64 = IPA + 0x3_0000;
/// How many address spaces have tables.
pub const SPACES: u64 = 16;
/// What each maps to its page.
pub const VA: u64 = 0x1234_5000;

const LOG2_RAM: u8 = 18;
const WINDOW: Ipa = Ipa::new(0x70_0000_0000);

/// What a guest may have.
pub(crate) const QUOTA: Quota = Quota {
    spaces: 24,
    bindings: 32,
    handles: 40,
    stalls: 4,
};

pub(crate) const SETTINGS: IommuSettings = IommuSettings {
    quarantine_us: 200,
    stall_deadline_us: 4_000,
    wait_us: 10_000_000,
};

/// A guest, as the host knows it.
pub struct Guest {
    /// What it is to the library.
    pub id: GuestId,
    /// Its memory.
    pub ram: Vec<Ram>,
    /// Its devices, by number.
    pub devices: Vec<GuestDevice>,
    /// The devices themselves.
    pub models: Vec<Arc<Device>>,
    frames: Frames,
    tokens: Vec<Ownership>,
}

/// The machine with its guests.
pub struct Board<'p> {
    /// The host.
    pub host: &'p Host,
    /// The SMMUs.
    pub smmus: &'p [Smmu<'p, Host>],
    /// All of it.
    pub iommu: Iommu<'p, Host>,
    /// The guests.
    pub guests: Vec<Guest>,
    pub(crate) console: Mutex<Vec<(usize, u32, Vec<u8>)>>,
    pub(crate) log: Mutex<Vec<Vec<u8>>>,
}

/// Runs `act` on a fresh machine that is hostile in this way, then takes everything down.
///
/// # Panics
///
/// If memory is out at the end, or the model has found a violation.
pub fn on_board(mode: Mode, act: impl FnOnce(&Board<'_>)) {
    let host = machine(mode);
    run(&host, None, act);
    let violations = host.machine().record().violations();
    assert!(violations.is_empty(), "{mode:?}: {}", violations[0]);
}

/// As [`on_board`], where hardware may misbehave: SYNCs are given up after 2 ms, and before the end
/// all SMMUs are recovered and all devices reset.
///
/// # Panics
///
/// As [`on_board`]; but an SMMU that was stopped as the last fence may have had ATS on (§3.9.1), and
/// one that refused CFGI_STE goes on with the STALL_TERM behind it in the same train (§4.6.2).
pub fn on_unruly_board(mode: Mode, act: impl FnOnce(&Board<'_>)) {
    let host = machine(mode);
    run(&host, Some(2_000), |board| {
        act(board);
        board.calm();
    });
    let violations = host.machine().record().violations();
    let mut others = violations.iter();
    let borne = [Rule::DisabledWithAts, Rule::StallTermWhileLive];
    if let Some(found) = others.find(|it| !borne.contains(&it.rule)) {
        panic!("{mode:?}: {found}");
    }
}

fn machine(mode: Mode) -> Host {
    let without = Identity {
        stall_model: smmu_model::StallModel::TerminateOnly,
        ..Identity::full()
    };
    let identities = [Identity::full(), without];
    Host::new(&identities.map(|identity| smmu_model::Settings {
        // A device that does not answer is given up before a SYNC is.
        atc_timeout_us: 500,
        ..smmu_model::Settings::new(identity, mode)
    }))
}

/// `sync_timeout_us`: how long an SMMU is waited for that may misbehave; `None`: none does.
fn run(host: &Host, sync_timeout_us: Option<u64>, act: impl FnOnce(&Board<'_>)) {
    let smmus: Vec<_> = (0..2)
        .map(|smmu| take_over(host, smmu, sync_timeout_us))
        .collect();
    let before = host.bytes_out();
    let board = Board::new(host, &smmus);
    act(&board);
    board.end();
    assert_eq!(host.bytes_out(), before, "all memory came back");
    for smmu in smmus {
        smmu.shut_down().expect("it is confirmed");
    }
    assert_eq!(host.bytes_out(), 0);
}

fn take_over(host: &Host, smmu: usize, sync_timeout_us: Option<u64>) -> Smmu<'_, Host> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let mut settings = Settings::new(StreamId::new(0xff));
    if smmu == 1 {
        settings.unpublished = Unpublished::Recorded;
    }
    if let Some(timeout_us) = sync_timeout_us {
        settings.sync_timeout_us = timeout_us;
    }
    Smmu::take_over(host, host.registers(smmu), firmware, settings).expect("it is taken over")
}

/// The registers with which a guest's CPU would use the tables of one of [`SPACES`].
pub const fn tables(n: u64) -> TableRegisters {
    TableRegisters {
        ttbr0: TABLES + n * 0x2000,
        ttbr1: 0,
        // 30 bits of 4 KiB pages below, inner shareable write-back; nothing above; 40 bits out.
        tcr: 34 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32,
        mair: 0xff,
    }
}

impl<'p> Board<'p> {
    fn new(host: &'p Host, smmus: &'p [Smmu<'p, Host>]) -> Self {
        let iommu = Iommu::new(host, SETTINGS).expect("there is memory");
        for (id, smmu) in (0..).zip(smmus) {
            let id = SmmuId::new(id).expect("below 16");
            iommu.add_smmu(id, smmu).expect("it is new");
        }
        iommu.end_discovery();
        let guests: Vec<_> = (0..GUESTS)
            .map(|n| Guest::new(host, &iommu, n as u32))
            .collect();
        let log = guests.iter().map(|_| Vec::new()).collect();
        Self {
            host,
            smmus,
            iommu,
            guests,
            console: Mutex::new(Vec::new()),
            log: Mutex::new(log),
        }
    }

    /// Notes a line for a guest, as EL2 does.
    pub fn note(&self, guest: usize, line: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log[guest].extend_from_slice(line.as_bytes());
    }

    /// What guests have put onto the console: which, from which CPU, what.
    pub fn console(&self) -> Vec<(usize, u32, Vec<u8>)> {
        let console = self.console.lock();
        console.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets time pass: for the machine, the devices, and what stalled.
    pub fn pass(&self, us: u64) {
        let machine = self.host.machine();
        machine.advance(us);
        let now_us = machine.record().now_us();
        for device in self.guests.iter().flat_map(|guest| &guest.models) {
            device.tick(now_us);
        }
        for smmu in 0..2 {
            for finished in machine.smmu(smmu).take_finished() {
                for device in self.guests.iter().flat_map(|guest| &guest.models) {
                    device.finish(&finished);
                }
            }
        }
    }

    /// Hardware behaves again: all that was lost is given back.
    fn calm(&self) {
        for guest in &self.guests {
            for model in &guest.models {
                model.write32(frame::CONTROL, 0);
                model.misbehave(Misconduct::None);
            }
        }
        for number in 0..2 {
            let smmu = self.host.machine().smmu(usize::from(number));
            smmu.set_faults(Faults::default());
            self.pass(10_000);
            self.recover(SmmuId::new(number).expect("below 16"))
                .expect("hardware behaves");
        }
        for device in self.guests.iter().flat_map(|guest| &guest.devices) {
            self.iommu.restore(device.id).expect("hardware behaves");
        }
    }

    /// Brings an SMMU back, by a new queue if the old one lives and never completes.
    ///
    /// # Errors
    ///
    /// As [`Iommu::recover`].
    pub fn recover(&self, id: SmmuId) -> Result<(), SpaceError> {
        self.iommu.recover(id).or_else(|_| {
            // Whatever it says, the gate is shut as far as it can be.
            let _ = self.iommu.halt(id);
            self.iommu.recover(id)
        })
    }

    fn end(self) {
        let Self {
            host,
            iommu,
            guests,
            ..
        } = self;
        for guest in guests {
            iommu.destroy_guest(guest.id).expect("it ends");
            for token in guest.tokens {
                let kept = iommu.disown(token).expect_err("its owner is gone");
                assert_eq!(kept.error, SpaceError::StaleOwnership);
            }
            host.free(guest.frames);
        }
        assert!(iommu.dismantle().is_ok());
    }
}

impl Guest {
    /// A guest with two devices: by PASID with ATS and stalls on the first SMMU; on the second one
    /// by PASID, or without for every other guest.
    fn new(host: &Host, iommu: &Iommu<'_, Host>, n: u32) -> Self {
        let id = iommu
            .create_guest(&guest_config())
            .expect("there is memory");
        let frames = host.allocate(LOG2_RAM).expect("there is memory");
        frames.fill(host, 0);
        lay_tables(host, &frames);
        let base = frames.base();
        let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
        iommu
            .map(id, Ipa::new(IPA), base, RAM_BYTES, attributes, sizes)
            .expect("it is mapped");
        let mut guest = Self {
            id,
            ram: vec![ram(IPA, RAM_BYTES, base)],
            devices: Vec::new(),
            models: Vec::new(),
            frames,
            tokens: Vec::new(),
        };
        for smmu in 0..2 {
            guest.add_device(host, iommu, n, smmu);
        }
        guest
    }

    fn add_device(&mut self, host: &Host, iommu: &Iommu<'_, Host>, n: u32, smmu: u8) {
        let stream = 0x10 + n * 0x20;
        let is_first = smmu == 0;
        let pasid_bits = if is_first || n == 0 { 16 } else { 0 };
        let wiring = Wiring {
            stream,
            pasid_bits,
            has_atc: is_first,
            has_pri: false,
        };
        let model = Device::new(host.machine().smmu(smmu.into()), wiring);
        model.write32(frame::CONTROL, frame::control::ENABLE);
        let tag = host.add(Arc::clone(&model));
        let description = DeviceDescription {
            tag,
            smmu: SmmuId::new(smmu),
            streams: &[StreamId::new(stream)],
            pasid_bits,
            can_stall: is_first,
            ats: if is_first { Ats::Split } else { Ats::Off },
            reset: ResetPolicy::Needed,
        };
        let group = iommu.add_group().expect("there is room");
        let device = iommu.add_device(group, &description).expect("it is new");
        let Ok(Acquired::Owned(token)) = iommu.acquire(group, Owner::Guest(self.id)) else {
            panic!("it is free");
        };
        self.tokens.push(token);
        self.models.push(model);
        self.devices.push(GuestDevice {
            id: device,
            place: if is_first {
                Place::Mmio(Ipa::new(0xa00_0000))
            } else {
                Place::Pci {
                    segment: 0,
                    bus: 1,
                    device: 2,
                    function: 3,
                }
            },
            pasid_bits,
            can_stall: is_first,
            has_ats: is_first,
        });
    }

    /// Whether a physical address is the guest's memory.
    pub fn owns(&self, pa: u64) -> bool {
        let base = self.frames.base().as_u64();
        (base..base + self.frames.size_bytes()).contains(&pa)
    }
}

/// What the guests here are made with.
pub const fn guest_config() -> GuestConfig {
    GuestConfig {
        granule: Granule::Kib4,
        ipa_bits: 40,
        oas_bits: 40,
        bbm: BbmLevel::Level0,
        coherency: WalkCoherency::Coherent,
        tables: PoolShape {
            quota_pages: 64,
            log2_pages_per_chunk: 2,
        },
        window: WINDOW,
        window_bytes: 1 << 20,
        pasid_bits: 8,
        quota: QUOTA,
    }
}

fn ram(ipa: u64, bytes: u64, pa: Pa) -> Ram {
    Ram {
        ipa: Extent::<Ipa>::new(Ipa::new(ipa), bytes).expect("below the top"),
        pa,
    }
}

/// Two tables for each space, that lead [`VA`] to a page of its own, and a list of ranges there.
fn lay_tables(host: &Host, frames: &Frames) {
    let words = frames.words(host);
    let store = |ipa: u64, word| host.store(&words[((ipa - IPA) / 8) as usize], word);
    let put = |ipa, descriptor: Stage1Descriptor| store(ipa, descriptor.as_u64());
    for n in 0..64 {
        store(LIST + n * 16, VA + n * 0x1000);
        store(LIST + n * 16 + 8, 0x800 * (n + 1));
    }
    for n in 0..SPACES {
        let (level2, level3) = (TABLES + n * 0x2000, TABLES + n * 0x2000 + 0x1000);
        let (at2, at3) = (VA >> 21 & 511, VA >> 12 & 511);
        let page = Stage1Descriptor::page(Ipa::new(DATA + n * 0x1000), PageAccess::ReadWrite);
        put(level2 + at2 * 8, Stage1Descriptor::table(Ipa::new(level3)));
        put(level3 + at3 * 8, page);
    }
    host.barrier(Barrier::Publish);
}
