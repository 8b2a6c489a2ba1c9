//! Changing what is mapped: unmapping and protecting whole leaves.

use super::Stage2Error;
use super::range::{Range, level_bit, one_table};
use super::split::{cuts_a_group, ungroup_ends};
use crate::hw::{Chain, EditNode, Node, Platform, Tree};
use crate::smmu::{Gathered, Removed};
use crate::spec::vmsa::{Level, Permissions};

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

/// As [`clear`], if that is a matter of leaves in one table; says whether it was. Notes in
/// `ungrouped` the groups that are none any more; without it there are no groups.
#[inline]
pub(super) fn clear_in_one_table<'p, P: Platform>(
    tree: &mut Tree<'p, P>,
    range: Range,
    gathered: &mut Gathered,
    ungrouped: Option<&mut Gathered>,
    chain: &mut Chain<'p, P>,
) -> bool {
    let Some(node) = one_table(tree.edit(), range) else {
        return false;
    };
    if let Some(ungrouped) = ungrouped {
        ungroup_ends(&node, range, gathered, ungrouped);
    }
    let count = (range.size_bytes() >> node.log2_span()) as usize;
    if node.clear(node.index(range.base()), count) != 0 {
        let bit = level_bit(node.level());
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

/// As [`protect`], if that is a matter of leaves in one table, all mapped, of which no group is cut;
/// says whether it was.
#[inline]
pub(super) fn protect_in_one_table<P: Platform>(
    tree: &mut Tree<'_, P>,
    range: Range,
    permissions: Permissions,
    gathered: &mut Gathered,
) -> bool {
    let Some(node) = one_table(tree.edit(), range) else {
        return false;
    };
    let first = node.index(range.base());
    let count = (range.size_bytes() >> node.log2_span()) as usize;
    let has_hole = (0..count).any(|offset| !node.descriptor(first + offset).is_valid());
    if has_hole || cuts_a_group(&node, range) {
        return false;
    }
    if node.protect(first, count, permissions) != 0 {
        let bit = level_bit(node.level());
        gathered.add(range.base(), range.size_bytes(), bit, Removed::Leaves);
        tree.publish();
    }
    true
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
