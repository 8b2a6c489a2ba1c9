//! Who the guests are: what `/chosen` describes, held against the machine before any guest starts.
//!
//! `GUESTS.md` tells how guests are described. Whatever is wrong refuses all of them, by name.

use core::fmt;

use crate::addr::{Extent, Ipa, Pa};
use crate::discover::{Full, GuestNode, List, Machine, Mpidr, Start, StreamsOf, Text};
use crate::pci::{Function, Kind};

/// How many guests there can be.
pub const MAX_GUESTS: usize = 8;
/// How many devices a guest can have.
pub const MAX_DEVICES: usize = 72;
/// Memory comes in pieces of this size.
pub const MEMORY_STEP_BYTES: u64 = 2 << 20;
/// The end of a guest's memory, in which its device tree is.
pub const TREE_BYTES: u64 = 64 << 10;

const PAGE_BYTES: u64 = 4096;
const IMAGE_HEADER_BYTES: usize = 64;
const IMAGE_MAGIC: &[u8; 4] = b"ARM\x64";
const IMAGE_MAGIC_AT: usize = 56;
const IMAGE_OFFSET_AT: usize = 8;
const IMAGE_SIZE_AT: usize = 16;

/// What a guest is called.
pub type Name = Text<32>;

/// A guest that can be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// What it is called.
    pub name: Name,
    /// Where its image is.
    pub image: Extent<Pa>,
    /// How far from the start of its memory its image is put, and entered.
    pub offset: u64,
    /// Its memory, to itself.
    pub memory: Extent<Ipa>,
    /// Its CPUs: places in [`Machine::cpus`].
    pub cpus: List<usize, 16>,
    /// Its devices, by number.
    pub devices: List<PlannedDevice, MAX_DEVICES>,
    /// As [`GuestNode::quotas`].
    pub quotas: [Option<u32>; 5],
}

/// A device of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlannedDevice {
    /// A place in [`Machine::devices`].
    Platform(usize),
    /// A place in the list of PCI functions.
    Function(usize),
}

/// Why the guests are not started: which guest, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// What it is called.
    pub guest: Name,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with the description of a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Its name is not 1 to 16 lower-case letters, digits and hyphens.
    Name,
    /// Another guest has this name.
    SameName,
    /// It is one guest more than there can be.
    OneTooMany,
    /// Its image lies where there is no memory, or something else.
    ImagePlace,
    /// Its image does not begin with an arm64 Image header.
    NoImage,
    /// Its image, with what it clears, and its device tree take more than its memory.
    ImageTooLarge {
        /// How much they take.
        needed_bytes: u64,
        /// How much there is.
        memory_bytes: u64,
    },
    /// Its memory is not a number of times 2 MiB, not at a multiple of that, or past the addresses
    /// that there are.
    Memory {
        /// Where it is.
        at: u64,
        /// How much it is.
        size_bytes: u64,
    },
    /// Its memory is where its device has its registers.
    MemoryOverDevice {
        /// The device.
        device: Text<48>,
    },
    /// The machine has no such CPU.
    NoSuchCpu(Mpidr),
    /// The CPU cannot be started.
    CannotStart(Mpidr),
    /// The CPU is given twice.
    CpuTwice(Mpidr),
    /// The machine has no such device.
    NoSuchDevice(Text<48>),
    /// The device is given twice.
    DeviceTwice(Text<48>),
    /// Some of the device's traffic goes through no SMMU.
    Unprotected(Text<48>),
    /// The device cannot be used: it says wrong things of itself, or is a bridge.
    Unusable(Text<48>),
    /// The device cannot be kept apart from one that another guest has.
    NotApart(Text<48>),
    /// The device's registers share a page with something else, or there are none.
    Registers(Text<48>),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest {}: {}", self.guest, self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("not a name: 1 to 16 lower-case letters, digits, hyphens"),
            Self::SameName => f.write_str("another guest has this name"),
            Self::OneTooMany => write!(f, "more than {MAX_GUESTS} guests"),
            Self::ImagePlace => f.write_str("its image lies where something else does, or nothing"),
            Self::NoImage => f.write_str("its image has no arm64 Image header"),
            Self::ImageTooLarge {
                needed_bytes,
                memory_bytes,
            } => write!(
                f,
                "its image and its device tree take {needed_bytes:#x} bytes, it has {memory_bytes:#x}"
            ),
            Self::Memory { at, size_bytes } => write!(
                f,
                "memory of {size_bytes:#x} bytes at {at:#x}: not whole 2 MiB, or past its addresses"
            ),
            Self::MemoryOverDevice { device } => {
                write!(f, "its memory is where {device} has its registers")
            }
            Self::NoSuchCpu(cpu) => write!(f, "there is no CPU {:#x}", cpu.as_u64()),
            Self::CannotStart(cpu) => write!(f, "CPU {:#x} cannot be started", cpu.as_u64()),
            Self::CpuTwice(cpu) => write!(f, "CPU {:#x} is given twice", cpu.as_u64()),
            Self::NoSuchDevice(device) => write!(f, "there is no device {device}"),
            Self::DeviceTwice(device) => write!(f, "device {device} is given twice"),
            Self::Unprotected(device) => write!(f, "device {device} is behind no SMMU"),
            Self::Unusable(device) => write!(f, "device {device} cannot be used"),
            Self::NotApart(device) => write!(
                f,
                "device {device} cannot be kept apart from a device of another guest"
            ),
            Self::Registers(device) => {
                write!(
                    f,
                    "the registers of device {device} are no pages of their own"
                )
            }
        }
    }
}

/// What the machine has to give.
#[derive(Clone, Copy)]
pub struct Given<'m> {
    /// The machine.
    pub machine: &'m Machine,
    /// Its PCI functions.
    pub functions: &'m [Function],
    /// The CPU that runs now, which need not be started.
    pub here: Mpidr,
    /// How wide a guest's addresses are.
    pub ipa_bits: u8,
}

/// All guests.
pub type Plan = List<Planned, MAX_GUESTS>;

/// Holds `nodes` against the machine; `image` gives the bytes of an image.
///
/// # Errors
///
/// [`Wrong`]: the first guest that cannot be, and why.
pub fn plan<'i>(
    nodes: &[GuestNode],
    given: Given<'_>,
    image: &mut dyn FnMut(Extent<Pa>) -> Option<&'i [u8]>,
) -> Result<Plan, Wrong> {
    let mut plan = Plan::new();
    for node in nodes {
        let wrong = |why| Wrong {
            guest: node.name,
            why,
        };
        let bytes = image(node.image).ok_or_else(|| wrong(Why::ImagePlace))?;
        let planned = one(node, given, bytes, &plan).map_err(wrong)?;
        plan.push(planned).map_err(|_| wrong(Why::OneTooMany))?;
    }
    Ok(plan)
}

fn one(node: &GuestNode, given: Given<'_>, image: &[u8], before: &Plan) -> Result<Planned, Why> {
    check_name(&node.name)?;
    if before.iter().any(|other| other.name == node.name) {
        return Err(Why::SameName);
    }
    let memory = memory(node, given.ipa_bits)?;
    let offset = image_offset(image, memory.size_bytes())?;
    let mut planned = Planned {
        name: node.name,
        image: node.image,
        offset,
        memory,
        cpus: List::new(),
        devices: List::new(),
        quotas: node.quotas,
    };
    for &cpu in &node.cpus {
        let place = self::cpu(cpu, given)?;
        let has = |guest: &Planned| guest.cpus.contains(&place);
        if has(&planned) || before.iter().any(has) {
            return Err(Why::CpuTwice(cpu));
        }
        // As many as a node has.
        let _: Result<(), Full> = planned.cpus.push(place);
    }
    for name in &node.devices {
        let device = device(name, given)?;
        let has = |guest: &Planned| guest.devices.contains(&device);
        if has(&planned) || before.iter().any(has) {
            return Err(Why::DeviceTwice(*name));
        }
        let is_apart = |other: &PlannedDevice| !given.are_one_group(device, *other);
        let mut others = before.iter().flat_map(|guest| &guest.devices);
        if !others.all(is_apart) {
            return Err(Why::NotApart(*name));
        }
        for registers in given.registers(device).into_iter().flatten() {
            let (base, end) = (registers.base().as_u64(), registers.end().as_u64());
            if base < memory.end().as_u64() && memory.base().as_u64() < end {
                return Err(Why::MemoryOverDevice { device: *name });
            }
        }
        // As many as a node has.
        let _: Result<(), Full> = planned.devices.push(device);
    }
    Ok(planned)
}

fn check_name(name: &Name) -> Result<(), Why> {
    let bytes = name.as_str().as_bytes();
    let is_good = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    if (1..=16).contains(&bytes.len()) && bytes.iter().all(is_good) {
        Ok(())
    } else {
        Err(Why::Name)
    }
}

fn memory(node: &GuestNode, ipa_bits: u8) -> Result<Extent<Ipa>, Why> {
    let (at, size_bytes) = (node.memory_at, node.memory_bytes);
    let wrong = Why::Memory { at, size_bytes };
    let extent = Extent::<Ipa>::new(Ipa::new(at), size_bytes).ok_or(wrong.clone())?;
    let is_whole =
        at.is_multiple_of(MEMORY_STEP_BYTES) && size_bytes.is_multiple_of(MEMORY_STEP_BYTES);
    // The last gigabytes are for the window of CDs.
    let is_low = extent.end().as_u64() <= 1 << (ipa_bits - 1);
    if is_whole && is_low && size_bytes != 0 {
        Ok(extent)
    } else {
        Err(wrong)
    }
}

fn number(image: &[u8], at: usize) -> Option<u64> {
    let bytes = image.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// Where the image is put in memory of so many bytes.
fn image_offset(image: &[u8], memory_bytes: u64) -> Result<u64, Why> {
    let magic = image.get(IMAGE_MAGIC_AT..).unwrap_or(&[]);
    if image.len() < IMAGE_HEADER_BYTES || !magic.starts_with(IMAGE_MAGIC) {
        return Err(Why::NoImage);
    }
    let offset = number(image, IMAGE_OFFSET_AT).unwrap_or(0);
    // With what it clears; an old image says 0.
    let size_bytes = number(image, IMAGE_SIZE_AT).unwrap_or(0);
    let needed_bytes = offset
        .saturating_add(size_bytes.max(image.len() as u64))
        .saturating_add(TREE_BYTES);
    if needed_bytes > memory_bytes || !offset.is_multiple_of(PAGE_BYTES) {
        return Err(Why::ImageTooLarge {
            needed_bytes,
            memory_bytes,
        });
    }
    Ok(offset)
}

fn cpu(cpu: Mpidr, given: Given<'_>) -> Result<usize, Why> {
    let mut cpus = given.machine.cpus.iter();
    let place = cpus.position(|it| it.mpidr == cpu);
    let place = place.ok_or(Why::NoSuchCpu(cpu))?;
    let start = given.machine.cpus.get(place).map(|it| it.start);
    if cpu != given.here && start != Some(Start::Psci) {
        return Err(Why::CannotStart(cpu));
    }
    Ok(place)
}

/// `SSSS:BB:DD.F`, in hexadecimal digits.
fn pci_name(text: &str) -> Option<(u16, u16)> {
    let (segment, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let hex = |text: &str, digits, limit| {
        let number = u16::from_str_radix(text, 16).ok()?;
        (text.len() == digits && number <= limit).then_some(number)
    };
    let rid = hex(bus, 2, 0xff)? << 8 | hex(device, 2, 31)? << 3 | hex(function, 1, 7)?;
    Some((hex(segment, 4, 0xffff)?, rid))
}

fn device(name: &Text<48>, given: Given<'_>) -> Result<PlannedDevice, Why> {
    let absent = || Why::NoSuchDevice(*name);
    let found = match pci_name(name.as_str()) {
        Some((segment, rid)) => {
            let is_it = |it: &Function| (it.segment, it.rid.as_u16()) == (segment, rid);
            let place = given.functions.iter().position(is_it).ok_or_else(absent)?;
            PlannedDevice::Function(place)
        }
        None => {
            let mut devices = given.machine.devices.iter();
            let place = devices.position(|it| it.name.as_str() == name.as_str());
            PlannedDevice::Platform(place.ok_or_else(absent)?)
        }
    };
    let is_protected =
        match found {
            PlannedDevice::Platform(place) => given.machine.devices.get(place).is_some_and(|it| {
                matches!(given.machine.streams_of_device(it), StreamsOf::Behind(_))
            }),
            PlannedDevice::Function(place) => {
                let function = given.functions.get(place).ok_or_else(absent)?;
                if function.kind != Kind::Endpoint || function.refused.is_some() {
                    return Err(Why::Unusable(*name));
                }
                matches!(function.streams(given.machine), StreamsOf::Behind(_))
            }
        };
    if !is_protected {
        return Err(Why::Unprotected(*name));
    }
    let mut registers = given.registers(found).into_iter().flatten().peekable();
    let is_some = registers.peek().is_some();
    let is_pages =
        |at: Extent<Pa>| at.base().is_aligned(12) && at.size_bytes().is_multiple_of(PAGE_BYTES);
    if !is_some || !registers.all(is_pages) {
        return Err(Why::Registers(*name));
    }
    Ok(found)
}

impl Given<'_> {
    /// Where a device has its registers.
    pub fn registers(&self, device: PlannedDevice) -> [Option<Extent<Pa>>; 6] {
        match device {
            PlannedDevice::Platform(place) => {
                let device = self.machine.devices.get(place);
                let mut found = [None; 6];
                found[0] = device.and_then(|it| it.registers);
                found
            }
            PlannedDevice::Function(place) => match self.functions.get(place) {
                Some(function) => function.bars.map(|bar| bar.and_then(|bar| bar.at)),
                None => [None; 6],
            },
        }
    }

    /// Whether two devices cannot be kept apart: they share a stream; they are functions of one
    /// device; they are on one bus behind a bridge. Nothing is known of what bridges and devices
    /// redirect (ACS), so it counts as not done.
    pub fn are_one_group(&self, one: PlannedDevice, other: PlannedDevice) -> bool {
        let (PlannedDevice::Function(one), PlannedDevice::Function(other)) = (one, other) else {
            return self.share_a_stream(one, other);
        };
        let (Some(a), Some(b)) = (self.functions.get(one), self.functions.get(other)) else {
            return false;
        };
        if a.segment != b.segment {
            return false;
        }
        let is_one_device = a.rid.as_u16() >> 3 == b.rid.as_u16() >> 3;
        let root = self.machine.bridge_of(a.segment, a.rid.bus());
        let is_behind = root.is_some_and(|root| a.rid.bus() != root.first_bus);
        let is_one_bus = a.rid.bus() == b.rid.bus() && is_behind;
        is_one_device
            || is_one_bus
            || self.share_a_stream(PlannedDevice::Function(one), PlannedDevice::Function(other))
    }

    fn share_a_stream(&self, one: PlannedDevice, other: PlannedDevice) -> bool {
        let of = |device| match device {
            PlannedDevice::Platform(place) => {
                let device = self.machine.devices.get(place)?;
                let mut streams = crate::discover::Streams::new();
                for stream in self.machine.known_streams_of_device(device) {
                    streams.push(*stream).ok()?;
                }
                Some(streams)
            }
            PlannedDevice::Function(place) => {
                match self.functions.get(place)?.streams(self.machine) {
                    StreamsOf::Behind(streams) => Some(streams),
                    StreamsOf::Unprotected => None,
                }
            }
        };
        match (of(one), of(other)) {
            (Some(one), Some(other)) => one.iter().any(|stream| other.contains(stream)),
            // What is not known could be.
            _ => true,
        }
    }
}
