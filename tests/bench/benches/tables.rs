//! Stage-2 tables: ours and the peer's, as neighbours in one group.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use portcullis_bench::arena::Arena;
use portcullis_bench::peer;
use portcullis_bench::tables::{Ours, WORKLOADS};

fn tables(criterion: &mut Criterion) {
    let arena = &Arena::new(32);
    for workload in WORKLOADS {
        let mut group = criterion.benchmark_group(format!("stage2.{}", workload.name));
        group.bench_function("ours", |bencher| {
            bencher.iter_batched_ref(
                || workload.prepare::<Ours<'_>>(arena),
                |tables| workload.run(tables),
                BatchSize::PerIteration,
            );
        });
        group.bench_function("peer", |bencher| {
            bencher.iter_batched_ref(
                || workload.prepare::<peer::Tables<'_>>(arena),
                |tables| workload.run(tables),
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, tables);
criterion_main!(benches);
