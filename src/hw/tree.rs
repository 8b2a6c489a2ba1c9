//! Tables in memory that a device walks, as nodes that safe code can read and change.
//!
//! What makes following a table descriptor safe: only [`EditNode`] writes tables; the only table
//! descriptors it writes lead to pages that it took from the pool for that purpose and filled
//! before; such a page has one place in the tree (with two roots, that may be the same entry of
//! both, which change together); it returns to the pool only by way of a [`Chain`], that is after
//! its place was cleared or became a leaf, and while no node exists. Hardware writes no descriptor,
//! as no hardware update of the access flag or dirty state is ever turned on.

mod edit;

pub(crate) use edit::{EditNode, Mark, Orphan};

use core::marker::PhantomData;
use core::sync::atomic::AtomicU64;

use super::pool::{Chain, NoTables, Pool, PoolShape, allocate};
use super::{Barrier, Frames, Platform};
use crate::addr::{Ipa, Pa};
use crate::spec::vmsa::{Descriptor, Geometry, Level, WalkCoherency};

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

    /// The table of which the bytes from `first` to before `end`, at least one, are whole entries:
    /// as far down as there are tables that hold all of them.
    #[inline]
    pub(crate) fn narrow(self, first: u64, end: u64) -> Option<Self> {
        let bits = self.tree.geometry.granule().bits_per_level();
        let mut log2_span = self.log2_span();
        let mut node = self;
        loop {
            if (first | end) & ((1 << log2_span) - 1) == 0 {
                return Some(node);
            }
            if (first ^ (end - 1)) >> log2_span != 0 {
                return None;
            }
            let index = (first >> log2_span) as usize & (node.words.len() - 1);
            node = node.child(index)?;
            log2_span -= bits;
        }
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
