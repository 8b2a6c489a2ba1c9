//! A device's address translation cache.

use crate::ats::{AtcInvalidation, AtsGrant};

/// One translation that ATS granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Translation {
    pub(super) pasid: Option<u32>,
    /// The first input address.
    pub(super) start: u64,
    pub(super) grant: AtsGrant,
}

impl Translation {
    fn last(&self) -> u64 {
        self.start | low_mask(self.grant.log2_bytes)
    }

    fn allows(&self, is_write: bool, is_instruction: bool) -> bool {
        if is_write {
            self.grant.can_write
        } else if is_instruction {
            self.grant.can_execute
        } else {
            self.grant.can_read
        }
    }
}

/// The low `log2_bytes` bits; all of them from 64 on.
fn low_mask(log2_bytes: u32) -> u64 {
    1u64.checked_shl(log2_bytes).map_or(u64::MAX, |end| end - 1)
}

/// Everything that was granted and not invalidated; it never evicts.
#[derive(Debug, Default)]
pub(super) struct Atc(Vec<Translation>);

impl Atc {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps a grant for `address`, in place of what it had for the same bytes.
    pub(super) fn keep(&mut self, pasid: Option<u32>, address: u64, grant: AtsGrant) {
        let start = address & !low_mask(grant.log2_bytes);
        let new = Translation {
            pasid,
            start,
            grant,
        };
        self.0
            .retain(|old| old.pasid != pasid || old.last() < start || new.last() < old.start);
        self.0.push(new);
    }

    /// Where `address` goes, if a translation is held that allows the access.
    pub(super) fn translate(
        &self,
        pasid: Option<u32>,
        address: u64,
        is_write: bool,
        is_instruction: bool,
    ) -> Option<u64> {
        let hit = self.0.iter().find(|held| {
            held.pasid == pasid
                && (held.start..=held.last()).contains(&address)
                && held.allows(is_write, is_instruction)
        })?;
        Some(hit.grant.address & !low_mask(hit.grant.log2_bytes) | (address - hit.start))
    }

    /// Forgets what `invalidation` covers, and gives it.
    pub(super) fn invalidate(&mut self, invalidation: &AtcInvalidation) -> Vec<Translation> {
        let last = invalidation.address | low_mask(invalidation.log2_bytes);
        let (gone, kept) = std::mem::take(&mut self.0).into_iter().partition(|held| {
            let is_meant = match invalidation.substream {
                Some(_) if invalidation.is_global => held.pasid.is_some(),
                substream => held.pasid == substream,
            };
            is_meant && held.start <= last && invalidation.address <= held.last()
        });
        self.0 = kept;
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(address: u64, log2_bytes: u32) -> AtsGrant {
        AtsGrant {
            address,
            log2_bytes,
            can_read: true,
            can_write: false,
            can_execute: false,
        }
    }

    fn invalidation(substream: Option<u32>, address: u64, log2_bytes: u32) -> AtcInvalidation {
        AtcInvalidation {
            id: 0,
            stream: 0,
            substream,
            is_global: false,
            address,
            log2_bytes,
        }
    }

    #[test]
    fn a_translation_serves_only_its_pasid_bytes_and_permissions() {
        let mut atc = Atc::default();
        atc.keep(Some(5), 0x4000_1234, grant(0x8020_0000, 21));
        assert_eq!(
            atc.translate(Some(5), 0x4000_1234, false, false),
            Some(0x8020_1234)
        );
        assert_eq!(atc.translate(Some(5), 0x4020_0000, false, false), None);
        assert_eq!(atc.translate(Some(5), 0x4000_1234, true, false), None);
        assert_eq!(atc.translate(Some(6), 0x4000_1234, false, false), None);
        assert_eq!(atc.translate(None, 0x4000_1234, false, false), None);
    }

    #[test]
    fn an_invalidation_removes_what_it_touches_and_no_more() {
        let mut atc = Atc::default();
        for page in 0..4 {
            atc.keep(Some(5), page << 12, grant(page << 12, 12));
        }
        atc.keep(None, 0x1000, grant(0, 12));
        assert_eq!(atc.invalidate(&invalidation(Some(5), 0x2000, 13)).len(), 2);
        assert_eq!(atc.len(), 3);
        assert_eq!(atc.invalidate(&invalidation(None, 0, 64)).len(), 1);
        let everyone = AtcInvalidation {
            is_global: true,
            ..invalidation(Some(9), 0, 64)
        };
        assert_eq!(atc.invalidate(&everyone).len(), 2);
        assert_eq!(atc.len(), 0);
    }
}
