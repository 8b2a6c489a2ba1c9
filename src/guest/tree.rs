//! The device tree that a guest sees: what it owns, and nothing else.
//!
//! Its memory, its CPUs, PSCI, the calls to EL2, the devices given to it. No SMMU, no interrupt
//! controller, no console, no timer's interrupts.

use core::fmt::{self, Write as _};

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const LAST_COMPATIBLE: u32 = 16;
const HEADER_BYTES: usize = 40;
/// One entry of zeros ends the reservations.
const RESERVATIONS_BYTES: usize = 16;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;
/// All names of properties together.
const NAMES_BYTES: usize = 512;

/// The tree does not fit where it is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooSmall;

impl From<fmt::Error> for TooSmall {
    fn from(_: fmt::Error) -> Self {
        Self
    }
}

/// A device tree being written (Devicetree Specification 0.4, chapter 5).
struct Writer<'o> {
    out: &'o mut [u8],
    used: usize,
    names: [u8; NAMES_BYTES],
    names_used: usize,
}

/// A text that goes straight into the tree.
struct Text<'w, 'o>(&'w mut Writer<'o>);

impl fmt::Write for Text<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.bytes(text.as_bytes()).map_err(|TooSmall| fmt::Error)
    }
}

impl<'o> Writer<'o> {
    fn new(out: &'o mut [u8]) -> Self {
        Self {
            out,
            used: HEADER_BYTES + RESERVATIONS_BYTES,
            names: [0; NAMES_BYTES],
            names_used: 0,
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), TooSmall> {
        let end = self.used + bytes.len();
        let place = self.out.get_mut(self.used..end).ok_or(TooSmall)?;
        place.copy_from_slice(bytes);
        self.used = end;
        Ok(())
    }

    fn word(&mut self, word: u32) -> Result<(), TooSmall> {
        self.bytes(&word.to_be_bytes())
    }

    fn align(&mut self) -> Result<(), TooSmall> {
        while !self.used.is_multiple_of(4) {
            self.bytes(&[0])?;
        }
        Ok(())
    }

    fn begin(&mut self, name: fmt::Arguments<'_>) -> Result<(), TooSmall> {
        self.word(BEGIN_NODE)?;
        Text(self).write_fmt(name)?;
        self.bytes(&[0])?;
        self.align()
    }

    fn end(&mut self) -> Result<(), TooSmall> {
        self.word(END_NODE)
    }

    /// Where `name` is among the names, with an end of its own.
    fn name(&mut self, name: &str) -> Result<u32, TooSmall> {
        let known = self.names.get(..self.names_used).unwrap_or(&[]);
        let mut at = 0;
        for other in known.split(|byte| *byte == 0) {
            if other == name.as_bytes() {
                return Ok(at);
            }
            at += other.len() as u32 + 1;
        }
        let (first, end) = (self.names_used, self.names_used + name.len());
        // Behind it stays a zero.
        if end >= NAMES_BYTES {
            return Err(TooSmall);
        }
        if let Some(place) = self.names.get_mut(first..end) {
            place.copy_from_slice(name.as_bytes());
        }
        self.names_used = end + 1;
        Ok(first as u32)
    }

    fn property(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Self) -> Result<(), TooSmall>,
    ) -> Result<(), TooSmall> {
        self.word(PROPERTY)?;
        let length_at = self.used;
        self.word(0)?;
        let name = self.name(name)?;
        self.word(name)?;
        let first = self.used;
        value(self)?;
        let length = (self.used - first) as u32;
        if let Some(place) = self.out.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        self.align()
    }

    fn words(&mut self, name: &str, words: &[u32]) -> Result<(), TooSmall> {
        self.property(name, |tree| {
            words.iter().try_for_each(|word| tree.word(*word))
        })
    }

    /// Numbers of two cells each.
    fn numbers(&mut self, name: &str, numbers: &[u64]) -> Result<(), TooSmall> {
        self.property(name, |tree| {
            let mut numbers = numbers.iter();
            numbers.try_for_each(|number| tree.bytes(&number.to_be_bytes()))
        })
    }

    fn texts(&mut self, name: &str, texts: &[&str]) -> Result<(), TooSmall> {
        self.property(name, |tree| {
            texts.iter().try_for_each(|text| {
                tree.bytes(text.as_bytes())?;
                tree.bytes(&[0])
            })
        })
    }

    fn finish(mut self) -> Result<usize, TooSmall> {
        self.word(END)?;
        let names_at = self.used;
        let (names, names_used) = (self.names, self.names_used);
        self.bytes(names.get(..names_used).unwrap_or(&[]))?;
        let total = self.used;
        let structure_at = HEADER_BYTES + RESERVATIONS_BYTES;
        let header = [
            MAGIC,
            total as u32,
            structure_at as u32,
            names_at as u32,
            HEADER_BYTES as u32,
            VERSION,
            LAST_COMPATIBLE,
            0,
            names_used as u32,
            (names_at - structure_at) as u32,
        ];
        self.used = 0;
        for word in header {
            self.word(word)?;
        }
        self.bytes(&[0; RESERVATIONS_BYTES])?;
        Ok(total)
    }
}

/// A device of a guest, as its tree has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Described<'a> {
    /// Registers at an address.
    Mmio {
        /// Its name, without an address.
        name: &'a str,
        /// What it is.
        compatible: &'a str,
        /// Where, and how many bytes.
        at: (u64, u64),
        /// How many bits of PASID it issues.
        pasid_bits: u8,
        /// It bears stalls.
        can_stall: bool,
        /// Its DMA snoops the CPUs' caches.
        is_coherent: bool,
    },
    /// A PCI function: seen in configuration space.
    Function,
}

/// A host bridge whose configuration space EL2 mediates for a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DescribedBridge<'a> {
    /// The segment.
    pub segment: u16,
    /// Where its configuration space is, and how many bytes.
    pub ecam: (u64, u64),
    /// The buses.
    pub buses: (u8, u8),
    /// `ranges`: the upper cell of the PCI address, the PCI address, the CPU's, how many bytes.
    pub ranges: &'a [(u32, u64, u64, u64)],
}

/// A guest, as its tree tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestTree<'a> {
    /// Its memory.
    pub memory: (u64, u64),
    /// How many CPUs it has.
    pub cpus: usize,
    /// Its devices, by number.
    pub devices: &'a [Described<'a>],
    /// The host bridges of those that are PCI functions.
    pub bridges: &'a [DescribedBridge<'a>],
    /// Numbers for the embedded guests, below `/chosen`.
    pub chosen: &'a [(&'a str, u64)],
}

/// Writes the tree into `out`; gives how many bytes it takes.
///
/// # Errors
///
/// [`TooSmall`]; `out` holds anything then.
pub fn write(guest: &GuestTree<'_>, out: &mut [u8]) -> Result<usize, TooSmall> {
    let mut tree = Writer::new(out);
    tree.begin(format_args!(""))?;
    tree.texts("compatible", &["portcullis,guest"])?;
    tree.words("#address-cells", &[2])?;
    tree.words("#size-cells", &[2])?;
    tree.begin(format_args!("chosen"))?;
    for (name, value) in guest.chosen {
        tree.numbers(name, &[*value])?;
    }
    tree.end()?;
    let (base, size_bytes) = guest.memory;
    tree.begin(format_args!("memory@{base:x}"))?;
    tree.texts("device_type", &["memory"])?;
    tree.numbers("reg", &[base, size_bytes])?;
    tree.end()?;
    tree.begin(format_args!("cpus"))?;
    tree.words("#address-cells", &[1])?;
    tree.words("#size-cells", &[0])?;
    for number in 0..guest.cpus {
        tree.begin(format_args!("cpu@{number:x}"))?;
        tree.texts("device_type", &["cpu"])?;
        tree.texts("compatible", &["arm,armv8"])?;
        tree.texts("enable-method", &["psci"])?;
        tree.words("reg", &[number as u32])?;
        tree.end()?;
    }
    tree.end()?;
    tree.begin(format_args!("psci"))?;
    tree.texts("compatible", &["arm,psci-1.0", "arm,psci-0.2"])?;
    tree.texts("method", &["hvc"])?;
    tree.end()?;
    tree.begin(format_args!("hypervisor"))?;
    tree.texts("compatible", &["portcullis,hypervisor"])?;
    tree.end()?;
    for (number, device) in (0..).zip(guest.devices) {
        mmio(&mut tree, number, device)?;
    }
    for bridge in guest.bridges {
        pci(&mut tree, bridge)?;
    }
    tree.end()?;
    tree.finish()
}

fn mmio(tree: &mut Writer<'_>, number: u32, device: &Described<'_>) -> Result<(), TooSmall> {
    let Described::Mmio {
        name,
        compatible,
        at: (base, size_bytes),
        pasid_bits,
        can_stall,
        is_coherent,
    } = *device
    else {
        return Ok(());
    };
    tree.begin(format_args!("{name}@{base:x}"))?;
    tree.texts("compatible", &[compatible])?;
    tree.numbers("reg", &[base, size_bytes])?;
    tree.words("portcullis,device", &[number])?;
    if pasid_bits != 0 {
        tree.words("pasid-num-bits", &[pasid_bits.into()])?;
    }
    if can_stall {
        tree.words("dma-can-stall", &[])?;
    }
    if is_coherent {
        tree.words("dma-coherent", &[])?;
    }
    tree.end()
}

fn pci(tree: &mut Writer<'_>, bridge: &DescribedBridge<'_>) -> Result<(), TooSmall> {
    let (base, size_bytes) = bridge.ecam;
    tree.begin(format_args!("pcie@{base:x}"))?;
    tree.texts("compatible", &["portcullis,pci", "pci-host-ecam-generic"])?;
    tree.texts("device_type", &["pci"])?;
    tree.numbers("reg", &[base, size_bytes])?;
    tree.words("#address-cells", &[3])?;
    tree.words("#size-cells", &[2])?;
    tree.words("linux,pci-domain", &[bridge.segment.into()])?;
    tree.words("bus-range", &[bridge.buses.0.into(), bridge.buses.1.into()])?;
    // BARs have their places; nothing is to be placed anew.
    tree.words("linux,pci-probe-only", &[1])?;
    tree.words("dma-coherent", &[])?;
    tree.property("ranges", |tree| {
        for (space, pci, cpu, size_bytes) in bridge.ranges {
            tree.word(*space)?;
            for number in [*pci, *cpu, *size_bytes] {
                tree.bytes(&number.to_be_bytes())?;
            }
        }
        Ok(())
    })?;
    tree.end()
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::discover::{DeviceTree, Machine, Mpidr, Start};

    fn guest<'a>(devices: &'a [Described<'a>], bridges: &'a [DescribedBridge<'a>]) -> Vec<u8> {
        let guest = GuestTree {
            memory: (0x4000_0000, 0x400_0000),
            cpus: 2,
            devices,
            bridges,
            chosen: &[("portcullis,report", 0x4010_0000)],
        };
        let mut out = vec![0xaa; 4096];
        let bytes = write(&guest, &mut out).expect("it fits");
        out.truncate(bytes);
        out
    }

    const DEVICE: Described<'static> = Described::Mmio {
        name: "dma-test",
        compatible: "portcullis,dma-test",
        at: (0x5fc2_0000, 0x1_0000),
        pasid_bits: 16,
        can_stall: true,
        is_coherent: true,
    };

    /// Read by the reader that takes firmware's trees.
    #[test]
    fn a_reader_of_trees_finds_the_memory_and_the_cpus_and_no_smmu() {
        let mut bytes = guest(&[Described::Function, DEVICE], &[]);
        let tree = DeviceTree::new(&mut bytes).expect("sound");
        let mut machine = Machine::new();
        machine.read_device_tree(&tree).expect("it makes sense");
        let memory: Vec<_> = machine.memory.iter().map(|at| at.base().as_u64()).collect();
        assert_eq!(memory, [0x4000_0000]);
        assert_eq!(machine.memory[0].size_bytes(), 0x400_0000);
        let cpus: Vec<_> = machine
            .cpus
            .iter()
            .map(|cpu| (cpu.mpidr, cpu.start))
            .collect();
        let number = |number| Mpidr::new(number).expect("small");
        assert_eq!(cpus, [(number(0), Start::Psci), (number(1), Start::Psci)]);
        assert!(machine.smmus.is_empty() && machine.gic.is_none() && machine.console.is_none());
    }

    fn find<'t>(tree: &'t dtoolkit::fdt::Fdt<'_>, path: &str) -> dtoolkit::fdt::FdtNode<'t> {
        use dtoolkit::Node;
        tree.root()
            .children()
            .find(|child| child.name() == path)
            .unwrap_or_else(|| panic!("no {path}"))
    }

    /// By a second reader.
    #[test]
    fn devices_carry_their_numbers_and_pci_is_seen_through_its_bridge() {
        use dtoolkit::{Node, Property};
        let bridge = DescribedBridge {
            segment: 0,
            ecam: (0x40_1000_0000, 0x1000_0000),
            buses: (0, 255),
            ranges: &[(0x200_0000, 0x1000_0000, 0x1000_0000, 0x2eff_0000)],
        };
        let bytes = guest(&[Described::Function, DEVICE], &[bridge]);
        let fdt = dtoolkit::fdt::Fdt::new(&bytes).expect("sound");
        let value = |node: &str, name: &str| {
            let node = find(&fdt, node);
            let property = node.property(name).unwrap_or_else(|| panic!("no {name}"));
            property.value().to_vec()
        };
        assert_eq!(
            value("dma-test@5fc20000", "portcullis,device"),
            [0, 0, 0, 1]
        );
        assert_eq!(value("dma-test@5fc20000", "pasid-num-bits"), [0, 0, 0, 16]);
        assert_eq!(value("psci", "method"), b"hvc\0");
        assert_eq!(
            value("hypervisor", "compatible"),
            b"portcullis,hypervisor\0"
        );
        let ranges = value("pcie@4010000000", "ranges");
        assert_eq!((ranges.len(), &ranges[..4]), (28, &[2, 0, 0, 0][..]));
        assert_eq!(
            value("pcie@4010000000", "bus-range"),
            [0, 0, 0, 0, 0, 0, 0, 255]
        );
        let report = value("chosen", "portcullis,report");
        assert_eq!(report, 0x4010_0000_u64.to_be_bytes());
    }

    #[test]
    fn a_tree_that_does_not_fit_is_refused_wherever_it_ends() {
        let whole = guest(&[DEVICE], &[]).len();
        for bytes in 0..whole {
            let described = GuestTree {
                memory: (0x4000_0000, 0x400_0000),
                cpus: 2,
                devices: &[DEVICE],
                bridges: &[],
                chosen: &[("portcullis,report", 0x4010_0000)],
            };
            let mut out = vec![0; bytes];
            assert_eq!(write(&described, &mut out), Err(TooSmall), "{bytes}");
        }
    }
}
