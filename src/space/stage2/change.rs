//! Changing what is mapped: unmapping, protecting, and splitting where nobody walks.

use super::range::{Range, find, level_bit, one_table};
use super::{Stage2Error, Walkers};
use crate::addr::Ipa;
use crate::hw::{Chain, EditNode, Node, Platform, Tree};
use crate::smmu::{Gathered, Removed};
use crate::spec::vmsa::{Decoded, Leaves, Level, Permissions};

/// Refuses a range with a hole.
pub(super) fn expect_mapped<P: Platform>(
    node: Node<'_, '_, P>,
    range: Range,
) -> Result<(), Stage2Error> {
    let log2_span = node.log2_span();
    for (index, part) in (node.index(range.base())..).zip(range.entries(log2_span)) {
        match node.child(index) {
            Some(child) => expect_mapped(child, part)?,
            None if node.descriptor(index).is_valid() => {}
            None => return Err(Stage2Error::NotMapped { ipa: part.base() }),
        }
    }
    Ok(())
}

/// A leaf that has an address inside of it.
#[derive(Clone, Copy)]
struct Straddled {
    at: u64,
    level: Level,
    log2_span: u8,
}

impl Straddled {
    const fn base(self) -> Ipa {
        Ipa::new(self.at >> self.log2_span << self.log2_span)
    }

    /// Whether entries of `level` must be split for it, `log2_span` being what they cover.
    const fn cuts(self, level: Level, log2_span: u8) -> bool {
        level.as_u8() >= self.level.as_u8() && !Ipa::new(self.at).is_aligned(log2_span)
    }
}

fn straddled<P: Platform>(tree: &Tree<'_, P>, at: u64) -> Option<Straddled> {
    if !tree.geometry().holds_input(Ipa::new(at), 1) {
        return None;
    }
    let (node, index) = find(tree.root(), Ipa::new(at));
    let (level, log2_span) = (node.level(), node.log2_span());
    if Ipa::new(at).is_aligned(log2_span) || !node.descriptor(index).is_valid() {
        return None;
    }
    Some(Straddled {
        at,
        level,
        log2_span,
    })
}

/// Makes both ends of the range ends of leaves, or refuses.
pub(super) fn divide<P: Platform>(
    tree: &mut Tree<'_, P>,
    range: Range,
    walkers: Walkers,
    gathered: &mut Gathered,
) -> Result<(), Stage2Error> {
    let first = straddled(tree, range.first);
    let end = straddled(tree, range.end);
    let Some(leaf) = first.or(end) else {
        return Ok(());
    };
    if walkers == Walkers::Live {
        return Err(Stage2Error::SplitNeeded {
            ipa: leaf.base(),
            log2_bytes: leaf.log2_span,
        });
    }
    let tables = tables_to_divide(tree, first, end);
    tree.reserve(tables).map_err(Stage2Error::NoTables)?;
    for leaf in [first, end].into_iter().flatten() {
        split(tree.edit(), leaf.at);
        let size_bytes = 1 << leaf.log2_span;
        gathered.add(
            leaf.base(),
            size_bytes,
            level_bit(leaf.level),
            Removed::Leaves,
        );
    }
    tree.publish();
    Ok(())
}

/// How many tables it takes to split at both places.
fn tables_to_divide<P: Platform>(
    tree: &Tree<'_, P>,
    first: Option<Straddled>,
    end: Option<Straddled>,
) -> u64 {
    let granule = tree.geometry().granule();
    let inner = Level::ALL.into_iter().filter(|level| *level != Level::L3);
    inner
        .map(|level| {
            let log2_span = granule.log2_span(level);
            let cut = |leaf: &Straddled| leaf.cuts(level, log2_span);
            match (first.filter(cut), end.filter(cut)) {
                (Some(one), Some(two)) if one.at >> log2_span != two.at >> log2_span => 2,
                (None, None) => 0,
                _ => 1,
            }
        })
        .sum()
}

/// Replaces leaves by tables of smaller ones until one begins at `at`.
fn split<P: Platform>(root: EditNode<'_, '_, P>, at: u64) {
    let mut node = root;
    while !Ipa::new(at).is_aligned(node.log2_span()) {
        let index = node.index(Ipa::new(at));
        if let Some((leaves, count)) = halves(&node, index) {
            let table = node.build(0, count, Some(&leaves));
            let table = table.expect("as many tables were reserved as `tables_to_divide` counted");
            node.replace(index, table);
        }
        let Some(child) = node.edit_child(index) else {
            return;
        };
        node = child;
    }
}

/// The leaves of the next level that do what leaf `index` does, and how many there are.
fn halves<P: Platform>(node: &EditNode<'_, '_, P>, index: usize) -> Option<(Leaves, usize)> {
    let geometry = node.geometry();
    let Decoded::Leaf { pa, attributes } = node.descriptor(index).decode(geometry, node.level())
    else {
        return None;
    };
    let leaves = Leaves::new(geometry, node.level().next()?, pa, attributes)?;
    Some((leaves, 1 << geometry.granule().bits_per_level()))
}

/// As [`clear`], if that is a matter of one last-level table; says whether it was.
#[inline]
pub(super) fn clear_in_one_table<'p, P: Platform>(
    tree: &mut Tree<'p, P>,
    range: Range,
    gathered: &mut Gathered,
    chain: &mut Chain<'p, P>,
) -> bool {
    let Some(node) = one_table(tree.edit(), range) else {
        return false;
    };
    let count = (range.size_bytes() >> node.log2_span()) as usize;
    if node.clear(node.index(range.base()), count) != 0 {
        let bit = level_bit(Level::L3);
        gathered.add(range.base(), range.size_bytes(), bit, Removed::Leaves);
        if node.is_empty() {
            sweep(tree.edit(), range, gathered, chain);
        }
        tree.publish();
    }
    true
}

/// Clears every leaf of the range, and takes tables away that have none left.
pub(super) fn clear<'p, P: Platform>(
    tree: &mut Tree<'p, P>,
    range: Range,
    gathered: &mut Gathered,
    chain: &mut Chain<'p, P>,
) {
    if sweep(tree.edit(), range, gathered, chain) != 0 {
        tree.publish();
    }
}

/// Clears below `node`; says how many descriptors it cleared, at any level.
fn sweep<'p, P: Platform>(
    node: EditNode<'_, 'p, P>,
    range: Range,
    gathered: &mut Gathered,
    chain: &mut Chain<'p, P>,
) -> usize {
    let (level, log2_span) = (node.level(), node.log2_span());
    let first = node.index(range.base());
    let bit = level_bit(level);
    if level == Level::L3 {
        let cleared = node.clear(first, (range.size_bytes() >> log2_span) as usize);
        if cleared != 0 {
            gathered.add(range.base(), range.size_bytes(), bit, Removed::Leaves);
        }
        return cleared;
    }
    let mut cleared = 0;
    for (index, part) in (first..).zip(range.entries(log2_span)) {
        let Some(child) = node.edit_child(index) else {
            if node.clear(index, 1) != 0 {
                gathered.add(part.base(), part.size_bytes(), bit, Removed::Leaves);
                cleared += 1;
            }
            continue;
        };
        if !part.is_whole(log2_span) {
            cleared += sweep(child, part, gathered, chain);
            if !child.is_empty() {
                continue;
            }
        }
        // A table that was swept empty is cut off like one that goes whole. Its part is noted as
        // whole entries, so that a range of blocks stays one of blocks.
        let part = part.widened(child.log2_span());
        if let Some(levels) = node.retire(index, chain) {
            gathered.add(part.base(), part.size_bytes(), levels, Removed::Tables);
            cleared += 1;
        }
    }
    cleared
}

/// Gives every leaf of the range these permissions.
pub(super) fn protect<P: Platform>(
    tree: &mut Tree<'_, P>,
    range: Range,
    permissions: Permissions,
    gathered: &mut Gathered,
) {
    grant(tree.edit(), range, permissions, gathered);
    if !gathered.is_nothing() {
        tree.publish();
    }
}

fn grant<P: Platform>(
    node: EditNode<'_, '_, P>,
    range: Range,
    permissions: Permissions,
    gathered: &mut Gathered,
) {
    let (level, log2_span) = (node.level(), node.log2_span());
    let first = node.index(range.base());
    if level == Level::L3 {
        let count = (range.size_bytes() >> log2_span) as usize;
        if node.protect(first, count, permissions) != 0 {
            gathered.add(
                range.base(),
                range.size_bytes(),
                level_bit(level),
                Removed::Leaves,
            );
        }
        return;
    }
    for (index, part) in (first..).zip(range.entries(log2_span)) {
        if let Some(child) = node.edit_child(index) {
            grant(child, part, permissions, gathered);
        } else if node.protect(index, 1, permissions) != 0 {
            gathered.add(
                part.base(),
                part.size_bytes(),
                level_bit(level),
                Removed::Leaves,
            );
        }
    }
}
