//! Stream tables of two levels.

use crate::step::{Program, Step};
use crate::word::{Word, arena, plain, put};
use crate::words::*;

const W2: u64 = STE_WORD2;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const QUEUES_ON: u32 = 0b1100;
const ALL_ON: u32 = 0b1101;
const WRITE: Step = Step::Write(A, plain(AT));
/// The level 1 table, and level 2 tables for the streams of A and B, and for the far one.
const L1: u64 = 0x8000;
const NEAR: u64 = 0xa000;
const FURTHER: u64 = 0xc000;

/// FMT two-level, SPLIT, LOG2SIZE.
const fn config(split: u32, log2_streams: u32) -> u32 {
    1 << 16 | split << 6 | log2_streams
}

/// Switches over to the table at `L1`, with the caches emptied.
macro_rules! two_levels {
    ($name:literal, $config:expr, [$($store:expr),+], $($step:expr),+) => {
        Program {
            name: $name,
            steps: &[
                S2_TABLES,
                s2_page(0, arena(D0 | S2_PAGE)),
                $($store),+,
                Step::Cr0(QUEUES_ON),
                Step::Register64(STRTAB_BASE, arena(L1)),
                Step::Register32(STRTAB_BASE_CFG, $config),
                Step::Commands(&[CFGI_ALL]),
                Step::Cr0(ALL_ON),
                $($step),+
            ],
        }
    };
}

const fn entry(at: u64) -> Step {
    Step::Entry(
        at,
        [plain(STAGE2), plain(STE_WORD1), plain(W2), arena(S2_ROOT)],
    )
}

/// An L1STD: Span, and a pointer.
const fn level1(index: u64, word: Word) -> Step {
    Step::Store(L1 + index * 8, word)
}

pub(crate) const PROGRAMS: &[Program] = &[
    two_levels!(
        "two-levels-split-at-6",
        config(6, 9),
        [
            level1(0, arena(NEAR | 7)),
            level1(4, arena(FURTHER | 7)),
            entry(NEAR + A as u64 * 64),
            entry(FURTHER)
        ],
        WRITE,
        Step::Write(FAR, plain(AT + 8)),
        Step::Write(B, plain(AT))
    ),
    two_levels!(
        "two-levels-split-at-8",
        config(8, 9),
        [
            level1(0, arena(0x4_0000 | 9)),
            level1(1, arena(0x5_0000 | 9)),
            entry(0x4_0000 + A as u64 * 64),
            entry(0x5_0000)
        ],
        WRITE,
        Step::Write(FAR, plain(AT + 8)),
        Step::Write(B, plain(AT))
    ),
    two_levels!(
        "two-levels-split-at-10",
        config(10, 10),
        [
            level1(0, arena(0x4_0000 | 11)),
            entry(0x4_0000 + A as u64 * 64),
            entry(0x4_0000 + FAR as u64 * 64)
        ],
        WRITE,
        Step::Write(FAR, plain(AT + 8)),
        Step::Write(B, plain(AT))
    ),
    two_levels!(
        "two-levels-with-a-reserved-split-act-as-6",
        config(7, 9),
        [
            level1(0, arena(NEAR | 7)),
            level1(4, arena(FURTHER | 7)),
            entry(NEAR + A as u64 * 64),
            entry(FURTHER)
        ],
        WRITE,
        Step::Write(FAR, plain(AT + 8))
    ),
    two_levels!(
        "two-levels-span-0-is-no-stream",
        config(6, 9),
        [level1(0, arena(NEAR)), entry(NEAR + A as u64 * 64)],
        WRITE,
        Step::Write(FAR, plain(AT))
    ),
    two_levels!(
        "two-levels-a-stream-beyond-the-span",
        config(6, 9),
        [
            level1(0, arena(NEAR | 5)),
            entry(NEAR + A as u64 * 64),
            entry(NEAR + B as u64 * 64)
        ],
        WRITE
    ),
    two_levels!(
        "two-levels-a-stream-far-beyond-the-span",
        config(6, 9),
        [level1(0, arena(NEAR | 1)), entry(NEAR + A as u64 * 64)],
        WRITE
    ),
    two_levels!(
        "two-levels-the-last-stream-of-a-span",
        config(6, 9),
        [
            level1(0, arena(NEAR | 6)),
            entry(NEAR + A as u64 * 64),
            entry(NEAR + B as u64 * 64)
        ],
        WRITE,
        Step::Write(B, plain(AT + 8))
    ),
    two_levels!(
        "two-levels-a-span-above-the-split",
        config(6, 9),
        [level1(0, arena(NEAR | 8)), entry(NEAR + A as u64 * 64)],
        WRITE
    ),
    two_levels!(
        "two-levels-a-reserved-span",
        config(6, 9),
        [level1(0, arena(NEAR | 12)), entry(NEAR + A as u64 * 64)],
        WRITE
    ),
    two_levels!(
        "two-levels-a-stream-beyond-log2size",
        config(6, 8),
        [
            level1(0, arena(NEAR | 7)),
            level1(4, arena(FURTHER | 7)),
            entry(NEAR + A as u64 * 64),
            entry(FURTHER)
        ],
        WRITE,
        Step::Write(FAR, plain(AT + 8))
    ),
    two_levels!(
        "two-levels-pointer-bits-below-its-size-are-ignored",
        config(6, 9),
        [
            level1(0, arena(NEAR | 0x40 | 7)),
            entry(NEAR + A as u64 * 64)
        ],
        WRITE
    ),
    two_levels!(
        "two-levels-a-second-level-in-no-memory",
        config(6, 9),
        [level1(0, plain(NOWHERE | 7))],
        WRITE
    ),
    Program {
        name: "two-levels-a-first-level-in-no-memory",
        steps: &[
            Step::Cr0(QUEUES_ON),
            Step::Register64(STRTAB_BASE, plain(NOWHERE)),
            Step::Register32(STRTAB_BASE_CFG, config(6, 9)),
            Step::Commands(&[CFGI_ALL]),
            Step::Cr0(ALL_ON),
            WRITE,
        ],
    },
    two_levels!(
        "two-levels-a-grown-second-level",
        config(6, 9),
        [
            level1(0, arena(NEAR | 7)),
            entry(NEAR + A as u64 * 64),
            entry(FURTHER)
        ],
        WRITE,
        Step::Write(FAR, plain(AT + 8)),
        level1(4, arena(FURTHER | 7)),
        Step::Commands(&[[plain(0x03 | (FAR as u64) << 32), plain(0)]]),
        Step::Write(FAR, plain(AT + 8))
    ),
    two_levels!(
        "two-levels-an-entry-change-after-cfgi-ste",
        config(6, 9),
        [level1(0, arena(NEAR | 7)), entry(NEAR + A as u64 * 64)],
        WRITE,
        Step::Store(NEAR + A as u64 * 64, plain(1)),
        WRITE,
        Step::Commands(&[cfgi_ste(A)]),
        WRITE
    ),
    two_levels!(
        "two-levels-s2tg-3-is-illegal",
        config(6, 9),
        [
            level1(0, arena(NEAR | 7)),
            Step::Entry(
                NEAR + A as u64 * 64,
                [
                    plain(STAGE2),
                    plain(STE_WORD1),
                    plain(put(W2, 47, 46, 3)),
                    arena(S2_ROOT)
                ]
            )
        ],
        WRITE
    ),
    // The last: the step before it left two levels on.
    Program {
        name: "one-level-again-after-two",
        steps: &[
            S2_TABLES,
            s2_page(0, arena(D0 | S2_PAGE)),
            stage2(A, W2),
            FORGET_A,
            WRITE,
        ],
    },
];
