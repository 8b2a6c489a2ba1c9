//! What must be invalidated, and values that are held back until it is.

use core::fmt;

use crate::addr::Ipa;
use crate::id::Vmid;
use crate::spec::vmsa::{Granule, Level};

const RANGES: usize = Gathered::RANGES;

/// Input addresses of stage 2 of which an SMMU may hold old translations.
///
/// At which level these were is not said for `TTL` (§4.4.1.1): beside what this change made stale, a
/// cache may hold a larger leaf that another change, not confirmed yet, has split. An invalidation
/// without a level reaches both.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StaleRange {
    /// The address, a multiple of the granule, and below it a bit for each level that had leaves,
    /// and [`TABLES`](Self::TABLES).
    base: u64,
    size_bytes: u64,
}

impl StaleRange {
    const TABLES: u64 = 1 << 4;
    const LEVELS: u64 = 0b1111;
    const NOTES: u64 = 0xfff;
    const NONE: Self = Self {
        base: 0,
        size_bytes: 0,
    };

    #[inline]
    const fn new(base: Ipa, size_bytes: u64, levels: u8, removed: Removed) -> Self {
        let tables = match removed {
            Removed::Leaves => 0,
            Removed::Tables => Self::TABLES,
        };
        let notes = levels as u64 & Self::LEVELS | tables;
        Self {
            base: base.as_u64() & !Self::NOTES | notes,
            size_bytes,
        }
    }

    /// Where it begins; a multiple of the granule.
    #[inline]
    pub const fn base(&self) -> Ipa {
        Ipa::new(self.base & !Self::NOTES)
    }

    /// How long it is; a multiple of the granule.
    #[inline]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The size of its smallest leaf, as a power of two: single-address commands that far apart
    /// reach every leaf, and with `Leaf` = 0 every removed table.
    pub const fn log2_step(&self, granule: Granule) -> u8 {
        match (self.base & Self::LEVELS).leading_zeros() {
            63 => granule.log2_span(Level::L0),
            62 => granule.log2_span(Level::L1),
            61 => granule.log2_span(Level::L2),
            _ => granule.log2_span(Level::L3),
        }
    }

    /// Whether tables were removed as well, so that the commands must say `Leaf` = 0.
    pub const fn removed_tables(&self) -> bool {
        self.base & Self::TABLES != 0
    }

    #[inline]
    const fn end(&self) -> u64 {
        self.base().as_u64() + self.size_bytes
    }

    #[inline]
    fn touches(&self, other: &Self) -> bool {
        self.base().as_u64() <= other.end() && other.base().as_u64() <= self.end()
    }

    /// Grows to hold `other`, and what lies between.
    #[inline]
    fn stretch(&mut self, other: &Self) {
        let base = self.base().min(other.base());
        let end = self.end().max(other.end());
        let notes = (self.base | other.base) & Self::NOTES;
        self.base = base.as_u64() | notes;
        self.size_bytes = end - base.as_u64();
    }
}

impl fmt::Debug for StaleRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleRange")
            .field("base", &self.base())
            .field("size_bytes", &self.size_bytes)
            .field("levels", &(self.base & Self::LEVELS))
            .field("removed_tables", &self.removed_tables())
            .finish()
    }
}

/// What must be invalidated before a change of a stage 2 is confirmed; of bounded size.
///
/// A neighbour of the last range becomes part of it. When there are more ranges than it keeps
/// apart, the last one grows over the gap: to invalidate more is always allowed, and whether so
/// many commands are worth it is for the one who makes the commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gathered {
    vmid: Vmid,
    granule: Granule,
    /// How many of `ranges` are meant; one more than there are: everything. Two more: everything,
    /// and no stream has the VMID any more.
    count: u8,
    ranges: [StaleRange; RANGES],
}

impl Gathered {
    /// How many ranges it keeps apart; few, as the value is moved about by every unmap.
    pub const RANGES: usize = 4;

    /// Nothing yet, for the stage 2 that has this VMID.
    #[inline]
    pub const fn nothing(vmid: Vmid, granule: Granule) -> Self {
        Self {
            vmid,
            granule,
            count: 0,
            ranges: [StaleRange::NONE; RANGES],
        }
    }

    /// Everything that is tagged with the VMID.
    pub const fn everything(vmid: Vmid, granule: Granule) -> Self {
        let mut all = Self::nothing(vmid, granule);
        all.count = RANGES as u8 + 1;
        all
    }

    /// Everything that is tagged with the VMID, which no stream has any more.
    pub(crate) const fn retired(vmid: Vmid, granule: Granule) -> Self {
        let mut all = Self::nothing(vmid, granule);
        all.count = RANGES as u8 + 2;
        all
    }

    /// Whether no stream has the VMID any more.
    pub(super) const fn is_retired(&self) -> bool {
        self.count as usize == RANGES + 2
    }

    /// The tag of all the entries.
    #[inline]
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }

    /// The granule of the tables.
    #[inline]
    pub const fn granule(&self) -> Granule {
        self.granule
    }

    /// Whether no SMMU needs to be told anything.
    #[inline]
    pub const fn is_nothing(&self) -> bool {
        self.count == 0
    }

    /// The ranges; `None` if it is everything of the VMID.
    pub fn ranges(&self) -> Option<&[StaleRange]> {
        self.ranges.get(..usize::from(self.count))
    }

    /// Adds `size_bytes` bytes from `base`, with leaves of `levels` (a bit for each).
    #[inline]
    pub(crate) fn add(&mut self, base: Ipa, size_bytes: u64, levels: u8, removed: Removed) {
        self.add_range(&StaleRange::new(base, size_bytes, levels, removed));
    }

    #[inline]
    fn add_range(&mut self, range: &StaleRange) {
        let count = usize::from(self.count);
        if count > RANGES || range.size_bytes == 0 {
            return;
        }
        if let Some(last) = count.checked_sub(1).and_then(|at| self.ranges.get_mut(at))
            && (count == RANGES || last.touches(range))
        {
            last.stretch(range);
        } else if let Some(slot) = self.ranges.get_mut(count) {
            *slot = *range;
            self.count += 1;
        }
    }

    /// Adds all of `other`, which is of the same VMID.
    pub(crate) fn absorb(&mut self, other: &Self) {
        match other.ranges() {
            Some(ranges) => ranges.iter().for_each(|range| self.add_range(range)),
            None => self.count = self.count.max(other.count),
        }
    }
}

/// What was taken away beside leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Removed {
    /// Nothing.
    Leaves,
    /// Tables, so that what walks cached of their descriptors must go too.
    Tables,
}

/// A change that is in memory, while an SMMU may still use what it cached before.
///
/// The payload, what the change set free, comes back only when every SMMU has confirmed that it
/// has forgotten: that takes this value. Dropping it loses the payload; nothing is freed early.
///
/// There is no way round the invalidation:
///
/// ```compile_fail,E0616
/// # use portcullis::smmu::Unsynced;
/// fn look(change: &Unsynced<u32>) -> bool {
///     change.payload == 0
/// }
/// ```
///
/// ```
/// # use portcullis::smmu::Unsynced;
/// fn look(change: &Unsynced<u32>) -> bool {
///     change.gathered().is_nothing()
/// }
/// ```
///
/// and none to claim that there is nothing to invalidate:
///
/// ```compile_fail,E0624
/// # use portcullis::{id::Vmid, smmu::{Gathered, Unsynced}, spec::vmsa::Granule};
/// let nothing = Gathered::nothing(Vmid::new(1), Granule::Kib4);
/// let change = Unsynced::new(nothing, 5);
/// ```
///
/// ```
/// # use portcullis::{id::Vmid, smmu::{Gathered, Unsynced}, spec::vmsa::Granule};
/// let nothing = Gathered::nothing(Vmid::new(1), Granule::Kib4);
/// let is_nothing = nothing.is_nothing();
/// ```
///
/// What a change of a stage 2 set free is not given back before:
///
/// ```compile_fail,E0308
/// # use portcullis::{hw::Platform, smmu::Unsynced, space::stage2::{Reclaim, Stage2}};
/// fn give_back<'p, P: Platform>(stage2: &mut Stage2<'p, P>, debt: Unsynced<Reclaim<'p, P>>) {
///     let _ = stage2.reclaim(debt);
/// }
/// ```
///
/// ```
/// # use portcullis::{hw::Platform, smmu::Unsynced, space::stage2::{Reclaim, Stage2}};
/// fn give_back<'p, P: Platform>(stage2: &mut Stage2<'p, P>, debt: Unsynced<Reclaim<'p, P>>) {
///     let _ = stage2.lose(debt);
/// }
/// ```
///
/// nor is it forgotten, where the compiler's warning is heeded:
///
/// ```compile_fail
/// # #![deny(unused_must_use)]
/// # use portcullis::{addr::Ipa, hw::Platform, space::stage2::{Stage2, Stage2Error}};
/// # type Done = Result<(), Stage2Error>;
/// fn unmap<P: Platform>(stage2: &mut Stage2<'_, P>, at: Ipa) -> Done {
///     stage2.unmap(at, 0x1000)?;
///     Ok(())
/// }
/// ```
///
/// ```
/// # #![deny(unused_must_use)]
/// # use portcullis::{addr::Ipa, hw::Platform, space::stage2::{Stage2, Stage2Error}};
/// # type Done = Result<(), Stage2Error>;
/// fn unmap<P: Platform>(stage2: &mut Stage2<'_, P>, at: Ipa) -> Done {
///     let _debt = stage2.unmap(at, 0x1000)?;
///     Ok(())
/// }
/// ```
#[must_use = "SMMUs may still use what this change removed, until an invalidation is confirmed"]
#[derive(Debug)]
pub struct Unsynced<T> {
    gathered: Gathered,
    payload: T,
}

impl<T> Unsynced<T> {
    /// Holds `payload` back until `gathered` is invalidated.
    #[inline]
    pub(crate) const fn new(gathered: Gathered, payload: T) -> Self {
        Self { gathered, payload }
    }

    /// The payload, for those who have the proof or put it away unused.
    #[inline]
    pub(crate) fn open(self) -> T {
        self.payload
    }

    /// What must be invalidated and what is held back, to add to both.
    #[inline]
    pub(crate) const fn parts(&mut self) -> (&mut Gathered, &mut T) {
        (&mut self.gathered, &mut self.payload)
    }

    /// The same change, with what `wrap` makes of its payload held back.
    pub(crate) fn map<U>(self, wrap: impl FnOnce(T) -> U) -> Unsynced<U> {
        Unsynced::new(self.gathered, wrap(self.payload))
    }

    /// The payload, as if every SMMU had confirmed: for host tests that have none.
    #[cfg(any(test, feature = "testing"))]
    pub fn without_any_smmu(self) -> T {
        self.open()
    }

    /// What must be invalidated.
    #[inline]
    pub const fn gathered(&self) -> &Gathered {
        &self.gathered
    }

    /// Makes `other` part of this change, so that one invalidation serves both; `join` makes one
    /// payload of two, or refuses.
    ///
    /// # Errors
    ///
    /// `other`, if it is of another VMID or granule, or `join` refuses; this one is as it was.
    pub(crate) fn absorb_with(
        &mut self,
        other: Self,
        join: impl FnOnce(&mut T, T) -> Result<(), T>,
    ) -> Result<(), Self> {
        let more = other.gathered;
        if (self.gathered.vmid, self.gathered.granule) != (more.vmid, more.granule) {
            return Err(other);
        }
        match join(&mut self.payload, other.payload) {
            Ok(()) => {
                self.gathered.absorb(&more);
                Ok(())
            }
            Err(payload) => Err(Self::new(more, payload)),
        }
    }
}
