//! Which functions there are.

use super::aliases::Aliases;
use super::assign;
use super::bar;
use super::config::Ecam;
use super::function::{Bar, Class, Function, Kind};
use super::refusal::Refusal;
use crate::discover::{Full, List, Rid, Window};
use crate::hw::Registers;

/// Behind how many bridges a bus may be; a switch is two, and few are cascaded.
pub(super) const MAX_DEPTH: usize = 16;

const CLASS: u16 = 0x08;
const HEADER: u16 = 0x0c;
/// Bridge §3.2.5: primary, secondary and subordinate bus, and a latency of no meaning here.
const BUS_NUMBERS: u16 = 0x18;
const IS_MULTIFUNCTION: u8 = 0x80;

/// PCIe §7.5.3.
pub(super) const EXPRESS_CAPABILITY: u8 = 0x10;
/// PCIe §7.5.3.2: device/port types of a port whose link has one device at its other end.
pub(super) const ROOT_PORT: u8 = 4;
pub(super) const DOWNSTREAM_PORT: u8 = 6;

/// Turns off and lists every function below a host bridge, and places its BARs in `windows`.
///
/// Functions are added to `found` in order of bus, device and function as a depth-first walk meets
/// them. Bus numbers are kept if those of all bridges make sense, and given out anew otherwise.
/// Afterwards each endpoint has memory and bus mastering off and each bridge has both on, passing
/// on what is behind it and nothing else.
///
/// At most 256 buses of 32 devices are looked at, each function with a bounded count of accesses.
///
/// # Errors
///
/// [`Refusal::TooMany`] if `found` is full: functions that are not listed may be on.
/// What is wrong with one function is in its [`refused`](Function::refused).
pub fn scan<R: Registers, const N: usize>(
    ecam: &Ecam<R>,
    windows: &[Window],
    found: &mut List<Function, N>,
) -> Result<(), Refusal> {
    let root = ecam.first_bus();
    let mut last = root;
    let numbering = if is_numbered(ecam, Bus::root(root), ecam.last_bus(), &mut last)? {
        Numbering::Firmware
    } else {
        Numbering::Ours
    };
    let start = found.len();
    let mut scan = Scan {
        ecam,
        numbering,
        found,
        last: root,
    };
    scan.bus(Bus::root(root), ecam.last_bus())?;
    assign::place(ecam, windows, found.get_mut(start..).unwrap_or(&mut []));
    Ok(())
}

/// A bus on the way down.
#[derive(Clone, Copy)]
struct Bus {
    number: u8,
    depth: usize,
    /// 1 below a port whose link has one device at its other end: a device that answered at
    /// others too would be seen many times.
    devices: u8,
    /// What the bridges above put in the place of RIDs from here.
    aliases: Aliases,
}

impl Bus {
    const fn root(number: u8) -> Self {
        Self {
            number,
            depth: 0,
            devices: 32,
            aliases: Aliases::NONE,
        }
    }

    /// The bus `number` behind the bridge `rid` on this one.
    fn behind<R: Registers>(self, ecam: &Ecam<R>, rid: Rid, number: u8) -> Result<Self, Refusal> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH {
            return Err(Refusal::TooDeep { rid });
        }
        let devices = match ecam.port_type(rid)? {
            Some(ROOT_PORT | DOWNSTREAM_PORT) => 1,
            _ => 32,
        };
        Ok(Self {
            number,
            depth,
            devices,
            aliases: self.aliases.and(ecam.alias_behind(rid, number)?),
        })
    }

    /// Where functions may be.
    fn places(self) -> impl Iterator<Item = Rid> {
        (0..self.devices)
            .flat_map(|device| (0..8).map(move |function| (device, function)))
            .filter_map(move |(device, function)| Rid::new(self.number, device, function))
    }
}

/// The functions that answer on `bus`, with their header's type.
fn present<R: Registers>(ecam: &Ecam<R>, bus: Bus) -> impl Iterator<Item = (Rid, u8)> {
    let mut is_multifunction = false;
    bus.places().filter_map(move |rid| {
        // A device without a function 0 has no others.
        if rid.function() > 0 && !is_multifunction {
            return None;
        }
        let vendor = ecam.read(rid, 0).ok()? as u16;
        let header = (ecam.read(rid, HEADER).ok()? >> 16) as u8;
        let is_there = vendor != 0 && vendor != u16::MAX;
        if rid.function() == 0 {
            is_multifunction = is_there && header & IS_MULTIFUNCTION != 0;
        }
        is_there.then_some((rid, header & !IS_MULTIFUNCTION))
    })
}

/// The primary, secondary and subordinate bus of a bridge.
fn bus_numbers<R: Registers>(ecam: &Ecam<R>, rid: Rid) -> Result<(u8, u8, u8), Refusal> {
    let [primary, secondary, subordinate, _] = ecam.read(rid, BUS_NUMBERS)?.to_le_bytes();
    Ok((primary, secondary, subordinate))
}

/// Whether every bridge from `bus` on has numbers that make sense: each bus in the range of the
/// bridge above it, and no two the same. `last` is the last number seen.
fn is_numbered<R: Registers>(
    ecam: &Ecam<R>,
    bus: Bus,
    end: u8,
    last: &mut u8,
) -> Result<bool, Refusal> {
    for (rid, header) in present(ecam, bus) {
        if header != 1 {
            continue;
        }
        let (primary, secondary, subordinate) = bus_numbers(ecam, rid)?;
        if primary != bus.number
            || secondary <= *last
            || subordinate < secondary
            || subordinate > end
        {
            return Ok(false);
        }
        *last = secondary;
        // One that makes no sense otherwise is refused when it is listed.
        if let Ok(behind) = bus.behind(ecam, rid, secondary)
            && !is_numbered(ecam, behind, subordinate, last)?
        {
            return Ok(false);
        }
        *last = subordinate;
    }
    Ok(true)
}

#[derive(Clone, Copy)]
enum Numbering {
    Firmware,
    Ours,
}

struct Scan<'a, R, const N: usize> {
    ecam: &'a Ecam<R>,
    numbering: Numbering,
    found: &'a mut List<Function, N>,
    /// The last bus number in use.
    last: u8,
}

impl<R: Registers, const N: usize> Scan<'_, R, N> {
    /// Lists what is on `bus`, and behind it on buses up to `end`.
    fn bus(&mut self, bus: Bus, end: u8) -> Result<(), Refusal> {
        for (rid, header) in present(self.ecam, bus) {
            let place = self.found.len();
            let mut function = self.function(rid, bus.aliases)?;
            if function.refused.is_none() {
                match self.facts(rid, header) {
                    Ok((bars, kind)) => (function.bars, function.kind) = (bars, kind),
                    Err(refusal) => function.refused = Some(refusal),
                }
            }
            let full = |full: Full| Refusal::TooMany { limit: full.limit };
            self.found.push(function).map_err(full)?;
            if header == 1 {
                let behind = self.behind(bus, rid, end);
                self.note(place, behind)?;
            }
        }
        Ok(())
    }

    /// Sizes the BARs of a function that is off.
    fn facts(&self, rid: Rid, header: u8) -> Result<([Option<Bar>; 6], Kind), Refusal> {
        match header {
            0 => Ok((bar::size_all(self.ecam, rid, 6)?, Kind::Endpoint)),
            1 => Ok((bar::size_all(self.ecam, rid, 2)?, Kind::Closed)),
            _ => Err(Refusal::Header { rid, header }),
        }
    }

    /// Reads what the function is, and turns it off.
    fn function(&self, rid: Rid, aliases: Aliases) -> Result<Function, Refusal> {
        let ids = self.ecam.read(rid, 0)?;
        let [_, interface, sub, base] = self.ecam.read(rid, CLASS)?.to_le_bytes();
        Ok(Function {
            segment: self.ecam.segment(),
            rid,
            aliases,
            vendor: ids as u16,
            device: (ids >> 16) as u16,
            class: Class {
                base,
                sub,
                interface,
            },
            kind: Kind::Closed,
            bars: [None; 6],
            can_reset: self.ecam.can_reset(rid).is_ok(),
            refused: self.ecam.turn_off(rid).err(),
        })
    }

    /// Notes what came of going behind the bridge at `place` in the list.
    fn note(&mut self, place: usize, behind: Result<Kind, Refusal>) -> Result<(), Refusal> {
        let listed = self.found.get_mut(place..).unwrap_or(&mut []);
        let Some((bridge, listed_behind)) = listed.split_first_mut() else {
            return Ok(());
        };
        match behind {
            Ok(kind) => bridge.kind = kind,
            Err(refusal @ Refusal::TooMany { .. }) => return Err(refusal),
            Err(refusal) => {
                bridge.refused = bridge.refused.or(Some(refusal));
                let refusal = Refusal::Behind { bridge: bridge.rid };
                for function in listed_behind {
                    function.refused = function.refused.or(Some(refusal));
                }
            }
        }
        Ok(())
    }

    /// Goes behind the bridge `rid`.
    fn behind(&mut self, bus: Bus, rid: Rid, end: u8) -> Result<Kind, Refusal> {
        let (secondary, subordinate) = match self.numbering {
            Numbering::Firmware => self.numbers_of(rid, end)?,
            Numbering::Ours => (self.next_number(rid, end)?, end),
        };
        let behind = bus.behind(self.ecam, rid, secondary)?;
        self.last = secondary;
        if let Numbering::Firmware = self.numbering {
            self.bus(behind, subordinate)?;
            self.last = subordinate;
        } else {
            // Open to the end while looking, then closed behind the last bus that was found.
            self.set_numbers(rid, (bus.number, secondary, end))?;
            self.bus(behind, end)?;
            self.set_numbers(rid, (bus.number, secondary, self.last))?;
        }
        Ok(Kind::Bridge {
            secondary,
            subordinate: self.last,
        })
    }

    /// Firmware's numbers, looked at again: the bridge may have changed its mind.
    fn numbers_of(&self, rid: Rid, end: u8) -> Result<(u8, u8), Refusal> {
        let (_, secondary, subordinate) = bus_numbers(self.ecam, rid)?;
        if secondary > self.last && secondary <= subordinate && subordinate <= end {
            Ok((secondary, subordinate))
        } else {
            Err(Refusal::NoBusNumber { rid })
        }
    }

    fn next_number(&self, rid: Rid, end: u8) -> Result<u8, Refusal> {
        match self.last.checked_add(1) {
            Some(next) if next <= end => Ok(next),
            _ => Err(Refusal::NoBusNumber { rid }),
        }
    }

    fn set_numbers(
        &self,
        rid: Rid,
        (primary, secondary, subordinate): (u8, u8, u8),
    ) -> Result<(), Refusal> {
        let value = u32::from_le_bytes([primary, secondary, subordinate, 0]);
        self.ecam.write_checked(rid, BUS_NUMBERS, value, 0xff_ffff)
    }
}
