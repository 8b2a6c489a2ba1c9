//! Contexts come and go; spaces are released; tags are used again.

use super::*;

/// Two spaces come, each with an ASID of its own.
pub(crate) fn two_spaces_come(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    sibling(driver, &world, s1_page).map(|_| ())
}

/// A space of stage 1 is unbound; its tables and pages are given back; the device fires on.
pub(crate) fn a_context_goes(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    keep_firing(&world.device, Some(PASID), VA);
    driver.unbind(&world.binding, VMID, Atc::Unused, &world.frames())?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// A space is bound in a leaf; it goes, then the leaf.
pub(crate) fn a_leaf_goes(driver: &mut Driver) -> Told {
    let shape = Shape {
        has_leaves: true,
        ..STAGE1
    };
    let world = contexts(driver, shape)?;
    driver.unbind(&world.binding, VMID, Atc::Unused, &world.frames())?;
    driver.remove_leaf(world.table, PASID >> 6, &[STREAM])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// Two streams use one table of contexts; a space in it goes.
pub(crate) fn a_shared_context_goes(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    driver.publish_ste(OTHER_STREAM, &words::ste_stage1(VMID, world.table))?;
    let other = driver.device(OTHER_STREAM);
    let end = fire(&other, Some(PASID), VA);
    expect_landing(driver, end);
    driver.unbind_shared(&world.binding, OTHER_STREAM, VMID, &world.frames())?;
    let end = fire(&other, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// A living context no longer records its faults: one word.
pub(crate) fn a_context_changes(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    let word0 = bench::cd(world.space.asid, world.space.root)[0] & !words::cd::R;
    driver.change_cd(&world.binding, VMID, word0)?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_landing(driver, end);
    Ok(())
}

/// A context gets another ASID and another root: not possible in one word.
pub(crate) fn a_context_moves(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    let new = driver.space(VMID, 2, None);
    let frame = driver.frames(12);
    driver.map(&new, VA, s1_page(frame));
    driver.unbind(&world.binding, VMID, Atc::Unused, &[])?;
    driver.bind(STREAM, world.table, PASID, &new)?;
    driver.free(&world.frames());
    let end = fire(&world.device, Some(PASID), VA);
    expect_landing(driver, end);
    Ok(())
}

/// A nested space is released while its device fires.
pub(crate) fn a_space_is_released(driver: &mut Driver) -> Told {
    let world = contexts(driver, NESTED)?;
    keep_firing(&world.device, Some(PASID), VA);
    driver.release(&world.space, Atc::Unused, &[])?;
    for _ in 0..3 {
        driver.pass();
    }
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// The same with a space that two streams were bound to.
pub(crate) fn a_space_of_two_streams_is_released(driver: &mut Driver) -> Told {
    let world = contexts(driver, NESTED)?;
    let other = second_stream(driver, &world)?;
    driver.release(&world.space, Atc::Unused, &[])?;
    for device in [&world.device, &other] {
        let end = fire(device, Some(PASID), VA);
        expect_abort(driver, end);
    }
    Ok(())
}

/// One of two streams loses a space that lives on.
pub(crate) fn one_of_two_bindings_goes(driver: &mut Driver) -> Told {
    let world = contexts(driver, NESTED)?;
    let other = second_stream(driver, &world)?;
    driver.unbind(&world.binding, VMID, Atc::Unused, &[])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    let end = fire(&other, Some(PASID), VA);
    expect_landing(driver, end);
    Ok(())
}

/// A space whose pages are global is released.
pub(crate) fn a_space_with_global_pages_is_released(driver: &mut Driver) -> Told {
    let shape = Shape {
        descriptor: s1_global_page,
        ..NESTED
    };
    let world = contexts(driver, shape)?;
    driver.release(&world.space, Atc::Unused, &[])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// A space is released while a sibling with global pages lives.
pub(crate) fn a_space_beside_global_pages_is_released(driver: &mut Driver) -> Told {
    let world = contexts(driver, NESTED)?;
    driver.unmap(&world.space, VA, 1, Atc::Unused, &[])?;
    sibling(driver, &world, s1_global_page)?;
    driver.release(&world.space, Atc::Unused, &[])?;
    let end = fire(&world.device, Some(OTHER_PASID), VA);
    expect_landing(driver, end);
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// A space whose translations are in a device's ATC is released.
pub(crate) fn a_space_in_an_atc_is_released(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    driver.release(&world.space, Atc::Used, &[])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// The same with a device that asks at once for what was invalidated.
pub(crate) fn a_space_in_an_eager_atc_is_released(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    use frame::control::{ATS, EAGER, ENABLE};
    world.device.write32(frame::CONTROL, ENABLE | ATS | EAGER);
    driver.release(&world.space, Atc::Used, &[])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// An ASID is given to another space.
pub(crate) fn an_asid_is_used_again(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    let (vmid, asid) = (VMID, world.space.asid);
    driver.unbind_only(&world.binding)?;
    driver.take_tag(nh_all(VMID), Claim::AsidTaken { vmid, asid })
}

/// A VMID is given to another guest.
pub(crate) fn a_vmid_is_used_again(driver: &mut Driver) -> Told {
    plain(driver)?;
    driver.retract_ste_only(STREAM)?;
    driver.take_tag(s12_vmall(VMID), Claim::VmidTaken { vmid: VMID })
}

/// A SubstreamID is given to another space, while its old translations were in an ATC.
pub(crate) fn a_pasid_is_used_again(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    driver.unbind(&world.binding, VMID, Atc::Unused, &[])?;
    let flush = words::atc_inv_all(STREAM, Some(PASID));
    let claim = Claim::PasidTaken {
        smmu: 0,
        stream: STREAM,
        substream: PASID,
    };
    driver.take_tag(flush, claim)?;
    let new = driver.space(VMID, 2, world.guest.as_ref());
    let frame = driver.frames(12);
    if let Some(guest) = &world.guest {
        driver.map_same(guest, frame);
    }
    driver.map(&new, VA, s1_page(frame));
    driver.bind(STREAM, world.table, PASID, &new)?;
    let mark = driver.machine.record().mark();
    let end = fire(&world.device, Some(PASID), VA);
    expect_landing(driver, end);
    let landed = driver.machine.record().landed_since(mark);
    let is_new = landed.iter().all(|landing| landing.pa & !0xfff == frame);
    driver.expect(is_new, "a write went where the old space leads");
    Ok(())
}
