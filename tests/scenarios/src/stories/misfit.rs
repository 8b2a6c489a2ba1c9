//! The space's TCR cannot be walked by one of the SMMUs.

use portcullis::addr::Ipa;
use portcullis::smmu::Misfit;
use portcullis::space::{Ask, SpaceConfig, SpaceError};
use portcullis::spec::stage1::{Half, PageAccess, Stage1Descriptor, Stage1Walk};
use portcullis::spec::vmsa::Granule;
use smmu_model::Identity;

use crate::world::smmu_id;
use crate::{Ends, Story, World};

pub(super) const STORY: Story = Story::new(
    "misfit",
    "a space with 16 KiB pages meets an SMMU that has none",
    play,
)
.only(
    |configuration| configuration.smmus > 1,
    "one SMMU can walk what another cannot",
)
.with_shape(|smmu, identity| Identity {
    granule_16k: smmu == 0,
    ..identity
});

/// With 25 bits of address one table of 16 KiB leads to every page; this is the sixth.
const WIDE_VA: u64 = 5 << 14;

fn play(world: &World<'_>) {
    let guest = world.guest();
    let (fit, unfit) = (world.device_on(&guest, 0), world.device_on(&guest, 1));
    let usual = world.process(&guest);
    let page = world.ipa_of_page(&usual).as_u64() & !0x3fff;
    let (table, at) = world.table_of_16k(&guest);
    world.write_word(
        at,
        5,
        Stage1Descriptor::page(Ipa::new(page), PageAccess::ReadWrite),
    );
    let wide = world
        .process_with(&guest, |walk: Stage1Walk| SpaceConfig {
            walk: Stage1Walk {
                low: walk.low.map(|low| Half {
                    root: table,
                    granule: Granule::Kib16,
                    va_bits: 25,
                    ..low
                }),
                ..walk
            },
            pasid: Ask::Any,
            promises_no_global: false,
        })
        .expect("whether an SMMU can walk it is asked when it is bound");

    let refused = SpaceError::Misfit {
        smmu: smmu_id(1),
        why: Misfit::Granule { log2_granule: 14 },
    };
    let (stores, syncs) = (world.stage.stores(), world.syncs());
    assert_eq!(world.try_bind(&wide, &unfit), Err(refused));
    assert_eq!(
        (world.stage.stores(), world.syncs()),
        (stores, syncs),
        "nothing is touched"
    );

    // It works elsewhere, and others work there.
    let handle = world.bind(&wide, &fit);
    let start = usual.page.as_u64() & !0x3fff;
    let lands = |ends: Ends| matches!(ends, Ends::Landed(pa) if pa.as_u64() & !0x3fff == start);
    assert!(lands(world.shoot(&fit, Some(wide.pasid), WIDE_VA + 0x2008)));
    assert_eq!(
        world.shoot(&unfit, Some(wide.pasid), WIDE_VA),
        Ends::Blocked
    );
    world.bind(&usual, &unfit);
    world.reaches(&unfit, &usual);
    assert_eq!(world.try_bind(&wide, &unfit), Err(refused));

    world.release(&wide);
    assert_eq!(world.shoot(&fit, Some(wide.pasid), WIDE_VA), Ends::Blocked);
    world.close(&guest, handle);
    world.becomes_free(&wide);
}
