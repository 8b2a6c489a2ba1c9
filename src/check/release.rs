//! Checks of address spaces that are taken away while devices fire.

use super::address_space::{AddressSpace, va};
use super::bench::Bench;
use super::dma::Place;
use super::dma_test::DmaTest;
use super::page::Page;
use super::pasid_guest::{Attached, Behind, PasidGuest, pasid};
use super::{Failure, MAX_DEVICES, Rig};
use crate::addr::Ipa;
use crate::discover::List;
use crate::hw::Platform;
use crate::id::Pasid;
use crate::spec::cd::Faults;
use crate::spec::event::EventKind;

const FIRST: Ipa = Ipa::new(0x3000_0000);
const SECOND: Ipa = Ipa::new(0x2_0020_3000);
const THIRD: Ipa = Ipa::new(0x6f_ffff_f000);
const FOURTH: Ipa = Ipa::new(0x4000_0000);
const GOES: Pasid = pasid(3);
const STAYS: Pasid = pasid(4);
/// How many accesses of a device that goes on firing are waited for.
const SHOTS: u32 = 8;

type Devices<'d, 'm, 'p, P> = List<Attached<'d, 'm, 'p, P>, MAX_DEVICES>;

fn attach_all<'d, 'm, 'p, P: Platform<Registers: Clone>>(
    guest: &PasidGuest<'p, P>,
    devices: impl Iterator<Item = &'d DmaTest<'m>>,
) -> Result<Devices<'d, 'm, 'p, P>, Failure>
where
    'm: 'd,
{
    let mut attached = Devices::new();
    for device in devices {
        if attached
            .push(guest.attach_whole(device, Behind::First)?)
            .is_err()
        {
            break;
        }
    }
    Ok(attached)
}

/// After a space was released its devices reach nothing by it, though one of them never stopped
/// firing: not what was its own, and not what another space calls global. They are told and nobody
/// else is; the other space never notices. A new space with the number and the tag of the old one
/// finds nothing of it.
pub(super) fn blocks<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
) -> Result<(), Failure> {
    let guest = PasidGuest::new(Bench::new(rig)?)?;
    let devices = attach_all(&guest, rig.with_pasids())?;
    let first = devices.first().ok_or(Failure::Missing("test device"))?;
    let page = || Page::new(rig.platform());
    let (goes_page, stays_page, new_page) = (page()?, page()?, page()?);
    let global_page = page()?;
    let (goes, stays) = (guest.space(0, 0)?, guest.space(1, 1)?);
    guest.give(&goes, 5, (FIRST, &goes_page))?;
    guest.give(&stays, 5, (SECOND, &stays_page))?;
    guest.bench.map(FOURTH, &global_page)?;
    stays.map_global(7, FOURTH);
    for device in &devices {
        guest.bind((device, GOES), &goes, Faults::Abort)?;
        guest.bind((device, STAYS), &stays, Faults::Abort)?;
    }
    let (gone, staying) = (Place::of(GOES, va(5)), Place::of(STAYS, va(5)));
    for (device, value) in devices.iter().zip(0x4001..) {
        guest.reaches(device, gone, &goes_page, value)?;
        guest.reaches(device, staying, &stays_page, value)?;
    }

    first.device.keep_firing(rig.platform(), gone, 0x4100)?;
    first.device.wait_for_more(rig.platform(), SHOTS)?;
    rig.sabotage();
    release_all(&guest, &devices)?;
    goes_page.reset();
    first.device.wait_for_more(rig.platform(), SHOTS)?;
    first.device.stop_firing()?;
    for (device, value) in devices.iter().zip(0x4201..) {
        guest.aborts(device, gone, &goes_page)?;
        guest.reaches(device, staying, &stays_page, value)?;
        guest.reaches(device, Place::of(STAYS, va(7)), &global_page, value)?;
        guest.aborts(device, Place::of(GOES, va(7)), &global_page)?;
    }
    is_untouched(&goes_page)?;
    guest.bench.no_event()?;

    for device in &devices {
        guest.retract((device, GOES))?;
        guest.aborts(device, gone, &goes_page)?;
        let stream = device.device.stream();
        guest.bench.event(stream, "C_BAD_CD", |event| {
            event.kind == EventKind::BadCd && event.substream == Some(GOES.substream())
        })?;
    }
    let new = guest.space(2, 0)?;
    guest.give(&new, 6, (THIRD, &new_page))?;
    for (device, value) in devices.iter().zip(0x4301..) {
        guest.bind((device, GOES), &new, Faults::Abort)?;
        guest.reaches(device, Place::of(GOES, va(6)), &new_page, value)?;
        guest.aborts(device, gone, &goes_page)?;
    }
    is_untouched(&goes_page)?;
    detach_all(&guest, devices)?;
    guest.close()?;
    [goes, stays, new].into_iter().for_each(AddressSpace::free);
    [goes_page, stays_page, new_page, global_page]
        .into_iter()
        .for_each(Page::free);
    Ok(())
}

fn release_all<'p, P: Platform<Registers: Clone>>(
    guest: &PasidGuest<'p, P>,
    devices: &Devices<'_, '_, 'p, P>,
) -> Result<(), Failure> {
    let mut bindings = List::<_, MAX_DEVICES>::new();
    for device in devices {
        // As many as there are devices.
        let _ = bindings.push((device, GOES));
    }
    guest.release(&bindings)
}

fn detach_all<'p, P: Platform<Registers: Clone>>(
    guest: &PasidGuest<'p, P>,
    devices: Devices<'_, '_, 'p, P>,
) -> Result<(), Failure> {
    let mut devices = devices;
    while let Some(device) = devices.pop() {
        guest.detach(device)?;
    }
    Ok(())
}

fn is_untouched<P: Platform>(page: &Page<'_, P>) -> Result<(), Failure> {
    if page.is_untouched() {
        Ok(())
    } else {
        Err(Failure::Landed { at: page.pa() })
    }
}

/// A space that devices behind two SMMUs use: what it loses neither of them reaches any more, and
/// when it is released neither reaches anything, though both go on firing.
pub(super) fn two_smmus<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    other: &Rig<'_, '_, '_, P>,
) -> Result<(), Failure> {
    let missing = Failure::Missing("test device");
    let near = rig.with_pasids().next().ok_or(missing)?;
    let far = other.with_pasids().next().ok_or(missing)?;
    let guest = PasidGuest::new(Bench::of_two(rig, other)?)?;
    let devices = [
        guest.attach_whole(near, Behind::First)?,
        guest.attach_whole(far, Behind::Second)?,
    ];
    let space = guest.space(0, 0)?;
    let (lost, kept) = (Page::new(rig.platform())?, Page::new(rig.platform())?);
    guest.give(&space, 5, (FIRST, &lost))?;
    guest.give(&space, 6, (SECOND, &kept))?;
    let (losing, keeping) = (Place::of(GOES, va(5)), Place::of(GOES, va(6)));
    for (device, value) in devices.iter().zip(0x5001..) {
        guest.bind((device, GOES), &space, Faults::Abort)?;
        guest.reaches(device, losing, &lost, value)?;
        guest.reaches(device, keeping, &kept, value)?;
    }
    guest.bench.unmap(FIRST)?;
    for (device, value) in devices.iter().zip(0x5101..) {
        guest.aborts(device, losing, &lost)?;
        guest.reaches(device, keeping, &kept, value)?;
    }
    for device in &devices {
        device.device.keep_firing(rig.platform(), keeping, 0x5200)?;
        device.device.wait_for_more(rig.platform(), SHOTS)?;
    }
    let [first, second] = &devices;
    guest.release(&[(first, GOES), (second, GOES)])?;
    kept.reset();
    for device in &devices {
        device.device.wait_for_more(rig.platform(), SHOTS)?;
        device.device.stop_firing()?;
        guest.aborts(device, keeping, &kept)?;
    }
    is_untouched(&kept)?;
    for device in devices {
        guest.detach(device)?;
    }
    guest.close()?;
    space.free();
    lost.free();
    kept.free();
    Ok(())
}
