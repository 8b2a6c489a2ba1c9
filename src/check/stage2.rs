//! Checks of stage 2 under real devices.

use super::bench::Bench;
use super::dma::Dma;
use super::nvme::{NvmeFunction, Pages, Shared};
use super::page::{PAGE_BYTES, Page};
use super::{Failure, Rig};
use crate::addr::{Iova, Ipa};
use crate::hw::Platform;
use crate::spec::event::{Class, Event, EventKind};

const FIRST: Ipa = Ipa::new(0x1000_0000);
const SECOND: Ipa = Ipa::new(0x2_0020_3000);
const THIRD: Ipa = Ipa::new(0x7f_ffff_f000);
/// Where more of it is lent, in one piece.
const LENT: Ipa = Ipa::new(0x3_4000_0000);

const fn iova(ipa: Ipa) -> Iova {
    Iova::new(ipa.as_u64())
}

/// DMA through stage 2 lands where the tables say, for addresses in three corners of them.
pub(super) fn dma<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let bench = Bench::new(rig)?;
    bench.publish(device.stream())?;
    for (ipa, value) in [(FIRST, 0x1111), (SECOND, 0x2222), (THIRD, 0x3333)] {
        let page = Page::new(rig.platform())?;
        bench.map(ipa, &page)?;
        bench.lands(device, ipa, &page, value)?;
        bench.unmap(ipa)?;
        page.free();
    }
    bench.close(&[device.stream()])
}

fn is_translation_fault(event: &Event, ipa: Ipa) -> bool {
    matches!(event.kind, EventKind::Translation(fault)
        if !fault.access.is_read
            && fault.address == iova(ipa)
            && fault.stage2_ipa == Some(ipa)
            && fault.class == Class::In
            && fault.stall_tag.is_none())
}

/// DMA to an address without a mapping is blocked, and the event says whose it was and why.
pub(super) fn fault_decoded<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let bench = Bench::new(rig)?;
    let page = Page::new(rig.platform())?;
    bench.map(FIRST, &page)?;
    bench.publish(device.stream())?;
    device.write(rig.platform(), (iova(SECOND)).into(), 0x1234)?;
    bench.event(
        device.stream(),
        "F_TRANSLATION of stage 2 by a write",
        |event| is_translation_fault(event, SECOND),
    )?;
    bench.lands(device, FIRST, &page, 0x4444)?;
    bench.close(&[device.stream()])?;
    page.free();
    Ok(())
}

/// After an unmap returned, the page that DMA reached before is reached no more.
pub(super) fn unmap_blocks<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let bench = Bench::new(rig)?;
    let page = Page::new(rig.platform())?;
    bench.map(FIRST, &page)?;
    bench.publish(device.stream())?;
    bench.lands(device, FIRST, &page, 0x5555)?;
    bench.unmap(FIRST)?;
    bench.is_blocked(device, iova(FIRST), &page)?;
    bench.event(
        device.stream(),
        "F_TRANSLATION of stage 2 by a write",
        |event| is_translation_fault(event, FIRST),
    )?;
    bench.close(&[device.stream()])?;
    page.free();
    Ok(())
}

/// After a page was made read-only a write to it is blocked, and then a read brings its contents.
pub(super) fn protect_read_only<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let bench = Bench::new(rig)?;
    let (page, copy) = (Page::new(rig.platform())?, Page::new(rig.platform())?);
    bench.map(FIRST, &page)?;
    bench.map(SECOND, &copy)?;
    bench.publish(device.stream())?;
    bench.lands(device, FIRST, &page, 0x6666)?;
    bench.protect(FIRST)?;
    bench.is_blocked(device, iova(FIRST), &page)?;
    bench.event(
        device.stream(),
        "F_PERMISSION of stage 2 by a write",
        |event| {
            matches!(event.kind, EventKind::Permission { fault, .. }
            if !fault.access.is_read && fault.stage2_ipa == Some(FIRST))
        },
    )?;
    device.copy(rig.platform(), iova(FIRST), iova(SECOND), 8)?;
    if copy.first() != page.first() {
        return Err(Failure::ReadOther {
            found: copy.first(),
        });
    }
    bench.close(&[device.stream()])?;
    page.free();
    copy.free();
    Ok(())
}

/// How much is lent to the controller beside its pages, and taken away in one change.
const LENT_BYTES: u64 = 8 << 20;

/// An NVMe controller fetches a command, and writes data and completion, through stage 2; then its
/// memory is taken away.
pub(super) fn nvme_identify<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    nvme: &NvmeFunction<'_>,
) -> Result<(), Failure> {
    let stream = nvme.stream;
    let bench = Bench::new(rig)?;
    let pages = [FIRST, SECOND, THIRD].map(|ipa| (ipa, Page::new(rig.platform())));
    let [(_, submission), (_, completion), (_, data)] = pages;
    let (submission, completion, data) = (submission?, completion?, data?);
    for (ipa, page) in [(FIRST, &submission), (SECOND, &completion), (THIRD, &data)] {
        bench.map(ipa, page)?;
    }
    bench.publish(stream)?;
    let shared = |ipa, frames| Shared {
        frames,
        iova: iova(ipa),
    };
    let addresses = [FIRST, SECOND, THIRD].map(iova);
    nvme.driver
        .identify(
            rig.platform(),
            Pages {
                submission: shared(FIRST, submission.frames()),
                completion: shared(SECOND, completion.frames()),
                data: shared(THIRD, data.frames()),
            },
        )
        .map_err(|error| bench.nvme_failure(stream, addresses, error))?;
    for at in (0..LENT_BYTES).step_by(PAGE_BYTES as usize) {
        bench.map(Ipa::new(LENT.as_u64() + at), &data)?;
    }
    bench.unmap_range(LENT, LENT_BYTES)?;
    bench.close(&[stream])?;
    for page in [submission, completion, data] {
        page.free();
    }
    Ok(())
}
