//! The table of one device's CDs in memory: linear, in leaves, or one CD (§5.3, §5.4).
//!
//! Who may change a CD is written in the CD itself, while it is not valid, in bits that hardware
//! then ignores. Of a leaf, the shelf notes where it is seen and how many of its CDs are not free.

use core::sync::atomic::AtomicU64;

use super::error::ContextError;
use super::sealed::Sealed;
use crate::addr::Ipa;
use crate::hw::{Platform, Shelf};
use crate::id::Vmid;
use crate::spec::cd::{Cd, CdState, state_of};
use crate::spec::l1cd::L1Cd;
use crate::spec::ste::CdFormat;

const WORDS_PER_CD: usize = 8;
/// Bytes of a CD and of an L1CD, as powers of two.
const LOG2_CD_BYTES: u8 = 6;
const LOG2_L1CD_BYTES: u8 = 3;
const LOG2_PAGE_BYTES: u8 = 12;
/// How many CDs of a leaf are not free, at most 1024: in the low bits of its note, below the
/// address. All ones: the leaf is lost.
const COUNT: u64 = 0xfff;

/// How CDs lie in a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// How many there are, as a power of two.
    pub(super) log2_cds: u8,
    /// How many each leaf has, as a power of two; `None`: there are no leaves.
    log2_leaf: Option<u8>,
}

impl Layout {
    pub(super) const SINGLE: Self = Self {
        log2_cds: 0,
        log2_leaf: None,
    };

    pub(super) const fn new(log2_cds: u8, format: CdFormat) -> Self {
        let log2_leaf = match format {
            CdFormat::Linear => None,
            CdFormat::Leaves4K => Some(6),
            CdFormat::Leaves64K => Some(10),
        };
        Self {
            log2_cds,
            log2_leaf,
        }
    }

    /// How many leaves there can be, as a power of two.
    const fn log2_leaves(self, log2_leaf: u8) -> u8 {
        self.log2_cds.saturating_sub(log2_leaf)
    }

    /// How many bytes its root takes, and is aligned to, as a power of two; at least a page.
    pub(super) const fn log2_root_bytes(self) -> u8 {
        let log2_bytes = match self.log2_leaf {
            None => self.log2_cds.saturating_add(LOG2_CD_BYTES),
            Some(log2_leaf) => self.log2_leaves(log2_leaf).saturating_add(LOG2_L1CD_BYTES),
        };
        if log2_bytes < LOG2_PAGE_BYTES {
            LOG2_PAGE_BYTES
        } else {
            log2_bytes
        }
    }
}

/// Where a CD is, or is to be.
pub(super) enum Found<'a> {
    /// There.
    Cd(&'a [AtomicU64]),
    /// In a leaf that has no memory yet.
    NoLeaf {
        /// How large a leaf is, as a power of two.
        log2_bytes: u8,
    },
    /// In a leaf that is being given back, or was and nobody confirmed it.
    LeafGoing,
}

/// The memory of a table.
pub(super) struct Table<'p, P> {
    platform: &'p P,
    layout: Layout,
    root: Sealed,
    leaves: Option<Shelf<'p, P>>,
}

impl<'p, P: Platform> Table<'p, P> {
    /// A table in `root`, which is large enough and full of zeros; gives it back if there is no
    /// memory for the books.
    pub(super) fn new(platform: &'p P, layout: Layout, root: Sealed) -> Result<Self, Sealed> {
        let leaves = match layout.log2_leaf {
            None => None,
            Some(log2_leaf) => match Shelf::new(platform, layout.log2_leaves(log2_leaf)) {
                Some(shelf) => Some(shelf),
                None => return Err(root),
            },
        };
        Ok(Self {
            platform,
            layout,
            root,
            leaves,
        })
    }

    fn root_words(&self) -> &[AtomicU64] {
        self.root.frames().words(self.platform)
    }

    /// The number of the leaf of CD `index`, and of the CD in it.
    fn place(&self, index: u32) -> Option<(usize, usize)> {
        let log2_leaf = self.layout.log2_leaf?;
        let leaf = index >> log2_leaf;
        Some((leaf as usize, (index & ((1 << log2_leaf) - 1)) as usize))
    }

    /// CD number `index`, which is below the table's size.
    pub(super) fn find(&self, index: u32) -> Found<'_> {
        let Some((leaf, within)) = self.place(index) else {
            return cd(self.root_words(), index as usize);
        };
        let memory = self.leaves.as_ref().and_then(|shelf| shelf.memory(leaf));
        let is_linked = self
            .root_words()
            .get(leaf)
            .is_some_and(|word| self.platform.load(word) != L1Cd::invalid().word());
        match memory {
            Some(memory) if is_linked => cd(memory, within),
            Some(_) => Found::LeafGoing,
            None => Found::NoLeaf {
                log2_bytes: self.layout.log2_leaf.unwrap_or(0) + LOG2_CD_BYTES,
            },
        }
    }

    /// The eight words of CD `index`, if it has memory.
    pub(super) fn words(&self, index: u32) -> Option<&[AtomicU64]> {
        match self.find(index) {
            Found::Cd(words) => Some(words),
            Found::NoLeaf { .. } | Found::LeafGoing => None,
        }
    }

    /// Puts `leaf`, full of zeros, where CD `index` is to be; nobody can see it there yet.
    ///
    /// # Errors
    ///
    /// [`ContextError::Foreign`] if it is too small or misaligned: it is lost then.
    pub(super) fn add_leaf(&mut self, index: u32, leaf: Sealed) -> Result<(), ContextError> {
        let log2_bytes = self.layout.log2_leaf.unwrap_or(0) + LOG2_CD_BYTES;
        let ipa = leaf.ipa();
        let is_fit = leaf.log2_bytes() >= log2_bytes
            && ipa.is_aligned(log2_bytes)
            && leaf.vmid() == self.root.vmid();
        let (Some((place, _)), Some(shelf), true) =
            (self.place(index), self.leaves.as_mut(), is_fit)
        else {
            return Err(ContextError::Foreign);
        };
        shelf
            .put(place, leaf.into_frames())
            .map_err(|_| ContextError::Foreign)?;
        shelf.set_note(place, ipa.as_u64());
        Ok(())
    }

    /// The words of CD `index` in a leaf that nobody can see yet.
    pub(super) fn hidden_words(&self, index: u32) -> Option<&[AtomicU64]> {
        let (leaf, within) = self.place(index)?;
        match cd(self.leaves.as_ref()?.memory(leaf)?, within) {
            Found::Cd(words) => Some(words),
            Found::NoLeaf { .. } | Found::LeafGoing => None,
        }
    }

    /// Lets the SMMU see the leaf of CD `index`: one store. What is in it was made visible before.
    pub(super) fn link(&self, index: u32) {
        if let Some((leaf, _)) = self.place(index)
            && let Some(shelf) = &self.leaves
            && let Some(word) = self.root_words().get(leaf)
        {
            let at = Ipa::new(shelf.note(leaf) & !COUNT);
            self.platform.store(word, L1Cd::table(at).word());
        }
    }

    /// Cuts the leaf of CD `index` off, if none of its CDs is anybody's: one store.
    pub(super) fn unlink(&self, index: u32) -> Result<(), ContextError> {
        let Some((leaf, _)) = self.place(index) else {
            return Err(ContextError::NoSuchContext);
        };
        match self.find(index) {
            Found::NoLeaf { .. } => return Err(ContextError::NotInUse),
            Found::LeafGoing => return Err(ContextError::Changing),
            Found::Cd(_) => {}
        }
        let Some(shelf) = &self.leaves else {
            return Err(ContextError::NotInUse);
        };
        if shelf.note(leaf) & COUNT != 0 {
            return Err(ContextError::InUse);
        }
        if let Some(word) = self.root_words().get(leaf) {
            self.platform.store(word, L1Cd::invalid().word());
        }
        Ok(())
    }

    /// Notes that the leaf of CD `index`, which was cut off, may still be used.
    pub(super) fn lose_leaf(&mut self, index: u32) {
        if let Some((leaf, _)) = self.place(index)
            && let Some(shelf) = self.leaves.as_mut()
        {
            let note = shelf.note(leaf) | COUNT;
            shelf.set_note(leaf, note);
        }
    }

    /// Takes the leaf of CD `index` out, which was lost, and is proven to be forgotten.
    pub(super) fn take_lost_leaf(&mut self, index: u32) -> Option<Sealed> {
        let (leaf, _) = self.place(index)?;
        if self.leaves.as_ref()?.note(leaf) & COUNT == COUNT {
            self.take(leaf)
        } else {
            None
        }
    }

    /// Takes the leaf of CD `index` out, which the SMMU has confirmed to have forgotten.
    pub(super) fn take_leaf(&mut self, index: u32) -> Option<Sealed> {
        let (leaf, _) = self.place(index)?;
        self.take(leaf)
    }

    fn take(&mut self, leaf: usize) -> Option<Sealed> {
        let vmid = self.root.vmid();
        let shelf = self.leaves.as_mut()?;
        let at = Ipa::new(shelf.note(leaf) & !COUNT);
        Some(Sealed::new(shelf.take(leaf)?, at, vmid))
    }

    /// Counts one CD more, or one less, of the leaf of CD `index` that is not free.
    pub(super) fn count(&mut self, index: u32, change: i64) {
        if let Some((leaf, _)) = self.place(index)
            && let Some(shelf) = self.leaves.as_mut()
        {
            let note = shelf.note(leaf).saturating_add_signed(change);
            shelf.set_note(leaf, note);
        }
    }

    /// Takes the first leaf of at least this number out, and says which it was.
    pub(super) fn take_leaf_from(&mut self, first: usize) -> Option<(usize, Sealed)> {
        let (leaf, _) = self.leaves.as_ref()?.taken_from(first).next()?;
        Some((leaf, self.take(leaf)?))
    }

    /// Where every leaf and the root is seen, and its size as a power of two.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (Ipa, u8)> + '_ {
        let leaves = self.leaves.iter().flat_map(|shelf| {
            shelf
                .taken_from(0)
                .map(|(leaf, log2_bytes)| (Ipa::new(shelf.note(leaf) & !COUNT), log2_bytes))
        });
        leaves.chain([(self.root.ipa(), self.root.log2_bytes())])
    }

    pub(super) const fn root(&self) -> &Sealed {
        &self.root
    }

    /// The root, of a table without leaves; the books go back to the platform.
    pub(super) fn into_root(self) -> Sealed {
        if let Some(shelf) = self.leaves
            && let Ok(books) = shelf.into_books()
        {
            self.platform.free(books);
        }
        self.root
    }
}

/// The CD number `index` of those that lie in `memory`.
fn cd(memory: &[AtomicU64], index: usize) -> Found<'_> {
    let first = index * WORDS_PER_CD;
    memory
        .get(first..first + WORDS_PER_CD)
        .map_or(Found::LeafGoing, Found::Cd)
}

/// Where the CD in `words` stands in its life.
pub(super) fn state<P: Platform>(platform: &P, words: &[AtomicU64]) -> CdState {
    words
        .first()
        .map_or(CdState::Lost, |word| state_of(platform.load(word)))
}

/// The CD in `words`.
pub(super) fn read<P: Platform>(platform: &P, words: &[AtomicU64]) -> Cd {
    Cd::from_words(core::array::from_fn(|i| {
        words.get(i).map_or(0, |word| platform.load(word))
    }))
}

impl<'p, P> Table<'p, P> {
    /// Which VM's window the memory is from.
    pub(super) const fn vmid(&self) -> Vmid {
        self.root.vmid()
    }

    pub(super) const fn platform(&self) -> &'p P {
        self.platform
    }
}
