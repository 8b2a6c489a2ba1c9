//! Calls at random: by who knows what there is, by who guesses, and by who knows nothing.

use portcullis_guest::{Call, Registers};

use crate::board::{DATA, IPA, LIST, RAM_BYTES, SPACES, VA, tables};
use crate::random::Random;

/// A key as registers have it.
type Words = [u64; 2];

/// A guest that calls at random, and keeps what it is given.
#[derive(Clone, Debug)]
pub struct Stranger {
    random: Random,
    spaces: Vec<Words>,
    handles: Vec<Words>,
    faults: Vec<Words>,
    /// The PASID of each space that it was given, newest last.
    pasids: Vec<(Words, u64)>,
    /// Those of which something was bound.
    bound: Vec<u64>,
}

/// How many of each it keeps: some that are, and many that were.
const KEPT: usize = 48;

impl Stranger {
    /// One that this seed decides.
    pub const fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            spaces: Vec::new(),
            handles: Vec::new(),
            faults: Vec::new(),
            pasids: Vec::new(),
            bound: Vec::new(),
        }
    }

    /// Its numbers.
    pub const fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// A PASID by which a device may reach something, or may have.
    pub fn pasid(&mut self) -> u32 {
        let newest = self.bound.len().saturating_sub(8);
        let known = self.random.one_of(&self.bound[newest..]);
        match self.random.below(4) {
            0 => self.random.below(1 << 20) as u32,
            _ => known.unwrap_or(0) as u32,
        }
    }

    /// It hears of what another one has.
    pub fn overhear(&mut self, other: &Self) {
        for (own, others) in [
            (&mut self.spaces, &other.spaces),
            (&mut self.handles, &other.handles),
            (&mut self.faults, &other.faults),
        ] {
            if let Some(words) = self.random.one_of(others) {
                keep(&mut self.random, own, words);
            }
        }
    }

    /// The registers of its next call.
    pub fn next_call(&mut self) -> Registers {
        let mut registers = [0; 18];
        for word in &mut registers {
            *word = self.random.word();
        }
        match self.random.below(16) {
            // A function that there is not, or is not ours.
            0 => {
                if self.random.once_in(2) {
                    registers[0] = self.a_function();
                }
                return registers;
            }
            // One that there is, with anything.
            1 => {
                let call = self.a_call();
                registers[0] = call.function().into();
                return registers;
            }
            _ => {}
        }
        let call = self.a_call();
        registers[0] = call.function().into();
        let arguments = self.arguments(call);
        for (to, word) in registers.iter_mut().skip(1).zip(arguments) {
            *to = word;
        }
        if self.random.once_in(12) {
            // One of the words is another.
            let at = 1 + self.random.below(7) as usize;
            registers[at] = self.a_word();
        }
        registers
    }

    /// What it learns of the answer to a call.
    pub fn learn(&mut self, call: &Registers, answer: &Registers) {
        if answer[0] != 0 {
            return;
        }
        let key = [answer[1], answer[2]];
        let (what, words) = match call[0] as u32 {
            it if it == Call::SpaceCreate.function() => {
                self.pasids.push((key, answer[3]));
                (&mut self.spaces, key)
            }
            it if it == Call::Bind.function() => {
                let space = [call[1], call[2]];
                let mut spaces = self.pasids.iter();
                self.bound
                    .extend(spaces.find_map(|(it, pasid)| (*it == space).then_some(*pasid)));
                (&mut self.handles, key)
            }
            it if it == Call::FaultNext.function() && answer[2] & 1 != 0 => {
                (&mut self.faults, [answer[8], answer[9]])
            }
            _ => return,
        };
        keep(&mut self.random, what, words);
    }

    fn a_function(&mut self) -> u64 {
        let known = [
            0x8000_0000,
            0x8000_0001,
            0x8600_FF00,
            0x8600_FF01,
            0x8600_FF03,
            0xC600_0011,
            0xC600_FFFF,
            0x8600_0005,
            0x8400_0000,
            0xC400_0003,
        ];
        self.random.one_of(&known).unwrap_or(0)
    }

    fn a_call(&mut self) -> Call {
        use Call::*;
        // What makes and takes away comes oftener.
        let calls = [
            Features,
            DeviceInfo,
            Attach,
            Attach,
            Detach,
            DeviceReset,
            SpaceCreate,
            SpaceCreate,
            SpaceCreate,
            Bind,
            Bind,
            Bind,
            Bind,
            Bind,
            Bind,
            Unbind,
            Unbind,
            Unbind,
            Unbind,
            Invalidate,
            Invalidate,
            Release,
            Release,
            FaultNext,
            FaultNext,
            FaultAnswer,
            LogRead,
            ConsoleWrite,
            Stats,
            InvalidateList,
        ];
        if self.random.once_in(200) {
            ReleaseAll
        } else {
            self.random.one_of(&calls).unwrap_or(Features)
        }
    }

    fn a_word(&mut self) -> u64 {
        let word = self.random.word();
        let words = [
            0,
            1,
            2,
            3,
            63,
            64,
            65,
            IPA,
            IPA + RAM_BYTES,
            IPA + RAM_BYTES - 8,
            u64::MAX,
            u64::MAX - 7,
            1 << 63,
            1 << 48,
            (1 << 48) - 1,
            1 << 32,
            (1 << 32) - 1,
            0xfff,
            word,
            1 << (word & 63),
        ];
        self.random.one_of(&words).unwrap_or(word)
    }

    fn device(&mut self) -> u64 {
        if self.random.once_in(20) {
            self.a_word()
        } else {
            self.random.below(2)
        }
    }

    fn key(&mut self, of: impl Fn(&Self) -> &Vec<Words>) -> Words {
        let newest = of(self).last().copied();
        let one = {
            let of = of(self).clone();
            self.random.one_of(&of)
        };
        let known = if self.random.once_in(2) { newest } else { one };
        let Some([place, generation]) = known else {
            return [self.random.below(8), self.random.below(4)];
        };
        match self.random.below(40) {
            0 => [place, generation.wrapping_add(1)],
            1 => [place.wrapping_add(1), generation],
            2 => [place | 1 << 32, generation],
            3 => [place, generation | 1 << 48],
            _ => [place, generation],
        }
    }

    fn range(&mut self) -> Words {
        match self.random.below(4) {
            0 => [VA, 0x1000],
            1 => [self.a_word(), self.a_word()],
            2 => [
                self.random.below(1 << 30) & !0xfff,
                1 << self.random.below(31),
            ],
            _ => [DATA, self.random.below(0x4000)],
        }
    }

    fn arguments(&mut self, call: Call) -> Vec<u64> {
        match call {
            Call::Features => vec![self.random.below(4)],
            Call::DeviceInfo | Call::Detach | Call::DeviceReset => vec![self.device()],
            Call::Attach => vec![self.device(), self.random.below(2)],
            Call::SpaceCreate => self.a_space(),
            Call::Bind => {
                let [place, generation] = self.key(|it| &it.spaces);
                let by = u64::from(self.random.once_in(4));
                vec![place, generation, self.device(), by]
            }
            Call::Unbind => self.key(|it| &it.handles).to_vec(),
            Call::Invalidate => [self.key(|it| &it.spaces), self.range()].concat(),
            Call::Release => self.key(|it| &it.spaces).to_vec(),
            Call::FaultAnswer => {
                let [place, generation] = self.key(|it| &it.faults);
                vec![place, generation, self.random.below(2)]
            }
            Call::FaultNext | Call::ReleaseAll | Call::LogRead => vec![],
            Call::ConsoleWrite => vec![self.random.below(130)],
            Call::Stats => vec![self.random.below(13)],
            Call::InvalidateList => {
                let [place, generation] = self.key(|it| &it.spaces);
                let at = match self.random.below(4) {
                    // Tables and data are as good a list as any.
                    0 => IPA + (self.random.below(RAM_BYTES) & !7),
                    _ => LIST,
                };
                vec![place, generation, at, self.random.below(66)]
            }
        }
    }

    fn a_space(&mut self) -> Vec<u64> {
        let it = tables(self.random.below(SPACES));
        let mut tcr = it.tcr;
        if self.random.once_in(8) {
            tcr ^= 1 << self.random.below(64);
        }
        let (ask, value) = match self.random.below(8) {
            0 => (1, self.random.below(22)),
            1 => (2, self.random.below(300)),
            _ => (0, 0),
        };
        let flags = self.random.below(2);
        vec![it.ttbr0, it.ttbr1, tcr, it.mair, ask, value, flags]
    }
}

fn keep(random: &mut Random, own: &mut Vec<Words>, words: Words) {
    if own.len() == KEPT {
        let at = random.below(KEPT as u64) as usize;
        own.swap_remove(at);
    }
    own.push(words);
}
