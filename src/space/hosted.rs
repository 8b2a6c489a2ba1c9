//! A guest whose stage 2 the host already has.
//!
//! The host keeps its tables and changes them as it likes; it owes us two things, and both are
//! values that it must spend:
//!
//! 1. a window: it maps, read-only and for good, the frames that [`WindowWanted`] names, and spends
//!    that on [`Iommu::window_mapped`]. Every attach walks the tables again and refuses by name if
//!    that is not so;
//! 2. what it takes away: [`Iommu::host_unmapped`] gives a [`HostChange`], and until that was spent on
//!    [`Iommu::confirm_host_change`] devices may still reach the memory.
//!
//! The window's memory is taken once, at the beginning, and never leaves the host's tables before
//! the guest ends; inside it, CDs come and go.
//!
//! A change that nobody confirmed is no value that can be used twice:
//!
//! ```compile_fail,E0382
//! # use portcullis::{hw::Platform, space::{HostChange, Iommu}};
//! fn confirm<P: Platform>(iommu: &Iommu<'_, P>, change: HostChange, other: HostChange) {
//!     let _ = iommu.confirm_host_change(change);
//!     let _ = iommu.confirm_host_change(change);
//! }
//! ```
//!
//! ```
//! # use portcullis::{hw::Platform, space::{HostChange, Iommu}};
//! fn confirm<P: Platform>(iommu: &Iommu<'_, P>, change: HostChange, other: HostChange) {
//!     let _ = iommu.confirm_host_change(change);
//!     let _ = iommu.confirm_host_change(other);
//! }
//! ```
//!
//! nor one that is forgotten, where the compiler's warning is heeded:
//!
//! ```compile_fail
//! # #![deny(unused_must_use)]
//! # use portcullis::{addr::Ipa, hw::Platform, space::{GuestId, Iommu, SpaceError}};
//! # type Done = Result<(), SpaceError>;
//! fn unmap<P: Platform>(iommu: &Iommu<'_, P>, guest: GuestId, at: Ipa) -> Done {
//!     iommu.host_unmapped(guest, at, 0x1000)?;
//!     Ok(())
//! }
//! ```
//!
//! ```
//! # #![deny(unused_must_use)]
//! # use portcullis::{addr::Ipa, hw::Platform, space::{GuestId, Iommu, SpaceError}};
//! # type Done = Result<(), SpaceError>;
//! fn unmap<P: Platform>(iommu: &Iommu<'_, P>, guest: GuestId, at: Ipa) -> Done {
//!     let _change = iommu.host_unmapped(guest, at, 0x1000)?;
//!     Ok(())
//! }
//! ```
//!
//! And what is to be mapped is spent once:
//!
//! ```compile_fail,E0382
//! # use portcullis::{hw::Platform, space::{Iommu, WindowWanted}};
//! fn mapped<P: Platform>(iommu: &Iommu<'_, P>, wanted: WindowWanted, other: WindowWanted) {
//!     let _ = iommu.window_mapped(wanted);
//!     let _ = iommu.window_mapped(wanted);
//! }
//! ```
//!
//! ```
//! # use portcullis::{hw::Platform, space::{Iommu, WindowWanted}};
//! fn mapped<P: Platform>(iommu: &Iommu<'_, P>, wanted: WindowWanted, other: WindowWanted) {
//!     let _ = iommu.window_mapped(wanted);
//!     let _ = iommu.window_mapped(other);
//! }
//! ```

use super::error::SpaceError;
use super::guest::Guest;
use super::ids::GuestId;
use super::iommu::Iommu;
use super::memory::Memory;
use super::numbers::Ask;
use super::settings::Quota;
use crate::addr::{Ipa, Pa};
use crate::hw::{Carve, NoFrames, Platform};
use crate::smmu::{Gathered, Removed, Sealed, Unsynced};
use crate::spec::vmsa::{Decoded, Descriptor, MemoryType, Stage2Walk};

/// A guest that the host has, as it describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostedConfig {
    /// Where its stage 2 starts, the shape of the tables, and the VMID, which nobody else has.
    pub walk: Stage2Walk,
    /// Where the window of CDs is to be: outside of its memory, MMIO and doorbells.
    pub window: Ipa,
    /// How large it is, as a power of two; it is aligned to that.
    pub log2_window_bytes: u8,
    /// Its PASIDs have so many bits: 1 to 20.
    pub pasid_bits: u8,
    /// What else it may have.
    pub quota: Quota,
}

/// What the host is to map into its tables, in pages of their granule: Normal write-back, read-only
/// for everybody, never to be changed before the guest ends.
#[must_use = "the guest's devices cannot be attached before its window is there"]
#[derive(PartialEq, Eq, Debug)]
pub struct WindowWanted {
    guest: GuestId,
    /// Where.
    pub ipa: Ipa,
    /// To what.
    pub pa: Pa,
    /// How much.
    pub size_bytes: u64,
}

/// A window that is not mapped as it must be.
#[must_use = "the window is still to be mapped"]
#[derive(Debug)]
pub struct NotMapped {
    /// What is still wanted.
    pub wanted: WindowWanted,
    /// Why it is not there.
    pub error: SpaceError,
}

/// What is wrong with a page of a window in the host's tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowFault {
    /// Nothing is mapped there.
    NotMapped,
    /// Other memory is.
    OtherMemory {
        /// Which.
        pa: Pa,
    },
    /// It can be written.
    Writable,
    /// It is not Normal write-back memory, or cannot be read.
    Attributes,
    /// It is part of a block: page by page, or the block covers more than CDs.
    Block,
    /// A table on the way cannot be read by this CPU.
    Unreadable {
        /// Where it is.
        at: Pa,
    },
}

/// Memory that the host took away from a guest in its own tables, while SMMUs may still use what
/// they cached of it.
#[must_use = "devices may still reach what was taken away"]
#[derive(Debug)]
pub struct HostChange {
    guest: GuestId,
    change: Unsynced<()>,
}

/// A change of the host's that was not confirmed, and why.
#[must_use = "devices may still reach what was taken away"]
#[derive(Debug)]
pub struct Unconfirmed {
    /// The change.
    pub change: HostChange,
    /// Why.
    pub error: SpaceError,
}

/// `DBM` and `AF` of a leaf (DDI 0487, D8.3).
const DIRTY_MODIFIER: u64 = 1 << 51;
const ACCESSED: u64 = 1 << 10;

/// The host's tables of one guest, and our window in them.
pub(super) struct Hosted<'p, P: Platform> {
    platform: &'p P,
    walk: Stage2Walk,
    window: Ipa,
    memory: Carve<'p, P>,
}

impl<'p, P: Platform> Hosted<'p, P> {
    fn new(platform: &'p P, config: &HostedConfig) -> Result<Self, SpaceError> {
        let geometry = &config.walk.geometry;
        let log2_bytes = config.log2_window_bytes;
        let log2_page = geometry.granule().log2_bytes();
        let is_fit = (log2_page..47).contains(&log2_bytes)
            && config.window.is_aligned(log2_bytes)
            && geometry.holds_input(config.window, 1 << log2_bytes);
        if !is_fit {
            return Err(SpaceError::NoSuchWindow);
        }
        let memory = Carve::new(platform, log2_bytes, log2_page)
            .map_err(|NoFrames { log2_bytes }| SpaceError::NoFrames { log2_bytes })?;
        Ok(Self {
            platform,
            walk: config.walk,
            window: config.window,
            memory,
        })
    }

    pub(super) const fn walk(&self) -> Stage2Walk {
        self.walk
    }

    pub(super) fn sealed_bytes(&self) -> u64 {
        self.memory.bytes_out()
    }

    pub(super) fn seal(&mut self, log2_bytes: u8) -> Result<Sealed, SpaceError> {
        let (frames, offset) = self
            .memory
            .take(log2_bytes)
            .ok_or(SpaceError::NoFrames { log2_bytes })?;
        frames.fill(self.platform, 0);
        let ipa = Ipa::new(self.window.as_u64() + offset);
        Ok(Sealed::new(frames, ipa, self.walk.vmid))
    }

    /// Nobody has cached a way to it that changes: the window stays mapped.
    pub(super) fn nothing_owed<T>(&self, payload: T) -> Unsynced<T> {
        let granule = self.walk.geometry.granule();
        Unsynced::new(Gathered::nothing(self.walk.vmid, granule), payload)
    }

    pub(super) fn give_back(&mut self, sealed: Sealed) {
        // It is of this window: nobody else makes such of this VMID.
        let _ = self.memory.put_back(sealed.into_frames());
    }

    pub(super) fn changed(&self, ipa: Ipa, size_bytes: u64) -> Gathered {
        let granule = self.walk.geometry.granule();
        let mut gathered = Gathered::nothing(self.walk.vmid, granule);
        // What there was, leaves of which level and tables, is the host's to know: all of it goes.
        let page = 1 << crate::spec::vmsa::Level::L3.as_u8();
        gathered.add(ipa, size_bytes, page, Removed::Tables);
        gathered
    }

    pub(super) fn free(self, platform: &P) {
        // What is still sealed keeps it all: it is lost.
        let _ = self.memory.free(platform);
    }

    /// Walks the host's tables: every page of the window leads, read-only, to our memory.
    pub(super) fn expect_mapped(&self) -> Result<(), SpaceError> {
        let page = self.walk.geometry.granule().size_bytes();
        let pages = (1_u64 << self.memory.log2_bytes()) / page;
        for offset in (0..pages).map(|n| n * page) {
            let ipa = Ipa::new(self.window.as_u64() + offset);
            let pa = Pa::new(self.memory.base().as_u64() + offset);
            self.expect_page(ipa, pa)
                .map_err(|why| SpaceError::WindowNotMapped { ipa, why })?;
        }
        Ok(())
    }

    fn expect_page(&self, ipa: Ipa, wanted: Pa) -> Result<(), WindowFault> {
        let geometry = &self.walk.geometry;
        let granule = geometry.granule();
        let mut table = self.walk.root.as_u64();
        let mut entries = geometry.root_entries() as u64;
        let mut next = Some(geometry.start());
        while let Some(level) = next {
            let index = ipa.as_u64() >> granule.log2_span(level) & (entries - 1);
            let at = Pa::new(table + index * 8);
            let word = self
                .platform
                .peek(at)
                .ok_or(WindowFault::Unreadable { at })?;
            match Descriptor::from_u64(word).decode(geometry, level) {
                Decoded::Invalid => return Err(WindowFault::NotMapped),
                Decoded::Reserved => return Err(WindowFault::Attributes),
                Decoded::Table(below) => table = below.as_u64(),
                Decoded::Leaf { pa, attributes } => {
                    let permissions = attributes.permissions;
                    let faults = [
                        (level.next().is_some(), WindowFault::Block),
                        (pa != wanted, WindowFault::OtherMemory { pa }),
                        (permissions.access.can_write(), WindowFault::Writable),
                        // Hardware could make it writable (§5.2, `S2HD`).
                        (word & DIRTY_MODIFIER != 0, WindowFault::Writable),
                        (word & ACCESSED == 0, WindowFault::Attributes),
                        (!permissions.access.can_read(), WindowFault::Attributes),
                        (
                            attributes.memory != MemoryType::WRITE_BACK,
                            WindowFault::Attributes,
                        ),
                    ];
                    let first = faults.iter().find(|(holds, _)| *holds);
                    return first.map_or(Ok(()), |(_, why)| Err(*why));
                }
            }
            entries = 1 << granule.bits_per_level();
            next = level.next();
        }
        Err(WindowFault::NotMapped)
    }
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// Takes a guest in whose stage 2 the host has: number spaces, and memory for a window.
    ///
    /// No device can be attached before the window was [mapped](Self::window_mapped). Takes
    /// `2^log2_window_bytes` bytes and 8 pages.
    ///
    /// # Errors
    ///
    /// [`NoSuchWindow`](SpaceError::NoSuchWindow) if it is not aligned or not within the guest's
    /// addresses; [`VmidTaken`](SpaceError::VmidTaken);
    /// [`PasidOutOfRange`](SpaceError::PasidOutOfRange), [`NoFrames`](SpaceError::NoFrames),
    /// [`Full`](SpaceError::Full), [`Unwalkable`](SpaceError::Unwalkable).
    pub fn adopt_guest(
        &self,
        config: &HostedConfig,
    ) -> Result<(GuestId, WindowWanted), SpaceError> {
        for (smmu, driven) in self.all() {
            driven
                .features()
                .can_walk(&config.walk)
                .map_err(|why| SpaceError::Unwalkable { smmu, why })?;
        }
        let number = u32::from(config.walk.vmid.as_u16());
        let taken = self.books().vmids.take(Ask::Exactly(number));
        taken.map_err(|_| SpaceError::VmidTaken)?;
        let hosted = Hosted::new(self.platform(), config);
        let made = hosted.map(|hosted| (hosted.memory.base(), Memory::Hosts(hosted)));
        let made = made.and_then(|(pa, memory)| {
            let parts = (config.pasid_bits, config.quota, config.walk.vmid);
            let guest = Guest::new(self.platform(), parts, memory)?;
            Ok((pa, guest))
        });
        let mut books = self.books();
        let inserted = made.and_then(|(pa, guest)| {
            let inserted = books.guests.insert(guest).map_err(|(guest, why)| {
                guest.free(self.platform());
                SpaceError::from(why)
            });
            Ok((pa, inserted?))
        });
        let (pa, key) = match inserted {
            Ok(made) => made,
            Err(error) => {
                // It was taken above, and nothing ever had it.
                let _ = books.vmids.put_back(number);
                return Err(error);
            }
        };
        let guest = GuestId::of(key);
        let wanted = WindowWanted {
            guest,
            ipa: config.window,
            pa,
            size_bytes: 1 << config.log2_window_bytes,
        };
        Ok((guest, wanted))
    }

    /// Says that the window of a guest is mapped; the host's tables are walked to see that.
    ///
    /// # Errors
    ///
    /// [`NotMapped`], with what is wanted in it: [`WindowNotMapped`](SpaceError::WindowNotMapped),
    /// the first page that is not as it must be.
    pub fn window_mapped(&self, wanted: WindowWanted) -> Result<(), NotMapped> {
        let found = self.join(wanted.guest, None, |books| {
            Ok(books.running(wanted.guest)?.memory.clone())
        });
        let checked =
            found.and_then(|(memory, _visit)| memory.lock(self.platform()).expect_window());
        checked.map_err(|error| NotMapped { wanted, error })
    }

    /// Says that the host took `[ipa, ipa + size_bytes)` away from a guest, or made it read-only, in
    /// its own tables, and that this is visible to walkers.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`Busy`](SpaceError::Busy); [`NotHosts`](SpaceError::NotHosts) if the tables are ours.
    pub fn host_unmapped(
        &self,
        guest: GuestId,
        ipa: Ipa,
        size_bytes: u64,
    ) -> Result<HostChange, SpaceError> {
        let (memory, _visit) = self.join(guest, None, |books| {
            Ok(books.running(guest)?.memory.clone())
        })?;
        let gathered = memory
            .lock(self.platform())
            .host_changed(ipa, size_bytes)
            .ok_or(SpaceError::NotHosts)?;
        Ok(HostChange {
            guest,
            change: Unsynced::new(gathered, ()),
        })
    }

    /// Has every SMMU and device forget what the host took away: on return no device reaches it.
    ///
    /// SYNCs as [`unmap`](Self::unmap).
    ///
    /// # Errors
    ///
    /// [`Unconfirmed`], with the change in it: what was taken away must not be used for anything
    /// else.
    #[expect(
        clippy::result_large_err,
        reason = "the change comes back, and there is no heap to put it on"
    )]
    pub fn confirm_host_change(&self, change: HostChange) -> Result<(), Unconfirmed> {
        let HostChange { guest, change } = change;
        let visit = match self.join(guest, None, |books| books.running(guest).map(|_| ())) {
            Ok((_, visit)) => visit,
            // With the guest, everything of its VMID was flushed.
            Err(SpaceError::NoSuchGuest) => return Ok(()),
            Err(error) => {
                let change = HostChange { guest, change };
                return Err(Unconfirmed { change, error });
            }
        };
        let outcome = self.confirm(guest, change);
        drop(visit);
        outcome.map_err(|(error, change)| Unconfirmed {
            change: HostChange { guest, change },
            error,
        })
    }
}
