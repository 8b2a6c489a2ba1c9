//! The calls.

use super::types::TEXT_BYTES;
use super::{
    Answer, Ask, Bounds, By, Call, Conduit, Counter, Device, DeviceInfo, Error, Fault, FaultId,
    Features, Globals, Handle, Pasid, Place, Quotas, Range, Registers, Space, SpaceId,
    TableRegisters, Text, Untagged,
};

/// EL2, as a guest sees it. Every error is one that `ABI.md` names for the call.
#[derive(Clone, Copy, Debug)]
pub struct Portcullis<C> {
    conduit: C,
}

impl<C: Conduit> Portcullis<C> {
    /// EL2, reached in this way.
    pub const fn new(conduit: C) -> Self {
        Self { conduit }
    }

    /// Whether it is Portcullis that is at EL2, by the UID of the service.
    pub fn is_there(&self) -> bool {
        let mut registers = [0; 18];
        registers[0] = 0x8600_FF01;
        self.conduit.call(&mut registers);
        registers[..4] == [0xd3f7_a1c4, 0x5b0e_4e63, 0x9a2d_706f, 0x7274_636c]
    }

    fn call(&self, call: Call, arguments: &[u64]) -> Result<Registers, Error> {
        let mut registers = [0; 18];
        registers[0] = call.function().into();
        for (to, word) in registers.iter_mut().skip(1).zip(arguments) {
            *to = *word;
        }
        self.conduit.call(&mut registers);
        match registers[0] {
            0 => Ok(registers),
            x0 => Err(Error::of(x0, [registers[1], registers[2], registers[3]])),
        }
    }

    /// What there is.
    ///
    /// # Errors
    ///
    /// [`NotSupported`](super::Code::NotSupported): something else is at EL2.
    pub fn features(&self) -> Result<Features, Error> {
        let found = self.call(Call::Features, &[0])?;
        Ok(Features {
            version: ((found[1] >> 16) as u16, found[1] as u16),
            calls: found[2],
            devices: found[3] as u32,
            cpus: found[4] as u32,
        })
    }

    /// How much the guest may have.
    ///
    /// # Errors
    ///
    /// As [`features`](Self::features).
    pub fn quotas(&self) -> Result<Quotas, Error> {
        let found = self.call(Call::Features, &[1])?;
        Ok(Quotas {
            spaces: found[1] as u32,
            bindings: found[2] as u32,
            handles: found[3] as u32,
            stalls: found[4] as u32,
            pasid_bits: found[5] as u8,
        })
    }

    /// How long things take at most.
    ///
    /// # Errors
    ///
    /// As [`features`](Self::features).
    pub fn bounds(&self) -> Result<Bounds, Error> {
        let found = self.call(Call::Features, &[2])?;
        Ok(Bounds {
            stall_deadline_us: found[1],
            quarantine_us: found[2],
            wait_us: found[3],
        })
    }

    /// What a device is.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `device_info`.
    pub fn device_info(&self, device: Device) -> Result<DeviceInfo, Error> {
        let found = self.call(Call::DeviceInfo, &[device.0.into()])?;
        let at = found[2];
        let place = match found[1] {
            1 => Place::Mmio(at),
            2 => Place::Pci {
                segment: (at >> 16) as u16,
                bus: (at >> 8) as u8,
                device: (at >> 3 & 0x1f) as u8,
                function: (at & 7) as u8,
            },
            _ => Place::Unknown,
        };
        let has = |bit: u32| found[4] >> bit & 1 != 0;
        Ok(DeviceInfo {
            place,
            pasid_bits: found[3] as u8,
            can_stall: has(0),
            has_ats: has(1),
            is_attached: has(2),
            is_fenced: has(3),
            takes_pasids: has(4),
        })
    }

    /// A device's traffic goes through the guest's stage 2, and it is ready for spaces.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `attach`.
    pub fn attach(&self, device: Device, untagged: Untagged) -> Result<(), Error> {
        let untagged = match untagged {
            Untagged::Abort => 0,
            Untagged::Stage2 => 1,
        };
        self.call(Call::Attach, &[device.0.into(), untagged])?;
        Ok(())
    }

    /// No traffic of a device is translated any more.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `detach`.
    pub fn detach(&self, device: Device) -> Result<(), Error> {
        self.call(Call::Detach, &[device.0.into()])?;
        Ok(())
    }

    /// A device is reset, and brought back if it was cut off.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `device_reset`.
    pub fn device_reset(&self, device: Device) -> Result<(), Error> {
        self.call(Call::DeviceReset, &[device.0.into()])?;
        Ok(())
    }

    /// Makes a space, with a PASID for its life.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `space_create`.
    pub fn space_create(
        &self,
        tables: &TableRegisters,
        ask: Ask,
        globals: Globals,
    ) -> Result<Space, Error> {
        let (how, value) = match ask {
            Ask::Any => (0, 0),
            Ask::AtMostBits(bits) => (1, bits.into()),
            Ask::Exactly(number) => (2, number.into()),
        };
        let flags = match globals {
            Globals::MayBe => 0,
            Globals::None => 1,
        };
        let TableRegisters {
            ttbr0,
            ttbr1,
            tcr,
            mair,
        } = *tables;
        let arguments = [ttbr0, ttbr1, tcr, mair, how, value, flags];
        let found = self.call(Call::SpaceCreate, &arguments)?;
        Ok(Space {
            id: SpaceId {
                place: found[1],
                generation: found[2],
            },
            pasid: Pasid {
                number: found[3] as u32,
                generation: found[4],
            },
        })
    }

    /// Lets a device reach a space.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `bind`.
    pub fn bind(&self, space: SpaceId, device: Device, by: By) -> Result<Handle, Error> {
        let by = match by {
            By::Pasid => 0,
            By::WholeStream => 1,
        };
        let arguments = [space.place, space.generation, device.0.into(), by];
        let found = self.call(Call::Bind, &arguments)?;
        Ok(Handle {
            place: found[1],
            generation: found[2],
        })
    }

    /// Drops a handle; the last of a pair says that the device issues the PASID no longer.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `unbind`.
    pub fn unbind(&self, handle: Handle) -> Result<(), Error> {
        self.call(Call::Unbind, &[handle.place, handle.generation])?;
        Ok(())
    }

    /// The guest changed its tables of a space: on return no device uses what it had cached of the
    /// range.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `invalidate`.
    pub fn invalidate(&self, space: SpaceId, range: Range) -> Result<(), Error> {
        let Range { address, bytes } = range;
        let arguments = [space.place, space.generation, address, bytes];
        self.call(Call::Invalidate, &arguments)?;
        Ok(())
    }

    /// As [`invalidate`](Self::invalidate), for 1 to 64 ranges that EL2 reads at the guest's
    /// physical address `at`.
    ///
    /// EL2 reads them through caches: they are mapped write-back here, or were cleaned.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `invalidate_list`.
    pub fn invalidate_list(&self, space: SpaceId, at: u64, count: usize) -> Result<(), Error> {
        let arguments = [space.place, space.generation, at, count as u64];
        self.call(Call::InvalidateList, &arguments)?;
        Ok(())
    }

    /// The gate falls: on return nothing of the space reaches memory, whoever holds handles.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `release`.
    pub fn release(&self, space: SpaceId) -> Result<(), Error> {
        self.call(Call::Release, &[space.place, space.generation])?;
        Ok(())
    }

    /// All spaces are released and all handles dropped: for a guest that starts over.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `release_all`.
    pub fn release_all(&self) -> Result<(), Error> {
        self.call(Call::ReleaseAll, &[])?;
        Ok(())
    }

    /// The oldest fault that was not read.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `fault_next`.
    pub fn fault_next(&self) -> Result<Option<Fault>, Error> {
        let found = self.call(Call::FaultNext, &[])?;
        Ok(Fault::of(&found))
    }

    /// Answers a stalled transaction.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `fault_answer`.
    pub fn fault_answer(&self, fault: FaultId, answer: Answer) -> Result<(), Error> {
        let answer = match answer {
            Answer::Retry => 0,
            Answer::Abort => 1,
        };
        let arguments = [fault.place, fault.generation, answer];
        self.call(Call::FaultAnswer, &arguments)?;
        Ok(())
    }

    /// The oldest bytes of what EL2 noted of the guest; none: there is no more.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `log_read`.
    pub fn log_read(&self) -> Result<Text, Error> {
        let found = self.call(Call::LogRead, &[])?;
        let mut bytes = [[0; 8]; TEXT_BYTES / 8];
        for (to, word) in bytes.iter_mut().zip(&found[2..]) {
            *to = word.to_le_bytes();
        }
        let mut text = Text {
            bytes: [0; TEXT_BYTES],
            count: (found[1] as usize).min(TEXT_BYTES),
        };
        text.bytes.copy_from_slice(bytes.as_flattened());
        Ok(text)
    }

    /// Puts bytes onto the console, in as many calls as it takes.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `console_write`; what came before is written then.
    pub fn console_write(&self, bytes: &[u8]) -> Result<(), Error> {
        for part in bytes.chunks(TEXT_BYTES) {
            let mut arguments = [0; 1 + TEXT_BYTES / 8];
            arguments[0] = part.len() as u64;
            for (to, eight) in arguments[1..].iter_mut().zip(part.chunks(8)) {
                let mut word = [0; 8];
                word[..eight.len()].copy_from_slice(eight);
                *to = u64::from_le_bytes(word);
            }
            self.call(Call::ConsoleWrite, &arguments)?;
        }
        Ok(())
    }

    /// A counter.
    ///
    /// # Errors
    ///
    /// As `ABI.md` has it for `stats`.
    pub fn stats(&self, counter: Counter) -> Result<u64, Error> {
        Ok(self.call(Call::Stats, &[counter as u64])?[1])
    }
}
