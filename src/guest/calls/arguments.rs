//! What the words of a call mean.

use super::{Code, Refused, Registers};
use crate::addr::{Iova, Ipa};
use crate::space::{Answer, Ask, By, FaultId, Handle, MAX_RANGES, SpaceId};
use crate::spec::ste::Untagged;

/// A generation has 48 bits.
const GENERATION_BITS: u32 = 48;

/// A range of a list: an address and a number of bytes, each 8 bytes, little-endian.
pub(super) const RANGE_BYTES: usize = 16;

pub(super) struct Arguments<'a>(pub(super) &'a Registers);

impl Arguments<'_> {
    /// The word in `x`N, N from 1 to 17.
    pub(super) const fn word(&self, register: usize) -> u64 {
        self.0[register]
    }

    /// A word that is to be a number of 32 bits.
    pub(super) fn number(&self, register: usize) -> Result<u32, Refused> {
        u32::try_from(self.word(register)).map_err(|_| Refused::argument(register as u64))
    }

    /// The place and the generation of a key; `missing` if no key can be so.
    fn key(&self, register: usize, missing: Code) -> Result<(u32, u64), Refused> {
        let place = u32::try_from(self.word(register)).map_err(|_| missing)?;
        let generation = self.word(register + 1);
        if generation >> GENERATION_BITS != 0 {
            return Err(missing.into());
        }
        Ok((place, generation))
    }

    pub(super) fn space(&self, register: usize) -> Result<SpaceId, Refused> {
        let (place, generation) = self.key(register, Code::NoSuchSpace)?;
        Ok(SpaceId::from_parts(place, generation))
    }

    pub(super) fn handle(&self, register: usize) -> Result<Handle, Refused> {
        let (place, generation) = self.key(register, Code::NoSuchHandle)?;
        Ok(Handle::from_parts(place, generation))
    }

    pub(super) fn fault(&self, register: usize) -> Result<FaultId, Refused> {
        let (place, generation) = self.key(register, Code::NoSuchFault)?;
        Ok(FaultId::from_parts(place, generation))
    }

    pub(super) const fn untagged(&self, register: usize) -> Result<Untagged, Refused> {
        match self.word(register) {
            0 => Ok(Untagged::Abort),
            1 => Ok(Untagged::Stage2),
            _ => Err(Refused::argument(register as u64)),
        }
    }

    pub(super) const fn by(&self, register: usize) -> Result<By, Refused> {
        match self.word(register) {
            0 => Ok(By::Pasid),
            1 => Ok(By::WholeStream),
            _ => Err(Refused::argument(register as u64)),
        }
    }

    pub(super) const fn answer(&self, register: usize) -> Result<Answer, Refused> {
        match self.word(register) {
            0 => Ok(Answer::Retry),
            1 => Ok(Answer::Abort),
            _ => Err(Refused::argument(register as u64)),
        }
    }

    /// Which PASID is asked for: how in one register, and the value in the next.
    pub(super) fn ask(&self, register: usize) -> Result<Ask, Refused> {
        let value = self.word(register + 1);
        let bad_value = Refused::argument(register as u64 + 1);
        match self.word(register) {
            0 if value == 0 => Ok(Ask::Any),
            1 => match u8::try_from(value) {
                Ok(bits) => Ok(Ask::AtMostBits(bits)),
                Err(_) => Err(bad_value),
            },
            2 => match u32::try_from(value) {
                Ok(number) => Ok(Ask::Exactly(number)),
                Err(_) => Err(Code::PasidOutOfRange.into()),
            },
            0 => Err(bad_value),
            _ => Err(Refused::argument(register as u64)),
        }
    }

    /// A word of flags of which only those in `known` are.
    pub(super) const fn flags(&self, register: usize, known: u64) -> Result<u64, Refused> {
        let flags = self.word(register);
        if flags & !known == 0 {
            Ok(flags)
        } else {
            Err(Refused::argument(register as u64))
        }
    }

    /// How many elements follow, 1 to `most`.
    pub(super) fn count(&self, register: usize, most: usize) -> Result<usize, Refused> {
        match usize::try_from(self.word(register)) {
            Ok(count) if (1..=most).contains(&count) => Ok(count),
            _ => Err(Refused::argument(register as u64)),
        }
    }

    /// A list of ranges: its address, 8-byte aligned, and how many, 1 to [`MAX_RANGES`].
    pub(super) fn list(&self, register: usize) -> Result<(Ipa, usize), Refused> {
        let at = Ipa::new(self.word(register));
        if !at.is_aligned(3) {
            return Err(Refused::argument(register as u64));
        }
        Ok((at, self.count(register + 1, MAX_RANGES)?))
    }
}

/// The range that 16 bytes say; `None` if it has no bytes, or runs past the top.
pub(super) fn range(bytes: &[u8; RANGE_BYTES]) -> Option<(Iova, u64)> {
    let word = |from: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[from..from + 8]);
        u64::from_le_bytes(word)
    };
    range_of(word(0), word(8))
}

/// The range from `address` on; `None` if it has no bytes, or runs past the top.
pub(super) fn range_of(address: u64, bytes: u64) -> Option<(Iova, u64)> {
    let last = address.checked_add(bytes.checked_sub(1)?);
    last.map(|_| (Iova::new(address), bytes))
}
