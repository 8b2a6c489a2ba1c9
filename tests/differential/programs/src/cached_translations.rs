//! Which translations survive a change, and which command makes the SMMU forget them.
//!
//! Each program uses what it then changes, so that any SMMU that remembers does so here; where one
//! that forgets early would be right too, both are known to remember.

use crate::step::{Program, Step};
use crate::word::{arena, block_of_arena, into_block, plain};
use crate::words::*;

const W2: u64 = STE_WORD2;
const CR0_QUEUES_ON: u32 = 0b1100;
const CR0_ALL_ON: u32 = 0b1101;
const WRITE: Step = Step::Write(A, plain(AT));

/// Stage 2 with a page at D0 that was written, and then leads to D1.
const S2_MOVED: Step = Step::All(&[
    S2_TABLES,
    s2_page(0, arena(D0 | S2_PAGE)),
    stage2(A, W2),
    FORGET_A,
    WRITE,
    s2_page(0, arena(D1 | S2_PAGE)),
    WRITE,
]);

/// The same with stage 1.
const S1_MOVED: Step = Step::All(&[
    S1_TABLES,
    s1_page(0, arena(D0 | S1_PAGE)),
    low_cd(CD_WORD0),
    stage1(A, CD_A),
    FORGET_A,
    WRITE,
    s1_page(0, arena(D1 | S1_PAGE)),
    WRITE,
]);

/// The same with stage 1, and a global page.
const S1_GLOBAL_MOVED: Step = Step::All(&[
    S1_TABLES,
    s1_page(0, arena(D0 | S1_PAGE & !NG)),
    low_cd(CD_WORD0),
    stage1(A, CD_A),
    FORGET_A,
    WRITE,
    s1_page(0, arena(D1 | S1_PAGE & !NG)),
    WRITE,
]);

/// Both stages; stage 2 then leads from the page at D0 to D1.
const NESTED_MOVED: Step = Step::All(&[
    NESTED_TABLES,
    nested(A, CD_A, W2),
    FORGET_A,
    WRITE,
    window(D0, arena(D1 | S2_PAGE)),
    WRITE,
]);

/// After a change: these commands, and the same DMA again.
macro_rules! after {
    ($name:literal, $change:expr, $($command:expr),+) => {
        Program {
            name: $name,
            steps: &[$change, Step::Commands(&[$($command),+]), WRITE],
        }
    };
}

/// 16 pages at `AT`, the first 9 of which were used; all then lead 64 KiB further.
const RANGE_MOVED: Step = Step::All(&[
    S2_TABLES,
    Step::Fill {
        at: S2_L3,
        count: 16,
        first: arena(D0 | S2_PAGE),
        stride: 0x1000,
    },
    stage2(A, W2),
    FORGET_A,
    SWEEP,
    Step::Fill {
        at: S2_L3,
        count: 16,
        first: arena(D1 | S2_PAGE),
        stride: 0x1000,
    },
]);

/// One write to each of the first 9 pages.
const SWEEP: Step = Step::All(&[
    Step::Write(A, plain(AT)),
    Step::Write(A, plain(AT + 0x1000)),
    Step::Write(A, plain(AT + 0x2000)),
    Step::Write(A, plain(AT + 0x3000)),
    Step::Write(A, plain(AT + 0x4000)),
    Step::Write(A, plain(AT + 0x5000)),
    Step::Write(A, plain(AT + 0x6000)),
    Step::Write(A, plain(AT + 0x7000)),
    Step::Write(A, plain(AT + 0x8000)),
]);

macro_rules! range {
    ($name:literal, $($command:expr),+) => {
        Program {
            name: $name,
            steps: &[RANGE_MOVED, Step::Commands(&[$($command),+]), SWEEP],
        }
    };
}

/// A block of 2 MiB that was used in two places and then leads nowhere.
const BLOCK_GONE: Step = Step::All(&[
    Step::Store(S2_ROOT, arena(S2_L2 | TABLE)),
    Step::Store(S2_L2 + 0x80 * 8, arena(S2_BLOCK)),
    stage2(A, W2),
    FORGET_A,
    Step::Write(A, plain(AT + D0)),
    Step::Store(S2_L2 + 0x80 * 8, plain(0)),
    Step::Write(A, plain(AT + D1)),
]);

pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "stage2-change-is-not-seen-without-tlbi",
        steps: &[S2_MOVED],
    },
    after!("stage2-change-after-s2-ipa", S2_MOVED, s2_ipa(1, AT)),
    after!(
        "stage2-change-after-s2-ipa-without-leaf",
        S2_MOVED,
        [plain(0x2a | 1 << 32), plain(AT)]
    ),
    after!(
        "stage2-change-after-s2-ipa-of-another-vmid",
        S2_MOVED,
        s2_ipa(2, AT)
    ),
    after!(
        "stage2-change-after-s2-ipa-of-another-page",
        S2_MOVED,
        s2_ipa(1, AT + 0x1000)
    ),
    after!("stage2-change-after-s12-vmall", S2_MOVED, s12_vmall(1)),
    after!(
        "stage2-change-after-s12-vmall-of-another-vmid",
        S2_MOVED,
        s12_vmall(2)
    ),
    after!("stage2-change-after-nsnh-all", S2_MOVED, NSNH_ALL),
    after!("stage2-change-after-cfgi-ste-alone", S2_MOVED, cfgi_ste(A)),
    after!("stage2-change-after-cfgi-all-alone", S2_MOVED, CFGI_ALL),
    Program {
        name: "stage2-page-taken-away-is-reached-until-tlbi",
        steps: &[
            S2_TABLES,
            s2_page(0, arena(D0 | S2_PAGE)),
            stage2(A, W2),
            FORGET_A,
            WRITE,
            s2_page(0, plain(0)),
            WRITE,
            Step::Commands(&[s2_ipa(1, AT)]),
            WRITE,
        ],
    },
    Program {
        name: "stage2-page-made-read-only-is-written-until-tlbi",
        steps: &[
            S2_TABLES,
            s2_page(0, arena(D0 | S2_PAGE)),
            stage2(A, W2),
            FORGET_A,
            WRITE,
            s2_page(0, arena(D0 | S2_PAGE & !S2_WRITE)),
            WRITE,
            Step::Commands(&[s2_ipa(1, AT)]),
            WRITE,
        ],
    },
    Program {
        name: "stage2-page-made-valid-needs-no-tlbi",
        steps: &[
            S2_TABLES,
            stage2(A, W2),
            FORGET_A,
            WRITE,
            s2_page(0, arena(D0 | S2_PAGE)),
            WRITE,
        ],
    },
    Program {
        name: "stage2-block-taken-away-after-s2-ipa",
        steps: &[
            BLOCK_GONE,
            Step::Commands(&[s2_ipa(1, AT + D0)]),
            Step::Write(A, plain(AT + D0)),
            Step::Write(A, plain(AT + D1)),
        ],
    },
    Program {
        name: "stage2-block-of-1g-taken-away-after-s2-ipa",
        steps: &[
            Step::Store(S2_ROOT + 8, block_of_arena(30, S2_BLOCK)),
            stage2(A, W2),
            FORGET_A,
            Step::Write(A, into_block(30, 0x4000_0000 + D0)),
            Step::Store(S2_ROOT + 8, plain(0)),
            Step::Write(A, into_block(30, 0x4000_0000 + D1)),
            Step::Commands(&[[plain(0x2a | 1 << 32), into_block(30, 0x4000_0000 + D0 + 1)]]),
            Step::Write(A, into_block(30, 0x4000_0000 + D0)),
            Step::Write(A, into_block(30, 0x4000_0000 + D1)),
        ],
    },
    range!("range-of-8-pages", s2_ipa_range(1, AT, 7, 0)),
    range!(
        "range-of-7-pages-leaves-the-eighth",
        s2_ipa_range(1, AT, 6, 0)
    ),
    range!("range-of-2-times-4-pages", s2_ipa_range(1, AT, 1, 2)),
    range!(
        "range-that-starts-later",
        s2_ipa_range(1, AT + 0x2000, 1, 1)
    ),
    range!(
        "range-with-the-level-of-its-leaves",
        [
            plain(0x2a | 7 << 12 | 1 << 32),
            plain(AT | 3 << 8 | 1 << 10 | 1)
        ]
    ),
    range!(
        "one-page-with-the-level-of-its-leaf",
        [plain(0x2a | 1 << 32), plain(AT | 3 << 8 | 1 << 10 | 1)]
    ),
    range!("range-of-another-vmid", s2_ipa_range(2, AT, 7, 0)),
    Program {
        name: "range-over-a-block",
        steps: &[
            BLOCK_GONE,
            Step::Commands(&[s2_ipa_range(1, AT, 0, 9)]),
            Step::Write(A, plain(AT + D0)),
        ],
    },
    Program {
        name: "stage1-change-is-not-seen-without-tlbi",
        steps: &[S1_MOVED],
    },
    after!("stage1-change-after-nh-va", S1_MOVED, nh_va(1, 1, AT)),
    after!(
        "stage1-change-after-nh-va-of-another-asid",
        S1_MOVED,
        nh_va(1, 2, AT)
    ),
    after!(
        "stage1-change-after-nh-va-of-another-vmid",
        S1_MOVED,
        nh_va(2, 1, AT)
    ),
    after!(
        "stage1-change-after-nh-va-of-another-page",
        S1_MOVED,
        nh_va(1, 1, AT + 0x1000)
    ),
    after!("stage1-change-after-nh-vaa", S1_MOVED, nh_vaa(1, AT)),
    after!("stage1-change-after-nh-asid", S1_MOVED, nh_asid(1, 1)),
    after!(
        "stage1-change-after-nh-asid-of-another",
        S1_MOVED,
        nh_asid(1, 2)
    ),
    after!("stage1-change-after-nh-all", S1_MOVED, nh_all(1)),
    after!(
        "stage1-change-after-nh-all-of-another-vmid",
        S1_MOVED,
        nh_all(2)
    ),
    after!("stage1-change-after-s12-vmall", S1_MOVED, s12_vmall(1)),
    after!("stage1-change-after-nsnh-all", S1_MOVED, NSNH_ALL),
    after!("stage1-change-after-cfgi-cd-alone", S1_MOVED, cfgi_cd(A)),
    after!(
        "stage1-change-after-a-range-by-va",
        S1_MOVED,
        [
            plain(0x12 | 3 << 12 | 1 << 32 | 1 << 48),
            plain(AT | 1 << 10 | 1)
        ]
    ),
    after!(
        "stage1-change-after-a-range-by-va-of-all-asids",
        S1_MOVED,
        [plain(0x13 | 3 << 12 | 1 << 32), plain(AT | 1 << 10 | 1)]
    ),
    after!("global-page-after-nh-va", S1_GLOBAL_MOVED, nh_va(1, 1, AT)),
    after!("global-page-after-nh-vaa", S1_GLOBAL_MOVED, nh_vaa(1, AT)),
    after!("global-page-after-nh-all", S1_GLOBAL_MOVED, nh_all(1)),
    after!(
        "global-page-survives-nh-asid",
        S1_GLOBAL_MOVED,
        nh_asid(1, 1)
    ),
    after!(
        "global-page-after-nh-va-of-another-asid",
        S1_GLOBAL_MOVED,
        nh_va(1, 2, AT)
    ),
    after!(
        "nested-change-of-stage-2-after-s2-ipa-alone",
        NESTED_MOVED,
        s2_ipa(1, WINDOW | D0)
    ),
    after!(
        "nested-change-of-stage-2-after-s2-ipa-and-nh-all",
        NESTED_MOVED,
        s2_ipa(1, WINDOW | D0),
        [plain(0x46), plain(0)],
        nh_all(1)
    ),
    after!(
        "nested-change-of-stage-2-after-s12-vmall",
        NESTED_MOVED,
        s12_vmall(1)
    ),
    after!(
        "nested-change-of-stage-2-after-s12-vmall-of-another-vmid",
        NESTED_MOVED,
        s12_vmall(2)
    ),
    Program {
        name: "what-is-cached-survives-smmuen",
        steps: &[
            S2_MOVED,
            Step::Cr0(CR0_QUEUES_ON),
            Step::Cr0(CR0_ALL_ON),
            WRITE,
            Step::Cr0(CR0_QUEUES_ON),
            Step::Commands(&[NSNH_ALL]),
            Step::Cr0(CR0_ALL_ON),
            WRITE,
        ],
    },
    Program {
        name: "one-stream-uses-what-another-of-its-vmid-brought-in",
        steps: &[
            S2_TABLES,
            s2_page(0, arena(D0 | S2_PAGE)),
            stage2(A, W2),
            stage2(B, W2),
            Step::Commands(&[cfgi_ste(A), cfgi_ste(B)]),
            WRITE,
            s2_page(0, arena(D1 | S2_PAGE)),
            Step::Write(B, plain(AT)),
            Step::Commands(&[s2_ipa(1, AT)]),
            Step::Write(B, plain(AT)),
        ],
    },
];
