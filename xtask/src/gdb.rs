//! A debugger that knows the guest's architecture.

use std::process::Command;

use crate::tool;

/// Debian's, which knows all architectures.
pub(crate) const PREFERRED: &str = "gdb-multiarch";
/// How to get it.
pub(crate) const REMEDY: &str = "`apt-get install gdb-multiarch`";

/// The first gdb on the `PATH` that knows AArch64.
pub(crate) fn find() -> Option<&'static str> {
    [PREFERRED, "aarch64-linux-gnu-gdb", "gdb"]
        .into_iter()
        .find(|program| {
            let mut gdb = Command::new(program);
            tool::succeeds(gdb.args(["-nx", "-batch", "-ex", "set architecture aarch64"]))
        })
}
