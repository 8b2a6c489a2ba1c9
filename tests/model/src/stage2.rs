//! Stage 2: walks and permissions (§3.4, DDI 0487 D8).

use crate::attributes::{Attributes, MemoryType, Shareability};
use crate::bits::{align_down, bit, field};
use crate::cache::tlb::{IpaEntry, Regime, TableCopy, TableKey};
use crate::core::Core;
use crate::descriptor::{Descriptor, Leaf, Stage2Permission};
use crate::event::{Class, EventType};
use crate::fault::Fetch;
use crate::route::Fault;
use crate::ste::{Stage2, World};
use crate::story::Origin;
use crate::watch::Use;

/// What an access needs of a translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Need {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
    pub(crate) is_privileged: bool,
}

impl Need {
    /// A data read by the SMMU itself.
    pub(crate) const READ: Self = Self {
        read: true,
        write: false,
        execute: false,
        is_privileged: true,
    };
}

/// A stage-2 translation of a page, block or contiguous group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stage2Leaf {
    /// The physical address of the first byte.
    pub(crate) pa: u64,
    pub(crate) log2: u32,
    pub(crate) level: u32,
    pub(crate) permission: Stage2Permission,
    pub(crate) memory_attribute: u8,
    pub(crate) shareability: Shareability,
    pub(crate) forces_write_back: bool,
    pub(crate) origin: Origin,
}

impl Stage2Leaf {
    /// Where `ipa` goes.
    pub(crate) const fn translate(&self, ipa: u64) -> u64 {
        self.pa | ipa & ((1 << self.log2) - 1)
    }

    /// The attributes after this stage of an access with `incoming` ones.
    pub(crate) fn attributes(&self, incoming: Attributes) -> Attributes {
        let memory = if self.forces_write_back {
            incoming.memory.forced(self.memory_attribute)
        } else {
            incoming
                .memory
                .combine(MemoryType::from_stage2(self.memory_attribute))
        };
        let shareability = incoming.shareability.max(self.shareability);
        Attributes {
            memory,
            shareability,
        }
        .settled()
    }

    /// Whether stage 2 itself says Device.
    pub(crate) const fn is_device(&self) -> bool {
        let bits = if self.forces_write_back {
            self.memory_attribute & 4
        } else {
            self.memory_attribute & 12
        };
        bits == 0
    }

    const fn permits(&self, need: Need) -> bool {
        let execute = if need.is_privileged {
            self.permission.execute_privileged
        } else {
            self.permission.execute_unprivileged
        };
        (!need.read || self.permission.read)
            && (!need.write || self.permission.write)
            && (!need.execute || execute)
    }
}

impl Core {
    /// Translates `ipa` for an access that needs `need`; `class` says what it is for.
    pub(crate) fn stage2(
        &mut self,
        stream: u32,
        s2: &Stage2,
        ipa: u64,
        need: Need,
        class: Class,
    ) -> Result<Stage2Leaf, Fault> {
        let leaf = self.stage2_leaf(stream, s2, ipa, class)?;
        stage2_check(s2, &leaf, ipa, need, class)?;
        Ok(leaf)
    }

    /// The translation of `ipa`, kept or walked for. Permissions are not looked at.
    pub(crate) fn stage2_leaf(
        &mut self,
        stream: u32,
        s2: &Stage2,
        ipa: u64,
        class: Class,
    ) -> Result<Stage2Leaf, Fault> {
        let regime = Regime {
            world: World::El1,
            vmid: s2.vmid,
        };
        let kept = self
            .caches
            .tlb
            .entries(regime)
            .and_then(|entries| entries.find_ipa(ipa));
        if let Some(entry) = kept {
            return Ok(entry.leaf);
        }
        let leaf = self
            .walk2(stream, s2, ipa)
            .map_err(|fault| fault.at_stage2(s2, class, ipa))?;
        if self.choices.remembers() {
            let granule = s2.shape.root.granule;
            self.caches
                .tlb
                .entries_mut(regime)
                .keep_ipa(ipa, IpaEntry { leaf, granule });
        }
        Ok(leaf)
    }

    fn walk2(&mut self, stream: u32, s2: &Stage2, ipa: u64) -> Result<Stage2Leaf, Fault> {
        let root = s2.shape.root;
        if ipa >> root.input_bits != 0 {
            return Err(Fault::new(EventType::Translation));
        }
        let (mut table, mut level) = self.resume_walk2(s2, ipa);
        loop {
            let at = table + root.index(ipa, level) * 8;
            let word = self
                .fetch(at, Fetch::Stage2)
                .map_err(|_| Fault::fetch(EventType::WalkAbort, at))?;
            let log2 = root.granule.level_log2(level);
            let start = ipa >> log2 << log2;
            self.uses.note_word(
                at,
                Use::Stage2 {
                    stream,
                    vmid: s2.vmid,
                    level,
                    log2,
                    ipa: start,
                },
            );
            let word = if s2.is_big_endian {
                word.swap_bytes()
            } else {
                word
            };
            match Descriptor::new(word, root.granule, level, s2.output_bits) {
                Descriptor::Invalid => return Err(Fault::new(EventType::Translation)),
                Descriptor::Table { address } => {
                    if address >> s2.output_bits != 0 {
                        return Err(Fault::new(EventType::AddressSize));
                    }
                    self.keep_table2(
                        s2,
                        ipa,
                        level,
                        address,
                        Origin {
                            pa: at,
                            value: word,
                            step: 0,
                        },
                    );
                    table = address;
                    level += 1;
                }
                Descriptor::Leaf(leaf) => return self.leaf2(s2, leaf, at),
            }
        }
    }

    /// Begins as deep as a kept table descriptor allows.
    fn resume_walk2(&self, s2: &Stage2, ipa: u64) -> (u64, u32) {
        let root = s2.shape.root;
        let regime = Regime {
            world: World::El1,
            vmid: s2.vmid,
        };
        if let Some(entries) = self
            .caches
            .tlb
            .entries(regime)
            .filter(|entries| !entries.ipa_tables.is_empty())
        {
            for level in (root.level..3).rev() {
                let log2 = root.granule.level_log2(level);
                let key = TableKey {
                    asid: 0,
                    level: level as u8,
                    prefix: ipa >> log2,
                };
                if let Some(copy) = entries.ipa_tables.get(&key)
                    && copy.log2 == log2
                {
                    return (copy.address, level + 1);
                }
            }
        }
        (s2.root, root.level)
    }

    fn keep_table2(&mut self, s2: &Stage2, ipa: u64, level: u32, address: u64, origin: Origin) {
        if !self.choices.remembers() {
            return;
        }
        let granule = s2.shape.root.granule;
        let log2 = granule.level_log2(level);
        let key = TableKey {
            asid: 0,
            level: level as u8,
            prefix: ipa >> log2,
        };
        let copy = TableCopy {
            address,
            pa: None,
            hierarchy: 0,
            granule,
            log2,
            origin: Origin {
                step: self.record.step(),
                ..origin
            },
        };
        let regime = Regime {
            world: World::El1,
            vmid: s2.vmid,
        };
        self.caches
            .tlb
            .entries_mut(regime)
            .ipa_tables
            .entry(key)
            .or_insert(copy);
    }

    fn leaf2(&self, s2: &Stage2, leaf: Leaf, at: u64) -> Result<Stage2Leaf, Fault> {
        if leaf.address >> s2.output_bits != 0 {
            return Err(Fault::new(EventType::AddressSize));
        }
        if !bit(leaf.word, 10) && !s2.ignores_access_flag {
            return Err(Fault::new(EventType::AccessFlag));
        }
        Ok(Stage2Leaf {
            pa: align_down(leaf.address, leaf.group_log2),
            log2: leaf.group_log2,
            level: leaf.level,
            permission: Stage2Permission::new(leaf.word, self.id.xnx),
            memory_attribute: field(leaf.word, 5, 2) as u8,
            shareability: Shareability::from_bits(field(leaf.word, 9, 8)),
            forces_write_back: s2.forces_write_back,
            origin: Origin {
                pa: at,
                value: leaf.word,
                step: self.record.step(),
            },
        })
    }
}

/// Whether a translation permits the access; S2PTW forbids walks through Device memory.
pub(crate) fn stage2_check(
    s2: &Stage2,
    leaf: &Stage2Leaf,
    ipa: u64,
    need: Need,
    class: Class,
) -> Result<(), Fault> {
    let walks_device = class != Class::Input && s2.protects_walks && leaf.is_device();
    if leaf.permits(need) && !walks_device {
        return Ok(());
    }
    Err(Fault::new(EventType::Permission).at_stage2(s2, class, ipa))
}
