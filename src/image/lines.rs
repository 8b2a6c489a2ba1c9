//! What guests write, line by line with their names before it, and what EL2 notes of them.

use portcullis::arch::cpu::Mutex;
use portcullis::arch::println;
use portcullis::discover::List;
use portcullis::guest::psci::MAX_CPUS;
/// A line of a guest is so long at most; what is longer goes on in the next.
const LINE_BYTES: usize = 120;
/// So much is kept of what EL2 notes; the oldest goes first.
const LOG_BYTES: usize = 1024;

/// The lines and the log of one guest.
pub(crate) struct Lines {
    /// A line for each CPU, so that none is cut by another's.
    lines: [Mutex<List<u8, LINE_BYTES>>; MAX_CPUS],
    log: Mutex<Log>,
}

/// Bytes, the oldest at `first`.
struct Log {
    bytes: [u8; LOG_BYTES],
    first: usize,
    used: usize,
}

impl Lines {
    pub(crate) const fn new() -> Self {
        Self {
            lines: [const { Mutex::new(List::new()) }; MAX_CPUS],
            log: Mutex::new(Log {
                bytes: [0; LOG_BYTES],
                first: 0,
                used: 0,
            }),
        }
    }

    /// Puts `bytes` of a guest's CPU onto its line, and prints each line that is whole.
    ///
    /// What is no printable ASCII is a `?`, so that nothing moves the cursor.
    pub(crate) fn put(&self, name: &str, cpu: u32, bytes: &[u8]) {
        let Some(line) = self.lines.get(cpu as usize) else {
            return;
        };
        let mut line = line.lock();
        for byte in bytes {
            if *byte == b'\n' {
                flush(name, &mut line);
                continue;
            }
            let shown = match byte {
                b'\r' => continue,
                b'\t' => b' ',
                b' '..=b'~' => *byte,
                _ => b'?',
            };
            if line.push(shown).is_err() {
                flush(name, &mut line);
                // There is room now.
                let _ = line.push(shown);
            }
        }
    }

    /// Prints what stands on unfinished lines.
    pub(crate) fn finish(&self, name: &str) {
        for line in &self.lines {
            let mut line = line.lock();
            if !line.is_empty() {
                flush(name, &mut line);
            }
        }
    }

    /// Notes a line of EL2's own.
    pub(crate) fn note(&self, text: &str) {
        let mut log = self.log.lock();
        for byte in text.bytes().chain([b'\n']) {
            let at = (log.first + log.used) % LOG_BYTES;
            log.bytes[at] = byte;
            if log.used == LOG_BYTES {
                log.first = (log.first + 1) % LOG_BYTES;
            } else {
                log.used += 1;
            }
        }
    }

    /// Takes the oldest bytes of the log; how many there were.
    pub(crate) fn take(&self, into: &mut [u8]) -> usize {
        let mut log = self.log.lock();
        let count = into.len().min(log.used);
        for byte in into.iter_mut().take(count) {
            *byte = log.bytes[log.first];
            log.first = (log.first + 1) % LOG_BYTES;
        }
        log.used -= count;
        count
    }
}

fn flush(name: &str, line: &mut List<u8, LINE_BYTES>) {
    // Nothing but ASCII was put there.
    let text = core::str::from_utf8(line).unwrap_or("");
    println!("[{name}] {text}");
    line.clear();
}
