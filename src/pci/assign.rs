//! Where BARs lie, and what bridges pass on.
//!
//! Places go out in ascending order, the largest BARs of a bus first, so that everything behind a
//! bridge is one run of addresses: what the bridge then passes on (Bridge §3.2.5.8).

use super::bar::register;
use super::config::Ecam;
use super::function::{Bar, BarWidth, Function, Kind};
use super::refusal::Refusal;
use crate::addr::{Extent, Pa};
use crate::discover::{Rid, Window, WindowKind};
use crate::hw::Registers;

const MEMORY_WINDOW: u16 = 0x20;
const PREFETCHABLE_WINDOW: u16 = 0x24;
const PREFETCHABLE_BASE_HIGH: u16 = 0x28;
const PREFETCHABLE_LIMIT_HIGH: u16 = 0x2c;
const IO_WINDOW: u16 = 0x1c;
/// The least significant bit of a prefetchable base that has an upper half.
const IS_64_BIT: u32 = 1;
/// A base above its limit: nothing is passed on.
const CLOSED: u32 = 0x0000_fff0;
/// What a bridge passes on starts and ends at multiples of 1 MiB.
const LOG2_BRIDGE_BYTES: u32 = 20;

/// Places the BARs of `functions`, all below one host bridge, and opens the bridges to them.
pub(super) fn place<R: Registers>(ecam: &Ecam<R>, windows: &[Window], functions: &mut [Function]) {
    let free = |kind| {
        let those = windows.iter().filter(|window| window.kind == kind);
        Free::of(those.max_by_key(|window| window.cpu.size_bytes()))
    };
    let mut placement = Placement {
        ecam,
        functions,
        low: free(WindowKind::Memory32),
        high: free(WindowKind::Memory64),
    };
    placement.bus(ecam.first_bus(), Reach::ROOT);
    refuse_behind_refused(functions);
}

/// Refuses what is behind a bridge that does not pass anything on.
fn refuse_behind_refused(functions: &mut [Function]) {
    for place in 0..functions.len() {
        let Some((bridge, behind)) = functions.get_mut(place..).and_then(|f| f.split_first_mut())
        else {
            return;
        };
        let Kind::Bridge {
            secondary,
            subordinate,
        } = bridge.kind
        else {
            continue;
        };
        let buses = secondary..=subordinate;
        for function in behind.iter_mut().filter(|f| buses.contains(&f.rid.bus())) {
            if bridge.refused.is_some() {
                let refusal = Refusal::Behind { bridge: bridge.rid };
                function.refused = function.refused.or(Some(refusal));
            }
        }
    }
}

/// What is still free of a window; nothing if there is no such window.
#[derive(Clone, Copy)]
struct Free {
    window: Option<Window>,
    /// The next free address, as PCI sees it.
    next: u64,
}

impl Free {
    fn of(window: Option<&Window>) -> Self {
        Self {
            window: window.copied(),
            // A BAR at 0 looks like one that has no place.
            next: window.map_or(0, |window| window.pci_base.max(1)),
        }
    }

    /// The next `size_bytes` bytes, aligned to their size.
    fn take(&mut self, size_bytes: u64) -> Option<u64> {
        let window = self.window?;
        let base = self.next.checked_next_multiple_of(size_bytes)?;
        let end = base.checked_add(size_bytes)?;
        if end - window.pci_base > window.cpu.size_bytes() {
            return None;
        }
        self.next = end;
        Some(base)
    }

    /// Goes on to the next multiple of what a bridge can tell apart.
    fn align(&mut self) {
        let next = self.next.checked_next_multiple_of(1 << LOG2_BRIDGE_BYTES);
        self.next = next.unwrap_or(u64::MAX);
    }

    /// Where the CPU sees what PCI sees at `base`.
    fn cpu(&self, base: u64, size_bytes: u64) -> Option<Extent<Pa>> {
        let window = self.window?;
        let inside = base.checked_sub(window.pci_base)?;
        Extent::<Pa>::new(window.cpu.base().checked_add(inside)?, size_bytes)
    }
}

/// How a bus is reached from the CPU.
#[derive(Clone, Copy)]
struct Reach {
    /// Whether all bridges above pass on 64-bit addresses.
    has_high: bool,
    /// Whether there are bridges above: they pass on high addresses to prefetchable BARs only.
    is_behind_bridge: bool,
}

impl Reach {
    const ROOT: Self = Self {
        has_high: true,
        is_behind_bridge: false,
    };

    fn takes_high(self, bar: &Bar) -> bool {
        bar.width == BarWidth::Bits64
            && self.has_high
            && (bar.is_prefetchable || !self.is_behind_bridge)
    }
}

struct Placement<'a, R> {
    ecam: &'a Ecam<R>,
    functions: &'a mut [Function],
    low: Free,
    high: Free,
}

impl<R: Registers> Placement<'_, R> {
    /// Places all BARs on bus `bus`, then all behind its bridges.
    fn bus(&mut self, bus: u8, reach: Reach) {
        for log2_bytes in (4..64).rev() {
            for place in 0..self.functions.len() {
                for bar in 0..6 {
                    self.bar(place, bar, bus, 1 << log2_bytes, reach);
                }
            }
        }
        for place in 0..self.functions.len() {
            let Some(function) = self.functions.get(place) else {
                continue;
            };
            let rid = function.rid;
            if let Kind::Bridge { secondary, .. } = function.kind
                && rid.bus() == bus
                && function.refused.is_none()
            {
                let opened = self.bridge(rid, secondary, reach);
                self.note(place, opened);
            }
        }
    }

    fn note(&mut self, place: usize, done: Result<(), Refusal>) {
        if let (Some(function), Err(refusal)) = (self.functions.get_mut(place), done) {
            function.refused = function.refused.or(Some(refusal));
        }
    }

    /// Places a BAR if it is on `bus` and of this size.
    fn bar(&mut self, place: usize, number: u8, bus: u8, size_bytes: u64, reach: Reach) {
        let Some(function) = self.functions.get_mut(place) else {
            return;
        };
        let rid = function.rid;
        let slot = function.bars.get_mut(usize::from(number));
        let Some(bar) = slot.and_then(|slot| slot.as_mut()) else {
            return;
        };
        if rid.bus() != bus || bar.size_bytes != size_bytes {
            return;
        }
        let free = if reach.takes_high(bar) && self.high.window.is_some() {
            &mut self.high
        } else {
            &mut self.low
        };
        let taken = free.take(size_bytes);
        let at = taken.and_then(|base| Some((base, free.cpu(base, size_bytes)?)));
        bar.at = at.map(|(_, cpu)| cpu);
        let no_room = Refusal::NoRoom {
            rid,
            bar: number,
            size_bytes,
        };
        let width = bar.width;
        let written = at
            .ok_or(no_room)
            .and_then(|(base, _)| set_bar(self.ecam, rid, number, width, base));
        self.note(place, written);
    }

    /// Places what is behind a bridge, and opens the bridge to that.
    fn bridge(&mut self, rid: Rid, secondary: u8, reach: Reach) -> Result<(), Refusal> {
        let ecam = self.ecam;
        ecam.write(rid, IO_WINDOW, CLOSED)?;
        ecam.write(rid, PREFETCHABLE_WINDOW, CLOSED)?;
        let has_high = ecam.read(rid, PREFETCHABLE_WINDOW)? & IS_64_BIT != 0;
        self.low.align();
        self.high.align();
        let (low, high) = (self.low.next, self.high.next);
        let behind = Reach {
            has_high: reach.has_high && has_high,
            is_behind_bridge: true,
        };
        self.bus(secondary, behind);
        open(ecam, rid, MEMORY_WINDOW, low, self.low.next)?;
        if has_high {
            ecam.write_checked(rid, PREFETCHABLE_BASE_HIGH, (high >> 32) as u32, u32::MAX)?;
            let last = self.high.next.saturating_sub(1);
            ecam.write_checked(rid, PREFETCHABLE_LIMIT_HIGH, (last >> 32) as u32, u32::MAX)?;
            open(ecam, rid, PREFETCHABLE_WINDOW, high, self.high.next)?;
        }
        // What a bridge passes upwards is DMA of functions behind it, which are off.
        ecam.enable_memory(rid)?;
        ecam.enable_bus_master(rid)
    }
}

/// Makes a bridge pass on the addresses from `base`, a multiple of 1 MiB, to before `end`, and what
/// is left of the last 1 MiB.
fn open<R: Registers>(
    ecam: &Ecam<R>,
    rid: Rid,
    window: u16,
    base: u64,
    end: u64,
) -> Result<(), Refusal> {
    let mask = 0xfff0_fff0;
    if base >= end {
        return ecam.write_checked(rid, window, CLOSED, mask);
    }
    let field = |address: u64| (address >> 16) as u32 & 0xfff0;
    let value = field(end - 1) << 16 | field(base);
    ecam.write_checked(rid, window, value, mask)
}

fn set_bar<R: Registers>(
    ecam: &Ecam<R>,
    rid: Rid,
    bar: u8,
    width: BarWidth,
    base: u64,
) -> Result<(), Refusal> {
    ecam.write_checked(rid, register(bar), base as u32, !0xf)?;
    match width {
        BarWidth::Bits32 => Ok(()),
        BarWidth::Bits64 => {
            ecam.write_checked(rid, register(bar + 1), (base >> 32) as u32, u32::MAX)
        }
    }
}
