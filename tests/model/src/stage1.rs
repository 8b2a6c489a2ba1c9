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
use crate::stage2::Need;
use crate::ste::{Ste, World};
use crate::story::Origin;
use crate::translate::Fault;
use crate::watch::Use;

/// What a stage-1 leaf permits, after everything above it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stage1Permission {
    pub(crate) user_read: bool,
    pub(crate) user_write: bool,
    pub(crate) user_execute: bool,
    pub(crate) privileged_read: bool,
    pub(crate) privileged_write: bool,
    pub(crate) privileged_execute: bool,
}

impl Stage1Permission {
    /// Read, write, execute at this privilege.
    pub(crate) const fn at(self, is_privileged: bool) -> (bool, bool, bool) {
        if is_privileged {
            (
                self.privileged_read,
                self.privileged_write,
                self.privileged_execute,
            )
        } else {
            (self.user_read, self.user_write, self.user_execute)
        }
    }

    pub(crate) const fn permits(self, need: Need) -> bool {
        let (read, write, execute) = self.at(need.is_privileged);
        (!need.read || read) && (!need.write || write) && (!need.execute || execute)
    }
}

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

/// What table descriptors on the way take away.
#[derive(Clone, Copy, Default)]
struct Hierarchy(u8);

impl Hierarchy {
    const NO_USER: u8 = 1;
    const NO_WRITE: u8 = 2;
    const NO_USER_EXECUTE: u8 = 4;
    const NO_PRIVILEGED_EXECUTE: u8 = 8;

    fn below(self, word: u64, is_flat: bool) -> Self {
        if is_flat {
            return self;
        }
        let bits = [
            (61, Self::NO_USER),
            (62, Self::NO_WRITE),
            (60, Self::NO_USER_EXECUTE),
            (59, Self::NO_PRIVILEGED_EXECUTE),
        ];
        Self(bits.iter().fold(
            self.0,
            |all, (at, flag)| if bit(word, *at) { all | flag } else { all },
        ))
    }

    const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
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
            if let Some(other) = other {
                self.conflict(va, &entry, &other);
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
                    hierarchy: Hierarchy(copy.hierarchy),
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
            hierarchy: walk.hierarchy.0,
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

fn permission(cd: &Cd, word: u64, above: Hierarchy) -> Stage1Permission {
    let read_only = bit(word, 7) || above.has(Hierarchy::NO_WRITE);
    if cd.world == World::El2 {
        // One privilege level: AP[1] and PXN mean nothing.
        let write = !read_only;
        let execute =
            !(bit(word, 54) || above.has(Hierarchy::NO_USER_EXECUTE) || (cd.wxn && write));
        return Stage1Permission {
            user_read: true,
            user_write: write,
            user_execute: execute,
            privileged_read: true,
            privileged_write: write,
            privileged_execute: execute,
        };
    }
    let user_read = bit(word, 6) && !above.has(Hierarchy::NO_USER);
    let user_write = user_read && !read_only;
    let mut user_execute = !(bit(word, 54) || above.has(Hierarchy::NO_USER_EXECUTE));
    let mut privileged_execute =
        !(bit(word, 53) || above.has(Hierarchy::NO_PRIVILEGED_EXECUTE) || user_write);
    if cd.wxn {
        user_execute &= !user_write;
        privileged_execute &= read_only;
    }
    let denied = cd.pan && (user_read || (cd.epan && user_execute));
    Stage1Permission {
        user_read,
        user_write,
        user_execute,
        privileged_read: !denied,
        privileged_write: !denied && !read_only,
        privileged_execute,
    }
}
