//! Tags: numbers taken and given back while so many others are out.

use portcullis::space::testing::Numbers;

use crate::arena::Arena;

/// A kind of tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// Its name in reports.
    pub name: &'static str,
    /// How many bits there are.
    pub bits: u8,
    /// How many are out, in the rows.
    pub live: [u32; 3],
}

/// PASIDs, ASIDs and VMIDs; of the last two there are no 10^6.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "pasid",
        bits: 20,
        live: [1, 1_000, 1_000_000],
    },
    Kind {
        name: "asid",
        bits: 16,
        live: [1, 1_000, 65_000],
    },
    Kind {
        name: "vmid",
        bits: 16,
        live: [1, 1_000, 65_000],
    },
];

/// MiB of memory that the records of all numbers of the widest kind take, and some.
pub const ARENA_MIB: usize = 64;

/// Numbers of a kind of which `live` are out, none beside the next.
///
/// Twice as many (or all) went out and every other one came back, so that what is free is scattered.
pub fn with_live(arena: &Arena, bits: u8, live: u32) -> Numbers<'_, Arena> {
    let mut numbers = Numbers::new(arena, bits).expect("there are such numbers");
    let most = (1 << bits) - 1;
    let taken = live.saturating_mul(2).min(most);
    let all: Vec<u32> = (0..taken)
        .map(|_| numbers.take().expect("there are so many"))
        .collect();
    let mut back = all.iter().step_by(2).take((taken - live) as usize);
    back.try_for_each(|number| numbers.put_back(*number))
        .expect("they are out");
    assert_eq!(numbers.taken(), live);
    numbers
}

/// One number goes out and comes back.
pub fn cycle(numbers: &mut Numbers<'_, Arena>) -> u32 {
    let number = numbers.take().expect("one is free");
    numbers.put_back(number).expect("it is out");
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_as_many_as_its_rows_say() {
        let arena = Arena::new(ARENA_MIB);
        for kind in KINDS {
            for live in kind.live {
                let mut numbers = with_live(&arena, kind.bits, live);
                let twice = [cycle(&mut numbers), cycle(&mut numbers)];
                // Of several that came back the oldest goes first.
                assert_eq!(twice[0] == twice[1], live == 1, "{twice:?}");
                assert_eq!(numbers.taken(), live);
                numbers.free();
            }
        }
        assert_eq!(arena.bytes_out(), 0);
    }
}
