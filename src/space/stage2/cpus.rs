//! CPUs that walk the same stage 2.

use super::{Stage2, Stage2Config, Stage2Error};
use crate::addr::{Extent, Ipa};
use crate::hw::{CpuTlb, Platform, Roots};
use crate::smmu::Gathered;
use crate::spec::vmsa::{CpuWalk, Stage2Walk};

/// Which root CPUs walk from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuRoot {
    /// The devices': they see the same.
    Shared,
    /// One of their own, beside the devices'.
    Own,
}

/// As many ranges as a gathering keeps apart.
const RANGES: usize = Gathered::RANGES;

impl<'p, P: Platform> Stage2<'p, P> {
    /// As [`new`](Self::new), for CPUs too, which `tlb` tells of every change.
    ///
    /// A root of their own takes as much memory again as the devices'. `config.bbm` and
    /// `config.oas_bits` are the least of the CPUs as well.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_cpus(
        platform: &'p P,
        config: Stage2Config,
        tlb: &'p dyn CpuTlb,
        root: CpuRoot,
    ) -> Result<Self, Stage2Error> {
        let roots = match root {
            CpuRoot::Shared => Roots::One,
            CpuRoot::Own => Roots::Two,
        };
        Self::make(platform, config, roots, Some(tlb))
    }

    /// What a CPU's registers must say to walk these tables; `None` if nobody tells the CPUs of
    /// changes ([`with_cpus`](Self::with_cpus)).
    pub const fn cpu_walk(&self) -> Option<CpuWalk> {
        match self.cpus {
            Some(_) => Some(self.walk_of_cpus()),
            None => None,
        }
    }

    const fn walk_of_cpus(&self) -> CpuWalk {
        let walk = self.walk();
        CpuWalk::new(&Stage2Walk {
            root: self.tree.cpu_root_address(),
            ..walk
        })
    }

    /// Has the CPUs forget what `stale` says, if there are any.
    pub(super) fn tell_cpus(&self, stale: &Gathered) {
        let Some(cpus) = self.cpus else {
            return;
        };
        if stale.is_nothing() {
            return;
        }
        let log2_page = self.geometry().granule().log2_bytes();
        let Some(ranges) = stale.ranges() else {
            return cpus.forget(&self.walk_of_cpus(), None, log2_page);
        };
        const NONE: Option<Extent<Ipa>> = Extent::<Ipa>::new(Ipa::new(0), 0);
        let Some(none) = NONE else { return };
        let mut extents = [none; RANGES];
        for (extent, range) in extents.iter_mut().zip(ranges) {
            *extent = Extent::<Ipa>::new(range.base(), range.size_bytes()).unwrap_or(none);
        }
        cpus.forget(&self.walk_of_cpus(), extents.get(..ranges.len()), log2_page);
    }
}
