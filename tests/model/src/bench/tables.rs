//! Entries and translation tables of the bench, words assembled by hand.

use super::{Bench, SYNC, cfgi_cd, cfgi_ste, s2_page, stage2_word, table};

/// Word 0 of a live context descriptor: T0SZ = 25 (39 bits from level 1), 4 KiB, write-back, inner
/// shareable, EPD1, V, IPS = 40 bits, AA64, R, A, ASET.
pub fn cd_word0(asid: u16) -> u64 {
    25 | 1 << 8
        | 1 << 10
        | 3 << 12
        | 1 << 30
        | 1 << 31
        | 2 << 32
        | 1 << 41
        | 1 << 45
        | 1 << 46
        | 1 << 47
        | u64::from(asid) << 48
}

/// Word 0 of the same descriptor, quiet: no walks, nothing recorded, no global entry matches.
pub fn quiet_word0(asid: u16) -> u64 {
    (cd_word0(asid) | 1 << 14) & !(1 << 45 | 1 << 47)
}

/// A live context descriptor with `root` as TTB0 and MAIR attribute 0 = Normal write-back.
pub fn cd(asid: u16, root: u64) -> [u64; 8] {
    [cd_word0(asid), root, 0, 0xff, 0, 0, 0, 0]
}

/// A nested entry over a linear table of `1 << log2` context descriptors at IPA `contexts`:
/// untagged traffic is refused, MEV = 1.
pub fn ste_nested(vmid: u16, root: u64, contexts: u64, log2: u32) -> [u64; 8] {
    let word0 = 0xf | contexts | u64::from(log2) << 59;
    let word1 = 1 << 2 | 1 << 4 | 3 << 6 | 1 << 19 | 1 << 44;
    [word0, word1, stage2_word(vmid), root, 0, 0, 0, 0]
}

/// A stage-1-only entry over a linear table at `contexts`, EL1, untagged traffic refused.
pub fn ste_stage1(vmid: u16, contexts: u64, log2: u32) -> [u64; 8] {
    let word0 = 0xb | contexts | u64::from(log2) << 59;
    [
        word0,
        1 << 2 | 1 << 4 | 3 << 6 | 1 << 44,
        u64::from(vmid),
        0,
        0,
        0,
        0,
        0,
    ]
}

/// A stage-1 page for everybody: attribute 0, inner shareable, AF, nG.
pub fn s1_page(pa: u64) -> u64 {
    pa | 0b11 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 11
}

impl Bench {
    /// The address of the last-level descriptor for `input` in a 39-bit tree of 4 KiB pages, its
    /// tables made where they are missing. Table addresses are physical and the same as IPAs.
    pub fn leaf(&mut self, root: u64, input: u64) -> u64 {
        let mut at = root + (input >> 30 & 0x1ff) * 8;
        for shift in [21, 12] {
            let word = self.machine.load(at).expect("in memory");
            let next = if word & 1 == 1 {
                word & 0x0000_ffff_ffff_f000
            } else {
                let fresh = self.frames(12);
                self.publish();
                self.store(at, table(fresh));
                fresh
            };
            at = next + (input >> shift & 0x1ff) * 8;
        }
        at
    }

    /// Maps one page of stage 2.
    pub fn map2(&mut self, root: u64, ipa: u64, pa: u64) {
        let at = self.leaf(root, ipa);
        self.store(at, s2_page(pa));
        self.publish();
    }

    /// Maps one page of stage 1.
    pub fn map1(&mut self, root: u64, va: u64, output: u64) {
        let at = self.leaf(root, va);
        self.store(at, s1_page(output));
        self.publish();
    }

    /// Makes a context descriptor live by the architecture's sequence: body, CFGI, SYNC, word 0,
    /// CFGI, SYNC. `at` is its physical address.
    pub fn publish_cd(&mut self, stream: u32, substream: u32, at: u64, words: &[u64; 8]) {
        for (word, &value) in words.iter().enumerate().skip(1) {
            self.store(at + 8 * word as u64, value);
        }
        self.publish();
        self.commands(&[cfgi_cd(stream, substream), SYNC]);
        self.store(at, words[0]);
        self.publish();
        self.commands(&[cfgi_cd(stream, substream), SYNC]);
    }

    /// Replaces word 0 of a stream table entry, and makes the SMMU forget the old one.
    pub fn replace_ste_word0(&mut self, stream: u32, word0: u64) {
        self.store(super::STREAMS + u64::from(stream) * 64, word0);
        self.publish();
        self.commands(&[cfgi_ste(stream), SYNC]);
    }
}
