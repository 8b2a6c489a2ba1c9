//! What devices may hold in their ATCs: what is known without looking into a device (§3.9.1).

use std::collections::BTreeMap;

use crate::ats::{AtcInvalidation, AtsGrant};
use crate::bits::ones;
use crate::command::{Command, Tlbi};
use crate::core::Core;
use crate::story::Origin;
use crate::transaction::Transaction;
use crate::violation::Rule;

/// How many invalidated grants are remembered, to tell of a device that still uses one.
const REMEMBERED: usize = 256;

/// A translation that a device was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    stream: u32,
    substream: Option<u32>,
    /// The first input address.
    start: u64,
    grant: AtsGrant,
    /// The grant is an IPA (EATS = 2).
    is_split: bool,
    origin: Origin,
}

impl Held {
    fn is_covered_by(&self, invalidation: &AtcInvalidation) -> bool {
        let is_meant = match invalidation.substream {
            Some(_) if invalidation.is_global => self.substream.is_some(),
            substream => self.substream == substream,
        };
        let last = |start: u64, log2: u32| start | ones(log2);
        self.stream == invalidation.stream
            && is_meant
            && self.start <= last(invalidation.address, invalidation.log2_bytes)
            && invalidation.address <= last(self.start, self.grant.log2_bytes)
    }

    /// Whether a translated access comes through this grant.
    fn serves(&self, transaction: &Transaction) -> bool {
        let offset = transaction.address.wrapping_sub(self.grant.address);
        self.stream == transaction.stream
            && (transaction.substream.is_none() || transaction.substream == self.substream)
            && offset <= ones(self.grant.log2_bytes)
    }

    fn lead(&self) -> (String, Origin) {
        let tag = (self.stream, self.substream);
        let item = format!("a translation of {:#x} in the ATC of {tag:x?}", self.start);
        (item, self.origin)
    }
}

/// What one SMMU has granted, and whose contexts are being released.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    held: Vec<Held>,
    gone: Vec<Held>,
    /// Spaces that are being released, by VMID and ASID.
    releasing: BTreeMap<(u16, u16), Release>,
}

/// A release that has begun and not ended.
#[derive(Debug, Default)]
struct Release {
    /// Contexts of the space.
    contexts: Vec<(u32, u32)>,
    begun: u64,
    /// Nothing of the tags was here, or all of it was flushed since and that synced: what others
    /// invalidate of the same VMID meanwhile is theirs to wait for.
    is_clean: bool,
}

impl Core {
    /// A device was granted a translation: it may keep it until it is invalidated.
    pub(crate) fn note_grant(
        &mut self,
        transaction: &Transaction,
        grant: AtsGrant,
        is_split: bool,
    ) {
        if !(grant.can_read || grant.can_write) {
            return;
        }
        let new = Held {
            stream: transaction.stream,
            substream: transaction.substream,
            start: transaction.address & !ones(grant.log2_bytes),
            grant,
            is_split,
            origin: Origin {
                pa: grant.address,
                value: 0,
                step: self.record.step(),
            },
        };
        let is_same = |old: &Held| {
            (old.stream, old.substream, old.start) == (new.stream, new.substream, new.start)
                && old.grant.address == grant.address
        };
        let grants = &mut self.grants;
        grants.held.retain(|old| !is_same(old));
        grants.gone.retain(|old| !is_same(old));
        grants.held.push(new);
    }

    /// A device has answered an invalidation that was sent in step `sent`.
    pub(crate) fn grants_invalidated(&mut self, invalidation: &AtcInvalidation, sent: u64) {
        let held = std::mem::take(&mut self.grants.held);
        let (gone, held): (Vec<_>, Vec<_>) = held
            .into_iter()
            .partition(|held| held.origin.step <= sent && held.is_covered_by(invalidation));
        self.grants.held = held;
        self.grants.gone.extend(gone);
        let excess = self.grants.gone.len().saturating_sub(REMEMBERED);
        self.grants.gone.drain(..excess);
    }

    /// A device has lost what it was granted, by a reset.
    pub(crate) fn grants_lost(&mut self, stream: u32) {
        self.grants.held.retain(|held| held.stream != stream);
    }

    /// A translated access: not through a grant that was invalidated.
    pub(crate) fn check_granted(&self, transaction: &Transaction) {
        let grants = &self.grants;
        if grants.held.iter().any(|held| held.serves(transaction)) {
            return;
        }
        if let Some(gone) = grants.gone.iter().find(|gone| gone.serves(transaction)) {
            self.record.violate(
                Rule::AtcStale,
                format!("a translated access to {:#x}", transaction.address),
                &[gone.lead()],
            );
        }
    }

    /// Grants that lead into `start..end`.
    pub(crate) fn grants_into(&self, start: u64, end: u64) -> Vec<(String, Origin)> {
        let leads_there = |held: &&Held| {
            let first = if held.is_split {
                let ste = self.peek_ste(held.stream);
                ste.and_then(|ste| self.peek_through(&ste, held.grant.address))
            } else {
                Some(held.grant.address)
            };
            first.is_some_and(|first| first < end && first | ones(held.grant.log2_bytes) >= start)
        };
        let held = self.grants.held.iter().filter(leads_there);
        held.map(Held::lead).collect()
    }

    /// Grants of one SubstreamID.
    pub(crate) fn grants_of(&self, stream: u32, substream: u32) -> Vec<(String, Origin)> {
        let is_of = |held: &&Held| (held.stream, held.substream) == (stream, Some(substream));
        self.grants
            .held
            .iter()
            .filter(is_of)
            .map(Held::lead)
            .collect()
    }

    /// A release begins: these contexts are the space's.
    pub(crate) fn release_begins(&mut self, vmid: u16, asid: u16) {
        let contexts = self.contexts_with(vmid, asid);
        let release = Release {
            is_clean: contexts.is_empty() && self.translations_of(vmid, asid).is_empty(),
            contexts,
            begun: self.record.step(),
        };
        self.grants.releasing.insert((vmid, asid), release);
    }

    /// A SYNC has completed these commands, each sent in its step.
    pub(crate) fn flushes_synced(&mut self, synced: &[(Command, u64)]) {
        for ((vmid, asid), release) in &mut self.grants.releasing {
            let takes_all = |command: &Command| match command {
                Command::Tlbi(Tlbi::NhAll { vmid: of } | Tlbi::S12Vmall { vmid: of }) => of == vmid,
                Command::Tlbi(Tlbi::Asid {
                    vmid: of,
                    asid: which,
                    ..
                }) => (of, which) == (vmid, asid),
                Command::Tlbi(Tlbi::NsnhAll) => true,
                _ => false,
            };
            let begun = release.begun;
            let mut since = synced.iter().filter(|(_, step)| *step >= begun);
            release.is_clean |= since.any(|(command, _)| takes_all(command));
        }
    }

    /// Whether no flush of a space that is being released is awaited here.
    pub(crate) fn is_flushed(&self, vmid: u16, asid: u16) -> bool {
        let release = self.grants.releasing.get(&(vmid, asid));
        release.is_some_and(|release| release.is_clean)
    }

    /// A release has ended; gives what ATCs may still hold of the space.
    pub(crate) fn release_ends(&mut self, vmid: u16, asid: u16) -> Vec<(String, Origin)> {
        let release = self.grants.releasing.remove(&(vmid, asid));
        let contexts = release.unwrap_or_default().contexts.into_iter();
        contexts
            .flat_map(|(stream, substream)| self.grants_of(stream, substream))
            .collect()
    }
}
