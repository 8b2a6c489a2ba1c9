//! What Portcullis would do here.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use portcullis::discover::{Device, Interrupt, Machine, SmmuInterrupts, Stream};
use portcullis::smmu::{Features, StallModel};

use crate::cpu::ExceptionLevel;
use crate::functions::{Function, FunctionKind};
use crate::layout::Layout;
use crate::report::{is_unprotected, stream_of};
use crate::survey::Survey;

/// What has a name, and how it could be given to a guest, or why not.
type Verdict = (String, Result<String, String>);

/// Writes the last section.
pub(crate) fn write(out: &mut Layout, survey: &Survey<'_>, machine: &Machine) {
    out.section("WHAT PORTCULLIS WOULD DO HERE");
    let reasons = reasons(survey, machine);
    if reasons.is_empty() {
        out.line(format_args!("USABLE: it would take all SMMUs over"));
    }
    for reason in &reasons {
        out.line(format_args!("NOT USABLE: {reason}"));
    }
    if machine.smmus.is_empty() {
        out.line(format_args!(
            "Look in firmware's menus for `SMMU` or `IOMMU`, often under Advanced, Chipset or MISC \
             Config: it can be switched off there, and then IORT does not name it."
        ));
    }
    for (place, (smmu, seen)) in machine.smmus.iter().zip(&survey.smmus).enumerate() {
        if let Some(Ok(features)) = &seen.features {
            let with = with_features(features, smmu.is_coherent, &smmu.interrupts);
            out.line(format_args!("SMMU {place}: {}", with.join(", ")));
        }
    }
    devices(out, survey, machine);
}

fn devices(out: &mut Layout, survey: &Survey<'_>, machine: &Machine) {
    out.line(format_args!("devices that could be given to a guest:"));
    let functions = survey
        .functions
        .iter()
        .filter_map(|it| function(survey, machine, it));
    let components = machine
        .devices
        .iter()
        .map(|it| component(survey, machine, it));
    let all = functions.chain(components);
    let (yes, no): (Vec<_>, Vec<_>) = all.partition(|(_, verdict)| verdict.is_ok());
    if yes.is_empty() {
        out.detail(format_args!("none"));
    }
    for (name, verdict) in yes.into_iter().chain(no) {
        match verdict {
            Ok(how) => out.detail(format_args!("{name}: yes, {how}")),
            Err(why) => out.detail(format_args!("{name}: NO, {why}")),
        }
    }
    out.line(format_args!(
        "Not looked at: whether functions can reach each other past the SMMU (ACS). Those that can \
         go to one guest together."
    ));
}

fn component(survey: &Survey<'_>, machine: &Machine, device: &Device) -> Verdict {
    let mut streams = machine.known_streams_of_device(device).iter();
    let verdict = if is_unprotected(machine, device) {
        Err("some or all of its DMA goes through no SMMU".into())
    } else {
        streams.try_for_each(|it| may_be_given(survey, machine, *it))
    };
    // How to reset it, no table says.
    let verdict = verdict.map(|()| "where the board knows how to reset it".into());
    (device.name.to_string(), verdict)
}

/// Why it could not be used here.
fn reasons(survey: &Survey<'_>, machine: &Machine) -> Vec<String> {
    let mut reasons = Vec::new();
    if survey.cpu.level == ExceptionLevel::El1 {
        reasons.push(
            "firmware runs at EL1; Portcullis needs EL2 (a hypervisor below, or EL2 not there or \
             switched off)"
                .into(),
        );
    }
    if !survey.cpu.has_4k_granule() {
        reasons.push("the CPU has no 4 KiB granule at stage 2".into());
    }
    let unsound = survey.tables.iter().any(Result::is_err) || !survey.odd.is_empty();
    if unsound {
        reasons.push("tables that make no sense are refused (see FIRMWARE)".into());
    }
    if survey.tables.is_none() {
        reasons.push("no ACPI tables".into());
    }
    if machine.smmus.is_empty() {
        reasons.push("no SMMUv3 in the tables".into());
    }
    for (place, seen) in survey.smmus.iter().enumerate() {
        match &seen.features {
            None => reasons.push(format!("SMMU {place} could not be looked at")),
            Some(Err(refusal)) => reasons.push(format!("SMMU {place}: {refusal}")),
            Some(Ok(_)) => {}
        }
    }
    reasons
}

fn with_features(
    features: &Features,
    is_coherent: bool,
    interrupts: &SmmuInterrupts,
) -> Vec<String> {
    let substreams = match features.substream_bits {
        0 => "no SubstreamIDs (a guest address space per device, not per PASID)".into(),
        bits => format!("{bits} bits of SubstreamID"),
    };
    let stalls = match features.stalls {
        StallModel::Either => format!("stalls ({} at once)", features.stall_max),
        StallModel::Forced => format!("stalls always ({} at once)", features.stall_max),
        StallModel::Terminate => "no stalls".into(),
    };
    let is_wired = matches!(
        interrupts.event_queue.or(interrupts.combined),
        Some(Interrupt::Gic { .. })
    );
    let yes_or_no = |has: bool, name: &str| match has {
        true => name.to_string(),
        false => format!("no {name}"),
    };
    [
        yes_or_no(features.has_stage1, "nesting"),
        substreams,
        yes_or_no(features.has_ats, "ATS"),
        stalls,
        yes_or_no(
            features.has_range_invalidation,
            "invalidation by range (RIL)",
        ),
        format!("BBML {}", features.bbm_level),
        yes_or_no(is_coherent, "coherent walks"),
        if is_wired {
            "events by wired interrupt"
        } else {
            "events by polling"
        }
        .into(),
    ]
    .into()
}

/// Whether a function could be given, and how; `None` for what is no endpoint.
fn function(survey: &Survey<'_>, machine: &Machine, function: &Function) -> Option<Verdict> {
    // Base class 6: what belongs to the fabric, host bridges among it.
    if function.kind != FunctionKind::Endpoint || function.class.base == 6 {
        return None;
    }
    let name = format!("{:04x}:{}", function.segment, function.rid);
    let Some(stream) = stream_of(machine, function) else {
        return Some((name, Err("its DMA goes through no SMMU".into())));
    };
    let how = may_be_given(survey, machine, stream).map(|()| {
        let substreams = survey.smmus.get(stream.smmu.as_usize());
        let has_substreams = substreams
            .and_then(|seen| seen.features?.ok())
            .is_some_and(|features| features.substream_bits > 0);
        let by = match function.pasid_bits {
            Some(bits) if has_substreams => format!("by PASID ({bits} bits) or whole"),
            _ => "whole".into(),
        };
        let ats = if function.has_ats { ", has ATS" } else { "" };
        let reset = if function.can_reset {
            "resets by itself (FLR)"
        } else {
            "no FLR: changes owners only where the board allows it"
        };
        format!("{by}, {reset}{ats}")
    });
    Some((name, how))
}

/// Whether what this stream does can be held.
fn may_be_given(survey: &Survey<'_>, machine: &Machine, stream: Stream) -> Result<(), String> {
    let place = stream.smmu.as_usize();
    let is_usable = survey
        .smmus
        .get(place)
        .is_some_and(|seen| matches!(seen.features, Some(Ok(_))));
    if !is_usable {
        return Err(format!("SMMU {place} cannot be used"));
    }
    let is_kept = machine.kept.iter().any(|kept| {
        let further = stream.id.as_u32().checked_sub(kept.first.id.as_u32());
        kept.first.smmu == stream.smmu && further.is_some_and(|further| further < kept.count)
    });
    if is_kept {
        return Err("firmware keeps memory for it (RMR)".into());
    }
    Ok(())
}
