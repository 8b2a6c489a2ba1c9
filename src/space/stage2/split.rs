//! Making the ends of a range ends of leaves and of contiguous groups.
//!
//! What lies across an end is a block, a contiguous group, or a block that is one of a group. The
//! hint goes from the whole group first, and a barrier lies between that and any change of a
//! member, so that no walker finds a group whose members differ. A block is replaced by a table
//! that does the same, complete before it is linked, with one store.

use super::Stage2Error;
use super::range::{Range, find, find_edit, level_bit};
use crate::addr::Ipa;
use crate::hw::{EditNode, NoTables, Orphan, Platform, Tree};
use crate::smmu::{Gathered, Removed};
use crate::spec::vmsa::{BbmLevel, Decoded, Leaves, Level};

/// What is to become of one side of a cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// It goes: nothing there can be cached beside what a group left in a cache.
    Removal,
    /// It stays with other permissions, which must not meet the group's in a cache.
    Permissions,
}

/// An address at which a leaf must begin, and the leaf that does not end there.
#[derive(Clone, Copy, Debug)]
struct Cut {
    at: u64,
    level: Level,
    /// The size of the leaf, as a power of two.
    log2_leaf: u8,
    /// The size of its group, or its own if it is not in one.
    log2_group: u8,
}

impl Cut {
    fn find<P: Platform>(tree: &Tree<'_, P>, at: u64) -> Option<Self> {
        let ipa = Ipa::new(at);
        if !tree.geometry().holds_input(ipa, 1) {
            return None;
        }
        let (node, index) = find(tree.root(), ipa);
        let leaf = node.descriptor(index);
        if !leaf.is_valid() {
            return None;
        }
        let (level, log2_leaf) = (node.level(), node.log2_span());
        let granule = tree.geometry().granule();
        let log2_group = match granule.log2_contiguous(level) {
            Some(log2_entries) if leaf.is_grouped() => log2_leaf + log2_entries,
            _ => log2_leaf,
        };
        let cut = Self {
            at,
            level,
            log2_leaf,
            log2_group,
        };
        (!ipa.is_aligned(log2_group)).then_some(cut)
    }

    const fn splits_a_block(&self) -> bool {
        !Ipa::new(self.at).is_aligned(self.log2_leaf)
    }

    const fn leaf(&self) -> u64 {
        self.at >> self.log2_leaf << self.log2_leaf
    }

    const fn group(&self) -> u64 {
        self.at >> self.log2_group << self.log2_group
    }

    /// Where what must be cut begins, and its size as a power of two.
    const fn subject(&self) -> (Ipa, u8) {
        if self.splits_a_block() {
            (Ipa::new(self.leaf()), self.log2_leaf)
        } else {
            (Ipa::new(self.group()), self.log2_group)
        }
    }

    /// Whether entries of `level` must be split for it, `log2_span` being what they cover.
    const fn splits(&self, level: Level, log2_span: u8) -> bool {
        level.as_u8() >= self.level.as_u8() && !Ipa::new(self.at).is_aligned(log2_span)
    }
}

/// The cuts that a range takes, at most one at each end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cuts([Option<Cut>; 2]);

impl Cuts {
    /// What lies across the ends of `range`.
    pub(super) fn find<P: Platform>(tree: &Tree<'_, P>, range: Range) -> Self {
        Self([range.first, range.end].map(|at| Cut::find(tree, at)))
    }

    fn iter(&self) -> impl Iterator<Item = &Cut> {
        self.0.iter().flatten()
    }

    /// One cut for each block that must be split.
    fn blocks(&self) -> [Option<Cut>; 2] {
        let [first, end] = self.0.map(|cut| cut.filter(Cut::splits_a_block));
        let is_same = matches!((first, end), (Some(one), Some(two)) if one.leaf() == two.leaf());
        [first, end.filter(|_| !is_same)]
    }

    /// Refuses what walkers of that level cannot bear in one go.
    pub(super) fn expect_direct(
        &self,
        level: BbmLevel,
        purpose: Purpose,
    ) -> Result<(), Stage2Error> {
        self.expect_possible(level)?;
        let needs_two = |cut: &&Cut| cut.splits_a_block() || purpose == Purpose::Permissions;
        match self.iter().find(needs_two).map(Cut::subject) {
            Some((ipa, log2_bytes)) if level == BbmLevel::Level1 => {
                Err(Stage2Error::SplitNeeded { ipa, log2_bytes })
            }
            _ => Ok(()),
        }
    }

    /// Refuses what walkers of that level cannot bear at all.
    pub(super) fn expect_possible(&self, level: BbmLevel) -> Result<(), Stage2Error> {
        match self.iter().next().map(Cut::subject) {
            Some((ipa, log2_bytes)) if level == BbmLevel::Level0 => {
                Err(Stage2Error::BreakNeeded { ipa, log2_bytes })
            }
            _ => Ok(()),
        }
    }

    /// Puts as many tables aside as [`perform`](Self::perform) will take.
    pub(super) fn reserve<P: Platform>(&self, tree: &mut Tree<'_, P>) -> Result<(), NoTables> {
        let granule = tree.geometry().granule();
        let inner = Level::ALL.into_iter().filter(|level| *level != Level::L3);
        let [first, end] = self.0.map(|cut| cut.filter(Cut::splits_a_block));
        let tables = inner
            .map(|level| {
                let log2_span = granule.log2_span(level);
                let cut = |cut: &Cut| cut.splits(level, log2_span);
                match (first.filter(cut), end.filter(cut)) {
                    (Some(one), Some(two)) if one.at >> log2_span != two.at >> log2_span => 2,
                    (None, None) => 0,
                    _ => 1,
                }
            })
            .sum();
        tree.reserve(tables)
    }

    /// Makes every cut, with what [`reserve`](Self::reserve) put aside; notes in `ungrouped` the
    /// groups that are none any more.
    pub(super) fn perform<P: Platform>(
        &self,
        tree: &mut Tree<'_, P>,
        hints: Hints,
        gathered: &mut Gathered,
        ungrouped: &mut Gathered,
    ) {
        if self.iter().next().is_none() {
            return;
        }
        let root = tree.edit();
        self.ungroup(root, gathered, ungrouped);
        let ends = self.0.map(|cut| cut.map(|cut| cut.at));
        let tables = self.blocks().map(|block| {
            let (node, index) = find_edit(root, Ipa::new(block?.at));
            Some((
                node,
                index,
                sprout(&node, index, block?.leaf(), ends, hints)?,
            ))
        });
        // The new tables are complete, and the hints gone, for whoever finds what comes now.
        root.publish();
        for (node, index, table) in tables.into_iter().flatten() {
            node.replace(index, table);
        }
        for block in self.blocks().into_iter().flatten() {
            note(block.leaf(), block.log2_leaf, block.level, gathered);
        }
    }

    /// The first step where `nT` is needed: what will be cut is cached so that nothing conflicts.
    pub(super) fn mark<P: Platform>(
        &self,
        tree: &mut Tree<'_, P>,
        gathered: &mut Gathered,
        ungrouped: &mut Gathered,
    ) {
        let root = tree.edit();
        self.ungroup(root, gathered, ungrouped);
        for block in self.blocks().into_iter().flatten() {
            let (node, index) = find_edit(root, Ipa::new(block.at));
            node.mark(index);
            // Also where it was marked before: that may never have been confirmed.
            note(block.leaf(), block.log2_leaf, block.level, gathered);
        }
        if !gathered.is_nothing() {
            root.publish();
        }
    }

    /// Adds what walks cached of the blocks that [`perform`](Self::perform) replaced by tables.
    pub(super) fn note_tables(&self, gathered: &mut Gathered) {
        for block in self.blocks().into_iter().flatten() {
            let (base, bit) = (Ipa::new(block.leaf()), level_bit(block.level));
            gathered.add(base, 1 << block.log2_leaf, bit, Removed::Tables);
        }
    }

    fn ungroup<P: Platform>(
        &self,
        root: EditNode<'_, '_, P>,
        gathered: &mut Gathered,
        ungrouped: &mut Gathered,
    ) {
        for cut in self.iter() {
            let (node, index) = find_edit(root, Ipa::new(cut.at));
            if node.ungroup(index).is_some() {
                note(cut.group(), cut.log2_group, cut.level, gathered);
                note(cut.group(), cut.log2_group, cut.level, ungrouped);
            }
        }
    }
}

/// Whether whole groups of leaves get the contiguous hint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hints {
    /// They do.
    Set,
    /// They do not: some walker could not bear the hint to go.
    Never,
}

fn note(base: u64, log2_bytes: u8, level: Level, gathered: &mut Gathered) {
    let bit = level_bit(level);
    gathered.add(Ipa::new(base), 1 << log2_bytes, bit, Removed::Leaves);
}

/// How large a contiguous group of this table's leaves is, as a power of two.
#[inline]
fn log2_group<P: Platform>(node: &EditNode<'_, '_, P>) -> Option<u8> {
    let log2_entries = node.geometry().granule().log2_contiguous(node.level())?;
    Some(node.log2_span() + log2_entries)
}

/// Whether an end of `range`, whole entries of this table, lies within a contiguous group.
#[inline]
pub(super) fn cuts_a_group<P: Platform>(node: &EditNode<'_, '_, P>, range: Range) -> bool {
    let is_within = |at: u64, log2_group: u8| {
        let at = Ipa::new(at);
        !at.is_aligned(log2_group) && node.descriptor(node.index(at)).is_grouped()
    };
    log2_group(node).is_some_and(|log2| is_within(range.first, log2) || is_within(range.end, log2))
}

/// As the cuts of `range`, whole entries of this table, would.
#[inline]
pub(super) fn ungroup_ends<P: Platform>(
    node: &EditNode<'_, '_, P>,
    range: Range,
    gathered: &mut Gathered,
    ungrouped: &mut Gathered,
) {
    let Some(log2_group) = log2_group(node) else {
        return;
    };
    let mut changed = false;
    for at in [range.first, range.end] {
        if !Ipa::new(at).is_aligned(log2_group) && node.ungroup(node.index(Ipa::new(at))).is_some()
        {
            let group = at >> log2_group << log2_group;
            note(group, log2_group, node.level(), gathered);
            note(group, log2_group, node.level(), ungrouped);
            changed = true;
        }
    }
    if changed {
        node.publish();
    }
}

/// A table of leaves, and tables where `ends` cut these, that does what the block at `index` does.
///
/// `None` if there is no block.
fn sprout<'t, 'p, P: Platform>(
    node: &EditNode<'t, 'p, P>,
    index: usize,
    base: u64,
    ends: [Option<u64>; 2],
    hints: Hints,
) -> Option<Orphan<'t, 'p, P>> {
    let (leaves, count) = halves(node, index, hints)?;
    let log2_block = node.log2_span();
    let is_inside = |at: &u64| at >> log2_block == base >> log2_block;
    let orphan = node.build(0, count, Some(&leaves));
    let orphan = orphan.expect("as many tables were reserved as there are levels to cut");
    let table = *orphan.table();
    let log2_span = table.log2_span();
    for at in ends.into_iter().flatten().filter(is_inside) {
        let index = table.index(Ipa::new(at));
        let granule = node.geometry().granule();
        let log2_group = log2_span + granule.log2_contiguous(table.level()).unwrap_or(0);
        if !Ipa::new(at).is_aligned(log2_group) {
            table.ungroup(index);
        }
        if !Ipa::new(at).is_aligned(log2_span)
            && let Some(inner) = sprout(&table, index, at, ends, hints)
        {
            table.replace(index, inner);
        }
    }
    Some(orphan)
}

/// The leaves of the next level that do what leaf `index` does, and how many there are.
fn halves<P: Platform>(
    node: &EditNode<'_, '_, P>,
    index: usize,
    hints: Hints,
) -> Option<(Leaves, usize)> {
    let geometry = node.geometry();
    let Decoded::Leaf { pa, attributes } = node.descriptor(index).decode(geometry, node.level())
    else {
        return None;
    };
    let granule = geometry.granule();
    let count = 1 << granule.bits_per_level();
    let leaves = Leaves::new(geometry, node.level().next()?, pa, attributes)?;
    Some(match hints {
        Hints::Set => (leaves.grouped(granule, 0, count), count),
        Hints::Never => (leaves, count),
    })
}
