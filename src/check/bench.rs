//! What every check starts from: an SMMU freshly taken over, a stage 2, pages to aim DMA at.

use core::cell::RefCell;

use super::dma::{Dma, Place};
use super::nvme::NvmeError;
use super::page::{PAGE_BYTES, Page};
use super::{Failure, Rig};
use crate::addr::{Iova, Ipa};
use crate::hw::{CpuTlb, Platform, PoolShape, wait_until};
use crate::id::{Pasid, StreamId, Vmid};
use crate::smmu::{
    Explanation, Outcome, Settings, Smmu, StreamError, Unpublished, Unsynced, invalidate,
};
use crate::space::stage2::{CpuRoot, PageSizes, Reclaim, Stage2, Stage2Config};
use crate::spec::event::Event;
use crate::spec::vmsa::{Attributes, BbmLevel, Granule, Permissions, WalkCoherency};

/// How long an event may take after the DMA that caused it.
const EVENT_TIMEOUT_US: u64 = 100_000;
/// The guest's addresses are 39 bits wide, as small a root as there is with 4 KiB pages.
const IPA_BITS: u8 = 39;
const TABLES: PoolShape = PoolShape {
    quota_pages: 64,
    log2_pages_per_chunk: 4,
};

/// An SMMU, a stage 2 that no stream uses yet, and a second SMMU where there is to be one.
pub(super) struct Bench<'p, P: Platform> {
    pub(super) platform: &'p P,
    pub(super) smmu: Smmu<'p, P>,
    pub(super) second: Option<Smmu<'p, P>>,
    pub(super) stage2: RefCell<Stage2<'p, P>>,
    cpus: CpuWalkers<'p, P>,
}

/// Tables of a guest's, of a shape that the SMMUs and the CPUs can walk.
fn guest<'p, P: Platform>(
    walkers: &CpuWalkers<'p, P>,
    smmus: [Option<&Smmu<'p, P>>; 2],
    vmid: Vmid,
) -> Result<Stage2<'p, P>, Failure> {
    let mut config = Stage2Config {
        granule: Granule::Kib4,
        ipa_bits: IPA_BITS,
        oas_bits: walkers.output_bits,
        // Of the SMMU alone: no CPU walks these tables while leaves change their size.
        bbm: BbmLevel::Level2,
        coherency: WalkCoherency::Coherent,
        tables: TABLES,
        vmid,
    };
    for smmu in smmus.into_iter().flatten() {
        config
            .fit(smmu.features())
            .map_err(|why| Failure::Stream(StreamError::Unwalkable(why)))?;
    }
    let (platform, tlb) = (walkers.platform, walkers.tlb);
    Ok(Stage2::with_cpus(platform, config, tlb, CpuRoot::Own)?)
}

/// What a stage 2 has to do with the CPUs.
struct CpuWalkers<'p, P> {
    platform: &'p P,
    output_bits: u8,
    tlb: &'p dyn CpuTlb,
}

impl<'p, P: Platform<Registers: Clone>> Bench<'p, P> {
    /// Takes over the SMMU that the devices are behind, with `settings` changed by `adjust`.
    pub(super) fn with(
        rig: &Rig<'_, '_, 'p, P>,
        adjust: impl FnOnce(&mut Settings),
    ) -> Result<Self, Failure> {
        Self::over(rig, take_over(rig, adjust)?, None)
    }

    /// Takes over the SMMUs of both.
    pub(super) fn of_two(
        rig: &Rig<'_, '_, 'p, P>,
        other: &Rig<'_, '_, 'p, P>,
    ) -> Result<Self, Failure> {
        let smmu = take_over(rig, |_| {})?;
        Self::over(rig, smmu, Some(take_over(other, |_| {})?))
    }

    fn over(
        rig: &Rig<'_, '_, 'p, P>,
        smmu: Smmu<'p, P>,
        second: Option<Smmu<'p, P>>,
    ) -> Result<Self, Failure> {
        let (devices, platform) = (rig.devices, rig.platform());
        let cpus = CpuWalkers {
            platform,
            output_bits: devices.cpu_output_bits,
            tlb: devices.cpu_tlb,
        };
        let smmus = [Some(&smmu), second.as_ref()];
        let stage2 = RefCell::new(guest(&cpus, smmus, Vmid::new(7))?);
        Ok(Self {
            platform,
            smmu,
            second,
            stage2,
            cpus,
        })
    }

    /// The stage 2 of another guest.
    pub(super) fn another_guest(&self) -> Result<Stage2<'p, P>, Failure> {
        guest(&self.cpus, [Some(&self.smmu), None], Vmid::new(8))
    }

    pub(super) fn new(rig: &Rig<'_, '_, 'p, P>) -> Result<Self, Failure> {
        Self::with(rig, |_| {})
    }

    /// Maps `page` at `ipa`, readable and writable.
    pub(super) fn map(&self, ipa: Ipa, page: &Page<'_, P>) -> Result<(), Failure> {
        map(&mut self.stage2.borrow_mut(), ipa, page)
    }

    /// Unmaps the page at `ipa`, and waits until the SMMU has forgotten it.
    pub(super) fn unmap(&self, ipa: Ipa) -> Result<(), Failure> {
        self.unmap_range(ipa, PAGE_BYTES)
    }

    /// Unmaps a range, and waits until the SMMU has forgotten it.
    pub(super) fn unmap_range(&self, ipa: Ipa, size_bytes: u64) -> Result<(), Failure> {
        let change = self.stage2.borrow_mut().unmap(ipa, size_bytes)?;
        let tables = self.confirm(change)?;
        self.reclaim(tables)
    }

    /// Leaves the page at `ipa` readable alone, and waits until the SMMU knows.
    pub(super) fn protect(&self, ipa: Ipa) -> Result<(), Failure> {
        let change = self
            .stage2
            .borrow_mut()
            .protect(ipa, PAGE_BYTES, Permissions::READ_ONLY)?;
        self.confirm(change)
    }

    /// Waits until the SMMU has forgotten what `change` took away.
    pub(super) fn confirm<T>(&self, change: Unsynced<T>) -> Result<T, Failure> {
        confirm_on(&self.smmu, self.second.as_ref(), change)
    }

    fn reclaim(&self, tables: Reclaim<'p, P>) -> Result<(), Failure> {
        let mut stage2 = self.stage2.borrow_mut();
        stage2
            .reclaim(tables)
            .map_err(|_| Failure::Not("its own stage 2 takes the tables back"))
    }

    /// Lets the traffic of `stream` through the stage 2.
    pub(super) fn publish(&self, stream: StreamId) -> Result<(), Failure> {
        let walk = self.stage2.borrow().walk();
        Ok(self.smmu.publish(&[stream], &walk)?)
    }

    /// Has `device` write `value` at `ipa`, and wants to find it in `page`.
    pub(super) fn lands(
        &self,
        device: &dyn Dma<P>,
        ipa: Ipa,
        page: &Page<'_, P>,
        value: u16,
    ) -> Result<(), Failure> {
        self.reaches(device, Iova::new(ipa.as_u64()), page, value)
    }

    /// Has `device` write `value` at `place`, and wants to find it in `page`.
    pub(super) fn reaches(
        &self,
        device: &dyn Dma<P>,
        place: impl Into<Place>,
        page: &Page<'_, P>,
        value: u16,
    ) -> Result<(), Failure> {
        reaches(&self.smmu, self.platform, device, place.into(), page, value)
    }

    /// Has `device` write at `place`, and wants `page` to stay as it was.
    pub(super) fn is_blocked(
        &self,
        device: &dyn Dma<P>,
        place: impl Into<Place>,
        page: &Page<'_, P>,
    ) -> Result<(), Failure> {
        is_blocked(&self.smmu, self.platform, device, place.into(), page)
    }

    /// Has the records of all transactions that have ended in the event queue, or lost: those of
    /// what ended before a CMD_SYNC are when it completes (§4.7.3).
    pub(super) fn settle_events(&self) -> Result<(), Failure> {
        Ok(self.smmu.wait(self.smmu.submit(&[&[]])?)?)
    }

    /// Wants that nothing faulted since events were last looked for.
    pub(super) fn no_event(&self) -> Result<(), Failure> {
        self.settle_events()?;
        let mut first = None;
        self.smmu.service(u32::MAX, |event| {
            first.get_or_insert(event);
        });
        match first {
            None => Ok(()),
            Some(found) => Err(Failure::WrongEvent {
                wanted: "none",
                found,
            }),
        }
    }

    /// What the tables say of a transaction without a SubstreamID.
    pub(super) fn explain(&self, stream: StreamId, iova: Iova) -> Explanation {
        self.smmu.explain(stream, None, iova)
    }

    /// Says of a controller that did not identify itself which of its addresses it cannot use.
    pub(super) fn nvme_failure(
        &self,
        stream: StreamId,
        addresses: [Iova; 3],
        error: NvmeError,
    ) -> Failure {
        let mut each = addresses.into_iter().map(|iova| self.explain(stream, iova));
        let because = each.find(|it| {
            !matches!(
                it.outcome,
                Outcome::Reaches {
                    can_read: true,
                    can_write: true,
                    ..
                }
            )
        });
        Failure::Nvme { error, because }
    }

    /// Waits for an event of `stream` and wants it to be what `is_wanted` says.
    pub(super) fn event(
        &self,
        stream: StreamId,
        wanted: &'static str,
        is_wanted: impl Fn(&Event) -> bool,
    ) -> Result<(), Failure> {
        let mut first = None;
        let arrived = wait_until(self.platform, EVENT_TIMEOUT_US, || {
            self.smmu.service(u32::MAX, |event| {
                if event.stream == stream && first.is_none() {
                    first = Some(event);
                }
            });
            first
        });
        match arrived {
            Ok(event) if is_wanted(&event) => Ok(()),
            Ok(found) => Err(Failure::WrongEvent { wanted, found }),
            Err(_) => Err(Failure::NoEvent { wanted }),
        }
    }

    /// Ends a guest that no stream goes through, and gives its tables back.
    pub(super) fn end(&self, guest: Stage2<'p, P>) -> Result<(), Failure> {
        if self.confirm(guest.dismantle())?.free() != 0 {
            return Err(Failure::Not("the stage 2 gives all its tables back"));
        }
        Ok(())
    }

    /// Retracts `streams`, and gives everything back.
    pub(super) fn close(self, streams: &[StreamId]) -> Result<(), Failure> {
        if !streams.is_empty() {
            self.smmu.retract(streams)?;
        }
        let change = self.stage2.into_inner().dismantle();
        if confirm_on(&self.smmu, self.second.as_ref(), change)?.free() != 0 {
            return Err(Failure::Not("the stage 2 gives all its tables back"));
        }
        self.smmu.shut_down()?;
        Ok(self.second.map_or(Ok(()), Smmu::shut_down)?)
    }
}

/// Waits until the SMMUs have forgotten what `change` took away.
fn confirm_on<'p, P: Platform, T>(
    first: &Smmu<'p, P>,
    second: Option<&Smmu<'p, P>>,
    change: Unsynced<T>,
) -> Result<T, Failure> {
    let both = [first, second.unwrap_or(first)];
    let smmus = &both[..1 + usize::from(second.is_some())];
    invalidate(smmus, change).map_err(|refused| Failure::Command(refused.error))
}

/// Takes over the SMMU of `rig`, with settings changed by `adjust`.
fn take_over<'p, P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, 'p, P>,
    adjust: impl FnOnce(&mut Settings),
) -> Result<Smmu<'p, P>, Failure> {
    let site = rig.site;
    let mut settings = Settings::new(site.last_stream);
    settings.unpublished = Unpublished::Recorded;
    adjust(&mut settings);
    let registers = site.registers.clone();
    Ok(Smmu::take_over(
        rig.platform(),
        registers,
        site.firmware,
        settings,
    )?)
}

/// Has `device`, behind `smmu`, write `value` at `place`, and wants to find it in `page`.
pub(super) fn reaches<P: Platform>(
    smmu: &Smmu<'_, P>,
    platform: &P,
    device: &dyn Dma<P>,
    place: Place,
    page: &Page<'_, P>,
    value: u16,
) -> Result<(), Failure> {
    device.write(platform, place, value)?;
    let found = page.first();
    if found & 0xffff_ffff == u64::from(value) {
        return Ok(());
    }
    Err(Failure::DidNotReach {
        at: page.pa(),
        found,
        because: explain(smmu, device, place),
    })
}

/// Has `device`, behind `smmu`, write at `place`, and wants `page` to stay as it was.
pub(super) fn is_blocked<P: Platform>(
    smmu: &Smmu<'_, P>,
    platform: &P,
    device: &dyn Dma<P>,
    place: Place,
    page: &Page<'_, P>,
) -> Result<(), Failure> {
    let before = page.first();
    device.write(platform, place, !(before as u16))?;
    if page.first() == before {
        return Ok(());
    }
    Err(Failure::Reached {
        at: page.pa(),
        because: explain(smmu, device, place),
    })
}

fn explain<P: Platform>(smmu: &Smmu<'_, P>, device: &dyn Dma<P>, place: Place) -> Explanation {
    let substream = place.pasid.map(Pasid::substream);
    smmu.explain(device.stream(), substream, place.iova)
}

/// Maps `page` at `ipa` of `stage2`, readable and writable.
pub(super) fn map<P: Platform>(
    stage2: &mut Stage2<'_, P>,
    ipa: Ipa,
    page: &Page<'_, P>,
) -> Result<(), Failure> {
    Ok(stage2.map(
        ipa,
        page.pa(),
        PAGE_BYTES,
        Attributes::MEMORY,
        PageSizes::PagesOnly,
    )?)
}
