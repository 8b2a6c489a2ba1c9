//! Which commands an SMMU was really sent, by QEMU's own trace.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What QEMU calls each command as it takes it.
const EVENT: &str = "smmuv3_cmdq_opcode";

/// Has `qemu` write every command that its SMMU takes to `file`.
pub(super) fn trace(qemu: &mut Command, file: &Path) {
    qemu.args(["-d", &format!("trace:{EVENT}"), "-D"]).arg(file);
}

/// Wants that the SMMU was never sent a prefetch: there are parts that must not be (HiSilicon
/// 161010701, `hisilicon,broken-prefetch-cmd`), and for the others it is a hint that nobody needs.
pub(super) fn has_no_prefetch(file: &Path) -> Result<(), String> {
    let log = fs::read_to_string(file).map_err(|why| format!("no trace of commands: {why}"))?;
    judge(&log)
}

fn judge(log: &str) -> Result<(), String> {
    if !log.contains("SMMU_CMD_SYNC") {
        return Err("the trace of commands has no CMD_SYNC, so it is none".into());
    }
    match log.lines().find(|line| line.contains("PREFETCH")) {
        Some(line) => Err(format!("a prefetch was sent: {line}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_without_a_sync_proves_nothing() {
        assert!(judge("").is_err());
        assert_eq!(judge("smmuv3_cmdq_opcode <--- SMMU_CMD_SYNC\n"), Ok(()));
    }

    #[test]
    fn a_prefetch_is_found() {
        let log = "x <--- SMMU_CMD_SYNC\nx <--- SMMU_CMD_PREFETCH_CONFIG\n";
        assert!(judge(log).is_err_and(|why| why.contains("PREFETCH_CONFIG")));
    }
}
