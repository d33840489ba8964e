//! Where results come from, in the vocabulary of OpenLineage 2-0-2: an event a
//! stage with its inputs and outputs, from files outside the store to what is
//! asked about, in an order in which inputs come first.
//!
//! What decides a result is in the facet `fuseline_key`: the preimage of the
//! stage's key. Neither paths nor hosts nor secrets are part of a key, so none
//! is here; an external file is named by its last name and its digest.

use std::collections::BTreeSet;

use fuseline_contract::{Digest, StageError};
use serde_json::{Value as Json, json};

use crate::decide::{Decision, key_of};
use crate::plan::Plan;
use crate::store::{Manifest, OutputRecord, Record, Store};

const SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json";
const PRODUCER: &str = concat!("urn:fuseline:", env!("CARGO_PKG_VERSION"));
/// The namespace of artifacts, which are named by their digest.
const ARTIFACTS: &str = "fuseline";
/// The namespace of what was fetched from elsewhere, by names that never move.
const ORIGINS: &str = "fuseline:origins";
/// The namespace of files outside the store.
const FILES: &str = "file";

/// An event for each of these instances, which must all be hits.
pub fn events(
    plan: &Plan,
    store: &Store,
    decisions: &[Decision],
    nodes: &BTreeSet<usize>,
) -> Result<Vec<Json>, StageError> {
    let record = |node: usize| {
        let unmade = || StageError::input(format!("stage {} has no result yet", plan.nodes[node].id));
        decisions[node].record().ok_or_else(unmade)
    };
    nodes
        .iter()
        .map(|&index| {
            let (node, made) = (&plan.nodes[index], record(index)?);
            let parts = key_of(plan, store, decisions, index)
                .ok_or_else(|| StageError::environment(format!("the files of {} are no longer there", node.id)))?;
            let mut inputs = Vec::new();
            for bound in &node.inputs {
                for source in &bound.from {
                    let output = &record(source.node)?.outputs[source.output];
                    let port = facet(json!({"port": bound.port, "label": source.label, "axes": source.axes}));
                    inputs.push(artifact(store, output, "inputFacets", json!({"fuseline_binding": port}))?);
                }
            }
            let trees = parts.parts.to_json()["files"].clone();
            for file in &node.resolved.files {
                let name = file.path.file_name().unwrap_or_default().to_string_lossy();
                let digests = facet(json!({"parameter": file.parameter, "digests": trees[&*file.parameter]}));
                inputs.push(json!({"namespace": FILES, "name": name, "facets": {"fuseline_file": digests}}));
            }
            let origins = made.made.origins.iter().map(|origin| json!({"namespace": ORIGINS, "name": origin}));
            inputs.extend(origins);
            let outputs = made.outputs.iter().map(|output| artifact(store, output, "outputFacets", statistics(output)));
            Ok(json!({
                "eventType": "COMPLETE",
                "eventTime": ended(made),
                "producer": PRODUCER,
                "schemaURL": format!("{SCHEMA}#/$defs/RunEvent"),
                "run": {
                    "runId": run_id(made, &plan.name),
                    "facets": {
                        "fuseline_key": facet(json!({"key": made.key, "preimage": parts.parts.to_json()})),
                        "fuseline_run": facet(json!({
                            "run": made.made.run, "seed": node.seed, "seconds": made.made.seconds,
                            "version": made.made.version,
                        })),
                    },
                },
                "job": {"namespace": plan.name, "name": node.id.to_string()},
                "inputs": inputs,
                "outputs": outputs.collect::<Result<Vec<_>, _>>()?,
            }))
        })
        .collect()
}

/// An artifact as a dataset.
fn artifact(store: &Store, output: &OutputRecord, kind: &str, facets: Json) -> Result<Json, StageError> {
    let manifest: Manifest = store.manifest(&output.artifact)?;
    let file = |(name, digest): (&str, Digest)| json!({"name": name, "digest": digest.hex(), "size": digest.size});
    let files = manifest.files.iter().map(|entry| file((entry.name.as_str(), entry.digest)));
    let mut own = json!({
        "version": standard("DatasetVersionDatasetFacet", "1-0-1", json!({"datasetVersion": output.artifact.hex()})),
        "fuseline_artifact": facet(json!({
            "output": output.name, "kind": output.kind, "content": output.content.hex(), "rows": output.rows,
            "files": files.collect::<Vec<_>>(),
        })),
    });
    if !manifest.columns.is_empty() {
        let fields = manifest.columns.iter().map(|column| json!({"name": column.name, "type": column.data_type}));
        let fields = json!({"fields": fields.collect::<Vec<_>>()});
        own["schema"] = standard("SchemaDatasetFacet", "1-1-1", fields);
    }
    Ok(json!({"namespace": ARTIFACTS, "name": output.artifact.hex(), "facets": own, kind: facets}))
}

fn statistics(output: &OutputRecord) -> Json {
    let counts = json!({"rowCount": output.rows, "size": output.size_bytes(), "fileCount": output.files.len()});
    let counts = counts.as_object().into_iter().flatten().filter(|(_, count)| !count.is_null());
    let counts: serde_json::Map<String, Json> = counts.map(|(name, count)| (name.clone(), count.clone())).collect();
    json!({"outputStatistics": standard("OutputStatisticsOutputDatasetFacet", "1-0-2", Json::Object(counts))})
}

/// A facet of ours.
fn facet(content: Json) -> Json {
    with_origin(content, format!("{SCHEMA}#/$defs/BaseFacet"))
}

/// A facet of the standard.
fn standard(name: &str, version: &str, content: Json) -> Json {
    with_origin(content, format!("https://openlineage.io/spec/facets/{version}/{name}.json"))
}

fn with_origin(mut content: Json, schema: String) -> Json {
    content["_producer"] = PRODUCER.into();
    content["_schemaURL"] = schema.into();
    content
}

/// The attempt as a UUID, which OpenLineage asks for; an attempt is a ULID, as long.
fn run_id(record: &Record, pipeline: &str) -> String {
    let bits = record.made.attempt.parse::<ulid::Ulid>().map_or_else(
        |_| Digest::of_bytes(format!("{pipeline} {}", record.key).as_bytes()).hex()[..32].to_owned(),
        |attempt| format!("{:032x}", attempt.0),
    );
    [&bits[..8], &bits[8..12], &bits[12..16], &bits[16..20], &bits[20..]].join("-")
}

/// When an attempt ended, as RFC 3339 in UTC.
fn ended(record: &Record) -> String {
    let ms = record.made.started_ms + (record.made.seconds * 1000.0) as u64;
    let (day, in_day) = ((ms / 86_400_000) as i64, ms % 86_400_000);
    let (year, month, date) = civil(day);
    let (hours, minutes, seconds) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1000 % 60);
    format!("{year:04}-{month:02}-{date:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", in_day % 1000)
}

/// Days since 1970 as year, month and day of the Gregorian calendar: in eras of
/// 400 years that begin in March, so that the leap day is a year's last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(59), (1970, 3, 1));
        // 2000 was a leap year, 2100 is none.
        assert_eq!([civil(11_016), civil(11_017)], [(2000, 2, 29), (2000, 3, 1)]);
        assert_eq!([civil(47_540), civil(47_541)], [(2100, 2, 28), (2100, 3, 1)]);
    }
}
