//! The report as one page that needs nothing else.

use std::fmt::Write;

use super::plot::{Line, Plot, escaped};
use super::report::{Row, balance, number, verdict};

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:74em;padding:0 1em;color:#1b1b1b;background:#fff}
table{border-collapse:collapse;width:100%}th,td{padding:.2em .6em;text-align:left;border-bottom:1px solid #ddd}
td.n{text-align:right;font-variant-numeric:tabular-nums}tr.worse td{background:#fdeaea}td.name{font-family:monospace}
figure{display:inline-block;width:36em;max-width:100%;margin:1em .5em;vertical-align:top}figcaption{font-weight:600}
svg{width:100%;font-size:11px}svg text{fill:#444}.grid{stroke:#e4e4e4;fill:none}.line{fill:none;stroke-width:1.8}
.legend span{margin-right:1.2em;white-space:nowrap}.legend b{display:inline-block;width:1em;height:.6em;margin-right:.4em}
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}th,td{border-color:#333}svg text{fill:#bbb}
.grid{stroke:#333}tr.worse td{background:#4a2020}}";

/// A family of rows that a plot is of: names that differ in one number.
struct Family {
    title: &'static str,
    across: &'static str,
    /// The names' beginning and end around that number, and what it is called where it is ours.
    lines: &'static [(&'static str, &'static str, &'static str)],
    /// Whether what stands beside is drawn too.
    has_peer: bool,
}

const FAMILIES: &[Family] = &[
    Family {
        title: "SYNCs of a release, against bindings",
        across: "bindings on one SMMU",
        lines: &[
            ("release.syncs_per_smmu.n", ".k1", "here"),
            ("release.syncs_per_smmu.ats.n", ".k1", "here, with ATS"),
        ],
        has_peer: true,
    },
    Family {
        title: "Waits of a release, against SMMUs (8 bindings on each)",
        across: "SMMUs",
        lines: &[("release.waits.n8.k", "", "here")],
        has_peer: true,
    },
    Family {
        title: "Time of a release, against SMMUs whose SYNC takes 10 µs (8 bindings on each)",
        across: "SMMUs",
        lines: &[("overlap.release_us.n8.k", "", "here")],
        has_peer: true,
    },
    Family {
        title: "A tag taken and given back, against live tags",
        across: "live tags",
        lines: &[
            ("pasid.alloc.ns.live", "", "PASID"),
            ("asid.alloc.ns.live", "", "ASID"),
            ("vmid.alloc.ns.live", "", "VMID"),
        ],
        has_peer: false,
    },
    Family {
        title: "SYNCs of an unmap under nesting, against its range",
        across: "pages unmapped",
        lines: &[("unmap.syncs_per_smmu.nested.pages", "", "here")],
        has_peer: true,
    },
    Family {
        title: "Commands of an unmap under nesting, against its range",
        across: "pages unmapped",
        lines: &[("unmap.commands_per_smmu.nested.pages", "", "here")],
        has_peer: true,
    },
    Family {
        title: "Throughput of bind and release, against threads",
        across: "threads",
        lines: &[
            ("contention.pairs_per_second.t", ".k1", "one SMMU"),
            ("contention.pairs_per_second.t", ".k4", "four SMMUs"),
        ],
        has_peer: false,
    },
    Family {
        title: "The longest call, against threads",
        across: "threads",
        lines: &[
            ("contention.longest_us.t", ".k1", "one SMMU"),
            ("contention.longest_us.t", ".k4", "four SMMUs"),
        ],
        has_peer: false,
    },
];

/// The number in `name` between `head` and `tail`, if that is all there is.
fn number_in(name: &str, head: &str, tail: &str) -> Option<f64> {
    let digits = name.strip_prefix(head)?.strip_suffix(tail)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

impl Family {
    fn plot(&self, rows: &[Row]) -> Plot {
        let mut lines = Vec::new();
        let mut up = String::new();
        for (head, tail, called) in self.lines {
            let mut members: Vec<_> = rows
                .iter()
                .filter_map(|row| Some((number_in(&row.name, head, tail)?, row)))
                .collect();
            members.sort_by(|one, other| one.0.total_cmp(&other.0));
            let Some((_, first)) = members.first() else {
                continue;
            };
            up.clone_from(&first.unit);
            let peer = first.peer.clone().unwrap_or_default();
            lines.push(Line {
                name: (*called).to_owned(),
                points: members.iter().map(|(at, row)| (*at, row.value)).collect(),
            });
            if self.has_peer {
                let theirs = members
                    .iter()
                    .filter_map(|(at, row)| Some((*at, row.peer_value?)));
                let suffix = called.strip_prefix("here").unwrap_or_default();
                lines.push(Line {
                    name: format!("{peer}{suffix}"),
                    points: theirs.collect(),
                });
            }
        }
        Plot {
            title: self.title,
            across: self.across,
            up,
            lines,
        }
    }
}

/// Hypercalls over past reports, the newest last.
fn over_time(past: &[Vec<Row>], rows: &[Row]) -> Plot {
    let reports: Vec<&[Row]> = past.iter().map(Vec::as_slice).chain([rows]).collect();
    let is_call = |row: &&Row| row.name.starts_with("hypercall.");
    let mut lines = Vec::new();
    for row in rows.iter().filter(is_call) {
        let points = (1..).zip(&reports).filter_map(|(at, report)| {
            let there = report.iter().find(|it| it.name == row.name)?;
            Some((f64::from(at), there.value))
        });
        lines.push(Line {
            name: row.name.trim_start_matches("hypercall.").to_owned(),
            points: points.collect(),
        });
    }
    Plot {
        title: "Hypercalls over past reports",
        across: "report, the newest last",
        up: "instructions".into(),
        lines,
    }
}

/// The page.
pub(super) fn page(rows: &[Row], past: &[Vec<Row>], skipped: &[String]) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Portcullis: numbers</title>\
         <style>{STYLE}</style></head>\n<body><h1>Portcullis, and its peers</h1>\n\
         <p>{}. Less is better in all that has a peer; a row is marked where ours is over 5 % \
         worse. <code>cargo xtask bench</code> makes this page.</p>\n",
        escaped(&balance(rows))
    );
    for why in skipped {
        let _ = writeln!(html, "<p>Left out: {}.</p>", escaped(why));
    }
    let plots = FAMILIES.iter().map(|family| family.plot(rows));
    for plot in plots.chain([over_time(past, rows)]) {
        if let Some(svg) = plot.svg() {
            let title = escaped(plot.title);
            let _ = writeln!(
                html,
                "<figure><figcaption>{title}</figcaption>\n{svg}</figure>"
            );
        }
    }
    html += "<table><thead><tr><th>name<th>here<th>unit<th>peer<th>there<th>ratio<th></tr></thead><tbody>\n";
    for row in rows {
        let class = if row.better == Some(false) {
            " class=\"worse\""
        } else {
            ""
        };
        let _ = writeln!(
            html,
            "<tr{class}><td class=\"name\">{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            escaped(&row.name),
            number(row.value),
            escaped(&row.unit),
            escaped(row.peer.as_deref().unwrap_or_default()),
            row.peer_value.map(number).unwrap_or_default(),
            row.ratio.map(number).unwrap_or_default(),
            verdict(row)
        );
    }
    html + "</tbody></table></body></html>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, value: f64) -> Row {
        Row::new(name, value, "SYNCs").beside("Linux", 2.0 * value)
    }

    #[test]
    fn a_family_is_in_the_order_of_its_number_with_the_peer_beside() {
        let rows = [
            row("release.syncs_per_smmu.n64.k1", 2.0),
            row("release.syncs_per_smmu.n8.k1", 3.0),
            row("release.syncs_per_smmu.n8.k4", 9.0),
            row("release.syncs_per_smmu.ats.n8.k1", 9.0),
        ];
        let plot = FAMILIES[0].plot(&rows);
        assert_eq!(plot.lines[0].points, [(8.0, 3.0), (64.0, 2.0)]);
        assert_eq!(plot.lines[1].points, [(8.0, 6.0), (64.0, 4.0)]);
        assert_eq!(plot.lines[3].name, "Linux, with ATS");
    }

    #[test]
    fn a_hypercall_is_drawn_over_the_reports_that_have_it() {
        let old = vec![vec![row("hypercall.bind", 5.0)], vec![row("other", 1.0)]];
        let plot = over_time(&old, &[row("hypercall.bind", 4.0), row("other", 1.0)]);
        assert_eq!(plot.lines.len(), 1);
        assert_eq!(plot.lines[0].points, [(1.0, 5.0), (3.0, 4.0)]);
    }

    #[test]
    fn the_page_holds_all_rows_and_reaches_for_nothing() {
        let worse = Row::new("a.b", 3.0, "x<y").beside("Linux", 1.0);
        let rows = [
            worse,
            row("release.waits.n8.k1", 1.0),
            row("release.waits.n8.k8", 1.0),
        ];
        let page = page(&rows, &[], &["no Linux here".into()]);
        assert_eq!(page.matches("<tr class=\"worse\">").count(), 1);
        assert_eq!(page.matches("<tr><td").count(), 2);
        assert_eq!(page.matches("<svg").count(), 1);
        assert!(page.contains("x&lt;y") && page.contains("Left out: no Linux here."));
        for outside in ["http:", "https:", "<script", "<link", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
