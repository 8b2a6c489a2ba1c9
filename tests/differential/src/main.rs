//! `differential CONSOLE`: compares what QEMU's SMMUv3 showed, in a file, with the model.

use std::process::ExitCode;

fn main() -> ExitCode {
    let path = std::env::args_os().nth(1).expect("path");
    let text = std::fs::read_to_string(path).expect("read");
    let qemu = differential::Log::read(&text).expect("log");
    let model = differential::run_on_model(qemu.arena);
    for (m, q) in model.programs.iter().zip(&qemu.programs) {
        if m != q {
            println!("{} {}", m.name, q.name);
            for l in &m.lines { println!("  model {l}"); }
            for l in &q.lines { println!("  qemu  {l}"); }
        }
    }
    ExitCode::SUCCESS
}
