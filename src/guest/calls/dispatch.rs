//! One call.

use super::arguments::{Arguments, RANGE_BYTES, range, range_of};
use super::number::{self, Call};
use super::results::Results;
use super::world::{GuestDevice, Place};
use super::{Code, GuestWorld, Refused, tcr};
use crate::addr::Iova;
use crate::hw::Platform;
use crate::space::{
    Counts, DeviceId, DeviceState, Fault, FaultKind, GuestId, Iommu, MAX_RANGES, Quantity,
    SpaceConfig, SpaceError,
};

/// `x0` to `x17` of a vCPU.
pub type Registers = [u64; 18];

/// Of this interface: the major part in bits 31 to 16, the minor below.
pub const ABI_VERSION: u32 = 1 << 16;

/// The service's UID, d3f7a1c4-5b0e-4e63-9a2d-706f7274636c, as SMCCC puts it into `w0` to `w3`.
pub const UID: [u32; 4] = [0xd3f7_a1c4, 0x5b0e_4e63, 0x9a2d_706f, 0x7274_636c];

/// SMCCC 1.2: arguments and results in `x0` to `x17`.
const SMCCC: u64 = 0x1_0002;
/// What SMCCC itself says of a function that there is not.
const NOT_SUPPORTED: u64 = Code::NotSupported as i64 as u64;

/// How many bytes of text one call carries: `x2` to `x17`.
pub(super) const TEXT_BYTES: usize = 128;

/// Promises that no entry of the space is global.
const NO_GLOBAL: u64 = 1;

/// Does what a guest's `HVC #0` asks for, and answers in its registers; as `ABI.md` has it.
///
/// `registers` are `x0` to `x17` of the vCPU. Of these a call changes `x0`, `x1` to `x3`, and behind
/// them what it answers there. PSCI is not answered here: to this it is a function that there is not.
///
/// Takes at most what the library's verb takes, and once more what [`tidy`](crate::space::Iommu::tidy)
/// takes.
pub fn dispatch<'p, P: Platform + 'p>(
    world: &impl GuestWorld<'p, P>,
    guest: GuestId,
    vcpu: u32,
    registers: &mut Registers,
) {
    // SMCCC: the number is in `w0`.
    let function = registers[0] as u32;
    let Some(call) = Call::of(function) else {
        discover(function, registers);
        return;
    };
    let visitor = Visitor {
        world,
        iommu: world.iommu(),
        guest,
        vcpu,
        arguments: Arguments(registers),
    };
    match visitor.call(call) {
        Ok(results) => {
            registers[0] = 0;
            results.store(registers);
        }
        Err(Refused { code, details }) => {
            registers[0] = code as i64 as u64;
            Results::of(&details).store(registers);
        }
    }
}

/// What SMCCC asks of every service.
fn discover(function: u32, registers: &mut Registers) {
    match function {
        number::SMCCC_VERSION => registers[0] = SMCCC,
        number::SMCCC_ARCH_FEATURES => {
            let is_here = matches!(
                registers[1] as u32,
                number::SMCCC_VERSION | number::SMCCC_ARCH_FEATURES
            );
            registers[0] = if is_here { 0 } else { NOT_SUPPORTED };
        }
        number::UID => {
            for (to, word) in registers.iter_mut().zip(UID) {
                *to = word.into();
            }
        }
        number::REVISION => {
            registers[0] = (ABI_VERSION >> 16).into();
            registers[1] = (ABI_VERSION & 0xffff).into();
        }
        _ => registers[0] = NOT_SUPPORTED,
    }
}

/// A guest with a call.
struct Visitor<'a, 'p, P: Platform, W> {
    world: &'a W,
    iommu: &'a Iommu<'p, P>,
    guest: GuestId,
    vcpu: u32,
    arguments: Arguments<'a>,
}

impl<'p, P: Platform, W: GuestWorld<'p, P>> Visitor<'_, 'p, P, W> {
    fn call(&self, call: Call) -> Result<Results, Refused> {
        match call {
            Call::Features => self.features(),
            Call::DeviceInfo => self.device_info(),
            Call::Attach => self.attach(),
            Call::Detach => self.detach(),
            Call::DeviceReset => self.device_reset(),
            Call::SpaceCreate => self.space_create(),
            Call::Bind => self.bind(),
            Call::Unbind => self.unbind(),
            Call::Invalidate => self.invalidate(),
            Call::InvalidateList => self.invalidate_list(),
            Call::Release => self.release(),
            Call::FaultNext => self.fault_next(),
            Call::FaultAnswer => self.fault_answer(),
            Call::ReleaseAll => self.release_all(),
            Call::LogRead => Ok(self.log_read()),
            Call::ConsoleWrite => self.console_write(),
            Call::Stats => self.stats(),
        }
    }

    fn features(&self) -> Result<Results, Refused> {
        let limits = self.world.limits(self.guest);
        let quota = limits.quota;
        match self.arguments.word(1) {
            0 => {
                let calls = Call::ALL
                    .iter()
                    .fold(0, |calls, call| calls | 1 << *call as u32);
                let devices = self.devices().count() as u64;
                let vcpus = limits.vcpus.into();
                Ok(Results::of(&[ABI_VERSION.into(), calls, devices, vcpus]))
            }
            1 => Ok(Results::of(&[
                quota.spaces.into(),
                quota.bindings.into(),
                quota.handles.into(),
                quota.stalls.into(),
                limits.pasid_bits.into(),
            ])),
            2 => Ok(Results::of(&[
                limits.stall_deadline_us,
                limits.quarantine_us,
                limits.wait_us,
            ])),
            _ => Err(Refused::argument(1)),
        }
    }

    /// The guest's devices, by number.
    fn devices(&self) -> impl Iterator<Item = GuestDevice> + '_ {
        (0..u32::MAX).map_while(|number| self.world.device(self.guest, number))
    }

    /// The guest's own number for a device; all ones if it has none.
    fn number_of(&self, device: DeviceId) -> u64 {
        let mut devices = self.devices();
        let found = devices.position(|it| it.id == device);
        found.map_or(u64::MAX, |number| number as u64)
    }

    /// The device whose number is in a register.
    fn device(&self, register: usize) -> Result<GuestDevice, Refused> {
        let number = u32::try_from(self.arguments.word(register));
        let found = number
            .ok()
            .and_then(|number| self.world.device(self.guest, number));
        found.ok_or(Code::NoSuchDevice.into())
    }

    fn refused(&self, error: SpaceError) -> Refused {
        Refused::of(error, |device| self.number_of(device))
    }

    /// Does something that takes memory; where there is none, makes room of what the guest's devices
    /// need no more, and tries again.
    fn with_room<T>(&self, act: impl Fn() -> Result<T, SpaceError>) -> Result<T, Refused> {
        let outcome = match act() {
            Err(
                SpaceError::NoFrames { .. }
                | SpaceError::Full
                | SpaceError::Window(_)
                | SpaceError::Quota(Quantity::Tables),
            ) => {
                self.tidy();
                act()
            }
            outcome => outcome,
        };
        outcome.map_err(|error| self.refused(error))
    }

    /// Gives back what the guest's devices need no more. Where that is refused, it stays for later.
    fn tidy(&self) {
        let _ = self.iommu.tidy(self.guest);
    }

    fn device_info(&self) -> Result<Results, Refused> {
        let device = self.device(1)?;
        let (kind, place) = match device.place {
            Place::Mmio(ipa) => (1, ipa.as_u64()),
            Place::Pci {
                segment,
                bus,
                device,
                function,
            } => {
                let routing = u64::from(device) << 3 | u64::from(function);
                let place = u64::from(segment) << 16 | u64::from(bus) << 8 | routing;
                (2, place)
            }
        };
        let state = self
            .iommu
            .device_state(device.id)
            .map_err(|error| self.refused(error))?;
        let has_pasids = self.iommu.has_pasids(device.id).unwrap_or(false);
        let is_attached = state == DeviceState::Attached(self.guest);
        let flags = [
            device.can_stall,
            device.has_ats,
            is_attached,
            state == DeviceState::Fenced,
            is_attached && has_pasids,
        ];
        let bits = flags.iter().enumerate();
        let flags = bits.fold(0, |word, (bit, flag)| word | u64::from(*flag) << bit);
        let pasid_bits = device.pasid_bits.into();
        Ok(Results::of(&[kind, place, pasid_bits, flags]))
    }

    fn attach(&self) -> Result<Results, Refused> {
        let device = self.device(1)?.id;
        let untagged = self.arguments.untagged(2)?;
        self.with_room(|| self.iommu.attach(self.guest, device, untagged))?;
        Ok(Results::NONE)
    }

    fn detach(&self) -> Result<Results, Refused> {
        let device = self.device(1)?.id;
        self.with_room(|| self.iommu.detach(self.guest, device))?;
        self.tidy();
        Ok(Results::NONE)
    }

    fn device_reset(&self) -> Result<Results, Refused> {
        let device = self.device(1)?.id;
        self.with_room(|| self.iommu.reset_device(self.guest, device))?;
        self.tidy();
        Ok(Results::NONE)
    }

    fn space_create(&self) -> Result<Results, Refused> {
        let it = &self.arguments;
        let pasid = it.ask(5)?;
        let promises_no_global = it.flags(7, NO_GLOBAL)? != 0;
        let walk = tcr::walk([it.word(1), it.word(2)], it.word(3), it.word(4))?;
        let config = SpaceConfig {
            walk,
            pasid,
            promises_no_global,
        };
        let space = self.with_room(|| self.iommu.create_space(self.guest, &config))?;
        let number = self.iommu.pasid_of(self.guest, space);
        let number = number.map_err(|error| self.refused(error))?;
        let (place, generation) = space.parts();
        Ok(Results::of(&[
            place.into(),
            generation,
            number.pasid.as_u32().into(),
            number.generation,
        ]))
    }

    fn bind(&self) -> Result<Results, Refused> {
        let space = self.arguments.space(1)?;
        let device = self.device(3)?.id;
        let by = self.arguments.by(4)?;
        let handle = self.with_room(|| self.iommu.bind(self.guest, space, device, by))?;
        let (place, generation) = handle.parts();
        Ok(Results::of(&[place.into(), generation]))
    }

    fn unbind(&self) -> Result<Results, Refused> {
        let handle = self.arguments.handle(1)?;
        self.with_room(|| self.iommu.unbind(self.guest, handle))?;
        Ok(Results::NONE)
    }

    fn invalidate(&self) -> Result<Results, Refused> {
        let it = &self.arguments;
        let space = it.space(1)?;
        let (va, bytes) = range_of(it.word(3), it.word(4)).ok_or(Refused::argument(4))?;
        self.iommu
            .invalidate(self.guest, space, va, bytes)
            .map_err(|error| self.refused(error))?;
        Ok(Results::NONE)
    }

    fn invalidate_list(&self) -> Result<Results, Refused> {
        let space = self.arguments.space(1)?;
        let (at, count) = self.arguments.list(3)?;
        // One copy, and only that is looked at: the guest may change the list meanwhile.
        let mut bytes = [[0; RANGE_BYTES]; MAX_RANGES];
        let bytes = &mut bytes[..count];
        self.world.read(self.guest, at, bytes.as_flattened_mut())?;
        let mut ranges = [(Iova::new(0), 0); MAX_RANGES];
        for (to, bytes) in ranges.iter_mut().zip(&*bytes) {
            *to = range(bytes).ok_or(Refused::argument(3))?;
        }
        self.iommu
            .invalidate_list(self.guest, space, &ranges[..count])
            .map_err(|error| self.refused(error))?;
        Ok(Results::NONE)
    }

    fn release(&self) -> Result<Results, Refused> {
        let space = self.arguments.space(1)?;
        let outcome = self.iommu.release(self.guest, space);
        outcome.map_err(|error| self.refused(error))?;
        Ok(Results::NONE)
    }

    fn release_all(&self) -> Result<Results, Refused> {
        let outcome = self.iommu.release_all(self.guest);
        outcome.map_err(|error| self.refused(error))?;
        self.tidy();
        Ok(Results::NONE)
    }

    fn fault_next(&self) -> Result<Results, Refused> {
        let found = self.iommu.next_fault(self.guest);
        let found = found.map_err(|error| self.refused(error))?;
        let Some(fault) = found else {
            return Ok(Results::of(&[0; 9]));
        };
        let device = fault.device.map(|device| self.number_of(device));
        Ok(Results::of(&fault_words(&fault, device)))
    }

    fn fault_answer(&self) -> Result<Results, Refused> {
        let fault = self.arguments.fault(1)?;
        let answer = self.arguments.answer(3)?;
        let outcome = self.iommu.answer(self.guest, fault, answer);
        outcome.map_err(|error| self.refused(error))?;
        Ok(Results::NONE)
    }

    fn log_read(&self) -> Results {
        let mut bytes = [0; TEXT_BYTES];
        let count = self.world.log(self.guest, &mut bytes).min(TEXT_BYTES);
        Results::of_bytes(count as u64, &bytes[..count])
    }

    fn console_write(&self) -> Result<Results, Refused> {
        let count = self.arguments.count(1, TEXT_BYTES)?;
        let mut bytes = [[0; 8]; TEXT_BYTES / 8];
        for (n, to) in bytes.iter_mut().enumerate() {
            *to = self.arguments.word(2 + n).to_le_bytes();
        }
        let text = &bytes.as_flattened()[..count];
        self.world.console(self.guest, self.vcpu, text);
        Ok(Results::NONE)
    }

    fn stats(&self) -> Result<Results, Refused> {
        let n = self.arguments.number(1)?;
        let counts = self.iommu.counts(self.guest);
        let counts = counts.map_err(|error| self.refused(error))?;
        let lost = self.iommu.lost_faults(self.guest);
        let lost = lost.map_err(|error| self.refused(error))?;
        let value = match n {
            11 => lost,
            n => counter(&counts, n).ok_or(Refused::argument(1))?.into(),
        };
        Ok(Results::of(&[value]))
    }
}

const fn counter(counts: &Counts, n: u32) -> Option<u32> {
    Some(match n {
        0 => counts.spaces,
        1 => counts.parked,
        2 => counts.draining,
        3 => counts.lost,
        4 => counts.bindings,
        5 => counts.handles,
        6 => counts.devices,
        7 => counts.stalls,
        8 => counts.faults,
        9 => counts.pasids,
        10 => counts.asids,
        _ => return None,
    })
}

/// What a fault is to a guest: `x1` to `x9`.
fn fault_words(fault: &Fault, device: Option<u64>) -> [u64; 9] {
    let (kind, number) = match fault.kind {
        FaultKind::Translation => (1, 0),
        FaultKind::AddressSize => (2, 0),
        FaultKind::AccessFlag => (3, 0),
        FaultKind::Permission => (4, 0),
        FaultKind::TableUnreadable => (5, 0),
        FaultKind::BadPasid => (6, 0),
        FaultKind::Untagged => (7, 0),
        FaultKind::AtsRefused => (8, 0),
        FaultKind::Unsupported => (9, 0),
        FaultKind::SmmuStopped(smmu) => (10, smmu.as_u8()),
        FaultKind::Other(number) => (11, number),
    };
    let access = fault.access;
    let flags = [
        fault.id.is_some(),
        device.is_some(),
        fault.pasid.is_some(),
        fault.address.is_some(),
        fault.ipa.is_some(),
        access.is_some(),
        access.is_some_and(|it| !it.is_read),
        access.is_some_and(|it| it.is_instruction),
        access.is_some_and(|it| it.is_privileged),
    ];
    let bits = flags.iter().enumerate();
    let flags = bits.fold(0, |word, (bit, flag)| word | u64::from(*flag) << bit);
    let (place, generation) = fault.id.map_or((0, 0), |id| id.parts());
    [
        kind,
        flags | u64::from(number) << 16,
        device.unwrap_or(0),
        fault.pasid.map_or(0, |of| of.pasid.as_u32().into()),
        fault.pasid.map_or(0, |of| of.generation),
        fault.address.map_or(0, |address| address.as_u64()),
        fault.ipa.map_or(0, |ipa| ipa.as_u64()),
        place.into(),
        generation,
    ]
}
