//! Of hardware that does not confirm. The faults are put in behind the SMMU that no other guest's
//! story depends on.

use portcullis_guest::{Code, Counter, Error, Fence};

use super::lives::are_nobodys;
use crate::calls::{self, EL2};
use crate::device::{Device, SmmuFault};
use crate::pages::PAGE;
use crate::process::Process;
use crate::story::{Stage, Told, Trouble};
use crate::{arch, ensure};

/// Within this EL2 has proof of what it had lost.
const RECOVERY_US: u64 = 2_000_000;
/// Longer than EL2 waits for a SYNC.
const TOO_LATE_US: u32 = 1_500_000;
/// No operation takes more SYNCs.
const MOST_SYNCS: u32 = 4;

/// What is done while no SYNC completes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Bind,
    Invalidate,
    Unbind,
    Release,
}

const STEPS: [Step; 4] = [Step::Bind, Step::Invalidate, Step::Unbind, Step::Release];

/// A device that does not stall, behind the last SMMU.
fn victim(stage: &Stage) -> Result<&Device, Trouble> {
    let devices = stage.with_pasids().filter(|it| !it.can_stall);
    devices.max_by_key(|it| it.unit).ok_or(Trouble::Skipped(
        "no device with PASIDs that does not stall",
    ))
}

pub(super) fn sync_never_comes(stage: &Stage) -> Told {
    let device = victim(stage)?;
    let elsewhere = stage.with_pasids().find(|it| it.unit != device.unit);
    let Some(elsewhere) = elsewhere else {
        return Err(Trouble::Skipped("one SMMU alone"));
    };
    for step in STEPS {
        let mut unconfirmed = 0;
        for after in 0..MOST_SYNCS {
            let is_over = !never(stage, (device, elsewhere), step, after)?;
            if is_over {
                break;
            }
            unconfirmed += 1;
        }
        ensure!(unconfirmed != 0, "{step:?} waits for no SYNC");
        ensure!(
            unconfirmed < MOST_SYNCS,
            "{step:?} waits for {MOST_SYNCS} SYNCs"
        );
    }
    Ok(())
}

/// Plays one step where no SYNC completes after so many; `false` if it does not take so many.
fn never(stage: &Stage, on: (&Device, &Device), step: Step, after: u32) -> Result<bool, Trouble> {
    let (device, elsewhere) = on;
    stage.attach(device)?;
    stage.attach(elsewhere)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let (other, _) = process.page();
    let space = process.memory.space()?;
    let number = space.pasid.number;
    let handle = match step {
        Step::Bind => None,
        _ => Some(calls::bind(space, device)?),
    };
    if handle.is_some() {
        stage.reaches(device, number, va, 1)?;
    }
    device.put_in(SmmuFault::SyncNever { after });
    let gone = match step {
        Step::Invalidate => process.memory.unmap(other),
        _ => None,
    };
    let mut bound = handle;
    let outcome = match (step, handle) {
        (Step::Bind, _) => calls::bind(space, device).map(|new| bound = Some(new)),
        (Step::Invalidate, _) => calls::invalidate(space, other, PAGE),
        (Step::Unbind, Some(handle)) => {
            bound = None;
            EL2.unbind(handle)
        }
        (Step::Unbind, None) => Ok(()),
        (Step::Release, _) => process.memory.release(),
    };
    let refused = outcome.as_ref().err().copied();
    if let Some(why) = refused {
        is_stopped(&why)?;
        // Whatever it was bound to, nothing of it reaches memory now.
        let watch = device.watch(number);
        for place in [va, other] {
            stage.is_blocked(device, number, place)?;
        }
        watch.quiet(stage.number, 2);
        // The other SMMU works on.
        let mut another = Process::new();
        let (own, _) = another.page();
        let file = another.open(elsewhere)?;
        let its = another.number()?;
        stage.lands(elsewhere, its, own, 2)?;
        drop(file);
        another.exit()?;
    }
    device.put_in(SmmuFault::None);
    if let Some(page) = gone {
        crate::pages::put_back(page);
    }
    if refused.is_some() {
        is_recovered(stage, device)?;
    }
    if let Some(handle) = bound {
        EL2.unbind(handle)?;
    }
    process.exit()?;
    // Everything comes back: detached it is anew, if it was cut off.
    for device in [device, elsewhere] {
        let detached = EL2.detach(device.id);
        let is_named = match detached {
            Ok(()) => true,
            Err(why) => why.code() == Some(Code::NotAttached),
        };
        ensure!(
            is_named,
            "device {} does not detach: {detached:?}",
            device.id.0
        );
    }
    Ok(refused.is_some())
}

/// It says that hardware did not confirm, and that something was found to stop it.
fn is_stopped(why: &Error) -> Told {
    ensure!(why.code() == Some(Code::NotConfirmed), "refused with {why}");
    ensure!(
        !matches!(why.fence(), None | Some(Fence::Failed)),
        "nothing stopped it: {why}"
    );
    Ok(())
}

/// Waits for EL2's proof, and has the device back.
fn is_recovered(stage: &Stage, device: &Device) -> Told {
    let mut last = Ok(());
    let is_back = arch::within(RECOVERY_US, || {
        arch::pause(1000);
        last = EL2.device_reset(device.id);
        last.is_ok()
    });
    ensure!(
        is_back,
        "device {} does not come back: {last:?}",
        device.id.0
    );
    let is_proven = arch::within(RECOVERY_US, || {
        arch::pause(1000);
        EL2.stats(Counter::Lost).is_ok_and(|lost| lost == 0)
    });
    ensure!(is_proven, "what was lost is never proven");
    stage.read_all_faults()
}

pub(super) fn late_sync(stage: &Stage) -> Told {
    let device = victim(stage)?;
    stage.attach(device)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let file = process.open(device)?;
    let number = process.number()?;
    stage.lands(device, number, va, 1)?;
    device.put_in(SmmuFault::SyncLate {
        after: 0,
        us: TOO_LATE_US,
    });
    let released = process.memory.release();
    let Err(why) = released else {
        return Err(Trouble::failed(format_args!("a late SYNC is waited for")));
    };
    is_stopped(&why)?;
    let watch = device.watch(number);
    stage.is_blocked(device, number, va)?;
    // Until there is proof the number is nobody's, and the pages are not reused.
    drop(file);
    let taken = crate::memory::Memory::new().space_as(portcullis_guest::Ask::Exactly(number));
    stage.is_refused(Code::PasidTaken, taken, "a number without proof")?;
    arch::pause(TOO_LATE_US.into());
    stage.is_blocked(device, number, va)?;
    watch.quiet(stage.number, 2);
    is_recovered(stage, device)?;
    let pages = process.exit()?;
    are_nobodys(&pages)?;
    stage.heir_of(number)?.exit()?;
    Ok(())
}
