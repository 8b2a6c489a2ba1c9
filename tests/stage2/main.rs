//! Stage-2 tables: what is in memory, read without Portcullis' own decoders.

mod live;
mod model;
mod oracle;
mod order;
mod pending;
mod refusals;
mod resize;
mod roots;
mod shapes;
mod tlb;
mod walker;

use portcullis::hw::PoolShape;
use portcullis::hw::testing::HostPlatform;
use portcullis::id::Vmid;
use portcullis::space::stage2::{Stage2, Stage2Config};
use portcullis::spec::vmsa::{BbmLevel, Granule, WalkCoherency};

const KIB4: u64 = 0x1000;
const MIB2: u64 = 0x20_0000;
const GIB: u64 = 0x4000_0000;

fn config(granule: Granule, ipa_bits: u8) -> Stage2Config {
    Stage2Config {
        granule,
        ipa_bits,
        oas_bits: 48,
        bbm: BbmLevel::Level0,
        coherency: WalkCoherency::Coherent,
        tables: PoolShape {
            quota_pages: 1 << 20,
            log2_pages_per_chunk: 4,
        },
        vmid: Vmid::new(7),
    }
}

fn stage2(platform: &HostPlatform, granule: Granule, ipa_bits: u8) -> Stage2<'_, HostPlatform> {
    Stage2::new(platform, config(granule, ipa_bits)).expect("a legal shape, and memory")
}
