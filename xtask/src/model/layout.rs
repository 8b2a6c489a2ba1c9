//! Where the model's frames lie in guest RAM, and which SMMUs and devices they are.

use std::ops::Range;

/// Where RAM of QEMU's `virt` starts.
pub(crate) const RAM_BASE: u64 = 1 << 30;
/// What is taken for frames, at the top of RAM; so many bytes again where there are more devices.
pub(crate) const RESERVED_BYTES: u64 = 4 << 20;
const SMMU_BYTES: u64 = 0x2_0000;
const DEVICE_BYTES: u64 = 0x1_0000;
/// An SMMU and its devices lie in so many bytes, or in so many more times, up to the next SMMU.
const UNIT_BYTES: u64 = 0x8_0000;
/// As many as fit with [`DEVICES`] devices each.
pub(crate) const MOST_SMMUS: u8 = (RESERVED_BYTES / UNIT_BYTES) as u8;
/// Devices behind each SMMU unless asked otherwise: one of each kind, and one more that stalls.
pub(crate) const DEVICES: u8 = 4;
/// Devices behind each SMMU at most: as many as a guest can have.
pub(crate) const MOST_DEVICES: u8 = 72;
/// StreamIDs of the devices after the first [`DEVICES`], and how far apart those of two SMMUs are.
const FURTHER_STREAMS: u32 = 0x200;
const FURTHER_STEP: u32 = 0x80;

/// One SMMU of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Smmu {
    pub(crate) base: u64,
    /// What the plugin calls it.
    pub(crate) identity: &'static str,
}

/// One device of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) base: u64,
    pub(crate) smmu: usize,
    pub(crate) stream: u32,
    /// 0: none.
    pub(crate) pasid_bits: u32,
    pub(crate) has_atc: bool,
    pub(crate) can_stall: bool,
}

impl Device {
    /// The name of its node.
    pub(crate) fn node(&self) -> String {
        format!("dma-test@{:x}", self.base)
    }
}

/// From an SMMU with so many devices to the next.
fn unit_bytes(devices: u8) -> u64 {
    (SMMU_BYTES + u64::from(devices) * DEVICE_BYTES).next_multiple_of(UNIT_BYTES)
}

/// What is taken at the top of RAM for so many SMMUs with so many devices each.
pub(crate) fn reserved_bytes(smmus: u8, devices: u8) -> u64 {
    let bytes = u64::from(smmus.clamp(1, MOST_SMMUS)) * unit_bytes(devices);
    bytes.next_multiple_of(RESERVED_BYTES)
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) ram: Range<u64>,
    /// What the guest must not take for memory.
    pub(crate) reserved: Range<u64>,
    pub(crate) smmus: Vec<Smmu>,
    pub(crate) devices: Vec<Device>,
}

impl Layout {
    /// `smmus` SMMUs, at most [`MOST_SMMUS`], with `devices` devices each, in RAM of `ram_bytes`
    /// bytes. There are [`DEVICES`] at least and [`MOST_DEVICES`] at most.
    ///
    /// Behind each are two devices with PASIDs, an ATC and stalls; one with more PASIDs and an ATC;
    /// and a plain one whose StreamID lies under another level-1 descriptor. All further ones are
    /// like the first. No StreamID is on two SMMUs. All SMMUs but the second have the 16 KiB
    /// granule.
    ///
    /// `None` if there is too little RAM.
    pub(crate) fn new(ram_bytes: u64, smmus: u8, devices: u8) -> Option<Self> {
        let devices = devices.clamp(DEVICES, MOST_DEVICES);
        let (bytes, unit) = (reserved_bytes(smmus, devices), unit_bytes(devices));
        let ram = RAM_BASE..RAM_BASE.checked_add(ram_bytes)?;
        let first = ram.end - ram_bytes.min(bytes);
        if ram_bytes < 2 * bytes || !first.is_multiple_of(UNIT_BYTES) {
            return None;
        }
        let mut layout = Self {
            reserved: first..ram.end,
            ram,
            smmus: Vec::new(),
            devices: Vec::new(),
        };
        for at in 0..smmus.min(MOST_SMMUS) {
            layout.add(first + u64::from(at) * unit, at.into());
        }
        // One behind each SMMU, then the next: the first few are behind all of them.
        for place in DEVICES..devices {
            for smmu in 0..layout.smmus.len() {
                layout.add_further(smmu, place);
            }
        }
        Some(layout)
    }

    fn add(&mut self, base: u64, at: u32) {
        let smmu = self.smmus.len();
        let identity = if at == 1 { "full:no-16k" } else { "full" };
        self.smmus.push(Smmu { base, identity });
        let device = |place: u64, stream, pasid_bits, can_stall| Device {
            base: base + SMMU_BYTES + place * DEVICE_BYTES,
            smmu,
            stream,
            pasid_bits,
            has_atc: pasid_bits != 0,
            can_stall,
        };
        self.devices.extend([
            device(0, 0x10 + at, 16, true),
            device(1, 0x20 + at, 20, false),
            device(2, 0x110 + at, 0, false),
            device(3, 0x30 + at, 16, true),
        ]);
    }

    fn add_further(&mut self, smmu: usize, place: u8) {
        let base = self.smmus[smmu].base + SMMU_BYTES + u64::from(place) * DEVICE_BYTES;
        self.devices.push(Device {
            base,
            smmu,
            stream: FURTHER_STREAMS + FURTHER_STEP * smmu as u32 + u32::from(place - DEVICES),
            pasid_bits: 16,
            has_atc: true,
            can_stall: true,
        });
    }

    /// The plugin's arguments that describe it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let bytes = self.ram.end - self.ram.start;
        let ram = format!("ram={:#x}+{bytes:#x}", self.ram.start);
        let smmus = self.smmus.iter();
        let smmus = smmus.map(|it| format!("smmu={:#x}:{}", it.base, it.identity));
        let devices = self.devices.iter().map(|it| {
            let pasid = match it.pasid_bits {
                0 => String::new(),
                bits => format!(":pasid={bits}"),
            };
            let atc = if it.has_atc { ":atc" } else { "" };
            let (base, smmu, stream) = (it.base, it.smmu, it.stream);
            format!("device={base:#x}:smmu{smmu}:sid={stream:#x}{pasid}{atc}")
        });
        [ram].into_iter().chain(smmus).chain(devices).collect()
    }
}

/// The bytes that QEMU's `-m` means by `text`: a number with `M` or `G`, or of MiB.
pub(crate) fn memory_bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix('G') {
        Some(digits) => (digits, 1 << 30),
        None => (text.strip_suffix('M').unwrap_or(text), 1 << 20),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lie_apart_at_the_top_of_memory() {
        for devices in [DEVICES, 17, MOST_DEVICES] {
            lie_apart(devices);
        }
    }

    fn lie_apart(each: u8) {
        let layout = Layout::new(512 << 20, MOST_SMMUS, each).expect("enough memory");
        let is_kept = layout.ram.end - layout.reserved.start == reserved_bytes(MOST_SMMUS, each);
        assert!(is_kept && layout.reserved.end == layout.ram.end);
        let smmus = layout.smmus.iter().map(|it| (it.base, SMMU_BYTES));
        let devices = layout.devices.iter().map(|it| (it.base, DEVICE_BYTES));
        let mut frames: Vec<_> = smmus.chain(devices).collect();
        frames.sort_unstable();
        assert_eq!(
            frames.len(),
            usize::from(MOST_SMMUS) * usize::from(each + 1)
        );
        assert!(frames.iter().all(|(base, bytes)| base % bytes == 0));
        let apart = |pair: &[(u64, u64)]| pair[0].0 + pair[0].1 <= pair[1].0;
        assert!(frames.windows(2).all(apart));
        let last = frames[frames.len() - 1];
        assert!(layout.reserved.start == frames[0].0 && last.0 + last.1 <= layout.reserved.end);
    }

    #[test]
    fn no_stream_is_on_two_smmus_and_only_the_second_lacks_a_granule() {
        let layout = Layout::new(512 << 20, 4, MOST_DEVICES).expect("enough memory");
        let mut streams: Vec<u32> = layout.devices.iter().map(|it| it.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        assert_eq!(streams.len(), 4 * usize::from(MOST_DEVICES));
        let lacking: Vec<bool> = layout
            .smmus
            .iter()
            .map(|it| it.identity != "full")
            .collect();
        assert_eq!(lacking, [false, true, false, false]);
    }

    #[test]
    fn the_arguments_say_what_the_layout_is() {
        let layout = Layout::new(64 << 20, 1, DEVICES).expect("enough memory");
        let words = [
            "ram=0x40000000+0x4000000",
            "smmu=0x43c00000:full",
            "device=0x43c20000:smmu0:sid=0x10:pasid=16:atc",
            "device=0x43c30000:smmu0:sid=0x20:pasid=20:atc",
            "device=0x43c40000:smmu0:sid=0x110",
            "device=0x43c50000:smmu0:sid=0x30:pasid=16:atc",
        ];
        assert_eq!(layout.arguments(), words);
    }

    #[test]
    fn memory_is_counted_as_qemu_does() {
        assert_eq!(memory_bytes("512M"), Some(512 << 20));
        assert_eq!(memory_bytes("512"), Some(512 << 20));
        assert_eq!(memory_bytes("2G"), Some(2 << 30));
        assert_eq!(memory_bytes("much"), None);
        assert_eq!(Layout::new(4 << 20, 1, DEVICES), None);
    }
}
