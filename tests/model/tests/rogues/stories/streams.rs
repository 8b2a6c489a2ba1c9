//! Streams come, change, move and go.

use super::*;

/// Only brings the SMMU up.
pub(crate) fn nothing(_driver: &mut Driver) -> Told {
    Ok(())
}

/// A stream comes and works.
pub(crate) fn a_stream_comes(driver: &mut Driver) -> Told {
    plain(driver).map(|_| ())
}

/// A stream loses its guest; stage 2 and pages are given back; the device fires on.
pub(crate) fn a_stream_goes(driver: &mut Driver) -> Told {
    let Plain {
        guest,
        pages,
        device,
    } = plain(driver)?;
    keep_firing(&device, None, pages);
    let mut frees = [guest.root, guest.level2, guest.level3].map(page).to_vec();
    frees.push((pages, 4 * PAGE));
    driver.retract_ste(STREAM, VMID, &frees)?;
    let end = fire(&device, None, pages);
    expect_abort(driver, end);
    Ok(())
}

/// A stream goes; one barrier makes entry and command visible together.
pub(crate) fn a_stream_goes_by_one_barrier(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    driver.retract_ste_by_one_barrier(STREAM)?;
    let end = fire(&world.device, None, world.pages);
    // What the TLB holds may still be there; the entry is not.
    expect_abort(driver, end);
    Ok(())
}

/// A stream of stage 1 goes, with its context table, its space and its pages.
pub(crate) fn a_stream_with_contexts_goes(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    keep_firing(&world.device, Some(PASID), VA);
    let ContextTable::Linear(table) = world.table else {
        return Ok(());
    };
    let mut frees = vec![page(table)];
    frees.extend(world.frames());
    driver.retract_ste(STREAM, VMID, &frees)?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// An array of streams is linked, used, emptied and given back.
pub(crate) fn an_array_goes(driver: &mut Driver) -> Told {
    driver.add_array(STREAM >> 6)?;
    let world = plain(driver)?;
    driver.retract_ste(STREAM, VMID, &[])?;
    driver.remove_array(STREAM >> 6)?;
    let end = fire(&world.device, None, world.pages);
    expect_abort(driver, end);
    Ok(())
}

/// A stream moves from one stage 2 to another of the same VMID.
pub(crate) fn a_stream_moves(driver: &mut Driver) -> Told {
    let new = driver.guest(VMID);
    let world = plain(driver)?;
    let old = world.guest;
    driver.expect([new.root, old.root] == ROOTS, "the roots are elsewhere");
    let frame = driver.frames(12);
    driver.map_stage2(&new, world.pages, frame);
    driver.retract_ste(STREAM, VMID, &[])?;
    driver.publish_ste(STREAM, &ste_stage2(VMID, new.root))?;
    driver.free(&[
        page(old.root),
        page(old.level2),
        page(old.level3),
        (world.pages, 4 * PAGE),
    ]);
    let mark = driver.machine.record().mark();
    let end = fire(&world.device, None, world.pages);
    expect_landing(driver, end);
    let landed = driver.machine.record().landed_since(mark);
    let is_new = landed.iter().all(|landing| landing.pa & !0xfff == frame);
    driver.expect(is_new, "a write went where the old stage 2 leads");
    Ok(())
}

/// The memory attributes of a live stream change: one word.
pub(crate) fn a_stream_changes(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    let word1 = ste_stage2(VMID, world.guest.root)[1];
    // SHCFG from incoming to inner shareable.
    driver.change_ste(STREAM, 1, word1 | 3 << 44)?;
    let end = fire(&world.device, None, world.pages);
    expect_landing(driver, end);
    Ok(())
}

/// Two guests come, each with a stream and a VMID of its own.
pub(crate) fn two_guests_come(driver: &mut Driver) -> Told {
    plain(driver)?;
    let guest = driver.guest(VMID + 1);
    driver.publish_ste(OTHER_STREAM, &ste_stage2(guest.vmid, guest.root))
}

/// A guest comes with a stream of stage 2, and the host with one of stage 1.
pub(crate) fn a_guest_and_the_host_come(driver: &mut Driver) -> Told {
    plain(driver)?;
    let table = driver.context_table(false);
    driver.publish_ste(OTHER_STREAM, &words::ste_stage1(VMID + 1, table))
}

/// A stream whose accesses to what is not mapped stall, and one that does.
fn with_a_stall(driver: &mut Driver) -> Result<Arc<Device>, Trouble> {
    let guest = driver.guest(VMID);
    let mut ste = ste_stage2(VMID, guest.root);
    // S2S.
    ste[2] |= 1 << 57;
    driver.publish_ste(STREAM, &ste)?;
    let device = driver.device(STREAM);
    let end = fire(&device, None, VA);
    driver.expect(end == End::Stalled, "the access did not stall");
    Ok(device)
}

fn expect_no_stall(driver: &mut Driver, device: &Device) {
    for _ in 0..10 {
        driver.pass();
    }
    let pending = device.read32(frame::PENDING);
    driver.expect(pending == 0, "an access is still stalled");
}

/// A stream goes while an access of it is stalled.
pub(crate) fn a_stream_with_a_stall_goes(driver: &mut Driver) -> Told {
    let device = with_a_stall(driver)?;
    driver.end_stalls(STREAM)?;
    expect_no_stall(driver, &device);
    Ok(())
}

/// A stalled access is ended by its tag; its stream lives on.
pub(crate) fn a_stall_is_answered(driver: &mut Driver) -> Told {
    let device = with_a_stall(driver)?;
    driver.pass();
    let event = driver.take_event();
    driver.expect(event.is_some(), "a stall was not told");
    let stag = event.map_or(0, |words| words[1] as u16);
    driver.answer_stall(STREAM, stag)?;
    expect_no_stall(driver, &device);
    Ok(())
}
