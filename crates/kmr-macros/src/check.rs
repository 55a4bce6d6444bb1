//! Checks a [`StageList`] and turns it into [`Call`]s.
//!
//! Every rule is checked, so all mistakes are reported at once. Each error points at its stage.

use proc_macro2::{Ident, Span};
use syn::{Error, Expr};

use crate::kind::Kind;
use crate::parse::{Stage, StageList};

/// A call of the builder: method and argument.
pub(crate) struct Call {
    /// The method, with the span of the stage's name.
    pub(crate) method: Ident,
    pub(crate) argument: Expr,
}

/// A stage that exists, and the span of its name.
#[derive(Clone, Copy)]
struct Known {
    kind: Kind,
    span: Span,
}

/// Returns the builder calls of a list, or all its errors. Syntax errors come first.
pub(crate) fn check(list: StageList) -> Result<Vec<Call>, Vec<Error>> {
    let mut errors = list.errors;
    let mut complete = list.complete;
    let mut known = Vec::new();
    for Stage { name, .. } in &list.stages {
        match Kind::of(name) {
            Some(kind) => known.push(Known { kind, span: name.span() }),
            None => {
                errors.push(unknown(name));
                complete = false;
            }
        }
    }
    if complete && known.iter().all(|stage| stage.kind.is_setting()) {
        let text = "the strategy is empty: it needs a map stage and a `reduce`, as in \
                    `{ map => parse, reduce => writer }`";
        errors.push(Error::new(list.span, text));
    }
    check_settings(&known, &mut errors);
    known.retain(|stage| !stage.kind.is_setting());
    check_map(&known, complete, &mut errors);
    check_reduce(&known, complete, &mut errors);
    check_reduce_err(&known, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let call = |Stage { name, value }: Stage| value.map(|argument| Call { method: name, argument });
    Ok(list.stages.into_iter().filter_map(call).collect())
}

/// A setting is written once, before the first `reduce`. It applies to the map stages there.
fn check_settings(stages: &[Known], errors: &mut Vec<Error>) {
    let reduce = stages.iter().position(|stage| matches!(stage.kind, Kind::Reduce | Kind::ReduceErr));
    for (index, setting) in stages.iter().enumerate().filter(|(_, stage)| stage.kind.is_setting()) {
        let text = if stages[..index].iter().any(|before| before.kind == setting.kind) {
            format!(
                "duplicate {}: one setting applies to all map stages before the first `reduce`",
                setting.kind
            )
        } else if let Some(reduce) = reduce.filter(|reduce| *reduce < index) {
            format!(
                "setting {} is after a {}: move it before the first map stage. It applies only to the map \
                 stages before the first `reduce`",
                setting.kind, stages[reduce].kind
            )
        } else {
            continue;
        };
        errors.push(Error::new(setting.span, text));
    }
}

/// A map stage has to precede the first `reduce`.
fn check_map(stages: &[Known], complete: bool, errors: &mut Vec<Error>) {
    let map = stages.iter().position(|stage| stage.kind.is_map());
    let reduce = stages.iter().position(|stage| stage.kind == Kind::Reduce);
    let (at, text) = match (map, reduce) {
        (Some(map), Some(reduce)) if reduce < map => (
            reduce,
            format!(
                "stage `reduce` is before the first map stage: move it after the {}, which produces the values \
                 that it collects",
                stages[map].kind
            ),
        ),
        (None, Some(reduce)) if complete => (
            reduce,
            "no map stage before this `reduce`: add a `map`, `filter_map` or `flat_map`, which produces the \
             values that it collects"
                .to_owned(),
        ),
        (None, None) if complete && !stages.is_empty() => (
            stages.len() - 1,
            format!("no map stage and no `reduce`: the strategy needs both {}", place(stages)),
        ),
        _ => return,
    };
    errors.push(Error::new(stages[at].span, text));
}

/// A `reduce` is required. If the map stage is missing too, `check_map` reports both.
fn check_reduce(stages: &[Known], complete: bool, errors: &mut Vec<Error>) {
    let has = |wanted: fn(Kind) -> bool| stages.iter().any(|stage| wanted(stage.kind));
    if !complete || has(|kind| kind == Kind::Reduce) || !has(Kind::is_map) {
        return;
    }
    if let Some(last) = stages.last() {
        let text = format!("no `reduce` stage: the strategy needs one {}", place(stages));
        errors.push(Error::new(last.span, text));
    }
}

/// Where a missing stage belongs, relative to the last one.
fn place(stages: &[Known]) -> String {
    match stages.last() {
        Some(last) if last.kind == Kind::ReduceErr => format!("before this {}", last.kind),
        Some(last) => format!("after this {}", last.kind),
        None => String::new(),
    }
}

/// `reduce_err` is written once, as the last stage.
fn check_reduce_err(stages: &[Known], errors: &mut Vec<Error>) {
    let mut seen = false;
    for (index, stage) in stages.iter().enumerate().filter(|(_, stage)| stage.kind == Kind::ReduceErr) {
        if seen {
            let text =
                "duplicate `reduce_err`: a strategy has one, which receives the dead letters of all stages";
            errors.push(Error::new(stage.span, text));
            continue;
        }
        seen = true;
        let last = stages[index..].iter().rfind(|later| later.kind != Kind::ReduceErr);
        if let Some(last) = last {
            let text = format!("`reduce_err` is not the last stage: move it after the {} below", last.kind);
            errors.push(Error::new(stage.span, text));
        }
    }
}

fn unknown(name: &Ident) -> Error {
    let written = name.to_string();
    let near = Kind::all()
        .map(|kind| (distance(&written.to_lowercase(), kind.name()), kind))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, kind)| *distance <= 1 + kind.name().len() / 4);
    let mut text = format!("unknown stage `{written}`");
    if let Some((_, kind)) = near {
        text += &format!(": did you mean {kind}?");
    }
    text += "\nthe stages are ";
    text += &Kind::STAGES.map(|kind| kind.to_string()).join(", ");
    text += "; the settings are ";
    text += &Kind::SETTINGS.map(|kind| kind.to_string()).join(", ");
    Error::new(name.span(), text)
}

/// Edit distance of two texts: insertions, removals and replacements.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
