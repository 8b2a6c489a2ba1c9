//! A guest for the checks whose devices say, by PASID, whose address an address is.

use core::cell::{Cell, RefCell};

use super::Failure;
use super::address_space::AddressSpace;
use super::bench::{self, Bench};
use super::dma::Place;
use super::dma_test::{DmaTest, Ended};
use super::guest::{WINDOW, WINDOW_BYTES};
use super::page::{PAGE_BYTES, Page};
use crate::addr::Ipa;
use crate::discover::List;
use crate::hw::Platform;
use crate::id::{Asid, Pasid};
use crate::smmu::{
    Assignment, Context, ContextShape, Contexts, Flush, PendingRelease, Releasing, Smmu,
    invalidate_with,
};
use crate::space::nesting::Nesting;
use crate::space::window::Window;
use crate::spec::cd::Faults;
use crate::spec::command::ResumeAction;
use crate::spec::stage1::PageAccess;
use crate::spec::ste::{Ats, CdFormat, Untagged};

/// Where the guest's memory has the tables of its first address space; of each other one, so much
/// further on.
const TABLES: u64 = 0x2000_0000;
const TABLES_BYTES: u64 = 0x1_0000;
/// The tag of its first address space.
const FIRST_ASID: u16 = 9;
/// As many contexts as a device gets, if it and its SMMU have so many: a few leaves full.
const LOG2_CONTEXTS: u8 = 9;
/// Stalls that one release answers.
const MAX_STALLS: usize = 8;
const TOO_MANY_STALLS: Failure = Failure::Not("a release has room for all that stalled");

/// The PASID with this number, which is one.
pub(super) const fn pasid(number: u32) -> Pasid {
    match Pasid::new(number) {
        Some(pasid) => pasid,
        None => panic!("1 to 2^20 - 1"),
    }
}

/// Behind which SMMU of the bench a device is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    First,
    Second,
}

/// A device of the guest's, with a context for each PASID.
pub(super) struct Attached<'d, 'm, 'p, P: Platform> {
    pub(super) device: &'d DmaTest<'m>,
    behind: Behind,
    log2_contexts: u8,
    contexts: Contexts<'p, P>,
    ats: Cell<Ats>,
}

impl<P: Platform> Attached<'_, '_, '_, P> {
    /// The highest PASID that has a context.
    pub(super) const fn last(&self) -> Pasid {
        pasid((1 << self.log2_contexts) - 1)
    }

    const fn context_of(pasid: Pasid) -> Context {
        Context::Substream(pasid.substream())
    }
}

/// A device, and the PASID by which it uses an address space.
pub(super) type Binding<'a, 'd, 'm, 'p, P> = (&'a Attached<'d, 'm, 'p, P>, Pasid);

/// A guest whose devices use address spaces by PASID.
pub(super) struct PasidGuest<'p, P: Platform> {
    pub(super) bench: Bench<'p, P>,
    window: RefCell<Window<'p, P>>,
}

impl<'p, P: Platform<Registers: Clone>> PasidGuest<'p, P> {
    /// A guest on the SMMUs of `bench`, without devices yet.
    pub(super) fn new(bench: Bench<'p, P>) -> Result<Self, Failure> {
        let window = {
            let stage2 = &mut bench.stage2.borrow_mut();
            Window::new(bench.platform, stage2, WINDOW, WINDOW_BYTES)?
        };
        Ok(Self {
            bench,
            window: RefCell::new(window),
        })
    }

    /// Address space number `number` of the guest; `asid` is that of another number if it takes
    /// over a tag.
    pub(super) fn space(&self, number: u16, asid: u16) -> Result<AddressSpace<'p, P>, Failure> {
        let at = Ipa::new(TABLES + u64::from(number) * TABLES_BYTES);
        let stage2 = &mut self.bench.stage2.borrow_mut();
        AddressSpace::new(
            self.bench.platform,
            stage2,
            at,
            Asid::new(FIRST_ASID + asid),
        )
    }

    /// Gives the guest `page` as its memory at `ipa`, and maps page number `number` of `space` to it.
    pub(super) fn give(
        &self,
        space: &AddressSpace<'p, P>,
        number: u64,
        (ipa, page): (Ipa, &Page<'_, P>),
    ) -> Result<(), Failure> {
        self.bench.map(ipa, page)?;
        space.map(number, ipa, PageAccess::ReadWrite);
        Ok(())
    }

    fn smmu(&self, behind: Behind) -> Result<&Smmu<'p, P>, Failure> {
        match behind {
            Behind::First => Ok(&self.bench.smmu),
            Behind::Second => self
                .bench
                .second
                .as_ref()
                .ok_or(Failure::Missing("second SMMU")),
        }
    }

    /// Calls `act` with the guest as its changes need it.
    fn nesting<T>(&self, act: impl FnOnce(&mut Nesting<'_, 'p, P>) -> T) -> T {
        let first = &self.bench.smmu;
        let both = [first, self.bench.second.as_ref().unwrap_or(first)];
        act(&mut Nesting {
            stage2: &mut self.bench.stage2.borrow_mut(),
            window: &mut self.window.borrow_mut(),
            smmus: &both[..1 + usize::from(self.bench.second.is_some())],
        })
    }

    /// Gives the guest `device`, with contexts of at most `2^log2_contexts` PASIDs in `format`;
    /// what it does without a PASID aborts.
    pub(super) fn attach<'d, 'm>(
        &self,
        device: &'d DmaTest<'m>,
        behind: Behind,
        (log2_contexts, format): (u8, CdFormat),
    ) -> Result<Attached<'d, 'm, 'p, P>, Failure> {
        let smmu = self.smmu(behind)?;
        let features = smmu.features();
        let log2_contexts = log2_contexts
            .min(features.substream_bits)
            .min(device.pasid_bits());
        let shape = ContextShape::BySubstream {
            log2_contexts,
            format: if features.has_two_level_cds {
                format
            } else {
                CdFormat::Linear
            },
            untagged: Untagged::Abort,
        };
        let stream = device.stream();
        let contexts = self.nesting(|it| it.attach(smmu, &[stream], &shape))?;
        Ok(Attached {
            device,
            behind,
            log2_contexts,
            contexts,
            ats: Cell::new(Ats::Off),
        })
    }

    /// As [`attach`](Self::attach), with as many PASIDs as fill several leaves.
    pub(super) fn attach_whole<'d, 'm>(
        &self,
        device: &'d DmaTest<'m>,
        behind: Behind,
    ) -> Result<Attached<'d, 'm, 'p, P>, Failure> {
        self.attach(device, behind, (LOG2_CONTEXTS, CdFormat::Leaves4K))
    }

    /// Lets a device use `space`.
    pub(super) fn bind(
        &self,
        (to, pasid): Binding<'_, '_, '_, 'p, P>,
        space: &AddressSpace<'p, P>,
        faults: Faults,
    ) -> Result<(), Failure> {
        let smmu = self.smmu(to.behind)?;
        let (context, how) = (Attached::<P>::context_of(pasid), (space.walk(), faults));
        Ok(self.nesting(|it| it.publish_context(smmu, &to.contexts, context, how))?)
    }

    /// Lets a device ask for translations and keep them, or ends that: then it has dropped all.
    pub(super) fn set_ats(&self, of: &Attached<'_, '_, 'p, P>, ats: Ats) -> Result<(), Failure> {
        let smmu = self.smmu(of.behind)?;
        let walk = self.bench.stage2.borrow().walk();
        smmu.amend(&[Assignment::Nested {
            contexts: &of.contexts,
            walk,
            ats,
        }])?;
        of.ats.set(ats);
        if ats == Ats::Off {
            let forget = smmu.atc_inv_everything(of.device.stream());
            smmu.wait(smmu.submit_then_sync(forget)?)?;
        }
        Ok(())
    }

    /// Takes the guest's page at `ipa` away: when it returns neither an SMMU nor `of`, the one device
    /// that may, holds a translation that leads there.
    pub(super) fn unmap(&self, ipa: Ipa, of: &Attached<'_, '_, 'p, P>) -> Result<(), Failure> {
        let (first, its) = (&self.bench.smmu, self.smmu(of.behind)?);
        let smmus = [first].into_iter().chain(self.bench.second.as_ref());
        let mut stage2 = self.bench.stage2.borrow_mut();
        let change = stage2.unmap(ipa, PAGE_BYTES)?;
        let stream = of.device.stream();
        let tables = invalidate_with(smmus, change, |smmu| {
            let is_its = core::ptr::eq(smmu, its);
            let forget = is_its.then(|| smmu.atc_inv_everything(stream));
            forget.into_iter().flatten()
        })
        .map_err(|refused| Failure::Command(refused.error))?;
        stage2
            .reclaim(tables)
            .map_err(|_| Failure::Not("its own stage 2 takes the tables back"))
    }

    /// Takes a space away from all devices that use it: every CD quieted, then one train for each
    /// SMMU, and none waited for before all were submitted to.
    ///
    /// `CFGI_CD × N, SYNC, NH_ALL, SYNC [, ATC_INV × M, SYNC]`. On success no transaction of it
    /// reaches memory; those that had stalled are to be [aborted](Self::abort_stalls).
    pub(super) fn release(&self, bindings: &[Binding<'_, '_, '_, 'p, P>]) -> Result<(), Failure> {
        let contexts = bindings.iter().map(|(from, pasid)| Releasing {
            contexts: &from.contexts,
            context: Attached::<P>::context_of(*pasid),
            has_ats: from.ats.get() != Ats::Off,
        });
        let flush = Flush::Vmid(self.bench.stage2.borrow().vmid());
        let (first, second) = (&self.bench.smmu, self.bench.second.as_ref());
        first.quiet_stores(contexts.clone());
        second.inspect(|it| it.quiet_stores(contexts.clone()));
        let pending = first.begin_release(contexts.clone(), flush);
        let second = second.map(|it| it.begin_release(contexts.clone(), flush));
        pending.finish()?;
        Ok(second.map_or(Ok(()), PendingRelease::finish)?)
    }

    /// Answers what had stalled of a binding that was released, each with an abort: what is in
    /// `seen`, and what is in the event queue still, which is emptied.
    pub(super) fn abort_stalls(
        &self,
        (from, pasid): Binding<'_, '_, '_, 'p, P>,
        seen: &[u16],
    ) -> Result<(), Failure> {
        let smmu = self.smmu(from.behind)?;
        let stream = from.device.stream();
        let mut tags = List::<u16, MAX_STALLS>::new();
        for tag in seen {
            tags.push(*tag).map_err(|_| TOO_MANY_STALLS)?;
        }
        // Records of what stalled before are in the queue when a SYNC completes (§4.7.3).
        smmu.wait(smmu.submit(&[&[]])?)?;
        let mut fits = true;
        smmu.service(u32::MAX, |event| {
            let is_its = event.stream == stream && event.substream == Some(pasid.substream());
            if let (true, Some(tag)) = (is_its, event.stall_tag()) {
                fits &= tags.push(tag).is_ok();
            }
        });
        if !fits {
            return Err(TOO_MANY_STALLS);
        }
        let answers = tags.iter().map(|tag| (stream, *tag, ResumeAction::Abort));
        Ok(smmu.resume(answers)?)
    }

    /// Ends the context of a binding that was released: its number can be another's.
    pub(super) fn retract(&self, (from, pasid): Binding<'_, '_, '_, 'p, P>) -> Result<(), Failure> {
        let context = Attached::<P>::context_of(pasid);
        Ok(self
            .smmu(from.behind)?
            .retract_context(&from.contexts, context)?)
    }

    /// Has the device write `value` at `place`, and wants to find it in `page`.
    pub(super) fn reaches(
        &self,
        by: &Attached<'_, '_, 'p, P>,
        place: Place,
        page: &Page<'_, P>,
        value: u16,
    ) -> Result<(), Failure> {
        let smmu = self.smmu(by.behind)?;
        bench::reaches(smmu, self.bench.platform, by.device, place, page, value)
    }

    /// Has the device write at `place`, and wants `page` to stay as it was and the device to be told.
    pub(super) fn aborts(
        &self,
        by: &Attached<'_, '_, 'p, P>,
        place: Place,
        page: &Page<'_, P>,
    ) -> Result<(), Failure> {
        let (smmu, platform) = (self.smmu(by.behind)?, self.bench.platform);
        bench::is_blocked(smmu, platform, by.device, place, page)?;
        match by.device.last_end() {
            Some(Ended::Aborted) => Ok(()),
            _ => Err(Failure::Not("a device is told that its access aborted")),
        }
    }

    /// Takes the device away again.
    pub(super) fn detach(&self, attached: Attached<'_, '_, 'p, P>) -> Result<(), Failure> {
        let smmu = self.smmu(attached.behind)?;
        Ok(self.nesting(|it| it.detach(smmu, attached.contexts))?)
    }

    /// Ends the guest, which has no devices any more, and shuts the SMMUs down.
    pub(super) fn close(self) -> Result<(), Failure> {
        let Self { bench, window } = self;
        let closed = window.into_inner().close(&mut bench.stage2.borrow_mut());
        if closed.is_err() {
            return Err(Failure::Not("the window is empty at the end"));
        }
        bench.close(&[])
    }
}
