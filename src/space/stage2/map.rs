//! Mapping: look, take, build, publish.

use super::range::{Range, one_table};
use super::split::Hints;
use super::{PageSizes, Stage2Error};
use crate::addr::{Ipa, Pa};
use crate::hw::{EditNode, Node, Orphan, Platform, Tree, View};
use crate::spec::vmsa::{Attributes, Geometry, Leaves, Level};

/// What is to be mapped.
struct Plan {
    geometry: Geometry,
    /// What to add to an input address, wrapping.
    delta: u64,
    attributes: Attributes,
    /// The outermost level at which whole entries become leaves.
    outermost: Level,
    hints: Hints,
}

impl Plan {
    /// To map `range`, which is whole pages, to as many from `pa`.
    fn new(
        geometry: &Geometry,
        range: Range,
        pa: Pa,
        attributes: Attributes,
        sizes: PageSizes,
        hints: Hints,
    ) -> Self {
        let granule = geometry.granule();
        let delta = pa.as_u64().wrapping_sub(range.first);
        let fits = |level: &Level| {
            geometry.has_leaves(*level) && Ipa::new(delta).is_aligned(granule.log2_span(*level))
        };
        let outermost = match sizes {
            PageSizes::PagesOnly => Level::L3,
            PageSizes::Largest => Level::ALL.into_iter().find(fits).unwrap_or(Level::L3),
        };
        Self {
            geometry: *geometry,
            delta,
            attributes,
            outermost,
            hints,
        }
    }

    fn log2_span(&self, level: Level) -> u8 {
        self.geometry.granule().log2_span(level)
    }

    /// The part of `range` that becomes leaves of `level`, possibly empty.
    fn leaves_at(&self, level: Level, range: Range) -> Range {
        let mask = (1 << self.log2_span(level)) - 1;
        let (first, end) = ((range.first + mask) & !mask, range.end & !mask);
        if level < self.outermost || first >= end {
            return Range {
                first: range.end,
                end: range.end,
            };
        }
        Range { first, end }
    }

    /// The leaves for `range`, whole entries of `level`, of which `index` is the first.
    fn leaves(&self, level: Level, range: Range, index: usize) -> Option<Leaves> {
        let pa = Pa::new(range.first.wrapping_add(self.delta));
        let leaves = Leaves::new(&self.geometry, level, pa, self.attributes)?;
        let count = (range.size_bytes() >> self.log2_span(level)) as usize;
        Some(hinted(leaves, self.hints, &self.geometry, index, count))
    }

    /// How many tables it takes to map `range`, within one entry of `level` that leads nowhere.
    fn tables_below(&self, level: Level, range: Range) -> u64 {
        let mut count = 0;
        let mut at = Some(level);
        while let Some(level) = at.filter(|level| *level != Level::L3) {
            let log2_span = self.log2_span(level);
            let (first, end) = (range.first >> log2_span, range.end >> log2_span);
            let starts_within = !Ipa::new(range.first).is_aligned(log2_span);
            let ends_within = !Ipa::new(range.end).is_aligned(log2_span);
            count += if level < self.outermost {
                end + u64::from(ends_within) - first
            } else if starts_within && ends_within && first == end {
                1
            } else {
                u64::from(starts_within) + u64::from(ends_within)
            };
            at = level.next();
        }
        count
    }
}

/// With the contiguous hint on whole groups, if hints are given.
#[inline]
fn hinted(leaves: Leaves, hints: Hints, geometry: &Geometry, index: usize, count: usize) -> Leaves {
    match hints {
        Hints::Set => leaves.grouped(geometry.granule(), index, count),
        Hints::Never => leaves,
    }
}

/// Maps `range`, which is whole pages, to as many from `pa`, or changes nothing.
pub(super) fn map<P: Platform>(
    tree: &mut Tree<'_, P>,
    view: View,
    range: Range,
    pa: Pa,
    attributes: Attributes,
    sizes: PageSizes,
    hints: Hints,
) -> Result<(), Stage2Error> {
    let hints = match sizes {
        PageSizes::Largest => hints,
        PageSizes::PagesOnly => Hints::Never,
    };
    if let Some(node) = one_table(tree.edit_in(view), range)
        && node.level() == Level::L3
        && let Some(pages) = Leaves::new(node.geometry(), Level::L3, pa, attributes)
    {
        expect_unmapped(*node, range)?;
        let count = (range.size_bytes() >> node.log2_span()) as usize;
        let index = node.index(range.base());
        node.fill(
            index,
            count,
            &hinted(pages, hints, node.geometry(), index, count),
        );
        tree.publish();
        return Ok(());
    }
    let plan = &Plan::new(tree.geometry(), range, pa, attributes, sizes, hints);
    let tables = survey(tree.root(), range, plan)?;
    tree.reserve(tables).map_err(Stage2Error::NoTables)?;
    extend(tree.edit_in(view), range, plan);
    tree.publish();
    if tables != 0 {
        // Only now are the new tables complete for every walker.
        arm(tree.edit(), range, plan);
        tree.publish();
    }
    Ok(())
}

/// Refuses if a page of the range, all in this last-level table, is mapped.
#[inline]
fn expect_unmapped<P: Platform>(node: Node<'_, '_, P>, range: Range) -> Result<(), Stage2Error> {
    let first = node.index(range.base());
    let count = (range.size_bytes() >> node.log2_span()) as usize;
    match (0..count).find(|offset| node.descriptor(first + offset).is_valid()) {
        Some(offset) => Err(Stage2Error::AlreadyMapped {
            ipa: Ipa::new(range.first + ((offset as u64) << node.log2_span())),
        }),
        None => Ok(()),
    }
}

/// How many tables the range takes below `node`, of which nothing may be mapped.
fn survey<P: Platform>(
    node: Node<'_, '_, P>,
    range: Range,
    plan: &Plan,
) -> Result<u64, Stage2Error> {
    let level = node.level();
    let log2_span = plan.log2_span(level);
    let first = node.index(range.base());
    let mut tables = 0;
    if level == Level::L3 {
        return expect_unmapped(node, range).map(|()| 0);
    }
    for (index, part) in (first..).zip(range.entries(log2_span)) {
        match node.child(index) {
            Some(child) => tables += survey(child, part, plan)?,
            None if node.descriptor(index).is_valid() => {
                return Err(Stage2Error::AlreadyMapped { ipa: part.base() });
            }
            None => tables += plan.tables_below(level, part),
        }
    }
    Ok(tables)
}

/// Fills what is there, and links what must be new so that no walker follows it yet.
fn extend<P: Platform>(node: EditNode<'_, '_, P>, range: Range, plan: &Plan) {
    let leaves = plan.leaves_at(node.level(), range);
    let index = node.index(leaves.base());
    if leaves.size_bytes() != 0
        && let Some(values) = plan.leaves(node.level(), leaves, index)
    {
        let count = (leaves.size_bytes() >> plan.log2_span(node.level())) as usize;
        node.fill(index, count, &values);
    }
    for_each_table(node.level(), range, plan, |part| {
        let index = node.index(part.base());
        match node.edit_child(index) {
            Some(child) => extend(child, part, plan),
            None => node.link(index, grow(&node, part, plan)),
        }
    });
}

/// A new table below `parent` that maps `range`, with all tables below it.
fn grow<'t, 'p, P: Platform>(
    parent: &EditNode<'t, 'p, P>,
    range: Range,
    plan: &Plan,
) -> Orphan<'t, 'p, P> {
    let counted = "as many tables were reserved as `survey` counted";
    let level = parent.level().next().expect("pages have no table below");
    let leaves = plan.leaves_at(level, range);
    let log2_span = plan.log2_span(level);
    let entries = 1u64 << plan.geometry.granule().bits_per_level();
    let first = ((leaves.first >> log2_span) & (entries - 1)) as usize;
    let values = plan.leaves(level, leaves, first);
    let orphan = match leaves.size_bytes() >> log2_span {
        0 => parent.build(0, 0, None),
        count => parent.build(first, count as usize, values.as_ref()),
    }
    .expect(counted);
    for_each_table(level, range, plan, |part| {
        let index = orphan.table().index(part.base());
        orphan.adopt(index, grow(orphan.table(), part, plan));
    });
    orphan
}

/// Lets walkers follow what `extend` linked.
fn arm<P: Platform>(node: EditNode<'_, '_, P>, range: Range, plan: &Plan) {
    for_each_table(node.level(), range, plan, |part| {
        let index = node.index(part.base());
        if !node.arm(index)
            && let Some(child) = node.edit_child(index)
        {
            arm(child, part, plan);
        }
    });
}

/// Calls `visit` with each part of `range` that needs a table below an entry of `level`.
fn for_each_table(level: Level, range: Range, plan: &Plan, mut visit: impl FnMut(Range)) {
    if level == Level::L3 {
        return;
    }
    let log2_span = plan.log2_span(level);
    let leaves = plan.leaves_at(level, range);
    let before = Range {
        first: range.first,
        end: leaves.first,
    };
    let after = Range {
        first: leaves.end.max(before.end),
        end: range.end,
    };
    for side in [before, after] {
        if side.first < side.end {
            side.entries(log2_span).for_each(&mut visit);
        }
    }
}
