//! The guests that the image has with it, and what they have to show: nothing but what is given to
//! them is within reach.
//!
//! Two of them, on CPUs of their own: one has an edu function, the other an NVMe controller. Each
//! tries, by its CPU and by its device, to reach the other's memory and EL2's, and its CPU the
//! registers of SMMUs, interrupt controller and console too. EL2 judges: by words that must not have
//! changed, by the accesses that it has counted, and by what the guests report.

use core::sync::atomic::{AtomicU32, Ordering};

use portcullis::addr::{Extent, Ipa, Pa};
use portcullis::arch::{Host, board, cpu, image, println};
use portcullis::check::edu;
use portcullis::discover::{GuestNode, List, Mpidr, Start, StreamsOf, Text};
use portcullis::guest::description::{MAX_GUESTS, Planned, TREE_BYTES};
use portcullis::hw::{Frames, Platform};
use portcullis::pci::{Class, Function, Kind};
use portcullis::space::stage2::PageSizes;
use portcullis::spec::vmsa::Attributes;

use super::hardware::Hardware;
use super::world::{Built, Ending, World};

static GUEST: &[u8] = include_bytes!(env!("PORTCULLIS_GUEST_IMAGE"));

/// Where boards have no memory, so that no address of EL2's is one of the guest's own.
const MEMORY_AT: u64 = 0x20_0000_0000;
const MEMORY_BYTES: u64 = 16 << 20;

const PAGE_BYTES: u64 = 4096;
const PAGE_WORDS: usize = 512;
/// Of a guest's report: what says that it was written, and how many of its parts failed.
const DONE: u64 = u64::from_be_bytes(*b"portcull");
const DONE_AT: u64 = 256;
const FAILED_AT: u64 = 257;
const TRIED_AT: u64 = 258;
/// What secrets begin with; the guest knows this much.
const SECRET: u64 = 0x5ec2_e700;

/// The embedded guests for this machine; none if the image has none with it, or there is no device for
/// them.
pub(crate) fn describe(hardware: &Hardware) -> List<GuestNode, MAX_GUESTS> {
    let mut nodes = List::new();
    if GUEST.is_empty() {
        return nodes;
    }
    let at = Pa::new(GUEST.as_ptr().addr() as u64);
    let Some(at) = Extent::<Pa>::new(at, GUEST.len() as u64) else {
        return nodes;
    };
    let here = Mpidr::of_register(cpu::affinity());
    let mut others = hardware.machine.cpus.iter().filter_map(|other| {
        (other.mpidr != here && other.start == Start::Psci).then_some(other.mpidr)
    });
    // This CPU is kept at EL2 where there are enough others.
    let (one, other, further) = (others.next(), others.next(), here);
    let cpus = match (one, other) {
        (Some(one), Some(other)) => [Some(one), Some(other)],
        (Some(one), None) => [Some(further), Some(one)],
        (None, _) => [Some(further), None],
    };
    let devices = [function(hardware, is_edu), function(hardware, is_nvme)];
    for ((name, cpu), device) in ["first", "second"].into_iter().zip(cpus).zip(devices) {
        let Some(device) = device else {
            println!("guest {name}: left out, there is no device for it behind an SMMU");
            continue;
        };
        let Some(cpu) = cpu else {
            println!("guest {name}: left out, there is one CPU");
            continue;
        };
        let mut node = GuestNode {
            name: Text::start_of(name),
            image: at,
            memory_bytes: MEMORY_BYTES,
            memory_at: MEMORY_AT,
            cpus: List::new(),
            devices: List::new(),
            quotas: [None; 5],
        };
        // Both lists are empty, and there are two guests.
        let _ = node.cpus.push(cpu);
        let _ = node.devices.push(device);
        let _ = nodes.push(node);
    }
    nodes
}

/// The name of the first function that is such and can be a guest's.
fn function(hardware: &Hardware, is_such: fn(&Function) -> bool) -> Option<Text<48>> {
    let mut functions = hardware.functions.iter();
    let found = functions.find(|it| {
        is_such(it)
            && it.kind == Kind::Endpoint
            && it.refused.is_none()
            && matches!(it.streams(hardware.machine), StreamsOf::Behind(_))
    })?;
    let rid = found.rid.as_u16();
    Some(Text::printed(format_args!(
        "{:04x}:{:02x}:{:02x}.{}",
        found.segment,
        found.rid.bus(),
        rid >> 3 & 0x1f,
        rid & 7
    )))
}

const fn is_edu(function: &Function) -> bool {
    function.vendor == edu::VENDOR && function.device == edu::DEVICE
}

const fn is_nvme(function: &Function) -> bool {
    matches!(
        function.class,
        Class {
            base: 0x01,
            sub: 0x08,
            interface: 0x02
        }
    )
}

/// What the embedded guests have to show.
pub(crate) struct Exam {
    /// A page of EL2's that nobody may reach.
    hidden: Frames,
    /// How many guests have shown all.
    passed: AtomicU32,
    /// Whether the page is in every guest's stage 2 all the same, to see that it is noticed.
    is_sabotaged: bool,
}

impl Exam {
    /// With a page of EL2's to keep.
    pub(crate) fn new(host: &Host, is_sabotaged: bool) -> Option<Self> {
        let hidden = host.allocate(12)?;
        hidden.fill(host, secret(MAX_GUESTS));
        Some(Self {
            hidden,
            passed: AtomicU32::new(0),
            is_sabotaged,
        })
    }

    /// Where a guest finds what to try, and reports; the page behind is its secret.
    pub(crate) fn report_at(planned: &Planned) -> Ipa {
        let end = planned.memory.end().as_u64();
        Ipa::new(end - TREE_BYTES - 2 * PAGE_BYTES)
    }

    fn secret_at(planned: &Planned) -> Ipa {
        Ipa::new(Self::report_at(planned).as_u64() + PAGE_BYTES)
    }

    /// Sets the questions, before any guest starts.
    pub(crate) fn set(&self, world: &World) {
        let machine = world.machine();
        let mut targets = List::<u64, 32>::new();
        let mut add = |at: Pa| {
            // There is room for all: up to sixteen SMMUs, and four others.
            let _ = targets.push(at.as_u64());
        };
        add(self.hidden.base());
        add(image::layout().text.base());
        for smmu in &machine.smmus {
            add(smmu.registers.base());
        }
        if let Some(gic) = &machine.gic {
            add(gic.distributor.base());
        }
        add(Pa::new(board::EARLY_CONSOLE));
        for (guest, (planned, slot)) in world.plan.iter().zip(&world.guests).enumerate() {
            let other = world.plan.iter().zip(&world.guests).enumerate();
            let mut other = other.filter(|(place, _)| *place != guest);
            let peer = other.next().and_then(|(_, (planned, slot))| {
                let state = slot.state.lock();
                let built = state.built.as_ref()?;
                super::world::translate(&built.ram, Self::secret_at(planned))
            });
            let state = slot.state.lock();
            let Some(built) = &state.built else { continue };
            if self.is_sabotaged {
                let (pa, sizes) = (self.hidden.base(), PageSizes::PagesOnly);
                let (ipa, memory) = (Ipa::new(pa.as_u64()), Attributes::MEMORY);
                let mapped = world
                    .iommu
                    .map(built.id, ipa, pa, PAGE_BYTES, memory, sizes);
                if let Err(why) = mapped {
                    println!("guest {}: not sabotaged: {why}", planned.name);
                }
            }
            let put = |at: Ipa, number: u64, value: u64| {
                let at = Ipa::new(at.as_u64() + 8 * number);
                if let Some(word) = world.word(&built.ram, at) {
                    word.store(value, Ordering::Relaxed);
                    cpu::clean_and_invalidate(core::slice::from_ref(word));
                }
            };
            let report = Self::report_at(planned);
            let peer = peer.map(Pa::as_u64);
            let all = peer.iter().chain(&targets);
            put(report, 0, all.clone().count() as u64);
            // Memory comes first: the other guest's, and EL2's.
            put(report, 1, 1 + u64::from(peer.is_some()));
            for (number, at) in all.enumerate() {
                put(report, 2 + number as u64, *at);
            }
            for word in 0..PAGE_WORDS as u64 {
                put(Self::secret_at(planned), word, secret(guest));
            }
        }
    }

    /// Judges a guest that has ended, while its memory is still its own.
    pub(crate) fn mark(&self, world: &World, guest: usize, built: &Built, ending: Ending) {
        let Some((planned, slot)) = world.planned(guest) else {
            return;
        };
        let word = |at: Ipa, number: u64| {
            let at = Ipa::new(at.as_u64() + 8 * number);
            let word = world.word(&built.ram, at)?;
            cpu::clean_and_invalidate(core::slice::from_ref(word));
            Some(word.load(Ordering::Relaxed))
        };
        let report = Self::report_at(planned);
        let counted = slot.outside.load(Ordering::Relaxed);
        let secrets = 0..PAGE_WORDS as u64;
        let mut secrets = secrets.map(|number| word(Self::secret_at(planned), number));
        let checks = [
            (ending == Ending::Off, "it did not end by itself"),
            (
                word(report, DONE_AT) == Some(DONE),
                "it did not get to its end",
            ),
            (word(report, FAILED_AT) == Some(0), "a part of it failed"),
            (
                counted != 0 && word(report, TRIED_AT) == Some(counted),
                "its accesses are not those that EL2 counted",
            ),
            (
                secrets.all(|it| it == Some(secret(guest))),
                "its memory was changed from outside",
            ),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            None => {
                self.passed.fetch_add(1, Ordering::Relaxed);
            }
            Some((_, why)) => println!("guest {}: {why}", planned.name),
        }
    }

    /// What comes of it, when all guests have ended.
    pub(crate) fn verdict(&self, world: &World) -> Result<(), &'static str> {
        let mut hidden = self.hidden.words(world.host).iter();
        if !hidden.all(|word| word.load(Ordering::Relaxed) == secret(MAX_GUESTS)) {
            return Err("EL2's memory was changed");
        }
        match self.passed.load(Ordering::Relaxed) as usize == world.plan.len() {
            true => Ok(()),
            false => Err("a guest did not show what it should"),
        }
    }
}

/// The words of a guest's secret page, or of EL2's.
const fn secret(guest: usize) -> u64 {
    SECRET | guest as u64
}
