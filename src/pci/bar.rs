//! How large BARs are (PCI §6.2.5.1).

use super::config::Ecam;
use super::function::{Bar, BarWidth};
use super::refusal::Refusal;
use crate::discover::Rid;
use crate::hw::Registers;

pub(super) const BAR0: u16 = 0x10;

const IS_IO: u32 = 1;
const IS_PREFETCHABLE: u32 = 1 << 3;

/// The register of BAR `bar`.
pub(super) const fn register(bar: u8) -> u16 {
    BAR0 + 4 * bar as u16
}

/// Sizes the first `count` BARs of a function whose memory is off, and leaves them at 0.
pub(super) fn size_all<R: Registers>(
    ecam: &Ecam<R>,
    rid: Rid,
    count: u8,
) -> Result<[Option<Bar>; 6], Refusal> {
    let mut bars = [None; 6];
    let mut bar = 0;
    while bar < count {
        let found = size(ecam, rid, bar, count)?;
        if let Some(slot) = bars.get_mut(usize::from(bar)) {
            *slot = found;
        }
        bar += match found {
            Some(Bar {
                width: BarWidth::Bits64,
                ..
            }) => 2,
            _ => 1,
        };
    }
    Ok(bars)
}

fn size<R: Registers>(
    ecam: &Ecam<R>,
    rid: Rid,
    bar: u8,
    count: u8,
) -> Result<Option<Bar>, Refusal> {
    let low = answer(ecam, rid, bar)?;
    if low == 0 || low & IS_IO != 0 {
        return Ok(None);
    }
    let nonsense = |answer| Refusal::BarMakesNoSense { rid, bar, answer };
    let (width, high) = match low >> 1 & 3 {
        0 => (BarWidth::Bits32, u32::MAX),
        2 if bar + 1 < count => (BarWidth::Bits64, answer(ecam, rid, bar + 1)?),
        _ => return Err(nonsense(low.into())),
    };
    let mask = u64::from(high) << 32 | u64::from(low & !0xf);
    let size_bytes = (!mask).wrapping_add(1);
    // The bits that stick must be all those above the size, and there must be one.
    let is_too_large = width == BarWidth::Bits32 && size_bytes > 1 << 31;
    if !size_bytes.is_power_of_two() || is_too_large {
        return Err(nonsense(mask));
    }
    Ok(Some(Bar {
        size_bytes,
        width,
        is_prefetchable: low & IS_PREFETCHABLE != 0,
        at: None,
    }))
}

/// What the register holds after all ones were written to it; 0 is written then.
fn answer<R: Registers>(ecam: &Ecam<R>, rid: Rid, bar: u8) -> Result<u32, Refusal> {
    ecam.write(rid, register(bar), u32::MAX)?;
    let answer = ecam.read(rid, register(bar))?;
    ecam.write(rid, register(bar), 0)?;
    Ok(answer)
}
