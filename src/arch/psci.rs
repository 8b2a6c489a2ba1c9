//! Power, by PSCI (DEN 0022).
//!
//! Always by `SMC`. A device tree may name `HVC` instead, but that is for callers at EL1: executed
//! at EL2, `HVC` is an exception to EL2 itself (DDI 0487, C6.2 "HVC").

use smccc::{Smc, psci};

pub use smccc::psci::Version;

/// The version that firmware has; `None` if it has no PSCI.
pub fn version() -> Option<Version> {
    psci::version::<Smc>().ok()
}

/// Powers the machine off; parks this CPU if firmware does not do it.
pub(super) fn power_off() -> ! {
    // Only an error comes back, and nobody is left to hear of it.
    let _ = psci::system_off::<Smc>();
    super::cpu::park()
}
