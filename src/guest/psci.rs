//! PSCI as a guest has it (DEN 0022): its own CPUs, and its own power.

/// What a call comes to when it fails.
const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;
const ON_PENDING: i64 = -5;

/// PSCI 1.1.
const VERSION: i64 = 1 << 16 | 1;
/// There is no trusted OS that would have to move.
const NO_TRUSTED_OS: i64 = 2;

/// Whether a function number is PSCI's.
pub const fn is_psci(function: u64) -> bool {
    matches!(function as u32 & !0x4000_001f, 0x8400_0000)
}

/// How many CPUs a guest can have.
pub const MAX_CPUS: usize = 16;

/// What a call asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Nothing: this is the answer.
    Answer(i64),
    /// To start a CPU.
    On {
        /// Which.
        target: u64,
        /// Where.
        entry: u64,
        /// Its x0.
        context: u64,
    },
    /// Whether a CPU is on.
    Affinity(u64),
    /// To turn the calling CPU off.
    Off,
    /// To let the calling CPU rest; it answers 0 afterwards.
    Rest,
    /// To end the guest.
    SystemOff,
    /// To start the guest over.
    SystemReset,
}

impl Request {
    /// What is in x0 to x3.
    pub const fn decode(x: [u64; 4]) -> Self {
        let function = x[0] as u32;
        let is_64 = function & 0x4000_0000 != 0;
        let mask = if is_64 { u64::MAX } else { 0xffff_ffff };
        match function {
            0x8400_0000 => Self::Answer(VERSION),
            0x8400_0001 | 0xc400_0001 => Self::Rest,
            0x8400_0002 => Self::Off,
            0x8400_0003 | 0xc400_0003 => Self::On {
                target: x[1] & mask,
                entry: x[2] & mask,
                context: x[3] & mask,
            },
            0x8400_0004 | 0xc400_0004 => match x[2] & mask {
                0 => Self::Affinity(x[1] & mask),
                _ => Self::Answer(INVALID_PARAMETERS),
            },
            0x8400_0006 => Self::Answer(NO_TRUSTED_OS),
            0x8400_0008 => Self::SystemOff,
            0x8400_0009 => Self::SystemReset,
            0x8400_000a => Self::Answer(features(x[1] as u32)),
            _ => Self::Answer(NOT_SUPPORTED),
        }
    }
}

/// Whether there is such a function; none has flags.
const fn features(function: u32) -> i64 {
    match function {
        0x8400_0000..=0x8400_0004 | 0xc400_0001 | 0xc400_0003 | 0xc400_0004 => 0,
        0x8400_0006 | 0x8400_0008..=0x8400_000a | 0x8000_0000 => 0,
        _ => NOT_SUPPORTED,
    }
}

/// Where a CPU of a guest is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// Off.
    Off,
    /// It is to start.
    Pending {
        /// Where.
        entry: u64,
        /// Its x0.
        context: u64,
    },
    /// On.
    On,
}

/// The CPUs of one guest, by number: the `Aff0` of each, with all else 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpus {
    power: [Power; MAX_CPUS],
    count: usize,
}

impl Cpus {
    /// No CPUs.
    pub const NONE: Self = Self {
        power: [Power::Off; MAX_CPUS],
        count: 0,
    };

    /// `count` CPUs, at most [`MAX_CPUS`], of which the first is to start with `context` at `entry`.
    pub fn starting(count: usize, entry: u64, context: u64) -> Self {
        let mut power = [Power::Off; MAX_CPUS];
        power[0] = Power::Pending { entry, context };
        Self {
            power,
            count: count.min(MAX_CPUS),
        }
    }

    /// What a CPU is to do.
    pub fn power(&self, number: usize) -> Power {
        self.power.get(number).copied().unwrap_or(Power::Off)
    }

    /// Has a CPU be so.
    pub fn set(&mut self, number: usize, power: Power) {
        if let Some(slot) = self.power.get_mut(number) {
            *slot = power;
        }
    }

    /// Has every CPU be off.
    pub fn all_off(&mut self) {
        self.power = [Power::Off; MAX_CPUS];
    }

    /// Whether none is on or about to be.
    pub fn are_all_off(&self) -> bool {
        self.power.iter().all(|power| *power == Power::Off)
    }

    fn number(&self, target: u64) -> Result<usize, i64> {
        match usize::try_from(target) {
            Ok(number) if number < self.count => Ok(number),
            _ => Err(INVALID_PARAMETERS),
        }
    }

    /// `CPU_ON`: gives the number of the CPU that is to start.
    ///
    /// # Errors
    ///
    /// PSCI's own: there is no such CPU, or it is on, or about to be.
    pub fn turn_on(&mut self, target: u64, entry: u64, context: u64) -> Result<usize, i64> {
        let number = self.number(target)?;
        match self.power(number) {
            Power::Off => {
                self.set(number, Power::Pending { entry, context });
                Ok(number)
            }
            Power::Pending { .. } => Err(ON_PENDING),
            Power::On => Err(ALREADY_ON),
        }
    }

    /// `AFFINITY_INFO`: 0 on, 1 off, 2 about to be on, or an error.
    pub fn affinity_info(&self, target: u64) -> i64 {
        match self.number(target).map(|number| self.power(number)) {
            Ok(Power::On) => 0,
            Ok(Power::Off) => 1,
            Ok(Power::Pending { .. }) => 2,
            Err(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(function: u64, argument: u64) -> Request {
        Request::decode([function, argument, 0, 0])
    }

    #[test]
    fn numbers_of_psci_are_known_from_others() {
        for function in [0x8400_0000, 0x8400_001f, 0xc400_0003] {
            assert!(is_psci(function), "{function:#x}");
        }
        for function in [0x8400_0020, 0x8600_0000, 0xc600_0003, 0x8000_0000, 0] {
            assert!(!is_psci(function), "{function:#x}");
        }
    }

    #[test]
    fn every_function_that_features_names_is_served() {
        let mut served = 0;
        for function in (0x8400_0000..0x8400_0020).chain(0xc400_0000..0xc400_0020) {
            let is_named = answer(0x8400_000a, function) == Request::Answer(0);
            // What FEATURES is asked about is there.
            let is_served = answer(function, 0x8400_0000) != Request::Answer(NOT_SUPPORTED);
            assert_eq!(is_named, is_served, "{function:#x}");
            served += usize::from(is_served);
        }
        assert_eq!(served, 12);
    }

    #[test]
    fn a_32_bit_call_has_32_bit_arguments() {
        let on = |function| Request::decode([function, 1 << 32 | 1, 2 << 32 | 2, 3 << 32 | 3]);
        let (target, entry, context) = (1, 2, 3);
        assert_eq!(
            on(0x8400_0003),
            Request::On {
                target,
                entry,
                context
            }
        );
        assert_ne!(on(0xc400_0003), on(0x8400_0003));
    }

    #[test]
    fn a_cpu_is_started_once() {
        let mut cpus = Cpus::starting(2, 0x4000_0000, 7);
        assert_eq!(cpus.affinity_info(0), 2);
        assert_eq!(cpus.turn_on(0, 0, 0), Err(ON_PENDING));
        cpus.set(0, Power::On);
        assert_eq!(cpus.turn_on(0, 0, 0), Err(ALREADY_ON));
        assert_eq!(cpus.affinity_info(1), 1);
        assert_eq!(cpus.turn_on(1, 0x1000, 9), Ok(1));
        assert_eq!(
            cpus.power(1),
            Power::Pending {
                entry: 0x1000,
                context: 9
            }
        );
        for target in [2, 0x100, 1 << 32, u64::MAX] {
            assert_eq!(cpus.turn_on(target, 0, 0), Err(INVALID_PARAMETERS));
            assert_eq!(cpus.affinity_info(target), INVALID_PARAMETERS);
        }
        assert!(!cpus.are_all_off());
        cpus.all_off();
        assert!(cpus.are_all_off());
    }

    #[test]
    fn the_lowest_level_alone_has_affinities() {
        assert_eq!(
            Request::decode([0xc400_0004, 1, 0, 0]),
            Request::Affinity(1)
        );
        let refused = Request::Answer(INVALID_PARAMETERS);
        assert_eq!(Request::decode([0xc400_0004, 1, 1, 0]), refused);
    }
}
