//! Checks of both stages together, under real devices.

use super::address_space::{NOWHERE, astray, va};
use super::dma::Dma;
use super::guest::{ASID, Guest};
use super::nvme::{NvmeFunction, Pages, Shared};
use super::page::Page;
use super::{Cpu, CpuAnswer, Failure, Rig};
use crate::addr::{Iova, Ipa, Pa};
use crate::hw::Platform;
use crate::smmu::{Context, ContextOf};
use crate::space::stage2::{PageSizes, Stage2Error};
use crate::spec::command::Command;
use crate::spec::event::{Class, EventKind, Fault};
use crate::spec::stage1::PageAccess;
use crate::spec::vmsa::{Attributes, Execute, Permissions};

const FIRST: Ipa = Ipa::new(0x3000_0000);
const SECOND: Ipa = Ipa::new(0x2_0020_3000);
const THIRD: Ipa = Ipa::new(0x6f_ffff_f000);
const PAGE_BYTES: u64 = 4096;

/// A write's fault of stage 1 at `iova`.
fn is_of_stage1(fault: &Fault, iova: Iova) -> bool {
    !fault.access.is_read
        && fault.address == iova
        && fault.stage2_ipa.is_none()
        && fault.class == Class::In
        && fault.stall_tag.is_none()
}

/// A write's fault of stage 2 at `iova`, which stage 1 led to `ipa`.
fn is_of_stage2(fault: &Fault, iova: Iova, ipa: Ipa) -> bool {
    !fault.access.is_read
        && fault.address == iova
        && fault.stage2_ipa == Some(ipa)
        && fault.class == Class::In
        && fault.stall_tag.is_none()
}

/// DMA goes where the guest's tables say, and from there where the stage 2 says; not where the
/// stage 2 alone would lead.
pub(super) fn dma<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let guest = Guest::new(rig, device.stream())?;
    let decoy = Page::new(rig.platform())?;
    for (number, ipa, value) in [
        (0, FIRST, 0x1111),
        (7, SECOND, 0x2222),
        (511, THIRD, 0x3333),
    ] {
        let page = Page::new(rig.platform())?;
        guest.give(number, ipa, &page)?;
        let stage2_alone = Ipa::new(va(number).as_u64());
        guest.bench.map(stage2_alone, &decoy)?;
        let before = decoy.first();
        guest.bench.reaches(device, va(number), &page, value)?;
        if decoy.first() != before {
            return Err(Failure::Landed { at: decoy.pa() });
        }
        guest.bench.unmap(ipa)?;
        guest.bench.is_blocked(device, va(number), &page)?;
        guest.bench.unmap(stage2_alone)?;
        page.free();
    }
    guest.close()?;
    decoy.free();
    Ok(())
}

/// What the guest's own tables refuse is blocked, and the event says that it was they.
pub(super) fn fault_stage1<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let guest = Guest::new(rig, device.stream())?;
    let page = Page::new(rig.platform())?;
    guest.bench.map(FIRST, &page)?;
    device.write(rig.platform(), (va(1)).into(), 0x1234)?;
    guest.bench.event(
        device.stream(),
        "F_TRANSLATION of stage 1 by a write",
        |event| matches!(event.kind, EventKind::Translation(fault) if is_of_stage1(&fault, va(1))),
    )?;
    guest.map(2, FIRST, PageAccess::ReadOnly);
    guest.bench.is_blocked(device, va(2), &page)?;
    guest.bench.event(
        device.stream(),
        "F_PERMISSION of stage 1 by a write",
        |event| {
            matches!(event.kind, EventKind::Permission { fault, .. }
                if is_of_stage1(&fault, va(2)))
        },
    )?;
    guest.map(3, FIRST, PageAccess::ReadWrite);
    guest.bench.reaches(device, va(3), &page, 0x4444)?;
    guest.close()?;
    page.free();
    Ok(())
}

/// What stage 2 refuses behind the guest's tables is blocked, for the access itself and for a
/// table, and the event says which IPA it was.
pub(super) fn fault_stage2<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let guest = Guest::new(rig, device.stream())?;
    let page = Page::new(rig.platform())?;
    guest.map(1, SECOND, PageAccess::ReadWrite);
    device.write(rig.platform(), (va(1)).into(), 0x1234)?;
    guest.bench.event(
        device.stream(),
        "F_TRANSLATION of stage 2 at an output of stage 1",
        |event| {
            matches!(event.kind, EventKind::Translation(fault)
                if is_of_stage2(&fault, va(1), SECOND))
        },
    )?;
    device.write(rig.platform(), (astray()).into(), 0x1234)?;
    guest.bench.event(
        device.stream(),
        "F_TRANSLATION of stage 2 at a table of stage 1",
        |event| {
            // QEMU (10.0) leaves the event's S2 clear here, and no other but this class says that it
            // was stage 2: stage 1 has no translation faults on its tables.
            matches!(event.kind, EventKind::Translation(fault)
                if fault.class == Class::Tt
                    && fault.address == astray()
                    && fault.stage2_ipa.is_none_or(|ipa| ipa == NOWHERE))
        },
    )?;
    guest.give(2, FIRST, &page)?;
    guest.bench.reaches(device, va(2), &page, 0x5555)?;
    guest.close()?;
    page.free();
    Ok(())
}

/// An NVMe controller fetches a command, and writes data and completion, through both stages.
pub(super) fn nvme_identify<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    nvme: &NvmeFunction<'_>,
) -> Result<(), Failure> {
    let guest = Guest::new(rig, nvme.stream)?;
    let page = || Page::new(rig.platform());
    let (submission, completion, data) = (page()?, page()?, page()?);
    guest.give(0, FIRST, &submission)?;
    guest.give(1, SECOND, &completion)?;
    guest.give(2, THIRD, &data)?;
    let shared = |number, frames| Shared {
        frames,
        iova: va(number),
    };
    nvme.driver.identify(
        rig.platform(),
        Pages {
            submission: shared(0, submission.frames()),
            completion: shared(1, completion.frames()),
            data: shared(2, data.frames()),
        },
    )?;
    guest.close()?;
    for page in [submission, completion, data] {
        page.free();
    }
    Ok(())
}

/// Nobody of the guest's writes to the window of CDs, and nobody reads anything else there: not a
/// device, by way of the guest's own tables, and not a CPU.
pub(super) fn window_is_sealed<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let guest = Guest::new(rig, device.stream())?;
    let copy = Page::new(rig.platform())?;
    let cd_at = Guest::<P>::cd_at();
    guest.give(0, FIRST, &copy)?;
    guest.map(1, cd_at, PageAccess::ReadWrite);
    device.write(rig.platform(), (va(1)).into(), 0xffff)?;
    guest.bench.event(
        device.stream(),
        "F_PERMISSION of stage 2 by a write",
        |event| {
            matches!(event.kind, EventKind::Permission { fault, .. }
                if is_of_stage2(&fault, va(1), cd_at))
        },
    )?;
    device.copy(rig.platform(), va(1), va(0), PAGE_BYTES)?;
    let read = copy.frames().words(rig.platform());
    let wanted = guest.cd()?;
    for (i, word) in read.iter().enumerate() {
        let found = rig.platform().load(word);
        if found != wanted.words().get(i).copied().unwrap_or(0) {
            return Err(Failure::ReadOther { found });
        }
    }
    refuses_changes(&guest, cd_at)?;
    if let Some(cpu) = rig.devices.cpu {
        cpu_is_kept_out(rig, &guest, &cpu, cd_at)?;
    }
    guest.close()?;
    copy.free();
    Ok(())
}

/// Only the window changes what is mapped in it.
fn refuses_changes<P: Platform<Registers: Clone>>(
    guest: &Guest<'_, P>,
    cd_at: Ipa,
) -> Result<(), Failure> {
    let stage2 = &mut guest.bench.stage2.borrow_mut();
    let behind = Ipa::new(cd_at.as_u64() + PAGE_BYTES);
    let writable = Permissions::READ_WRITE;
    let answers = [
        stage2.protect(cd_at, PAGE_BYTES, writable).err(),
        stage2.unmap(cd_at, PAGE_BYTES).err(),
        stage2
            .map(
                behind,
                Pa::new(0),
                PAGE_BYTES,
                Attributes::MEMORY,
                PageSizes::PagesOnly,
            )
            .err(),
    ];
    let refused = Some(Stage2Error::InWindow { window: cd_at });
    if answers == [refused; 3] {
        Ok(())
    } else {
        Err(Failure::Not("the stage 2 refuses to change the window"))
    }
}

/// Where the guest's CPU finds its two words of code.
const CODE: Ipa = Ipa::new(0x1000_0000);

/// A guest's CPU reads the window and its own memory, and writes its own memory alone.
fn cpu_is_kept_out<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    guest: &Guest<'_, P>,
    cpu: &Cpu,
    cd_at: Ipa,
) -> Result<(), Failure> {
    let code = Page::new(rig.platform())?;
    let words = code.frames().words(rig.platform());
    for (word, value) in words.iter().zip(cpu.code) {
        rig.platform().store(word, value);
    }
    rig.platform().clean(&words[..cpu.code.len()]);
    let mut executable = Attributes::MEMORY;
    executable.permissions.execute = Execute::Allowed;
    let sizes = PageSizes::PagesOnly;
    let stage2 = &guest.bench.stage2;
    stage2
        .borrow_mut()
        .map(CODE, code.pa(), PAGE_BYTES, executable, sizes)?;
    let walk = stage2.borrow().walk();
    let store = Ipa::new(CODE.as_u64() + 8);
    expect_done("a CPU reads the window", (cpu.run)(&walk, CODE, cd_at))?;
    expect_done("a CPU writes its memory", (cpu.run)(&walk, store, FIRST))?;
    expect_refused((cpu.run)(&walk, store, cd_at), cd_at)?;
    guest.bench.unmap(CODE)?;
    code.free();
    Ok(())
}

/// The exception class of ESR_EL2 (DDI 0487, D19.2.37).
const fn class_of(answer: &CpuAnswer) -> u64 {
    answer.syndrome >> 26 & 0x3f
}

fn expect_done(wanted: &'static str, answer: CpuAnswer) -> Result<(), Failure> {
    const HVC: u64 = 0x16;
    if class_of(&answer) == HVC {
        return Ok(());
    }
    Err(Failure::Cpu {
        wanted,
        syndrome: answer.syndrome,
    })
}

/// A data abort from below, by a write, for permission, at the last level, and not on the way to a
/// table.
fn expect_refused(answer: CpuAnswer, at: Ipa) -> Result<(), Failure> {
    const DATA_ABORT: u64 = 0x24;
    const S1PTW_WNR_DFSC: u64 = 0b1111_1111;
    const WRITE_PERMISSION_AT_LEVEL_3: u64 = 0b0100_1111;
    if class_of(&answer) == DATA_ABORT
        && answer.syndrome & S1PTW_WNR_DFSC == WRITE_PERMISSION_AT_LEVEL_3
        && answer.at == at
    {
        return Ok(());
    }
    Err(Failure::Cpu {
        wanted: "a CPU does not write to the window",
        syndrome: answer.syndrome,
    })
}

/// After a context was retracted its device reaches nothing, and is told; after it was quieted it
/// reaches nothing, and is not; after it was published again it does.
pub(super) fn retract_blocks<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let guest = Guest::new(rig, device.stream())?;
    let smmu = &guest.bench.smmu;
    let (context, contexts) = (Context::WholeStream, &guest.contexts);
    let page = Page::new(rig.platform())?;
    guest.give(1, FIRST, &page)?;
    guest.bench.reaches(device, va(1), &page, 0x6666)?;
    smmu.retract_context(contexts, context)?;
    guest.bench.is_blocked(device, va(1), &page)?;
    guest.bench.event(device.stream(), "C_BAD_CD", |event| {
        event.kind == EventKind::BadCd
    })?;
    guest.publish()?;
    guest.bench.reaches(device, va(1), &page, 0x7777)?;
    smmu.quiet(&[ContextOf { contexts, context }])?;
    let vmid = contexts.vmid();
    smmu.wait(smmu.submit(&[&[Command::tlbi_nh_asid(vmid, ASID)]])?)?;
    guest.bench.is_blocked(device, va(1), &page)?;
    guest.bench.no_event()?;
    smmu.retract_context(contexts, context)?;
    guest.publish()?;
    guest.bench.reaches(device, va(1), &page, 0x8888)?;
    guest.close()?;
    page.free();
    Ok(())
}
