//! Streams that change owners under real devices.

use super::bench::{Bench, map};
use super::dma::Dma;
use super::nvme::{NvmeFunction, Pages, Shared};
use super::page::Page;
use super::{Failure, Rig};
use crate::addr::{Iova, Ipa};
use crate::hw::Platform;
use crate::id::StreamId;
use crate::smmu::StreamError;
use crate::space::handover::{DeviceCaches, GiveError, NotReset, Quiet, Reset, stop};
use crate::space::stage2::Stage2;

const SHARED: [Ipa; 3] = [
    Ipa::new(0x1000_0000),
    Ipa::new(0x2_0020_3000),
    Ipa::new(0x7f_ffff_f000),
];

const fn iova(ipa: Ipa) -> Iova {
    Iova::new(ipa.as_u64())
}

fn give<P: Platform>(quiet: Quiet<'_, '_, P>, to: &Stage2<'_, P>) -> Result<Reset, Failure> {
    match quiet.give(&to.walk()) {
        Ok(given) => Ok(given.reset),
        Err(GiveError::Lost(error)) => Err(error.into()),
        Err(GiveError::Unwalkable { why, .. }) => Err(StreamError::Unwalkable(why).into()),
    }
}

/// What was the old owner's to reach is never reached again once its stream was handed over, and
/// the same address leads to the new owner's memory.
///
/// An edu has no reset: the board allows that, and what comes of it says so.
pub(super) fn between_two_stage2s<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let [at, ..] = SHARED;
    let bench = Bench::new(rig)?;
    let (old_page, new_page) = (Page::new(rig.platform())?, Page::new(rig.platform())?);
    let mut new = bench.another_guest()?;
    bench.map(at, &old_page)?;
    map(&mut new, at, &new_page)?;
    bench.publish(device.stream())?;
    bench.lands(device, at, &old_page, 0xa1a1)?;
    rig.sabotage();

    let streams = [device.stream()];
    let stopped = stop(&bench.smmu, &streams, DeviceCaches::None)?;
    bench.is_blocked(device, iova(at), &old_page)?;
    let (quiet, reset) = match device.without_reset() {
        Some(because) => {
            let quiet = stopped
                .without_reset(because)
                .map_err(|_| Failure::Not("a device without ATS can go on without a reset"))?;
            (quiet, Reset::Omitted { because })
        }
        None => {
            let quiet = stopped
                .reset(|| device.reset(rig.platform()))
                .map_err(|NotReset { error, .. }| error)?;
            (quiet, Reset::Done)
        }
    };
    if give(quiet, &new)? != reset {
        return Err(Failure::Not("a hand-over says what became of the device"));
    }
    old_page.reset();
    bench.lands(device, at, &new_page, 0xb2b2)?;
    if !old_page.is_untouched() {
        return Err(Failure::Reached {
            at: old_page.pa(),
            because: bench.explain(device.stream(), iova(at)),
        });
    }
    bench.no_event()?;
    close(bench, new, &streams)?;
    old_page.free();
    new_page.free();
    Ok(())
}

/// An NVMe controller that its owner left enabled: a function level reset takes its queues away.
pub(super) fn of_nvme<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    function: &NvmeFunction<'_>,
) -> Result<(), Failure> {
    let NvmeFunction {
        driver: nvme,
        stream,
        ecam,
        rid,
    } = function;
    let (stream, rid) = (*stream, *rid);
    let bench = Bench::new(rig)?;
    let (old_pages, new_pages) = (three(rig)?, three(rig)?);
    let mut new = bench.another_guest()?;
    for (at, (old_page, new_page)) in SHARED.iter().zip(old_pages.iter().zip(&new_pages)) {
        bench.map(*at, old_page)?;
        map(&mut new, *at, new_page)?;
    }
    bench.publish(stream)?;
    let explained = |error| bench.nvme_failure(stream, SHARED.map(iova), error);
    nvme.identify_and_stay(rig.platform(), shared(&old_pages))
        .map_err(explained)?;

    let streams = [stream];
    let stopped = stop(&bench.smmu, &streams, DeviceCaches::None)?;
    let quiet = stopped
        .reset(|| ecam.reset(rid, rig.platform()))
        .map_err(|NotReset { error, .. }| error)?;
    if nvme.is_enabled() {
        return Err(Failure::Not("a reset controller is disabled"));
    }
    old_pages.iter().for_each(Page::reset);
    give(quiet, &new)?;
    ecam.enable_bus_master(rid)?;
    nvme.identify(rig.platform(), shared(&new_pages))
        .map_err(explained)?;
    let mut pages = SHARED.iter().zip(&old_pages);
    if let Some((at, page)) = pages.find(|(_, page)| !page.is_untouched()) {
        return Err(Failure::Reached {
            at: page.pa(),
            because: bench.explain(stream, iova(*at)),
        });
    }
    bench.no_event()?;
    close(bench, new, &streams)?;
    old_pages.into_iter().chain(new_pages).for_each(Page::free);
    Ok(())
}

fn three<'p, P: Platform>(rig: &Rig<'_, '_, 'p, P>) -> Result<[Page<'p, P>; 3], Failure> {
    let page = || Page::new(rig.platform());
    Ok([page()?, page()?, page()?])
}

fn shared<'a, P: Platform>(pages: &'a [Page<'_, P>; 3]) -> Pages<'a> {
    let [submission, completion, data] = [0, 1, 2].map(|i: usize| Shared {
        frames: pages[i].frames(),
        iova: iova(SHARED[i]),
    });
    Pages {
        submission,
        completion,
        data,
    }
}

/// The new owner goes too, before the old one.
fn close<'p, P: Platform<Registers: Clone>>(
    bench: Bench<'p, P>,
    new: Stage2<'p, P>,
    streams: &[StreamId],
) -> Result<(), Failure> {
    bench.smmu.retract(streams)?;
    bench.end(new)?;
    bench.close(&[])
}
