//! What EL2 is asked for: hypercalls by the client, and PSCI.

use portcullis_guest::{By, Conduit, Error, Handle, Hvc, Portcullis, Range, Registers, Space};

use crate::device::Device;

/// EL2.
pub(crate) const EL2: Portcullis<Hvc> = Portcullis::new(Hvc);

/// Lets `device` reach `space` by its PASID.
pub(crate) fn bind(space: Space, device: &Device) -> Result<Handle, Error> {
    EL2.bind(space.id, device.id, By::Pasid)
}

/// Has devices forget what they had of `bytes` bytes at `address` of `space`.
pub(crate) fn invalidate(space: Space, address: u64, bytes: u64) -> Result<(), Error> {
    EL2.invalidate(space.id, Range { address, bytes })
}

/// A call of PSCI; its result.
fn psci(arguments: [u64; 4]) -> i32 {
    let mut registers: Registers = [0; 18];
    registers[..4].copy_from_slice(&arguments);
    Hvc.call(&mut registers);
    registers[0] as i32
}

/// Starts a CPU.
pub(crate) fn cpu_on(target: u64, entry: u64, context: u64) -> i32 {
    psci([0xc400_0003, target, entry, context])
}

/// The calling CPU goes off.
pub(crate) fn cpu_off() -> ! {
    loop {
        psci([0x8400_0002, 0, 0, 0]);
    }
}

/// The guest ends, and starts over.
pub(crate) fn system_reset() -> ! {
    loop {
        psci([0x8400_0009, 0, 0, 0]);
    }
}

/// The guest ends.
pub(crate) fn system_off() -> ! {
    loop {
        psci([0x8400_0008, 0, 0, 0]);
    }
}
