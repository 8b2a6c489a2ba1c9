//! ID maps of IORT, and the rule by which tables in use have to be read.
//!
//! # The rule
//!
//! An ID map leads `id_count + 1` ids in a row from `input_base` on to as many at `output_base`
//! (IORT, "ID mapping format"). Firmware in use, Kunpeng 920's among it, writes the number of ids
//! where one less belongs, so that the last id of a map that is meant to end before it is also the
//! first of the next. So the first map that has an id wins, except that the last id of a map of two
//! or more is only taken for the time being: a later map that starts with it wins. Tables that are
//! right are read the same with and without this.

use super::part::Part;
use crate::discover::refusal::Refusal;

/// What each ID map takes.
pub(super) const MAP_BYTES: usize = 20;

/// One entry of a node's ID mapping array.
#[derive(Clone, Copy)]
pub(super) struct IdMap {
    pub(super) input_base: u32,
    /// How many ids besides the first.
    pub(super) id_count: u32,
    pub(super) output_base: u32,
    /// The offset in the table of the node that the ids go to.
    pub(super) to: u32,
    /// Whether everything is led to `output_base`, whatever the id.
    pub(super) is_single: bool,
}

/// Where an id goes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop {
    /// The offset in the table of the node.
    pub(super) to: u32,
    /// What it is there.
    pub(super) id: u32,
}

/// Ids in a row that go to ids in a row of one node.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) first: u32,
    /// At most `2^32`.
    pub(super) count: u64,
    pub(super) hop: Hop,
}

impl IdMap {
    /// The map in these bytes, [`MAP_BYTES`] of them.
    pub(super) fn read(part: &Part<'_>) -> Result<Self, Refusal> {
        let map = Self {
            input_base: part.u32(0)?,
            id_count: part.u32(4)?,
            output_base: part.u32(8)?,
            to: part.u32(12)?,
            is_single: part.u32(16)? & 1 != 0,
        };
        if !map.is_single && map.output_base.checked_add(map.id_count).is_none() {
            return Err(part.value("output base", map.output_base.into()));
        }
        Ok(map)
    }

    fn hop(&self, id: u32) -> Option<Hop> {
        let further = match self.is_single {
            true => 0,
            false => id
                .checked_sub(self.input_base)
                .filter(|further| *further <= self.id_count)?,
        };
        let id = self.output_base.checked_add(further)?;
        Some(Hop { to: self.to, id })
    }

    fn is_last(&self, id: u32) -> bool {
        !self.is_single
            && self.id_count > 0
            && id.checked_sub(self.input_base) == Some(self.id_count)
    }

    /// The ids at which what the rule says may change.
    ///
    /// The last id is none: where it goes elsewhere than the one before it, another map starts.
    fn edges(&self) -> [u64; 2] {
        let base = u64::from(self.input_base);
        [base, base + u64::from(self.id_count) + 1]
    }
}

/// Where `id` goes to by the rule.
pub(super) fn hop(maps: impl Iterator<Item = IdMap>, id: u32) -> Option<Hop> {
    let mut for_now = None;
    for map in maps {
        let Some(hop) = map.hop(id) else { continue };
        match for_now {
            None if map.is_last(id) => for_now = Some(hop),
            None => return Some(hop),
            Some(_) if id == map.input_base => return Some(hop),
            Some(_) => {}
        }
    }
    for_now
}

/// The runs of ids from 0 to `last` that go somewhere by the rule; no two of them share an id.
pub(super) fn runs(
    maps: impl Iterator<Item = IdMap> + Clone,
    last: u32,
) -> impl Iterator<Item = Run> {
    let end = u64::from(last) + 1;
    let mut next = 0;
    core::iter::from_fn(move || {
        while next < end {
            let first = next as u32;
            let edges = maps.clone().flat_map(|map| map.edges());
            let to = edges.filter(|edge| *edge > next).fold(end, u64::min);
            let count = to - next;
            next = to;
            if let Some(hop) = hop(maps.clone(), first) {
                return Some(Run { first, count, hop });
            }
        }
        None
    })
}
