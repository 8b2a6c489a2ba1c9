//! What a guest's memory is to devices: its stage 2, and the window of CDs in it.
//!
//! # Locks
//!
//! A guest's memory is locked while its tables are changed, never across a wait. It may be locked
//! inside a device's contexts, for a leaf; nothing is locked inside it.

use super::error::{Quantity, SpaceError};
use super::settings::GuestConfig;
use super::stage2::{Reclaim, Stage2, Stage2Config, Stage2Error};
use super::window::{Unsealed, Window, WindowError};
use crate::hw::{NoTables, Platform};
use crate::id::Vmid;
use crate::smmu::{Detached, Features, Sealed, Unsynced};
use crate::spec::vmsa::Stage2Walk;

/// The stage 2 of one guest, and its window.
pub(super) struct Memory<'p, P: Platform> {
    pub(super) stage2: Stage2<'p, P>,
    window: Window<'p, P>,
}

impl<'p, P: Platform> Memory<'p, P> {
    /// Tables that map nothing, that every SMMU of `features` can walk.
    pub(super) fn new<'f>(
        platform: &'p P,
        config: &GuestConfig,
        vmid: Vmid,
        features: impl Iterator<Item = (super::SmmuId, &'f Features)>,
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
        for (smmu, features) in features {
            stage2
                .fit(features)
                .map_err(|why| SpaceError::Unwalkable { smmu, why })?;
        }
        let mut stage2 = Stage2::new(platform, stage2).map_err(SpaceError::of_stage2)?;
        let made = Window::new(platform, &mut stage2, config.window, config.window_bytes);
        match made {
            Ok(window) => Ok(Self { stage2, window }),
            Err(why) => {
                // Nobody ever walked it.
                stage2.dismantle().open().free();
                Err(SpaceError::of_window(why))
            }
        }
    }

    pub(super) const fn walk(&self) -> Stage2Walk {
        self.stage2.walk()
    }

    /// Takes memory and shows it in the window.
    pub(super) fn seal(&mut self, log2_bytes: u8) -> Result<Sealed, SpaceError> {
        self.window
            .seal(&mut self.stage2, log2_bytes)
            .map_err(SpaceError::of_window)
    }

    /// Takes memory out of the window that no SMMU looks at as configuration.
    pub(super) fn unseal(&mut self, sealed: Sealed) -> Result<Unsynced<Unsealed<'p, P>>, Sealed> {
        self.window.unseal(&mut self.stage2, sealed)
    }

    /// As [`unseal`](Self::unseal), for all memory of a device's contexts.
    pub(super) fn unseal_all(
        &mut self,
        contexts: Detached<'p, P>,
    ) -> Result<Unsynced<Unsealed<'p, P>>, Detached<'p, P>> {
        self.window.unseal_all(&mut self.stage2, contexts)
    }

    /// Makes memory again of what left the window, and that every SMMU has forgotten.
    pub(super) fn give_back(&mut self, unsealed: Unsealed<'p, P>) {
        // It is of this window: `unseal` would have refused it otherwise.
        let _ = self.window.give_back(&mut self.stage2, unsealed);
    }

    /// Takes back tables that every SMMU has forgotten.
    pub(super) fn reclaim(&mut self, tables: Reclaim<'p, P>) {
        let _ = self.stage2.reclaim(tables);
    }

    /// Keeps tables that an SMMU may still walk.
    pub(super) fn lose(&mut self, change: Unsynced<Reclaim<'p, P>>) {
        let _ = self.stage2.lose(change);
    }

    /// Gives everything back. No SMMU has anything of the VMID any more, and no CPU.
    pub(super) fn free(self) {
        let Self { mut stage2, window } = self;
        // Contexts that were lost are still sealed; the window's books stay out of use with them.
        let _ = window.close(&mut stage2);
        stage2.dismantle().open().free();
    }

    /// How many bytes are sealed in the window.
    pub(super) fn sealed_bytes(&self) -> u64 {
        self.window.sealed_pages() << self.stage2.geometry().granule().log2_bytes()
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
