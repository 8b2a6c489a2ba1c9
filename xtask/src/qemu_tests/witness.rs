//! What QEMU itself says of the SMMU once the image has ended: a witness that the image cannot
//! talk to.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The registers of `virt`'s SMMU.
const CR0: u64 = 0x0905_0020;
const GBPA: u64 = 0x0905_0044;
const CR0_SMMUEN: u32 = 1 << 0;
const GBPA_ABORT: u32 = 1 << 20;

const ANSWER: Duration = Duration::from_secs(20);

/// QEMU's monitor on a socket of ours.
pub(super) struct Witness {
    socket: PathBuf,
}

impl Drop for Witness {
    fn drop(&mut self) {
        // QEMU may have removed it.
        let _ = fs::remove_file(&self.socket);
    }
}

impl Witness {
    /// A monitor for `qemu`, which then stays when its machine powers off.
    pub(super) fn of(qemu: &mut Command) -> Self {
        // Not below the target folder: a socket's path has some 100 bytes at most.
        let name = format!("portcullis-{}.qmp", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let value = format!("unix:{},server=on,wait=off", socket.display());
        qemu.args(["-no-shutdown", "-qmp", &value]);
        Self { socket }
    }

    /// Whether the SMMU aborts all that comes.
    ///
    /// # Errors
    ///
    /// A sentence, if it does not, or if QEMU does not answer.
    pub(super) fn sees_abort(&self) -> Result<(), String> {
        let (cr0, gbpa) = (self.read(CR0)?, self.read(GBPA)?);
        if cr0 & CR0_SMMUEN == 0 && gbpa & GBPA_ABORT != 0 {
            return Ok(());
        }
        Err(format!(
            "the SMMU was left with CR0 {cr0:#x} and GBPA {gbpa:#x}, not in abort"
        ))
    }

    fn read(&self, address: u64) -> Result<u32, String> {
        self.ask(address)
            .map_err(|error| format!("QEMU's monitor: {error}"))?
            .ok_or_else(|| format!("QEMU's monitor does not tell the word at {address:#x}"))
    }

    fn ask(&self, address: u64) -> std::io::Result<Option<u32>> {
        let mut monitor = UnixStream::connect(&self.socket)?;
        monitor.set_read_timeout(Some(ANSWER))?;
        let question = format!(
            "{{\"execute\":\"qmp_capabilities\"}}\n\
             {{\"execute\":\"human-monitor-command\",\
             \"arguments\":{{\"command-line\":\"xp /1wx {address:#x}\"}}}}\n"
        );
        monitor.write_all(question.as_bytes())?;
        for line in BufReader::new(monitor).lines() {
            let line = line?;
            if line.contains("\"error\"") {
                return Ok(None);
            }
            if let Some(value) = word_in(&line) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// The word in the monitor's answer `{"return": "0000000009050044: 0x00001000\r\n"}`.
fn word_in(line: &str) -> Option<u32> {
    let (_, dump) = line.split_once("\"return\": \"")?;
    let (_, value) = dump.split_once(": 0x")?;
    u32::from_str_radix(value.get(..8)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_read_from_the_answer_and_from_nothing_else() {
        let answer = r#"{"return": "0000000009050044: 0x00101000\r\n"}"#;
        assert_eq!(word_in(answer), Some(0x0010_1000));
        let greeting = r#"{"QMP": {"version": {"qemu": {"micro": 2}}, "capabilities": []}}"#;
        for other in [greeting, r#"{"return": {}}"#, r#"{"return": "0: 0x1"}"#, ""] {
            assert_eq!(word_in(other), None, "{other}");
        }
    }
}
