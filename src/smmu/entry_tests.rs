//! The writer of entries: never a mix, and never a step too many.

extern crate std;

use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// What the hardware makes of an entry, said a second time: not through the code under test.
trait Meaning: Entry + core::fmt::Debug {
    fn meaning(&self) -> [u64; 8];

    /// Whether nothing gets through.
    fn is_closed(&self) -> bool {
        self.meaning()[0] & 0b1001 != 0b1001
    }
}

/// An entry made for the tests: bit 0 of word 0 is V, bit 1 says whether words 1 and 2 count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Toy([u64; 8]);

impl Entry for Toy {
    fn from_words(words: [u64; 8]) -> Self {
        Self(words)
    }

    fn interrupted(&self, _: &Self) -> u64 {
        0
    }

    fn words(&self) -> &[u64; 8] {
        &self.0
    }

    fn used_bits(&self) -> [u64; 8] {
        match self.0[0] & 0b11 {
            0b01 => [0b11, 0, 0, 0, 0, 0, 0, 0],
            0b11 => [0b11, u64::MAX, u64::MAX, 0, 0, 0, 0, 0],
            _ => [1, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

impl Meaning for Toy {
    fn is_closed(&self) -> bool {
        self.0[0] & 1 == 0
    }

    fn meaning(&self) -> [u64; 8] {
        let [word0, a, b, ..] = self.0;
        match (word0 & 1 != 0, word0 & 2 != 0) {
            (false, _) => [0; 8],
            (true, false) => [1, 0, 0, 0, 0, 0, 0, 0],
            (true, true) => [3, a, b, 0, 0, 0, 0, 0],
        }
    }
}

/// §5.2 field by field, in literals.
impl Meaning for Ste {
    fn meaning(&self) -> [u64; 8] {
        let w = self.words();
        if w[0] & 1 == 0 {
            return [0; 8];
        }
        let config = w[0] >> 1 & 7;
        let cont = w[1] & 0x1_e000;
        if config < 4 {
            return [1, cont, 0, 0, 0, 0, 0, 0];
        }
        // DRE, CONT, DCP, PPAR, MEV; EATS; and all above it but what is in the lower half.
        let mut seen = [0xf, 0xffff_ffff_300f_f000, 0, 0, u64::MAX, u64::MAX, 0, 0];
        if config & 1 != 0 {
            // S1ContextPtr and S1CDMax; S1CIR, S1COR, S1CSH, S1PIE, S1MPAM, S1STALLD; S2VMID; S2S.
            seen[0] |= 0xf8ff_ffff_ffff_ffc0;
            seen[1] |= 0x0d00_00fc;
            seen[2] |= 0x0200_0000_0000_ffff;
            if w[0] >> 59 != 0 {
                // S1Fmt, S1DSS.
                seen[0] |= 0x30;
                seen[1] |= 0x3;
            }
        }
        if config == 0b101 {
            // STRW.
            seen[1] |= 0xc000_0000;
        }
        if config & 2 != 0 {
            // S2HWU and S2FWB.
            seen[1] |= 0x0200_0f00;
            seen[2] = u64::MAX;
            seen[3] = u64::MAX;
            seen[6] = u64::MAX;
            seen[7] = u64::MAX;
        }
        core::array::from_fn(|i| w[i] & seen[i])
    }
}

/// §5.4 field by field, in literals.
impl Meaning for Cd {
    fn is_closed(&self) -> bool {
        self.words()[0] & 1 << 31 == 0
    }

    fn meaning(&self) -> [u64; 8] {
        let mut w = *self.words();
        if w[0] & 1 << 31 == 0 {
            return [0; 8];
        }
        if w[0] & 1 << 14 != 0 {
            w[0] &= !0x3fff;
            w[1] &= !0x000f_ffff_ffff_fff0;
        }
        if w[0] & 1 << 30 != 0 {
            w[0] &= !0x3fff_0000;
            w[2] &= !0x000f_ffff_ffff_fff0;
        }
        w
    }
}

/// Walks to `target`, and asserts that whatever mix of the words before and after a step is read,
/// it means what one of the two does, and that each of these is the start, the target, or an abort.
/// Answers what it took.
fn walk<E: Meaning>(from: E, target: E) -> Path {
    let mut current = from;
    let mut taken = Path::default();
    for _ in 0..=MAX_STEPS {
        let before = current;
        let mut words = *current.words();
        match next_step(current, target) {
            Step::Done => {
                assert_eq!(current.meaning(), target.meaning());
                return taken;
            }
            Step::Prepare { words: new, mask } => {
                for i in (0..8).filter(|i| mask & 1 << i != 0) {
                    words[i] = new[i];
                }
                assert_eq!(before.meaning(), E::from_words(words).meaning());
            }
            Step::Switch { index, value } => words[index] = value,
            Step::Interrupt { value } => {
                words[0] = value;
                taken.interrupts = true;
            }
        }
        taken.syncs += 1;
        current = E::from_words(words);
        let known = [from, target].map(|it| it.meaning());
        assert!(known.contains(&current.meaning()) || current.is_closed());
        for mix in 0..=u8::MAX {
            let seen = E::from_words(core::array::from_fn(|i| {
                let one = if mix & 1 << i == 0 { before } else { current };
                one.words()[i]
            }));
            let seen = seen.meaning();
            assert!(
                seen == before.meaning() || seen == current.meaning(),
                "from {from:?} to {target:?} a mix was shown"
            );
        }
    }
    panic!("from {from:?} to {target:?} it never arrives");
}

fn toys() -> Vec<Toy> {
    let mut all = Vec::new();
    for word0 in 0..4 {
        for a in 0..3 {
            for b in 0..3 {
                all.push(Toy([word0, a, b, 0, 0, 0, 0, 0]));
            }
        }
    }
    all
}

/// Whether one step, any stores of it seen in any order, leads from one to the other unmixed.
fn is_safe(from: Toy, to: Toy) -> bool {
    (0..8_u8).all(|mix| {
        let seen = Toy(core::array::from_fn(|i| {
            if mix & 1_u8.wrapping_shl(i as u32) != 0 && i < 3 {
                to.0[i]
            } else {
                from.0[i]
            }
        }));
        [from.meaning(), to.meaning()].contains(&seen.meaning())
    })
}

/// The fewest steps from each of `all` to something that means `goal`, of all there could be, by
/// search; only through what is allowed by `may`.
fn fewest(all: &[Toy], goal: [u64; 8], may: impl Fn(Toy) -> bool) -> BTreeMap<Toy, u8> {
    let mut found: BTreeMap<Toy, u8> = BTreeMap::new();
    let mut queue: VecDeque<Toy> = VecDeque::new();
    for &toy in all.iter().filter(|toy| toy.meaning() == goal) {
        found.insert(toy, 0);
        queue.push_back(toy);
    }
    while let Some(to) = queue.pop_front() {
        let steps = found[&to];
        for &from in all {
            if !found.contains_key(&from) && may(from) && is_safe(from, to) {
                found.insert(from, steps + 1);
                queue.push_back(from);
            }
        }
    }
    found
}

/// Of all sequences of safe steps that there are, none is shorter; and where any that aborts nothing
/// exists, the one taken aborts nothing.
#[test]
fn no_safe_path_is_shorter() {
    let all = toys();
    let mut interrupted = 0;
    for &target in &all {
        for &from in &all {
            let start = from.meaning();
            let is_hitless = |toy: Toy| [start, target.meaning()].contains(&toy.meaning());
            let hitless = fewest(&all, target.meaning(), is_hitless);
            let taken = path(from, target);
            assert_eq!(taken, walk(from, target));
            match hitless.get(&from) {
                Some(&steps) => assert_eq!((taken.syncs, taken.interrupts), (steps, false)),
                None => {
                    let may = |toy: Toy| is_hitless(toy) || toy.meaning() == [0; 8];
                    let fewest = fewest(&all, target.meaning(), may);
                    assert_eq!(Some(&taken.syncs), fewest.get(&from), "{from:?} {target:?}");
                    assert!(taken.interrupts);
                    interrupted += 1;
                }
            }
        }
    }
    assert!(interrupted > 0, "there are pairs that need an interruption");
}

fn word() -> impl Strategy<Value = u64> {
    // Words that are alike are what makes short paths.
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(0x5555_5555_5555_5550),
        any::<u64>()
    ]
}

prop_compose! {
    fn stes()(mut words in prop::array::uniform8(word()), config in 0_u64..16, contexts in 0_u64..3)
        -> Ste
    {
        words[0] = words[0] & !(0xf | 0x1f << 59) | config | contexts << 59;
        Ste::from_words(words)
    }
}

prop_compose! {
    fn cds()(mut words in prop::array::uniform8(word()), bits in 0_u64..8) -> Cd {
        words[0] &= !(1 << 31 | 1 << 14 | 1 << 30);
        words[0] |= (bits & 1) << 31 | (bits >> 1 & 1) << 14 | (bits >> 2) << 30;
        Cd::from_words(words)
    }
}

/// The same entry with some words of another: as entries of one owner are.
fn like<E: Entry>(one: E, other: E, mask: u8) -> E {
    E::from_words(core::array::from_fn(|i| {
        if mask & 1 << i == 0 {
            one.words()[i]
        } else {
            other.words()[i]
        }
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn any_stream_entry_becomes_any_other_without_a_mix(
        from in stes(), other in stes(), mask in any::<u8>()
    ) {
        let target = like(from, other, mask);
        prop_assert_eq!(walk(from, target), path(from, target));
        prop_assert_eq!(walk(target, from), path(target, from));
    }

    #[test]
    fn any_context_becomes_any_other_without_a_mix(
        from in cds(), other in cds(), mask in any::<u8>()
    ) {
        let target = like(from, other, mask);
        prop_assert_eq!(walk(from, target), path(from, target));
        prop_assert_eq!(walk(target, from), path(target, from));
    }
}

mod costs {
    //! What the changes cost that are made of entries and CDs.

    use super::*;
    use crate::addr::{Ipa, Pa};
    use crate::id::{Asid, Vmid};
    use crate::spec::cd::Faults;
    use crate::spec::stage1::{Half, Stage1Walk, TopByte};
    use crate::spec::ste::{CdFormat, CdTable, Untagged};
    use crate::spec::vmsa::{
        Cacheability, Geometry, Granule, Shareability, Stage2Walk, WalkCoherency,
    };

    const NOTHING: Path = Path {
        syncs: 0,
        interrupts: false,
    };
    const ONE: Path = Path {
        syncs: 1,
        interrupts: false,
    };
    const TWO: Path = Path {
        syncs: 2,
        interrupts: false,
    };
    const ROUND: Path = Path {
        syncs: 3,
        interrupts: true,
    };

    fn stage2(vmid: u16, root: u64) -> Stage2Walk {
        Stage2Walk {
            root: Pa::new(root),
            geometry: Geometry::new(Granule::Kib4, 40, 44).expect("a legal geometry"),
            vmid: Vmid::new(vmid),
            coherency: WalkCoherency::Coherent,
            flushes_new_tables: false,
        }
    }

    fn table(at: u64, log2_cds: u8, untagged: Untagged) -> CdTable {
        CdTable::BySubstream {
            at: Ipa::new(at),
            log2_cds,
            format: CdFormat::Leaves4K,
            untagged,
        }
    }

    #[test]
    fn a_stream_goes_where_it_may_in_few_steps() {
        let (one, two) = (stage2(1, 0x8000), stage2(2, 0x1_0000));
        let small = table(0x7f_0000_0000, 8, Untagged::Abort);
        let large = table(0x7f_0001_0000, 16, Untagged::Abort);
        let open = table(0x7f_0000_0000, 8, Untagged::Stage2);
        let (alone, nested) = (Ste::stage2(&one), Ste::nested(&one, &small));
        for closed in [Ste::invalid(), Ste::abort()] {
            assert_eq!(path(closed, alone), TWO);
            assert_eq!(path(closed, nested), TWO);
            assert_eq!(path(alone, closed), ONE);
            assert_eq!(path(nested, closed), ONE);
        }
        // Within one owner: nothing aborts.
        assert_eq!(path(alone, nested), TWO);
        assert_eq!(path(nested, alone), ONE);
        assert_eq!(path(nested, Ste::nested(&one, &large)), ONE);
        assert_eq!(path(nested, Ste::nested(&one, &open)), ONE);
        assert_eq!(path(nested, nested), NOTHING);
        // From one VM to another, were that allowed.
        assert_eq!(path(nested, Ste::nested(&two, &small)), ROUND);
    }

    #[test]
    fn a_context_is_quieted_and_ended_by_one_word() {
        let half = Half {
            root: Ipa::new(0x4000),
            granule: Granule::Kib4,
            va_bits: 48,
            top_byte: TopByte::Checked,
            inner: Cacheability::WriteBack,
            outer: Cacheability::WriteBack,
            shareability: Shareability::Inner,
        };
        let live = |asid, root| {
            let walk = Stage1Walk {
                asid: Asid::new(asid),
                low: Some(Half {
                    root: Ipa::new(root),
                    ..half
                }),
                high: None,
                output_bits: 44,
                memory_types: 0xff,
            };
            Cd::live(&walk, Faults::Abort).expect("a legal CD")
        };
        let one = live(1, 0x4000);
        assert_eq!(path(Cd::invalid(), one), TWO);
        assert_eq!(path(one, Cd::invalid()), ONE);
        assert_eq!(path(one, one.quieted()), ONE);
        assert_eq!(path(one.quieted(), Cd::invalid()), ONE);
        // The ASID alone is one word; with the root it is two.
        assert_eq!(path(one, live(2, 0x4000)), ONE);
        assert_eq!(path(one, live(2, 0x8000)), ROUND);
        // Behind a half that is not walked, the root is not used.
        assert_eq!(path(one.quieted(), live(2, 0x8000)), TWO);
    }
}
