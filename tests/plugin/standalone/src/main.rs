//! The least image that gives devices address spaces through `smmu-plugin`'s SMMU.
//!
//! It is nobody's hypervisor and shares no code with one: every number in it is assembled by hand
//! from the manual (IHI 0070 G.b) and from the device's frame. It brings an SMMU up, publishes a
//! table of context descriptors for two devices, has one write one address under two PASIDs, and
//! looks where that went. Then two CPUs drive a device each while one of them invalidates.
//! `README.md` of the plugin walks through it.
#![no_std]
#![no_main]
#![allow(
    unsafe_code,
    reason = "registers and tables of a machine without anything below"
)]

mod machine;
mod smmu;

use core::panic::PanicInfo;

use machine::{
    Frame, barrier, clear, power_off, print, read, start_second_cpu, stop_this_cpu, write,
};
use smmu::{Pages, Smmu};

/// Where the plugin's arguments put the devices.
const DEVICES: [Frame; 2] = [Frame(0x43e2_0000), Frame(0x43e3_0000)];
/// Their StreamIDs, by the same arguments.
const STREAMS: [u64; 2] = [16, 17];
/// What the devices write to.
const ADDRESS: u64 = 0x1234_5000;
/// How often each CPU has its device write.
const ROUNDS: u32 = 2000;

/// Memory that tables and pages are cut from.
static POOL: Pages<64> = Pages::new();
/// What the second CPU says: a page whose first word is how many rounds it has done.
static SECOND: Pages<1> = Pages::new();

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    let failed = run();
    print(match failed {
        None => "end: ok\n",
        Some(why) => why,
    });
    power_off()
}

/// Where the second CPU begins.
#[unsafe(no_mangle)]
extern "C" fn second(rounds_done: u64) -> ! {
    for round in 1..=ROUNDS {
        dma(DEVICES[1], 2, round);
        write(rounds_done, round.into());
    }
    // A CPU that still runs when the machine goes off would end each run at another moment.
    stop_this_cpu()
}

/// Says what went wrong, as the last line, or nothing.
fn run() -> Option<&'static str> {
    let failed = Some("end: the SMMU does not answer\n");
    let Some(smmu) = Smmu::up(&POOL) else {
        return failed;
    };
    let pages = (POOL.take(), POOL.take(), POOL.take());
    let (Some(contexts), Some(first), Some(other)) = pages else {
        return failed;
    };
    let (Some(one), Some(two)) = (space(first), space(other)) else {
        return failed;
    };
    for (pasid, space) in [(1, &one), (2, &two)] {
        if smmu
            .publish_context(&STREAMS, contexts, pasid, space.root)
            .is_none()
        {
            return failed;
        }
    }
    for stream in STREAMS {
        if smmu.publish_stream(stream, contexts).is_none() {
            return failed;
        }
    }
    print("two streams have the spaces of PASID 1 and 2\n");
    for device in DEVICES {
        device.write32(0x010, 1);
    }
    two_spaces(&smmu, (first, other))
        .or_else(|| two_cpus(&smmu, (first, other)))
        .or_else(|| replace_without_break(&one, other))
        .or_else(|| clear_unreported(&smmu, contexts))
}

/// One address, two PASIDs, two pages; a third PASID has no context.
fn two_spaces(smmu: &Smmu, (first, other): (u64, u64)) -> Option<&'static str> {
    let device = DEVICES[0];
    dma(device, 1, 0x1111_1111);
    dma(device, 2, 0x2222_2222);
    dma(device, 3, 0x3333_3333);
    if (read(first), read(other)) != (0x1111_1111_1111_1111, 0x2222_2222_2222_2222) {
        return Some("end: DMA did not go where the spaces say\n");
    }
    if (device.read32(0x080), device.read32(0x084)) != (2, 1) {
        return Some("end: the device counts otherwise\n");
    }
    if smmu.event() != Some(0x0a) {
        return Some("end: the abort is not told as C_BAD_CD\n");
    }
    print("one address, two PASIDs, two pages; the third PASID aborts\n");
    None
}

/// Each CPU drives a device, and this one invalidates what both use.
fn two_cpus(smmu: &Smmu, (first, other): (u64, u64)) -> Option<&'static str> {
    let Some(rounds_done) = SECOND.take() else {
        return Some("end: no page for the second CPU\n");
    };
    if !start_second_cpu(rounds_done) {
        return Some("end: there is no second CPU\n");
    }
    for round in 1..=ROUNDS {
        dma(DEVICES[0], 1, round);
        if smmu.forget_spaces().is_none() {
            return Some("end: the SMMU does not answer\n");
        }
    }
    for _ in 0..10_000_000 {
        if read(rounds_done) == ROUNDS.into() {
            break;
        }
    }
    barrier();
    let last = u64::from(ROUNDS) << 32 | u64::from(ROUNDS);
    let counts = DEVICES.map(|device| device.read32(0x080));
    if counts != [2 + ROUNDS, ROUNDS] || (read(first), read(other)) != (last, last) {
        return Some("end: a DMA of one CPU was lost\n");
    }
    print("two CPUs, each with a device: nothing is lost\n");
    None
}

/// What a rogue does: another page for an address that is live, without a break before.
fn replace_without_break(space: &Space, other: u64) -> Option<&'static str> {
    if cfg!(feature = "rogue") {
        write(space.leaf, page_descriptor(other));
    }
    None
}

/// What a memset may do: clears the first word of the context of PASID 2 by SET instructions.
fn clear_unreported(smmu: &Smmu, contexts: u64) -> Option<&'static str> {
    if cfg!(feature = "unreported") {
        clear(contexts + 2 * 64, 8);
        if smmu.forget_context(&STREAMS, 2).is_none() {
            return Some("end: the SMMU does not answer\n");
        }
        dma(DEVICES[0], 2, 0x4444_4444);
    }
    None
}

/// Has the device write `value`, twice 32 bits, under `pasid`.
fn dma(device: Frame, pasid: u32, value: u32) {
    device.write64(0x020, ADDRESS);
    device.write32(0x028, pasid | 1 << 31);
    device.write32(0x02c, 8);
    device.write32(0x030, 1);
    device.write64(0x038, u64::from(value) << 32 | u64::from(value));
    device.write32(0x018, 1);
}

/// A stage-1 table of 39 bits that maps [`ADDRESS`].
struct Space {
    root: u64,
    /// Where the page's descriptor is.
    leaf: u64,
}

/// A space whose [`ADDRESS`] is `page`.
fn space(page: u64) -> Option<Space> {
    let (root, level2, level3) = (POOL.take()?, POOL.take()?, POOL.take()?);
    let index = |shift: u32| (ADDRESS >> shift & 0x1ff) * 8;
    let leaf = level3 + index(12);
    write(leaf, page_descriptor(page));
    write(level2 + index(21), level3 | 3);
    write(root + index(30), level2 | 3);
    Some(Space { root, leaf })
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
