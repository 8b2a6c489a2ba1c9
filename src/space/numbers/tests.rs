use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::hw::testing::HostPlatform;

fn numbers(platform: &HostPlatform, first: u32, log2_end: u8) -> Numbers<'_, HostPlatform> {
    Numbers::new(platform, first, log2_end).expect("there are such")
}

#[test]
fn what_came_back_first_goes_out_first() {
    let platform = HostPlatform::new();
    let mut numbers = numbers(&platform, 1, 20);
    for expected in 1..=9 {
        assert_eq!(numbers.take(Ask::Any), Ok(expected));
    }
    for number in [8, 2, 5] {
        assert_eq!(numbers.put_back(number), Ok(()));
    }
    let again: [_; 4] = core::array::from_fn(|_| numbers.take(Ask::Any));
    assert_eq!(again, [Ok(8), Ok(2), Ok(5), Ok(10)]);
    assert_eq!(numbers.generation(8), 1);
    assert_eq!(numbers.generation(10), 0);
    assert_eq!(numbers.taken(), 10);
}

#[test]
fn few_bits_are_served_from_among_those_that_came_back() {
    let platform = HostPlatform::new();
    let mut numbers = numbers(&platform, 1, 8);
    for _ in 1..256 {
        assert!(numbers.take(Ask::Any).is_ok());
    }
    for number in [200, 9, 255, 3, 15] {
        assert_eq!(numbers.put_back(number), Ok(()));
    }
    assert_eq!(numbers.take(Ask::AtMostBits(4)), Ok(9));
    assert_eq!(numbers.take(Ask::AtMostBits(2)), Ok(3));
    assert_eq!(numbers.take(Ask::AtMostBits(2)), Err(NoNumber::Exhausted));
    assert_eq!(numbers.take(Ask::AtMostBits(99)), Ok(200));
    assert_eq!(numbers.take(Ask::Any), Ok(255));
    assert_eq!(numbers.take(Ask::Any), Ok(15));
    assert_eq!(numbers.take(Ask::Any), Err(NoNumber::Exhausted));
}

#[test]
fn few_bits_are_served_from_fresh_ones_before_too_wide_ones_that_came_back() {
    let platform = HostPlatform::new();
    let mut numbers = numbers(&platform, 1, 8);
    assert_eq!(numbers.take(Ask::Exactly(100)), Ok(100));
    assert_eq!(numbers.put_back(100), Ok(()));
    assert_eq!(numbers.take(Ask::AtMostBits(6)), Ok(1));
    assert_eq!(numbers.take(Ask::AtMostBits(7)), Ok(100));
    assert_eq!(numbers.take(Ask::AtMostBits(1)), Err(NoNumber::Exhausted));
    assert_eq!(numbers.take(Ask::AtMostBits(0)), Err(NoNumber::OutOfRange));
}

#[test]
fn what_is_not_there_or_not_taken_is_refused_by_name() {
    let platform = HostPlatform::new();
    let mut numbers = numbers(&platform, 1, 8);
    for number in [0, 256, 257, 1 << 20, u32::MAX] {
        assert_eq!(
            numbers.take(Ask::Exactly(number)),
            Err(NoNumber::OutOfRange)
        );
        assert_eq!(numbers.put_back(number), Err(NotTaken));
        numbers.set_note(number, 7);
        assert_eq!((numbers.note(number), numbers.generation(number)), (0, 0));
    }
    assert_eq!(numbers.put_back(9), Err(NotTaken));
    assert_eq!(numbers.take(Ask::Exactly(9)), Ok(9));
    assert_eq!(numbers.take(Ask::Exactly(9)), Err(NoNumber::Taken));
    assert_eq!(numbers.put_back(9), Ok(()));
    assert_eq!(numbers.put_back(9), Err(NotTaken));
    for (first, log2_end) in [(1, 21), (1, 0), (256, 8), (u32::MAX, 20), (0, 255)] {
        let refused = Numbers::new(&platform, first, log2_end).map(|_| ());
        assert_eq!(
            refused,
            Err(NoNumber::OutOfRange),
            "{first} to 2^{log2_end}"
        );
    }
}

#[test]
fn a_note_lasts_as_long_as_its_owner() {
    let platform = HostPlatform::new();
    let mut numbers = numbers(&platform, 1, 16);
    assert_eq!(numbers.take(Ask::Any), Ok(1));
    assert_eq!(numbers.note(1), 0);
    numbers.set_note(1, u64::MAX);
    assert_eq!(numbers.note(1), u64::MAX);
    assert_eq!(numbers.put_back(1), Ok(()));
    numbers.set_note(1, 5);
    assert_eq!(numbers.note(1), 0);
    assert_eq!(numbers.take(Ask::Any), Ok(1));
    assert_eq!(numbers.note(1), 0);
}

#[test]
fn a_number_retires_after_its_last_generation() {
    let platform = HostPlatform::new();
    let mut numbers = numbers(&platform, 1, 2);
    assert_eq!(numbers.take(Ask::Any), Ok(1));
    numbers.set_life(1, TAKEN, LAST_GENERATION - 1);
    assert_eq!(numbers.put_back(1), Ok(()));
    assert_eq!(numbers.take(Ask::Any), Ok(1));
    assert_eq!(numbers.generation(1), LAST_GENERATION);
    assert_eq!(numbers.put_back(1), Ok(()));
    assert_eq!(numbers.take(Ask::Any), Ok(2));
    assert_eq!(numbers.take(Ask::Any), Ok(3));
    assert_eq!(numbers.take(Ask::Any), Err(NoNumber::Exhausted));
    assert_eq!(numbers.take(Ask::Exactly(1)), Err(NoNumber::Retired));
    assert_eq!(numbers.put_back(1), Err(NotTaken));
    assert_eq!(numbers.taken(), 2);
}

#[test]
fn memory_comes_with_the_numbers() {
    let platform = HostPlatform::new();
    let mut small = numbers(&platform, 1, 8);
    assert_eq!(small.size_bytes(), 0);
    while small.take(Ask::Any).is_ok() {}
    assert_eq!((small.taken(), small.size_bytes()), (255, 2 << 12));
    small.free();
    let mut large = numbers(&platform, 1, 20);
    for expected in 1..128 {
        assert_eq!(large.take(Ask::Any), Ok(expected));
    }
    assert_eq!(large.size_bytes(), 2 << 12);
    platform.fail_after(Some(0));
    let no_frames = Err(NoNumber::NoFrames { log2_bytes: 12 });
    assert_eq!(large.take(Ask::Any), no_frames);
    assert_eq!(large.take(Ask::Exactly(500)), no_frames);
    assert_eq!(large.put_back(5), Ok(()));
    assert_eq!(large.take(Ask::Any), Ok(5));
    platform.fail_after(None);
    assert_eq!(large.take(Ask::Any), Ok(128));
    assert_eq!(large.take(Ask::Exactly((1 << 20) - 1)), Ok((1 << 20) - 1));
    assert_eq!(large.size_bytes(), 5 << 12);
    large.free();
    assert_eq!(platform.bytes_out(), 0);
}

/// The rules as they are said, with no thought of time or memory.
struct Reference {
    first: u32,
    end: u32,
    taken: BTreeMap<u32, u64>,
    back: VecDeque<u32>,
    was_out: Vec<bool>,
    generations: BTreeMap<u32, u64>,
}

impl Reference {
    fn take(&mut self, ask: Ask) -> Result<u32, NoNumber> {
        let end = match ask {
            Ask::Exactly(number) if !(self.first..self.end).contains(&number) => {
                return Err(NoNumber::OutOfRange);
            }
            Ask::Exactly(number) if self.taken.contains_key(&number) => {
                return Err(NoNumber::Taken);
            }
            Ask::Exactly(number) => {
                self.back.retain(|back| *back != number);
                return Ok(self.given(number));
            }
            Ask::AtMostBits(bits) => self
                .end
                .min(1_u32.checked_shl(bits.into()).unwrap_or(self.end)),
            Ask::Any => self.end,
        };
        if self.first >= end {
            return Err(NoNumber::OutOfRange);
        }
        if let Some(at) = self.back.iter().position(|number| *number < end) {
            let number = self.back.remove(at).expect("it was found");
            return Ok(self.given(number));
        }
        match (self.first..end).find(|number| !self.was_out[*number as usize]) {
            Some(number) => Ok(self.given(number)),
            None => Err(NoNumber::Exhausted),
        }
    }

    fn given(&mut self, number: u32) -> u32 {
        self.was_out[number as usize] = true;
        self.taken.insert(number, 0);
        number
    }

    fn put_back(&mut self, number: u32) -> Result<(), NotTaken> {
        self.taken.remove(&number).ok_or(NotTaken)?;
        self.back.push_back(number);
        *self.generations.entry(number).or_default() += 1;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take(Ask),
    /// Puts back one of those taken.
    PutBack(prop::sample::Index),
    PutBackNumber(u32),
    Note(u32, u64),
}

fn step(end: u32) -> impl Strategy<Value = Step> {
    // Neighbours and the borders of bit lengths are where runs and queues meet.
    let number = prop_oneof![0..end + 2, 0..24_u32.min(end), (end - end.min(9)..end)];
    prop_oneof![
        4 => Just(Step::Take(Ask::Any)),
        3 => (0..9_u8).prop_map(|bits| Step::Take(Ask::AtMostBits(bits))),
        5 => number.clone().prop_map(|number| Step::Take(Ask::Exactly(number))),
        8 => any::<prop::sample::Index>().prop_map(Step::PutBack),
        1 => number.clone().prop_map(Step::PutBackNumber),
        2 => (number, any::<u64>()).prop_map(|(number, note)| Step::Note(number, note)),
    ]
}

fn program() -> impl Strategy<Value = (u32, u8, Vec<Step>)> {
    (0..4_u32, 2..9_u8).prop_flat_map(|(first, log2_end)| {
        let steps = prop::collection::vec(step(1 << log2_end), 1..400);
        (Just(first), Just(log2_end), steps)
    })
}

proptest! {
    #[test]
    fn it_does_what_the_rules_say((first, log2_end, steps) in program()) {
        let end = 1 << log2_end;
        let platform = HostPlatform::new();
        let mut numbers = numbers(&platform, first, log2_end);
        let mut reference = Reference {
            first,
            end,
            taken: BTreeMap::new(),
            back: VecDeque::new(),
            was_out: std::vec![false; end as usize],
            generations: BTreeMap::new(),
        };
        for step in steps {
            match step {
                Step::Take(ask) => prop_assert_eq!(numbers.take(ask), reference.take(ask)),
                Step::PutBack(which) if !reference.taken.is_empty() => {
                    let which = which.index(reference.taken.len());
                    let number = *reference.taken.keys().nth(which).expect("one of them");
                    prop_assert_eq!(numbers.put_back(number), reference.put_back(number));
                }
                Step::PutBack(_) => {}
                Step::PutBackNumber(number) => {
                    prop_assert_eq!(numbers.put_back(number), reference.put_back(number));
                }
                Step::Note(number, note) => {
                    numbers.set_note(number, note);
                    if let Some(noted) = reference.taken.get_mut(&number) {
                        *noted = note;
                    }
                }
            }
            prop_assert_eq!(numbers.taken() as usize, reference.taken.len());
            for number in 0..end + 2 {
                let note = reference.taken.get(&number).copied().unwrap_or(0);
                let generation = reference.generations.get(&number).copied().unwrap_or(0);
                prop_assert_eq!(numbers.note(number), note);
                prop_assert_eq!(numbers.generation(number), generation);
            }
        }
        numbers.free();
        prop_assert_eq!(platform.bytes_out(), 0);
    }
}

/// How many words of memory `work` touches, pointers to them among them.
fn touched<'p, R>(
    numbers: &mut Numbers<'p, HostPlatform>,
    work: impl FnOnce(&mut Numbers<'p, HostPlatform>) -> R,
) -> (u64, R) {
    let before = numbers.records.touched();
    let result = work(numbers);
    (numbers.records.touched() - before, result)
}

/// The words that a put back and a take touch, at each count of taken numbers.
fn words_at(live: &[u32]) -> Vec<[u64; 4]> {
    let platform = HostPlatform::new();
    let mut numbers = numbers(&platform, 1, 20);
    let mut counts = Vec::new();
    for &live in live {
        while numbers.taken() + 1 < live {
            numbers.take(Ask::Any).expect("there are more");
        }
        let (fresh, number) = touched(&mut numbers, |numbers| numbers.take(Ask::Any));
        let number = number.expect("there are more");
        assert_eq!(numbers.taken(), live);
        let (back, _) = touched(&mut numbers, |numbers| numbers.put_back(number));
        let (any, again) = touched(&mut numbers, |numbers| numbers.take(Ask::Any));
        assert_eq!(again, Ok(number));
        assert_eq!(numbers.put_back(number), Ok(()));
        let (exactly, again) = touched(&mut numbers, |numbers| numbers.take(Ask::Exactly(number)));
        assert_eq!(again, Ok(number));
        counts.push([fresh, back, any, exactly]);
    }
    counts
}

#[test]
fn as_many_words_are_touched_at_one_a_thousand_and_a_million() {
    let mut counts = words_at(&[1, 1000, 100_000, (1 << 20) - 2]);
    // The first of all numbers takes the pages that the next ones find.
    assert!(counts[0][0] <= counts[1][0]);
    counts[0][0] = counts[1][0];
    assert!(counts.iter().all(|count| count == &counts[0]), "{counts:?}");
    assert_eq!(counts[0], [12, 15, 12, 12]);
}

/// Whatever the order in which a million numbers come and go, and whatever is asked for.
#[test]
fn no_step_touches_more_than_forty_words() {
    let platform = HostPlatform::new();
    let mut numbers = numbers(&platform, 1, 20);
    let (mut most, mut random) = (0, 1_u32);
    for round in 0..3 * 1_000_000_u32 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = random >> 12;
        let (words, _) = touched(&mut numbers, |numbers| match round % 5 {
            0 | 1 => numbers.take(Ask::Exactly(number)).is_ok(),
            2 => numbers.take(Ask::Any).is_ok(),
            3 => numbers
                .take(Ask::AtMostBits(12 + (number % 8) as u8))
                .is_ok(),
            _ => numbers.put_back(number).is_ok(),
        });
        most = most.max(words);
    }
    assert!(numbers.taken() > 800_000, "{}", numbers.taken());
    assert!(most <= 40, "{most}");
}

#[test]
fn a_run_of_any_length_is_passed_over_in_one_step() {
    let platform = HostPlatform::new();
    let mut steps = Vec::new();
    for length in [1, 1000, 100_000] {
        let mut numbers = numbers(&platform, 1, 20);
        // Upwards, downwards, and what closes the gap.
        let middle = 10 + length;
        for number in (10..middle).chain((middle + 1..middle + length).rev()) {
            assert_eq!(numbers.take(Ask::Exactly(number)), Ok(number));
        }
        assert_eq!(numbers.take(Ask::Exactly(middle)), Ok(middle));
        for expected in 1..9 {
            assert_eq!(numbers.take(Ask::Any), Ok(expected));
        }
        let (words, number) = touched(&mut numbers, |numbers| numbers.take(Ask::Any));
        assert_eq!(number, Ok(9));
        steps.push(words);
        assert_eq!(numbers.take(Ask::Any), Ok(middle + length));
        numbers.free();
    }
    assert!(steps.iter().all(|step| *step == steps[0]), "{steps:?}");
}
