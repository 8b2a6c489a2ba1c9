//! The SMMU itself, and its queues.

use super::*;

/// A SYNC never completes; the driver gives up.
pub(crate) fn a_sync_never_comes(driver: &mut Driver) -> Told {
    plain(driver)?;
    driver.machine.smmu(0).set_faults(Faults {
        sync_never: true,
        ..Faults::default()
    });
    let end = driver.retract_ste_only(STREAM);
    let is_named = end == Err(Trouble::NotConsumed);
    driver.expect(is_named, "the driver did not give up");
    Ok(())
}

/// The queue stops at a command that could not be fetched, and goes on.
pub(crate) fn a_command_error_is_acknowledged(driver: &mut Driver) -> Told {
    plain(driver)?;
    driver.machine.smmu(0).set_faults(Faults {
        abort_after: Some(1),
        ..Faults::default()
    });
    let end = driver.retract_ste_only(STREAM);
    let is_named = end == Err(Trouble::CommandError(2));
    driver.expect(is_named, "the queue did not stop");
    driver.acknowledge();
    driver.finish()
}

/// The SMMU goes off; without it, traffic is aborted.
pub(crate) fn the_smmu_of_a_plain_stream_goes_off(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    driver.shut_down(&[])?;
    let end = fire(&world.device, None, world.pages);
    expect_abort(driver, end);
    Ok(())
}

/// The SMMU is found working, with another's tables: it is brought up anew.
pub(crate) fn the_smmu_is_taken_over(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    driver.stop_abruptly(STREAM)?;
    driver.bring_up()?;
    let guest = world.guest;
    let mut frees = [guest.root, guest.level2, guest.level3].map(page).to_vec();
    frees.push((world.pages, 4 * PAGE));
    driver.free(&frees);
    let end = fire(&world.device, None, world.pages);
    expect_abort(driver, end);
    Ok(())
}

/// The event queue overflows, is read, and takes another record.
pub(crate) fn an_event_queue_overflows(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    for fault in 0..40 {
        let end = fire(&world.device, None, fault * PAGE);
        expect_abort(driver, end);
    }
    driver.pass();
    let is_told = driver.read(offset::EVENTQ_PROD) >> 31 == 1;
    driver.expect(is_told, "an overflow is not told");
    while driver.take_event().is_some() {}
    let flags = driver.read(offset::EVENTQ_PROD) ^ driver.read(offset::EVENTQ_CONS);
    driver.expect(flags >> 31 == 0, "an overflow is told that is over");
    Ok(())
}

/// A stream with ATS, then the SMMU goes off.
pub(crate) fn the_smmu_goes_off(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    driver.shut_down(&[STREAM])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// ATS is enabled and disabled again.
pub(crate) fn ats_comes_and_goes(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    driver.disable_ats(STREAM)?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_landing(driver, end);
    Ok(())
}

/// A device faults once; the record is read.
pub(crate) fn a_fault_is_read(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    let end = fire(&world.device, None, world.pages + 0x10_0000);
    expect_abort(driver, end);
    // A record may come later than the abort that it tells of.
    driver.pass();
    let event = driver.take_event();
    // F_TRANSLATION of this stream.
    let is_right = event.is_some_and(|words| words[0] == u64::from(STREAM) << 32 | 0x10);
    driver.expect(is_right, "the record is not the fault's");
    Ok(())
}

/// A stream goes by a train of commands that fills the queue to the last entry.
pub(crate) fn a_train_fills_the_queue(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    let frees = [page(world.guest.root)];
    driver.retract_in_a_long_train(STREAM, VMID, Step::Sync, &frees)?;
    let end = fire(&world.device, None, world.pages);
    expect_abort(driver, end);
    Ok(())
}

/// The same, and more commands follow before any of them is consumed.
pub(crate) fn a_train_overfills_the_queue(driver: &mut Driver) -> Told {
    plain(driver)?;
    driver.retract_in_a_long_train(STREAM, VMID, Step::Submit, &[])?;
    driver.retract_ste_only(OTHER_STREAM)
}
