//! One workload on one kind of tables, once: `workload NAME ours|peer`; `workload list` lists them.
//!
//! For callgrind, which is told to count inside [`measured_run`] alone.

use std::process::ExitCode;

use portcullis_bench::arena::Arena;
use portcullis_bench::peer;
use portcullis_bench::tables::{Ours, Tables, WORKLOADS, Workload};

/// The function that callgrind collects in.
#[inline(never)]
fn measured_run<'a, T: Tables<'a>>(workload: &Workload, tables: &mut T) -> u64 {
    std::hint::black_box(workload.run(std::hint::black_box(tables)))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["list"] {
        for workload in WORKLOADS {
            println!("{}\t{}\t{}", workload.name, workload.per, workload.units);
        }
        return ExitCode::SUCCESS;
    }
    let [name, whose] = &arguments[..] else {
        eprintln!("usage: workload list | workload NAME ours|peer");
        return ExitCode::from(2);
    };
    let Some(workload) = Workload::of(name) else {
        eprintln!("no workload `{name}`");
        return ExitCode::from(2);
    };
    let arena = &Arena::new(16);
    match whose.as_str() {
        "ours" => measured_run(workload, &mut workload.prepare::<Ours<'_>>(arena)),
        "peer" => measured_run(workload, &mut workload.prepare::<peer::Tables<'_>>(arena)),
        _ => {
            eprintln!("whose is `{whose}`?");
            return ExitCode::from(2);
        }
    };
    ExitCode::SUCCESS
}
