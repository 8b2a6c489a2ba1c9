//! What the model knows of memory: which words are structures, and the rules about storing to them.

use rustc_hash::FxHashMap;

use crate::cache::tlb::Regime;
use crate::core::Core;
use crate::registers::cr0;
use crate::ste::World;

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

/// How many uses of one page are remembered: eight streams for each context descriptor in it.
const MOST_PLACES: usize = 512;

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
/// Kept by 4 KiB page, the newest of them. Whoever asks checks whether the use still holds.
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
            if places.len() == MOST_PLACES {
                places.remove(0);
            }
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

    /// What the SMMU last read at `pa`, by what it keeps; 0 if it keeps nothing from there.
    pub(crate) fn last_seen(&self, pa: u64) -> u64 {
        let at = ((pa & 63) / 8) as usize;
        for what in self.uses_of(pa) {
            let seen = match what {
                Use::Ste { stream } => self.caches.config.ste(stream).map(|copy| copy.words[at]),
                Use::Cd { stream, substream } => self
                    .caches
                    .config
                    .cd(stream, substream)
                    .map(|copy| copy.words[at]),
                Use::L1Std { index } => self.caches.config.l1stds.get(&index).map(|copy| copy.word),
                Use::L1Cd { stream, index } => {
                    self.caches.config.l1cd(stream, index).map(|copy| copy.word)
                }
                Use::Stage2 { vmid, ipa, .. } => self.last_seen2(vmid, ipa, pa),
                Use::Stage1 { .. } => None,
            };
            if let Some(seen) = seen {
                return seen;
            }
        }
        0
    }

    fn last_seen2(&self, vmid: u16, ipa: u64, pa: u64) -> Option<u64> {
        let regime = Regime {
            world: World::El1,
            vmid,
        };
        let origin = self.caches.tlb.entries(regime)?.find_ipa(ipa)?.leaf.origin;
        (origin.pa == pa).then_some(origin.value)
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
            Use::L1Cd { stream, index } => {
                let ste = self.peek_ste(stream);
                let address = ste.and_then(|ste| self.peek_l1cd_address(&ste, index));
                address == Some(pa)
            }
            Use::Stage1 {
                stream,
                substream,
                level,
                va,
                ..
            } => self
                .peek_walk1(stream, substream, va, level)
                .is_some_and(|(at, _)| at == pa),
            Use::Stage2 {
                stream,
                vmid,
                level,
                ipa,
                ..
            } => {
                let s2 = self
                    .peek_ste(stream)
                    .and_then(|ste| ste.stage2)
                    .filter(|s2| s2.vmid == vmid);
                s2.is_some_and(|s2| self.peek_walk2(&s2, ipa, Some(level)) == Err(Some(pa)))
            }
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
                    va,
                    ..
                } => {
                    self.check_stage1_store(pa, (old, new), (stream, substream), level, va);
                }
                Use::Stage2 {
                    stream, level, ipa, ..
                } => {
                    self.check_stage2_store(pa, (old, new), stream, level, ipa);
                }
                Use::L1Std { .. } | Use::L1Cd { .. } => {}
            }
        }
    }

    /// The first structure in `start..end` that can be reached now, of those that were ever read.
    pub(crate) fn use_in(&self, start: u64, end: u64) -> Option<(u64, Use)> {
        let mut pages: Vec<u64> = (start >> 12..end.div_ceil(4096)).collect();
        pages.retain(|page| self.uses.pages.contains_key(page));
        let places = pages.iter().flat_map(|page| &self.uses.pages[page]);
        let mut inside = places.filter(|place| place.pa < end && place.pa + place.bytes > start);
        inside
            .find(|place| self.still_is(place.pa, place.what))
            .map(|place| (place.pa, place.what))
    }

    /// The first structure in `start..end` that only the hypervisor may change, if it is live now and
    /// was ever read. Stage-1 tables are not among them: they may be a guest's.
    pub(crate) fn sealed_in(&self, start: u64, end: u64) -> Option<(u64, &'static str)> {
        (start >> 12..end.div_ceil(4096)).find_map(|page| {
            let mut places = self.uses.pages.get(&page)?.iter();
            places.find_map(|place| {
                let what = match place.what {
                    Use::L1Std { .. } => "level-1 stream table descriptor",
                    Use::Ste { .. } => "stream table entry",
                    Use::L1Cd { .. } => "level-1 context descriptor",
                    Use::Cd { .. } => "context descriptor",
                    Use::Stage2 { .. } => "stage-2 table",
                    Use::Stage1 { .. } => return None,
                };
                let is_inside = place.pa < end && place.pa + place.bytes > start;
                (is_inside && self.still_is(place.pa, place.what)).then_some((place.pa, what))
            })
        })
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
}
