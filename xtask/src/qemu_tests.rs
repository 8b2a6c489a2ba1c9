//! The step `test-qemu`: what the image must do in QEMU, case by case.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::board::{self, Board, Qemu};
use crate::boot;
use crate::console::{End, SelfCheck};
use crate::guest::{self, Echo, Ran};
use crate::image::{self, Image, Kind};
use crate::qemu;
use crate::steps::Outcome;
use crate::stop::Stop;
use crate::tool;

const BOARD: &str = "qemu-virt";
/// A boot takes a second; the rest is for a machine under load.
const LIMIT: Duration = Duration::from_secs(120);
/// Of a failed case, so many of the console's last lines are shown.
const TAIL_LINES: usize = 40;

/// What the self-check must contain at least.
const CHECKS: [&str; 10] = [
    "unbound-stream-aborts",
    "stage2-dma",
    "stage2-fault-decoded",
    "stage2-unmap-blocks",
    "stage2-protect-read-only",
    "nvme-identify-stage2",
    "two-level-stream-table",
    "event-overflow-survived",
    "illegal-command-recovered",
    "shutdown-leaves-abort",
];

/// One boot, and what must come of it.
struct Case {
    name: &'static str,
    kind: Kind,
    /// Values other than the board's.
    machine: Option<&'static str>,
    cpu: Option<&'static str>,
    memory: Option<&'static str>,
    cpus: u32,
    boot_arguments: &'static str,
    start: Start,
    expected: Expected,
}

/// Who starts the image.
enum Start {
    /// QEMU's `-kernel`, as firmware would.
    Kernel,
    /// Three instructions of our own, from the machine's first exception level, at another
    /// address than `-kernel` takes.
    Jump(Tree),
}

/// The device tree that x0 holds at a [`Start::Jump`].
enum Tree {
    /// x0 is 0.
    None,
    /// The machine's own.
    Own,
    /// The machine's own, damaged.
    Damaged(fn(&mut [u8])),
}

/// What must come of a boot.
enum Expected {
    /// The self-check passes.
    Passes,
    /// No check is run, and the reason contains this.
    Refuses(&'static str),
}

const CASE: Case = Case {
    name: "",
    kind: Kind::Plain,
    machine: None,
    cpu: None,
    memory: None,
    cpus: 4,
    boot_arguments: "",
    start: Start::Kernel,
    expected: Expected::Passes,
};

const CASES: &[Case] = &[
    Case {
        name: "one-cpu",
        cpus: 1,
        ..CASE
    },
    Case {
        name: "neoverse-n1",
        cpu: Some("neoverse-n1"),
        ..CASE
    },
    Case {
        name: "runs-where-it-is-loaded",
        start: Start::Jump(Tree::Own),
        ..CASE
    },
    Case {
        name: "entered-at-el1",
        machine: Some("virt,gic-version=3,iommu=smmuv3"),
        expected: Expected::Refuses("entered at EL1"),
        ..CASE
    },
    Case {
        name: "entered-at-el3",
        machine: Some("virt,secure=on,virtualization=on,gic-version=3,iommu=smmuv3"),
        start: Start::Jump(Tree::Own),
        expected: Expected::Refuses("entered at EL3"),
        ..CASE
    },
    Case {
        name: "no-smmu",
        machine: Some("virt,virtualization=on,gic-version=3"),
        expected: Expected::Refuses("no SMMUv3"),
        ..CASE
    },
    Case {
        name: "smmu-without-stage-2",
        machine: Some("virt-9.1,virtualization=on,gic-version=3,iommu=smmuv3"),
        expected: Expected::Refuses("no stage 2"),
        ..CASE
    },
    Case {
        name: "too-little-memory",
        memory: Some("8M"),
        expected: Expected::Refuses("too little memory"),
        ..CASE
    },
    Case {
        name: "no-device-tree",
        start: Start::Jump(Tree::None),
        expected: Expected::Refuses("no device tree"),
        ..CASE
    },
    Case {
        name: "tree-without-magic",
        start: Start::Jump(Tree::Damaged(|tree| set_word(tree, 0, 0xd00d_fee0))),
        expected: Expected::Refuses("device tree"),
        ..CASE
    },
    Case {
        name: "tree-longer-than-memory",
        start: Start::Jump(Tree::Damaged(|tree| set_word(tree, 4, 0xffff_fff0))),
        expected: Expected::Refuses("device tree"),
        ..CASE
    },
    Case {
        name: "tree-with-a-structure-outside",
        start: Start::Jump(Tree::Damaged(|tree| set_word(tree, 8, 0x7fff_fff8))),
        expected: Expected::Refuses("device tree"),
        ..CASE
    },
    Case {
        name: "tree-with-a-broken-token",
        start: Start::Jump(Tree::Damaged(break_a_token)),
        expected: Expected::Refuses("device tree"),
        ..CASE
    },
    Case {
        name: "sabotage-of-no-check",
        kind: Kind::Sabotage,
        boot_arguments: "sabotage=no-such-check",
        expected: Expected::Refuses("no-such-check"),
        ..CASE
    },
];

/// Sets the big-endian word at `at`.
fn set_word(tree: &mut [u8], at: usize, value: u32) {
    if let Some(word) = tree.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *word = value.to_be_bytes();
    }
}

fn word(tree: &[u8], at: usize) -> Option<u32> {
    tree.get(at..)?
        .first_chunk()
        .map(|word| u32::from_be_bytes(*word))
}

/// Turns the structure block's second token, behind the root's empty name, into none.
fn break_a_token(tree: &mut [u8]) {
    if let Some(structure) = word(tree, 8).and_then(|at| usize::try_from(at).ok()) {
        set_word(tree, structure + 8, 0x55);
    }
}

/// Where a jump's parts lie: QEMU's own tree fills the first MiB of RAM.
const JUMP_AT: u64 = 0x4010_0000;
const IMAGE_AT: u64 = 0x4140_0000;
const TREE_AT: u64 = 0x4800_0000;

/// Puts `x0` into x0 and jumps to `to`.
fn jump(x0: u64, to: u64) -> Vec<u8> {
    let instructions: [u32; 4] = [
        0x5800_0080, // ldr x0, .+16
        0x5800_00b0, // ldr x16, .+20
        0xd61f_0200, // br x16
        0xd503_201f, // nop
    ];
    let mut bytes: Vec<u8> = instructions.map(u32::to_le_bytes).concat();
    bytes.extend(x0.to_le_bytes());
    bytes.extend(to.to_le_bytes());
    bytes
}

/// The board, its two images, and what has become of the cases so far.
struct Bench {
    board: Board,
    plain: Image,
    sabotage: Image,
    passed: usize,
    failed: Vec<String>,
}

/// Runs all cases.
///
/// # Errors
///
/// `Failed` with the names of the cases that failed; `CouldNotRun` without a QEMU that does.
pub(crate) fn step() -> Result<Outcome, Stop> {
    qemu::ensure()?;
    let board = board::load(BOARD)?;
    let plain = image::build(&board, Kind::Plain)?;
    let sabotage = image::build(&board, Kind::Sabotage)?;
    let mut bench = Bench {
        board,
        plain,
        sabotage,
        passed: 0,
        failed: Vec::new(),
    };
    for name in bench.self_check()? {
        bench.sabotaged(&name)?;
    }
    for case in CASES {
        let qemu = bench.command(case)?;
        bench.judge(case.name, qemu, |ran| as_expected(ran, &case.expected))?;
    }
    println!(
        "{} boots passed, {} failed",
        bench.passed,
        bench.failed.len()
    );
    if bench.failed.is_empty() {
        return Ok(Outcome::Passed);
    }
    Err(Stop::Failed(bench.failed.join(", ")))
}

impl Bench {
    /// Boots as `cargo xtask boot` does; returns the names of the checks.
    fn self_check(&mut self) -> Result<Vec<String>, Stop> {
        let mut names = Vec::new();
        let qemu = self.command(&CASE)?;
        self.judge("self-check", qemu, |ran| {
            names = passing(ran)?.announced;
            let missing = |check: &&&str| !names.iter().any(|name| name == **check);
            match CHECKS.iter().find(missing) {
                Some(check) => Err(format!("the self-check has no check {check}")),
                None => Ok(()),
            }
        })?;
        Ok(names)
    }

    /// Boots with the fault that `check` must find, and no other.
    fn sabotaged(&mut self, check: &str) -> Result<(), Stop> {
        let machine = qemu::machine(self.board.qemu()?, CASE.cpus);
        let boot_arguments = boot::sabotage(check);
        let qemu = qemu::with_kernel(machine, &self.sabotage.raw, &boot_arguments);
        self.judge(&boot_arguments, qemu, |ran| {
            if ran.end()? == End::Done {
                return Err("`end: ok` although a check was sabotaged".into());
            }
            let report = SelfCheck::read(&ran.console)?;
            if report.failed == [check] {
                return Ok(());
            }
            Err(format!("failed checks: [{}]", report.failed.join(", ")))
        })
    }

    fn command(&self, case: &Case) -> Result<Command, Stop> {
        let board = self.board.qemu()?;
        let or_else = |own: Option<&str>, board: &String| own.map_or(board.clone(), str::to_owned);
        let model = Qemu {
            machine: or_else(case.machine, &board.machine),
            cpu: or_else(case.cpu, &board.cpu),
            memory: or_else(case.memory, &board.memory),
            ..board.clone()
        };
        let image = match case.kind {
            Kind::Plain => &self.plain,
            Kind::Sabotage => &self.sabotage,
        };
        let machine = qemu::machine(&model, case.cpus);
        match &case.start {
            Start::Kernel => Ok(qemu::with_kernel(machine, &image.raw, case.boot_arguments)),
            Start::Jump(tree) => with_jump(machine, case, &model, image, tree),
        }
    }

    /// Runs `qemu`, and books what `verdict` says of it under `name`.
    fn judge(
        &mut self,
        name: &str,
        qemu: Command,
        verdict: impl FnOnce(&Ran) -> Result<(), String>,
    ) -> Result<(), Stop> {
        let typed = tool::as_typed(&qemu);
        let start = Instant::now();
        let ran = guest::run(qemu, Some(LIMIT), Echo::Quiet)?;
        let took = start.elapsed().as_secs_f32();
        match verdict(&ran) {
            Ok(()) => {
                self.passed += 1;
                println!("boot {name}: ok ({took:.1} s)");
            }
            Err(why) => {
                self.failed.push(name.to_owned());
                println!("boot {name}: FAILED {why} ({took:.1} s)\n  {typed}");
                show_tail(&ran.console);
            }
        }
        Ok(())
    }
}

fn show_tail(console: &str) {
    let lines: Vec<&str> = console.lines().collect();
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    for line in lines.iter().skip(skipped) {
        println!("  | {line}");
    }
}

/// The self-check of a run that must have passed.
fn passing(ran: &Ran) -> Result<SelfCheck, String> {
    let end = ran.end()?;
    if end != End::Done {
        return Err(format!("it ended with {end:?}"));
    }
    let report = SelfCheck::read(&ran.console)?;
    if report.failed.is_empty() && !report.passed.is_empty() {
        return Ok(report);
    }
    Err(format!(
        "`end: ok` with {} failed checks",
        report.failed.len()
    ))
}

fn as_expected(ran: &Ran, expected: &Expected) -> Result<(), String> {
    let reason = match expected {
        Expected::Passes => return passing(ran).map(drop),
        Expected::Refuses(reason) => reason,
    };
    match ran.end()? {
        End::Refused(found) if found.contains(reason) => Ok(()),
        other => Err(format!("{other:?} instead of a reason with `{reason}`")),
    }
}

/// Lets QEMU's generic loader put jump, image and tree into memory and the first CPU at the jump.
fn with_jump(
    mut machine: Command,
    case: &Case,
    model: &Qemu,
    image: &Image,
    tree: &Tree,
) -> Result<Command, Stop> {
    let folder = image.raw.with_extension("tests");
    let broken = |error| Stop::CouldNotRun(format!("{}: {error}", folder.display()));
    fs::create_dir_all(&folder).map_err(broken)?;
    let tree_file = folder.join(format!("{}.dtb", case.name));
    let x0 = match tree {
        Tree::None => 0,
        Tree::Own | Tree::Damaged(_) => TREE_AT,
    };
    let jump_file = folder.join(format!("{}.jump", case.name));
    fs::write(&jump_file, jump(x0, IMAGE_AT)).map_err(broken)?;
    load(&mut machine, &jump_file, JUMP_AT, ",cpu-num=0");
    load(&mut machine, &image.raw, IMAGE_AT, "");
    if x0 != 0 {
        dump_tree(model, case.cpus, &tree_file)?;
        if let Tree::Damaged(damage) = tree {
            let mut bytes = fs::read(&tree_file).map_err(broken)?;
            damage(&mut bytes);
            fs::write(&tree_file, bytes).map_err(broken)?;
        }
        load(&mut machine, &tree_file, TREE_AT, "");
    }
    Ok(machine)
}

fn load(machine: &mut Command, file: &Path, at: u64, more: &str) {
    let file = option_value(file);
    let value = format!("loader,file={file},addr={at:#x},force-raw=on{more}");
    machine.args(["-device", &value]);
}

/// A comma in a value is written twice.
fn option_value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// Writes the tree that QEMU makes for `model` to `file`.
fn dump_tree(model: &Qemu, cpus: u32, file: &Path) -> Result<(), Stop> {
    let machine = format!("{},dumpdtb={}", model.machine, option_value(file));
    let dumping = Qemu {
        machine,
        ..model.clone()
    };
    tool::read(&mut qemu::machine(&dumping, cpus)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(!case.name.is_empty());
            let same = CASES.iter().filter(|other| other.name == case.name);
            assert_eq!(same.count(), 1, "case {index}");
        }
    }

    #[test]
    fn the_jump_loads_from_behind_its_instructions() {
        let bytes = jump(0x1111, 0x2222);
        assert_eq!(bytes.len(), 32);
        // LDR (literal) is 0x58000000 | imm19 << 5 | Rt, in words from itself.
        let first = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        assert_eq!(first, 0x5800_0000 | (16 / 4) << 5);
        let second = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        assert_eq!(second, 0x5800_0000 | ((24 - 4) / 4) << 5 | 16);
        assert_eq!(bytes[16..18], [0x11, 0x11]);
        assert_eq!(bytes[24..26], [0x22, 0x22]);
    }

    #[test]
    fn damage_changes_the_word_that_it_names() {
        let mut tree = vec![0; 64];
        set_word(&mut tree, 8, 40);
        assert_eq!(tree[8..12], [0, 0, 0, 40]);
        break_a_token(&mut tree);
        assert_eq!(tree[48..52], [0, 0, 0, 0x55]);
        set_word(&mut tree, 62, 1);
        assert_eq!(tree.len(), 64);
    }

    #[test]
    fn a_comma_in_a_path_is_no_new_option() {
        assert_eq!(option_value(Path::new("/a,b")), "/a,,b");
    }
}
