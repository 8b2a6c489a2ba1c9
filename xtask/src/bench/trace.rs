//! What an SMMU was told and when, by QEMU's own traces: commands, and between them the characters
//! of the console, so that a line that was printed says where among the commands it was.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::stop::Stop;

/// QEMU's names of the two.
const EVENTS: &str = "trace:smmuv3_cmdq_opcode,trace:pl011_write";

/// Has `qemu` write both to `file`.
pub(super) fn record(qemu: &mut Command, file: &Path) {
    qemu.args(["-d", EVENTS, "-D"]).arg(file);
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A line of the console was complete.
    Line(String),
    /// A command was taken, of this name: `CFGI_STE`.
    Command(String),
}

/// What `file` holds, in order.
///
/// # Errors
///
/// `Failed` if there is no such file, or no CMD_SYNC in it: then it is no trace of an SMMU at work.
pub(super) fn read(file: &Path) -> Result<Vec<Event>, Stop> {
    // What a console may be sent is not always text.
    let bytes = fs::read(file).map_err(|why| Stop::Failed(format!("{}: {why}", file.display())))?;
    let events = events(&String::from_utf8_lossy(&bytes));
    if !events.contains(&Event::Command("SYNC".into())) {
        return Err(Stop::Failed(format!("{}: no CMD_SYNC", file.display())));
    }
    Ok(events)
}

fn events(trace: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut text = Vec::new();
    for line in trace.lines() {
        if let Some((_, command)) = line.split_once("<--- SMMU_CMD_") {
            events.push(Event::Command(command.trim_end().to_owned()));
        } else if let Some(byte) = written(line) {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&text);
                events.push(Event::Line(line.trim_end().to_owned()));
                text.clear();
            } else {
                text.push(byte);
            }
        }
    }
    events
}

/// The character that was written to the data register, at 0.
fn written(line: &str) -> Option<u8> {
    let rest = line.split_once("pl011_write addr 0x")?.1;
    let (address, rest) = rest.split_once(" value 0x")?;
    let value = rest.split_once(' ').map_or(rest, |(value, _)| value);
    let is_data = u32::from_str_radix(address, 16).ok()? == 0;
    is_data.then(|| u32::from_str_radix(value, 16).ok().map(|it| it as u8))?
}

/// The commands from the line that has `from` in it to the next that has `to`; none if there are no
/// such lines.
pub(super) fn between<'a>(events: &'a [Event], from: &str, to: &str) -> Option<Vec<&'a str>> {
    let has = |event: &Event, text: &str| matches!(event, Event::Line(line) if line.contains(text));
    let first = events.iter().position(|event| has(event, from))?;
    let rest = &events[first + 1..];
    let end = rest.iter().position(|event| has(event, to))?;
    let commands = rest[..end].iter().filter_map(|event| match event {
        Event::Command(name) => Some(name.as_str()),
        Event::Line(_) => None,
    });
    Some(commands.collect())
}

/// How many of `commands` are CMD_SYNCs.
pub(super) fn syncs(commands: &[&str]) -> u64 {
    commands.iter().filter(|name| **name == "SYNC").count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_console_stand_among_the_commands() {
        let trace = "smmuv3_cmdq_opcode <--- SMMU_CMD_CFGI_STE\n\
                     pl011_write addr 0x000 value 0x00000061 reg DR\n\
                     pl011_write addr 0x038 value 0x00000070 reg IMSC\n\
                     smmuv3_cmdq_opcode <--- SMMU_CMD_SYNC\n\
                     pl011_write addr 0x000 value 0x0000000d reg DR\n\
                     pl011_write addr 0x000 value 0x0000000a reg DR\n\
                     smmuv3_cmdq_opcode <--- SMMU_CMD_TLBI_S2_IPA\n\
                     pl011_write addr 0x000 value 0x00000062 reg DR\n\
                     pl011_write addr 0x000 value 0x0000000a reg DR\n";
        let events = events(trace);
        let command = |name: &str| Event::Command(name.into());
        let expected = [
            command("CFGI_STE"),
            command("SYNC"),
            Event::Line("a".into()),
            command("TLBI_S2_IPA"),
            Event::Line("b".into()),
        ];
        assert_eq!(events, expected);
        assert_eq!(between(&events, "a", "b"), Some(vec!["TLBI_S2_IPA"]));
        assert_eq!(between(&events, "b", "a"), None);
        assert_eq!(syncs(&["SYNC", "CFGI_STE", "SYNC"]), 2);
    }
}
