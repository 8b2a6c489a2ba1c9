//! Commands that are refused, queues that run full, and an SMMU that is off.

use crate::step::{Command, Program, Step};
use crate::word::{arena, plain};
use crate::words::*;

const W2: u64 = STE_WORD2;
const WRITE: Step = Step::Write(A, plain(AT));
const QUEUES_ON: u32 = 0b1100;
const ALL_ON: u32 = 0b1101;
const ABORT: u32 = 1 << 20 | 1 << 12;
const BYPASS_ALL: u32 = 1 << 12;
const SYNC: Command = [plain(0x46), plain(0)];

/// A command between two that are fine, and what becomes of it.
macro_rules! command {
    ($name:literal, $word0:expr, $word1:expr) => {
        Program {
            name: $name,
            steps: &[
                Step::Commands(&[NSNH_ALL, [plain($word0), plain($word1)], CFGI_ALL]),
                Step::Repair,
                Step::Commands(&[CFGI_ALL]),
            ],
        }
    };
}

const MAPPED: Step = Step::All(&[
    S2_TABLES,
    s2_page(0, arena(D0 | S2_PAGE)),
    stage2(A, W2),
    FORGET_A,
]);

pub(crate) const PROGRAMS: &[Program] = &[
    command!("opcode-0-is-illegal", 0, 0),
    command!("opcode-ff-is-illegal", 0xff, 0),
    command!("opcode-7f-is-illegal", 0x7f, 0),
    command!("secure-tlbi-is-illegal", 0x60, 0),
    command!("ssec-is-illegal", 0x03 | 1 << 10 | 0x10 << 32, 1),
    command!("sync-with-cs-3-is-illegal", 0x46 | 3 << 12, 0),
    command!(
        "sync-with-a-message-that-cannot-be-sent",
        0x46 | 1 << 12 | 0x55 << 32,
        0
    ),
    command!("sync-with-an-event-that-cannot-be-sent", 0x46 | 2 << 12, 0),
    command!("el2-all-is-illegal-without-el2-worlds", 0x20, 0),
    command!("el2-asid-is-illegal-without-el2-worlds", 0x21, 0),
    command!("el2-va-is-illegal-without-el2-worlds", 0x22, 0x1000_0001),
    command!("el2-vaa-is-illegal-without-el2-worlds", 0x23, 0x1000_0001),
    command!("atc-inv-is-illegal-without-ats", 0x40 | 0x10 << 32, 52),
    command!(
        "pri-resp-is-illegal-without-pri",
        0x41 | 0x10 << 32,
        2 << 12
    ),
    command!(
        "resume-is-illegal-where-nothing-stalls",
        0x44 | 0x10 << 32,
        0
    ),
    command!(
        "stall-term-is-illegal-where-nothing-stalls",
        0x45 | 0x10 << 32,
        0
    ),
    command!("range-of-nothing-is-illegal", 0x2a | 1 << 32, AT | 1 << 10),
    command!("prefetch-config-is-fine", 0x01 | 0x10 << 32, 0),
    command!("prefetch-of-an-address-is-fine", 0x02 | 0x10 << 32, AT),
    command!("cfgi-cd-is-fine", 0x05 | 0x10 << 32, 1),
    command!(
        "cfgi-ste-of-a-stream-without-device-is-fine",
        0x03 | 0x7 << 32,
        1
    ),
    Program {
        name: "commands-before-an-illegal-one-are-done",
        steps: &[
            MAPPED,
            WRITE,
            s2_page(0, arena(D1 | S2_PAGE)),
            Step::Commands(&[s2_ipa(1, AT), SYNC, [plain(0xff), plain(0)]]),
            WRITE,
        ],
    },
    Program {
        name: "commands-behind-an-illegal-one-wait-for-its-repair",
        steps: &[
            MAPPED,
            WRITE,
            s2_page(0, arena(D1 | S2_PAGE)),
            Step::Commands(&[[plain(0xff), plain(0)], s2_ipa(1, AT)]),
            WRITE,
            Step::Repair,
            WRITE,
        ],
    },
    Program {
        name: "two-illegal-commands-stop-twice",
        steps: &[
            Step::Commands(&[[plain(0xff), plain(0)], NSNH_ALL, [plain(0xfe), plain(0)]]),
            Step::Repair,
            Step::Repair,
        ],
    },
    Program {
        name: "the-command-queue-wraps",
        steps: &[
            MAPPED,
            WRITE,
            THIRTY_TWO_COMMANDS,
            THIRTY_TWO_COMMANDS,
            THIRTY_TWO_COMMANDS,
            THIRTY_TWO_COMMANDS,
            THIRTY_TWO_COMMANDS,
            THIRTY_TWO_COMMANDS,
            THIRTY_TWO_COMMANDS,
            THIRTY_TWO_COMMANDS,
            THIRTY_TWO_COMMANDS,
            s2_page(0, arena(D1 | S2_PAGE)),
            Step::Commands(&[s2_ipa(1, AT)]),
            WRITE,
        ],
    },
    Program {
        name: "events-fill-their-queue",
        steps: &[
            S2_TABLES,
            stage2(A, W2),
            FORGET_A,
            Step::Burst(A, plain(AT), 15),
            Step::Write(A, plain(AT + 0x1000)),
            Step::Burst(A, plain(AT), 16),
            Step::Write(A, plain(AT + 0x1000)),
        ],
    },
    Program {
        name: "events-overflow-their-queue",
        steps: &[
            S2_TABLES,
            stage2(A, W2),
            FORGET_A,
            Step::Burst(A, plain(AT), 20),
            Step::Repair,
            Step::Write(A, plain(AT + 0x1000)),
        ],
    },
    Program {
        name: "no-events-while-their-queue-is-off",
        steps: &[
            S2_TABLES,
            stage2(A, W2),
            FORGET_A,
            Step::Cr0(0b1001),
            Step::Write(A, plain(AT)),
            Step::Cr0(ALL_ON),
            Step::Write(A, plain(AT + 0x1000)),
        ],
    },
    Program {
        name: "off-with-gbpa-bypass",
        steps: &[
            MAPPED,
            Step::Cr0(QUEUES_ON),
            Step::Store(D2, plain(TREASURE)),
            Step::Write(A, arena(D1)),
            Step::Write(FAR, arena(D1 + 8)),
            Step::Read(A, arena(D2)),
            Step::Cr0(ALL_ON),
            WRITE,
        ],
    },
    Program {
        name: "off-with-gbpa-bypass-beyond-the-output-size",
        steps: &[Step::Cr0(QUEUES_ON), Step::Write(A, plain(1 << 44))],
    },
    Program {
        name: "off-with-gbpa-abort",
        steps: &[
            MAPPED,
            Step::Gbpa(ABORT),
            WRITE,
            Step::Cr0(QUEUES_ON),
            Step::Write(A, arena(D1)),
            Step::Write(FAR, arena(D1)),
            Step::Gbpa(BYPASS_ALL),
            Step::Write(A, arena(D1)),
        ],
    },
    Program {
        name: "off-with-gbpa-abort-a-read-gets-nothing",
        steps: &[
            Step::Gbpa(ABORT),
            Step::Cr0(QUEUES_ON),
            Step::Store(D2, plain(TREASURE)),
            Step::Read(A, arena(D2)),
        ],
    },
];

const THIRTY_TWO_COMMANDS: Step = Step::Commands(&[
    NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL,
    NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL,
    NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL,
    NSNH_ALL, NSNH_ALL, NSNH_ALL, NSNH_ALL,
]);
