//! A guest for the checks, with one address space that one device uses for all its traffic.

use core::cell::RefCell;

use super::address_space::AddressSpace;
use super::bench::Bench;
use super::page::Page;
use super::{Failure, Rig};
use crate::addr::Ipa;
use crate::hw::Platform;
use crate::id::{Asid, StreamId};
use crate::smmu::{Context, ContextShape, Contexts};
use crate::space::nesting::Nesting;
use crate::space::window::Window;
use crate::spec::cd::{Cd, Faults};
use crate::spec::stage1::PageAccess;

/// The tag of its one address space.
pub(super) const ASID: Asid = Asid::new(9);
/// Where its memory has its tables.
const TABLES: Ipa = Ipa::new(0x2000_0000);

pub(super) const WINDOW: Ipa = Ipa::new(0x7f_0000_0000);
pub(super) const WINDOW_BYTES: u64 = 1 << 21;

/// A guest with one address space, and one device that uses it for all its traffic.
pub(super) struct Guest<'p, P: Platform> {
    pub(super) bench: Bench<'p, P>,
    window: RefCell<Window<'p, P>>,
    space: AddressSpace<'p, P>,
    pub(super) contexts: Contexts<'p, P>,
}

impl<'p, P: Platform<Registers: Clone>> Guest<'p, P> {
    /// Takes the SMMU over, and attaches `stream`.
    pub(super) fn new(rig: &Rig<'_, '_, 'p, P>, stream: StreamId) -> Result<Self, Failure> {
        let bench = Bench::new(rig)?;
        let platform = rig.platform();
        let (space, mut window) = {
            let stage2 = &mut bench.stage2.borrow_mut();
            (
                AddressSpace::new(platform, stage2, TABLES, ASID)?,
                Window::new(platform, stage2, WINDOW, WINDOW_BYTES)?,
            )
        };
        let shape = ContextShape::Single {
            walk: *space.walk(),
            faults: Faults::Abort,
        };
        let contexts = Nesting {
            stage2: &mut bench.stage2.borrow_mut(),
            window: &mut window,
            smmus: &[&bench.smmu],
        }
        .attach(&bench.smmu, &[stream], &shape)?;
        Ok(Self {
            bench,
            window: RefCell::new(window),
            space,
            contexts,
        })
    }

    /// Maps the guest's page number `number` to `to`, where nothing was.
    pub(super) fn map(&self, number: u64, to: Ipa, access: PageAccess) {
        self.space.map(number, to, access);
    }

    /// Gives the guest `page` as its memory at `ipa`, and maps page number `number` to it.
    pub(super) fn give(&self, number: u64, ipa: Ipa, page: &Page<'_, P>) -> Result<(), Failure> {
        self.bench.map(ipa, page)?;
        self.map(number, ipa, PageAccess::ReadWrite);
        Ok(())
    }

    /// Lets the device use the address space again, after it was taken away.
    pub(super) fn publish(&self) -> Result<(), Failure> {
        let no_leaf = |_| None;
        let how = (self.space.walk(), Faults::Abort);
        Ok(self
            .bench
            .smmu
            .publish_context(&self.contexts, Context::WholeStream, how, no_leaf)?)
    }

    /// The CD by which the device's traffic is translated.
    pub(super) fn cd(&self) -> Result<Cd, Failure> {
        let features = self.bench.smmu.features();
        Ok(features.cd(self.space.walk(), Faults::Abort)?)
    }

    /// Where the window has its first page, in which that CD lies.
    pub(super) const fn cd_at() -> Ipa {
        WINDOW
    }

    /// Detaches the device and gives everything back.
    pub(super) fn close(self) -> Result<(), Failure> {
        let Self {
            bench,
            window,
            space,
            contexts,
        } = self;
        let mut window = window.into_inner();
        {
            let stage2 = &mut bench.stage2.borrow_mut();
            Nesting {
                stage2,
                window: &mut window,
                smmus: &[&bench.smmu],
            }
            .detach(&bench.smmu, contexts)?;
            if window.close(stage2).is_err() {
                return Err(Failure::Not("the window is empty at the end"));
            }
        }
        bench.close(&[])?;
        space.free();
        Ok(())
    }
}
