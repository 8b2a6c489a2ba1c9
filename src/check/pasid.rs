//! Checks of address spaces by PASID.

use super::address_space::{AddressSpace, va};
use super::bench::Bench;
use super::dma::Place;
use super::dma_test::DmaTest;
use super::page::Page;
use super::pasid_guest::{Behind, PasidGuest, pasid};
use super::{Failure, Rig};
use crate::addr::Ipa;
use crate::hw::Platform;
use crate::id::Pasid;
use crate::smmu::ContextError;
use crate::space::nesting::NestingError;
use crate::spec::cd::Faults;
use crate::spec::event::{Event, EventKind};
use crate::spec::ste::CdFormat;

const FIRST: Ipa = Ipa::new(0x3000_0000);
const SECOND: Ipa = Ipa::new(0x2_0020_3000);
const THIRD: Ipa = Ipa::new(0x6f_ffff_f000);
const ONE: Pasid = pasid(1);
const TWO: Pasid = pasid(2);

fn is_of(event: &Event, pasid: Pasid) -> bool {
    event.substream == Some(pasid.substream())
}

/// Each PASID of a device leads to the pages of its own address space and to no others, and what
/// has no PASID leads nowhere.
pub(super) fn dma<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &DmaTest<'_>,
) -> Result<(), Failure> {
    let guest = PasidGuest::new(Bench::new(rig)?)?;
    let attached = guest.attach_whole(device, Behind::First)?;
    let page = || Page::new(rig.platform());
    let pages = [page()?, page()?, page()?];
    let spaces = [guest.space(0, 0)?, guest.space(1, 1)?, guest.space(2, 2)?];
    let pasids = [ONE, TWO, attached.last()];
    let ipas = [FIRST, SECOND, THIRD];
    // Number i of space i alone leads to page i.
    for (i, (space, pasid)) in spaces.iter().zip(pasids).enumerate() {
        guest.give(space, i as u64, (ipas[i], &pages[i]))?;
        guest.bind((&attached, pasid), space, Faults::Abort)?;
    }
    for (i, page) in pages.iter().enumerate() {
        let at = va(i as u64);
        for (j, pasid) in pasids.into_iter().enumerate() {
            let place = Place::of(pasid, at);
            if i == j {
                guest.reaches(&attached, place, page, 0x1111 * (i as u16 + 1))?;
            } else {
                guest.aborts(&attached, place, page)?;
                let wanted = "F_TRANSLATION of stage 1 with the PASID";
                guest.bench.event(device.stream(), wanted, |event| {
                    is_of(event, pasid)
                        && matches!(event.kind, EventKind::Translation(fault)
                            if fault.address == at && fault.stage2_ipa.is_none())
                })?;
            }
        }
        guest.aborts(&attached, at.into(), page)?;
        guest
            .bench
            .event(device.stream(), "F_STREAM_DISABLED", |event| {
                event.kind == EventKind::StreamDisabled && event.substream.is_none()
            })?;
    }
    guest.bench.no_event()?;
    guest.detach(attached)?;
    guest.close()?;
    spaces.into_iter().for_each(AddressSpace::free);
    pages.into_iter().for_each(Page::free);
    Ok(())
}

/// One address of two address spaces leads to two pages, however their turns alternate; what one
/// loses the other keeps.
pub(super) fn two_spaces_one_address<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &DmaTest<'_>,
) -> Result<(), Failure> {
    let guest = PasidGuest::new(Bench::new(rig)?)?;
    let attached = guest.attach_whole(device, Behind::First)?;
    let (one, two) = (guest.space(0, 0)?, guest.space(1, 1)?);
    let (one_page, two_page) = (Page::new(rig.platform())?, Page::new(rig.platform())?);
    guest.give(&one, 5, (FIRST, &one_page))?;
    guest.give(&two, 5, (SECOND, &two_page))?;
    guest.bind((&attached, ONE), &one, Faults::Abort)?;
    guest.bind((&attached, TWO), &two, Faults::Abort)?;
    let at = va(5);
    for turn in 0..4 {
        for (pasid, page, other) in [(ONE, &one_page, &two_page), (TWO, &two_page, &one_page)] {
            let before = other.first();
            let value = 0x2000 + turn * 16 + pasid.as_u32() as u16;
            guest.reaches(&attached, Place::of(pasid, at), page, value)?;
            if other.first() != before {
                return Err(Failure::Landed { at: other.pa() });
            }
        }
    }
    guest.bench.unmap(FIRST)?;
    guest.aborts(&attached, Place::of(ONE, at), &one_page)?;
    guest.reaches(&attached, Place::of(TWO, at), &two_page, 0x2fff)?;
    guest.detach(attached)?;
    guest.close()?;
    one.free();
    two.free();
    one_page.free();
    two_page.free();
    Ok(())
}

/// Five bits of PASID: in one table of 2 KiB, so that what lies behind it is known.
const FEW: u8 = 5;

/// A PASID that is past the table, and one that was never bound, reach nothing and are told apart;
/// nobody can bind what is past the table.
pub(super) fn out_of_range<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &DmaTest<'_>,
) -> Result<(), Failure> {
    let guest = PasidGuest::new(Bench::new(rig)?)?;
    let attached = guest.attach(device, Behind::First, (FEW, CdFormat::Linear))?;
    let space = guest.space(0, 0)?;
    let page = Page::new(rig.platform())?;
    guest.give(&space, 5, (FIRST, &page))?;
    let (inside, at) = (attached.last(), va(5));
    let outside = pasid(inside.as_u32() + 1);
    guest.bind((&attached, inside), &space, Faults::Abort)?;
    guest.reaches(&attached, Place::of(inside, at), &page, 0x3333)?;
    guest.aborts(&attached, Place::of(ONE, at), &page)?;
    guest.bench.event(device.stream(), "C_BAD_CD", |event| {
        is_of(event, ONE) && event.kind == EventKind::BadCd
    })?;
    if outside.as_u32() >> device.pasid_bits() == 0 {
        guest.aborts(&attached, Place::of(outside, at), &page)?;
        let wanted = "C_BAD_SUBSTREAMID";
        guest.bench.event(device.stream(), wanted, |event| {
            is_of(event, outside) && event.kind == EventKind::BadSubstreamid
        })?;
    }
    let refused = Failure::Nesting(NestingError::Context(ContextError::NoSuchContext));
    if guest.bind((&attached, outside), &space, Faults::Abort) != Err(refused) {
        return Err(Failure::Not("a PASID past the table is refused"));
    }
    guest.reaches(&attached, Place::of(inside, at), &page, 0x4444)?;
    guest.detach(attached)?;
    guest.close()?;
    space.free();
    page.free();
    Ok(())
}
