use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::hw::testing::HostPlatform;

const fn stream(number: u32) -> StreamId {
    StreamId::new(number)
}

#[test]
fn a_stream_is_found_by_its_smmu_and_its_number() {
    let platform = HostPlatform::new();
    let mut map = StreamMap::new(&platform);
    assert_eq!((map.get(0, stream(0)), map.size_bytes()), (None, 0));
    assert_eq!(map.remove(0, stream(0)), None);
    assert_eq!(map.insert(0, stream(0), 5), Ok(()));
    assert_eq!(map.insert(1, stream(0), 6), Ok(()));
    assert_eq!(map.insert(255, stream(u32::MAX), u32::MAX), Ok(()));
    let present = Err(NotInserted::Present { slot: 5 });
    assert_eq!(map.insert(0, stream(0), 9), present);
    assert_eq!(map.get(0, stream(0)), Some(5));
    assert_eq!(map.get(1, stream(0)), Some(6));
    assert_eq!(map.get(0, stream(1)), None);
    assert_eq!(map.get(255, stream(u32::MAX)), Some(u32::MAX));
    assert_eq!(map.remove(0, stream(0)), Some(5));
    assert_eq!(map.remove(0, stream(0)), None);
    assert_eq!((map.len(), map.size_bytes()), (2, 1 << 12));
    map.free();
    assert_eq!(platform.bytes_out(), 0);
}

#[test]
fn a_refusal_changes_nothing() {
    let platform = HostPlatform::new();
    let mut map = StreamMap::new(&platform);
    platform.fail_after(Some(0));
    let no_frames = |log2_bytes| Err(NotInserted::NoFrames { log2_bytes });
    assert_eq!(map.insert(0, stream(1), 1), no_frames(12));
    platform.fail_after(Some(1));
    for number in 0..192 {
        assert_eq!(map.insert(0, stream(number), number), Ok(()));
    }
    assert_eq!(map.insert(0, stream(192), 192), no_frames(13));
    assert_eq!((map.len(), map.size_bytes()), (192, 1 << 12));
    platform.fail_after(None);
    assert_eq!(map.insert(0, stream(192), 192), Ok(()));
    assert_eq!(map.size_bytes(), 1 << 13);
    for number in 0..=192 {
        assert_eq!(map.get(0, stream(number)), Some(number));
    }
}

/// The farthest that an entry lies from its home, where entries lie as they should.
fn farthest(map: &StreamMap<'_, HostPlatform>) -> usize {
    let table = map.table().expect("it has entries");
    let mut farthest = 0;
    for place in 0..table.places() {
        let (here, next) = (table.key(place), table.wrap(place + 1));
        let at = |place| match table.key(place) {
            0 => 0,
            key => table.distance(key, place) + 1,
        };
        assert!(
            at(next) <= at(place) + 1,
            "{here:x} before {:x}",
            table.key(next)
        );
        farthest = farthest.max(at(place));
    }
    farthest
}

#[test]
fn a_search_is_short_among_many_streams_however_they_are_numbered() {
    // As functions of one bus after the other; one function of each device; spread; many SMMUs.
    let numberings: [fn(u32) -> (u8, StreamId); 4] = [
        |n| (0, stream(n)),
        |n| (3, stream(n << 3)),
        |n| (0, stream(n.wrapping_mul(0x9e37_79b9))),
        |n| (n as u8, stream(n >> 8)),
    ];
    for numbering in numberings {
        let platform = HostPlatform::new();
        let mut map = StreamMap::new(&platform);
        for n in 0..3 << 16 {
            let (smmu, stream) = numbering(n);
            assert_eq!(map.insert(smmu, stream, n), Ok(()));
        }
        // Just before it would grow: three quarters full.
        assert_eq!(map.size_bytes(), 4 << 20);
        let farthest = farthest(&map);
        assert!(farthest <= 24, "{farthest}");
        for n in 0..3 << 16 {
            let (smmu, stream) = numbering(n);
            assert_eq!(map.get(smmu, stream), Some(n));
        }
        for n in 0..3 << 16 {
            let (smmu, stream) = numbering(n);
            assert_eq!(map.remove(smmu, stream), Some(n));
        }
        assert_eq!(map.table().map(|table| table.entries().count()), Some(0));
    }
}

/// StreamIDs with this home in a table of 2^14 places, and so with one in each smaller table.
fn chosen(home: u64, count: usize) -> Vec<StreamId> {
    (0..)
        .map(stream)
        .filter(|stream| spread(key(0, *stream)) >> 50 == home)
        .take(count)
        .collect()
}

#[test]
fn nothing_is_moved_on_so_far_that_it_is_not_found() {
    let platform = HostPlatform::new();
    let mut map = StreamMap::new(&platform);
    // Neighbours in the smallest table of 2^8 places.
    let (low, high) = (chosen(1 << 6, 2), chosen(2 << 6, PROBES));
    let streams: Vec<_> = high.into_iter().chain(low).collect();
    for (slot, stream) in (0..).zip(&streams) {
        assert_eq!(map.insert(0, *stream, slot), Ok(()));
    }
    assert_eq!(map.size_bytes(), 1 << 13);
    for (slot, stream) in (0..).zip(&streams) {
        assert_eq!(map.get(0, *stream), Some(slot));
    }
}

#[test]
fn chosen_streams_make_no_search_longer_and_no_table_huge() {
    let platform = HostPlatform::new();
    let mut map = StreamMap::new(&platform);
    let streams = chosen(77, PROBES + 2);
    for (slot, stream) in (0..).zip(&streams[..PROBES]) {
        assert_eq!(map.insert(0, *stream, slot), Ok(()));
    }
    assert_eq!((farthest(&map), map.size_bytes()), (PROBES, 1 << 12));
    // The table grows as far as is in proportion, and not further.
    let bytes = platform.bytes_out();
    assert_eq!(map.insert(0, streams[PROBES], 1), Err(NotInserted::Crowded));
    assert_eq!((platform.bytes_out(), map.len() as usize), (bytes, PROBES));
    assert_eq!(map.get(0, streams[PROBES + 1]), None);
    for (slot, stream) in (0..).zip(&streams[..PROBES]) {
        assert_eq!(map.get(0, *stream), Some(slot));
    }
    // One that goes makes room for one that comes.
    assert_eq!(map.remove(0, streams[20]), Some(20));
    assert_eq!(map.insert(0, streams[PROBES], 1), Ok(()));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(usize, u32),
    Remove(usize),
}

proptest! {
    /// Among streams of which half have the same home, so that clusters meet and wrap around.
    #[test]
    fn it_behaves_as_a_map_does(
        steps in prop::collection::vec(
            prop_oneof![
                3 => (0..80_usize, any::<u32>()).prop_map(|(n, slot)| Step::Insert(n, slot)),
                2 => (0..80_usize).prop_map(Step::Remove),
            ],
            1..400,
        ),
        last_home in any::<bool>(),
    ) {
        let platform = HostPlatform::new();
        let mut map = StreamMap::new(&platform);
        let mut expected = BTreeMap::new();
        let home = if last_home { 255 } else { 128 };
        let crowded = (0..).map(stream).filter(|stream| spread(key(0, *stream)) >> 56 == home);
        let near = (0..)
            .map(|n| stream(1 << 30 | n))
            .filter(|stream| (spread(key(0, *stream)) >> 56).wrapping_sub(home) & 0xff < 8);
        let streams: Vec<_> = crowded.take(40).chain(near.take(40)).collect();
        for step in steps {
            match step {
                Step::Insert(which, slot) => {
                    let stream = streams[which];
                    let result = map.insert(0, stream, slot);
                    match expected.get(&stream) {
                        Some(&slot) => {
                            prop_assert_eq!(result, Err(NotInserted::Present { slot }));
                        }
                        None => {
                            prop_assert_eq!(result, Ok(()));
                            expected.insert(stream, slot);
                        }
                    }
                }
                Step::Remove(which) => {
                    let stream = streams[which];
                    prop_assert_eq!(map.remove(0, stream), expected.remove(&stream));
                }
            }
            prop_assert_eq!(map.len() as usize, expected.len());
            for stream in &streams {
                prop_assert_eq!(map.get(0, *stream), expected.get(stream).copied());
            }
        }
        map.free();
        prop_assert_eq!(platform.bytes_out(), 0);
    }
}
