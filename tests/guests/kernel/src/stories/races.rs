//! Of two CPUs.

use core::sync::atomic::{AtomicU64, Ordering};

use portcullis_guest::{By, Code, Device as DeviceNumber, SpaceId};
use spin::Mutex;

use crate::calls::{self, EL2};
use crate::process::Process;
use crate::story::{Stage, Told, Trouble};
use crate::{arch, ensure};

/// Which space the second CPU is to bind, and to which device.
static TARGET: Mutex<Option<(SpaceId, DeviceNumber)>> = Mutex::new(None);
/// The round that the second CPU is to play; all ones: it is to go off.
static ROUND: AtomicU64 = AtomicU64::new(0);
/// The round that it has played.
static PLAYED: AtomicU64 = AtomicU64::new(0);
/// What it got: 0 nothing yet, 1 a handle, 2 a refusal by name, 3 another answer.
static GOT: AtomicU64 = AtomicU64::new(0);
static HANDLE: Mutex<Option<portcullis_guest::Handle>> = Mutex::new(None);

const OVER: u64 = u64::MAX;
const ROUNDS: u64 = 24;

/// Binds, as often as it is told to.
pub(crate) fn second_cpu(_context: u64) -> ! {
    let mut played = 0;
    loop {
        let round = ROUND.load(Ordering::Acquire);
        if round == OVER {
            PLAYED.store(OVER, Ordering::Release);
            calls::cpu_off();
        }
        if round == played {
            core::hint::spin_loop();
            continue;
        }
        played = round;
        let target = *TARGET.lock();
        if let Some((space, device)) = target {
            let got = match EL2.bind(space, device, By::Pasid) {
                Ok(handle) => {
                    *HANDLE.lock() = Some(handle);
                    1
                }
                // Of what is released and nobody holds there is nothing left.
                Err(why) if matches!(why.code(), Some(Code::Released | Code::NoSuchSpace)) => 2,
                Err(_) => 3,
            };
            GOT.store(got, Ordering::Relaxed);
        }
        PLAYED.store(round, Ordering::Release);
    }
}

pub(super) fn release_races_bind(stage: &Stage) -> Told {
    if stage.cpus < 2 {
        return Err(Trouble::Skipped("it needs two CPUs"));
    }
    let device = stage.impatient()?;
    stage.attach(device)?;
    ROUND.store(0, Ordering::Relaxed);
    let started = calls::cpu_on(1, arch::secondary_entry(), 0);
    ensure!(started == 0, "CPU_ON says {started}");
    let told = races(stage, device);
    ROUND.store(OVER, Ordering::Release);
    let is_off = arch::within(1_000_000, || PLAYED.load(Ordering::Acquire) == OVER);
    ensure!(is_off, "the second CPU does not go off");
    told
}

fn races(stage: &Stage, device: &crate::device::Device) -> Told {
    // What is bound without a race lands.
    let mut process = Process::new();
    let (va, _) = process.page();
    process.open(device)?;
    let number = process.number()?;
    stage.lands(device, number, va, 1)?;
    process.exit()?;
    let (mut bound, mut refused) = (0, 0);
    for round in 1..=ROUNDS {
        let mut process = Process::new();
        let (va, _) = process.page();
        let space = process.memory.space()?;
        let number = space.pasid.number;
        *TARGET.lock() = Some((space.id, device.id));
        GOT.store(0, Ordering::Relaxed);
        ROUND.store(round, Ordering::Release);
        // From before the bind to after it.
        let start = arch::now_ns();
        while arch::now_ns() - start < round * 2000 {
            core::hint::spin_loop();
        }
        process.memory.release()?;
        let watch = device.watch(number);
        let is_over = arch::within(2_000_000, || PLAYED.load(Ordering::Acquire) == round);
        ensure!(is_over, "the second CPU's bind does not end");
        stage.is_blocked(device, number, va)?;
        watch.quiet(stage.number, 1);
        match GOT.load(Ordering::Relaxed) {
            1 => bound += 1,
            2 => refused += 1,
            _ => return Err(Trouble::failed(format_args!("an answer that is none"))),
        }
        if let Some(handle) = HANDLE.lock().take() {
            EL2.unbind(handle)?;
        }
        process.exit()?;
    }
    ensure!(bound + refused == ROUNDS, "not all rounds were played");
    Ok(())
}
