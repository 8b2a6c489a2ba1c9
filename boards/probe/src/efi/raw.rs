//! What the compiler cannot check: system registers' meaning, memory, registers, protocols.
#![expect(unsafe_code, reason = "the one module whose purpose it is")]

use core::ptr::{NonNull, with_exposed_provenance, with_exposed_provenance_mut};

use aarch64_cpu::registers::{
    CurrentEL, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, ID_AA64PFR0_EL1, MIDR_EL1,
    MPIDR_EL1, SCTLR_EL1, SCTLR_EL2, TCR_EL1, TCR_EL2, TTBR0_EL1, TTBR0_EL2,
};
use portcullis::addr::{Extent, Pa};
use portcullis::hw::Mmio;
use portcullis_probe::{Cpu, ExceptionLevel, Translation};
use tock_registers::interfaces::Readable as _;
use uefi::boot::{self, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol};
use uefi::proto::ProtocolPointer;
use uefi::{Handle, Status};

/// The exception level that this runs at, and what is mapped there.
pub(super) struct Here {
    level: ExceptionLevel,
    translation: Translation,
}

impl Here {
    /// `None` at a level where UEFI applications do not run.
    pub(super) fn find() -> Option<Self> {
        let (level, translation) = match CurrentEL.read(CurrentEL::EL) {
            1 => (
                ExceptionLevel::El1,
                Translation {
                    sctlr: SCTLR_EL1.get(),
                    tcr: TCR_EL1.get(),
                    ttbr0: TTBR0_EL1.get(),
                },
            ),
            2 => (
                ExceptionLevel::El2,
                Translation {
                    sctlr: SCTLR_EL2.get(),
                    tcr: TCR_EL2.get(),
                    ttbr0: TTBR0_EL2.get(),
                },
            ),
            _ => return None,
        };
        Some(Self { level, translation })
    }

    pub(super) fn cpu(&self) -> Cpu {
        Cpu {
            level: self.level,
            midr: MIDR_EL1.get(),
            mpidr: MPIDR_EL1.get(),
            pfr0: ID_AA64PFR0_EL1.get(),
            mmfr0: ID_AA64MMFR0_EL1.get(),
            mmfr1: ID_AA64MMFR1_EL1.get(),
            mmfr2: ID_AA64MMFR2_EL1.get(),
        }
    }

    fn maps(&self, base: u64, size_bytes: u64) -> bool {
        self.translation.maps(base, size_bytes, &|at| {
            let descriptor = with_exposed_provenance::<u64>(at as usize);
            // SAFETY: `at` lies in a table that the MMU walks for this very code. UEFI maps all
            // memory that it uses to itself (UEFI 2.3.6), these tables with it; no reference is made.
            unsafe { descriptor.read_volatile() }
        })
    }

    /// The memory at `at`; `None` where firmware has not mapped it.
    pub(super) fn bytes(&self, at: Pa, size_bytes: usize) -> Option<&'static [u8]> {
        let base = at.as_u64();
        if base == 0 || !self.maps(base, size_bytes as u64) {
            return None;
        }
        let bytes = with_exposed_provenance(base as usize);
        // SAFETY: mapped, as just seen, and asked for to read ACPI tables alone, which firmware
        // keeps in memory that nobody changes while boot services are there; they never end here.
        Some(unsafe { core::slice::from_raw_parts(bytes, size_bytes) })
    }

    /// The registers in `extent`; `None` where firmware has not mapped them.
    pub(super) fn registers(&self, extent: Extent<Pa>) -> Option<Mmio> {
        let base = extent.base();
        if !base.is_aligned(3) || !self.maps(base.as_u64(), extent.size_bytes()) {
            return None;
        }
        let pointer = NonNull::new(with_exposed_provenance_mut(base.as_u64() as usize))?;
        // SAFETY: mapped, as just seen; firmware's tables call it an SMMU or configuration space,
        // which firmware maps as a device if at all. It is read alone (`ReadOnly`), so that no
        // access can have an effect on memory.
        Some(unsafe { Mmio::new(pointer, extent.size_bytes() as usize) })
    }
}

/// The protocol `P` of `handle`, without taking it from whoever else uses it: opening it for
/// oneself alone would stop drivers.
pub(super) fn open<P: ProtocolPointer + ?Sized>(handle: Handle) -> Option<ScopedProtocol<P>> {
    let params = OpenProtocolParams {
        handle,
        agent: boot::image_handle(),
        controller: None,
    };
    // SAFETY: one thread runs here, no event of ours is signalled, and nothing that is called while
    // the protocol is held removes it.
    unsafe { boot::open_protocol(params, OpenProtocolAttributes::GetProtocol) }.ok()
}

/// Ends the application after a panic.
pub(super) fn leave() -> ! {
    // SAFETY: what this application opened or allocated is firmware's to keep; nothing of it is
    // called afterwards, as it registers no callbacks.
    let _ = unsafe {
        boot::exit(
            boot::image_handle(),
            Status::ABORTED,
            0,
            core::ptr::null_mut(),
        )
    };
    // Firmware that does not take it back can only be reset by hand.
    loop {
        core::hint::spin_loop();
    }
}
