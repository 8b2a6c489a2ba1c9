//! Which entries, of streams and of contexts, survive a change, and which command makes the SMMU
//! forget them.

use crate::step::{Command, Program, Step};
use crate::word::{arena, plain, put};
use crate::words::*;

const W2: u64 = STE_WORD2;
const WRITE: Step = Step::Write(A, plain(AT));

/// An entry in use that is then replaced by a second stage 2 of another VMID.
const STE_CHANGED: Step = Step::All(&[
    S2_TABLES,
    s2_page(0, arena(D0 | S2_PAGE)),
    OTHER_STAGE2,
    stage2(A, W2),
    FORGET_A,
    WRITE,
    ste(A, plain(STAGE2), put(W2, 15, 0, 2), arena(BIG_1)),
    WRITE,
]);

const OTHER_STAGE2: Step = Step::All(&[
    Step::Store(BIG_1, arena((BIG_1 + 0x1000) | TABLE)),
    Step::Store(BIG_1 + 0x1000 + 0x80 * 8, arena((BIG_1 + 0x2000) | TABLE)),
    Step::Store(BIG_1 + 0x2000, arena(D1 | S2_PAGE)),
]);

/// A CD in use that is then replaced by one of another ASID.
const CD_CHANGED: Step = Step::All(&[
    S1_TABLES,
    s1_page(0, arena(D0 | S1_PAGE)),
    Step::Store(HIGH_L1, arena(HIGH_L2 | TABLE)),
    Step::Store(HIGH_L2 + 0x80 * 8, arena(HIGH_L3 | TABLE)),
    Step::Store(HIGH_L3, arena(D1 | S1_PAGE)),
    low_cd(CD_WORD0),
    stage1(A, CD_A),
    FORGET_A,
    WRITE,
    cd(CD_A, put(CD_WORD0, 63, 48, 2), arena(HIGH_L1), plain(0)),
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

const CFGI_STE_RANGE_OF_A: Command = [plain(0x04 | (A as u64) << 32), plain(3)];
const CFGI_STE_RANGE_BESIDE: Command = [plain(0x04 | (A as u64 ^ 0x20) << 32), plain(3)];
const CFGI_CD_ALL: Command = [plain(0x06 | (A as u64) << 32), plain(0)];

pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "entry-change-is-not-seen-without-cfgi",
        steps: &[STE_CHANGED],
    },
    after!("entry-change-after-cfgi-ste", STE_CHANGED, cfgi_ste(A)),
    after!(
        "entry-change-after-cfgi-ste-of-another",
        STE_CHANGED,
        cfgi_ste(B)
    ),
    after!(
        "entry-change-after-cfgi-ste-range",
        STE_CHANGED,
        CFGI_STE_RANGE_OF_A
    ),
    after!(
        "entry-change-after-cfgi-ste-range-beside-it",
        STE_CHANGED,
        CFGI_STE_RANGE_BESIDE
    ),
    after!("entry-change-after-cfgi-all", STE_CHANGED, CFGI_ALL),
    after!("entry-change-after-tlbi-alone", STE_CHANGED, NSNH_ALL),
    Program {
        name: "entry-taken-away-is-used-until-cfgi",
        steps: &[
            S2_TABLES,
            s2_page(0, arena(D0 | S2_PAGE)),
            stage2(A, W2),
            FORGET_A,
            WRITE,
            Step::Store(A as u64 * 64, plain(0)),
            WRITE,
            Step::Commands(&[cfgi_ste(A)]),
            WRITE,
        ],
    },
    Program {
        name: "entry-of-abort-is-used-until-cfgi",
        steps: &[
            ste(A, plain(1), 0, plain(0)),
            FORGET_A,
            Step::Write(A, arena(D0)),
            ste(A, plain(BYPASS), 0, plain(0)),
            Step::Write(A, arena(D0)),
            Step::Commands(&[cfgi_ste(A)]),
            Step::Write(A, arena(D0)),
        ],
    },
    Program {
        name: "cd-change-is-not-seen-without-cfgi",
        steps: &[CD_CHANGED],
    },
    after!("cd-change-after-cfgi-cd", CD_CHANGED, cfgi_cd(A)),
    after!(
        "cd-change-after-cfgi-cd-of-another-stream",
        CD_CHANGED,
        cfgi_cd(B)
    ),
    after!("cd-change-after-cfgi-cd-all", CD_CHANGED, CFGI_CD_ALL),
    after!("cd-change-after-cfgi-ste", CD_CHANGED, cfgi_ste(A)),
    after!("cd-change-after-cfgi-all", CD_CHANGED, CFGI_ALL),
    after!("cd-change-after-nh-asid-alone", CD_CHANGED, nh_asid(1, 1)),
    Program {
        name: "cd-taken-away-is-used-until-cfgi",
        steps: &[
            S1_TABLES,
            s1_page(0, arena(D0 | S1_PAGE)),
            low_cd(CD_WORD0),
            stage1(A, CD_A),
            FORGET_A,
            WRITE,
            Step::Store(CD_A, plain(0)),
            WRITE,
            Step::Commands(&[cfgi_cd(A)]),
            WRITE,
        ],
    },
    Program {
        name: "new-root-of-one-vmid-is-not-seen-without-tlbi",
        steps: &[
            S2_TABLES,
            s2_page(0, arena(D0 | S2_PAGE)),
            OTHER_STAGE2,
            stage2(A, W2),
            FORGET_A,
            WRITE,
            ste(A, plain(STAGE2), W2, arena(BIG_1)),
            Step::Commands(&[cfgi_ste(A)]),
            WRITE,
            Step::Commands(&[s12_vmall(1)]),
            WRITE,
        ],
    },
];
