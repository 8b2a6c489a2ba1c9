//! Tables to change.

use core::iter::once;
use core::marker::PhantomData;
use core::sync::atomic::AtomicU64;

use super::super::pool::Chain;
use super::{Node, View};
use crate::hw::Platform;
use crate::spec::vmsa::{Descriptor, Leaves, Level, Permissions, WalkCoherency};

/// Whether a block is stored with `nT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// It is.
    Set,
    /// It is not.
    Clear,
}

/// A table of the tree, or one that is to become part of it, to change.
///
/// Holds the tree mutably and stays on its thread, so that all such nodes of one tree are in one
/// hand.
pub(crate) struct EditNode<'t, 'p, P> {
    pub(super) node: Node<'t, 'p, P>,
    /// For whom an entry of a root is that was not there before.
    pub(super) view: View,
    pub(super) alone: PhantomData<*const ()>,
}

impl<P> Clone for EditNode<'_, '_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P> Copy for EditNode<'_, '_, P> {}

impl<'t, 'p, P> core::ops::Deref for EditNode<'t, 'p, P> {
    type Target = Node<'t, 'p, P>;
    fn deref(&self) -> &Self::Target {
        &self.node
    }
}

/// A table that is complete in memory and not yet linked.
#[must_use = "a table that is not linked is lost"]
pub(crate) struct Orphan<'t, 'p, P>(EditNode<'t, 'p, P>);

impl<'t, 'p, P: Platform> EditNode<'t, 'p, P> {
    /// The table that entry `index` leads to, if it does.
    #[inline]
    pub(crate) fn edit_child(&self, index: usize) -> Option<Self> {
        Some(Self {
            node: self.node.child(index)?,
            view: View::Both,
            alone: PhantomData,
        })
    }

    /// As [`Node::narrow`], to change.
    #[inline]
    pub(crate) fn edit_narrow(&self, first: u64, end: u64) -> Option<Self> {
        Some(Self {
            node: self.node.narrow(first, end)?,
            ..*self
        })
    }

    /// The table's words, and those of the other root if there is one.
    #[inline]
    fn both(&self) -> impl Iterator<Item = &'t [AtomicU64]> + use<'t, 'p, P> {
        once(self.words).chain(self.twin())
    }

    #[inline]
    fn clean(&self, first: usize, count: usize) {
        if self.tree.coherency == WalkCoherency::Clean {
            for words in self.both() {
                self.tree.platform.clean(&words[first..first + count]);
            }
        }
    }

    #[inline]
    fn put(&self, index: usize, descriptor: Descriptor) {
        if self.page.is_some() {
            let word = &self.words[index];
            return self.tree.platform.store(word, descriptor.as_u64());
        }
        for words in self.holders(index) {
            self.tree.platform.store(&words[index], descriptor.as_u64());
        }
    }

    /// The words of the roots that have entry `index`; if none has, of those that are to have it.
    #[inline]
    fn holders(&self, index: usize) -> impl Iterator<Item = &'t [AtomicU64]> + use<'t, 'p, P> {
        let view = match self.twin() {
            Some(_) => self.node.view(index).unwrap_or(self.view),
            None => View::Devices,
        };
        let here = (view != View::Cpus).then_some(self.words);
        let there = self.twin().filter(|_| view != View::Devices);
        here.into_iter().chain(there)
    }

    #[inline]
    fn change_live(&self, change: i64) {
        if let Some(page) = self.page {
            self.tree.pool.change_live(page, change);
        }
    }

    /// Stores `count` leaves to entries from `first`, none of which was valid.
    ///
    /// # Panics
    ///
    /// If the leaves are of another level: a page and a table look alike.
    pub(crate) fn fill(&self, first: usize, count: usize, leaves: &Leaves) {
        self.fill_words(first, count, leaves);
        self.clean(first, count);
    }

    fn fill_words(&self, first: usize, count: usize, leaves: &Leaves) {
        assert!(leaves.level() == self.level, "leaves of another level");
        for words in self.holders(first) {
            let words = &words[first..first + count];
            for (numbers, run) in leaves.runs(count) {
                for (word, number) in words[numbers.clone()].iter().zip(numbers) {
                    self.tree.platform.store(word, run.at(number).as_u64());
                }
            }
        }
        self.change_live(count as i64);
    }

    /// A table for a place below this one: `count` leaves from entry `first`, else nothing.
    ///
    /// Takes a page of the reserve; `None` if there is none, or if this is the last level.
    pub(crate) fn build(
        &self,
        first: usize,
        count: usize,
        leaves: Option<&Leaves>,
    ) -> Option<Orphan<'t, 'p, P>> {
        let level = self.level.next()?;
        let page = self.tree.pool.reserved()?;
        let child = Self {
            node: self.node.below(page, level),
            view: View::Both,
            alone: PhantomData,
        };
        match leaves {
            Some(leaves) => {
                child.empty(0, first);
                child.fill_words(first, count, leaves);
                child.empty(first + count, child.entries());
            }
            None => child.empty(0, child.entries()),
        }
        child.clean(0, child.entries());
        Some(Orphan(child))
    }

    /// Stores nothing to the entries from `first` to before `end` of a table that nobody walks yet.
    #[inline]
    fn empty(&self, first: usize, end: usize) {
        const { assert!(Descriptor::INVALID.as_u64() == 0) };
        self.tree.platform.clear(&self.words[first..end]);
    }

    /// Stores a table descriptor to entry `index` that no walker follows yet: bit 0 is clear.
    ///
    /// [`arm`](Self::arm) sets it, once a barrier has made the table complete for all walkers. The
    /// entry was not valid; it counts as such from now on.
    pub(crate) fn link(&self, index: usize, child: Orphan<'t, 'p, P>) {
        if let Some(page) = child.0.page {
            self.put(index, Descriptor::table(page).disarmed());
            self.clean(index, 1);
            self.change_live(1);
        }
    }

    /// Lets walkers follow entry `index`, if [`link`](Self::link) prepared it.
    pub(crate) fn arm(&self, index: usize) -> bool {
        match self.descriptor(index).rearmed() {
            Some(descriptor) => {
                self.put(index, descriptor);
                self.clean(index, 1);
                true
            }
            None => false,
        }
    }

    /// Clears the leaves among `count` entries from `first`; says how many there were.
    #[inline]
    pub(crate) fn clear(&self, first: usize, count: usize) -> usize {
        self.change(
            first,
            count,
            |_| Descriptor::INVALID,
            |cleared| {
                self.change_live(-(cleared as i64));
            },
        )
    }

    /// Gives the leaves among `count` entries from `first` these permissions; says how many had
    /// others.
    pub(crate) fn protect(&self, first: usize, count: usize, permissions: Permissions) -> usize {
        let change = |leaf: Descriptor| leaf.with_permissions(permissions);
        self.change(first, count, change, |_| {})
    }

    #[inline]
    fn change(
        &self,
        first: usize,
        count: usize,
        change: impl Fn(Descriptor) -> Descriptor,
        note: impl FnOnce(usize),
    ) -> usize {
        let change_in = |words: &[AtomicU64]| {
            let mut changed = 0;
            for word in &words[first..first + count] {
                let old = Descriptor::from_u64(self.tree.platform.load(word));
                let new = change(old);
                if old.is_valid() && !old.is_table(self.level) && new != old {
                    self.tree.platform.store(word, new.as_u64());
                    changed += 1;
                }
            }
            changed
        };
        let changed = change_in(self.words) + self.twin().map_or(0, change_in);
        if changed != 0 {
            self.clean(first, count);
            note(changed);
        }
        changed
    }

    /// Gives the contiguous hint to the group of leaves that begins at entry `first`, none of which
    /// has it, and which map consecutive memory alike.
    pub(crate) fn group(&self, first: usize, members: usize) {
        self.change(first, members, Descriptor::grouped, |_| {});
    }

    /// Marks the block at entry `index` with `nT`, if it is one and is not yet; says whether.
    pub(crate) fn mark(&self, index: usize) -> bool {
        self.change(index, 1, Descriptor::marked, |_| {}) != 0
    }

    /// Takes `nT` from the block at entry `index`, if it is one and has it; says whether.
    pub(crate) fn unmark(&self, index: usize) -> bool {
        self.level != Level::L3 && self.change(index, 1, Descriptor::unmarked, |_| {}) != 0
    }

    /// Takes the contiguous hint from the group that the leaf at entry `index` is one of, if it is;
    /// says from which entry on how many were changed.
    pub(crate) fn ungroup(&self, index: usize) -> Option<(usize, usize)> {
        let leaf = self.descriptor(index);
        if !leaf.is_valid() || leaf.is_table(self.level) || !leaf.is_grouped() {
            return None;
        }
        let members = 1 << self.tree.geometry.granule().log2_contiguous(self.level)?;
        let first = index & !(members - 1);
        self.change(first, members, Descriptor::ungrouped, |_| {});
        Some((first, members))
    }

    /// Whether none of its entries is valid; the root is never said to be empty.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.page.is_some_and(|page| self.tree.pool.live(page) == 0)
    }

    /// Puts a table in the place of a leaf, in one store a root: nobody may walk there, or the
    /// block is marked and confirmed to be, or all walkers can do without (§3.21.1.3).
    pub(crate) fn replace(&self, index: usize, child: Orphan<'t, 'p, P>) {
        if let Some(page) = child.0.page {
            self.put(index, Descriptor::table(page));
            self.clean(index, 1);
        }
    }

    /// Clears entry `index` if it leads to a table, and moves that table and all below it to
    /// `chain`, unwritten; says at which levels leaves were, a bit for each.
    pub(crate) fn retire(&self, index: usize, chain: &mut Chain<'p, P>) -> Option<u8> {
        let levels = self.supplant(index, Descriptor::INVALID, chain)?;
        self.change_live(-1);
        Some(levels)
    }

    /// As [`retire`](Self::retire), with `leaf` in the place of the table, in one store a root.
    ///
    /// # Panics
    ///
    /// If the leaf is of another level.
    pub(crate) fn merge(
        &self,
        index: usize,
        leaf: &Leaves,
        mark: Mark,
        chain: &mut Chain<'p, P>,
    ) -> Option<u8> {
        assert!(leaf.level() == self.level, "a leaf of another level");
        let leaf = match mark {
            Mark::Set => leaf.at(0).marked(),
            Mark::Clear => leaf.at(0),
        };
        self.supplant(index, leaf, chain)
    }

    fn supplant(
        &self,
        index: usize,
        descriptor: Descriptor,
        chain: &mut Chain<'p, P>,
    ) -> Option<u8> {
        let child = self.edit_child(index)?;
        if !self.tree.pool.owns(chain) {
            return None;
        }
        self.put(index, descriptor);
        self.clean(index, 1);
        Some(child.collect(chain))
    }

    /// The entries of a table that is not the root.
    fn descriptors(&self) -> impl Iterator<Item = Descriptor> + use<'t, 'p, P> {
        let (words, platform) = (self.words, self.tree.platform);
        let entry = |word| Descriptor::from_u64(platform.load(word));
        words.iter().map(entry)
    }

    /// Bounded by the number of levels.
    fn collect(&self, chain: &mut Chain<'p, P>) -> u8 {
        let levels = match self.level.next() {
            None => 1 << Level::L3.as_u8(),
            Some(next) => self.collect_below(next, chain),
        };
        if let Some(page) = self.page {
            self.tree.pool.retire(once(page), chain);
        }
        levels
    }

    /// The tables below one that is not of the last level.
    fn collect_below(&self, next: Level, chain: &mut Chain<'p, P>) -> u8 {
        let mut kinds = 0;
        // Most tables have entries of one kind: those that begin with none or a leaf are looked
        // through before they are gone through.
        if !self.descriptor(0).is_table(self.level) {
            kinds = self.descriptors().fold(0, |kinds, it| kinds | it.kind());
            if kinds & Descriptor::TABLE_ABOVE_PAGES == 0 {
                return self.levels_of(kinds);
            }
        }
        let granule = self.tree.geometry.granule();
        let tables = self.descriptors().filter_map(|it| {
            if it.is_table(self.level) {
                return Some(it.address(granule));
            }
            kinds |= it.kind();
            None
        });
        if next == Level::L3 {
            self.tree.pool.retire(tables, chain);
            return self.levels_of(kinds) | 1 << next.as_u8();
        }
        let mut levels = 0;
        for page in tables {
            let child = Self {
                node: self.node.below(page, next),
                ..*self
            };
            levels |= child.collect(chain);
        }
        levels | self.levels_of(kinds)
    }

    /// A bit for this level if there are leaves among entries of these kinds.
    const fn levels_of(&self, kinds: u8) -> u8 {
        ((kinds & Descriptor::LEAF_ABOVE_PAGES != 0) as u8) << self.node.level.as_u8()
    }
}

impl<'t, 'p, P: Platform> Orphan<'t, 'p, P> {
    /// The table itself.
    pub(crate) const fn table(&self) -> &EditNode<'t, 'p, P> {
        &self.0
    }

    /// Stores the table descriptor of `child` to entry `index`, which was not valid: no walker
    /// comes here yet.
    pub(crate) fn adopt(&self, index: usize, child: Self) {
        if let Some(page) = child.0.page {
            self.0.put(index, Descriptor::table(page));
            self.0.clean(index, 1);
            self.0.change_live(1);
        }
    }
}
