//! Copies of translations: of pages, of intermediate tables, of one stage and of both (§3.17).

use rustc_hash::FxHashMap;

use crate::command::{Span, Tlbi};
use crate::format::Granule;
use crate::stage1::Stage1Leaf;
use crate::stage2::Stage2Leaf;
use crate::ste::World;
use crate::story::Origin;

/// The tags that all entries of one regime share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Regime {
    pub(crate) world: World,
    pub(crate) vmid: u16,
}

/// Which lookups of a regime an entry by virtual address matches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Scope {
    Asid(u16),
    /// Every ASID whose context descriptor has this ASET.
    Global {
        aset: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct VaKey {
    pub(crate) scope: Scope,
    pub(crate) log2: u8,
    pub(crate) page: u64,
}

/// A translation by virtual address; combined with stage 2 where that is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VaEntry {
    pub(crate) stage1: Stage1Leaf,
    pub(crate) stage2: Option<Stage2Leaf>,
    /// The ASID it was made for, whatever it matches.
    pub(crate) asid: u16,
}

impl VaEntry {
    /// log2 of what the entry covers: the smaller of both stages.
    pub(crate) fn log2(&self) -> u32 {
        self.stage2
            .map_or(self.stage1.log2, |leaf| leaf.log2.min(self.stage1.log2))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct IpaKey {
    pub(crate) log2: u8,
    pub(crate) page: u64,
}

/// A stage-2 translation, and the granule of its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IpaEntry {
    pub(crate) leaf: Stage2Leaf,
    pub(crate) granule: Granule,
}

/// Where a walk can go on from: the table that holds descriptors of `level` for `prefix`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TableKey {
    /// The ASID; 0 for stage 2.
    pub(crate) asid: u16,
    /// The level of the descriptor that pointed to the table.
    pub(crate) level: u8,
    /// The input address above what that descriptor covers.
    pub(crate) prefix: u64,
}

/// A copy of a table descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TableCopy {
    /// The table's address, an IPA for stage 1 under stage 2.
    pub(crate) address: u64,
    /// Its physical address, where stage 2 was combined in.
    pub(crate) pa: Option<u64>,
    /// What the descriptors above take away, stage 1 only (`stage1::Hierarchy`).
    pub(crate) hierarchy: u8,
    pub(crate) granule: Granule,
    /// log2 of the input range behind it.
    pub(crate) log2: u32,
    pub(crate) origin: Origin,
}

/// All entries of one regime.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) va: FxHashMap<VaKey, VaEntry>,
    pub(crate) ipa: FxHashMap<IpaKey, IpaEntry>,
    pub(crate) va_tables: FxHashMap<TableKey, TableCopy>,
    pub(crate) ipa_tables: FxHashMap<TableKey, TableCopy>,
    /// Which sizes have ever been entered: bit n for 2^n bytes.
    va_sizes: u64,
    ipa_sizes: u64,
    /// Whether some entry covers less than its stage-1 leaf.
    has_splinters: bool,
}

impl Entries {
    fn count(&self) -> usize {
        self.va.len() + self.ipa.len() + self.va_tables.len() + self.ipa_tables.len()
    }

    /// The entry that a lookup hits, and another one that it hits too, if there is one.
    pub(crate) fn find_va(
        &self,
        va: u64,
        asid: u16,
        aset: bool,
    ) -> Option<(VaEntry, Option<VaEntry>)> {
        let mut found: Option<VaEntry> = None;
        let mut sizes = self.va_sizes;
        while sizes != 0 {
            let log2 = sizes.trailing_zeros();
            sizes &= sizes - 1;
            for scope in [Scope::Asid(asid), Scope::Global { aset }] {
                let key = VaKey {
                    scope,
                    log2: log2 as u8,
                    page: va >> log2,
                };
                match (self.va.get(&key), found) {
                    (Some(entry), None) => found = Some(*entry),
                    (Some(entry), Some(first)) => return Some((first, Some(*entry))),
                    (None, _) => {}
                }
            }
        }
        found.map(|entry| (entry, None))
    }

    pub(crate) fn find_ipa(&self, ipa: u64) -> Option<&IpaEntry> {
        let mut sizes = self.ipa_sizes;
        while sizes != 0 {
            let log2 = sizes.trailing_zeros();
            sizes &= sizes - 1;
            let key = IpaKey {
                log2: log2 as u8,
                page: ipa >> log2,
            };
            if let Some(entry) = self.ipa.get(&key) {
                return Some(entry);
            }
        }
        None
    }

    pub(crate) fn keep_va(&mut self, va: u64, scope: Scope, entry: VaEntry) {
        let log2 = entry.log2();
        self.va_sizes |= 1 << log2;
        self.has_splinters |= log2 < entry.stage1.log2;
        let key = VaKey {
            scope,
            log2: log2 as u8,
            page: va >> log2,
        };
        self.va.entry(key).or_insert(entry);
    }

    pub(crate) fn keep_ipa(&mut self, ipa: u64, entry: IpaEntry) {
        let log2 = entry.leaf.log2;
        self.ipa_sizes |= 1 << log2;
        let key = IpaKey {
            log2: log2 as u8,
            page: ipa >> log2,
        };
        self.ipa.entry(key).or_insert(entry);
    }

    /// Removes entries by virtual address; `asid`: only of this one, and global ones.
    fn remove_span(&mut self, asid: Option<u16>, span: &Span) -> usize {
        let before = self.count();
        let applies = |scope| match (scope, asid) {
            (Scope::Asid(of), Some(asid)) => of == asid,
            _ => true,
        };
        let is_one_page = span.granule.is_none() && !self.has_splinters;
        if let (true, Some(asid)) = (is_one_page, asid) {
            let mut sizes = self.va_sizes;
            while sizes != 0 {
                let log2 = sizes.trailing_zeros();
                sizes &= sizes - 1;
                for scope in [
                    Scope::Asid(asid),
                    Scope::Global { aset: false },
                    Scope::Global { aset: true },
                ] {
                    self.va.remove(&VaKey {
                        scope,
                        log2: log2 as u8,
                        page: span.first >> log2,
                    });
                }
            }
        } else {
            self.va.retain(|key, entry| {
                let start = key.page << key.log2;
                !(applies(key.scope)
                    && span.covers_leaf(entry.stage1.granule, entry.stage1.level)
                    && span.touches(start, entry.stage1.log2))
            });
        }
        if !span.is_leaf {
            self.va_tables.retain(|key, copy| {
                !(asid.is_none_or(|asid| key.asid == asid) && span.covers_table(key, copy))
            });
        }
        before - self.count()
    }

    fn remove_ipa_span(&mut self, span: &Span) -> usize {
        let before = self.count();
        if span.granule.is_none() {
            let mut sizes = self.ipa_sizes;
            while sizes != 0 {
                let log2 = sizes.trailing_zeros();
                sizes &= sizes - 1;
                self.ipa.remove(&IpaKey {
                    log2: log2 as u8,
                    page: span.first >> log2,
                });
            }
        } else {
            self.ipa.retain(|key, entry| {
                let start = key.page << key.log2;
                !(span.covers_leaf(entry.granule, entry.leaf.level)
                    && span.touches(start, entry.leaf.log2))
            });
        }
        if !span.is_leaf {
            self.ipa_tables
                .retain(|key, copy| !span.covers_table(key, copy));
        }
        before - self.count()
    }

    fn remove_stage1(&mut self) -> usize {
        let count = self.va.len() + self.va_tables.len();
        self.va.clear();
        self.va_tables.clear();
        (self.va_sizes, self.has_splinters) = (0, false);
        count
    }

    fn remove_asid(&mut self, asid: u16) -> usize {
        let before = self.count();
        self.va.retain(|key, _| key.scope != Scope::Asid(asid));
        self.va_tables.retain(|key, _| key.asid != asid);
        before - self.count()
    }
}

impl Span {
    /// Whether a leaf of this granule and level has to go, if it lies in the range.
    fn covers_leaf(&self, granule: Granule, level: u32) -> bool {
        self.granule.is_none_or(|asked| asked == granule)
            && (self.level == 0 || self.level == level)
    }

    /// Whether the range touches the aligned `2^log2` bytes around `start`.
    fn touches(&self, start: u64, log2: u32) -> bool {
        let first = crate::bits::align_down(start, log2);
        let last = first | crate::bits::ones(log2);
        self.first <= last && first <= self.last
    }

    fn covers_table(&self, key: &TableKey, copy: &TableCopy) -> bool {
        let level_fits = self.level == 0 || u32::from(key.level) < self.level;
        let granule_fits = self.granule.is_none_or(|asked| asked == copy.granule);
        level_fits && granule_fits && self.touches(key.prefix << copy.log2, copy.log2)
    }
}

/// All translations that one SMMU keeps.
#[derive(Debug, Default)]
pub(crate) struct Tlb {
    pub(crate) regimes: FxHashMap<Regime, Entries>,
}

/// How much an invalidation removed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Removed {
    pub(crate) entries: usize,
    /// Of these, entries of VMIDs that the command did not name.
    pub(crate) foreign: usize,
}

impl Tlb {
    pub(crate) fn entries(&self, regime: Regime) -> Option<&Entries> {
        self.regimes.get(&regime)
    }

    pub(crate) fn entries_mut(&mut self, regime: Regime) -> &mut Entries {
        self.regimes.entry(regime).or_default()
    }

    /// Removes what `tlbi` must remove and nothing else. `wild` are the VMID bits that an
    /// invalidation does not compare (CR0.VMW).
    pub(crate) fn remove(&mut self, tlbi: &Tlbi, wild: u16) -> Removed {
        let mut removed = Removed::default();
        let named = tlbi.vmid();
        for (regime, entries) in &mut self.regimes {
            if !tlbi.applies(*regime, wild) {
                continue;
            }
            let count = match tlbi {
                Tlbi::NhAll { .. } => entries.remove_stage1(),
                Tlbi::Asid { asid, .. } => entries.remove_asid(*asid),
                Tlbi::Va { asid, span, .. } => entries.remove_span(Some(*asid), span),
                Tlbi::Vaa { span, .. } => entries.remove_span(None, span),
                Tlbi::S2Ipa { span, .. } => entries.remove_ipa_span(span),
                Tlbi::El2All | Tlbi::S12Vmall { .. } | Tlbi::NsnhAll => {
                    let count = entries.count();
                    *entries = Entries::default();
                    count
                }
            };
            removed.entries += count;
            if named != Some(regime.vmid) && regime.world == World::El1 {
                removed.foreign += count;
            }
        }
        self.regimes.retain(|_, entries| entries.count() != 0);
        removed
    }

    /// How many entries there are.
    pub(crate) fn count(&self) -> usize {
        self.regimes.values().map(Entries::count).sum()
    }
}

impl Tlbi {
    /// The VMID that it names.
    pub(crate) const fn vmid(&self) -> Option<u16> {
        match self {
            Self::NhAll { vmid } | Self::S12Vmall { vmid } | Self::S2Ipa { vmid, .. } => {
                Some(*vmid)
            }
            Self::Asid { vmid, .. } | Self::Va { vmid, .. } | Self::Vaa { vmid, .. } => Some(*vmid),
            Self::El2All | Self::NsnhAll => None,
        }
    }

    /// Whether it looks at entries of `regime` at all.
    pub(crate) fn applies(&self, regime: Regime, wild: u16) -> bool {
        match self {
            Self::El2All => regime.world != World::El1,
            Self::NsnhAll => regime.world == World::El1,
            Self::NhAll { vmid } | Self::S12Vmall { vmid } | Self::S2Ipa { vmid, .. } => {
                regime.world == World::El1 && (regime.vmid ^ vmid) & !wild == 0
            }
            Self::Asid { world, vmid, .. }
            | Self::Va { world, vmid, .. }
            | Self::Vaa { world, vmid, .. } => {
                regime.world == *world
                    && (*world != World::El1 || (regime.vmid ^ vmid) & !wild == 0)
            }
        }
    }
}
