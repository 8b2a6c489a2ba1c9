//! Finding a stream's entry, and what an entry may say.

use super::{Exception, Source};

pub(super) const EXCEPTIONS: &[Exception] = &[
    Exception {
        programs: &["bypass-beyond-the-output-size"],
        source: Source::Found("§3.4, §7.3.14"),
        why: "the input size is not checked where both stages are bypassed",
        model: &["event F_ADDR_SIZE of stream 0x10 write S1 IN at the page sent"],
        qemu: &[],
    },
    Exception {
        programs: &["a-stream-beyond-the-table-unrecorded-without-recinvsid"],
        source: Source::Found("§6.3.12"),
        why: "CR2.RECINVSID is not looked at: C_BAD_STREAMID is always recorded",
        model: &[],
        qemu: &["event C_BAD_STREAMID of stream 0x100"],
    },
    Exception {
        programs: &["s2sl0-too-high-for-s2t0sz"],
        source: Source::Found("§5.2, S2SL0"),
        why: "a start level that leaves nothing to resolve is accepted",
        model: &["event C_BAD_STE of stream 0x10"],
        qemu: &[
            "event F_TRANSLATION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
    },
    Exception {
        programs: &[
            "s2ha-is-illegal-without-httu",
            "s2hd-is-illegal-without-httu",
        ],
        source: Source::Found("§5.2, S2HA and S2HD"),
        why: "S2HA and S2HD are not looked at; without HTTU an entry that has them is ILLEGAL",
        model: &[
            "stream 0x10 writes at 0x10000000: did not land",
            "event C_BAD_STE of stream 0x10",
        ],
        qemu: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
    },
    Exception {
        programs: &["stage-2-ignores-s1cdmax", "s1cdmax-without-substreams"],
        source: Source::Found("§5.2, S1CDMax"),
        why: "S1CDMax is refused, though it is ignored with SSIDSIZE 0 and without stage 1",
        model: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
        qemu: &[
            "stream 0x10 writes at 0x10000000: did not land",
            "event C_BAD_STE of stream 0x10",
        ],
    },
    Exception {
        programs: &["s1contextptr-beyond-the-output-size"],
        source: Source::Found("§5.2, S1ContextPtr; §7.3.10"),
        why: "S1ContextPtr is not checked against OAS, and F_CD_FETCH has its address in the place of InputAddr",
        model: &["event C_BAD_STE of stream 0x10"],
        qemu: &["event F_CD_FETCH of stream 0x10 fetch 0x0 other bits 0x0 0x0 0x100000000000 0x0"],
    },
    Exception {
        programs: &["s1contextptr-in-no-memory", "nested-cd-in-no-memory"],
        source: Source::Found("§7.3.10"),
        why: "F_CD_FETCH has the address in the place of InputAddr",
        model: &["event F_CD_FETCH of stream 0x10 fetch 0xf0000000000"],
        qemu: &["event F_CD_FETCH of stream 0x10 fetch 0x0 other bits 0x0 0x0 0xf0000000000 0x0"],
    },
    Exception {
        programs: &["two-levels-with-a-reserved-split-act-as-6"],
        source: Source::Found("§6.3.25"),
        why: "a reserved SPLIT is used as it stands",
        model: &["stream 0x100 writes at 0x10000008: landed at arena+0x100008"],
        qemu: &[
            "stream 0x100 writes at 0x10000008: did not land",
            "event C_BAD_STREAMID of stream 0x100",
        ],
    },
    Exception {
        programs: &["two-levels-a-stream-beyond-the-span"],
        source: Source::Listed(4),
        why: "a Span of n has 2^n entries, not 2^(n-1)",
        model: &[
            "stream 0x10 writes at 0x10000000: did not land",
            "event C_BAD_STREAMID of stream 0x10",
        ],
        qemu: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
    },
    Exception {
        programs: &["two-levels-a-stream-far-beyond-the-span"],
        source: Source::Listed(4),
        why: "what lies beyond a Span has a bad entry, not a bad StreamID",
        model: &["event C_BAD_STREAMID of stream 0x10"],
        qemu: &["event C_BAD_STE of stream 0x10"],
    },
    Exception {
        programs: &[
            "two-levels-a-span-above-the-split",
            "two-levels-a-reserved-span",
        ],
        source: Source::Found("§5.1, Span"),
        why: "a Span above SPLIT+1, or a reserved one, is used as it stands",
        model: &[
            "stream 0x10 writes at 0x10000000: did not land",
            "event C_BAD_STREAMID of stream 0x10",
        ],
        qemu: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
    },
    Exception {
        programs: &["two-levels-pointer-bits-below-its-size-are-ignored"],
        source: Source::Found("§5.1, L2Ptr"),
        why: "the bits of L2Ptr below the size of the table are used",
        model: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
        qemu: &[
            "stream 0x10 writes at 0x10000000: did not land",
            "event C_BAD_STE of stream 0x10",
        ],
    },
    Exception {
        programs: &["one-level-again-after-two"],
        source: Source::Listed(3),
        why: "STRTAB_BASE_CFG.FMT stays two-level until a reset",
        model: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
        qemu: &[
            "stream 0x10 writes at 0x10000000: did not land",
            "event C_BAD_STREAMID of stream 0x10",
        ],
    },
];
