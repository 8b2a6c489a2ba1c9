//! That no register of the SMMU is written, by QEMU's own trace.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What QEMU calls an access to a register.
const READ: &str = "smmuv3_read_mmio";
const WRITE: &str = "smmuv3_write_mmio";

/// Has `qemu` write every access to a register of its SMMU to `file`.
pub(super) fn accesses(qemu: &mut Command, file: &Path) {
    qemu.args(["-d", &format!("trace:{READ},trace:{WRITE}"), "-D"]);
    qemu.arg(file);
}

/// Wants that an SMMU was read if there is one, and never written: neither by the application nor by
/// the firmware that started it, which leaves it alone.
pub(super) fn has_no_write(file: &Path, has_smmu: bool) -> Result<(), String> {
    let log = fs::read_to_string(file).map_err(|why| format!("no trace of accesses: {why}"))?;
    judge(&log, has_smmu)
}

fn judge(log: &str, has_smmu: bool) -> Result<(), String> {
    if let Some(line) = log.lines().find(|line| line.contains(WRITE)) {
        return Err(format!("a register of the SMMU was written: {line}"));
    }
    match log.contains(READ) {
        true if has_smmu => Ok(()),
        false if !has_smmu => Ok(()),
        true => Err("an SMMU was read where there is none".into()),
        false => Err("the trace has no read of a register, so it is none".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS: &str = "smmuv3_read_mmio addr: 0x0 val:0xd44101b size: 0x4(0)\n";

    #[test]
    fn a_trace_without_a_read_proves_nothing() {
        assert_eq!(judge(READS, true), Ok(()));
        assert!(judge("", true).is_err());
        assert_eq!(judge("", false), Ok(()));
        assert!(judge(READS, false).is_err());
    }

    #[test]
    fn a_write_is_found() {
        let log = format!("{READS}smmuv3_write_mmio addr: 0x44 val:0x1000 size: 0x4(0)\n");
        assert!(judge(&log, true).is_err_and(|why| why.contains("0x44")));
    }
}
