//! Claims held against what an SMMU keeps and what memory still leads to (§3.17, §3.21).

use crate::cache::tlb::{Regime, Scope};
use crate::claims::Claim;
use crate::core::Core;
use crate::ste::World;
use crate::story::Origin;
use crate::violation::Rule;

/// A cached item that leads somewhere.
pub(crate) type Lead = (String, Origin);

impl Core {
    /// Holds a claim against what this SMMU keeps and can reach.
    pub(crate) fn check_claim(&mut self, claim: Claim) {
        match claim {
            Claim::FrameFreed { pa, bytes } => self.check_freed(pa, pa.saturating_add(bytes)),
            Claim::FrameTaken { .. } => {}
            Claim::ReleaseBegins { vmid, asid } => self.release_begins(vmid, asid),
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
                let leads = self.release_ends(vmid, asid);
                let what = format!("released ASID {asid} of VMID {vmid}, in ATCs");
                self.object(Rule::ReleasedSpaceCached, &what, leads);
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
        leads.extend(self.grants_into(start, end));
        leads.sort_by_key(|(_, origin)| (origin.step, origin.pa));
        self.object(
            Rule::FrameStillCached,
            &format!("the frame {start:#x}..{end:#x} was given back"),
            leads,
        );
        self.check_unreachable(start, end);
    }

    /// In memory, too, nothing may lead there: from entries, and from tables that were walked.
    fn check_unreachable(&mut self, start: u64, end: u64) {
        let inside = |at: u64, bytes: u64| at < end && at.saturating_add(bytes) > start;
        let mut streams: Vec<u32> = self.caches.config.streams.keys().copied().collect();
        streams.sort_unstable();
        if let Some(name) = self.table_in(&inside) {
            let what = format!("the frame {start:#x}..{end:#x} holds the {name}");
            self.violate(Rule::FrameStillReachable, what);
            return;
        }
        let by_entry = streams.into_iter().find(|stream| {
            self.peek_ste(*stream)
                .is_some_and(|ste| self.ste_leads(&ste, &inside))
        });
        if let Some(stream) = by_entry {
            let what =
                format!("the frame {start:#x}..{end:#x}, from the entry of stream {stream:#x}");
            self.violate(Rule::FrameStillReachable, what);
        } else if let Some((pa, what)) = self.use_in(start, end) {
            let what = format!("the frame {start:#x}..{end:#x}, at {pa:#x} as {what:x?}");
            self.violate(Rule::FrameStillReachable, what);
        }
    }

    fn check_asid(&mut self, vmid: u16, asid: u16, cached: Rule, reachable: Rule, name: &str) {
        let mut leads = self.translations_of(vmid, asid);
        if !self.is_flushed(vmid, asid) {
            leads.extend(self.unsynced_leads(vmid, Some(asid)));
        }
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

    /// What is cached of translations under these tags.
    pub(crate) fn translations_of(&self, vmid: u16, asid: u16) -> Vec<Lead> {
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
        leads
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
        let mut leads = self.grants_of(stream, substream);
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
