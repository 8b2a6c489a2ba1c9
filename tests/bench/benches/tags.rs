//! Tags, taken and given back while so many others are out.

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_bench::arena::Arena;
use portcullis_bench::tags::{ARENA_MIB, KINDS, cycle, with_live};

fn tags(criterion: &mut Criterion) {
    let arena = &Arena::new(ARENA_MIB);
    for kind in KINDS {
        for live in kind.live {
            let mut group = criterion.benchmark_group(format!("{}.alloc.ns.live{live}", kind.name));
            let mut numbers = None;
            group.bench_function("ours", |bencher| {
                let numbers = numbers.get_or_insert_with(|| with_live(arena, kind.bits, live));
                bencher.iter(|| cycle(numbers));
            });
            if let Some(numbers) = numbers {
                numbers.free();
            }
            group.finish();
        }
    }
}

criterion_group!(benches, tags);
criterion_main!(benches);
