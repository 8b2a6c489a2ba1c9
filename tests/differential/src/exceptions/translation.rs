//! Translating, and what is recorded of it.

use super::{Exception, Source};

pub(super) const EXCEPTIONS: &[Exception] = &[
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
];
