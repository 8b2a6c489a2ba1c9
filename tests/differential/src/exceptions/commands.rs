//! Commands and queues.

use super::{Exception, Source};

pub(super) const EXCEPTIONS: &[Exception] = &[
    Exception {
        programs: &["global-page-survives-nh-asid"],
        source: Source::Lawful("§4.4, §4.4.2.2"),
        why: "nG is not looked at, so CMD_TLBI_NH_ASID removes global pages too: more than it must",
        model: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
        qemu: &["stream 0x10 writes at 0x10000000: landed at arena+0x110000"],
    },
    Exception {
        programs: &["global-page-after-nh-va-of-another-asid"],
        source: Source::Found("§4.4.2.4"),
        why: "nG is not looked at, so CMD_TLBI_NH_VA of another ASID leaves a global page",
        model: &["stream 0x10 writes at 0x10000000: landed at arena+0x110000"],
        qemu: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
    },
    Exception {
        programs: &["sync-with-cs-3-is-illegal"],
        source: Source::Found("§4.7.3"),
        why: "CMD_SYNC with CS=3 is accepted",
        model: &["stopped at command 1 with error 1, GERROR 0x1"],
        qemu: &[],
    },
    Exception {
        programs: &[
            "el2-all-is-illegal-without-el2-worlds",
            "el2-asid-is-illegal-without-el2-worlds",
            "el2-va-is-illegal-without-el2-worlds",
            "el2-vaa-is-illegal-without-el2-worlds",
            "atc-inv-is-illegal-without-ats",
            "resume-is-illegal-where-nothing-stalls",
            "stall-term-is-illegal-where-nothing-stalls",
        ],
        source: Source::Listed(11),
        why: "commands of a feature that is not there are accepted",
        model: &["stopped at command 1 with error 1, GERROR 0x1"],
        qemu: &[],
    },
    Exception {
        programs: &["pri-resp-is-illegal-without-pri"],
        source: Source::Found("§4.5.2"),
        why: "CMD_PRI_RESP is accepted where there is no PRI",
        model: &["stopped at command 1 with error 1, GERROR 0x1"],
        qemu: &[],
    },
    Exception {
        programs: &["range-of-nothing-is-illegal"],
        source: Source::Found("§4.4.1.1"),
        why: "a range with NUM, SCALE and TTL 0 is accepted",
        model: &["stopped at command 1 with error 1, GERROR 0x1"],
        qemu: &[],
    },
    Exception {
        programs: &["events-overflow-their-queue"],
        source: Source::Listed(10),
        why: "a record too many raises GERROR.EVENTQ_ABT_ERR, and not OVFLG",
        model: &["commands consumed, GERROR 0x0, events lost"],
        qemu: &["commands consumed, GERROR 0x4"],
    },
];
