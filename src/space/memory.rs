//! What a guest's memory is to devices: its stage 2, and the window of CDs in it.
//!
//! The tables are ours ([`Stage2`]), or the host's own ([`Hosted`]).
//!
//! # Locks
//!
//! A guest's memory is locked while its tables are changed, never across a wait, save while a block
//! of it is split. Nothing is locked inside it.

use super::error::{Quantity, SpaceError};
use super::hosted::Hosted;
use super::ids::SmmuId;
use super::settings::GuestConfig;
use super::stage2::{CpuRoot, Reclaim, Stage2, Stage2Config, Stage2Error};
use super::window::{Unsealed, Window, WindowError};
use crate::hw::{CpuTlb, NoTables, Platform, Slab};
use crate::id::Vmid;
use crate::smmu::{Detached, Features, Gathered, Sealed, Unsynced};
use crate::spec::vmsa::{CpuWalk, Stage2Walk};

/// The stage 2 of one guest, and its window.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each guest, in a frame of its own"
)]
pub(super) enum Memory<'p, P: Platform> {
    /// Tables of ours.
    Own(Own<'p, P>),
    /// Tables of the host's.
    Hosts(Hosted<'p, P>),
}

/// Tables of ours, and the window in them.
pub(super) struct Own<'p, P: Platform> {
    pub(super) stage2: Stage2<'p, P>,
    window: Window<'p, P>,
    /// What left the window, and was not confirmed to be forgotten: until the guest has ended.
    unconfirmed: Slab<'p, P, Unsealed<'p, P>>,
}

/// Memory that is on its way out of the window.
pub(super) enum Leaving<'p, P: Platform> {
    /// Out of tables of ours: SMMUs may have cached the way to it.
    Own(Unsealed<'p, P>),
    /// Out of a window that stays mapped as it is: nobody has to forget anything.
    One(Sealed),
    /// As [`One`](Self::One), for all memory of a device's contexts.
    All(Detached<'p, P>),
}

impl<'p, P: Platform> Memory<'p, P> {
    /// Tables that map nothing, that every SMMU of `features` can walk, and CPUs from a root of
    /// their own if they are told of changes.
    pub(super) fn new<'f>(
        platform: &'p P,
        config: &GuestConfig,
        vmid: Vmid,
        features: impl Iterator<Item = (SmmuId, &'f Features)>,
        cpus: Option<&'p dyn CpuTlb>,
    ) -> Result<Self, SpaceError> {
        let mut stage2 = Stage2Config {
            granule: config.granule,
            ipa_bits: config.ipa_bits,
            oas_bits: config.oas_bits,
            bbm: config.bbm,
            coherency: config.coherency,
            tables: config.tables,
            vmid,
        };
        let mut needs_flush = false;
        for (smmu, features) in features {
            stage2
                .fit(features)
                .map_err(|why| SpaceError::Unwalkable { smmu, why })?;
            needs_flush |= features.needs_flush_of_new_tables;
        }
        let mut stage2 = match cpus {
            Some(tlb) => Stage2::with_cpus(platform, stage2, tlb, CpuRoot::Own),
            None => Stage2::new(platform, stage2),
        }
        .map_err(SpaceError::of_stage2)?;
        if needs_flush {
            stage2 = stage2.flushing_new_tables();
        }
        let made = Window::new(platform, &mut stage2, config.window, config.window_bytes);
        match made {
            Ok(window) => Ok(Self::Own(Own {
                stage2,
                window,
                unconfirmed: Slab::new(platform),
            })),
            Err(why) => {
                // Nobody ever walked it.
                stage2.dismantle().open().free();
                Err(SpaceError::of_window(why))
            }
        }
    }

    pub(super) const fn walk(&self) -> Stage2Walk {
        match self {
            Self::Own(own) => own.stage2.walk(),
            Self::Hosts(hosted) => hosted.walk(),
        }
    }

    /// What CPUs must say to walk the tables; `None` if they are not told of changes.
    pub(super) const fn cpu_walk(&self) -> Option<CpuWalk> {
        match self {
            Self::Own(own) => own.stage2.cpu_walk(),
            Self::Hosts(_) => None,
        }
    }

    /// The tables, if they are ours to change.
    pub(super) const fn stage2(&mut self) -> Result<&mut Stage2<'p, P>, SpaceError> {
        match self {
            Self::Own(own) => Ok(&mut own.stage2),
            Self::Hosts(_) => Err(SpaceError::HostsTables),
        }
    }

    /// Refuses a window that the host did not map as it must be.
    pub(super) fn expect_window(&self) -> Result<(), SpaceError> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Hosts(hosted) => hosted.expect_mapped(),
        }
    }

    /// Takes memory and shows it in the window; it owes something only where SMMUs must be told of
    /// new tables.
    pub(super) fn seal(&mut self, log2_bytes: u8) -> Result<Unsynced<Sealed>, SpaceError> {
        match self {
            Self::Own(own) => own
                .window
                .seal_flushed(&mut own.stage2, log2_bytes)
                .map_err(SpaceError::of_window),
            Self::Hosts(hosted) => {
                let sealed = hosted.seal(log2_bytes)?;
                Ok(hosted.nothing_owed(sealed))
            }
        }
    }

    /// Takes memory out of the window that no SMMU looks at as configuration.
    pub(super) fn unseal(&mut self, sealed: Sealed) -> Option<Unsynced<Leaving<'p, P>>> {
        match self {
            Self::Own(own) => {
                let change = own.window.unseal(&mut own.stage2, sealed).ok()?;
                Some(change.map(Leaving::Own))
            }
            Self::Hosts(hosted) => Some(hosted.nothing_owed(Leaving::One(sealed))),
        }
    }

    /// As [`unseal`](Self::unseal), for all memory of a device's contexts.
    pub(super) fn unseal_all(
        &mut self,
        contexts: Detached<'p, P>,
    ) -> Option<Unsynced<Leaving<'p, P>>> {
        match self {
            Self::Own(own) => {
                let change = own.window.unseal_all(&mut own.stage2, contexts).ok()?;
                Some(change.map(Leaving::Own))
            }
            Self::Hosts(hosted) => Some(hosted.nothing_owed(Leaving::All(contexts))),
        }
    }

    /// Makes memory again of what left the window, and that every SMMU has forgotten.
    pub(super) fn give_back(&mut self, leaving: Leaving<'p, P>) {
        match (self, leaving) {
            (Self::Own(own), Leaving::Own(unsealed)) => {
                // It is of this window: `unseal` would have refused it otherwise.
                let _ = own.window.give_back(&mut own.stage2, unsealed);
            }
            (Self::Hosts(hosted), Leaving::One(sealed)) => hosted.give_back(sealed),
            (Self::Hosts(hosted), Leaving::All(mut contexts)) => {
                while let Some(leaf) = contexts.pop_leaf() {
                    hosted.give_back(leaf);
                }
                hosted.give_back(contexts.into_root());
            }
            // Another guest's: nothing is given back that nobody can vouch for.
            (Self::Own(_), Leaving::One(_) | Leaving::All(_))
            | (Self::Hosts(_), Leaving::Own(_)) => {}
        }
    }

    /// Keeps what left the window and an SMMU may still look at, until the guest has ended: that is
    /// the proof. Where there is no memory to note it in, it stays out of use for good.
    pub(super) fn keep_unconfirmed(&mut self, change: Unsynced<Leaving<'p, P>>) {
        if let (Self::Own(own), Leaving::Own(unsealed)) = (self, change.open()) {
            let _ = own.unconfirmed.insert(unsealed);
        }
    }

    /// Takes back tables that every SMMU has forgotten.
    pub(super) fn reclaim(&mut self, tables: Reclaim<'p, P>) {
        if let Self::Own(own) = self {
            let _ = own.stage2.reclaim(tables);
        }
    }

    /// Keeps tables that an SMMU may still walk.
    pub(super) fn lose(&mut self, change: Unsynced<Reclaim<'p, P>>) {
        if let Self::Own(own) = self {
            let _ = own.stage2.lose(change);
        }
    }

    /// What must be invalidated for all that the host took away in a range of its own tables.
    pub(super) fn host_changed(&self, ipa: crate::addr::Ipa, size_bytes: u64) -> Option<Gathered> {
        match self {
            Self::Own(_) => None,
            Self::Hosts(hosted) => Some(hosted.changed(ipa, size_bytes)),
        }
    }

    /// Gives everything back. No SMMU has anything of the VMID any more, and no CPU.
    pub(super) fn free(self, platform: &P) {
        match self {
            Self::Own(Own {
                mut stage2,
                mut window,
                mut unconfirmed,
            }) => {
                for slot in 0..unconfirmed.slots() {
                    let key = unconfirmed.key_at(slot);
                    if let Some(unsealed) = key.and_then(|key| unconfirmed.remove(key)) {
                        // It is of this window.
                        let _ = window.give_back(&mut stage2, unsealed);
                    }
                }
                let _ = unconfirmed.free();
                // Contexts that were lost are still sealed; the window's books stay out of use with
                // them.
                let _ = window.close(&mut stage2);
                stage2.dismantle().open().free();
            }
            Self::Hosts(hosted) => hosted.free(platform),
        }
    }

    /// How many bytes are sealed in the window.
    pub(super) fn sealed_bytes(&self) -> u64 {
        match self {
            Self::Own(own) => {
                let log2_page = own.stage2.geometry().granule().log2_bytes();
                own.window.sealed_pages() << log2_page
            }
            Self::Hosts(hosted) => hosted.sealed_bytes(),
        }
    }
}

impl SpaceError {
    pub(super) const fn of_tables(why: NoTables) -> Self {
        match why {
            NoTables::NoFrames { log2_bytes } => Self::NoFrames { log2_bytes },
            NoTables::OverQuota { .. } => Self::Quota(Quantity::Tables),
            NoTables::FramesTooHigh { .. } => Self::Stage2(Stage2Error::NoTables(why)),
        }
    }

    pub(super) const fn of_stage2(why: Stage2Error) -> Self {
        match why {
            Stage2Error::NoTables(why) => Self::of_tables(why),
            why => Self::Stage2(why),
        }
    }

    pub(super) const fn of_window(why: WindowError) -> Self {
        match why {
            WindowError::NoFrames { log2_bytes } => Self::NoFrames { log2_bytes },
            WindowError::Stage2(why) => Self::of_stage2(why),
            why => Self::Window(why),
        }
    }
}
