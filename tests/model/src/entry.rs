//! Live entries: whether the SMMU could see a mix of old and new words, and whether entries that
//! share tags agree (§3.17, §3.21.3).

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::bits::{bit, field, mask};
use crate::cd;
use crate::command::Command;
use crate::core::Core;
use crate::ste::World;
use crate::story::Origin;
use crate::violation::Rule;

/// A stream table entry (without SubstreamID) or a context descriptor.
type Key = (u32, Option<u32>);

/// The values that the words of one entry have had since it was last invalidated and synced.
#[derive(Clone, Debug, Default)]
struct History {
    /// By word: value and the step from which it was there, oldest first.
    words: [Vec<(u64, u64)>; 8],
}

/// What is known of entries that change.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    changed: FxHashMap<Key, History>,
    /// Entries to compare with those of the same tags at the next SYNC.
    unchecked: BTreeSet<Key>,
    by_asid: FxHashMap<(World, u16, u16), BTreeSet<(u32, u32)>>,
    by_vmid: FxHashMap<u16, BTreeSet<u32>>,
}

/// Which bits of a stream table entry the SMMU looks at, word 0 being `word0`.
fn used_ste(word0: u64) -> [u64; 8] {
    if !bit(word0, 0) {
        return [1, 0, 0, 0, 0, 0, 0, 0];
    }
    let config = field(word0, 3, 1);
    if config & 4 == 0 {
        return [0xf, 0, 0, 0, 0, 0, 0, 0];
    }
    let (s1, s2) = (config & 1 == 1, config & 2 == 2);
    let mut used = [0xf, mask(51, 32) | 1 << 19, 0, 0, 0, 0, 0, 0];
    if s1 {
        used[0] = u64::MAX;
        used[1] |= 0xff | 1 << 18 | 1 << 24 | 1 << 26 | 1 << 27;
        used[2] |= 0xffff;
    }
    if s1 && !s2 {
        used[1] |= mask(31, 30);
    }
    if s1 || s2 {
        used[1] |= mask(29, 28);
    }
    if s2 {
        used[1] |= 1 << 25;
        used[2] = u64::MAX;
        used[3] = u64::MAX;
    }
    used
}

/// Which bits of a context descriptor the SMMU looks at, word 0 being `word0`.
fn used_cd(word0: u64) -> [u64; 8] {
    if !bit(word0, 31) {
        return [1 << 31, 0, 0, 0, 0, 0, 0, 0];
    }
    let half = |is_off| if is_off { 0 } else { u64::MAX };
    let (lower, upper) = (half(bit(word0, 14)), half(bit(word0, 30)));
    [u64::MAX, lower, upper, lower | upper, 0, 0, 0, 0]
}

impl History {
    /// Whether a mix of words could be read that was never the whole entry.
    fn can_mix(
        &self,
        now: &[u64; 8],
        used: fn(u64) -> [u64; 8],
        is_valid: fn(u64) -> bool,
    ) -> bool {
        let firsts: Vec<u64> = if self.words[0].is_empty() {
            vec![now[0]]
        } else {
            self.words[0].iter().map(|(value, _)| *value).collect()
        };
        let valid = firsts.iter().copied().filter(|word| is_valid(*word));
        valid.map(used).any(|mask| {
            let first_changes = distinct(
                firsts
                    .iter()
                    .map(|word| if is_valid(*word) { word & mask[0] } else { 0 }),
            );
            let others = (1..8)
                .filter(|at| distinct(self.words[*at].iter().map(|(value, _)| value & mask[*at])));
            others.count() + usize::from(first_changes) > 1
        })
    }

    /// Forgets values that were replaced before `step`.
    fn settle(&mut self, step: u64) {
        for word in &mut self.words {
            let keep_from = word
                .iter()
                .rposition(|(_, from)| *from <= step)
                .unwrap_or(0);
            word.drain(..keep_from);
            if word.len() == 1 && word[0].1 <= step {
                word.clear();
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.words.iter().all(Vec::is_empty)
    }
}

fn distinct(mut values: impl Iterator<Item = u64>) -> bool {
    values
        .next()
        .is_some_and(|first| values.any(|value| value != first))
}

impl Core {
    /// The driver has replaced word `at` of a reachable entry.
    pub(crate) fn entry_stored(&mut self, key: Key, at: usize, old: u64, new: u64) {
        self.entries.unchecked.insert(key);
        let step = self.record.step();
        let history = self.entries.changed.entry(key).or_default();
        if history.words[at].is_empty() {
            history.words[at].push((old, 0));
        }
        history.words[at].push((new, step));
        let history = history.clone();
        let pa = match key.1 {
            None => self.peek_ste_address(key.0),
            Some(substream) => self
                .peek_ste(key.0)
                .and_then(|ste| self.peek_cd_address(&ste, substream)),
        };
        let Some(pa) = pa else {
            return;
        };
        let mut now = [0; 8];
        for (at, word) in now.iter_mut().enumerate() {
            *word = self.peek(pa + 8 * at as u64).unwrap_or(0);
        }
        let (mixes, name) = match key.1 {
            None => (
                history.can_mix(&now, used_ste, |word| bit(word, 0)),
                "entry",
            ),
            Some(_) => (
                history.can_mix(&now, used_cd, |word| bit(word, 31)),
                "context descriptor",
            ),
        };
        if mixes {
            let item = format!(
                "a mix of the {name} of stream {:#x}, SubstreamID {:?}",
                key.0, key.1
            );
            let origin = Origin {
                pa,
                value: new,
                step,
            };
            self.record.violate(
                Rule::LiveEntryTorn,
                format!("word {at} of the {name} at {pa:#x} became {new:#x}"),
                &[(item, origin)],
            );
            self.entries.changed.remove(&key);
        }
    }

    /// A SYNC has completed after these commands, each consumed in the step beside it.
    pub(crate) fn entries_synced(&mut self, commands: &[(Command, u64)]) {
        for (command, step) in commands {
            self.entries.changed.retain(|key, history| {
                if covers(command, *key) {
                    history.settle(*step);
                }
                !history.is_empty()
            });
        }
        for key in std::mem::take(&mut self.entries.unchecked) {
            match key.1 {
                None => self.compare_streams(key.0),
                Some(substream) => self.compare_contexts(key.0, substream),
            }
        }
    }

    /// A descriptor was fetched: it is to be compared with its like at the next SYNC.
    pub(crate) fn entry_fetched(&mut self, key: Key) {
        self.entries.unchecked.insert(key);
    }

    /// The contexts that have these tags now, among those that were looked at.
    pub(crate) fn contexts_with(&self, vmid: u16, asid: u16) -> Vec<(u32, u32)> {
        let compared = self.entries.by_asid.values().flatten().copied();
        let fresh = self.entries.unchecked.iter();
        let fresh = fresh.filter_map(|(stream, substream)| Some((*stream, (*substream)?)));
        let known: BTreeSet<(u32, u32)> = compared.chain(fresh).collect();
        let has_tags = |&(stream, substream): &(u32, u32)| {
            self.peek_cd(stream, substream)
                .is_some_and(|(ste, cd, _)| (ste.vmid, cd.asid) == (vmid, asid))
        };
        known.into_iter().filter(has_tags).collect()
    }

    /// Context descriptors with the same tags must agree in what the TLB may keep.
    fn compare_contexts(&mut self, stream: u32, substream: u32) {
        let Some((ste, cd, words)) = self.peek_cd(stream, substream) else {
            return;
        };
        if self.claims.is_releasing(ste.vmid, cd.asid) {
            return;
        }
        let tag = (cd.world, ste.vmid, cd.asid);
        let mut users = self.entries.by_asid.remove(&tag).unwrap_or_default();
        users.retain(|(other_stream, other_substream)| {
            let Some((other_ste, other, other_words)) = self.peek_cd(*other_stream, *other_substream) else {
                return false;
            };
            let is_like = (other.world, other_ste.vmid, other.asid) == tag;
            if is_like && cd::cacheable(&other_words) != cd::cacheable(&words) {
                self.violate(
                    Rule::TagsDisagree,
                    format!(
                        "VMID {} ASID {}: stream {stream:#x} SubstreamID {substream} and stream {other_stream:#x} SubstreamID {other_substream}",
                        ste.vmid, cd.asid
                    ),
                );
            }
            is_like
        });
        users.insert((stream, substream));
        self.entries.by_asid.insert(tag, users);
    }

    /// Streams with the same VMID must have the same stage 2.
    fn compare_streams(&mut self, stream: u32) {
        let Some(ste) = self.peek_ste(stream) else {
            return;
        };
        if (ste.stage1.is_none() && ste.stage2.is_none()) || ste.world != World::El1 {
            return;
        }
        // S2R and S2S are not in the TLB.
        let signature = |ste: &crate::ste::Ste| {
            let word2 = ste.words[2] & !(3 << 57);
            ste.stage2
                .map(|s2| (word2, ste.words[3], s2.forces_write_back))
        };
        let mut users = self.entries.by_vmid.remove(&ste.vmid).unwrap_or_default();
        users.retain(|other| {
            let Some(like) = self
                .peek_ste(*other)
                .filter(|like| like.vmid == ste.vmid && !like.aborts)
            else {
                return false;
            };
            if like.stage1.is_none() && like.stage2.is_none() {
                return false;
            }
            if signature(&like) != signature(&ste) {
                self.violate(
                    Rule::TagsDisagree,
                    format!(
                        "VMID {}: streams {stream:#x} and {other:#x} have different stage 2s",
                        ste.vmid
                    ),
                );
            }
            true
        });
        users.insert(stream);
        self.entries.by_vmid.insert(ste.vmid, users);
    }
}

/// Whether the command makes the SMMU forget copies of the entry.
pub(crate) fn covers(command: &Command, key: Key) -> bool {
    match command {
        Command::CfgiSte { stream, .. } => *stream == key.0,
        Command::CfgiRange { log2: 32, .. } => true,
        Command::CfgiRange { stream, log2 } => stream >> log2 == key.0 >> log2,
        Command::CfgiCd {
            stream, substream, ..
        } => *stream == key.0 && key.1 == Some(*substream),
        Command::CfgiCdAll { stream } => *stream == key.0 && key.1.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(changes: &[(usize, &[u64])]) -> History {
        let mut history = History::default();
        for (at, values) in changes {
            history.words[*at] = values
                .iter()
                .zip(0..)
                .map(|(value, step)| (*value, step))
                .collect();
        }
        history
    }

    #[test]
    fn a_body_and_then_valid_without_a_sync_between_can_mix() {
        let changes = history(&[(0, &[0, 0xd]), (2, &[0, 5])]);
        assert!(changes.can_mix(&[0xd; 8], used_ste, |word| bit(word, 0)));
    }

    #[test]
    fn one_word_of_a_live_entry_cannot_mix() {
        let changes = history(&[(1, &[0, 1 << 44])]);
        let now = [0xd, 1 << 44, 0, 0, 0, 0, 0, 0];
        assert!(!changes.can_mix(&now, used_ste, |word| bit(word, 0)));
    }

    #[test]
    fn words_that_the_entry_does_not_use_cannot_mix() {
        // Config = abort: only word 0 is looked at.
        let changes = history(&[(0, &[1, 1]), (2, &[0, 5]), (3, &[0, 7])]);
        assert!(!changes.can_mix(&[1, 0, 5, 7, 0, 0, 0, 0], used_ste, |word| bit(word, 0)));
    }

    #[test]
    fn two_used_words_of_a_live_entry_can_mix() {
        let changes = history(&[(2, &[4, 5]), (3, &[6, 7])]);
        assert!(changes.can_mix(&[0xd, 0, 5, 7, 0, 0, 0, 0], used_ste, |word| bit(word, 0)));
    }

    #[test]
    fn a_sync_forgets_what_was_replaced_before_it() {
        let mut changes = history(&[(0, &[0, 0xd]), (2, &[0, 5])]);
        changes.settle(1);
        assert!(changes.is_empty());
    }
}
