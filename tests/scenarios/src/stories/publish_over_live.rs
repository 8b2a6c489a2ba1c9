//! A CD slot that was not retracted is bound again.

use portcullis::smmu::{Assignment, ContextError};
use portcullis::space::SpaceError;
use portcullis::space::nesting::NestingError;
use portcullis::spec::cd::Faults;
use portcullis::spec::ste::{Ats, CdFormat, Untagged};
use portcullis_embedder::guest::{self, substream};

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "publish-over-live",
    "a CD slot that was not retracted is bound again",
    play,
);

fn play(world: &World<'_>) {
    by_its_slot(world);
    by_its_handle(world);
}

/// Below the books: a live CD, asked to be another space's, and to be its own once more.
fn by_its_slot(world: &World<'_>) {
    let smmu = &world.smmus[0];
    let mut other = guest::Guest::new(world.host, 200);
    let (one, two) = (other.space(1), other.space(2));
    let walk = other.stage2.walk();
    let streams = [portcullis::id::StreamId::new(0x3f)];
    let smmus = [smmu];
    let mut nesting = other.nesting(&smmus);
    let shape = guest::by_substream(3, CdFormat::Linear, Untagged::Abort);
    let contexts = nesting
        .contexts(smmu, &streams, &shape)
        .expect("there is room");
    let nested = Assignment::Nested {
        contexts: &contexts,
        walk,
        ats: Ats::Off,
    };
    smmu.publish_all(&[nested]).expect("the stream is free");
    let mut publish = |space| {
        let space = (space, Faults::Abort);
        nesting.publish_context(smmu, &contexts, substream(1), space)
    };
    publish(&one).expect("the slot is free");
    let (stores, syncs) = (world.stage.stores(), world.syncs());
    for space in [&two, &one] {
        let refused = publish(space);
        let by_name = Err(NestingError::Context(ContextError::InUse));
        assert_eq!(refused, by_name, "refused by name");
    }
    assert_eq!(
        (world.stage.stores(), world.syncs()),
        (stores, syncs),
        "nothing is written"
    );
    smmu.retract_context(&contexts, substream(1))
        .expect("confirmed");
    publish(&two).expect("the slot is free again");
    smmu.retract_context(&contexts, substream(1))
        .expect("confirmed");
    nesting.detach(smmu, contexts).expect("confirmed");
    other.end(smmu);
}

/// By the books: a device comes back from a reset that failed, and a handle of its earlier life is
/// still open.
fn by_its_handle(world: &World<'_>) {
    let guest = world.guest();
    let (device, other) = (world.device(&guest), world.device(&guest));
    let (process, sibling) = (world.process(&guest), world.process(&guest));
    let handle = world.bind(&process, &device);
    world.bind(&process, &other);
    world.reaches(&device, &process);
    world.stage.fail_resets(true);
    let failed = world.iommu.reset_device(guest.id, device.id);
    assert!(
        matches!(failed, Err(SpaceError::NotReset { .. })),
        "{failed:?}"
    );
    world.stage.fail_resets(false);

    let refused = |expected| {
        let (stores, syncs) = (world.stage.stores(), world.syncs());
        assert_eq!(world.try_bind(&process, &device), Err(expected));
        assert_eq!((world.stage.stores(), world.syncs()), (stores, syncs));
    };
    refused(SpaceError::Fenced);
    world.iommu.restore(device.id).expect("it is reset");
    world.attach(&device, &guest);
    refused(SpaceError::PublishOverLive);
    world.blocked(&device, &process);
    // Others are bound there as ever, and the space elsewhere.
    world.bind(&sibling, &device);
    world.reaches(&device, &sibling);
    world.reaches(&other, &process);
    world.close(&guest, handle);
    world.bind(&process, &device);
    world.reaches(&device, &process);
}
