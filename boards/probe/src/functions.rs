//! Which PCI functions there are, read from configuration space.

use alloc::vec::Vec;

use portcullis::addr::{Extent, Pa};
use portcullis::discover::{Bridge, Msis, Rid};
use portcullis::hw::Registers;
use portcullis::pci::{Class, Ecam};

use crate::read_only::ReadOnly;

/// One bus of ECAM, in bytes.
const BUS_BYTES: u64 = 1 << 20;
/// PCIe §7.6: extended capabilities lie from 0x100 on, 4 bytes apart at least.
const MAX_EXTENDED: usize = (0x1000 - 0x100) / 4;
const EXPRESS: u8 = 0x10;
const ATS: u16 = 0x0f;
const PASID: u16 = 0x1b;

/// The buses of one root that firmware has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roots {
    /// The segment.
    pub segment: u16,
    /// The first bus.
    pub first_bus: u8,
    /// The last bus.
    pub last_bus: u8,
}

/// A PCI function as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    /// Its segment.
    pub segment: u16,
    /// Where it is there.
    pub rid: Rid,
    /// What bridges above put in the place of its RID, the nearest first.
    pub aliases: Vec<Rid>,
    /// Who made it.
    pub vendor: u16,
    /// What its maker calls it.
    pub device: u16,
    /// What it does.
    pub class: Class,
    /// Whether anything is behind it.
    pub kind: FunctionKind,
    /// Whether it can be reset by itself (FLR).
    pub can_reset: bool,
    /// Whether it can ask for translations.
    pub has_ats: bool,
    /// How many bits of PASID it can send; `None` if it has no such capability.
    pub pasid_bits: Option<u8>,
    /// Where its MSIs go, by IORT.
    pub msis: Option<Msis>,
}

impl Function {
    /// The RIDs that what it does may come with: its own first.
    pub fn rids(&self) -> impl Iterator<Item = Rid> {
        core::iter::once(self.rid).chain(self.aliases.iter().copied())
    }

    /// Whether what both do may come with one RID, so that nothing tells them apart.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.segment == other.segment && self.rids().any(|rid| other.rids().any(|it| it == rid))
    }
}

/// Whether anything is behind a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FunctionKind {
    /// Nothing.
    Endpoint,
    /// These buses, by firmware's numbers.
    Bridge {
        /// The bus right behind it.
        secondary: u8,
        /// The last bus behind it.
        subordinate: u8,
        /// What it puts in the place of the RIDs from behind it; `None` if it passes them on.
        alias: Option<Rid>,
    },
    /// Something with a header that is neither.
    Unknown,
}

/// Lists what is on the buses of `roots` in the segment of `bridge`; a bus that `registers` gives
/// nothing for is handed to `unseen`.
///
/// Only buses are looked at that are a root's first one or behind a bridge there: a read of a bus
/// that no hardware answers for is an error of the bus on some machines.
pub(crate) fn list<R: Registers>(
    bridge: &Bridge,
    roots: &[Roots],
    registers: &dyn Fn(Extent<Pa>) -> Option<R>,
    unseen: &mut dyn FnMut(u8),
) -> Vec<Function> {
    let mut found = Vec::new();
    let whole = Roots {
        segment: bridge.segment,
        first_bus: bridge.first_bus,
        last_bus: bridge.last_bus,
    };
    let named = || {
        roots.iter().filter(|root| {
            root.segment == whole.segment
                && root.first_bus >= whole.first_bus
                && root.last_bus <= whole.last_bus
        })
    };
    let fallback = named().next().is_none().then_some(whole);
    for root in named().copied().chain(fallback) {
        let mut bus = root.first_bus;
        let mut seen = root.first_bus;
        loop {
            match bus_registers(bridge, bus, registers) {
                Some(ecam) => list_bus(&ecam, (whole.segment, bus), &mut found),
                None => unseen(bus),
            }
            // Bus numbers rise: each is looked at once, whatever bridges say.
            let next = (seen..root.last_bus)
                .map(|before| before + 1)
                .find(|next| found.iter().any(|it| leads_to(it, whole.segment, *next)));
            let Some(next) = next else { break };
            bus = next;
            seen = next;
        }
    }
    found.sort_by_key(|function| function.rid);
    found.dedup_by_key(|function| function.rid);
    let aliases: Vec<_> = found.iter().map(|it| aliases(&found, it)).collect();
    for (function, aliases) in found.iter_mut().zip(aliases) {
        function.aliases = aliases;
    }
    found
}

/// What the bridges above `function` put in the place of its RID, the nearest first.
fn aliases(found: &[Function], function: &Function) -> Vec<Rid> {
    let mut aliases = Vec::new();
    let mut bus = function.rid.bus();
    // Each step goes to a lower number: bridges that lead in a circle do not hold it up.
    while let Some(bridge) = found
        .iter()
        .find(|it| it.rid.bus() < bus && leads_to(it, function.segment, bus))
    {
        if let FunctionKind::Bridge {
            alias: Some(alias), ..
        } = bridge.kind
            && alias != function.rid
        {
            aliases.push(alias);
        }
        bus = bridge.rid.bus();
    }
    aliases
}

fn leads_to(function: &Function, segment: u16, bus: u8) -> bool {
    function.segment == segment
        && matches!(function.kind, FunctionKind::Bridge { secondary, .. } if secondary == bus)
}

/// The configuration space of one bus.
fn bus_registers<R: Registers>(
    bridge: &Bridge,
    bus: u8,
    registers: &dyn Fn(Extent<Pa>) -> Option<R>,
) -> Option<Ecam<ReadOnly<R>>> {
    let further = u64::from(bus.checked_sub(bridge.first_bus)?);
    let base = bridge.ecam?.base().checked_add(further * BUS_BYTES)?;
    let extent = Extent::<Pa>::new(base, BUS_BYTES)?;
    let alone = Bridge {
        ecam: Some(extent),
        first_bus: bus,
        last_bus: bus,
        ..bridge.clone()
    };
    Some(Ecam::new(ReadOnly::new(registers(extent)?), &alone))
}

fn list_bus<R: Registers>(ecam: &Ecam<R>, (segment, bus): (u16, u8), found: &mut Vec<Function>) {
    for device in 0..32 {
        for function in 0..8 {
            let Some(rid) = Rid::new(bus, device, function) else {
                continue;
            };
            let header = header(ecam, rid);
            if let Some(listed) = header.and_then(|header| one(ecam, segment, rid, header)) {
                found.push(listed);
            }
            // A device without a function 0 has no others.
            let has_more = header.is_some_and(|header| header & 0x80 != 0);
            if function == 0 && !has_more {
                break;
            }
        }
    }
}

/// The type of its header, if there is a function.
fn header<R: Registers>(ecam: &Ecam<R>, rid: Rid) -> Option<u8> {
    let vendor = ecam.read(rid, 0).ok()? as u16;
    let is_there = vendor != 0 && vendor != u16::MAX;
    let header = (ecam.read(rid, 0x0c).ok()? >> 16) as u8;
    is_there.then_some(header)
}

fn one<R: Registers>(ecam: &Ecam<R>, segment: u16, rid: Rid, header: u8) -> Option<Function> {
    let ids = ecam.read(rid, 0).ok()?;
    let [_, interface, sub, base] = ecam.read(rid, 8).ok()?.to_le_bytes();
    let kind = match header & 0x7f {
        0 => FunctionKind::Endpoint,
        1 => {
            let [_, secondary, subordinate, _] = ecam.read(rid, 0x18).ok()?.to_le_bytes();
            FunctionKind::Bridge {
                secondary,
                subordinate,
                // One that does not say what it is may be of the kind that has its own.
                alias: ecam.alias_behind(rid, secondary).unwrap_or(Some(rid)),
            }
        }
        _ => FunctionKind::Unknown,
    };
    let express = ecam.capability(rid, EXPRESS).ok();
    // Without the PCI Express capability there is no extended configuration space.
    let extended = |id| express.and_then(|_| extended(ecam, rid, id));
    let pasid = extended(PASID).and_then(|at| ecam.read(rid, at + 4).ok());
    Some(Function {
        segment,
        rid,
        aliases: Vec::new(),
        vendor: ids as u16,
        device: (ids >> 16) as u16,
        class: Class {
            base,
            sub,
            interface,
        },
        kind,
        // PCIe §7.5.3.3: Device Capabilities, bit 28.
        can_reset: express
            .and_then(|at| ecam.read(rid, at + 4).ok())
            .is_some_and(|capabilities| capabilities >> 28 & 1 != 0),
        has_ats: extended(ATS).is_some(),
        pasid_bits: pasid.map(|capability| (capability >> 8 & 0x1f) as u8),
        msis: None,
    })
}

/// Where the extended capability `id` is.
fn extended<R: Registers>(ecam: &Ecam<R>, rid: Rid, id: u16) -> Option<u16> {
    let mut at = 0x100;
    for _ in 0..MAX_EXTENDED {
        let header = ecam.read(rid, at).ok()?;
        if header == 0 || header == u32::MAX {
            return None;
        }
        if header as u16 == id {
            return Some(at);
        }
        at = (header >> 20) as u16 & 0xffc;
        if at < 0x100 {
            return None;
        }
    }
    None
}
