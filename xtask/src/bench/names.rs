//! Which numbers are wanted.

/// The names that every report has, `--quick` or not. They are promised: tools read them.
pub(crate) const FIXED: &[&str] = &[
    "release.syncs_per_smmu.n1.k1",
    "release.syncs_per_smmu.n64.k1",
    "release.syncs_per_smmu.n512.k8",
    "release.syncs_per_smmu.ats.n1.k1",
    "release.syncs_per_smmu.ats.n64.k1",
    "release.syncs_per_smmu.ats.n512.k8",
    "release.waits_per_smmu.n64.k1",
    "release.evicted_foreign.n64.k1",
    "bind.syncs.first",
    "bind.syncs.further",
    "bind.commands.again",
    "unbind.syncs",
    "guest_death.syncs_per_smmu.n64",
    "handover.syncs.n8",
    "unmap.syncs_per_smmu.nested",
    "stage2.map_4k.ns",
    "stage2.unmap_4k.ns",
    "stage2.map_2m.ns",
    "stage2.table_bytes.sparse",
    "pasid.alloc.ns.live1",
    "pasid.alloc.ns.live1000000",
    "rest.bytes_per_smmu",
    "space.bytes",
    "image.bytes",
    "boot.instructions_to_first_guest",
];

/// Whose names are wanted: all that have this text in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter(Option<String>);

impl Filter {
    /// `None`: all.
    pub(crate) const fn new(text: Option<String>) -> Self {
        Self(text)
    }

    /// Whether a row of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|text| name.contains(text.as_str()))
    }

    /// Whether a part of the work may have rows that are wanted: `heads` is what its names begin
    /// with. Never says no where a row is.
    pub(crate) fn may_want(&self, heads: &[&str]) -> bool {
        let Some(text) = &self.0 else { return true };
        // A text without a head may stand anywhere in a name.
        let is_anywhere = !HEADS.iter().any(|head| text.starts_with(head));
        let is_of_it = |head: &&str| text.starts_with(*head) || head.contains(text.as_str());
        is_anywhere || heads.iter().any(is_of_it)
    }

    /// The names that must be there: the fixed ones that are wanted.
    pub(crate) fn promised(&self) -> impl Iterator<Item = &'static str> {
        FIXED.iter().copied().filter(|name| self.wants(name))
    }
}

/// What names begin with.
const HEADS: &[&str] = &[
    "attach.",
    "bind.",
    "binding.",
    "boot.",
    "contention.",
    "detach.",
    "device.",
    "guest.",
    "guest_death.",
    "handover.",
    "hypercall.",
    "image.",
    "overlap.",
    "pasid.",
    "asid.",
    "vmid.",
    "qemu.",
    "release.",
    "rest.",
    "space.",
    "stage2.",
    "unbind.",
    "unmap.",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::new(Some(text.to_owned()))
    }

    #[test]
    fn a_filter_takes_names_that_have_its_text() {
        assert!(filter("release").wants("release.waits.n1.k1"));
        assert!(!filter("release").wants("unbind.syncs"));
        assert!(Filter::new(None).wants("anything"));
        assert_eq!(filter("pasid.alloc").promised().count(), 2);
        assert_eq!(Filter::new(None).promised().count(), FIXED.len());
    }

    #[test]
    fn a_part_is_left_out_only_if_no_name_of_it_can_match() {
        assert!(filter("stage2.map").may_want(&["stage2."]));
        assert!(!filter("stage2.map").may_want(&["release.", "bind."]));
        assert!(filter("stage2").may_want(&["stage2."]));
        // What may be in the middle of any name.
        assert!(filter("syncs").may_want(&["release."]));
        for name in FIXED {
            let head = HEADS.iter().find(|head| name.starts_with(**head));
            assert!(
                filter(name).may_want(&[head.expect("a known head")]),
                "{name}"
            );
        }
    }
}
