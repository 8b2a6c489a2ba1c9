//! A check of devices that keep translations of their own (ATS).

use super::address_space::{AddressSpace, va};
use super::bench::Bench;
use super::dma::Place;
use super::dma_test::{DmaTest, Ended};
use super::page::Page;
use super::pasid_guest::{Behind, PasidGuest, pasid};
use super::{Failure, Rig};
use crate::addr::Ipa;
use crate::hw::Platform;
use crate::id::Pasid;
use crate::smmu::Features;
use crate::spec::cd::Faults;
use crate::spec::ste::Ats;

const FIRST: Ipa = Ipa::new(0x3000_0000);
const SECOND: Ipa = Ipa::new(0x2_0020_3000);
const THIRD: Ipa = Ipa::new(0x6f_ffff_f000);
const GOES: Pasid = pasid(3);
const STAYS: Pasid = pasid(4);

/// The kinds of ATS that the SMMU has for a stream with both stages.
pub(super) fn kinds(features: &Features) -> impl Iterator<Item = Ats> + '_ {
    let both = [Ats::Split, Ats::Full].into_iter();
    both.filter(|ats| features.can_ats(*ats, true).is_ok())
}

/// A device keeps translations only once it may; a page that goes is not among what it keeps then;
/// what it keeps of a space goes with the space, and nothing else goes.
pub(super) fn ats<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &DmaTest<'_>,
) -> Result<(), Failure> {
    kinds(&rig.features).try_for_each(|ats| of_kind(rig, device, ats))
}

/// Has the device write by a translation of its own, and wants to find it in `page`.
fn reaches<P: Platform>(
    device: &DmaTest<'_>,
    place: Place,
    page: &Page<'_, P>,
    value: u16,
) -> Result<(), Failure> {
    let ended = device.send_translated(page.platform(), place, value)?;
    if ended == Ended::Done && page.first() & 0xffff_ffff == u64::from(value) {
        return Ok(());
    }
    Err(Failure::Not(
        "a device reaches memory by a translation that it keeps",
    ))
}

/// Has the device write by a translation of its own, and wants `page` to stay as it was.
fn is_blocked<P: Platform>(
    device: &DmaTest<'_>,
    place: Place,
    page: &Page<'_, P>,
) -> Result<(), Failure> {
    let before = page.first();
    let ended = device.send_translated(page.platform(), place, !(before as u16))?;
    if ended == Ended::Done || page.first() != before {
        return Err(Failure::Landed { at: page.pa() });
    }
    Ok(())
}

fn holds(device: &DmaTest<'_>, count: u32) -> Result<(), Failure> {
    if device.held() == count {
        Ok(())
    } else {
        Err(Failure::Not(
            "a device keeps what it may and drops what it must",
        ))
    }
}

fn of_kind<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &DmaTest<'_>,
    kind: Ats,
) -> Result<(), Failure> {
    let guest = PasidGuest::new(Bench::new(rig)?)?;
    let attached = guest.attach_whole(device, Behind::First)?;
    let page = || Page::new(rig.platform());
    let (lost, kept, other) = (page()?, page()?, page()?);
    let (goes, stays) = (guest.space(0, 0)?, guest.space(1, 1)?);
    guest.give(&goes, 5, (FIRST, &lost))?;
    guest.give(&goes, 6, (SECOND, &kept))?;
    guest.give(&stays, 5, (THIRD, &other))?;
    guest.bind((&attached, GOES), &goes, Faults::Abort)?;
    guest.bind((&attached, STAYS), &stays, Faults::Abort)?;
    let (losing, going) = (Place::of(GOES, va(5)), Place::of(GOES, va(6)));
    let staying = Place::of(STAYS, va(5));

    is_blocked(device, going, &kept)?;
    holds(device, 0)?;
    guest.set_ats(&attached, kind)?;
    reaches(device, losing, &lost, 0x6001)?;
    reaches(device, going, &kept, 0x6002)?;
    reaches(device, staying, &other, 0x6003)?;
    holds(device, 3)?;

    guest.unmap(FIRST, &attached)?;
    holds(device, 0)?;
    lost.reset();
    is_blocked(device, losing, &lost)?;
    reaches(device, going, &kept, 0x6004)?;
    reaches(device, staying, &other, 0x6005)?;
    rig.sabotage();
    guest.release(&[(&attached, GOES)])?;
    kept.reset();
    is_blocked(device, going, &kept)?;
    is_blocked(device, losing, &lost)?;
    holds(device, 1)?;
    reaches(device, staying, &other, 0x6006)?;
    if !kept.is_untouched() || !lost.is_untouched() {
        return Err(Failure::Landed { at: kept.pa() });
    }

    guest.set_ats(&attached, Ats::Off)?;
    holds(device, 0)?;
    is_blocked(device, staying, &other)?;
    guest.reaches(&attached, staying, &other, 0x6007)?;
    guest.detach(attached)?;
    guest.close()?;
    [goes, stays].into_iter().for_each(AddressSpace::free);
    [lost, kept, other].into_iter().for_each(Page::free);
    Ok(())
}
