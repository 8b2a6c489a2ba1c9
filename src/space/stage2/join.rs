//! Making one leaf of a table whose leaves map consecutive memory alike, and groups of leaves.

use super::range::{Range, level_bit};
use super::split::Hints;
use crate::addr::{Ipa, Pa};
use crate::hw::{Chain, EditNode, Mark, Node, Platform};
use crate::smmu::{Gathered, Removed};
use crate::spec::vmsa::{Attributes, Decoded, Leaves};

/// What entry `index` maps, with all tables below it, if one leaf could say the same.
fn as_one<P: Platform>(node: Node<'_, '_, P>, index: usize) -> Option<(Pa, Attributes)> {
    let (geometry, level) = (node.geometry(), node.level());
    let Some(child) = node.child(index) else {
        return match node.descriptor(index).decode(geometry, level) {
            Decoded::Leaf { pa, attributes } => Some((pa, attributes)),
            _ => None,
        };
    };
    let (pa, attributes) = as_one(child, 0)?;
    if !geometry.has_leaves(level) || !pa.is_aligned(node.log2_span()) {
        return None;
    }
    let follows = |index: usize| {
        let pa = pa.checked_add((index as u64) << child.log2_span());
        pa.map(|pa| (pa, attributes)) == as_one(child, index)
    };
    (1..child.entries())
        .all(follows)
        .then_some((pa, attributes))
}

/// The first table in `range` that one leaf could stand for: its base and size, as a power of two.
pub(super) fn first<P: Platform>(node: Node<'_, '_, P>, range: Range) -> Option<(Ipa, u8)> {
    let log2_span = node.log2_span();
    let mut parts = (node.index(range.base())..).zip(range.entries(log2_span));
    parts.find_map(|(index, part)| {
        let child = node.child(index)?;
        if part.is_whole(log2_span) && as_one(node, index).is_some() {
            return Some((part.base(), log2_span));
        }
        first(child, part)
    })
}

/// Puts one leaf in the place of every table of `range` that it can stand for, `mark` in it.
pub(super) fn join<'p, P: Platform>(
    node: EditNode<'_, 'p, P>,
    range: Range,
    mark: Mark,
    gathered: &mut Gathered,
    chain: &mut Chain<'p, P>,
) {
    let log2_span = node.log2_span();
    for (index, part) in (node.index(range.base())..).zip(range.entries(log2_span)) {
        let Some(child) = node.edit_child(index) else {
            continue;
        };
        let one = as_one(*node, index).filter(|_| part.is_whole(log2_span));
        let leaf = one.and_then(|(pa, attributes)| {
            Leaves::new(node.geometry(), node.level(), pa, attributes)
        });
        match leaf.and_then(|leaf| node.merge(index, &leaf, mark, chain)) {
            Some(levels) => gathered.add(part.base(), part.size_bytes(), levels, Removed::Tables),
            None => join(child, part, mark, gathered, chain),
        }
    }
}

/// Takes `nT` from every block of `range`, and gives the contiguous hint to every group that is
/// one.
pub(super) fn settle<P: Platform>(
    node: EditNode<'_, '_, P>,
    range: Range,
    hints: Hints,
    gathered: &mut Gathered,
) {
    let log2_span = node.log2_span();
    for (index, part) in (node.index(range.base())..).zip(range.entries(log2_span)) {
        if let Some(child) = node.edit_child(index) {
            settle(child, part, hints, gathered);
        } else if node.unmark(index) {
            let bit = level_bit(node.level());
            let whole = part.widened(log2_span);
            gathered.add(whole.base(), whole.size_bytes(), bit, Removed::Leaves);
        }
    }
    if hints == Hints::Set {
        group(node, range, gathered);
    }
}

/// Gives the hint to every group of leaves of this table that lies in `range` and maps consecutive
/// memory alike.
fn group<P: Platform>(node: EditNode<'_, '_, P>, range: Range, gathered: &mut Gathered) {
    let (level, log2_span) = (node.level(), node.log2_span());
    let Some(log2_entries) = node.geometry().granule().log2_contiguous(level) else {
        return;
    };
    let log2_group = log2_span + log2_entries;
    let members = 1 << log2_entries;
    for part in range.entries(log2_group) {
        let first = node.index(part.base());
        if part.is_whole(log2_group) && is_group(*node, first, members) {
            node.group(first, members);
            let bit = level_bit(level);
            gathered.add(part.base(), part.size_bytes(), bit, Removed::Leaves);
        }
    }
}

/// Whether the leaves at `members` entries from `first` could have the hint, and have it not.
fn is_group<P: Platform>(node: Node<'_, '_, P>, first: usize, members: usize) -> bool {
    if first + members > node.entries() || node.descriptor(first).is_grouped() {
        return false;
    }
    let leaf = |index| match node.descriptor(index).decode(node.geometry(), node.level()) {
        Decoded::Leaf { pa, attributes } => Some((pa.as_u64(), attributes)),
        _ => None,
    };
    let Some((pa, attributes)) = leaf(first) else {
        return false;
    };
    let log2_span = node.log2_span();
    pa % ((members as u64) << log2_span) == 0
        && (1..members).all(|member| {
            leaf(first + member) == Some((pa + ((member as u64) << log2_span), attributes))
                && node.view(first + member) == node.view(first)
        })
}
