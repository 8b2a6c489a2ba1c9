//! Stage 1 alone: pages, and what a CD may say.

use crate::step::{Program, Step};
use crate::word::{arena, plain, put};
use crate::words::*;

const W0: u64 = CD_WORD0;
const BOTH0: u64 = CD_BOTH_WORD0;
const WRITE: Step = Step::Write(A, plain(AT));
const READ: Step = Step::Read(A, plain(AT));
/// 36 bits of output.
const IPS_36: u64 = put(W0, 34, 32, 1);

/// A program with the common tables, this CD word 0 and this descriptor of the page at `AT`.
macro_rules! page {
    ($name:literal, with $word0:expr, $word:expr, $($step:expr),+) => {
        Program {
            name: $name,
            steps: &[
                S1_TABLES,
                s1_page(0, $word),
                Step::Store(D0, plain(TREASURE)),
                low_cd($word0),
                stage1(A, CD_A),
                FORGET_A,
                $($step),+
            ],
        }
    };
    ($name:literal, $word:expr, $($step:expr),+) => {
        page!($name, with W0, $word, $($step),+)
    };
}

/// A program whose CD's word 0 and TTB0 are these, and whose page would be there.
macro_rules! cd_word {
    ($name:literal, $word0:expr) => {
        page!($name, with $word0, arena(D0 | S1_PAGE), WRITE)
    };
}

pub(crate) const PROGRAMS: &[Program] = &[
    page!(
        "stage1-page",
        arena(D0 | S1_PAGE),
        WRITE,
        Step::Write(A, plain(AT + 0xffc)),
        Step::Write(A, plain(AT + 0x1000))
    ),
    page!("stage1-page-is-read", arena(D0 | S1_PAGE), READ),
    page!("stage1-global-page", arena(D0 | S1_PAGE & !NG), WRITE),
    page!(
        "stage1-read-only-page-is-not-written",
        arena(D0 | S1_PAGE | AP_READ_ONLY),
        WRITE
    ),
    page!(
        "stage1-read-only-page-is-read",
        arena(D0 | S1_PAGE | AP_READ_ONLY),
        READ
    ),
    page!(
        "stage1-read-only-page-is-not-written-after-a-read",
        arena(D0 | S1_PAGE | AP_READ_ONLY),
        READ,
        WRITE
    ),
    page!(
        "stage1-page-for-el1-alone",
        arena(D0 | S1_PAGE & !AP_USER),
        WRITE
    ),
    page!(
        "stage1-page-for-el1-alone-is-not-read",
        arena(D0 | S1_PAGE & !AP_USER),
        READ
    ),
    page!(
        "stage1-execute-never-does-not-concern-data",
        arena(D0 | S1_PAGE | 3 << 53),
        WRITE,
        READ
    ),
    page!(
        "stage1-page-without-access-flag",
        arena(D0 | S1_PAGE & !AF),
        WRITE,
        READ
    ),
    page!(
        "stage1-affd-lets-pages-without-access-flag-through",
        with W0 | 1 << 35, arena(D0 | S1_PAGE & !AF), WRITE
    ),
    page!(
        "stage1-access-flag-comes-before-permission",
        arena(D0 | S1_PAGE & !AF | AP_READ_ONLY),
        WRITE
    ),
    page!("stage1-invalid-page", plain(0), WRITE, READ),
    page!(
        "stage1-block-at-level-3-is-invalid",
        arena(D0 | S1_BLOCK),
        WRITE
    ),
    page!("stage1-without-r-faults-in-silence", with W0 & !(1 << 45), plain(0), WRITE, READ),
    page!(
        "stage1-software-bits-are-ignored",
        arena(D0 | S1_PAGE | 0xf << 55),
        WRITE
    ),
    page!(
        "stage1-dirty-bit-modifier-is-ignored-without-httu",
        arena(D0 | S1_PAGE | AP_READ_ONLY | 1 << 51),
        WRITE
    ),
    page!(
        "stage1-contiguous-page",
        arena(D0 | S1_PAGE | 1 << 52),
        WRITE
    ),
    page!(
        "stage1-device-memory-is-reached",
        arena(D0 | S1_PAGE | 1 << 2),
        WRITE
    ),
    page!("stage1-page-beyond-ips", with IPS_36, plain(1 << 36 | S1_PAGE), WRITE, READ),
    page!(
        "stage1-page-beyond-the-output-size",
        plain(1 << 44 | S1_PAGE),
        WRITE
    ),
    page!("stage1-page-in-no-memory", plain(NOWHERE | S1_PAGE), WRITE),
    cd_word!("cd-ips-above-the-output-size-is-capped", put(W0, 34, 32, 5)),
    cd_word!("cd-that-is-not-valid", W0 & !(1 << 31)),
    cd_word!("cd-without-aa64-is-illegal", W0 & !(1 << 41)),
    cd_word!("cd-without-a-is-illegal", W0 & !(1 << 46)),
    cd_word!("cd-with-s-is-illegal", W0 | 1 << 44),
    cd_word!("cd-with-ha-is-illegal", W0 | 1 << 43),
    cd_word!("cd-with-hd-is-illegal", W0 | 1 << 43 | 1 << 42),
    cd_word!("cd-with-endi-is-illegal", W0 | 1 << 15),
    cd_word!("cd-t0sz-15-is-illegal", put(W0, 5, 0, 15)),
    cd_word!("cd-t0sz-40-is-illegal", put(W0, 5, 0, 40)),
    cd_word!("cd-tg0-3-is-illegal", put(W0, 7, 6, 3)),
    cd_word!("cd-tg1-0-is-illegal", put(BOTH0, 23, 22, 0)),
    cd_word!("cd-t1sz-40-is-illegal", put(BOTH0, 21, 16, 40)),
    cd_word!("cd-tg1-is-not-looked-at-with-epd1", put(W0, 23, 22, 0)),
    cd_word!("cd-pan-does-not-concern-unprivileged-traffic", W0 | 1 << 40),
    cd_word!("cd-wxn-does-not-concern-data", W0 | 1 << 36),
    cd_word!("cd-aset-changes-nothing-for-one", W0 | 1 << 47),
    Program {
        name: "two-streams-with-one-cd",
        steps: &[
            S1_TABLES,
            s1_page(0, arena(D0 | S1_PAGE)),
            low_cd(W0),
            stage1(A, CD_A),
            stage1(B, CD_A),
            Step::Commands(&[cfgi_ste(A), cfgi_ste(B)]),
            WRITE,
            Step::Write(B, plain(AT + 0x20)),
            Step::Write(B, plain(AT + 0x1000)),
        ],
    },
    Program {
        name: "two-streams-with-an-asid-each",
        steps: &[
            S1_TABLES,
            s1_page(0, arena(D0 | S1_PAGE)),
            low_cd(W0),
            HIGH_TABLES,
            cd(CD_B, put(W0, 63, 48, 2), arena(HIGH_L1), plain(0)),
            stage1(A, CD_A),
            stage1(B, CD_B),
            Step::Commands(&[cfgi_ste(A), cfgi_ste(B)]),
            WRITE,
            Step::Write(B, plain(AT)),
            WRITE,
            Step::Write(B, plain(AT)),
        ],
    },
];
