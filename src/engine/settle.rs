//! What is left of a plan: instances whose `when` is false are dropped from
//! what others are bound to; who would be bound to nothing else is dropped too.
//! Of what is left, labels and counts are checked.

use std::collections::{BTreeMap, BTreeSet};

use fuseline_contract::StageId;
use fuseline_contract::operator::Resolved;
use fuseline_contract::port::{Arity, Input};
use serde_json::Value as Json;

use crate::bind::{Draft, Written};
use crate::plan::{Bound, LeftOut, Source};
use crate::problem::{At, Findings, under};
use crate::resolve::Stage;
use crate::spec::StageSpec;

/// How many instances of one stage a note lists.
const LISTED: usize = 5;

/// Every instance with what it is bound to, by number over all stages; `None`
/// is left out.
pub(crate) struct Settled {
    /// What is bound, in the order of the ports.
    pub(crate) bound: Vec<Option<Vec<Bound>>>,
    /// What is left out, and why.
    pub(crate) left_out: Vec<LeftOut>,
}

/// Drops what is left out and checks the rest. In `order` every input comes
/// before its consumer.
pub(crate) fn settle(
    stages: &[Stage<'_>],
    drafts: Vec<Vec<Draft>>,
    order: &[usize],
    findings: &mut Findings,
) -> Settled {
    let mut drafts: Vec<Option<Vec<Draft>>> = drafts.into_iter().map(Some).collect();
    let mut settled = Settled { bound: drafts.iter().map(|_| None).collect(), left_out: Vec::new() };
    let mut out = vec![false; drafts.len()];
    for &number in order {
        let stage = stage_of(stages, number);
        let instance = number - stage.first;
        let mut own = drafts[number].take().expect("the order has every instance once");
        if let Some(why) = why_left_out(stages, stage, instance, &mut own, &out) {
            out[number] = true;
            settled.left_out.push(LeftOut { id: stage.id(instance), why });
            continue;
        }
        let Some(resolved) = stage.params.get(instance) else { continue };
        let mut bound = Vec::new();
        for draft in own {
            let port = &resolved.ports.inputs[draft.port];
            let sound = draft.sound;
            let from = labelled(resolved, port, draft, findings);
            if let Some(from) = from.filter(|from| sound && count_holds(stages, stage, port, from, findings))
                && !from.is_empty()
            {
                bound.push(Bound { port: port.name.clone(), from });
            }
        }
        settled.bound[number] = Some(bound);
    }
    settled
}

/// Drops what is left out from what an instance is bound to, and says why the
/// instance itself is, if it is.
fn why_left_out(
    stages: &[Stage<'_>],
    stage: &Stage<'_>,
    instance: usize,
    drafts: &mut [Draft],
    out: &[bool],
) -> Option<String> {
    if !stage.own.get(instance).when {
        return Some("its `when` is false".to_owned());
    }
    let resolved = stage.params.get(instance).as_ref()?;
    let mut why = None;
    for draft in drafts {
        let all: BTreeSet<&str> =
            draft.from.iter().map(|(_, source)| stage_of(stages, source.node).spec.full.as_str()).collect();
        draft.from.retain(|(_, source)| !out[source.node]);
        if draft.sound && draft.from.is_empty() && !all.is_empty() {
            let port = &resolved.ports.inputs[draft.port].name;
            let all: Vec<&str> = all.into_iter().collect();
            why = why.or(Some(format!("all that its input {port:?} takes is left out ({})", all.join(", "))));
        }
    }
    why
}

/// Sentences that say what is left out, by stage.
pub(crate) fn notes(stages: &[Stage<'_>], left_out: &[LeftOut]) -> Vec<String> {
    let mut by_stage: BTreeMap<(&str, &str), Vec<&StageId>> = BTreeMap::new();
    for left in left_out {
        by_stage.entry((&left.id.stage, &left.why)).or_default().push(&left.id);
    }
    let note = |((name, why), ids): (&(&str, &str), &Vec<&StageId>)| {
        let stage = stages.iter().find(|stage| stage.spec.full == *name);
        let all = stage.and_then(|stage| stage.grid.as_ref()).is_some_and(|grid| grid.points.len() == ids.len());
        let mut names: Vec<String> = match all {
            true => vec![(*name).to_owned()],
            false => ids.iter().take(LISTED).map(ToString::to_string).collect(),
        };
        if !all && ids.len() > LISTED {
            names.push(format!("{} more", ids.len() - LISTED));
        }
        let verb = if names.len() > 1 { "are" } else { "is" };
        format!("{} {verb} left out: {why}", names.join(", "))
    };
    by_stage.iter().map(note).collect()
}

fn stage_of<'a, 's>(stages: &'a [Stage<'s>], number: usize) -> &'a Stage<'s> {
    &stages[stages.partition_point(|stage| stage.first <= number) - 1]
}

/// What a port is bound to, with labels where it needs them; `None` if one has none.
fn labelled(resolved: &Resolved, port: &Input, draft: Draft, findings: &mut Findings) -> Option<Vec<Source>> {
    let n_bound = draft.from.len();
    let own = resolved.params.get("label").and_then(Json::as_str).filter(|_| port.labelled);
    let mut without = BTreeSet::new();
    let mut from = Vec::with_capacity(n_bound);
    for (reference, mut source) in draft.from {
        if let Some(own) = own
            && (n_bound == 1 || source.label.is_none())
        {
            source.label = Some(own.to_owned());
        }
        if port.labelled && source.label.is_none() {
            without.insert(reference);
        }
        from.push(source);
    }
    if draft.sound {
        without.iter().for_each(|reference| no_label(resolved, port, &draft.written[*reference], n_bound, findings));
    }
    without.is_empty().then_some(from)
}

fn no_label(resolved: &Resolved, port: &Input, written: &Written, n_bound: usize, findings: &mut Findings) {
    let message =
        format!("{:?} has no label for the input {:?}, which writes one into its rows", written.text, port.name);
    let has_parameter = resolved.params.get("label").is_some();
    let map = format!("name it: `inputs: {{{}: {{LABEL: {}}}}}`", port.name, written.text);
    let help = if has_parameter && n_bound == 1 { "add `label: NAME` under `with`".to_owned() } else { map };
    findings.add(written.at.clone(), message, Some(help));
}

fn count_holds(
    stages: &[Stage<'_>],
    stage: &Stage<'_>,
    port: &Input,
    from: &[Source],
    findings: &mut Findings,
) -> bool {
    let spec: &StageSpec = stage.spec;
    let path = under(&under(&spec.path, "inputs"), &port.name);
    let at = At::key(&path);
    if from.is_empty() && port.arity != Arity::Optional {
        if findings.is_silenced_below(&path) {
            return false;
        }
        let message = format!("stage {:?} lacks the input {:?}: {}", spec.name, port.name, port.kind.describe());
        findings.add(at, message, Some(format!("say `inputs: {{{}: STAGE}}`", port.name)));
        return false;
    }
    if from.len() > 1 && port.kind.is_model() && port.arity != Arity::Many {
        let id = |source: &Source| {
            let stage = stage_of(stages, source.node);
            stage.id(source.node - stage.first).to_string()
        };
        let shown: Vec<String> = from.iter().take(3).map(id).collect();
        let more = if from.len() > 3 { ", …" } else { "" };
        let message = format!(
            "the input {:?} takes one model, but {} are bound: {}{more}",
            port.name,
            from.len(),
            shown.join(", ")
        );
        let help = match from[0].axes.keys().next() {
            Some(axis) => format!("choose one ({}), or give the stage the axis {axis:?} too", shown[0]),
            None => "choose one".to_owned(),
        };
        findings.add(at, message, Some(help));
        return false;
    }
    true
}
