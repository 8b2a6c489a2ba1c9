//! Of devices that cache translations, and do not drop them as they are told.

use portcullis_guest::{Code, Fence};

use super::lives::are_nobodys;
use crate::calls::EL2;
use crate::device::{Atc, Device};
use crate::process::Process;
use crate::story::{Stage, Told, Trouble};
use crate::{arch, ensure};

/// How late a late cache is: well within the bound of a release.
const LATE_US: u32 = 500;
/// Within this a device that was cut off is back.
const BACK_US: u64 = 2_000_000;

pub(super) fn ats_holdout(stage: &Stage) -> Told {
    let cached = stage.with_pasids().find(|it| it.has_ats);
    let Some(device) = cached else {
        return Err(Trouble::failed(format_args!(
            "no device may cache translations"
        )));
    };
    let other = stage
        .with_pasids()
        .find(|it| it.unit == device.unit && it.stream != device.stream);
    let Some(other) = other else {
        return Err(Trouble::Skipped("no other device behind the SMMU"));
    };
    for how in [Atc::Right, Atc::Late, Atc::Silent, Atc::Unsupported] {
        holds_out(stage, device, other, how)?;
    }
    Ok(())
}

fn holds_out(stage: &Stage, device: &Device, other: &Device, how: Atc) -> Told {
    stage.attach(device)?;
    stage.attach(other)?;
    device.use_ats(true);
    let mut process = Process::new();
    let (va, _) = process.page();
    let file = process.open(device)?;
    let number = process.number()?;
    stage.reaches(device, number, va, 1)?;
    ensure!(device.cached() != 0, "the device caches nothing");
    let mut sibling = Process::new();
    sibling.begin_at(8);
    let (own, _) = sibling.page();
    sibling.open(other)?;
    let its = sibling.number()?;

    device.behave(how, LATE_US);
    let released = process.memory.release();
    match (how, &released) {
        (Atc::Right | Atc::Late, Ok(())) => {}
        (Atc::Silent, Err(why)) if why.code() == Some(Code::CachesKept) => {
            let is_stopped = !matches!(why.fence(), None | Some(Fence::Failed));
            ensure!(is_stopped, "nothing stopped it: {why}");
        }
        // "Unsupported" is an answer, and no SMMU tells it from another: the device goes on with what
        // it has, which stage 2 keeps within its own guest. This one does not try.
        (Atc::Unsupported, Ok(())) => {}
        (_, other) => return Err(Trouble::failed(format_args!("{how:?}: {other:?}"))),
    }
    if how != Atc::Unsupported {
        let watch = device.watch(number);
        stage.is_blocked(device, number, va)?;
        watch.quiet(stage.number, 1);
    }
    // Others are unharmed.
    stage.lands(other, its, own, 2)?;

    device.behave(Atc::Right, 0);
    if released.is_err() || how == Atc::Unsupported {
        let is_back = arch::within(BACK_US, || {
            arch::pause(1000);
            EL2.device_reset(device.id).is_ok()
        });
        ensure!(is_back, "the device does not come back");
    }
    device.use_ats(false);
    drop(file);
    let pages = process.exit()?;
    are_nobodys(&pages)?;
    sibling.exit()?;
    stage.read_all_faults()?;
    for device in [device, other] {
        // One that was cut off is detached already.
        let _ = EL2.detach(device.id);
    }
    Ok(())
}
