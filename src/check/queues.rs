//! Checks of the two queues.

use super::bench::Bench;
use super::dma::Dma;
use super::page::Page;
use super::{Failure, Rig};
use crate::addr::{Iova, Ipa};
use crate::hw::Platform;
use crate::id::Vmid;
use crate::smmu::CommandError;
use crate::spec::command::Command;
use crate::spec::event::EventKind;

/// Entries of the small event queue, as a power of two.
const LOG2_EVENTS: u8 = 4;

/// With the event queue full, the loss is noticed and acknowledged, and the next fault is recorded.
pub(super) fn overflow<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let bench = Bench::with(rig, |settings| settings.log2_events = LOG2_EVENTS)?;
    bench.publish(device.stream())?;
    let unmapped = |page: u64| Iova::new(0x1000_0000 + page * 0x1000);
    for page in 0..4 << LOG2_EVENTS {
        device.write(rig.platform(), (unmapped(page)).into(), 1)?;
    }
    bench.settle_events()?;
    rig.sabotage();
    let first = bench.smmu.service(u32::MAX, |_| {});
    if !first.events.lost_events {
        return Err(Failure::Not("the loss of events is noticed"));
    }
    if first.events.events != 1 << LOG2_EVENTS {
        return Err(Failure::Not(
            "the queue holds as many events as it has entries",
        ));
    }
    let second = bench.smmu.service(u32::MAX, |_| {});
    if second.events.lost_events || second.events.events != 0 {
        return Err(Failure::Not("the loss is told once"));
    }
    let last = 0x7f_0000_0000;
    device.write(rig.platform(), (Iova::new(last)).into(), 1)?;
    bench.event(
        device.stream(),
        "F_TRANSLATION of the next fault",
        |event| {
            matches!(event.kind, EventKind::Translation(fault)
            if fault.stage2_ipa == Some(Ipa::new(last)))
        },
    )?;
    bench.close(&[device.stream()])
}

/// A reserved opcode inside a train: its issuer is told, everybody else goes on.
pub(super) fn illegal_command<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let bench = Bench::new(rig)?;
    let page = Page::new(rig.platform())?;
    let ipa = Ipa::new(0x1000_0000);
    bench.map(ipa, &page)?;
    bench.publish(device.stream())?;
    rig.sabotage();
    let harmless = Command::tlbi_s12_vmall(Vmid::new(1));
    let reserved = Command::reserved();
    let before = bench.smmu.submit(&[&[harmless]])?;
    let bad = bench.smmu.submit(&[&[harmless, reserved, harmless]])?;
    let after = bench.smmu.submit(&[&[harmless]])?;
    let told = Err(CommandError::Illegal {
        words: reserved.words(),
    });
    if bench.smmu.wait(bad) != told {
        return Err(Failure::Not("the issuer of an illegal command is told so"));
    }
    bench.smmu.wait(before)?;
    bench.smmu.wait(after)?;
    bench.lands(device, ipa, &page, 0xbbbb)?;
    bench.unmap(ipa)?;
    bench.is_blocked(device, Iova::new(ipa.as_u64()), &page)?;
    bench.close(&[device.stream()])?;
    page.free();
    Ok(())
}
