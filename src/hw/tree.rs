//! Tables in memory that a device walks, as nodes that safe code can read and change.
//!
//! What makes following a table descriptor safe: only [`EditNode`] writes tables; the only table
//! descriptors it writes lead to pages that it took from the pool for that purpose and filled
//! before; such a page has one place in the tree; it returns to the pool only by way of a
//! [`Chain`], that is after its place was cleared, and while no node exists. Hardware writes no
//! descriptor, as no hardware update of the access flag or dirty state is ever turned on.

use core::marker::PhantomData;
use core::sync::atomic::AtomicU64;

use super::pool::{Chain, NoTables, Pool, PoolShape, allocate};
use super::{Barrier, Frames, Platform};
use crate::addr::{Ipa, Pa};
use crate::spec::vmsa::{Descriptor, Geometry, Leaves, Level, Permissions, WalkCoherency};

/// Who sees what an entry of the root leads to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum View {
    /// Devices and CPUs.
    Both,
    /// Devices alone.
    Devices,
    /// CPUs alone.
    Cpus,
}

/// Whether a block is stored with `nT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// It is.
    Set,
    /// It is not.
    Clear,
}

/// How many roots a tree has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Roots {
    /// One, for all walkers.
    One,
    /// One for devices and one for CPUs.
    Two,
}

/// A root, and the tables below it.
///
/// With two roots each of their entries is in both and the same, or in one of them alone: so the
/// tables below are shared, a change of them is one, and a change of an entry in both is two
/// stores. These need no order, for no walker goes through both roots; that they go before the same
/// barrier is enough.
///
/// Dropping it leaks all of them.
pub(crate) struct Tree<'p, P> {
    platform: &'p P,
    geometry: Geometry,
    coherency: WalkCoherency,
    /// The devices', if there are two.
    root: Frames,
    cpu_root: Option<Frames>,
    pool: Pool<'p, P>,
}

impl<'p, P: Platform> Tree<'p, P> {
    /// A root that maps nothing, seen by every walker.
    pub(crate) fn new(
        platform: &'p P,
        geometry: Geometry,
        coherency: WalkCoherency,
        shape: PoolShape,
        roots: Roots,
    ) -> Result<Self, NoTables> {
        let output_bits = geometry.output_bits();
        let log2_root = geometry.log2_root_bytes();
        let root = allocate(platform, log2_root, output_bits)?;
        let cpu_root = match roots {
            Roots::One => None,
            Roots::Two => match allocate(platform, log2_root, output_bits) {
                Ok(frames) => Some(frames),
                Err(refusal) => {
                    platform.free(root);
                    return Err(refusal);
                }
            },
        };
        let log2_page = geometry.granule().log2_bytes();
        let pool = Pool::new(platform, root.base(), log2_page, output_bits, shape);
        for frames in [Some(&root), cpu_root.as_ref()].into_iter().flatten() {
            frames.fill(platform, Descriptor::INVALID.as_u64());
            if coherency == WalkCoherency::Clean {
                platform.clean(frames.words(platform));
            }
        }
        platform.barrier(Barrier::Publish);
        Ok(Self {
            platform,
            geometry,
            coherency,
            root,
            cpu_root,
            pool,
        })
    }

    /// The shape of the tables.
    pub(crate) const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Whether words are cleaned.
    pub(crate) const fn coherency(&self) -> WalkCoherency {
        self.coherency
    }

    /// Where the root is, the devices' if there are two.
    pub(crate) const fn root_address(&self) -> Pa {
        self.root.base()
    }

    /// Where the root is, the CPUs' if there are two.
    pub(crate) const fn cpu_root_address(&self) -> Pa {
        match &self.cpu_root {
            Some(root) => root.base(),
            None => self.root.base(),
        }
    }

    /// How many roots there are.
    pub(crate) const fn roots(&self) -> Roots {
        match self.cpu_root {
            Some(_) => Roots::Two,
            None => Roots::One,
        }
    }

    /// How many pages of the pool are not free.
    pub(crate) const fn used_pages(&self) -> u64 {
        self.pool.used_pages()
    }

    /// The root, to read.
    pub(crate) fn root(&self) -> Node<'_, 'p, P> {
        Node {
            tree: self,
            words: &self.root.words(self.platform)[..self.geometry.root_entries()],
            level: self.geometry.start(),
            page: None,
        }
    }

    /// The root, to change: what is there, in each root that has it.
    pub(crate) fn edit(&mut self) -> EditNode<'_, 'p, P> {
        self.edit_in(View::Both)
    }

    /// The root, to change, what is new being for `view`.
    pub(crate) fn edit_in(&mut self, view: View) -> EditNode<'_, 'p, P> {
        EditNode {
            node: self.root(),
            view,
            alone: PhantomData,
        }
    }

    /// Everything stored before is seen by walkers before anything stored after.
    pub(crate) fn publish(&self) {
        self.platform.barrier(Barrier::Publish);
    }

    /// Puts `count` pages aside, so that as many [`EditNode::build`] cannot fail.
    pub(crate) fn reserve(&mut self, count: u64) -> Result<(), NoTables> {
        self.pool.reserve(count)
    }

    /// Gives back what was put aside and not used.
    pub(crate) fn release_reserve(&mut self) {
        self.pool.release_reserve();
    }

    /// An empty chain, for pages of this tree.
    pub(crate) const fn chain(&self) -> Chain<'p, P> {
        self.pool.chain()
    }

    /// Whether `chain` is for pages of this tree.
    #[inline]
    pub(crate) fn owns(&self, chain: &Chain<'p, P>) -> bool {
        self.pool.owns(chain)
    }

    /// Frees pages that no walker can reach.
    ///
    /// # Errors
    ///
    /// `chain`, if it is another tree's.
    pub(crate) fn reclaim(&mut self, chain: Chain<'p, P>) -> Result<(), Chain<'p, P>> {
        self.pool.reclaim(chain)
    }

    /// Frees the root and every table of the tree, none of which a walker can reach any more.
    ///
    /// Says how many pages were not in the tree, retired and not reclaimed. They stay out of use
    /// then, and the root with them: its address is what tells their chain from others.
    pub(crate) fn destroy(mut self) -> u64 {
        let mut chain = self.chain();
        let root = self.edit();
        for index in 0..root.entries() {
            root.retire(index, &mut chain);
        }
        // Its own pages: it cannot refuse them.
        let _ = self.pool.reclaim(chain);
        let missing = self.pool.used_pages();
        self.pool.close();
        if missing == 0 {
            self.platform.free(self.root);
        }
        if let Some(root) = self.cpu_root {
            self.platform.free(root);
        }
        missing
    }
}

/// A table of the tree, to read.
pub(crate) struct Node<'t, 'p, P> {
    tree: &'t Tree<'p, P>,
    words: &'t [AtomicU64],
    level: Level,
    /// Its page; the root has none.
    page: Option<Pa>,
}

impl<P> Clone for Node<'_, '_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P> Copy for Node<'_, '_, P> {}

impl<'t, 'p, P: Platform> Node<'t, 'p, P> {
    /// Its level.
    #[inline]
    pub(crate) const fn level(&self) -> Level {
        self.level
    }

    /// The shape of the tree.
    #[inline]
    pub(crate) const fn geometry(&self) -> &'t Geometry {
        &self.tree.geometry
    }

    /// How many bytes one of its entries covers, as a power of two.
    #[inline]
    pub(crate) const fn log2_span(&self) -> u8 {
        self.tree.geometry.granule().log2_span(self.level)
    }

    /// How many entries it has.
    #[inline]
    pub(crate) const fn entries(&self) -> usize {
        self.words.len()
    }

    /// Which entry translates `ipa`.
    #[inline]
    pub(crate) const fn index(&self, ipa: Ipa) -> usize {
        let number = ipa.as_u64() >> self.log2_span();
        number as usize & (self.words.len() - 1)
    }

    /// Everything stored to the tree before is seen by walkers before anything stored after.
    pub(crate) fn publish(&self) {
        self.tree.publish();
    }

    /// The same entries in the CPUs' root, if this is a root and there are two.
    #[inline]
    fn twin(&self) -> Option<&'t [AtomicU64]> {
        match (self.page, &self.tree.cpu_root) {
            (None, Some(root)) => {
                Some(&root.words(self.tree.platform)[..self.tree.geometry.root_entries()])
            }
            _ => None,
        }
    }

    /// The entry `index`, in whichever root it is.
    #[inline]
    pub(crate) fn descriptor(&self, index: usize) -> Descriptor {
        let word = self.tree.platform.load(&self.words[index]);
        match self.twin() {
            Some(twin) if word == 0 => Descriptor::from_u64(self.tree.platform.load(&twin[index])),
            _ => Descriptor::from_u64(word),
        }
    }

    /// Who sees entry `index`, of a root; `None` if nothing is there.
    pub(crate) fn view(&self, index: usize) -> Option<View> {
        let has = |words: &[AtomicU64]| self.tree.platform.load(&words[index]) != 0;
        let devices = has(self.words);
        match (devices, self.twin().map_or(devices, has)) {
            (true, true) => Some(View::Both),
            (true, false) => Some(View::Devices),
            (false, true) => Some(View::Cpus),
            (false, false) => None,
        }
    }

    /// The table that entry `index` leads to, if it does.
    #[inline]
    pub(crate) fn child(&self, index: usize) -> Option<Self> {
        let descriptor = self.descriptor(index);
        if !descriptor.is_table(self.level) {
            return None;
        }
        let page = descriptor.address(self.tree.geometry.granule());
        Some(self.below(page, self.level.next()?))
    }

    #[inline]
    fn below(&self, page: Pa, level: Level) -> Self {
        let first = self.tree.platform.pointer(page);
        let count = 1 << self.tree.geometry.granule().bits_per_level();
        // SAFETY: `page` is a whole page of the pool's, taken from it by `EditNode::build` and
        // not given back, as that takes the tree mutably, which this node's borrow excludes (see
        // the module's text). Atomics may be shared and raced on.
        let words = unsafe { core::slice::from_raw_parts(first.as_ptr(), count) };
        Self {
            tree: self.tree,
            words,
            level,
            page: Some(page),
        }
    }
}

/// A table of the tree, or one that is to become part of it, to change.
///
/// Holds the tree mutably and stays on its thread, so that all such nodes of one tree are in one
/// hand.
pub(crate) struct EditNode<'t, 'p, P> {
    node: Node<'t, 'p, P>,
    /// For whom an entry of a root is that was not there before.
    view: View,
    alone: PhantomData<*const ()>,
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

    /// The table's words, and those of the other root if there is one.
    #[inline]
    fn both(&self) -> impl Iterator<Item = &'t [AtomicU64]> + use<'t, 'p, P> {
        core::iter::once(self.words).chain(self.twin())
    }

    fn clean(&self, first: usize, count: usize) {
        if self.tree.coherency == WalkCoherency::Clean {
            for words in self.both() {
                self.tree.platform.clean(&words[first..first + count]);
            }
        }
    }

    #[inline]
    fn put(&self, index: usize, descriptor: Descriptor) {
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
            for (offset, word) in words[first..first + count].iter().enumerate() {
                self.tree.platform.store(word, leaves.at(offset).as_u64());
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
        let end = first + count;
        for index in (0..first).chain(end..child.entries()) {
            child.put(index, Descriptor::INVALID);
        }
        match leaves {
            Some(leaves) => child.fill_words(first, count, leaves),
            None => (first..end).for_each(|index| child.put(index, Descriptor::INVALID)),
        }
        child.clean(0, child.entries());
        Some(Orphan(child))
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
        let mut changed = 0;
        for word in self.both().flat_map(|words| &words[first..first + count]) {
            let old = Descriptor::from_u64(self.tree.platform.load(word));
            let new = change(old);
            if old.is_valid() && !old.is_table(self.level) && new != old {
                self.tree.platform.store(word, new.as_u64());
                changed += 1;
            }
        }
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
        self.put(index, descriptor);
        self.clean(index, 1);
        Some(child.collect(chain))
    }

    /// Bounded by the number of levels.
    fn collect(&self, chain: &mut Chain<'p, P>) -> u8 {
        let mut levels = 0;
        if self.level == Level::L3 {
            levels |= 1 << Level::L3.as_u8();
        } else {
            for index in 0..self.entries() {
                match self.edit_child(index) {
                    Some(child) => levels |= child.collect(chain),
                    None if self.descriptor(index).is_valid() => levels |= 1 << self.level.as_u8(),
                    None => {}
                }
            }
        }
        if let Some(page) = self.page {
            self.tree.pool.retire(page, chain);
        }
        levels
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
