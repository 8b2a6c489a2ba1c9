//! What the host supplies.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{Frames, Registers};
use crate::addr::Pa;

/// A point in the order of memory accesses that the SMMU can see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    /// Every store before it is seen by the SMMU, and by every CPU, before any store, load or
    /// register access after it.
    ///
    /// `DSB ST`: nothing behind a DSB begins before it is complete, loads neither (DDI 0487 B2.3);
    /// a `DMB ST` would not do. Pairs with the SMMU's read of what a command, a queue index or a
    /// pointer made reachable (§3.21.3: a structure is complete before what makes it visible), and
    /// with other CPUs' stores that a load after it is to find.
    Publish,
    /// Every load after it sees at least what the register read before it vouched for, be it of an
    /// SMMU's or of another CPU's.
    ///
    /// `DSB LD`. Pairs with the SMMU's write of a record before the `PROD` that covers it (§3.5.2),
    /// and with the [`Publish`](Self::Publish) of the CPU that told the SMMU what it has consumed.
    Observe,
    /// Every load before it is done before the register write after it.
    ///
    /// `DSB SY`. Gives entries back: pairs with the SMMU's read of `CONS` before it writes a
    /// record over them.
    Release,
}

/// Time, for waits: all that a wait needs, before there is any memory to hand out.
pub trait Clock {
    /// Microseconds since some fixed moment; never runs backwards.
    fn now_us(&self) -> u64;

    /// Called in every turn of a wait: a spin hint, or a way to let others run.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}

/// A device, by the number that the host gave it; passed back to the host and never looked into.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DeviceTag(pub u64);

/// The host could not do to a device what it was asked, and why; the device is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotDone {
    /// In words, for a report.
    pub because: &'static str,
}

/// What the host supplies: memory, time, and the few instructions that a device can notice.
///
/// All methods take `&self` and may be called from any CPU at once.
///
/// # Safety
///
/// For as long as the value lives:
/// - [`allocate`](Self::allocate) hands out Normal write-back memory of which nobody else holds or
///   makes a reference until [`free`](Self::free), not the allocator, not a guest, not a device
///   that was not told of it;
/// - [`pointer`](Self::pointer) of an address in such frames is valid for reads and writes of the
///   rest of these frames, the same each time;
/// - [`store`](Self::store) and [`load`](Self::load), where overridden, access that word and
///   nothing else.
pub unsafe trait Platform: Clock + Sync {
    /// How an SMMU's registers are reached; [`Mmio`](super::Mmio) unless it is a test.
    type Registers: Registers;

    /// `2^log2_bytes` bytes, aligned to their size, content unknown; `None` if there are none.
    ///
    /// `log2_bytes` is at least 12. A refusal is passed on by name and changes nothing.
    fn allocate(&self, log2_bytes: u8) -> Option<Frames>;

    /// Takes back what `allocate` gave.
    fn free(&self, frames: Frames);

    /// Where this CPU sees the memory at `at`, which lies in frames from `allocate`.
    fn pointer(&self, at: Pa) -> NonNull<AtomicU64>;

    /// Cleans these words to the point of coherency, for an SMMU that does not snoop.
    ///
    /// Complete when it returns, which takes a barrier of its own (`DSB SY`: one that waits for
    /// stores alone does not complete cache maintenance). Never called for an SMMU with coherent
    /// walks.
    fn clean(&self, words: &[AtomicU64]);

    /// One 64-bit store, single-copy atomic, to memory that an SMMU may read.
    fn store(&self, word: &AtomicU64, value: u64) {
        word.store(value, Ordering::Relaxed);
    }

    /// Stores 0 to `words`, which nobody else reads or writes meanwhile: no walker reaches them yet.
    ///
    /// By [`store`](Self::store), unless the host knows of something wider; barriers order it as they
    /// order stores.
    #[inline]
    fn clear(&self, words: &[AtomicU64]) {
        for word in words {
            self.store(word, 0);
        }
    }

    /// One 64-bit load from memory that an SMMU may write.
    fn load(&self, word: &AtomicU64) -> u64 {
        word.load(Ordering::Relaxed)
    }

    /// The word at `at`, whoever's it is, if this CPU can read it there with no effect and no fault;
    /// `None` if that is not known.
    ///
    /// For explanations alone ([`Smmu::explain`](crate::smmu::Smmu::explain)), which say what they
    /// could not read. The address may be any: it stands in a table that may be damaged.
    fn peek(&self, at: Pa) -> Option<u64> {
        let _ = at;
        None
    }

    /// Resets a device, within a time that the host bounds (a function level reset, or what the
    /// board has for it).
    ///
    /// `Ok` says that it is as at power-on: it issues nothing, has nothing pending, holds neither
    /// data nor translations of a former owner, and is still off at the port if
    /// [`fence_port`](Self::fence_port) turned it off.
    ///
    /// # Errors
    ///
    /// [`NotDone`]; what the device does is then unknown.
    fn reset_device(&self, device: DeviceTag) -> Result<(), NotDone> {
        let _ = device;
        Err(NotDone {
            because: "the host has no reset for it",
        })
    }

    /// Cuts a device off above the SMMU: bus mastering off, or the link down at the port.
    ///
    /// `Ok` says that no transaction of it, translated or not, reaches the SMMU or memory from now
    /// on. Asked when an SMMU does not confirm what is needed to stop the device.
    ///
    /// # Errors
    ///
    /// [`NotDone`]; the device may go on.
    fn fence_port(&self, device: DeviceTag) -> Result<(), NotDone> {
        let _ = device;
        Err(NotDone {
            because: "the host has no gate above it",
        })
    }

    /// Lets a device that was cut off by [`fence_port`](Self::fence_port), and reset since, issue
    /// transactions again.
    ///
    /// # Errors
    ///
    /// [`NotDone`]; it stays cut off.
    fn unfence_port(&self, device: DeviceTag) -> Result<(), NotDone> {
        let _ = device;
        Err(NotDone {
            because: "the host has no gate above it",
        })
    }

    /// Orders what came before it against what follows, as `kind` says.
    fn barrier(&self, kind: Barrier) {
        super::mmio::barrier(kind);
    }
}
