//! The self-check on the model: every check passes, and each fails with its own fault and no other.

use portcullis::check::{self, Devices, DmaTest, MAX_DEVICES, Site, Summary};
use portcullis::hw::{CpuTlb, CpuWalk};
use portcullis::id::StreamId;
use portcullis::smmu::{Firmware, QueueIndices};
use portcullis_self_check::{Board, Frame, Placed, SABOTEUR};
use smmu_model::device::Wiring;
use smmu_model::{Identity, Mode, Rule, Settings, StallModel, Violation};

/// No CPU walks what the devices do.
struct NoCpus;

impl CpuTlb for NoCpus {
    fn forget(
        &self,
        _: &CpuWalk,
        _: Option<&[portcullis::addr::Extent<portcullis::addr::Ipa>]>,
        _: u8,
    ) {
    }
}

fn modes() -> impl Iterator<Item = Mode> {
    let seeds = (0..8).map(|seed| Mode::Chaotic { seed });
    [Mode::Polite, Mode::Forgetful, Mode::Hoarding]
        .into_iter()
        .chain(seeds)
}

/// Every check but those of an NVMe controller, which no board here has; and what it says when it has
/// its fault.
const CHECKS: [(&str, &str); 23] = [
    ("unbound-stream-aborts", "DMA reached "),
    ("stage2-dma", "DMA did not reach "),
    ("stage2-fault-decoded", "no event came"),
    ("stage2-unmap-blocks", "DMA reached "),
    ("stage2-protect-read-only", "DMA reached "),
    ("block-split-under-dma", "DMA reached "),
    ("nested-dma", "DMA did not reach "),
    ("nested-fault-stage1", "no event came"),
    ("nested-fault-stage2", "no event came"),
    ("window-is-sealed", "no event came"),
    ("retract-blocks", "DMA reached "),
    ("two-level-stream-table", "DMA did not reach "),
    ("stream-handover-between-two-stage2s", "DMA reached "),
    ("event-overflow-survived", "no event came"),
    (
        "illegal-command-recovered",
        "the issuer of an illegal command is told so",
    ),
    ("pasid-dma", "DMA did not reach "),
    ("pasid-two-spaces-one-address", "DMA did not reach "),
    ("pasid-out-of-range", "no event came"),
    ("pasid-release-blocks", "DMA reached "),
    ("pasid-stall-and-resume", "an answered access ends"),
    ("pasid-ats", "DMA reached "),
    ("two-smmus", "DMA reached "),
    ("shutdown-leaves-abort", "DMA reached "),
];

/// Two SMMUs, each with a device under either of two L1 descriptors; one bears stalls.
fn devices() -> [Placed; 4] {
    let placed = |smmu, stream, can_stall| Placed {
        smmu,
        wiring: Wiring::full(stream),
        can_stall,
    };
    [
        placed(0, 0x10, false),
        placed(0, 0x110, true),
        placed(1, 0x20, true),
        placed(1, 0x321, false),
    ]
}

/// As the image's machine: the second SMMU has no 16 KiB granule.
fn board(mode: Mode) -> Board {
    let second = Identity {
        granule_16k: false,
        ..Identity::full()
    };
    board_of([Identity::full(), second], mode)
}

fn board_of(smmus: [Identity; 2], mode: Mode) -> Board {
    Board::new(&smmus.map(|it| Settings::new(it, mode)), &devices())
}

/// Runs the self-check; its lines, and its summary.
fn run(board: &Board, sabotaged: Option<&str>) -> (Vec<String>, Summary) {
    let frames: Vec<(Placed, Frame<'_>)> = board.devices().collect();
    let site = |place| {
        let behind = frames.iter().filter(|(placed, _)| placed.smmu == place);
        let mut tests = behind.clone().map(|(placed, frame)| {
            DmaTest::new(frame, placed.declared()).expect("it is what the board says")
        });
        let last = behind.map(|(placed, _)| placed.wiring.stream).max()?;
        Some(Site {
            place,
            registers: board.smmu_registers(place),
            firmware: Firmware {
                is_coherent: true,
                queue_indices: QueueIndices::Page1,
            },
            last_stream: StreamId::new(last),
            edus: [const { None }; MAX_DEVICES],
            tests: std::array::from_fn(|_| tests.next()),
            nvme: None,
        })
    };
    let sites: Vec<_> = (0..2).filter_map(site).collect();
    let devices = Devices {
        platform: board,
        sites: &sites,
        cpu_output_bits: 48,
        cpu_tlb: &NoCpus,
        cpu: None,
        saboteur: Some(SABOTEUR),
    };
    let mut lines = Vec::new();
    let summary = check::run(&devices, sabotaged, &mut |line| {
        lines.push(line.to_string());
    });
    (lines, summary)
}

/// What the model objects to, but for the reserved command that `illegal-command-recovered` sends.
fn objections(board: &Board) -> Vec<Violation> {
    let mut violations = board.machine().record().violations();
    violations.retain(|it| it.rule != Rule::CommandIllegal || !it.what.starts_with("0xff 0x0 "));
    violations
}

fn names(lines: &[String]) -> Vec<String> {
    let list = lines[0].strip_prefix("checks: ").expect("the list");
    list.split(' ').map(str::to_owned).collect()
}

#[test]
fn every_check_passes_in_every_mode_and_the_model_has_no_objection() {
    for mode in modes() {
        let board = board(mode);
        let (lines, summary) = run(&board, None);
        assert_eq!(summary.failed, 0, "{mode:?}: {lines:#?}");
        assert_eq!(names(&lines), CHECKS.map(|(name, _)| name));
        assert_eq!(summary.passed, CHECKS.len() as u32);
        if let Some(objection) = objections(&board).first() {
            panic!("{mode:?}: {objection}");
        }
        assert_eq!(board.host().bytes_out(), 0, "{mode:?}");
    }
}

#[test]
fn each_check_fails_with_its_own_fault_and_no_other_does() {
    for (name, why) in CHECKS {
        assert!(check::can_sabotage(name), "{name} has no fault");
        let (lines, _) = run(&board(Mode::Hoarding), Some(name));
        let failed: Vec<&str> = lines
            .iter()
            .filter(|line| line.contains(": FAILED "))
            .map(|line| line.as_str())
            .collect();
        let start = format!("check {name}: FAILED with stream 0x");
        assert!(
            failed.len() == 1 && failed[0].starts_with(&start) && failed[0].contains(why),
            "{name}: {failed:#?}"
        );
    }
}

/// What cannot be done on a machine is not among its checks, and all else passes.
#[test]
fn a_machine_has_the_checks_that_it_can_pass() {
    const PASIDS: [&str; 7] = [
        "pasid-dma",
        "pasid-two-spaces-one-address",
        "pasid-out-of-range",
        "pasid-release-blocks",
        "pasid-stall-and-resume",
        "pasid-ats",
        "two-smmus",
    ];
    let full = Identity::full();
    let without = |adjust: fn(&mut Identity)| {
        let mut identity = full;
        adjust(&mut identity);
        identity
    };
    // What faults stalls, whatever is asked for: nobody is told of an abort.
    const ABORTS: [&str; 13] = [
        "stage2-fault-decoded",
        "stage2-unmap-blocks",
        "stage2-protect-read-only",
        "nested-fault-stage1",
        "nested-fault-stage2",
        "window-is-sealed",
        "retract-blocks",
        "event-overflow-survived",
        "pasid-dma",
        "pasid-two-spaces-one-address",
        "pasid-release-blocks",
        "pasid-ats",
        "two-smmus",
    ];
    let rows: [(&str, Identity, &[&str]); 11] = [
        ("narrow tags", Identity::narrow_tags(), &[]),
        ("linear CDs", without(|it| it.cd2l = false), &[]),
        ("no split ATS", without(|it| it.ns1ats = true), &[]),
        ("aborts only", without(|it| it.term_abort_only = true), &[]),
        ("BBML 2", without(|it| it.bbml = 2), &[]),
        (
            "Kunpeng 920",
            Identity::kunpeng_920(),
            &["block-split-under-dma"],
        ),
        (
            "linear streams",
            without(|it| it.st_level2 = false),
            &["two-level-stream-table"],
        ),
        (
            "no stalls",
            Identity::with_stalls(StallModel::TerminateOnly),
            &["pasid-stall-and-resume"],
        ),
        (
            "only stalls",
            Identity::with_stalls(StallModel::StallForced),
            &ABORTS,
        ),
        ("no ATS", without(|it| it.ats = false), &["pasid-ats"]),
        ("no PASIDs", without(|it| it.ssid_bits = 0), &PASIDS),
    ];
    for (what, identity, absent) in rows {
        let board = board_of([identity; 2], Mode::Hoarding);
        let (lines, summary) = run(&board, None);
        let expected = CHECKS.map(|(name, _)| name);
        let expected = expected.into_iter().filter(|name| !absent.contains(name));
        assert_eq!(names(&lines), expected.collect::<Vec<_>>(), "{what}");
        assert_eq!(summary.failed, 0, "{what}: {lines:#?}");
        if let Some(objection) = objections(&board).first() {
            panic!("{what}: {objection}");
        }
        assert_eq!(board.host().bytes_out(), 0, "{what}");
    }
}
