//! What the model knows of memory: which words are structures, and the rules about storing to them.

use rustc_hash::FxHashMap;

use crate::bits::mask;
use crate::cache::config::{CdCopy, SteCopy};
use crate::cache::tlb::VaEntry;
use crate::command::{Command, Tlbi};
use crate::core::Core;
use crate::descriptor::Descriptor;
use crate::format::Granule;
use crate::registers::{cr0, gerror};
use crate::violation::Rule;

/// What a word is used as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// A level-1 stream table descriptor.
    L1Std { index: u32 },
    /// A stream table entry.
    Ste { stream: u32 },
    /// A level-1 context descriptor.
    L1Cd { stream: u32, index: u32 },
    /// A context descriptor.
    Cd { stream: u32, substream: u32 },
    /// A stage-1 descriptor for the `2^log2` bytes from `va` on.
    Stage1 {
        stream: u32,
        substream: u32,
        level: u32,
        log2: u32,
        va: u64,
    },
    /// A stage-2 descriptor for the `2^log2` bytes from `ipa` on.
    Stage2 {
        stream: u32,
        vmid: u16,
        level: u32,
        log2: u32,
        ipa: u64,
    },
}

/// One use, of `bytes` bytes from `pa` on. For tables it stands for its whole 4 KiB page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    pa: u64,
    bytes: u64,
    what: Use,
}

impl Place {
    /// Streams with the same VMID share their stage 2: one of them stands for all.
    fn is_like(&self, other: &Self) -> bool {
        match (self.what, other.what) {
            (
                Use::Stage2 {
                    vmid, level, ipa, ..
                },
                Use::Stage2 {
                    vmid: other_vmid,
                    level: other_level,
                    ipa: other_ipa,
                    ..
                },
            ) => (vmid, level, ipa) == (other_vmid, other_level, other_ipa),
            _ => self == other,
        }
    }
}

/// Which memory the SMMU has read as what.
///
/// Kept by 4 KiB page. It only grows: whoever asks checks whether the use still holds.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    pages: FxHashMap<u64, Vec<Place>>,
}

impl Uses {
    /// `bytes` bytes at `pa`, within one page, were read as `what`.
    pub(crate) fn note(&mut self, pa: u64, bytes: u64, what: Use) {
        let places = self.pages.entry(pa >> 12).or_default();
        let place = Place { pa, bytes, what };
        if !places.iter().any(|known| known.is_like(&place)) {
            places.push(place);
        }
    }

    /// A translation table descriptor at `pa` was read as `what`: so is every other one of its page.
    pub(crate) fn note_word(&mut self, pa: u64, what: Use) {
        let page = pa & !0xfff;
        let slot = (pa & 0xfff) / 8;
        let first = |start: u64, log2: u32| start.wrapping_sub(slot << log2);
        let what = match what {
            Use::Stage1 {
                stream,
                substream,
                level,
                log2,
                va,
            } => Use::Stage1 {
                stream,
                substream,
                level,
                log2,
                va: first(va, log2),
            },
            Use::Stage2 {
                stream,
                vmid,
                level,
                log2,
                ipa,
            } => Use::Stage2 {
                stream,
                vmid,
                level,
                log2,
                ipa: first(ipa, log2),
            },
            other => other,
        };
        self.note(page, 4096, what);
    }

    /// What the word at `pa` has been read as, each use told for that word.
    pub(crate) fn of(&self, pa: u64) -> Vec<Use> {
        let Some(places) = self.pages.get(&(pa >> 12)) else {
            return Vec::new();
        };
        let slot = (pa & 0xfff) / 8;
        let here = places
            .iter()
            .filter(|place| (place.pa..place.pa + place.bytes).contains(&pa));
        here.map(|place| match place.what {
            Use::Stage1 {
                stream,
                substream,
                level,
                log2,
                va,
            } => Use::Stage1 {
                stream,
                substream,
                level,
                log2,
                va: va.wrapping_add(slot << log2),
            },
            Use::Stage2 {
                stream,
                vmid,
                level,
                log2,
                ipa,
            } => Use::Stage2 {
                stream,
                vmid,
                level,
                log2,
                ipa: ipa.wrapping_add(slot << log2),
            },
            other => other,
        })
        .collect()
    }
}

impl Core {
    /// What the word at `pa` is used as, stream table entries that were never read included.
    fn uses_of(&self, pa: u64) -> Vec<Use> {
        let mut uses = self.uses.of(pa);
        let table = self.stream_table();
        let offset = pa.wrapping_sub(table.base);
        if table.split.is_none()
            && self.is_on(cr0::SMMUEN)
            && offset >> (table.log2_streams + 6) == 0
        {
            let what = Use::Ste {
                stream: (offset >> 6) as u32,
            };
            if !uses.contains(&what) {
                uses.push(what);
            }
        }
        uses
    }

    /// Whether the use still holds: the structure still lies there.
    fn still_is(&self, pa: u64, what: Use) -> bool {
        let line = pa & !63;
        match what {
            Use::L1Std { index } => {
                let table = self.stream_table();
                table.split.is_some()
                    && self.is_on(cr0::SMMUEN)
                    && table.base + u64::from(index) * 8 == pa
            }
            Use::Ste { stream } => self.peek_ste_address(stream) == Some(line),
            Use::Cd { stream, substream } => {
                let address = self
                    .peek_ste(stream)
                    .and_then(|ste| self.peek_cd_address(&ste, substream));
                address == Some(line)
            }
            // Walks check these themselves: they go from the top.
            Use::L1Cd { .. } | Use::Stage1 { .. } | Use::Stage2 { .. } => self.is_on(cr0::SMMUEN),
        }
    }

    /// The driver has stored: rules about what may be stored when.
    pub(crate) fn driver_stored(&mut self, pa: u64, old: u64, new: u64) {
        if old == new {
            return;
        }
        self.check_owned_command(pa);
        for what in self.uses_of(pa) {
            if !self.still_is(pa, what) {
                continue;
            }
            let word = ((pa & 63) / 8) as usize;
            match what {
                Use::Ste { stream } => {
                    self.notice_stream(stream);
                    self.entry_stored((stream, None), word, old, new);
                }
                Use::Cd { stream, substream } => {
                    self.notice_context(stream, substream);
                    self.entry_stored((stream, Some(substream)), word, old, new);
                }
                Use::Stage1 {
                    stream,
                    substream,
                    level,
                    ..
                } => {
                    if let Some((ste, cd, _)) = self.peek_cd(stream, substream) {
                        let half = [Some(cd.lower), cd.upper]
                            .into_iter()
                            .flatten()
                            .find_map(|half| half.table);
                        let granule = half.map(|(root, _)| root.granule);
                        let _ = ste;
                        self.check_break(pa, old, new, granule, level);
                    }
                }
                Use::Stage2 { stream, level, .. } => {
                    let granule = self
                        .peek_ste(stream)
                        .and_then(|ste| ste.stage2)
                        .map(|s2| s2.shape.root.granule);
                    self.check_break(pa, old, new, granule, level);
                }
                Use::L1Std { .. } | Use::L1Cd { .. } => {}
            }
        }
    }

    /// A valid descriptor became another valid one: what may change without a break (DDI 0487,
    /// D8.16).
    fn check_break(&self, pa: u64, old: u64, new: u64, granule: Option<Granule>, level: u32) {
        let Some(granule) = granule else {
            return;
        };
        let shape = |word| Descriptor::new(word, granule, level, 48);
        let wrong = match (shape(old), shape(new)) {
            (Descriptor::Leaf(was), Descriptor::Leaf(is)) => {
                // Attributes, shareability, and non-global becoming global.
                let kind = 0b1111 << 2 | 0b11 << 8;
                let contiguous = (old ^ new) & 1 << 52 != 0 && self.id.bbml == 0;
                was.address != is.address || (old ^ new) & kind != 0 || contiguous
            }
            (Descriptor::Leaf(_), Descriptor::Table { .. })
            | (Descriptor::Table { .. }, Descriptor::Leaf(_)) => {
                let leaf = if old & 2 == 0 { old } else { new };
                let has_nt = leaf & 1 << 16 != 0;
                self.id.bbml == 0 || (self.id.bbml == 1 && !has_nt)
            }
            _ => false,
        };
        if wrong {
            self.violate(
                Rule::BreakBeforeMake,
                format!("the descriptor at {pa:#x} went from {old:#x} to {new:#x}"),
            );
        }
    }

    /// A command that the SMMU owns must not be touched.
    fn check_owned_command(&self, pa: u64) {
        if !self.is_on(cr0::CMDQEN) || self.is_active(gerror::CMDQ_ERR) {
            return;
        }
        let queue = self.command_queue();
        let (prod, cons) = (self.registers.cmdq_prod, self.registers.cmdq_cons);
        let owned = queue.used(prod, cons);
        if queue
            .distance_of(pa, cons)
            .is_some_and(|distance| distance < owned)
        {
            self.violate(
                Rule::QueueEntryTouched,
                format!("the command at {:#x}", pa & !15),
            );
        }
    }

    /// The SMMU can see a store from now on: it may look at once.
    pub(crate) fn became_visible(&mut self, pa: u64) {
        if !self.is_on(cr0::SMMUEN) {
            return;
        }
        if !self.choices.looks_ahead() {
            return;
        }
        for what in self.uses_of(pa) {
            if self.still_is(pa, what) {
                self.look_at_use(what);
            }
        }
        self.look_around();
    }

    /// Reserved bits of a stream table entry that is used.
    pub(crate) fn check_reserved_ste(&self, stream: u32, copy: &SteCopy) {
        let words = &copy.words;
        let Ok(ste) = &copy.decoded else {
            return;
        };
        let s2 = ste.stage2.is_some();
        let stray = words[0] & 7 << 56 != 0
            || words[1] & 7 << 41 != 0
            || (s2 && words[3] & !mask(51, 4) != 0)
            || words[4] >> 16 != 0
            || words[5] | words[6] | words[7] != 0;
        if stray && !ste.aborts {
            let item = (format!("the entry of stream {stream:#x}"), copy.origin);
            self.record
                .violate(Rule::EntryReservedBits, format!("{words:#x?}"), &[item]);
        }
    }

    /// Reserved bits of a context descriptor that is valid.
    pub(crate) fn check_reserved_cd(&mut self, stream: u32, substream: u32, copy: &CdCopy) {
        self.entry_fetched((stream, Some(substream)));
        let words = &copy.words;
        if !crate::cd::is_valid(words) {
            return;
        }
        let stray = words[1] & mask(57, 52) != 0
            || words[2] & mask(57, 52) != 0
            || words[5] & mask(63, 56) != 0
            || words[6] >> 48 != 0
            || words[7] >> 48 != 0;
        if stray {
            let item = (
                format!("the context descriptor {substream} of stream {stream:#x}"),
                copy.origin,
            );
            self.record
                .violate(Rule::EntryReservedBits, format!("{words:#x?}"), &[item]);
        }
    }

    /// The SMMU writes a record: not into a frame that was given back.
    pub(crate) fn check_written(&self, pa: u64) {
        if self.claims.is_free(pa) {
            self.violate(
                Rule::FreedFrameFetched,
                format!("SMMU {} wrote a record at {pa:#x}", self.index),
            );
        }
    }

    /// A lookup hit two entries.
    pub(crate) fn conflict(&self, va: u64, one: &VaEntry, other: &VaEntry) {
        let same = one.stage1.translate(va) == other.stage1.translate(va)
            && one.stage1.attributes == other.stage1.attributes
            && one.stage1.permission == other.stage1.permission;
        if !same {
            let items = [
                (format!("a translation of {va:#x}"), one.stage1.origin),
                (
                    format!("another translation of {va:#x}"),
                    other.stage1.origin,
                ),
            ];
            self.record.violate(
                Rule::TranslationConflict,
                format!("a lookup of {va:#x}"),
                &items,
            );
        }
    }

    /// A command was consumed: its parameters, and what it should have been preceded by.
    pub(crate) fn check_command(&self, command: &Command) {
        let sid_bits = u32::from(self.id.sid_bits);
        let is_far = |stream: u32| u64::from(stream) >> sid_bits != 0;
        let is_wide = |substream: u32| substream >> self.id.ssid_bits.min(20) != 0;
        let wrong = match command {
            Command::CfgiSte { stream, .. }
            | Command::CfgiCdAll { stream }
            | Command::StallTerm { stream } => is_far(*stream),
            Command::CfgiRange { log2: 32, .. } => false,
            Command::CfgiRange { stream, .. } | Command::Resume { stream, .. } => is_far(*stream),
            Command::CfgiCd {
                stream, substream, ..
            } => is_far(*stream) || is_wide(*substream),
            Command::AtcInv {
                stream, substream, ..
            }
            | Command::PriResp {
                stream, substream, ..
            } => is_far(*stream) || substream.is_some_and(is_wide),
            Command::Tlbi(tlbi) => self.is_beyond(tlbi),
            _ => false,
        };
        if wrong {
            self.violate(Rule::CommandOutOfRange, format!("{command:x?}"));
        }
        self.check_visible(command);
    }

    fn is_beyond(&self, tlbi: &Tlbi) -> bool {
        let wide_vmid = !self.id.vmid16 && tlbi.vmid().is_some_and(|vmid| vmid > 0xff);
        let asid = match tlbi {
            Tlbi::Asid { asid, .. } | Tlbi::Va { asid, .. } => *asid,
            _ => 0,
        };
        let far_ipa =
            matches!(tlbi, Tlbi::S2Ipa { span, .. } if span.first >> self.id.ias_bits() != 0);
        wide_vmid || (!self.id.asid16 && asid > 0xff) || far_ipa
    }

    /// The entry that is to be forgotten must already be as it is to be.
    fn check_visible(&self, command: &Command) {
        let pa = match command {
            Command::CfgiSte { stream, .. } => self.peek_ste_address(*stream),
            Command::CfgiCd {
                stream, substream, ..
            } => self
                .peek_ste(*stream)
                .and_then(|ste| self.peek_cd_address(&ste, *substream)),
            _ => None,
        };
        if let Some(pa) = pa
            && (0..8).any(|word| self.memory.is_unpublished(pa + 8 * word))
        {
            self.violate(
                Rule::InvalidatedBeforeVisible,
                format!("the entry at {pa:#x}, by {command:x?}"),
            );
        }
    }
}
