//! What the two guests of the image show: their devices work, and nothing else is within reach.

use core::arch::asm;

use portcullis_guest::{Ask, By, Device, FaultKind, Globals, Hvc, Portcullis, Untagged};

use crate::console::println;
use crate::device::Driver;
use crate::memory::{Page, within};
use crate::space::{self, Tables};
use crate::tree::Tree;

/// What EL2 reads in the report, when all was done.
const DONE: u64 = u64::from_be_bytes(*b"portcull");
/// Secrets of others begin so: EL2 wrote them.
const SECRET: u64 = 0x5ec2_e700;
const PATTERN: u64 = 0x0123_4567_89ab_cdef;
/// Words of the report.
const DONE_AT: usize = 256;
const FAILED_AT: usize = 257;
const TRIED_AT: usize = 258;

/// The page that EL2 shares with us: it says what to try, we say what came of it.
///
/// Words from 0: how many addresses for CPUs, how many of these are for devices too, the addresses.
struct Report(Page);

impl Report {
    fn targets(&self) -> impl Iterator<Item = u64> {
        let page = self.0;
        (0..page.word(0).min(64) as usize).map(move |number| page.word(2 + number))
    }

    fn memory_targets(&self) -> impl Iterator<Item = u64> {
        self.targets().take(self.0.word(1) as usize)
    }
}

type Outcome = Result<(), &'static str>;

/// All of it; what failed is told, and counted in the report.
pub(crate) fn run(tree: Tree) {
    let report = tree.number("portcullis,report", 0).map(Page).map(Report);
    let mut failed = 0;
    let mut tell = |name: &str, outcome: Outcome| match outcome {
        Ok(()) => println!("{name}: ok"),
        Err(why) => {
            failed += 1;
            println!("{name}: FAILED {why}");
        }
    };
    if let Some(report) = &report {
        tell("cpu reaches nothing else", cpu(report));
    }
    match Driver::find(tree) {
        Ok((device, driver)) => {
            tell("device through stage 2", stage2(device, &driver));
            if let Some(report) = &report {
                tell("device reaches nothing else", dma(report, device, &driver));
            }
            let detached = Portcullis::new(Hvc).detach(device);
            tell("detach", detached.map_err(|_| "it is refused"));
            tell("device through a space", whole_stream(device, &driver));
        }
        Err(why) => tell("a device", Err(why)),
    }
    if let Some(report) = report {
        report.0.put(FAILED_AT, failed);
        report.0.put(DONE_AT, DONE);
    }
}

/// What a load (or a store of `PATTERN`) at `at` ends with: `None` if it is done.
fn access(at: u64, is_store: bool) -> Option<u64> {
    let syndrome: u64;
    // SAFETY: an access that is done is one to what EL2 said is not ours; the vectors go on at the
    // label with the syndrome in x10.
    unsafe {
        asm!(
            "mov x10, #0",
            "adr x9, 2f",
            "cbnz {is_store}, 1f",
            "ldr x11, [{at}]",
            "b 2f",
            "1: str {value}, [{at}]",
            "2: mov x9, xzr",
            is_store = in(reg) u64::from(is_store),
            at = in(reg) at,
            value = in(reg) PATTERN,
            out("x9") _,
            out("x10") syndrome,
            out("x11") _,
            options(nostack),
        );
    }
    (syndrome != 0).then_some(syndrome)
}

/// Every access that is not ours is a synchronous external abort.
fn cpu(report: &Report) -> Outcome {
    let mut tried = 0;
    for at in report.targets() {
        for is_store in [false, true] {
            tried += 1;
            match access(at, is_store) {
                // The class is of this exception level, the status an external abort.
                Some(syndrome) if syndrome >> 26 == 0x25 && syndrome & 0x3f == 0x10 => {}
                Some(_) => return Err("another exception"),
                None => return Err("it was done"),
            }
        }
    }
    report.0.put(TRIED_AT, tried);
    if tried == 0 {
        Err("nothing to try")
    } else {
        Ok(())
    }
}

/// Has the device write `to`, as the device calls it, and looks whether `page` shows it.
fn lands(driver: &Driver, from: (Page, u64), to: (Page, u64), word: u64) -> bool {
    from.0.put(0, word);
    to.0.put(0, 0);
    driver.write(from.1, to.1);
    let (expected, mask) = driver.written(word);
    to.0.word(0) & mask == expected
}

fn stage2(device: Device, driver: &Driver) -> Outcome {
    let portcullis = Portcullis::new(Hvc);
    portcullis
        .attach(device, Untagged::Stage2)
        .map_err(|_| "attach is refused")?;
    let (from, to) = (Page::new()?, Page::new()?);
    match lands(driver, (from, from.0), (to, to.0), PATTERN) {
        true => Ok(()),
        false => Err("what it wrote is not there"),
    }
}

/// By its device's hand, nothing but our own memory is within reach, and we are told.
fn dma(report: &Report, device: Device, driver: &Driver) -> Outcome {
    let portcullis = Portcullis::new(Hvc);
    let (from, to) = (Page::new()?, Page::new()?);
    for at in report.memory_targets() {
        from.put(0, PATTERN);
        driver.write(from.0, at);
        let mut is_told = false;
        within(1_000_000, || {
            while let Ok(Some(fault)) = portcullis.fault_next() {
                let is_here = fault
                    .address
                    .is_some_and(|address| address & !0xfff == at & !0xfff);
                is_told |=
                    fault.kind == FaultKind::Translation && fault.device == Some(device) && is_here;
            }
            is_told
        });
        if !is_told {
            return Err("no fault is told");
        }
        to.put(0, 0);
        if driver.steal(at, to.0).is_some() && to.word(0) >> 8 == SECRET >> 8 {
            return Err("it read a secret");
        }
    }
    Ok(())
}

/// A space by the whole stream: the device goes where our own tables say, until it is released.
fn whole_stream(device: Device, driver: &Driver) -> Outcome {
    let portcullis = Portcullis::new(Hvc);
    let (from, to) = (Page::new()?, Page::new()?);
    let mut tables = Tables::new()?;
    for page in [Some(from), Some(to)]
        .into_iter()
        .chain(driver.own())
        .flatten()
    {
        tables.map(page)?;
    }
    portcullis
        .attach(device, Untagged::Abort)
        .map_err(|_| "attach is refused")?;
    let registers = tables.registers();
    let space = portcullis
        .space_create(&registers, Ask::Any, Globals::MayBe)
        .map_err(|_| "space_create is refused")?;
    let handle = portcullis
        .bind(space.id, device, By::WholeStream)
        .map_err(|_| "bind is refused")?;
    let (far_from, far_to) = (space::address(from), space::address(to));
    driver.move_by(far_to.wrapping_sub(to.0));
    if !lands(driver, (from, far_from), (to, far_to), PATTERN) {
        while let Ok(Some(fault)) = portcullis.fault_next() {
            println!("{fault:x?}");
        }
        return Err("what it wrote is not there");
    }
    portcullis
        .release(space.id)
        .map_err(|_| "release is refused")?;
    if lands(driver, (from, far_from), (to, far_to), !PATTERN) {
        return Err("it still writes after the release");
    }
    portcullis.unbind(handle).map_err(|_| "unbind is refused")
}
