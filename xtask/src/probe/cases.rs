//! The machines, and what the probe must say of each. A new case is a new row.

use super::start::Start;

/// One machine.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// QEMU's `-M`.
    pub(super) machine: &'static str,
    /// QEMU's `-cpu`.
    pub(super) cpu: &'static str,
    /// QEMU's `-device`s.
    pub(super) devices: &'static [&'static str],
    pub(super) start: Start,
    /// What the report has, in this order; line breaks count as blanks.
    pub(super) has: &'static [&'static str],
    /// What the report has not.
    pub(super) lacks: &'static [&'static str],
}

/// QEMU's `virt` with an SMMU and one device.
pub(super) const PLAIN: Case = Case {
    name: "plain",
    about: "QEMU's `virt` with an SMMU, entered at EL2",
    machine: "virt,virtualization=on,iommu=smmuv3,gic-version=3",
    cpu: "max",
    devices: &["edu,addr=2.0"],
    start: Start::Kernel,
    has: &[
        "IORT at ",
        " by BOCHS BXPC",
        "PSCI by SMC; 1024 MiB of memory in 1 runs",
        "firmware runs at EL2; 2 CPUs",
        "52 bits of physical address (PARange)",
        "SMMU 0 at 0x9050000: coherent by IORT, wired interrupts: events 106, global errors 109, \
         CMD_SYNC 108, page requests 107",
        "stage 1, stage 2, AArch64 tables",
        "16 bits of StreamID, no SubstreamIDs, 2^19 commands, 2^19 events",
        "44 bits of output address",
        "CR0 0x0, CR0ACK 0x0, GBPA 0x1000, STRTAB_BASE 0x0, STRTAB_BASE_CFG 0x0 left off by \
         firmware, all DMA passes unchecked",
        "2 PCI functions, 0 of them unprotected; 0 named components, 0 of them unprotected",
        "0000:00:02.0 SMMU 0 stream 0x10: 1234:11e8 class 00ff00, MSIs to ITS 0 as 0x10",
        "(RMR) none",
        "console: PL011, or SBSA's subset of it, at 0x9000000",
        "GIC: distributor at 0x8000000",
        "ITS at 0x8080000",
        "USABLE: it would take all SMMUs over",
        "SMMU 0: nesting, no SubstreamIDs",
        "no ATS, no stalls, invalidation by range (RIL), BBML 2, coherent walks, events by wired \
         interrupt",
        "0000:00:02.0: yes, whole, no FLR",
        "This report is NOT saved in a file: ",
    ],
    lacks: &[
        "NOT USABLE",
        "UNPROTECTED:",
        "MAKES NO SENSE",
        "0000:00:00.0: yes",
    ],
};

/// The report of whoever came from a disk.
const FROM_A_DISK: &[&str] = &[
    "USABLE: it would take all SMMUs over",
    "This report is saved as \\EFI\\tools\\portcullis-probe.txt",
];

/// A device where Kunpeng 920's SEC engine is, and one on a bridge that bypasses the SMMU.
const KUNPENG_BUSES: &[&str] = &[
    "pxb-pcie,id=h74,bus_nr=0x74,bus=pcie.0,bypass_iommu=on",
    "pcie-root-port,id=rp75,bus=h74,chassis=1",
    "edu,bus=rp75",
    "pxb-pcie,id=hb4,bus_nr=0xb4,bus=pcie.0",
    "pcie-root-port,id=rpb5,bus=hb4,chassis=2",
    "pcie-root-port,id=rpb6,bus=hb4,chassis=3",
    "nvme,bus=rpb6,serial=0",
];

/// All of them.
pub(super) const CASES: &[Case] = &[
    PLAIN,
    Case {
        name: "bridges",
        about: "bridges where Kunpeng 920 has them, that at 0x74 around the SMMU",
        devices: KUNPENG_BUSES,
        has: &[
            "of them unprotected; 0 named components",
            "0000:74:00.0 UNPROTECTED: 1b36:000c class 060400, bridge to buses 75-75, MSIs to \
             ITS 0 as 0x7400",
            "0000:75:00.0 UNPROTECTED: 1234:11e8",
            "0000:00:00.0 SMMU 0 stream 0x0",
            "0000:b4:01.0 SMMU 0 stream 0xb408: 1b36:000c class 060400, bridge to buses b6-b6",
            "0000:b6:00.0 SMMU 0 stream 0xb600: 1b36:0010 class 010802, MSIs to ITS 0 as 0xb600",
            "USABLE: it would take all SMMUs over",
            "0000:b6:00.0: yes, whole, resets by itself (FLR)",
            "0000:75:00.0: NO, its DMA goes through no SMMU",
        ],
        lacks: &["NOT USABLE", "MAKES NO SENSE", "0000:75:00.0: yes"],
        ..PLAIN
    },
    Case {
        name: "aliases",
        about: "two devices behind a bridge to PCI, which answers for both",
        devices: &[
            "pcie-pci-bridge,id=pci,addr=2.0",
            "edu,bus=pci,addr=1.0",
            "edu,bus=pci,addr=2.0",
        ],
        has: &[
            "0000:00:02.0 SMMU 0 stream 0x10: 1b36:000e class 060400, bridge to buses 01-01",
            "0000:01:01.0 SMMU 0 stream 0x108 or SMMU 0 stream 0x100: 1234:11e8 class 00ff00, may \
             come as 01:00.0, MSIs to ITS 0 as 0x100",
            "USABLE: it would take all SMMUs over",
            "0000:01:01.0: yes, whole, no FLR: changes owners only where the board allows it, only \
             together with 01:02.0",
            "0000:01:02.0: yes, ",
        ],
        lacks: &["NOT USABLE", "UNPROTECTED:", "MAKES NO SENSE"],
        ..PLAIN
    },
    Case {
        name: "hip08",
        about: "the OEM ids of a Kunpeng 920, a CPU like its own",
        machine: "virt,virtualization=on,iommu=smmuv3,gic-version=3,x-oem-id=HISI  ,\
                  x-oem-table-id=HIP08   ",
        cpu: "neoverse-n1",
        has: &[
            "IORT at ",
            " by HISI HIP08",
            "MIDR 0x414fd0c1",
            "48 bits of physical address (PARange), VMIDs of 16 bits, BBM level 0, VHE",
            "USABLE: it would take all SMMUs over",
        ],
        lacks: &["NOT USABLE", "BOCHS", "MAKES NO SENSE", "quirk:"],
        ..PLAIN
    },
    Case {
        name: "no-smmu",
        about: "no SMMU in the tables: where to look",
        machine: "virt,virtualization=on,gic-version=3",
        has: &[
            "SMMUS none in the tables",
            "2 PCI functions, 2 of them unprotected",
            "0000:00:02.0 UNPROTECTED: 1234:11e8",
            "NOT USABLE: no SMMUv3 in the tables",
            "Look in firmware's menus for",
            "could be given to a guest: none",
        ],
        lacks: &[" USABLE: it", ": yes"],
        ..PLAIN
    },
    Case {
        name: "el1",
        about: "firmware at EL1, as below a hypervisor",
        machine: "virt,iommu=smmuv3,gic-version=3",
        has: &[
            "PSCI by HVC",
            "firmware runs at EL1; 2 CPUs",
            "SMMU 0 at 0x9050000",
            "stage 1, stage 2",
            "NOT USABLE: firmware runs at EL1; Portcullis needs EL2",
        ],
        lacks: &[" USABLE: it"],
        ..PLAIN
    },
    Case {
        name: "shell",
        about: "from UEFI's shell, the report saved beside the application",
        start: Start::Shell,
        has: FROM_A_DISK,
        lacks: &["NOT saved"],
        ..PLAIN
    },
    Case {
        name: "grub",
        about: "from GRUB's `chainloader`",
        start: Start::Grub,
        has: FROM_A_DISK,
        lacks: &["NOT saved"],
        ..PLAIN
    },
    Case {
        name: "boot-entry",
        about: "from a boot entry: page by page, and firmware goes on afterwards",
        start: Start::BootEntry,
        has: FROM_A_DISK,
        lacks: &["NOT saved"],
        ..PLAIN
    },
];
