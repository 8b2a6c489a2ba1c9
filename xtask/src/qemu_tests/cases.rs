//! The boots, one by one. A new case is a new row.

use super::jump::{set_word, word};
use crate::image::Kind;

/// What the self-check must contain at least.
pub(super) const CHECKS: &[&str] = &[
    "unbound-stream-aborts",
    "stage2-dma",
    "stage2-fault-decoded",
    "stage2-unmap-blocks",
    "stage2-protect-read-only",
    "nvme-identify-stage2",
    "block-split-under-dma",
    "two-level-stream-table",
    "stream-handover-between-two-stage2s",
    "event-overflow-survived",
    "illegal-command-recovered",
    "shutdown-leaves-abort",
];

/// One boot, and what must come of it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Values other than the board's.
    pub(super) machine: Option<&'static str>,
    pub(super) cpu: Option<&'static str>,
    pub(super) memory: Option<&'static str>,
    pub(super) cpus: u32,
    pub(super) boot_arguments: &'static str,
    pub(super) start: Start,
    pub(super) expected: Expected,
    pub(super) leaves: Leaves,
}

/// Who starts the image.
pub(super) enum Start {
    /// QEMU's `-kernel`, as firmware would.
    Kernel,
    /// Three instructions of our own, from the machine's first exception level, at another
    /// address than `-kernel` takes.
    Jump(Tree),
}

/// The device tree that x0 holds at a [`Start::Jump`].
pub(super) enum Tree {
    /// x0 is 0.
    None,
    /// The machine's own.
    Own,
    /// The machine's own, damaged.
    Damaged(fn(&mut [u8])),
}

/// What must come of a boot.
pub(super) enum Expected {
    /// The self-check passes.
    Passes,
    /// No check is run, and the reason contains this.
    Refuses(&'static str),
}

/// What the SMMU does once the image has ended, by QEMU's own word.
pub(super) enum Leaves {
    /// It aborts all: SMMUEN is 0 and GBPA.ABORT is 1.
    Abort,
    /// Not asked: there is no SMMU, or nobody could know where.
    NotAsked,
}

/// As `cargo xtask boot` does it.
pub(super) const BOOT: Case = Case {
    name: "self-check",
    kind: Kind::Plain,
    machine: None,
    cpu: None,
    memory: None,
    cpus: 4,
    boot_arguments: "",
    start: Start::Kernel,
    expected: Expected::Passes,
    leaves: Leaves::NotAsked,
};

/// All that are not about one check of the self-check.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "one-cpu-and-abort-at-the-end",
        cpus: 1,
        leaves: Leaves::Abort,
        ..BOOT
    },
    Case {
        name: "neoverse-n1",
        cpu: Some("neoverse-n1"),
        ..BOOT
    },
    Case {
        name: "runs-where-it-is-loaded",
        start: Start::Jump(Tree::Own),
        ..BOOT
    },
    Case {
        name: "entered-at-el1",
        machine: Some("virt,gic-version=3,iommu=smmuv3"),
        expected: Expected::Refuses("entered at EL1"),
        ..BOOT
    },
    Case {
        name: "entered-at-el3",
        machine: Some("virt,secure=on,virtualization=on,gic-version=3,iommu=smmuv3"),
        start: Start::Jump(Tree::Own),
        expected: Expected::Refuses("entered at EL3"),
        ..BOOT
    },
    Case {
        name: "no-smmu",
        machine: Some("virt,virtualization=on,gic-version=3"),
        expected: Expected::Refuses("no SMMUv3"),
        ..BOOT
    },
    Case {
        name: "smmu-without-stage-2",
        machine: Some("virt-9.1,virtualization=on,gic-version=3,iommu=smmuv3"),
        expected: Expected::Refuses("no stage 2"),
        leaves: Leaves::Abort,
        ..BOOT
    },
    Case {
        name: "too-little-memory",
        memory: Some("8M"),
        expected: Expected::Refuses("too little memory"),
        leaves: Leaves::Abort,
        ..BOOT
    },
    Case {
        name: "no-device-tree",
        start: Start::Jump(Tree::None),
        expected: Expected::Refuses("no device tree"),
        ..BOOT
    },
    Case {
        name: "tree-without-magic",
        start: Start::Jump(Tree::Damaged(|tree| set_word(tree, 0, 0xd00d_fee0))),
        expected: Expected::Refuses("device tree"),
        ..BOOT
    },
    Case {
        name: "tree-longer-than-memory",
        start: Start::Jump(Tree::Damaged(|tree| set_word(tree, 4, 0xffff_fff0))),
        expected: Expected::Refuses("device tree"),
        ..BOOT
    },
    Case {
        name: "tree-with-a-structure-outside",
        start: Start::Jump(Tree::Damaged(|tree| set_word(tree, 8, 0x7fff_fff8))),
        expected: Expected::Refuses("device tree"),
        ..BOOT
    },
    Case {
        name: "tree-with-a-broken-token",
        start: Start::Jump(Tree::Damaged(break_a_token)),
        expected: Expected::Refuses("device tree"),
        ..BOOT
    },
    Case {
        name: "sabotage-of-no-check",
        kind: Kind::Sabotage,
        boot_arguments: "sabotage=no-such-check",
        expected: Expected::Refuses("no-such-check"),
        ..BOOT
    },
];

/// Turns the structure block's second token, behind the root's empty name, into none.
fn break_a_token(tree: &mut [u8]) {
    let structure = word(tree, 8).and_then(|at| usize::try_from(at).ok());
    if let Some(at) = structure {
        set_word(tree, at.saturating_add(8), 0x55);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let all = || CASES.iter().chain([&BOOT]);
        for case in all() {
            let same = all().filter(|other| other.name == case.name);
            assert_eq!(same.count(), 1, "{}", case.name);
        }
    }

    #[test]
    fn the_broken_token_is_the_one_behind_the_root() {
        let mut tree = [0; 64];
        set_word(&mut tree, 8, 40);
        break_a_token(&mut tree);
        assert_eq!(tree[48..52], [0, 0, 0, 0x55]);
        set_word(&mut tree, 8, 0xffff_ffff);
        let before = tree;
        break_a_token(&mut tree);
        assert_eq!(tree, before);
    }
}
