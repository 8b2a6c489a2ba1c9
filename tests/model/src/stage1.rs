//! Stage 1: walks, hierarchical attributes, permissions (DDI 0487 D8, §3.4).

use crate::attributes::{Attributes, MemoryType, Shareability};
use crate::bits::{align_down, bit, field};
use crate::cache::tlb::{Regime, Scope, TableCopy, TableKey, VaEntry};
use crate::cd::{Cd, Half};
use crate::core::Core;
use crate::descriptor::{Descriptor, Leaf};
use crate::event::{Class, EventType};
use crate::fault::Fetch;
use crate::format::{Granule, Root};
use crate::permission::{Hierarchy, Stage1Permission, permission};
use crate::route::Fault;
use crate::stage2::Need;
use crate::ste::{Ste, World};
use crate::story::Origin;
use crate::watch::Use;

/// A stage-1 translation of a page, block or contiguous group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stage1Leaf {
    /// The output address of the first byte.
    pub(crate) output: u64,
    pub(crate) log2: u32,
    pub(crate) level: u32,
    pub(crate) granule: Granule,
    pub(crate) permission: Stage1Permission,
    pub(crate) attributes: Attributes,
    pub(crate) is_global: bool,
    pub(crate) origin: Origin,
}

impl Stage1Leaf {
    /// Where `va` goes.
    pub(crate) const fn translate(&self, va: u64) -> u64 {
        self.output | va & ((1 << self.log2) - 1)
    }
}

/// A walk in progress.
#[derive(Clone, Copy)]
struct Walk {
    root: Root,
    table: u64,
    /// The table's physical address, where stage 2 need not be asked.
    pa: Option<u64>,
    level: u32,
    hierarchy: Hierarchy,
}

/// Who walks: what the tags, the tables and the policies come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space<'a> {
    pub(crate) stream: u32,
    pub(crate) substream: u32,
    pub(crate) ste: &'a Ste,
    pub(crate) cd: &'a Cd,
}

impl Space<'_> {
    pub(crate) fn regime(&self) -> Regime {
        Regime {
            world: self.cd.world,
            vmid: if self.cd.world == World::El1 {
                self.ste.vmid
            } else {
                0
            },
        }
    }

    /// The half of `va`, and `va` as walks and tags use it. `None`: out of range.
    pub(crate) fn half(&self, va: u64) -> Option<(&Half, u64)> {
        let is_upper = bit(va, 55);
        match (&self.cd.upper, is_upper) {
            (Some(upper), true) => Some((upper, upper.canonical(va, true)?)),
            _ => Some((&self.cd.lower, self.cd.lower.canonical(va, false)?)),
        }
    }

    const fn scope(&self, is_global: bool) -> Scope {
        if is_global {
            Scope::Global { aset: self.cd.aset }
        } else {
            Scope::Asid(self.cd.asid)
        }
    }
}

impl Core {
    /// Translates `va`, by what is kept or by a walk. Permissions are not looked at.
    pub(crate) fn stage1(
        &mut self,
        space: &Space<'_>,
        va: u64,
        need: Need,
    ) -> Result<(VaEntry, bool), Fault> {
        let out_of_range = || Fault::new(EventType::Translation);
        let (half, va) = space.half(va).ok_or_else(out_of_range)?;
        if half.is_privileged_only && !need.is_privileged {
            return Err(out_of_range());
        }
        if let Some((entry, other)) = self.find_va(space, va) {
            if let Some(other) = other
                && self.conflict(va, &entry, &other)
                && self.id.bbml < 2
                && self.choices.reports_conflict()
            {
                return Err(Fault::new(EventType::TlbConflict));
            }
            return Ok((entry, true));
        }
        let (root, table) = half.table.ok_or_else(out_of_range)?;
        let walk = Walk {
            root,
            table,
            pa: None,
            level: root.level,
            hierarchy: Hierarchy::default(),
        };
        let leaf = self.walk1(space, half, va, walk)?;
        Ok((
            VaEntry {
                stage1: leaf,
                stage2: None,
                asid: space.cd.asid,
            },
            false,
        ))
    }

    fn find_va(&mut self, space: &Space<'_>, va: u64) -> Option<(VaEntry, Option<VaEntry>)> {
        self.caches
            .tlb
            .entries(space.regime())?
            .find_va(va, space.cd.asid, space.cd.aset)
    }

    /// Keeps a translation of `va`, if the model chooses to.
    pub(crate) fn keep_va(&mut self, space: &Space<'_>, va: u64, entry: VaEntry) {
        let Some((_, va)) = space.half(va) else {
            return;
        };
        let scope = space.scope(entry.stage1.is_global);
        self.caches
            .tlb
            .entries_mut(space.regime())
            .keep_va(va, scope, entry);
    }

    /// Begins as deep as a kept table descriptor allows.
    fn resume_walk(&self, space: &Space<'_>, va: u64, walk: Walk) -> Walk {
        let Some(entries) = self.caches.tlb.entries(space.regime()) else {
            return walk;
        };
        if entries.va_tables.is_empty() {
            return walk;
        }
        for level in (walk.root.level..3).rev() {
            let log2 = walk.root.granule.level_log2(level);
            let key = TableKey {
                asid: space.cd.asid,
                level: level as u8,
                prefix: va >> log2,
            };
            if let Some(copy) = entries.va_tables.get(&key)
                && copy.log2 == log2
            {
                return Walk {
                    table: copy.address,
                    pa: copy.pa,
                    level: level + 1,
                    hierarchy: Hierarchy::from_bits(copy.hierarchy),
                    ..walk
                };
            }
        }
        walk
    }

    fn walk1(
        &mut self,
        space: &Space<'_>,
        half: &Half,
        va: u64,
        from: Walk,
    ) -> Result<Stage1Leaf, Fault> {
        let mut walk = self.resume_walk(space, va, from);
        loop {
            let (at, word) = self.read1(space, va, &walk)?;
            match Descriptor::new(word, walk.root.granule, walk.level, space.cd.output_bits) {
                Descriptor::Invalid => return Err(Fault::new(EventType::Translation)),
                Descriptor::Table { address } => {
                    if address >> space.cd.output_bits != 0 {
                        return Err(Fault::new(EventType::AddressSize));
                    }
                    walk.hierarchy = walk.hierarchy.below(word, half.is_flat);
                    walk.pa = None;
                    walk.table = address;
                    self.keep_table1(space, va, &mut walk, at, word);
                    walk.level += 1;
                }
                Descriptor::Leaf(leaf) => return self.leaf1(space, &walk, leaf, at),
            }
        }
    }

    /// Reads the descriptor for `va` of the table that `walk` has come to: its physical address and
    /// itself.
    fn read1(&mut self, space: &Space<'_>, va: u64, walk: &Walk) -> Result<(u64, u64), Fault> {
        let offset = walk.root.index(va, walk.level) * 8;
        let pa = match (walk.pa, &space.ste.stage2) {
            (Some(table), _) => table + offset,
            (None, None) => walk.table + offset,
            (None, Some(s2)) => {
                let ipa = walk.table + offset;
                self.stage2(space.stream, s2, ipa, Need::READ, Class::TranslationTable)?
                    .translate(ipa)
            }
        };
        let abort = |_| Fault {
            class: Class::TranslationTable,
            ..Fault::fetch(EventType::WalkAbort, pa)
        };
        let word = self.fetch(pa, Fetch::Stage1).map_err(abort)?;
        let log2 = walk.root.granule.level_log2(walk.level);
        let start = va >> log2 << log2;
        self.uses.note_word(
            pa,
            Use::Stage1 {
                stream: space.stream,
                substream: space.substream,
                level: walk.level,
                log2,
                va: start,
            },
        );
        Ok((
            pa,
            if space.cd.is_big_endian {
                word.swap_bytes()
            } else {
                word
            },
        ))
    }

    fn keep_table1(&mut self, space: &Space<'_>, va: u64, walk: &mut Walk, at: u64, word: u64) {
        if !self.choices.remembers() {
            return;
        }
        let granule = walk.root.granule;
        // A combined entry needs no stage 2 later; it must lie in one stage-2 page.
        if let Some(s2) = &space.ste.stage2
            && self.choices.combines()
            && let Ok(leaf) = self.stage2(
                space.stream,
                s2,
                walk.table,
                Need::READ,
                Class::TranslationTable,
            )
            && leaf.log2 >= granule.page_bits()
        {
            walk.pa = Some(leaf.translate(walk.table));
        }
        let log2 = granule.level_log2(walk.level);
        let key = TableKey {
            asid: space.cd.asid,
            level: walk.level as u8,
            prefix: va >> log2,
        };
        let copy = TableCopy {
            address: walk.table,
            pa: walk.pa,
            hierarchy: walk.hierarchy.bits(),
            granule,
            log2,
            origin: Origin {
                pa: at,
                value: word,
                step: self.record.step(),
            },
        };
        self.caches
            .tlb
            .entries_mut(space.regime())
            .va_tables
            .entry(key)
            .or_insert(copy);
    }

    fn leaf1(
        &mut self,
        space: &Space<'_>,
        walk: &Walk,
        leaf: Leaf,
        at: u64,
    ) -> Result<Stage1Leaf, Fault> {
        if leaf.address >> space.cd.output_bits != 0 {
            return Err(Fault::new(EventType::AddressSize));
        }
        if !bit(leaf.word, 10) && !space.cd.ignores_access_flag {
            return Err(Fault::new(EventType::AccessFlag));
        }
        let mair = space.cd.mair >> (8 * field(leaf.word, 4, 2));
        let attributes = Attributes {
            memory: MemoryType::from_mair(mair as u8),
            shareability: Shareability::from_bits(field(leaf.word, 9, 8)),
        };
        Ok(Stage1Leaf {
            output: align_down(leaf.address, leaf.group_log2),
            log2: leaf.group_log2,
            level: leaf.level,
            granule: walk.root.granule,
            permission: permission(space.cd, leaf.word, walk.hierarchy),
            attributes: attributes.settled(),
            is_global: space.cd.world == World::El2 || !bit(leaf.word, 11),
            origin: Origin {
                pa: at,
                value: leaf.word,
                step: self.record.step(),
            },
        })
    }
}
