//! Checks of the stream table and of the gate.

use super::bench::Bench;
use super::dma::Dma;
use super::page::Page;
use super::{Failure, Rig};
use crate::addr::{Iova, Ipa, Pa};
use crate::hw::Platform;
use crate::id::StreamId;
use crate::spec::event::EventKind;

/// An address at which a guest sees the page at `pa`: the same, so that traffic that passes the
/// SMMU untranslated would hit it too.
const fn one_to_one(pa: Pa) -> Ipa {
    Ipa::new(pa.as_u64())
}

const fn untranslated(pa: Pa) -> Iova {
    Iova::new(pa.as_u64())
}

/// A stream that nobody published aborts, and is named: without an array of entries, and with one.
pub(super) fn unbound_aborts<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    // Of one array with the device's; whether it is any device's does not matter.
    let neighbour = StreamId::new(device.stream().as_u32() ^ 1);
    let bench = Bench::new(rig)?;
    let page = Page::new(rig.platform())?;
    bench.is_blocked(device, untranslated(page.pa()), &page)?;
    if rig.has_arrays() {
        bench.event(device.stream(), "C_BAD_STREAMID", |event| {
            event.kind == EventKind::BadStreamid
        })?;
    } else {
        expect_bad_ste(&bench, device)?;
    }
    rig.sabotage();
    bench.publish(neighbour)?;
    bench.is_blocked(device, untranslated(page.pa()), &page)?;
    expect_bad_ste(&bench, device)?;
    let knocks = bench.smmu.knocks();
    if !knocks
        .streams()
        .any(|knock| knock.stream == device.stream() && knock.attempts >= 2)
    {
        return Err(Failure::Not("the stream is among those that knocked"));
    }
    bench.close(&[neighbour])?;
    page.free();
    Ok(())
}

fn expect_bad_ste<P: Platform<Registers: Clone>>(
    bench: &Bench<'_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    bench.event(device.stream(), "C_BAD_STE", |event| {
        event.kind == EventKind::BadSte
    })
}

/// Streams under two L1 descriptors, the second made when its first stream is published; until then
/// that stream has no entry at all.
pub(super) fn two_levels<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    near: &dyn Dma<P>,
    far: &dyn Dma<P>,
) -> Result<(), Failure> {
    let bench = Bench::new(rig)?;
    let page = Page::new(rig.platform())?;
    let ipa = Ipa::new(0x1000_0000);
    bench.map(ipa, &page)?;
    let before = bench.smmu.size_bytes();
    bench.publish(near.stream())?;
    bench.lands(near, ipa, &page, 0x7777)?;
    let one_array = bench.smmu.size_bytes();
    bench.is_blocked(far, Iova::new(ipa.as_u64()), &page)?;
    bench.event(far.stream(), "C_BAD_STREAMID", |event| {
        event.kind == EventKind::BadStreamid
    })?;
    rig.sabotage();
    bench.publish(far.stream())?;
    bench.lands(far, ipa, &page, 0x8888)?;
    if one_array <= before || bench.smmu.size_bytes() <= one_array {
        return Err(Failure::Not("the table grows at each first stream"));
    }
    bench.close(&[near.stream(), far.stream()])?;
    page.free();
    Ok(())
}

/// After shutting down nothing passes; after taking over again what is published does.
pub(super) fn shutdown_aborts<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let page = Page::new(rig.platform())?;
    for value in [0x9999, 0xaaaa] {
        let bench = Bench::new(rig)?;
        bench.map(one_to_one(page.pa()), &page)?;
        bench.publish(device.stream())?;
        bench.lands(device, one_to_one(page.pa()), &page, value)?;
        bench.close(&[device.stream()])?;
        let before = page.first();
        device.write(rig.platform(), (untranslated(page.pa())).into(), !value)?;
        if page.first() != before {
            return Err(Failure::Landed { at: page.pa() });
        }
    }
    page.free();
    Ok(())
}
