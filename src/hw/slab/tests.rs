use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::testing::HostPlatform;
use super::*;

fn inserted<T>(slab: &mut Slab<'_, HostPlatform, T>, value: T) -> Key<T> {
    match slab.insert(value) {
        Ok(key) => key,
        Err((_, why)) => panic!("no room: {why:?}"),
    }
}

#[test]
fn a_record_is_found_by_its_key_alone() {
    let platform = HostPlatform::new();
    let mut slab = Slab::new(&platform);
    assert_eq!((slab.size_bytes(), platform.bytes_out()), (0, 0));
    let a = inserted(&mut slab, Box::new(1));
    let b = inserted(&mut slab, Box::new(2));
    assert_eq!((a.slot(), a.generation()), (0, 1));
    assert_eq!((b.slot(), b.generation()), (1, 1));
    if let Some(value) = slab.get_mut(a) {
        **value = 10;
    }
    assert_eq!(slab.get(a).map(|value| **value), Some(10));
    assert_eq!(slab.remove(a), Some(Box::new(10)));
    assert_eq!(slab.remove(a), None);
    let c = inserted(&mut slab, Box::new(3));
    assert_eq!((c.slot(), c.generation()), (0, 2));
    assert_eq!(slab.get(a), None);
    assert_eq!(slab.get_mut(a), None);
    assert_eq!(slab.key_at(0), Some(c));
    assert_eq!(slab.key_at(2), None);
    assert_eq!(slab.keys().collect::<Vec<_>>(), [c, b]);
    let mut slab = slab.free().expect_err("it has records");
    assert_eq!(slab.remove(b), Some(Box::new(2)));
    assert_eq!(slab.remove(c), Some(Box::new(3)));
    assert!(slab.free().is_ok());
    assert_eq!(platform.bytes_out(), 0);
}

#[test]
fn a_forged_key_finds_nothing() {
    let platform = HostPlatform::new();
    let mut slab = Slab::new(&platform);
    let key = inserted(&mut slab, 7_u64);
    let second = inserted(&mut slab, 8);
    slab.remove(second);
    let slots = [0, 1, 2, 254, 255, 256, 1 << 20, u32::MAX - 1, u32::MAX];
    let generations = [
        0,
        1,
        2,
        3,
        4,
        1 << 46,
        (1 << 46) + 1,
        1 << 48,
        (1 << 62) + 1,
        u64::MAX,
    ];
    for (slot, generation) in slots
        .into_iter()
        .flat_map(|slot| generations.map(|generation| (slot, generation)))
    {
        let forged = Key::from_parts(slot, generation);
        if forged != key {
            assert_eq!(slab.get(forged), None, "{forged:?}");
            assert_eq!(slab.get_mut(forged), None, "{forged:?}");
            assert_eq!(slab.remove(forged), None, "{forged:?}");
        }
    }
    assert_eq!(slab.get(key), Some(&7));
    assert_eq!(slab.len(), 1);
}

#[test]
fn a_slot_retires_after_its_last_generation() {
    let platform = HostPlatform::new();
    let mut slab = Slab::starting_at(&platform, LAST_GENERATION - 1);
    let first = inserted(&mut slab, 'a');
    assert_eq!(slab.remove(first), Some('a'));
    let last = inserted(&mut slab, 'b');
    assert_eq!((last.slot(), last.generation()), (0, (1 << 48) - 1));
    assert_eq!(slab.remove(last), Some('b'));
    assert_eq!(slab.key_at(0), None);
    let next = inserted(&mut slab, 'c');
    assert_eq!((next.slot(), next.generation()), (1, (1 << 48) - 2));
    assert_eq!(slab.remove(next), Some('c'));
    assert!(slab.free().is_ok());
    assert_eq!(platform.bytes_out(), 0);
}

/// A record of which the smallest chunk has one.
type Large = [u64; 400];

#[test]
fn a_chunk_with_a_retired_slot_stays() {
    let platform = HostPlatform::new();
    let mut slab = Slab::<_, Large>::starting_at(&platform, LAST_GENERATION);
    let keys: Vec<_> = (0..7).map(|n| inserted(&mut slab, [n; 400])).collect();
    assert_eq!(slab.size_bytes(), 7 << 12);
    for key in keys {
        assert_eq!(slab.remove(key), Some([u64::from(key.slot()); 400]));
    }
    assert_eq!((slab.len(), slab.size_bytes()), (0, 7 << 12));
    let key = inserted(&mut slab, [7; 400]);
    assert_eq!((key.slot(), slab.size_bytes()), (7, 15 << 12));
}

#[test]
fn an_empty_chunk_goes_back_and_its_keys_stay_stale() {
    let platform = HostPlatform::new();
    let mut slab = Slab::<_, Large>::new(&platform);
    let mut stale = Vec::new();
    for round in 1..5 {
        let keys: Vec<_> = (0..7).map(|n| inserted(&mut slab, [n; 400])).collect();
        assert_eq!(platform.bytes_out(), 7 << 12, "round {round}");
        for key in &stale {
            assert_eq!(slab.get(*key), None, "{key:?} in round {round}");
        }
        for key in keys {
            assert!(slab.remove(key).is_some());
            stale.push(key);
        }
        assert_eq!(platform.bytes_out(), 1 << 12, "round {round}");
    }
}

#[test]
fn memory_is_not_taken_and_given_back_at_each_step_over_the_border() {
    let platform = HostPlatform::new();
    let mut slab = Slab::<_, Large>::new(&platform);
    let keys: Vec<_> = (0..7).map(|n| inserted(&mut slab, [n; 400])).collect();
    let before = platform.allocations();
    for n in 0..100 {
        let key = inserted(&mut slab, [n; 400]);
        assert!(slab.remove(key).is_some());
    }
    assert_eq!(platform.allocations() - before, 1);
    // Half of the topmost chunk's room is elsewhere: now it goes.
    for key in &keys[..3] {
        assert!(slab.remove(*key).is_some());
    }
    assert_eq!(slab.size_bytes(), 15 << 12);
    assert!(slab.remove(keys[3]).is_some());
    assert_eq!(slab.size_bytes(), 7 << 12);
}

#[test]
fn a_reserved_record_needs_no_memory() {
    let platform = HostPlatform::new();
    let mut slab = Slab::<_, Large>::new(&platform);
    let first = inserted(&mut slab, [0; 400]);
    slab.reserve().expect("memory");
    platform.fail_after(Some(0));
    let second = inserted(&mut slab, [1; 400]);
    slab.reserve().expect("there is room for a third");
    // What it was reserved in goes back, as there is other room now.
    slab.remove(first);
    slab.remove(second);
    assert_eq!(slab.size_bytes(), 1 << 12);
    let third = inserted(&mut slab, [2; 400]);
    assert_eq!((third.slot(), third.generation()), (0, 2));
    let no_frames = NoRoom::NoFrames { log2_bytes: 13 };
    assert_eq!(slab.reserve(), Err(no_frames));
    assert_eq!(slab.insert([3; 400]), Err(([3; 400], no_frames)));
    assert_eq!((slab.len(), slab.size_bytes()), (1, 1 << 12));
    assert_eq!(slab.keys().collect::<Vec<_>>(), [third]);
}

/// 2^20 records, each found by its own key; the memory per record is its size and a word.
#[test]
fn a_million_records_are_all_found() {
    const COUNT: u32 = 1 << 20;
    let platform = HostPlatform::new();
    let mut slab = Slab::new(&platform);
    for n in 0..COUNT {
        assert_eq!(inserted(&mut slab, u64::from(n) * 3).slot(), n);
    }
    assert_eq!(slab.len(), COUNT);
    assert!(slab.size_bytes() <= 2 * 16 * u64::from(COUNT));
    for (n, (key, value)) in (0..).zip(slab.iter()) {
        assert_eq!((key.slot(), *value), (n, u64::from(n) * 3));
    }
    for n in 0..COUNT {
        let key = Key::from_parts(n, 1);
        assert_eq!(slab.remove(key), Some(u64::from(n) * 3));
    }
    assert_eq!(slab.size_bytes(), 4096);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert,
    /// Removes the record of this one of all keys ever given, whether it is there or not.
    Remove(prop::sample::Index),
    FailFrom(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Insert),
        7 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => any::<bool>().prop_map(Step::FailFrom),
    ];
    prop::collection::vec(step, 1..300)
}

/// A record that says when it is dropped, and is large enough that chunks come and go.
struct Counted<'a>(u64, &'a core::cell::Cell<i64>, [u8; 1000]);
impl Drop for Counted<'_> {
    fn drop(&mut self) {
        assert!(self.2.iter().all(|byte| *byte == self.0 as u8));
        self.1.set(self.1.get() - 1);
    }
}

proptest! {
    #[test]
    fn it_behaves_as_a_map_does(steps in steps()) {
        let alive = core::cell::Cell::new(0);
        let platform = HostPlatform::new();
        let mut slab = Slab::new(&platform);
        let mut map = BTreeMap::new();
        let mut keys: Vec<Key<Counted<'_>>> = Vec::new();
        for (number, step) in (0_u64..).zip(steps) {
            match step {
                Step::Insert => {
                    alive.set(alive.get() + 1);
                    if let Ok(key) = slab.insert(Counted(number, &alive, [number as u8; 1000])) {
                        prop_assert!(!keys.contains(&key), "{key:?} was given before");
                        keys.push(key);
                        map.insert((key.slot(), key.generation()), number);
                    }
                }
                Step::Remove(which) if !keys.is_empty() => {
                    let key = *which.get(&keys);
                    let expected = map.remove(&(key.slot(), key.generation()));
                    prop_assert_eq!(slab.remove(key).map(|value| value.0), expected);
                }
                Step::Remove(_) => {}
                Step::FailFrom(fails) => platform.fail_after(fails.then_some(0)),
            }
            let found: Vec<_> = slab
                .iter()
                .map(|(key, value)| ((key.slot(), key.generation()), value.0))
                .collect();
            let expected: Vec<_> = map.iter().map(|(key, value)| (*key, *value)).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(slab.len() as usize, map.len());
            prop_assert_eq!(alive.get(), map.len() as i64);
            prop_assert_eq!(slab.size_bytes(), platform.bytes_out());
            for key in &keys {
                let expected = map.get(&(key.slot(), key.generation()));
                prop_assert_eq!(slab.get(*key).map(|value| &value.0), expected);
            }
        }
        for key in keys {
            slab.remove(key);
        }
        prop_assert!(slab.free().is_ok());
        prop_assert_eq!((platform.bytes_out(), alive.get()), (0, 0));
    }
}
