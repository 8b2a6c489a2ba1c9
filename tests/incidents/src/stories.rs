//! The stories: what processes, files and devices do, in order. Nothing here knows who plays.

use crate::tell::{GroupScene, KERNEL, Meets, Scene};

/// A process dies with everything open; its page is somebody else's then.
pub(crate) fn exit_without_close(scene: &mut Scene<'_>) {
    scene.start("A");
    scene.bind("A", "q1");
    scene.fire("q1", Meets::PageOf("A"));
    scene.exit("A", KERNEL);
    scene.fire("q1", Meets::Nothing);
    scene.close("q1");
    scene.fire("q1", Meets::Nothing);
}

/// A master opens a queue, forks a daemon and exits; the daemon has the file, and a worker binds.
pub(crate) fn daemon_fork(scene: &mut Scene<'_>) {
    scene.start("A");
    scene.bind("A", "q1");
    scene.fire("q1", Meets::PageOf("A"));
    scene.inherit("the daemon", "q1");
    scene.exit("A", KERNEL);
    scene.start("B");
    scene.bind("B", "q2");
    scene.fire("q2", Meets::PageOf("B"));
    scene.close("q1");
    scene.fire("q2", Meets::PageOf("B"));
}

/// A file outlives its process, and is closed when another has begun.
pub(crate) fn late_close(scene: &mut Scene<'_>) {
    scene.start("A");
    scene.bind("A", "q1");
    scene.inherit("the daemon", "q1");
    scene.exit("A", KERNEL);
    scene.fire("q1", Meets::Nothing);
    scene.start("B");
    scene.bind("B", "q2");
    scene.fire("q2", Meets::PageOf("B"));
    scene.close("q1");
    scene.fire("q2", Meets::PageOf("B"));
    scene.close("q2");
    scene.fire("q2", Meets::Nothing);
}

/// The file is kept by a mapping within the very memory that it binds.
pub(crate) fn mapped_in_itself(scene: &mut Scene<'_>) {
    scene.start("A");
    scene.bind("A", "q1");
    scene.map_file("A", "q1");
    scene.fire("q1", Meets::PageOf("A"));
    scene.exit("A", KERNEL);
    scene.fire("q1", Meets::Nothing);
}

/// One process opens two queues of one device, and closes one.
pub(crate) fn two_queues(scene: &mut Scene<'_>) {
    scene.start("A");
    scene.bind("A", "q1");
    scene.bind("A", "q2");
    scene.fire("q1", Meets::PageOf("A"));
    scene.fire("q2", Meets::PageOf("A"));
    scene.close("q1");
    scene.fire("q2", Meets::PageOf("A"));
    scene.close("q2");
    scene.fire("q2", Meets::Nothing);
}

/// A process dies while one of those who hold its number hangs.
pub(crate) fn holder_that_does_not_answer(scene: &mut Scene<'_>) {
    scene.start("A");
    scene.bind("A", "q1");
    scene.bind("A", "q2");
    scene.fall_silent("q2");
    scene.exit("A", KERNEL);
    scene.fire("q2", Meets::Nothing);
}

/// All is ended as it should be, save a job that the device has not got to yet.
pub(crate) fn job_still_in_the_device(scene: &mut Scene<'_>) {
    scene.start("A");
    scene.bind("A", "q1");
    scene.fire("q1", Meets::PageOf("A"));
    scene.exit("A", KERNEL);
    scene.close("q1");
    scene.fire("q1", Meets::Nothing);
    scene.start("B");
    scene.bind("B", "q2");
    scene.fire("q1", Meets::Nothing);
    scene.fire("q2", Meets::PageOf("B"));
}

/// A driver is there before the SMMU of its device, and a guest asks for the device.
pub(crate) fn owner_before_probe(scene: &mut GroupScene<'_>) {
    scene.use_early();
    scene.smmu_comes();
    scene.fire();
    scene.assign();
    scene.fire();
    scene.unuse();
    scene.assign();
    scene.fire();
}
