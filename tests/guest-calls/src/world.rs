//! What the dispatcher asks of the hypervisor around it.

use std::sync::PoisonError;

use portcullis::addr::{Extent, Ipa, Pa};
use portcullis::guest::calls::guest_memory::pieces;
use portcullis::guest::calls::{GuestDevice, GuestWorld, Limits, NotItsMemory, dispatch};
use portcullis::hw::Platform;
use portcullis::space::{GuestId, Iommu};
use portcullis_guest::{Conduit, Registers};

use crate::board::{Board, QUOTA, SETTINGS};
use crate::host::Host;

impl Board<'_> {
    fn number(&self, guest: GuestId) -> usize {
        let found = self.guests.iter().position(|it| it.id == guest);
        found.expect("the dispatcher names the guest that called")
    }
}

impl<'p> GuestWorld<'p, Host> for Board<'p> {
    fn iommu(&self) -> &Iommu<'p, Host> {
        &self.iommu
    }

    fn limits(&self, _: GuestId) -> Limits {
        Limits {
            vcpus: 2,
            quota: QUOTA,
            pasid_bits: 8,
            stall_deadline_us: SETTINGS.stall_deadline_us,
            quarantine_us: SETTINGS.quarantine_us,
            wait_us: SETTINGS.wait_us,
        }
    }

    fn device(&self, guest: GuestId, number: u32) -> Option<GuestDevice> {
        let guest = &self.guests[self.number(guest)];
        guest.devices.get(number as usize).copied()
    }

    fn read(&self, guest: GuestId, from: Ipa, into: &mut [u8]) -> Result<(), NotItsMemory> {
        let guest = &self.guests[self.number(guest)];
        pieces(&guest.ram, from, into.len() as u64, |piece, before| {
            let (_, rest) = into.split_at_mut(before as usize);
            copy(self.host, piece, rest);
        })
    }

    fn console(&self, guest: GuestId, vcpu: u32, bytes: &[u8]) {
        let line = (self.number(guest), vcpu, bytes.to_vec());
        let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        console.push(line);
    }

    fn log(&self, guest: GuestId, into: &mut [u8]) -> usize {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let log = &mut log[self.number(guest)];
        let count = log.len().min(into.len());
        for (to, byte) in into.iter_mut().zip(log.drain(..count)) {
            *to = byte;
        }
        count
    }
}

fn copy(host: &Host, from: Extent<Pa>, into: &mut [u8]) {
    for (at, to) in (from.base().as_u64()..from.end().as_u64()).zip(into) {
        let word = host.peek(Pa::new(at & !7)).expect("it is memory");
        *to = word.to_le_bytes()[(at & 7) as usize];
    }
}

/// A CPU of a guest, whose calls go to the dispatcher.
#[derive(Clone, Copy)]
pub struct Vcpu<'a, 'p> {
    /// The machine.
    pub board: &'a Board<'p>,
    /// Of which guest.
    pub guest: usize,
    /// Which of its CPUs.
    pub vcpu: u32,
}

impl Conduit for Vcpu<'_, '_> {
    fn call(&self, registers: &mut Registers) {
        let guest = self.board.guests[self.guest].id;
        dispatch(self.board, guest, self.vcpu, registers);
    }
}
