//! Where QEMU's SMMUv3 is known to differ, and why.

/// A difference that there must be.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// The programs that show it, all with the same lines.
    pub programs: &'static [&'static str],
    /// How it is known that QEMU differs.
    pub source: Source,
    /// What QEMU does, and what the architecture asks for.
    pub why: &'static str,
    /// The lines that only the model has.
    pub model: &'static [&'static str],
    /// The lines that only QEMU has.
    pub qemu: &'static [&'static str],
}

/// How it is known that QEMU differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The item of section 1.4 of the emulator facts (`emulator.md`) that lists it.
    Listed(u8),
    /// Found by these programs; the section of IHI 0070 that QEMU departs from.
    Found(&'static str),
    /// The architecture leaves it open (the section that does), and the model chooses otherwise.
    Lawful(&'static str),
}

/// Every difference that there must be, with QEMU 10.0.2.
pub const EXCEPTIONS: &[Exception] = &[
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
        programs: &["stage2-ipa-of-an-event-is-a-pages"],
        source: Source::Found("§7.3.13"),
        why: "the IPA of a record is not that of a page",
        model: &[
            "event F_TRANSLATION of stream 0x10 write S2 IN at the address sent IPA the page sent",
        ],
        qemu: &[
            "event F_TRANSLATION of stream 0x10 write S2 IN at the address sent IPA the address sent",
        ],
    },
    Exception {
        programs: &["stage2-read-only-page-is-not-written-after-a-read"],
        source: Source::Listed(5),
        why: "a write to a stage 2 page that was read before, and may only be read, aborts without a record",
        model: &[
            "event F_PERMISSION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
        qemu: &[],
    },
    Exception {
        programs: &["stage2-write-only-page-is-not-read-after-a-write"],
        source: Source::Listed(6),
        why: "a read of a stage 2 page that was written before, and may only be written, gets nothing, and leaves no record",
        model: &["event F_PERMISSION of stream 0x10 read S2 IN at the page sent IPA the page sent"],
        qemu: &[],
    },
    Exception {
        programs: &["stage2-block-at-level-0-is-invalid"],
        source: Source::Found("DDI 0487, D8.3"),
        why: "a block at a level that has none is a mapping",
        model: &[
            "stream 0x10 writes at 0x100000+arena: did not land",
            "event F_TRANSLATION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
        qemu: &["stream 0x10 writes at 0x100000+arena: landed at arena+0x100000"],
    },
    Exception {
        programs: &["stage2-40-bits-from-2-tables"],
        source: Source::Found("DDI 0487, D8.2"),
        why: "of concatenated tables only the first is ever walked",
        model: &["stream 0x10 writes at 0x8010000000: landed at arena+0x100000"],
        qemu: &[
            "stream 0x10 writes at 0x8010000000: did not land",
            "event F_TRANSLATION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
    },
    Exception {
        programs: &["stage2-41-bits-from-4-tables"],
        source: Source::Found("DDI 0487, D8.2"),
        why: "of concatenated tables only the first is ever walked",
        model: &["stream 0x10 writes at 0x18010000000: landed at arena+0x100000"],
        qemu: &[
            "stream 0x10 writes at 0x18010000000: did not land",
            "event F_TRANSLATION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
    },
    Exception {
        programs: &["stage2-42-bits-from-8-tables"],
        source: Source::Found("DDI 0487, D8.2"),
        why: "of concatenated tables only the first is ever walked",
        model: &["stream 0x10 writes at 0x38010000000: landed at arena+0x100000"],
        qemu: &[
            "stream 0x10 writes at 0x38010000000: did not land",
            "event F_TRANSLATION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
    },
    Exception {
        programs: &["stage2-43-bits-from-16-tables"],
        source: Source::Found("DDI 0487, D8.2"),
        why: "of concatenated tables only the first is ever walked",
        model: &["stream 0x10 writes at 0x7ffd0000000: landed at arena+0x100000"],
        qemu: &[
            "stream 0x10 writes at 0x7ffd0000000: did not land",
            "event F_TRANSLATION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
    },
    Exception {
        programs: &["stage2-34-bits-from-16-tables-of-level-2"],
        source: Source::Found("DDI 0487, D8.2"),
        why: "of concatenated tables only the first is ever walked",
        model: &["stream 0x10 writes at 0x3d0000000: landed at arena+0x100000"],
        qemu: &[
            "stream 0x10 writes at 0x3d0000000: did not land",
            "event F_TRANSLATION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
    },
    Exception {
        programs: &["stage2-16k-40-bits-from-16-tables"],
        source: Source::Found("DDI 0487, D8.2"),
        why: "of concatenated tables only the first is ever walked",
        model: &["stream 0x10 writes at 0xf010110000+arena[24:0]: landed at arena+0x110000"],
        qemu: &[
            "stream 0x10 writes at 0xf010110000+arena[24:0]: did not land",
            "event F_TRANSLATION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
    },
    Exception {
        programs: &["stage2-64k-44-bits-from-4-tables"],
        source: Source::Found("DDI 0487, D8.2"),
        why: "of concatenated tables only the first is ever walked",
        model: &["stream 0x10 writes at 0xc0060110000+arena[28:0]: landed at arena+0x110000"],
        qemu: &[
            "stream 0x10 writes at 0xc0060110000+arena[28:0]: did not land",
            "event F_TRANSLATION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
    },
    Exception {
        programs: &["stage2-64k-block-at-level-1-is-invalid"],
        source: Source::Found("DDI 0487, D8.3"),
        why: "a block at a level that has none is a mapping",
        model: &[
            "stream 0x10 writes at 0x110000+arena: did not land",
            "event F_TRANSLATION of stream 0x10 write S2 IN at the page sent IPA the page sent",
        ],
        qemu: &["stream 0x10 writes at 0x110000+arena: landed at arena+0x110000"],
    },
    Exception {
        programs: &[
            "stage2-address-beyond-44-bits",
            "stage2-address-beyond-44-bits-in-silence-too-without-s2r",
        ],
        source: Source::Listed(7),
        why: "an IPA of more than 44 bits aborts without a record",
        model: &["event F_ADDR_SIZE of stream 0x10 write S1 IN at the page sent"],
        qemu: &[],
    },
    Exception {
        programs: &["stage2-highest-address"],
        source: Source::Listed(7),
        why: "an IPA of more than 44 bits aborts without a record",
        model: &["event F_ADDR_SIZE of stream 0x10 write S1 IN at the address sent"],
        qemu: &[],
    },
    Exception {
        programs: &["stage2-output-smaller-than-the-input"],
        source: Source::Found("§5.2, S2T0SZ"),
        why: "an IPA size above S2PS is refused, though neither limits the other",
        model: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
        qemu: &[
            "stream 0x10 writes at 0x10000000: did not land",
            "event C_BAD_STE of stream 0x10",
        ],
    },
    Exception {
        programs: &["stage2-table-beyond-s2ps"],
        source: Source::Found("§3.4; DDI 0487, D8.2"),
        why: "the address of a table is not checked against the output size",
        model: &["event F_ADDR_SIZE of stream 0x10 write S2 IN at the page sent IPA the page sent"],
        qemu: &["event F_WALK_EABT of stream 0x10 write S2 IN at the page sent fetch 0x1000000400"],
    },
    Exception {
        programs: &["stage1-page-for-el1-alone"],
        source: Source::Listed(9),
        why: "every transaction is privileged: AP[1] is not looked at",
        model: &[
            "stream 0x10 writes at 0x10000000: did not land",
            "event F_PERMISSION of stream 0x10 write S1 IN at the page sent",
        ],
        qemu: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
    },
    Exception {
        programs: &["stage1-page-for-el1-alone-is-not-read"],
        source: Source::Listed(9),
        why: "every transaction is privileged: AP[1] is not looked at",
        model: &[
            "stream 0x10 reads at 0x10000000: 0x0",
            "event F_PERMISSION of stream 0x10 read S1 IN at the page sent",
        ],
        qemu: &["stream 0x10 reads at 0x10000000: 0x7ead0000"],
    },
    Exception {
        programs: &["stage1-block-at-level-0-is-invalid"],
        source: Source::Found("DDI 0487, D8.3"),
        why: "a block at a level that has none is a mapping",
        model: &[
            "stream 0x10 writes at 0x100000+arena: did not land",
            "event F_TRANSLATION of stream 0x10 write S1 IN at the page sent",
        ],
        qemu: &["stream 0x10 writes at 0x100000+arena: landed at arena+0x100000"],
    },
    Exception {
        programs: &[
            "stage1-16k-block-at-level-1-is-invalid",
            "stage1-64k-block-at-level-1-is-invalid",
        ],
        source: Source::Found("DDI 0487, D8.3"),
        why: "a block at a level that has none is a mapping",
        model: &[
            "stream 0x10 writes at 0x110000+arena: did not land",
            "event F_TRANSLATION of stream 0x10 write S1 IN at the page sent",
        ],
        qemu: &["stream 0x10 writes at 0x110000+arena: landed at arena+0x110000"],
    },
    Exception {
        programs: &["stage1-tbi0-ignores-the-top-byte-of-low-addresses"],
        source: Source::Found("§5.4, TBI"),
        why: "TBI0 is taken for both halves, and TBI1 for none",
        model: &[
            "stream 0x10 writes at 0x55ffff8010000000: did not land",
            "event F_TRANSLATION of stream 0x10 write S1 IN at the page sent",
        ],
        qemu: &["stream 0x10 writes at 0x55ffff8010000000: landed at arena+0x110000"],
    },
    Exception {
        programs: &["stage1-tbi1-ignores-the-top-byte-of-high-addresses"],
        source: Source::Found("§5.4, TBI"),
        why: "TBI0 is taken for both halves, and TBI1 for none",
        model: &["stream 0x10 writes at 0xffff8010000000: landed at arena+0x110000"],
        qemu: &[
            "stream 0x10 writes at 0xffff8010000000: did not land",
            "event F_TRANSLATION of stream 0x10 write S1 IN at the page sent",
        ],
    },
    Exception {
        programs: &["stage1-table-beyond-ips"],
        source: Source::Found("§3.4; DDI 0487, D8.2"),
        why: "the address of a table is not checked against the output size",
        model: &["event F_ADDR_SIZE of stream 0x10 write S1 IN at the page sent"],
        qemu: &["event F_WALK_EABT of stream 0x10 write S1 TT at the page sent fetch 0x1000000400"],
    },
    Exception {
        programs: &["nested-cd-not-mapped-in-stage-2"],
        source: Source::Found("§7.3.13"),
        why: "a stage 2 fault of a CD's address is recorded as a read, whatever the device did",
        model: &["event F_TRANSLATION of stream 0x10 write S2 CD at the page sent IPA 0x20005000"],
        qemu: &["event F_TRANSLATION of stream 0x10 read S2 CD at the page sent IPA 0x20005000"],
    },
    Exception {
        programs: &["nested-cd-not-readable-in-stage-2"],
        source: Source::Found("§7.3.13"),
        why: "a stage 2 fault of a CD's address is recorded as a read, whatever the device did",
        model: &["event F_PERMISSION of stream 0x10 write S2 CD at the page sent IPA 0x20005000"],
        qemu: &["event F_PERMISSION of stream 0x10 read S2 CD at the page sent IPA 0x20005000"],
    },
    Exception {
        programs: &["nested-cd-without-access-flag-in-stage-2"],
        source: Source::Found("§7.3.13"),
        why: "a stage 2 fault of a CD's address is recorded as a read, whatever the device did",
        model: &["event F_ACCESS of stream 0x10 write S2 CD at the page sent IPA 0x20005000"],
        qemu: &["event F_ACCESS of stream 0x10 read S2 CD at the page sent IPA 0x20005000"],
    },
    Exception {
        programs: &["nested-root-not-mapped-in-stage-2"],
        source: Source::Found("§7.3.13"),
        why: "a stage 2 fault of TTB0 is recorded as a read, whatever the device did",
        model: &["event F_TRANSLATION of stream 0x10 write S2 TT at the page sent IPA 0x20031000"],
        qemu: &["event F_TRANSLATION of stream 0x10 read S2 TT at the page sent IPA 0x20031000"],
    },
    Exception {
        programs: &["nested-level-2-table-not-mapped-in-stage-2"],
        source: Source::Listed(8),
        why: "a stage 2 fault of a stage 1 table is recorded with S2=0",
        model: &["event F_TRANSLATION of stream 0x10 write S2 TT at the page sent IPA 0x20032000"],
        qemu: &["event F_TRANSLATION of stream 0x10 write S1 TT at the page sent"],
    },
    Exception {
        programs: &["nested-level-3-table-not-mapped-in-stage-2"],
        source: Source::Listed(8),
        why: "a stage 2 fault of a stage 1 table is recorded with S2=0",
        model: &[
            "event F_TRANSLATION of stream 0x10 write S2 TT at the page sent IPA 0x20033000",
            "event F_TRANSLATION of stream 0x10 read S2 TT at the page sent IPA 0x20033000",
        ],
        qemu: &[
            "event F_TRANSLATION of stream 0x10 write S1 TT at the page sent",
            "event F_TRANSLATION of stream 0x10 read S1 TT at the page sent",
        ],
    },
    Exception {
        programs: &["nested-table-not-readable-in-stage-2"],
        source: Source::Listed(8),
        why: "a stage 2 fault of a stage 1 table is recorded with S2=0",
        model: &["event F_PERMISSION of stream 0x10 write S2 TT at the page sent IPA 0x20033000"],
        qemu: &["event F_PERMISSION of stream 0x10 write S1 TT at the page sent"],
    },
    Exception {
        programs: &["nested-table-without-access-flag-in-stage-2"],
        source: Source::Listed(8),
        why: "a stage 2 fault of a stage 1 table is recorded with S2=0",
        model: &["event F_ACCESS of stream 0x10 write S2 TT at the page sent IPA 0x20033000"],
        qemu: &["event F_ACCESS of stream 0x10 write S1 TT at the page sent"],
    },
    Exception {
        programs: &["nested-table-beyond-stage-2"],
        source: Source::Listed(8),
        why: "a stage 2 fault of a stage 1 table is recorded with S2=0",
        model: &[
            "event F_TRANSLATION of stream 0x10 write S2 TT at the page sent IPA 0x8000000000",
        ],
        qemu: &["event F_TRANSLATION of stream 0x10 write S1 TT at the page sent"],
    },
    Exception {
        programs: &["global-page-survives-nh-asid"],
        source: Source::Lawful("§4.4"),
        why: "nG is not looked at, so CMD_TLBI_NH_ASID removes global pages too: more than it must",
        model: &["stream 0x10 writes at 0x10000000: landed at arena+0x100000"],
        qemu: &["stream 0x10 writes at 0x10000000: landed at arena+0x110000"],
    },
    Exception {
        programs: &["global-page-after-nh-va-of-another-asid"],
        source: Source::Found("§4.4.1"),
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
