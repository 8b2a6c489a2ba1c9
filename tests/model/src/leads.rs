//! What leads into given frames: entries, translations, registers.

use crate::core::Core;
use crate::objection::Lead;
use crate::queue::Queue;
use crate::registers::cr0;

impl Core {
    pub(crate) fn ste_leads(
        &self,
        ste: &crate::ste::Ste,
        inside: &impl Fn(u64, u64) -> bool,
    ) -> bool {
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

    pub(crate) fn cd_leads(
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

    pub(crate) fn tlb_leads(&self, inside: &impl Fn(u64, u64) -> bool, leads: &mut Vec<Lead>) {
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

    /// What the registers point to in these frames: the stream table, or a queue that is on.
    pub(crate) fn table_in(&self, inside: &impl Fn(u64, u64) -> bool) -> Option<&'static str> {
        let table = self.stream_table();
        let table_bytes = match table.split {
            None => 64 << table.log2_streams,
            Some(split) => 8 << table.log2_streams.saturating_sub(split),
        };
        let queue_bytes = |queue: Queue, entry_bytes: u64| u64::from(queue.entries()) * entry_bytes;
        let (commands, events, requests) =
            (self.command_queue(), self.event_queue(), self.pri_queue());
        let all = [
            (cr0::SMMUEN, table.base, table_bytes, "stream table"),
            (
                cr0::CMDQEN,
                commands.base,
                queue_bytes(commands, 16),
                "command queue",
            ),
            (
                cr0::EVENTQEN,
                events.base,
                queue_bytes(events, 32),
                "event queue",
            ),
            (
                cr0::PRIQEN,
                requests.base,
                queue_bytes(requests, 16),
                "PRI queue",
            ),
        ];
        let used = all
            .into_iter()
            .find(|(on, base, bytes, _)| self.is_on(*on) && inside(*base, *bytes));
        used.map(|(.., name)| name)
    }
}
