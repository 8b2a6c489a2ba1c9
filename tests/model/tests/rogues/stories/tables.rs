//! Pages and tables go.

use super::*;

/// Two pages of a living space of stage 1 go.
pub(crate) fn pages_of_a_space_go(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    keep_firing(&world.device, Some(PASID), VA);
    let frees = [(world.pages, 2 * PAGE)];
    driver.unmap(&world.space, VA, 2, Atc::Unused, &frees)?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_abort(driver, end);
    }
    Ok(())
}

/// A page of a living space is exchanged for another one.
pub(crate) fn a_page_is_exchanged(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    let frame = driver.frames(12);
    driver.exchange(&world.space, VA, s1_page(frame))?;
    let mark = driver.machine.record().mark();
    let end = fire(&world.device, Some(PASID), VA);
    expect_landing(driver, end);
    let landed = driver.machine.record().landed_since(mark);
    let is_new = landed.iter().all(|landing| landing.pa & !0xfff == frame);
    driver.expect(is_new, "a write went to the old page");
    Ok(())
}

/// A level-3 table of a living space goes, its pages with it.
pub(crate) fn a_table_goes(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    driver.free_table(&world.space)?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// Two pages go from the stage 2 of a stream without stage 1.
pub(crate) fn stage_2_pages_go(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    keep_firing(&world.device, None, world.pages);
    let frees = [(world.pages, 2 * PAGE)];
    driver.unmap_stage2(&world.guest, world.pages, 2, &frees)?;
    for at in 0..4 {
        let end = fire(&world.device, None, world.pages + at * PAGE);
        if at < 2 {
            expect_abort(driver, end);
        } else {
            expect_landing(driver, end);
        }
    }
    Ok(())
}

/// The same with pages at the start of a block of level 2.
pub(crate) fn aligned_stage_2_pages_go(driver: &mut Driver) -> Told {
    let guest = driver.guest(VMID);
    let pages = driver.frames(13);
    let ipa = crate::driver::BASE;
    for at in [0, PAGE] {
        driver.map_stage2(&guest, ipa + at, pages + at);
    }
    driver.publish_ste(STREAM, &ste_stage2(VMID, guest.root))?;
    let device = driver.device(STREAM);
    for at in [0, PAGE] {
        let end = fire(&device, None, ipa + at);
        expect_landing(driver, end);
    }
    driver.unmap_stage2(&guest, ipa, 2, &[(pages, 2 * PAGE)])?;
    let end = fire(&device, None, ipa);
    expect_abort(driver, end);
    Ok(())
}

/// Pages go from stage 2 under a nested stream.
pub(crate) fn nested_pages_go(driver: &mut Driver) -> Told {
    let world = contexts(driver, NESTED)?;
    let Some(guest) = world.guest else {
        return Ok(());
    };
    keep_firing(&world.device, Some(PASID), VA);
    let frees = [(world.pages, 2 * PAGE)];
    driver.unmap_stage2(&guest, world.pages, 2, &frees)?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// Pages that a device's ATC knows go from stage 1.
pub(crate) fn pages_in_an_atc_go(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    driver.unmap(&world.space, VA, 2, Atc::Used, &[])?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_abort(driver, end);
    }
    Ok(())
}

/// The same with a device that asks at once for what was invalidated.
pub(crate) fn pages_in_an_eager_atc_go(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    use frame::control::{ATS, EAGER, ENABLE};
    world.device.write32(frame::CONTROL, ENABLE | ATS | EAGER);
    driver.unmap(&world.space, VA, 2, Atc::Used, &[])?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_abort(driver, end);
    }
    Ok(())
}

/// Pages of stage 1 alone that a device's ATC knows are unmapped and given back.
pub(crate) fn pages_in_an_atc_are_given_back(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    driver.enable_ats(STREAM, words::EATS_FULL)?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_landing(driver, end);
    }
    let frees = [(world.pages, 2 * PAGE)];
    driver.unmap(&world.space, VA, 2, Atc::Used, &frees)?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_abort(driver, end);
    }
    Ok(())
}
