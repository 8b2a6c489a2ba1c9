//! A check of transactions that stall, and of their answers.

use super::address_space::va;
use super::bench::Bench;
use super::dma::Place;
use super::dma_test::{DmaTest, Ended, Tally};
use super::page::Page;
use super::pasid_guest::{Attached, Behind, PasidGuest, pasid};
use super::{Failure, Rig};
use crate::addr::{Iova, Ipa};
use crate::hw::{Platform, wait_until};
use crate::id::Pasid;
use crate::spec::cd::Faults;
use crate::spec::command::ResumeAction;
use crate::spec::event::EventKind;
use crate::spec::stage1::PageAccess;

const FIRST: Ipa = Ipa::new(0x3000_0000);
const PASID: Pasid = pasid(3);
/// How long an answered transaction may take to its end.
const END_TIMEOUT_US: u64 = 100_000;

const fn at(number: u64) -> Place {
    Place::of(PASID, va(number))
}

/// The check's guest, its one device and its one page.
struct Stage<'a, 'd, 'm, 'p, P: Platform> {
    guest: &'a PasidGuest<'p, P>,
    attached: &'a Attached<'d, 'm, 'p, P>,
    page: &'a Page<'p, P>,
}

impl<P: Platform<Registers: Clone>> Stage<'_, '_, '_, '_, P> {
    /// Has the device write at page `number`, which nothing is mapped at, and wants that to stall;
    /// gives how the device's accesses had ended before.
    fn stalls(&self, number: u64, value: u16) -> Result<Tally, Failure> {
        let device = self.attached.device;
        let before = device.tally();
        match device.send(self.page.platform(), at(number), value)? {
            Ended::Stalled => Ok(before),
            _ => Err(Failure::Not("an access without a mapping stalls")),
        }
    }

    /// Waits for the event of a stall at `iova`; its tag.
    fn tag(&self, iova: Iova) -> Result<u16, Failure> {
        let tag = core::cell::Cell::new(None);
        let stream = self.attached.device.stream();
        let wanted = "F_TRANSLATION of stage 1 that stalls";
        self.guest.bench.event(stream, wanted, |event| {
            tag.set(event.stall_tag());
            event.substream == Some(PASID.substream())
                && tag.get().is_some()
                && matches!(event.kind, EventKind::Translation(fault) if fault.address == iova)
        })?;
        tag.get().ok_or(Failure::NoEvent { wanted })
    }

    fn answer(&self, tag: u16, action: ResumeAction) -> Result<(), Failure> {
        let answer = (self.attached.device.stream(), tag, action);
        Ok(self.guest.bench.smmu.resume([answer].into_iter())?)
    }

    /// Waits until no access of the device is stalled; how its accesses have ended now.
    fn ended(&self) -> Result<Tally, Failure> {
        let device = self.attached.device;
        wait_until(self.page.platform(), END_TIMEOUT_US, || {
            (device.tally().pending == 0).then_some(())
        })
        .map_err(|_| Failure::Not("an answered access ends"))?;
        Ok(device.tally())
    }
}

/// An access without a mapping stalls, and its event says so. Answered with a retry once there is a
/// mapping it lands; answered with an abort it does not. What is stalled when its space is released,
/// whether the guest has seen the event or not, is aborted, and lands nowhere even if there is a
/// mapping by then.
pub(super) fn stall_and_resume<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &DmaTest<'_>,
) -> Result<(), Failure> {
    let guest = PasidGuest::new(Bench::new(rig)?)?;
    let attached = guest.attach_whole(device, Behind::First)?;
    let space = guest.space(0, 0)?;
    let page = Page::new(rig.platform())?;
    guest.bench.map(FIRST, &page)?;
    guest.bind((&attached, PASID), &space, Faults::Stall)?;
    let stage = Stage {
        guest: &guest,
        attached: &attached,
        page: &page,
    };

    let before = stage.stalls(5, 0x7001)?;
    let tag = stage.tag(va(5))?;
    space.map(5, FIRST, PageAccess::ReadWrite);
    stage.answer(tag, ResumeAction::Retry)?;
    let after = stage.ended()?;
    if after.done != before.done.wrapping_add(1) || page.first() & 0xffff_ffff != 0x7001 {
        return Err(Failure::Not("an access that is tried again lands"));
    }

    page.reset();
    let before = stage.stalls(6, 0x7002)?;
    let tag = stage.tag(va(6))?;
    stage.answer(tag, ResumeAction::Abort)?;
    let after = stage.ended()?;
    if after.aborted != before.aborted.wrapping_add(1) || !page.is_untouched() {
        return Err(Failure::Not(
            "an access that is answered with an abort aborts",
        ));
    }

    let before = stage.stalls(7, 0x7003)?;
    let seen = stage.tag(va(7))?;
    stage.stalls(8, 0x7004)?;
    guest.release(&[(&attached, PASID)])?;
    for number in [7, 8] {
        space.map(number, FIRST, PageAccess::ReadWrite);
    }
    guest.abort_stalls((&attached, PASID), &[seen])?;
    let after = stage.ended()?;
    if after.aborted != before.aborted.wrapping_add(2) || !page.is_untouched() {
        return Err(Failure::Not(
            "what is stalled when its space goes is aborted",
        ));
    }
    guest.aborts(&attached, at(5), &page)?;
    guest.detach(attached)?;
    guest.close()?;
    space.free();
    page.free();
    Ok(())
}
