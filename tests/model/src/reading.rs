//! Reading a structure word by word, in any order, while the driver goes on (§3.21.3).

use crate::cache::config::{CdCopy, SteCopy};
use crate::command::Command;
use crate::core::Core;
use crate::fault::Fetch;
use crate::story::Origin;

/// A structure whose words are being read one by one.
#[derive(Clone, Debug)]
pub(crate) struct Partial {
    stream: u32,
    /// `None`: the stream table entry.
    substream: Option<u32>,
    pa: u64,
    words: [Option<u64>; 8],
}

impl Core {
    /// Begins to fetch an entry that is not kept: at once, or word by word over what follows.
    pub(crate) fn begin_reading(&mut self, stream: u32, substream: Option<u32>) {
        let is_kept = match substream {
            None => self.caches.config.ste(stream).is_some(),
            Some(substream) => self.caches.config.cd(stream, substream).is_some(),
        };
        if is_kept || !self.choices.prefetches() {
            return;
        }
        if !self.choices.is_chaotic() {
            self.look_at_stream(stream);
            return;
        }
        let pa = match substream {
            None => self.stream_entry_address(stream).ok(),
            Some(substream) => self
                .peek_ste(stream)
                .and_then(|ste| self.peek_cd_address(&ste, substream)),
        };
        let is_begun =
            |partial: &Partial| (partial.stream, partial.substream) == (stream, substream);
        if let Some(pa) = pa
            && !self.ahead.partials.iter().any(is_begun)
        {
            self.ahead.partials.push(Partial {
                stream,
                substream,
                pa,
                words: [None; 8],
            });
            self.go_on_reading();
        }
    }

    /// Reads a few more words of what is being read, in any order.
    pub(crate) fn go_on_reading(&mut self) {
        for mut partial in std::mem::take(&mut self.ahead.partials) {
            let order = self.choices.order(8);
            let count = self.choices.below(5) as usize;
            let missing = order
                .into_iter()
                .filter(|at| partial.words[*at].is_none())
                .take(count)
                .collect::<Vec<_>>();
            let fetch = if partial.substream.is_none() {
                Fetch::Stream
            } else {
                Fetch::Context
            };
            let mut failed = false;
            for at in missing {
                match self.fetch(partial.pa + 8 * at as u64, fetch) {
                    Ok(word) => partial.words[at] = Some(word),
                    Err(_) => failed = true,
                }
            }
            if failed {
                continue;
            }
            if partial.words.iter().all(Option::is_some) {
                self.keep_read(&partial);
            } else {
                self.ahead.partials.push(partial);
            }
        }
    }

    fn keep_read(&mut self, partial: &Partial) {
        let words = partial.words.map(Option::unwrap_or_default);
        match partial.substream {
            None => {
                let copy: SteCopy = self.ste_copy(partial.stream, partial.pa, words);
                let streams = self.caches.config.stream_mut(partial.stream);
                streams.ste.get_or_insert(copy);
            }
            Some(substream) => {
                let origin = Origin {
                    pa: partial.pa,
                    value: words[0],
                    step: self.record.step(),
                };
                let copies = self.caches.config.stream_mut(partial.stream);
                copies
                    .cds
                    .entry(substream)
                    .or_insert(CdCopy { words, origin });
            }
        }
    }

    /// A command makes the SMMU forget what it covers, what is only half read included.
    pub(crate) fn cancel_fetches(&mut self, command: &Command) {
        self.ahead
            .partials
            .retain(|partial| !crate::entry::covers(command, (partial.stream, partial.substream)));
    }
}

#[cfg(test)]
mod tests {
    use crate::bench::{Bench, STREAMS};
    use crate::{Identity, Mode};

    /// Words 1 to 7 of an abort entry, replaced in order; `true`: the SMMU kept an older word
    /// beside a newer one that was stored after it, which memory never showed.
    fn keeps_a_mix(seed: u64) -> bool {
        let bench = Bench::up(Identity::full(), Mode::Chaotic { seed });
        let at = STREAMS + 5 * 64;
        bench.store(at, 1);
        for word in 1..8 {
            bench.store(at + 8 * word, 0xb);
            bench.publish();
        }
        bench.machine.smmu(0).with(|core| {
            let copy = core.caches.config.ste(5);
            copy.is_some_and(|copy| copy.words[1..].windows(2).any(|pair| pair == [0, 0xb]))
        })
    }

    #[test]
    fn words_of_an_entry_are_read_in_any_order_while_it_is_written() {
        assert!((0..80).filter(|seed| keeps_a_mix(*seed)).count() > 2);
    }
}
