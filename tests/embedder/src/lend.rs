//! The README's example, word for word.

use std::error::Error;

use portcullis::addr::Ipa;
use portcullis::hw::{Platform, PoolShape};
use portcullis::id::{StreamId, Vmid};
use portcullis::smmu::{Firmware, QueueIndices, Settings, Smmu, invalidate};
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Config};
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, WalkCoherency};

/// Takes an SMMU over, lends a device one page of memory, and takes everything away again.
pub fn lend<P: Platform>(host: &P, registers: P::Registers) -> Result<(), Box<dyn Error>> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let device = StreamId::new(0x10);
    // From whatever state firmware left it in; every stream aborts from the first store on.
    let smmu = Smmu::take_over(host, registers, firmware, Settings::new(device))?;

    let tables = PoolShape {
        quota_pages: 64,
        log2_pages_per_chunk: 3,
    };
    let mut stage2 = Stage2::new(
        host,
        Stage2Config {
            granule: Granule::Kib4,
            ipa_bits: 40,
            oas_bits: 40,
            bbm: BbmLevel::Level0,
            coherency: WalkCoherency::Coherent,
            tables,
            vmid: Vmid::new(1),
        },
    )?;
    let page = host.allocate(12).ok_or("no memory")?;
    let at = Ipa::new(0x4000_0000);
    stage2.map(
        at,
        page.base(),
        0x1000,
        Attributes::MEMORY,
        PageSizes::Largest,
    )?;
    smmu.publish(&[device], &stage2.walk())?;

    // The device may reach the page now. What `unmap` gives is a debt: what the tables held comes
    // back only when the SMMU has confirmed that it forgot them.
    let debt = stage2.unmap(at, 0x1000)?;
    let freed = invalidate(&[&smmu], debt).map_err(|refused| refused.error)?;
    stage2.reclaim(freed).map_err(|_| "another stage 2's")?;
    host.free(page);

    smmu.retract(&[device])?;
    let debt = stage2.dismantle();
    let over = invalidate(&[&smmu], debt).map_err(|refused| refused.error)?;
    over.free();
    smmu.shut_down()?;
    Ok(())
}
