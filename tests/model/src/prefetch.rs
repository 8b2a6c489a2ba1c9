//! Looking ahead: fetching what is reachable before anybody needs it (§3.21.1, §3.21.2).

use std::collections::BTreeSet;

use crate::cd::Cd;
use crate::command::Command;
use crate::core::Core;
use crate::descriptor::Descriptor;
use crate::event::Class;
use crate::format::Root;
use crate::reading::Partial;
use crate::registers::cr0;
use crate::stage1::Space;
use crate::stage2::Need;
use crate::ste::Ste;
use crate::watch::Use;

/// Stream tables up to this size are swept whole; of larger ones only streams that were noticed.
const SWEPT_STREAMS_LOG2: u32 = 8;
/// CD tables likewise: so many first SubstreamIDs, and those noticed.
const SWEPT_CONTEXTS: u32 = 32;

/// So many words of translation tables are looked at in one go.
const BUDGET: u32 = 1 << 16;

/// What is known of things worth fetching.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    streams: BTreeSet<u32>,
    contexts: BTreeSet<(u32, u32)>,
    /// Structures that are being read.
    pub(crate) partials: Vec<Partial>,
    /// Streams of which something was removed that could be fetched again.
    stale: BTreeSet<u32>,
    /// Single contexts, likewise.
    stale_contexts: BTreeSet<(u32, u32)>,
    /// How many more words of tables may be looked at now.
    budget: u32,
}

impl Ahead {
    /// The streams that were noticed.
    pub(crate) fn noticed(&self) -> impl Iterator<Item = &u32> {
        self.streams.iter()
    }
}

impl Core {
    /// A stream was used, or its entry stored to.
    pub(crate) fn notice_stream(&mut self, stream: u32) {
        if self.choices.looks_ahead() {
            self.ahead.streams.insert(stream);
        }
    }

    pub(crate) fn notice_context(&mut self, stream: u32, substream: u32) {
        if self.choices.looks_ahead() {
            self.ahead.streams.insert(stream);
            self.ahead.contexts.insert((stream, substream));
        }
    }

    /// Something was removed that could be fetched again.
    pub(crate) fn has_forgotten(&mut self, command: &Command) {
        if !self.choices.looks_ahead() {
            return;
        }
        let of_regime = |stream: &u32| match command {
            Command::Tlbi(tlbi) => {
                let entry = self
                    .caches
                    .config
                    .ste(*stream)
                    .and_then(|copy| copy.decoded.ok());
                entry.is_some_and(|ste| tlbi.vmid().is_none_or(|vmid| vmid == ste.vmid))
            }
            _ => {
                crate::entry::covers(command, (*stream, None))
                    || crate::entry::covers(command, (*stream, Some(0)))
            }
        };
        if let Command::CfgiCd {
            stream, substream, ..
        } = command
        {
            self.ahead.stale_contexts.insert((*stream, *substream));
            return;
        }
        let streams = self.ahead.streams.iter().copied();
        let stale: Vec<u32> = streams.filter(of_regime).collect();
        self.ahead.stale.extend(stale);
    }

    /// Fetches ahead, as the mode says.
    pub(crate) fn look_around(&mut self) {
        if !self.choices.looks_ahead() || !self.is_on(cr0::SMMUEN) {
            return;
        }
        self.go_on_reading();
        if self.choices.is_chaotic() {
            if self.choices.one_in(2) {
                self.look_at_some_stream();
            }
        } else {
            self.ahead.budget = BUDGET;
            for stream in std::mem::take(&mut self.ahead.stale) {
                self.look_at_stream(stream);
            }
            for (stream, substream) in std::mem::take(&mut self.ahead.stale_contexts) {
                let entry = self.caches.config.ste(stream).map(|copy| copy.decoded);
                if let Some(Ok(ste)) = entry {
                    self.look_at_context(stream, &ste, substream);
                }
            }
        }
    }

    fn look_at_some_stream(&mut self) {
        let count = self.ahead.streams.len() as u64;
        if count == 0 {
            return;
        }
        let at = self.choices.below(count) as usize;
        if let Some(stream) = self.ahead.streams.iter().nth(at).copied() {
            self.ahead.budget = self.choices.below(4096) as u32;
            self.look_at_stream(stream);
        }
    }

    /// Fetches everything reachable, up to a budget.
    pub(crate) fn sweep(&mut self) {
        if !self.choices.looks_ahead() || !self.is_on(cr0::SMMUEN) {
            return;
        }
        self.ahead.budget = BUDGET;
        let log2 = self.stream_table().log2_streams;
        if log2 <= SWEPT_STREAMS_LOG2 {
            self.ahead.streams.extend(0..1 << log2);
        }
        for stream in self.ahead.streams.clone() {
            self.look_at_stream(stream);
        }
    }

    pub(crate) fn look_at_stream(&mut self, stream: u32) {
        if self.caches.config.ste(stream).is_none() {
            if !self.choices.prefetches() {
                return;
            }
            let Ok(copy) = self.fetch_ste(stream) else {
                return;
            };
            self.caches.config.stream_mut(stream).ste = Some(copy);
        }
        let Some(Ok(ste)) = self.caches.config.ste(stream).map(|copy| copy.decoded) else {
            return;
        };
        if let Some(s1) = ste.stage1 {
            let count = SWEPT_CONTEXTS.min(1 << s1.log2_contexts);
            let noticed = self
                .ahead
                .contexts
                .range((stream, count)..=(stream, u32::MAX))
                .map(|(_, context)| *context);
            let contexts: Vec<u32> = (0..count).chain(noticed).collect();
            for context in contexts {
                self.look_at_context(stream, &ste, context);
            }
        }
        if let Some(s2) = &ste.stage2
            && self.choices.prefetches()
        {
            self.look_at_tree2(stream, &ste, s2.root, s2.shape.root.level, 0);
        }
    }

    fn look_at_context(&mut self, stream: u32, ste: &Ste, substream: u32) {
        let Some(s1) = ste.stage1 else {
            return;
        };
        if substream >> s1.log2_contexts != 0 || !self.choices.prefetches() {
            return;
        }
        let Ok(copy) = self.context_copy(stream, ste, &s1, substream) else {
            return;
        };
        let Ok(cd) = Cd::decode(&copy.words, &self.id, ste.world, s1.forbids_stalls) else {
            return;
        };
        let space = Space {
            stream,
            substream,
            ste,
            cd: &cd,
        };
        for (half, base) in [(Some(&cd.lower), 0), (cd.upper.as_ref(), u64::MAX)] {
            let Some((root, table)) = half.and_then(|half| half.table) else {
                continue;
            };
            let base = if base == 0 {
                0
            } else {
                u64::MAX << root.input_bits
            };
            self.look_at_tree1(&space, root, table, root.level, base);
        }
    }

    fn spend(&mut self) -> bool {
        self.ahead.budget = self.ahead.budget.saturating_sub(1);
        self.ahead.budget > 0
    }

    /// Walks for everything that the stage-2 table at `table` maps from `base` on.
    fn look_at_tree2(&mut self, stream: u32, ste: &Ste, table: u64, level: u32, base: u64) {
        let Some(s2) = &ste.stage2 else {
            return;
        };
        let root = s2.shape.root;
        for index in 0..entries(root, level) {
            if !self.spend() {
                return;
            }
            let word = self.peek(table + 8 * index).unwrap_or(0);
            let word = if s2.is_big_endian {
                word.swap_bytes()
            } else {
                word
            };
            if word & 1 == 0 {
                continue;
            }
            let ipa = base + (index << root.granule.level_log2(level));
            if let Descriptor::Table { address } =
                Descriptor::new(word, root.granule, level, s2.output_bits)
            {
                self.look_at_tree2(stream, ste, address, level + 1, ipa);
            } else {
                let _ = self.stage2_leaf(stream, s2, ipa, Class::Input);
            }
        }
    }

    /// The same for stage 1.
    fn look_at_tree1(&mut self, space: &Space<'_>, root: Root, table: u64, level: u32, base: u64) {
        for index in 0..entries(root, level) {
            if !self.spend() {
                return;
            }
            let Some(pa) = self.peek_through(space.ste, table + 8 * index) else {
                continue;
            };
            let word = self.peek(pa).unwrap_or(0);
            let word = if space.cd.is_big_endian {
                word.swap_bytes()
            } else {
                word
            };
            if word & 1 == 0 {
                continue;
            }
            let va = base.wrapping_add(index << root.granule.level_log2(level));
            if let Descriptor::Table { address } =
                Descriptor::new(word, root.granule, level, space.cd.output_bits)
            {
                self.look_at_tree1(space, root, address, level + 1, va);
            } else {
                self.look_at_va(space, va);
            }
        }
    }

    /// Translates one address ahead of need. Nothing is recorded, whatever is met.
    fn look_at_va(&mut self, space: &Space<'_>, va: u64) {
        let need = Need {
            is_privileged: true,
            ..Need::READ
        };
        let Ok((mut entry, is_kept)) = self.stage1(space, va, need) else {
            return;
        };
        if is_kept {
            return;
        }
        if let Some(s2) = &space.ste.stage2 {
            let ipa = entry.stage1.translate(va);
            match self.stage2_leaf(space.stream, s2, ipa, Class::Input) {
                Ok(leaf) => entry.stage2 = Some(leaf),
                Err(_) => return,
            }
        }
        self.keep_va(space, va, entry);
    }

    /// CMD_PREFETCH_CONFIG.
    pub(crate) fn prefetch_config(&mut self, stream: u32, substream: Option<u32>) {
        if !self.is_on(cr0::SMMUEN) {
            return;
        }
        if let (Ok((ste, _)), Some(substream)) = (self.stream_entry(stream), substream)
            && let Some(s1) = ste.stage1
            && substream >> s1.log2_contexts == 0
        {
            let _ = self.context(stream, &ste, substream);
        }
    }

    /// CMD_PREFETCH_ADDR.
    pub(crate) fn prefetch_address(&mut self, stream: u32, substream: Option<u32>, address: u64) {
        if !self.is_on(cr0::SMMUEN) {
            return;
        }
        if let Ok((ste, _)) = self.stream_entry(stream)
            && !ste.aborts
        {
            let request = crate::route::Request {
                stream,
                substream,
                address,
                need: Need::READ,
            };
            let _ = self.resolve(&ste, &request);
        }
    }

    /// A word that is used as `what` has changed: the SMMU may look at once.
    pub(crate) fn look_at_use(&mut self, what: Use) {
        self.ahead.budget = BUDGET;
        match what {
            Use::L1Std { index } => {
                if let Some(split) = self.stream_table().split {
                    let first = index << split;
                    let last = first | ((1 << split) - 1);
                    let streams: Vec<u32> =
                        self.ahead.streams.range(first..=last).copied().collect();
                    for stream in streams {
                        self.look_at_stream(stream);
                    }
                }
            }
            Use::Ste { stream } => {
                self.notice_stream(stream);
                self.begin_reading(stream, None);
            }
            Use::L1Cd { stream, index } => self.look_below(stream, index),
            Use::Cd { stream, substream } => {
                self.notice_context(stream, substream);
                self.begin_reading(stream, Some(substream));
            }
            Use::Stage1 {
                stream,
                substream,
                va,
                ..
            } => self.look_at_stage1(stream, substream, va),
            Use::Stage2 { stream, ipa, .. } => {
                if let Some(Ok(ste)) = self.caches.config.ste(stream).map(|copy| copy.decoded)
                    && let Some(s2) = &ste.stage2
                    && self.choices.prefetches()
                {
                    let _ = self.stage2_leaf(stream, s2, ipa, Class::Input);
                }
            }
        }
    }

    /// An L1CD has changed: contexts of its leaf that were noticed, and the first ones.
    fn look_below(&mut self, stream: u32, index: u32) {
        let Some(Ok(ste)) = self.caches.config.ste(stream).map(|copy| copy.decoded) else {
            return;
        };
        let Some(split) = ste.stage1.as_ref().and_then(crate::substream::split) else {
            return;
        };
        let first = index << split;
        for substream in first..first + SWEPT_CONTEXTS {
            self.look_at_context(stream, &ste, substream);
        }
    }

    fn look_at_stage1(&mut self, stream: u32, substream: u32, va: u64) {
        let Some(Ok(ste)) = self.caches.config.ste(stream).map(|copy| copy.decoded) else {
            return;
        };
        let (Some(s1), Some(copy)) = (
            ste.stage1,
            self.caches.config.cd(stream, substream).copied(),
        ) else {
            return;
        };
        if let Ok(cd) = Cd::decode(&copy.words, &self.id, ste.world, s1.forbids_stalls)
            && self.choices.prefetches()
        {
            self.look_at_va(
                &Space {
                    stream,
                    substream,
                    ste: &ste,
                    cd: &cd,
                },
                va,
            );
        }
    }

    /// Drops some of what is kept, without need.
    pub(crate) fn evict_some(&mut self) {
        if !self.choices.one_in(8) {
            return;
        }
        if self.choices.one_in(2) {
            let regimes = self.caches.tlb.regimes.len() as u64;
            if regimes != 0 {
                let at = self.choices.below(regimes) as usize;
                let mut tags: Vec<_> = self.caches.tlb.regimes.keys().copied().collect();
                tags.sort_unstable();
                self.caches.tlb.regimes.remove(&tags[at]);
            }
        } else if !self.ahead.streams.is_empty() {
            let at = self.choices.below(self.ahead.streams.len() as u64) as usize;
            if let Some(stream) = self.ahead.streams.iter().nth(at).copied() {
                self.caches.config.forget_stream(stream);
            }
        }
    }
}

/// How many descriptors a table at `level` has.
const fn entries(root: Root, level: u32) -> u64 {
    if level == root.level {
        1 << root.index_bits()
    } else {
        1 << root.granule.level_bits()
    }
}
