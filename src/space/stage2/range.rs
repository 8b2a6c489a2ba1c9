//! Where in the tables a range lies.

use crate::addr::Ipa;
use crate::hw::{EditNode, Node, Platform};
use crate::spec::vmsa::Level;

/// Input addresses: whole pages, at least one, none past the input size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) end: u64,
}

impl Range {
    /// Its parts, cut where entries of `2^log2_span` bytes meet.
    #[inline]
    pub(super) fn entries(self, log2_span: u8) -> impl Iterator<Item = Self> {
        let numbers = self.first >> log2_span..=(self.end - 1) >> log2_span;
        numbers.map(move |number| Self {
            first: self.first.max(number << log2_span),
            end: self.end.min((number + 1) << log2_span),
        })
    }

    /// Whether it is all of an entry of `2^log2_span` bytes, one of those it was cut at.
    pub(super) const fn is_whole(self, log2_span: u8) -> bool {
        self.end - self.first == 1 << log2_span
    }

    /// The entries of `2^log2_span` bytes that it has a part of.
    pub(super) const fn widened(self, log2_span: u8) -> Self {
        let mask = (1 << log2_span) - 1;
        Self {
            first: self.first & !mask,
            end: (self.end + mask) & !mask,
        }
    }

    /// Whether it shares an address with `other`.
    pub(super) const fn meets(self, other: Self) -> bool {
        self.first < other.end && other.first < self.end
    }

    pub(super) const fn base(self) -> Ipa {
        Ipa::new(self.first)
    }

    pub(super) const fn size_bytes(self) -> u64 {
        self.end - self.first
    }
}

/// The innermost table that translates `ipa`, and the entry.
#[inline]
pub(super) fn find<'t, 'p, P: Platform>(
    root: Node<'t, 'p, P>,
    ipa: Ipa,
) -> (Node<'t, 'p, P>, usize) {
    let mut node = root;
    loop {
        let index = node.index(ipa);
        match node.child(index) {
            Some(child) => node = child,
            None => return (node, index),
        }
    }
}

/// As [`find`], to change.
pub(super) fn find_edit<'t, 'p, P: Platform>(
    root: EditNode<'t, 'p, P>,
    ipa: Ipa,
) -> (EditNode<'t, 'p, P>, usize) {
    let mut node = root;
    loop {
        let index = node.index(ipa);
        match node.edit_child(index) {
            Some(child) => node = child,
            None => return (node, index),
        }
    }
}

/// The table of which `range` is whole entries, none of which leads to a table, if there is one.
///
/// The way of all changes of single pages and blocks: one descent, and no leaf can be cut.
#[inline]
pub(super) fn one_table<'t, 'p, P: Platform>(
    root: EditNode<'t, 'p, P>,
    range: Range,
) -> Option<EditNode<'t, 'p, P>> {
    let node = root.edit_narrow(range.first, range.end)?;
    if node.level() == Level::L3 {
        return Some(node);
    }
    let first = node.index(range.base());
    let count = (range.size_bytes() >> node.log2_span()) as usize;
    let leads_on = |offset| node.descriptor(first + offset).is_table(node.level());
    (!(0..count).any(leads_on)).then_some(node)
}

/// How a level is noted in a set of levels.
pub(super) const fn level_bit(level: Level) -> u8 {
    1 << level.as_u8()
}
