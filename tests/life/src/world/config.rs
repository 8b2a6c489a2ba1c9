//! What guests and their spaces are like.

use portcullis::addr::Ipa;
use portcullis::hw::PoolShape;
use portcullis::id::Asid;
use portcullis::space::{GroupId, GuestConfig, Quota};
use portcullis::spec::stage1::{Half, Stage1Walk, TopByte};
use portcullis::spec::vmsa::{BbmLevel, Cacheability, Granule, Shareability, WalkCoherency};

use portcullis::smmu::Smmu;

use super::{Device, WINDOW, World};
use crate::host::Host;

/// How guests are made.
pub fn guest_config() -> GuestConfig {
    GuestConfig {
        granule: Granule::Kib4,
        ipa_bits: 39,
        oas_bits: 40,
        bbm: BbmLevel::Level0,
        coherency: WalkCoherency::Coherent,
        tables: PoolShape {
            quota_pages: 64,
            log2_pages_per_chunk: 0,
        },
        window: WINDOW,
        window_bytes: 1 << 20,
        pasid_bits: 6,
        quota: Quota::default(),
    }
}

pub(super) fn walk_from(root: Ipa) -> Stage1Walk {
    Stage1Walk {
        asid: Asid::new(0),
        low: Some(Half {
            root,
            granule: Granule::Kib4,
            va_bits: 30,
            top_byte: TopByte::Checked,
            inner: Cacheability::WriteBack,
            outer: Cacheability::WriteBack,
            shareability: Shareability::Inner,
        }),
        high: None,
        output_bits: 40,
        memory_types: 0xff,
    }
}

impl<'p> World<'p> {
    /// An SMMU.
    pub fn smmu(&self, smmu: usize) -> &'p Smmu<'p, Host> {
        &self.smmus[smmu]
    }

    /// Makes one group of devices that nobody has, which can stall or not.
    pub fn join(&mut self, devices: &[usize], can_stall: bool) -> GroupId {
        let group = self.iommu.add_group().expect("there is room");
        for &device in devices {
            let removed = self.iommu.remove_device(self.devices[device].id);
            removed.expect("nobody has it");
            self.devices[device] =
                Device::new(&self.iommu, &self.shape, (group, can_stall), device);
        }
        group
    }
}
