//! What only the driver knows: which frames and tags are free (§3.17, §3.21).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cache::tlb::{Regime, Scope};
use crate::core::Core;
use crate::ste::World;
use crate::story::Origin;
use crate::violation::Rule;

/// A statement of the driver that the model holds against what the SMMUs keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The frames from `pa` on are given back: nothing may lead to them or be read from them.
    FrameFreed {
        /// First byte.
        pa: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// The frames are in use again.
    FrameTaken {
        /// First byte.
        pa: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// The ASID is given to a new space: nothing of an older one may be left.
    AsidTaken {
        /// Of which guest.
        vmid: u16,
        /// Which.
        asid: u16,
    },
    /// The VMID is given to a new guest.
    VmidTaken {
        /// Which.
        vmid: u16,
    },
    /// The SubstreamID of a stream is given to a new space.
    PasidTaken {
        /// Of which stream, on the SMMU with this index.
        smmu: usize,
        /// The StreamID.
        stream: u32,
        /// The SubstreamID.
        substream: u32,
    },
    /// A space is being released: its context descriptors may differ from each other from now on.
    ReleaseBegins {
        /// Of which guest.
        vmid: u16,
        /// Whose.
        asid: u16,
    },
    /// The release has returned: nothing of the space may be cached, live, or reach memory.
    ReleaseEnds {
        /// Of which guest.
        vmid: u16,
        /// Whose.
        asid: u16,
    },
}

/// What has been claimed and still holds.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Free ranges: byte after the last, by first byte.
    free: Mutex<BTreeMap<u64, u64>>,
    releasing: Mutex<BTreeSet<(u16, u16)>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claims {
    /// Whether `pa` lies in a frame that was given back.
    pub(crate) fn is_free(&self, pa: u64) -> bool {
        let free = lock(&self.free);
        !free.is_empty()
            && free
                .range(..=pa)
                .next_back()
                .is_some_and(|(_, end)| *end > pa)
    }

    /// Whether the space with these tags is being released.
    pub(crate) fn is_releasing(&self, vmid: u16, asid: u16) -> bool {
        lock(&self.releasing).contains(&(vmid, asid))
    }

    /// Takes the claim down.
    pub(crate) fn note(&self, claim: Claim) {
        match claim {
            Claim::FrameFreed { pa, bytes } => {
                let mut free = lock(&self.free);
                carve(&mut free, pa, pa.saturating_add(bytes));
                free.insert(pa, pa.saturating_add(bytes));
            }
            Claim::FrameTaken { pa, bytes } => {
                carve(&mut lock(&self.free), pa, pa.saturating_add(bytes))
            }
            Claim::ReleaseBegins { vmid, asid } => {
                lock(&self.releasing).insert((vmid, asid));
            }
            Claim::ReleaseEnds { vmid, asid } => {
                lock(&self.releasing).remove(&(vmid, asid));
            }
            Claim::AsidTaken { .. } | Claim::VmidTaken { .. } | Claim::PasidTaken { .. } => {}
        }
    }
}

/// Takes `start..end` out of the ranges.
fn carve(free: &mut BTreeMap<u64, u64>, start: u64, end: u64) {
    let touched: Vec<(u64, u64)> = free
        .range(..end)
        .rev()
        .take_while(|(_, other_end)| **other_end > start)
        .map(|(first, last)| (*first, *last))
        .collect();
    for (first, last) in touched {
        free.remove(&first);
        if first < start {
            free.insert(first, start);
        }
        if last > end {
            free.insert(end, last);
        }
    }
}

/// A cached item that leads somewhere.
type Lead = (String, Origin);

impl Core {
    /// Holds a claim against what this SMMU keeps and can reach.
    pub(crate) fn check_claim(&mut self, claim: Claim) {
        match claim {
            Claim::FrameFreed { pa, bytes } => self.check_freed(pa, pa.saturating_add(bytes)),
            Claim::FrameTaken { .. } | Claim::ReleaseBegins { .. } => {}
            Claim::AsidTaken { vmid, asid } => {
                self.check_asid(
                    vmid,
                    asid,
                    Rule::TagReusedTooEarly,
                    Rule::TagReusedTooEarly,
                    "ASID",
                );
            }
            Claim::ReleaseEnds { vmid, asid } => {
                self.check_asid(
                    vmid,
                    asid,
                    Rule::ReleasedSpaceCached,
                    Rule::ReleasedSpaceReachable,
                    "released ASID",
                );
            }
            Claim::VmidTaken { vmid } => self.check_vmid(vmid),
            Claim::PasidTaken {
                smmu,
                stream,
                substream,
            } => {
                if smmu == self.index {
                    self.check_pasid(stream, substream);
                }
            }
        }
    }

    fn object(&self, rule: Rule, what: &str, leads: Vec<Lead>) {
        // One violation a claim: the first item tells the story, the rest are counted.
        if let Some(first) = leads.first() {
            let what = format!("{what} ({} items)", leads.len());
            self.record.violate(rule, what, std::slice::from_ref(first));
        }
    }

    fn check_freed(&mut self, start: u64, end: u64) {
        let inside = |at: u64, bytes: u64| at < end && at.saturating_add(bytes) > start;
        let mut leads: Vec<Lead> = Vec::new();
        for (index, copy) in &self.caches.config.l1stds {
            let array = copy.word & 0x00ff_ffff_ffff_ffc0;
            let count = copy.word & 0x1f;
            if inside(copy.origin.pa, 8) || (count != 0 && inside(array, 32u64 << count.min(11))) {
                leads.push((format!("level-1 descriptor {index:#x}"), copy.origin));
            }
        }
        for (stream, copies) in &self.caches.config.streams {
            if let Some(copy) = &copies.ste {
                let leads_there = copy
                    .decoded
                    .as_ref()
                    .is_ok_and(|ste| self.ste_leads(ste, &inside));
                if inside(copy.origin.pa, 64) || leads_there {
                    leads.push((format!("the entry of stream {stream:#x}"), copy.origin));
                }
            }
            let contexts = copies
                .cds
                .iter()
                .map(|(index, copy)| (index, copy.origin, self.cd_leads(*stream, copy, &inside)));
            let pointers = copies
                .l1cds
                .iter()
                .map(|(index, copy)| (index, copy.origin, false));
            for (index, origin, leads_there) in contexts.chain(pointers) {
                if inside(origin.pa, 8) || leads_there {
                    leads.push((
                        format!("context descriptor {index} of stream {stream:#x}"),
                        origin,
                    ));
                }
            }
        }
        self.tlb_leads(&inside, &mut leads);
        leads.sort_by_key(|(_, origin)| (origin.step, origin.pa));
        self.object(
            Rule::FrameStillCached,
            &format!("the frame {start:#x}..{end:#x} was given back"),
            leads,
        );
        self.check_unreachable(start, end);
    }

    fn ste_leads(&self, ste: &crate::ste::Ste, inside: &impl Fn(u64, u64) -> bool) -> bool {
        let by_stage2 = ste
            .stage2
            .is_some_and(|s2| inside(s2.root, s2.shape.root_bytes()));
        let by_contexts = ste.stage1.is_some_and(|s1| {
            let bytes = match crate::substream::split(&s1) {
                None => 64u64 << s1.log2_contexts,
                Some(split) => 8u64 << s1.log2_contexts.saturating_sub(split),
            };
            let first = crate::substream::first_level(&s1, 0);
            match ste.stage2 {
                None => inside(first, bytes),
                Some(_) => self
                    .peek_through(ste, first)
                    .is_some_and(|pa| inside(pa, bytes.min(4096))),
            }
        });
        by_stage2 || by_contexts
    }

    fn cd_leads(
        &self,
        stream: u32,
        copy: &crate::cache::config::CdCopy,
        inside: &impl Fn(u64, u64) -> bool,
    ) -> bool {
        let Some(Ok(ste)) = self.caches.config.ste(stream).map(|copy| copy.decoded) else {
            return false;
        };
        let Ok(cd) = crate::cd::Cd::decode(&copy.words, &self.id, ste.world, false) else {
            return false;
        };
        let tables = [Some(cd.lower), cd.upper]
            .into_iter()
            .flatten()
            .filter_map(|half| half.table);
        let mut tables = tables.map(|(root, table)| (table, 8u64 << root.index_bits()));
        tables.any(|(table, bytes)| match ste.stage2 {
            None => inside(table, bytes),
            Some(_) => self
                .peek_through(&ste, table)
                .is_some_and(|pa| inside(pa, bytes.min(4096))),
        })
    }

    fn tlb_leads(&self, inside: &impl Fn(u64, u64) -> bool, leads: &mut Vec<Lead>) {
        for (regime, entries) in &self.caches.tlb.regimes {
            for (key, entry) in &entries.va {
                let va = key.page << key.log2;
                let ipa = entry.stage1.translate(va);
                let pa = entry.stage2.map_or(ipa, |leaf| leaf.translate(ipa));
                if inside(pa, 1 << key.log2) {
                    leads.push((
                        format!("the translation of {va:#x} in {regime:?} {:?}", key.scope),
                        entry.stage1.origin,
                    ));
                }
            }
            for (key, entry) in &entries.ipa {
                if inside(entry.leaf.pa, 1 << key.log2) {
                    let ipa = key.page << key.log2;
                    leads.push((
                        format!("the stage-2 translation of {ipa:#x} in {regime:?}"),
                        entry.leaf.origin,
                    ));
                }
            }
            let pa_of = |copy: &crate::cache::tlb::TableCopy| copy.pa.unwrap_or(copy.address);
            let is_nested = !entries.ipa.is_empty();
            let tables = entries
                .va_tables
                .values()
                .filter(|copy| copy.pa.is_some() || !is_nested);
            for copy in tables.chain(entries.ipa_tables.values()) {
                if inside(pa_of(copy), 1 << copy.granule.page_bits()) {
                    leads.push((format!("a table descriptor in {regime:?}"), copy.origin));
                }
            }
        }
    }

    /// In memory, too, nothing may lead there: the entries that were noticed.
    fn check_unreachable(&mut self, start: u64, end: u64) {
        let inside = |at: u64, bytes: u64| at < end && at.saturating_add(bytes) > start;
        let streams: Vec<u32> = self.caches.config.streams.keys().copied().collect();
        for stream in streams {
            let Some(ste) = self.peek_ste(stream) else {
                continue;
            };
            let by_stage2 = ste
                .stage2
                .is_some_and(|s2| inside(s2.root, s2.shape.root_bytes()));
            if by_stage2 || self.ste_leads(&ste, &inside) {
                self.violate(
                    Rule::FrameStillReachable,
                    format!("the frame {start:#x}..{end:#x}, from the entry of stream {stream:#x}"),
                );
                return;
            }
        }
    }

    fn check_asid(&mut self, vmid: u16, asid: u16, cached: Rule, reachable: Rule, name: &str) {
        let mut leads: Vec<Lead> = Vec::new();
        for world in [World::El1, World::El2E2h] {
            let regime = Regime { world, vmid };
            let Some(entries) = self.caches.tlb.entries(regime) else {
                continue;
            };
            for (key, entry) in &entries.va {
                if entry.asid == asid || key.scope == Scope::Asid(asid) {
                    leads.push((
                        format!(
                            "a translation of {:#x}, {:?}",
                            key.page << key.log2,
                            key.scope
                        ),
                        entry.stage1.origin,
                    ));
                }
            }
            let tables = entries.va_tables.iter().filter(|(key, _)| key.asid == asid);
            leads.extend(tables.map(|(_, copy)| ("a table descriptor".to_owned(), copy.origin)));
        }
        leads.extend(self.unsynced_leads(vmid, Some(asid)));
        let (in_cache, in_memory) = self.contexts_of(vmid, asid);
        leads.extend(in_cache);
        leads.sort_by_key(|(_, origin)| (origin.step, origin.pa));
        self.object(cached, &format!("{name} {asid} of VMID {vmid}"), leads);
        self.object(
            reachable,
            &format!("{name} {asid} of VMID {vmid}, in memory"),
            in_memory,
        );
    }

    /// Copies, and entries in memory, of context descriptors that can still walk under these tags.
    fn contexts_of(&self, vmid: u16, asid: u16) -> (Vec<Lead>, Vec<Lead>) {
        let (mut in_cache, mut in_memory) = (Vec::new(), Vec::new());
        for (stream, copies) in &self.caches.config.streams {
            let Some(Ok(ste)) = copies.ste.as_ref().map(|copy| copy.decoded) else {
                continue;
            };
            for (index, copy) in &copies.cds {
                let what = || format!("context descriptor {index} of stream {stream:#x}");
                if let Ok(cd) = crate::cd::Cd::decode(&copy.words, &self.id, ste.world, false)
                    && (ste.vmid, cd.asid) == (vmid, asid)
                    && cd.can_walk()
                {
                    in_cache.push((what(), copy.origin));
                }
                if let Some((now, cd, words)) = self.peek_cd(*stream, *index)
                    && (now.vmid, cd.asid) == (vmid, asid)
                    && cd.can_walk()
                {
                    let step = self.record.step();
                    in_memory.push((
                        what(),
                        Origin {
                            value: words[0],
                            step,
                            ..copy.origin
                        },
                    ));
                }
            }
        }
        (in_cache, in_memory)
    }

    /// Invalidations of these tags that no SYNC has completed.
    fn unsynced_leads(&self, vmid: u16, asid: Option<u16>) -> Vec<Lead> {
        use crate::command::{Command, Tlbi};
        let unsynced = self
            .commands
            .unsynced
            .iter()
            .chain(&self.commands.in_progress);
        let touches = |command: &Command| match command {
            Command::Tlbi(
                Tlbi::Asid {
                    vmid: of,
                    asid: which,
                    ..
                }
                | Tlbi::Va {
                    vmid: of,
                    asid: which,
                    ..
                },
            ) => *of == vmid && asid.is_some_and(|asid| asid == *which),
            Command::Tlbi(tlbi) => tlbi.vmid().is_none_or(|of| of == vmid),
            _ => false,
        };
        unsynced
            .filter(|(command, _)| touches(command))
            .map(|(command, step)| {
                (
                    format!("{command:x?}, not synced"),
                    Origin {
                        step: *step,
                        ..Origin::default()
                    },
                )
            })
            .collect()
    }

    fn check_vmid(&mut self, vmid: u16) {
        let regime = Regime {
            world: World::El1,
            vmid,
        };
        let mut leads = self.unsynced_leads(vmid, None);
        if let Some(entries) = self.caches.tlb.entries(regime) {
            leads.extend(
                entries
                    .va
                    .values()
                    .map(|entry| ("a translation".to_owned(), entry.stage1.origin)),
            );
            leads.extend(
                entries
                    .ipa
                    .values()
                    .map(|entry| ("a stage-2 translation".to_owned(), entry.leaf.origin)),
            );
            let tables = entries
                .va_tables
                .values()
                .chain(entries.ipa_tables.values());
            leads.extend(tables.map(|copy| ("a table descriptor".to_owned(), copy.origin)));
        }
        for (stream, copies) in &self.caches.config.streams {
            if let Some(copy) = &copies.ste
                && copy.decoded.is_ok_and(|ste| {
                    ste.vmid == vmid && (ste.stage1.is_some() || ste.stage2.is_some())
                })
            {
                leads.push((format!("the entry of stream {stream:#x}"), copy.origin));
            }
        }
        leads.sort_by_key(|(_, origin)| (origin.step, origin.pa));
        self.object(Rule::TagReusedTooEarly, &format!("VMID {vmid}"), leads);
    }

    fn check_pasid(&mut self, stream: u32, substream: u32) {
        use crate::command::Command;
        let mut leads = Vec::new();
        if let Some(copy) = self
            .caches
            .config
            .cd(stream, substream)
            .filter(|copy| crate::cd::is_valid(&copy.words))
        {
            leads.push((
                format!("context descriptor {substream} of stream {stream:#x}"),
                copy.origin,
            ));
        }
        let touches = |command: &Command| match command {
            Command::AtcInv { stream: of, .. } | Command::CfgiCdAll { stream: of } => *of == stream,
            Command::CfgiCd {
                stream: of,
                substream: which,
                ..
            } => (*of, *which) == (stream, substream),
            _ => false,
        };
        let unsynced = self
            .commands
            .unsynced
            .iter()
            .chain(&self.commands.in_progress);
        let unsynced = unsynced.filter(|(command, _)| touches(command));
        leads.extend(unsynced.map(|(command, step)| {
            (
                format!("{command:x?}, not synced"),
                Origin {
                    step: *step,
                    ..Origin::default()
                },
            )
        }));
        if !self.commands.outstanding.is_empty() {
            leads.push((
                "an invalidation that a device has not answered".to_owned(),
                Origin::default(),
            ));
        }
        self.object(
            Rule::TagReusedTooEarly,
            &format!("SubstreamID {substream} of stream {stream:#x}"),
            leads,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_free_from_the_claim_until_they_are_taken() {
        let claims = Claims::default();
        claims.note(Claim::FrameFreed {
            pa: 0x1000,
            bytes: 0x3000,
        });
        claims.note(Claim::FrameTaken {
            pa: 0x2000,
            bytes: 0x1000,
        });
        assert!(claims.is_free(0x1fff) && !claims.is_free(0x2000) && claims.is_free(0x3000));
        assert!(!claims.is_free(0x4000) && !claims.is_free(0xfff));
        claims.note(Claim::FrameFreed {
            pa: 0x2000,
            bytes: 0x1000,
        });
        assert!(claims.is_free(0x2fff));
    }
}
