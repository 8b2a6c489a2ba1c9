//! Finding a stream's entry, what entries may say, and streams without translation.

use crate::step::{Program, Step};
use crate::word::{arena, plain, put};
use crate::words::*;

const W2: u64 = STE_WORD2;
const CR2: u64 = 0x2c;
const STRTAB_BASE: u64 = 0x80;
const ALL_ON: u32 = 0b1101;
const QUEUES_ON: u32 = 0b1100;

/// A write and a read of stream A, into the arena as if nothing translated.
const TRY: Step = Step::All(&[
    Step::Store(D0, plain(TREASURE)),
    FORGET_A,
    Step::Write(A, arena(D0 + 8)),
    Step::Read(A, arena(D0)),
]);

/// Tables that would let the write through, and an entry with stage 2 that may not.
macro_rules! stage2_entry {
    ($name:literal, $word2:expr) => {
        stage2_entry!($name, plain(STAGE2), $word2, arena(S2_ROOT))
    };
    ($name:literal, $word0:expr, $word2:expr, $word3:expr) => {
        Program {
            name: $name,
            steps: &[
                S2_TABLES,
                s2_page(0, arena(D0 | S2_PAGE)),
                ste(A, $word0, $word2, $word3),
                FORGET_A,
                Step::Write(A, plain(AT)),
            ],
        }
    };
}

/// The same with stage 1.
macro_rules! stage1_entry {
    ($name:literal, $word0:expr) => {
        Program {
            name: $name,
            steps: &[
                S1_TABLES,
                s1_page(0, arena(D0 | S1_PAGE)),
                low_cd(CD_WORD0),
                ste(A, $word0, 1, plain(0)),
                FORGET_A,
                Step::Write(A, plain(AT)),
            ],
        }
    };
}

pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "an-entry-that-is-not-valid-aborts-with-an-event",
        steps: &[TRY],
    },
    Program {
        name: "config-0-aborts-without-an-event",
        steps: &[ste(A, plain(0b0001), 0, plain(0)), TRY],
    },
    Program {
        name: "config-1-aborts-as-0-does",
        steps: &[ste(A, plain(0b0011), 0, plain(0)), TRY],
    },
    Program {
        name: "config-3-aborts-as-0-does",
        steps: &[ste(A, plain(0b0111), 0, plain(0)), TRY],
    },
    Program {
        name: "bypass-lets-through",
        steps: &[ste(A, plain(BYPASS), 0, plain(0)), TRY],
    },
    Program {
        name: "bypass-ignores-stage-2",
        // S2TG reserved, S2T0SZ out of range: nobody looks.
        steps: &[ste(A, plain(BYPASS), u64::MAX, plain(0)), TRY],
    },
    Program {
        name: "bypass-beyond-the-output-size",
        steps: &[
            ste(A, plain(BYPASS), 0, plain(0)),
            FORGET_A,
            Step::Write(A, plain(1 << 44)),
        ],
    },
    Program {
        name: "one-streams-entry-is-not-the-others",
        steps: &[
            ste(A, plain(BYPASS), 0, plain(0)),
            ste(B, plain(0b0001), 0, plain(0)),
            Step::Commands(&[cfgi_ste(A), cfgi_ste(B)]),
            Step::Write(B, arena(D0)),
            Step::Write(A, arena(D0)),
            Step::Write(B, arena(D0)),
        ],
    },
    Program {
        name: "a-stream-beyond-the-table",
        steps: &[Step::Write(FAR, arena(D0)), Step::Read(FAR, arena(D0))],
    },
    Program {
        name: "a-stream-beyond-the-table-unrecorded-without-recinvsid",
        steps: &[
            Step::Cr0(QUEUES_ON),
            Step::Register32(CR2, 0),
            Step::Cr0(ALL_ON),
            Step::Write(FAR, arena(D0)),
        ],
    },
    Program {
        name: "a-stream-table-in-no-memory",
        steps: &[
            Step::Cr0(QUEUES_ON),
            Step::Register64(STRTAB_BASE, plain(NOWHERE)),
            Step::Cr0(ALL_ON),
            Step::Write(A, arena(D0)),
        ],
    },
    stage2_entry!("s2tg-3-is-illegal", put(W2, 47, 46, 3)),
    stage2_entry!("s2t0sz-15-is-illegal", put(put(W2, 37, 32, 15), 39, 38, 2)),
    stage2_entry!(
        "s2t0sz-19-is-illegal-with-44-bits",
        put(put(W2, 37, 32, 19), 39, 38, 2)
    ),
    stage2_entry!("s2t0sz-40-is-illegal", put(put(W2, 37, 32, 40), 39, 38, 0)),
    stage2_entry!("s2sl0-3-is-illegal", put(W2, 39, 38, 3)),
    stage2_entry!("s2sl0-too-deep-for-s2t0sz", put(W2, 39, 38, 0)),
    stage2_entry!("s2sl0-too-high-for-s2t0sz", put(W2, 39, 38, 2)),
    stage2_entry!(
        "s2ttb-beyond-s2ps",
        plain(STAGE2),
        put(W2, 50, 48, 0),
        arena(S2_ROOT | 1 << 32)
    ),
    stage2_entry!(
        "s2ttb-beyond-the-output-size",
        plain(STAGE2),
        W2,
        arena(S2_ROOT | 1 << 44)
    ),
    stage2_entry!("s2ps-above-the-output-size-is-capped", put(W2, 50, 48, 5)),
    stage2_entry!("s2s-is-illegal-where-nothing-stalls", W2 | 1 << 57),
    stage2_entry!("s2endi-is-illegal-where-tables-are-little", W2 | 1 << 52),
    stage2_entry!("s2ha-is-illegal-without-httu", W2 | 1 << 56),
    stage2_entry!("s2hd-is-illegal-without-httu", W2 | 1 << 55 | 1 << 56),
    stage2_entry!("s2ptw-changes-nothing-for-memory", W2 | 1 << 54),
    stage2_entry!("a-vmid-of-16-bits", put(W2, 15, 0, 0xffff)),
    stage2_entry!(
        "stage-2-ignores-s1cdmax",
        plain(STAGE2 | 3 << 59),
        W2,
        arena(S2_ROOT)
    ),
    stage2_entry!(
        "stage-2-ignores-the-context-pointer",
        plain(STAGE2 | 0x00ff_ffff_ffff_ffc0),
        W2,
        arena(S2_ROOT)
    ),
    stage1_entry!("s1cdmax-without-substreams", arena(CD_A | STAGE1 | 1 << 59)),
    stage1_entry!(
        "s1contextptr-beyond-the-output-size",
        plain(STAGE1 | 1 << 44)
    ),
    stage1_entry!("s1contextptr-in-no-memory", plain(NOWHERE | STAGE1)),
    Program {
        name: "s1stalld-is-illegal-where-nothing-stalls",
        steps: &[
            S1_TABLES,
            s1_page(0, arena(D0 | S1_PAGE)),
            low_cd(CD_WORD0),
            Step::Entry(
                A as u64 * 64,
                [
                    arena(CD_A | STAGE1),
                    plain(STE_WORD1 | 1 << 27),
                    plain(1),
                    plain(0),
                ],
            ),
            FORGET_A,
            Step::Write(A, plain(AT)),
        ],
    },
    Program {
        name: "strw-is-ignored-without-el2-worlds",
        steps: &[
            S1_TABLES,
            s1_page(0, arena(D0 | S1_PAGE)),
            low_cd(CD_WORD0),
            Step::Entry(
                A as u64 * 64,
                [
                    arena(CD_A | STAGE1),
                    plain(STE_WORD1 | 3 << 30),
                    plain(1),
                    plain(0),
                ],
            ),
            FORGET_A,
            Step::Write(A, plain(AT)),
        ],
    },
    Program {
        name: "eats-is-ignored-without-ats",
        steps: &[
            S2_TABLES,
            s2_page(0, arena(D0 | S2_PAGE)),
            Step::Entry(
                A as u64 * 64,
                [
                    plain(STAGE2),
                    plain(STE_WORD1 | 2 << 28),
                    plain(W2),
                    arena(S2_ROOT),
                ],
            ),
            FORGET_A,
            Step::Write(A, plain(AT)),
        ],
    },
];
