//! The step `test-guests`: guests at EL1, beside each other or refused.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use crate::board::{self, Board};
use crate::boot;
use crate::console::{self, End};
use crate::guest::{self, Echo, Ran};
use crate::guests::{self, Guest};
use crate::image::{self, Image, Kind};
use crate::qemu;
use crate::steps::Outcome;
use crate::stop::{Stop, progress};

const BOARD: &str = "qemu-virt";
/// A boot takes a few seconds; the rest is for a machine under load.
const LIMIT: Duration = Duration::from_secs(120);

const EDU: &str = "0000:00:02.0";
const NVME: &str = "0000:00:04.0";

/// A boot, and what must come of it.
struct Case {
    name: &'static str,
    cpus: u32,
    guests: &'static [Asked],
    /// Lines that must be there.
    lines: &'static [&'static str],
    end: &'static str,
    /// A page of EL2's is in every guest's stage 2: the exam is to notice.
    is_sabotaged: bool,
}

/// A guest as a case has it.
struct Asked {
    name: &'static str,
    cpus: Range<u32>,
    memory_mib: u64,
    devices: &'static [&'static str],
}

const fn asked(name: &'static str, cpus: Range<u32>, devices: &'static [&'static str]) -> Asked {
    Asked {
        name,
        cpus,
        memory_mib: 16,
        devices,
    }
}

const CASES: &[Case] = &[
    Case {
        name: "embedded, sabotaged",
        is_sabotaged: true,
        cpus: 2,
        guests: &[],
        lines: &["check guest-isolation: FAILED EL2's memory was changed"],
        end: "guests are not kept apart: EL2's memory was changed",
    },
    Case {
        name: "embedded, on four CPUs",
        is_sabotaged: false,
        cpus: 4,
        guests: &[],
        lines: &[
            "guest first: 16 MiB at 0x2000000000, CPUs 0x1, 1 devices",
            "guest second: 16 MiB at 0x2000000000, CPUs 0x2, 1 devices",
            "[first] device through a space: ok",
            "[second] device through a space: ok",
            "check guest-isolation: ok",
        ],
        end: "ok",
    },
    Case {
        name: "embedded, on two CPUs",
        is_sabotaged: false,
        cpus: 2,
        guests: &[],
        lines: &[
            "guest first: off",
            "guest second: off",
            "check guest-isolation: ok",
        ],
        end: "ok",
    },
    Case {
        name: "embedded, on one CPU",
        is_sabotaged: false,
        cpus: 1,
        guests: &[],
        lines: &[
            "guest second: left out, there is one CPU",
            "check guest-isolation: ok",
        ],
        end: "ok",
    },
    Case {
        name: "two guests, one of three CPUs",
        is_sabotaged: false,
        cpus: 4,
        guests: &[asked("one", 0..1, &[EDU]), asked("three", 1..4, &[NVME])],
        lines: &[
            "[one] 1 CPUs",
            "[three] 3 CPUs",
            "[one] absent features: ok",
            "[three] absent features: ok",
            "[one] AArch32 at EL0: ok",
            "guest one: cpu 0: read of 0xdead000, not its own",
            "guest one: starts over",
            "[one] starts over: ok",
            "[three] starts over: ok",
            "[one] device through a space: ok",
            "[three] device through a space: ok",
            "guest one: off",
            "guest three: off",
        ],
        end: "ok",
    },
    Case {
        name: "a CPU given twice",
        is_sabotaged: false,
        cpus: 2,
        guests: &[asked("one", 0..2, &[]), asked("two", 1..2, &[])],
        lines: &[],
        end: "guest two: CPU 0x1 is given twice",
    },
    Case {
        name: "more guests than CPUs",
        is_sabotaged: false,
        cpus: 1,
        guests: &[asked("one", 0..1, &[]), asked("two", 1..2, &[])],
        lines: &[],
        end: "guest two: there is no CPU 0x1",
    },
    Case {
        name: "a device given twice",
        is_sabotaged: false,
        cpus: 2,
        guests: &[asked("one", 0..1, &[EDU]), asked("two", 1..2, &[NVME, EDU])],
        lines: &[],
        end: "guest two: device 0000:00:02.0 is given twice",
    },
    Case {
        name: "a device that there is not",
        is_sabotaged: false,
        cpus: 2,
        guests: &[asked("one", 0..1, &["0000:00:1e.0"])],
        lines: &[],
        end: "guest one: there is no device 0000:00:1e.0",
    },
    Case {
        name: "a device behind no SMMU",
        is_sabotaged: false,
        cpus: 2,
        guests: &[asked("one", 0..1, &["fw-cfg@9020000"])],
        lines: &[],
        end: "guest one: device fw-cfg@9020000 is behind no SMMU",
    },
    Case {
        name: "more memory than there is",
        is_sabotaged: false,
        cpus: 2,
        guests: &[
            asked("one", 0..1, &[]),
            Asked {
                name: "two",
                cpus: 1..2,
                memory_mib: 1024,
                devices: &[],
            },
        ],
        lines: &[],
        end: "guest two: 0x40000000 bytes of memory are not free",
    },
];

/// Runs all cases.
///
/// # Errors
///
/// `Failed` with the names of the cases that failed; `CouldNotRun` without a QEMU that does.
pub(crate) fn step() -> Result<Outcome, Stop> {
    qemu::ensure()?;
    let board = board::load(BOARD)?;
    let image = image::build(&board, Kind::Plain)?;
    let guest = guests::build(&board, "first")?;
    let sabotage = image::build(&board, Kind::Sabotage)?;
    let mut failed = Vec::new();
    for case in CASES {
        let image = if case.is_sabotaged { &sabotage } else { &image };
        let ran = run(&board, image, &guest, case)?;
        match judge(&ran, case) {
            Ok(()) => progress(&format!("{}: as expected", case.name)),
            Err(why) => {
                progress(&format!("{}: {why}\n{}", case.name, ran.console));
                failed.push(case.name);
            }
        }
    }
    if failed.is_empty() {
        println!("{} boots as expected", CASES.len());
        return Ok(Outcome::Passed);
    }
    Err(Stop::Failed(failed.join(", ")))
}

fn run(board: &Board, image: &Image, guest: &Path, case: &Case) -> Result<Ran, Stop> {
    let model = board.qemu()?;
    let wanted: Vec<Guest> = case
        .guests
        .iter()
        .map(|asked| Guest {
            name: asked.name.into(),
            image: guest.into(),
            memory_bytes: asked.memory_mib << 20,
            cpus: asked.cpus.clone(),
            devices: asked.devices.iter().map(|it| (*it).into()).collect(),
        })
        .collect();
    let placed = guests::place(&wanted, model, crate::model::RESERVED_BYTES)?;
    let mut machine = qemu::machine(model, case.cpus);
    if !placed.is_empty() {
        let tree = image.raw.with_extension("guest-tests.dtb");
        qemu::dump_tree(model, case.cpus, &tree)?;
        guests::describe(&tree, &placed).map_err(Stop::Failed)?;
        machine
            .arg("-dtb")
            .arg(&tree)
            .args(guests::loaders(&placed));
    }
    let arguments = if case.is_sabotaged {
        format!("no-self-check {}", boot::sabotage("guest-isolation"))
    } else {
        "no-self-check".into()
    };
    let qemu = qemu::with_kernel(machine, &image.raw, &arguments);
    guest::run(qemu, Some(LIMIT), Echo::Quiet, || ())
}

fn judge(ran: &Ran, case: &Case) -> Result<(), String> {
    let lines: Vec<&str> = ran.console.lines().map(str::trim_end).collect();
    if let Some(missing) = case.lines.iter().find(|line| !lines.contains(line)) {
        return Err(format!("no line `{missing}`"));
    }
    let refuses = case.end != "ok";
    let is_bad = |line: &&&str| line.starts_with('[') && line.contains("FAILED");
    if let Some(line) = lines.iter().find(is_bad)
        && !case.is_sabotaged
    {
        return Err(format!("`{line}`"));
    }
    // DMA that is stopped makes events, which the SMMU pulls a wire for.
    let pulled = lines.iter().find_map(|line| line.strip_prefix("smmus: "));
    if !refuses && case.guests.is_empty() && pulled.is_none_or(|it| it == "0 interrupts") {
        return Err("no event came by interrupt".into());
    }
    if refuses && !case.is_sabotaged && lines.iter().any(|line| line.starts_with('[')) {
        return Err("a guest ran".into());
    }
    let expected = match refuses {
        true => End::Refused(case.end.into()),
        false => End::Done,
    };
    match ran.end()? == expected {
        true => Ok(()),
        false => Err(format!("it ended with {}", console::end(&ran.console))),
    }
}
