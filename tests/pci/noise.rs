//! A fabric that answers anything.

use super::*;

/// Configuration space that answers anything, differently each time.
pub(super) struct Noise {
    state: AtomicU64,
    accesses: AtomicUsize,
}

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
            accesses: AtomicUsize::new(0),
        }
    }

    fn next(&self) -> u64 {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        let step = 0x9e37_79b9_7f4a_7c15;
        let state = self.state.fetch_add(step, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Registers for &Noise {
    fn read32(&self, offset: usize) -> u32 {
        let word = self.next();
        match (word >> 32 & 7, offset & 0xfff) {
            // Few functions are there, most of them bridges and most of these with low numbers.
            (0..7, 0) => u32::MAX,
            (0..4, 0x0c) => 0x0001_0000,
            (0..6, 0x04) => 0x0010_0000,
            (0..6, 0x18) => word as u32 & 0x0f0f_0f0f,
            (0..2, _) => 0,
            (2, _) => u32::MAX,
            _ => word as u32,
        }
    }

    fn write32(&self, _: usize, _: u32) {
        self.next();
    }

    fn read64(&self, _: usize) -> u64 {
        self.next()
    }

    fn write64(&self, _: usize, _: u64) {
        self.next();
    }
}

#[test]
fn a_fabric_that_answers_anything_is_scanned_to_an_end() {
    let mut listed = 0;
    let mut refused = 0;
    for seed in 0..3000 {
        let noise = Noise::new(seed << 20);
        let bridge = bridge(0, 255);
        let mut found = List::<Function, 64>::new();
        let ended = scan(&Ecam::new(&noise, &bridge), &bridge.windows, &mut found);
        let is_full = Refusal::TooMany { limit: 64 };
        assert!(
            ended == Ok(()) || ended == Err(is_full),
            "{seed}: {ended:?}"
        );
        listed += found.len();
        refused += found
            .iter()
            .filter(|function| function.refused.is_some())
            .count();
        // 256 buses with 32 devices of 8 functions, seen twice, and what is done with 64 of them.
        let accesses = noise.accesses.load(Ordering::Relaxed);
        assert!(
            accesses < 2 * 256 * 256 * 2 + 64 * 200,
            "{seed}: {accesses}"
        );
        for function in &found {
            assert!(
                !function
                    .refused
                    .is_some_and(|refusal| refusal.to_string().is_empty())
            );
        }
    }
    assert!(listed > 3000 && refused > 1000, "{listed} {refused}");
}
