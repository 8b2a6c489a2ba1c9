//! What EL2 is asked for (`ABI.md`).

use core::fmt;

use crate::arch;

/// Why a call was refused, or not confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    pub(crate) code: i64,
    pub(crate) more: [u64; 3],
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:x?}", self.code, self.more)
    }
}

/// The codes that stories wait for.
pub(crate) mod code {
    pub(crate) const NO_SUCH_SPACE: i64 = -20;
    pub(crate) const NO_SUCH_HANDLE: i64 = -21;
    pub(crate) const NO_SUCH_FAULT: i64 = -22;
    pub(crate) const NOT_ATTACHED: i64 = -28;
    pub(crate) const FENCED: i64 = -30;
    pub(crate) const SMMU_DOWN: i64 = -31;
    pub(crate) const RELEASED: i64 = -35;
    pub(crate) const ALREADY_RELEASED: i64 = -36;
    pub(crate) const PASID_TOO_WIDE: i64 = -38;
    pub(crate) const MISFIT: i64 = -41;
    pub(crate) const PASID_TAKEN: i64 = -48;
    pub(crate) const PASID_OUT_OF_RANGE: i64 = -49;
    pub(crate) const QUOTA_SPACES: i64 = -53;
    pub(crate) const NOT_CONFIRMED: i64 = -64;
    pub(crate) const CACHES_KEPT: i64 = -66;
    pub(crate) const NOT_RESET: i64 = -67;
}

/// What is counted.
pub(crate) mod counter {
    pub(crate) const SPACES: u64 = 0;
    pub(crate) const PARKED: u64 = 1;
    pub(crate) const DRAINING: u64 = 2;
    pub(crate) const LOST: u64 = 3;
    pub(crate) const BINDINGS: u64 = 4;
    pub(crate) const HANDLES: u64 = 5;
    pub(crate) const STALLS: u64 = 7;
    pub(crate) const FAULTS: u64 = 8;
    pub(crate) const FAULTS_LOST: u64 = 11;
}

fn call(number: u64, arguments: &[u64]) -> Result<[u64; 18], Refused> {
    let mut registers = [0; 18];
    registers[0] = 0xc600_0000 + number;
    for (to, word) in registers[1..].iter_mut().zip(arguments) {
        *to = *word;
    }
    arch::hvc(&mut registers);
    let code = registers[0] as i64;
    if code == 0 {
        return Ok(registers);
    }
    let more = [registers[1], registers[2], registers[3]];
    Err(Refused { code, more })
}

/// A space: its name, its number, and how many had the number before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Space {
    name: [u64; 2],
    pub(crate) pasid: u32,
    pub(crate) generation: u64,
}

/// A handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handle([u64; 2]);

/// Which number a space asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    Any,
    AtMostBits(u64),
    Exactly(u64),
}

/// What a space is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub(crate) root: u64,
    pub(crate) tcr: u64,
    pub(crate) mair: u64,
    pub(crate) promises_no_global: bool,
}

/// What a device did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: u64,
    pub(crate) flags: u64,
    pub(crate) device: u64,
    pub(crate) pasid: u32,
    pub(crate) generation: u64,
    pub(crate) address: u64,
    name: [u64; 2],
}

/// [`Fault::kind`] where an SMMU stopped.
pub(crate) const SMMU_STOPPED: u64 = 10;

impl Fault {
    /// It waits for an answer.
    pub(crate) const fn is_stalled(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// How many devices and CPUs there are.
pub(crate) fn devices_and_cpus() -> Result<(u64, u64), Refused> {
    call(0, &[0]).map(|it| (it[3], it[4]))
}

/// What the guest may have: spaces, bindings, handles, stalls, bits of a PASID.
pub(crate) fn quota() -> Result<[u64; 5], Refused> {
    call(0, &[1]).map(|it| [it[1], it[2], it[3], it[4], it[5]])
}

/// Microseconds: a stall's deadline, a number's quarantine.
pub(crate) fn times() -> Result<(u64, u64), Refused> {
    call(0, &[2]).map(|it| (it[1], it[2]))
}

/// A device: kind, place, bits of PASID, flags.
pub(crate) fn device_info(device: u64) -> Result<[u64; 4], Refused> {
    call(1, &[device]).map(|it| [it[1], it[2], it[3], it[4]])
}

pub(crate) fn attach(device: u64) -> Result<(), Refused> {
    call(2, &[device, 0]).map(drop)
}

pub(crate) fn detach(device: u64) -> Result<(), Refused> {
    call(3, &[device]).map(drop)
}

pub(crate) fn device_reset(device: u64) -> Result<(), Refused> {
    call(4, &[device]).map(drop)
}

pub(crate) fn space_create(walk: &Walk, ask: Ask) -> Result<Space, Refused> {
    let (how, value) = match ask {
        Ask::Any => (0, 0),
        Ask::AtMostBits(bits) => (1, bits),
        Ask::Exactly(number) => (2, number),
    };
    let flags = u64::from(walk.promises_no_global);
    let it = call(5, &[walk.root, 0, walk.tcr, walk.mair, how, value, flags])?;
    Ok(Space {
        name: [it[1], it[2]],
        pasid: it[3] as u32,
        generation: it[4],
    })
}

pub(crate) fn bind(space: Space, device: u64) -> Result<Handle, Refused> {
    let [place, generation] = space.name;
    call(6, &[place, generation, device, 0]).map(|it| Handle([it[1], it[2]]))
}

pub(crate) fn unbind(handle: Handle) -> Result<(), Refused> {
    call(7, &handle.0).map(drop)
}

pub(crate) fn invalidate(space: Space, va: u64, bytes: u64) -> Result<(), Refused> {
    let [place, generation] = space.name;
    call(8, &[place, generation, va, bytes]).map(drop)
}

pub(crate) fn release(space: Space) -> Result<(), Refused> {
    call(9, &space.name).map(drop)
}

/// The next fault, if there is one.
pub(crate) fn fault_next() -> Result<Option<Fault>, Refused> {
    let it = call(10, &[])?;
    Ok((it[1] != 0).then_some(Fault {
        kind: it[1],
        flags: it[2],
        device: it[3],
        pasid: it[4] as u32,
        generation: it[5],
        address: it[6],
        name: [it[8], it[9]],
    }))
}

/// Answers a stalled transaction: it is tried again, or aborted.
pub(crate) fn fault_answer(fault: &Fault, retries: bool) -> Result<(), Refused> {
    let [place, generation] = fault.name;
    call(11, &[place, generation, u64::from(!retries)]).map(drop)
}

pub(crate) fn release_all() -> Result<(), Refused> {
    call(12, &[]).map(drop)
}

pub(crate) fn console_write(bytes: &[u8]) {
    let mut words = [0; 17];
    words[0] = bytes.len() as u64;
    for (to, eight) in words[1..].iter_mut().zip(bytes.chunks(8)) {
        let mut word = [0; 8];
        word[..eight.len()].copy_from_slice(eight);
        *to = u64::from_le_bytes(word);
    }
    // There is nobody to tell of a console that is not there.
    let _ = call(14, &words);
}

pub(crate) fn stat(which: u64) -> Result<u64, Refused> {
    call(15, &[which]).map(|it| it[1])
}

/// PSCI: starts a CPU.
pub(crate) fn cpu_on(target: u64, entry: u64, context: u64) -> i64 {
    let mut registers = [0; 18];
    registers[..4].copy_from_slice(&[0xc400_0003, target, entry, context]);
    arch::hvc(&mut registers);
    // The result is 32 bits or 64, negative either way.
    registers[0] as i32 as i64
}

/// PSCI: the calling CPU goes off.
pub(crate) fn cpu_off() -> ! {
    loop {
        let mut registers = [0; 18];
        registers[0] = 0x8400_0002;
        arch::hvc(&mut registers);
    }
}

/// PSCI: the guest ends.
pub(crate) fn system_off() -> ! {
    loop {
        let mut registers = [0; 18];
        registers[0] = 0x8400_0008;
        arch::hvc(&mut registers);
    }
}
