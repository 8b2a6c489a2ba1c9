//! Context Descriptor (§5.4).

use super::bits::Field;
use super::stage1::{Half, Stage1Walk, TopByte};
use super::vmsa::{Cacheability, Granule};
use crate::id::Asid;

const V: Field = Field::bit(31);
const IPS: Field = Field::bits(34, 32);
const AA64: Field = Field::bit(41);
const S: Field = Field::bit(44);
const R: Field = Field::bit(45);
const A: Field = Field::bit(46);
const ASET: Field = Field::bit(47);
const ASID: Field = Field::bits(63, 48);
const MAIR: Field = Field::bits(255, 192);
/// In an entry that is not valid, where hardware looks at nothing else.
const MARK: Field = Field::bits(1, 0);

/// How wide the address of a root is at most.
const ROOT_BITS: u32 = 52;

/// The fields that there are once for each half.
struct HalfFields {
    tsz: Field,
    tg: Field,
    ir: Field,
    or: Field,
    sh: Field,
    epd: Field,
    tbi: Field,
    ttb: Field,
}

const LOW: HalfFields = HalfFields {
    tsz: Field::bits(5, 0),
    tg: Field::bits(7, 6),
    ir: Field::bits(9, 8),
    or: Field::bits(11, 10),
    sh: Field::bits(13, 12),
    epd: Field::bit(14),
    tbi: Field::bit(38),
    ttb: Field::bits(115, 68),
};

const HIGH: HalfFields = HalfFields {
    tsz: Field::bits(21, 16),
    tg: Field::bits(23, 22),
    ir: Field::bits(25, 24),
    or: Field::bits(27, 26),
    sh: Field::bits(29, 28),
    epd: Field::bit(30),
    tbi: Field::bit(39),
    ttb: Field::bits(179, 132),
};

impl HalfFields {
    const fn set(&self, words: &mut [u64; 8], half: Option<&Half>, tg: u64) {
        let Some(half) = half else {
            self.epd.set(words, 1);
            return;
        };
        self.tsz.set(words, 64 - half.va_bits as u64);
        self.tg.set(words, tg);
        self.ir.set(words, cacheability(half.inner));
        self.or.set(words, cacheability(half.outer));
        self.sh.set(words, half.shareability as u64);
        let ignores_top = matches!(half.top_byte, TopByte::Ignored);
        self.tbi.set(words, ignores_top as u64);
        self.ttb.set_address(words, half.root.as_u64());
    }

    /// The bits that are IGNORED if walks are off (§5.4, `EPD0`).
    const fn forget(&self, used: &mut [u64; 8]) {
        used[0] &=
            !(self.tsz.mask() | self.tg.mask() | self.ir.mask() | self.or.mask() | self.sh.mask());
        used[self.ttb.word()] &= !self.ttb.mask();
    }
}

/// `IR` and `OR`: an encoding of their own.
const fn cacheability(value: Cacheability) -> u64 {
    match value {
        Cacheability::NonCacheable => 0,
        Cacheability::WriteBack => 1,
        Cacheability::WriteThrough => 2,
    }
}

const fn tg0(granule: Granule) -> u64 {
    match granule {
        Granule::Kib4 => 0,
        Granule::Kib64 => 1,
        Granule::Kib16 => 2,
    }
}

/// Not the encoding of `TG0` (§5.4).
const fn tg1(granule: Granule) -> u64 {
    match granule {
        Granule::Kib16 => 1,
        Granule::Kib4 => 2,
        Granule::Kib64 => 3,
    }
}

/// What becomes of a transaction that stage 1 refuses. It is recorded either way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Faults {
    /// It aborts.
    Abort,
    /// It waits for an answer (`S`): only for a device that declares that it bears that.
    Stall,
}

/// What a CD is, in the words of its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CdState {
    /// Not valid, and nobody's.
    Free,
    /// Not valid, and somebody is changing it; nobody else may.
    Changing,
    /// Not valid, but what the SMMU holds is unknown: a change was never confirmed.
    Lost,
    /// It translates.
    Live,
    /// It is valid, translates nothing and records nothing.
    Quiet,
    /// Not valid, and still somebody's: what stands for quiet where stalls are forced. Late traffic
    /// aborts with an event.
    Parked,
}

/// Context Descriptor: what the SMMU does with the traffic of one SubstreamID of a stream.
///
/// A plain value: making one changes nothing. 64 bytes, little-endian. §5.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cd([u64; 8]);

impl Cd {
    /// Aborts every transaction with C_BAD_CD (`V == 0`).
    pub const fn invalid() -> Self {
        Self([0; 8])
    }

    /// Translates by `walk`.
    ///
    /// The policy that every live CD shares: faults are recorded (`R`) and abort (`A`) or stall, as
    /// `faults` says; hardware updates no flags; the ASID is of a set of its own (`ASET`), so that
    /// no entry of a living space answers for a CD that was [quieted](Self::quieted).
    ///
    /// `None` if the CD has no such values: a half is not of 25 to 48 bits, its root not aligned or
    /// past 52 bits, or `IPS` has no such size. What an SMMU then makes of it is for its features to
    /// say.
    pub const fn live(walk: &Stage1Walk, faults: Faults) -> Option<Self> {
        let Some(ips) = walk.ips() else { return None };
        if !is_sound(&walk.low) || !is_sound(&walk.high) {
            return None;
        }
        let mut words = [0; 8];
        if let Some(half) = &walk.low {
            LOW.set(&mut words, Some(half), tg0(half.granule));
        } else {
            LOW.set(&mut words, None, 0);
        }
        if let Some(half) = &walk.high {
            HIGH.set(&mut words, Some(half), tg1(half.granule));
        } else {
            HIGH.set(&mut words, None, 0);
        }
        V.set(&mut words, 1);
        IPS.set(&mut words, ips as u64);
        AA64.set(&mut words, 1);
        S.set(&mut words, matches!(faults, Faults::Stall) as u64);
        R.set(&mut words, 1);
        A.set(&mut words, 1);
        ASET.set(&mut words, 1);
        ASID.set(&mut words, walk.asid.as_u16() as u64);
        MAIR.set(&mut words, walk.memory_types);
        Some(Self(words))
    }

    /// The same CD, quiet: it walks nothing, records nothing, and no TLB entry of a live CD answers
    /// for it. It differs in word 0 alone.
    ///
    /// `EPD0` and `EPD1` stop walks but not TLB hits (§5.4.1.1); entries that the guest marked
    /// global match every ASID of the same `ASET` (§3.17.1), so that changes as well. Only when
    /// every CD of the ASID goes, for the rest of them would differ. Not where stalls are forced
    /// (IDR0.STALL_MODEL 2): `S == 0` is ILLEGAL there (§5.4), and with `S == 1` it would stall;
    /// [`CdState::Parked`] takes its place.
    pub const fn quieted(mut self) -> Self {
        LOW.epd.set(&mut self.0, 1);
        HIGH.epd.set(&mut self.0, 1);
        S.set(&mut self.0, 0);
        R.set(&mut self.0, 0);
        A.set(&mut self.0, 1);
        ASET.set(&mut self.0, 0);
        self
    }

    /// Word 0 of an entry that is not valid, in this state of its life.
    ///
    /// # Panics
    ///
    /// If the state is one of a valid entry.
    pub const fn invalid_word(state: CdState) -> u64 {
        let mut words = [0];
        match state {
            CdState::Free => {}
            CdState::Changing => MARK.set(&mut words, 1),
            CdState::Lost => MARK.set(&mut words, 2),
            CdState::Parked => MARK.set(&mut words, 3),
            CdState::Live | CdState::Quiet => panic!("a valid entry has more to say"),
        }
        words[0]
    }

    /// The entry that lies in memory as `words`.
    pub const fn from_words(words: [u64; 8]) -> Self {
        Self(words)
    }

    /// The eight words, in the order of memory.
    pub const fn words(&self) -> &[u64; 8] {
        &self.0
    }

    /// Where it stands in its life.
    pub const fn state(&self) -> CdState {
        state_of(self.0[0])
    }

    /// The tag of the TLB entries made through it.
    pub const fn asid(&self) -> Asid {
        Asid::new(ASID.get(&self.0) as u16)
    }

    /// The valid bit, in word 0.
    pub const VALID: u64 = V.mask();

    /// For each word, the bits that the SMMU may look at, given the rest of the entry (§5.4).
    ///
    /// An entry that is not valid uses its valid bit alone; one with walks of a half off does not
    /// use what says how to walk it.
    pub const fn used_bits(&self) -> [u64; 8] {
        let mut used = [0; 8];
        used[0] = V.mask();
        if V.get(&self.0) == 0 {
            return used;
        }
        used = [u64::MAX; 8];
        if LOW.epd.get(&self.0) == 1 {
            LOW.forget(&mut used);
        }
        if HIGH.epd.get(&self.0) == 1 {
            HIGH.forget(&mut used);
        }
        used
    }
}

/// Where an entry with this word 0 stands in its life.
pub const fn state_of(word0: u64) -> CdState {
    let words = [word0];
    if V.get(&words) == 1 {
        return if ASET.get(&words) == 1 {
            CdState::Live
        } else {
            CdState::Quiet
        };
    }
    match MARK.get(&words) {
        0 => CdState::Free,
        1 => CdState::Changing,
        2 => CdState::Lost,
        _ => CdState::Parked,
    }
}

const fn is_sound(half: &Option<Half>) -> bool {
    use super::stage1::{VA_BITS_MAX, VA_BITS_MIN};
    match half {
        Some(half) => {
            half.va_bits >= VA_BITS_MIN
                && half.va_bits <= VA_BITS_MAX
                && half.has_aligned_root()
                && half.root.as_u64() >> ROOT_BITS == 0
        }
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Ipa;
    use crate::spec::vmsa::Shareability;

    const MAIR_VALUE: u64 = 0x0004_44ff_0000_00ff;

    const fn half(root: u64, granule: Granule, va_bits: u8) -> Half {
        Half {
            root: Ipa::new(root),
            granule,
            va_bits,
            top_byte: TopByte::Checked,
            inner: Cacheability::WriteBack,
            outer: Cacheability::WriteBack,
            shareability: Shareability::Inner,
        }
    }

    fn walk(low: Option<Half>, high: Option<Half>) -> Stage1Walk {
        Stage1Walk {
            asid: Asid::new(0x1234),
            low,
            high,
            output_bits: 44,
            memory_types: MAIR_VALUE,
        }
    }

    /// Assembled by hand from the field positions in §5.4.
    #[test]
    fn a_cd_of_the_low_half_matches_the_specification_bit_for_bit() {
        let low = half(0x40_1234_5000, Granule::Kib4, 48);
        let cd = Cd::live(&walk(Some(low), None), Faults::Abort).expect("a legal CD");
        assert_eq!(
            *cd.words(),
            [
                // ASID | ASET 47, A 46, R 45 | AA64 41 | IPS 4 [34:32] | V 31, EPD1 30
                // | SH0 3 [13:12], OR0 1 [11:10], IR0 1 [9:8] | TG0 0 | T0SZ 16
                0x1234_e204_c000_3510,
                0x40_1234_5000,
                0,
                MAIR_VALUE,
                0,
                0,
                0,
                0,
            ]
        );
        assert_eq!(cd.state(), CdState::Live);
        assert_eq!(cd.asid(), Asid::new(0x1234));
    }

    #[test]
    fn a_cd_of_both_halves_has_two_encodings_of_the_granule() {
        let low = Half {
            top_byte: TopByte::Ignored,
            inner: Cacheability::NonCacheable,
            outer: Cacheability::WriteThrough,
            shareability: Shareability::Outer,
            ..half(0x2_0000, Granule::Kib64, 42)
        };
        let high = half(0x8000, Granule::Kib16, 47);
        let cd = Cd::live(&walk(Some(low), Some(high)), Faults::Stall).expect("a legal CD");
        // TG1 1 [23:22] | T1SZ 17 | SH1 3, OR1 1, IR1 1 | TG0 1 [7:6] | T0SZ 22 | TBI0 38 | S 44
        assert_eq!(cd.words()[0], 0x1234_f244_b551_2856);
        assert_eq!(cd.words()[1..3], [0x2_0000, 0x8000]);
    }

    #[test]
    fn every_granule_has_its_row_in_both_encodings() {
        let rows = [
            (Granule::Kib4, 0b00, 0b10),
            (Granule::Kib16, 0b10, 0b01),
            (Granule::Kib64, 0b01, 0b11),
        ];
        for (granule, tg0, tg1) in rows {
            let half = Some(half(0x10_0000, granule, 39));
            let cd = Cd::live(&walk(half, half), Faults::Abort).expect("a legal CD");
            assert_eq!(cd.words()[0] >> 6 & 3, tg0, "{granule:?}");
            assert_eq!(cd.words()[0] >> 22 & 3, tg1, "{granule:?}");
        }
    }

    #[test]
    fn quieting_changes_word_0_alone_and_only_what_it_must() {
        let low = half(0x40_1234_5000, Granule::Kib4, 48);
        let high = half(0x8000, Granule::Kib16, 47);
        let live = Cd::live(&walk(Some(low), Some(high)), Faults::Stall).expect("a legal CD");
        let quiet = live.quieted();
        assert_eq!(quiet.words()[1..], live.words()[1..]);
        // EPD0 14 and EPD1 30 come; S 44, R 45 and ASET 47 go; A stays.
        let word = live.words()[0];
        assert_eq!(
            quiet.words()[0],
            (word | 1 << 14 | 1 << 30) & !(1 << 44 | 1 << 45 | 1 << 47)
        );
        assert_eq!(quiet.words()[0] >> 46 & 1, 1);
        assert_eq!(quiet.words()[0] >> 31 & 1, 1);
        assert_eq!(quiet.state(), CdState::Quiet);
        assert_eq!(quiet.quieted(), quiet);
    }

    #[test]
    fn a_shape_that_a_cd_cannot_say_is_none() {
        let make = |half| Cd::live(&walk(Some(half), None), Faults::Abort);
        assert!(make(half(0x1000, Granule::Kib4, 48)).is_some());
        assert!(make(half(0x1040, Granule::Kib4, 48)).is_none());
        assert!(make(half(0x1000, Granule::Kib4, 49)).is_none());
        assert!(make(half(0x1000, Granule::Kib4, 24)).is_none());
        assert!(make(half(1 << 51, Granule::Kib4, 48)).is_some());
        assert!(make(half(1 << 52, Granule::Kib4, 48)).is_none());
        let strange = Stage1Walk {
            output_bits: 45,
            ..walk(None, None)
        };
        assert!(Cd::live(&strange, Faults::Abort).is_none());
    }

    #[test]
    fn an_entry_that_is_not_valid_says_where_it_stands_in_bits_that_nothing_uses() {
        for state in [
            CdState::Free,
            CdState::Changing,
            CdState::Lost,
            CdState::Parked,
        ] {
            let word = Cd::invalid_word(state);
            assert_eq!(state_of(word), state);
            assert_eq!(word & Cd::VALID, 0);
        }
        assert_eq!(Cd::invalid_word(CdState::Free), 0);
        assert_eq!(Cd::invalid().state(), CdState::Free);
        assert_eq!(Cd::invalid().used_bits(), [1 << 31, 0, 0, 0, 0, 0, 0, 0]);
    }

    /// §5.4, `EPD0`: T0SZ, TG0, IR0, OR0, SH0 and TTB0 are IGNORED; and so for the other half.
    #[test]
    fn a_half_that_is_not_walked_is_not_used() {
        let low = half(0x40_1234_5000, Granule::Kib4, 48);
        let one = Cd::live(&walk(Some(low), None), Faults::Abort).expect("a legal CD");
        let used = one.used_bits();
        assert_eq!(used[0], !0x3fff_0000 | 1 << 30 | 1 << 31);
        assert_eq!(used[1], u64::MAX);
        assert_eq!(used[2], !0x000f_ffff_ffff_fff0);
        let neither = one.quieted().used_bits();
        assert_eq!(neither[0], !0x3fff_3fff);
        assert_eq!(neither[1], !0x000f_ffff_ffff_fff0);
    }
}
