//! Which context descriptor a transaction uses, and finding it (§3.9, §5.2, §5.3).

use crate::bits::{align_down, bit, keep};
use crate::cache::config::{CdCopy, PointerCopy};
use crate::cd::Cd;
use crate::core::Core;
use crate::event::{Class, EventType};
use crate::fault::Fetch;
use crate::route::Fault;
use crate::stage2::Need;
use crate::ste::{Stage1Pointer, Ste};
use crate::story::Origin;
use crate::violation::Rule;
use crate::watch::Use;

/// What becomes of a transaction at stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Stage 1 is bypassed.
    Bypass,
    /// The context descriptor with this index translates.
    Context(u32),
}

/// The substream decision (§3.9.2 and the description of S1DSS).
pub(crate) fn decide(ste: &Ste, substream: Option<u32>) -> Result<Way, Fault> {
    let bad = Err(Fault::new(EventType::BadSubstreamId));
    let disabled = Err(Fault::new(EventType::StreamDisabled));
    match (&ste.stage1, substream) {
        (None, Some(_)) => bad,
        (None, None) => Ok(Way::Bypass),
        (Some(s1), Some(number)) => {
            if s1.log2_contexts == 0 || number >> s1.log2_contexts != 0 {
                bad
            } else if s1.dss == 2 && number == 0 {
                disabled
            } else {
                Ok(Way::Context(number))
            }
        }
        (Some(s1), None) if s1.log2_contexts == 0 => Ok(Way::Context(0)),
        (Some(s1), None) => match s1.dss {
            1 => Ok(Way::Bypass),
            2 => Ok(Way::Context(0)),
            _ => disabled,
        },
    }
}

/// How many SubstreamID bits a leaf table resolves, for a two-level format.
pub(crate) const fn split(s1: &Stage1Pointer) -> Option<u32> {
    match s1.format {
        1 => Some(6),
        2 => Some(10),
        _ => None,
    }
}

/// Where the L1CD, or for a linear table the CD, with this index lies, in the space of the pointer.
pub(crate) fn first_level(s1: &Stage1Pointer, substream: u32) -> u64 {
    let substream = u64::from(substream);
    match split(s1) {
        None => align_down(s1.context_pointer, s1.log2_contexts + 6) + substream * 64,
        Some(split) => {
            let log2 = (s1.log2_contexts.saturating_sub(split) + 3).max(6);
            align_down(s1.context_pointer, log2) + (substream >> split) * 8
        }
    }
}

impl Core {
    /// The context descriptor of `stream` with this index.
    pub(crate) fn context(
        &mut self,
        stream: u32,
        ste: &Ste,
        substream: u32,
    ) -> Result<(Cd, Origin), Fault> {
        let Some(s1) = &ste.stage1 else {
            return Err(Fault::new(EventType::BadSubstreamId));
        };
        let copy = self.context_copy(stream, ste, s1, substream)?;
        let cd = Cd::decode(&copy.words, &self.id, ste.world, s1.forbids_stalls)
            .map_err(|_| Fault::new(EventType::BadCd))?;
        Ok((cd, copy.origin))
    }

    /// A copy of its words, kept or fetched.
    pub(crate) fn context_copy(
        &mut self,
        stream: u32,
        ste: &Ste,
        s1: &Stage1Pointer,
        substream: u32,
    ) -> Result<CdCopy, Fault> {
        if let Some(copy) = self.caches.config.cd(stream, substream) {
            return Ok(*copy);
        }
        let at = self.context_address(stream, ste, s1, substream)?;
        let pa = self.structure_address(stream, ste, at)?;
        let mut words = [0; 8];
        for (index, word) in words.iter_mut().enumerate() {
            let pa = pa + 8 * index as u64;
            *word = self
                .fetch(pa, Fetch::Context)
                .map_err(|_| Fault::fetch(EventType::CdFetch, pa))?;
        }
        self.uses.note(pa, 64, Use::Cd { stream, substream });
        let copy = CdCopy {
            words,
            origin: Origin {
                pa,
                value: words[0],
                step: self.record.step(),
            },
        };
        self.check_reserved_cd(stream, substream, &copy);
        if self.choices.remembers() {
            self.caches
                .config
                .stream_mut(stream)
                .cds
                .insert(substream, copy);
        }
        Ok(copy)
    }

    /// The address of the descriptor, in the space of S1ContextPtr.
    fn context_address(
        &mut self,
        stream: u32,
        ste: &Ste,
        s1: &Stage1Pointer,
        substream: u32,
    ) -> Result<u64, Fault> {
        let first = first_level(s1, substream);
        let Some(split) = split(s1) else {
            return Ok(first);
        };
        let index = substream >> split;
        let word = match self.caches.config.l1cd(stream, index) {
            Some(copy) => copy.word,
            None => self.l1cd(stream, ste, index, first)?,
        };
        let bad = || Fault::new(EventType::BadSubstreamId);
        let pointer = keep(word, 55, 6 + split);
        if !bit(word, 0) || pointer >> self.id.oas_bits != 0 {
            return Err(bad());
        }
        Ok(pointer + (u64::from(substream) & ((1 << split) - 1)) * 64)
    }

    fn l1cd(&mut self, stream: u32, ste: &Ste, index: u32, at: u64) -> Result<u64, Fault> {
        let pa = self.structure_address(stream, ste, at)?;
        let word = self
            .fetch(pa, Fetch::Context)
            .map_err(|_| Fault::fetch(EventType::CdFetch, pa))?;
        self.uses.note(pa, 8, Use::L1Cd { stream, index });
        if word & !0x00ff_ffff_ffff_f001 != 0 {
            self.violate(
                Rule::EntryReservedBits,
                format!("L1CD {word:#x} at {pa:#x}"),
            );
        }
        if self.choices.remembers() {
            let origin = Origin {
                pa,
                value: word,
                step: self.record.step(),
            };
            self.caches
                .config
                .stream_mut(stream)
                .l1cds
                .insert(index, PointerCopy { word, origin });
        }
        Ok(word)
    }

    /// The physical address of a CD or L1CD: through stage 2, where that is on.
    fn structure_address(&mut self, stream: u32, ste: &Ste, at: u64) -> Result<u64, Fault> {
        match &ste.stage2 {
            None => Ok(at),
            Some(s2) => Ok(self
                .stage2(stream, s2, at, Need::READ, Class::Cd)?
                .translate(at)),
        }
    }
}
