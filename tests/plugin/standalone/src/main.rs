//! The least image that gives a device two address spaces through `smmu-plugin`'s SMMU.
//!
//! It is nobody's hypervisor and shares no code with one: every number in it is assembled by hand
//! from the manual (IHI 0070 G.b) and from the device's frame. It brings an SMMU up, publishes a
//! table of context descriptors, has the device write one address under two PASIDs, and looks where
//! that went. `README.md` of the plugin walks through it.
#![no_std]
#![no_main]
#![allow(
    unsafe_code,
    reason = "registers and tables of a machine without anything below"
)]

mod machine;
mod smmu;

use core::panic::PanicInfo;

use machine::{Frame, power_off, print, read, write};
use smmu::{Pages, Smmu};

/// Where the plugin's arguments put the device.
const DEVICE: Frame = Frame(0x43e2_0000);
/// Its StreamID, by the same arguments.
const STREAM: u64 = 16;
/// What the device writes to.
const ADDRESS: u64 = 0x1234_5000;

/// Memory that tables and pages are cut from.
static POOL: Pages<64> = Pages::new();

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    let failed = run();
    print(match failed {
        None => "end: ok\n",
        Some(why) => why,
    });
    power_off()
}

/// Says what went wrong, as the last line, or nothing.
fn run() -> Option<&'static str> {
    let smmu = Smmu::up(&POOL)?;
    let contexts = POOL.take()?;
    let (first, second) = (POOL.take()?, POOL.take()?);
    let spaces = [space(first)?, space(second)?];
    for (pasid, (root, _)) in (1..).zip(spaces) {
        smmu.publish_context(STREAM, contexts, pasid, root)?;
    }
    smmu.publish_stream(STREAM, contexts)?;
    print("stream 16 has the spaces of PASID 1 and 2\n");

    DEVICE.write32(0x010, 1);
    dma(1, 0x1111_1111);
    dma(2, 0x2222_2222);
    dma(3, 0x3333_3333);
    if (read(first), read(second)) != (0x1111_1111_1111_1111, 0x2222_2222_2222_2222) {
        return Some("end: DMA did not go where the spaces say\n");
    }
    let (done, aborted) = (DEVICE.read32(0x080), DEVICE.read32(0x084));
    if (done, aborted) != (2, 1) {
        return Some("end: the device counts otherwise\n");
    }
    print("one address, two PASIDs, two pages; the third PASID aborts\n");
    if smmu.event()? != 0x0a {
        return Some("end: the abort is not told as C_BAD_CD\n");
    }
    if cfg!(feature = "rogue") {
        // Another page for an address that is live, without a break before.
        let [(_, leaf), _] = spaces;
        write(leaf, page_descriptor(second));
    }
    None
}

/// Has the device write `value`, twice 32 bits, under `pasid`.
fn dma(pasid: u32, value: u32) {
    DEVICE.write64(0x020, ADDRESS);
    DEVICE.write32(0x028, pasid | 1 << 31);
    DEVICE.write32(0x02c, 8);
    DEVICE.write32(0x030, 1);
    DEVICE.write64(0x038, u64::from(value) << 32 | u64::from(value));
    DEVICE.write32(0x018, 1);
}

/// A stage-1 table of 39 bits that maps [`ADDRESS`] to `page`; gives its root and where the page's
/// descriptor is.
fn space(page: u64) -> Option<(u64, u64)> {
    let (root, level2, level3) = (POOL.take()?, POOL.take()?, POOL.take()?);
    let index = |shift: u32| (ADDRESS >> shift & 0x1ff) * 8;
    let leaf = level3 + index(12);
    write(leaf, page_descriptor(page));
    write(level2 + index(21), level3 | 3);
    write(root + index(30), level2 | 3);
    Some((root, leaf))
}

/// Page, attribute 0, unprivileged read and write, inner shareable, accessed, not global.
fn page_descriptor(page: u64) -> u64 {
    page | 3 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 11
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    print("end: panic\n");
    power_off()
}
