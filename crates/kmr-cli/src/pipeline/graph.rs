//! `graph FILE`: what the pipelines of a file set up, as text or as a Mermaid diagram.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::ValueEnum;
use kmr_cli_support::output;

use super::file::{
    File, Fold, FoldedColumn, Format, Function, KeyEntry, Objects, Pipeline, Sink, Tombstones,
};
use super::filter::shown;
use super::load::load;
use super::value::{Text, Texts};
use super::{GraphArgs, Outcome};

/// The format of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Lines for people.
    Text,
    /// A flowchart in Mermaid, which many viewers of Markdown show.
    Mermaid,
}

/// Prints the graph of all pipelines.
pub(crate) fn graph(args: &GraphArgs) -> Outcome {
    let file = load(&args.file)?;
    output::result(
        match args.format {
            GraphFormat::Text => text(&file),
            GraphFormat::Mermaid => mermaid(&file),
        }
        .trim_end(),
    );
    Ok(ExitCode::SUCCESS)
}

/// A part of a pipeline: its name, and the values that matter.
struct Part {
    name: &'static str,
    values: Vec<String>,
}

impl Part {
    fn new(name: &'static str, values: impl IntoIterator<Item = String>) -> Self {
        Self { name, values: values.into_iter().filter(|value| !value.is_empty()).collect() }
    }
}

/// The way of a record: source, filter, decoder, sink.
fn way(pipeline: &Pipeline) -> Vec<Part> {
    let source = &pipeline.source;
    let mut way = vec![Part::new(
        "source",
        [
            format!("topics {}", source.topics.shown()),
            format!("brokers {}", source.brokers.shown()),
            format!(
                "group {}, {} from {}",
                source.group.shown(),
                lower(source.protocol),
                lower(source.start)
            ),
            format!("memory budget {}", pipeline.memory_budget),
        ],
    )];
    let tombstones = match source.tombstones {
        Tombstones::Skip => "tombstones are skipped".to_owned(),
        _ => String::new(),
    };
    let conditions = pipeline.filter.0.iter().map(shown).chain([tombstones]);
    let filter = Part::new("filter", conditions);
    if !filter.values.is_empty() {
        way.push(filter);
    }
    if matches!(pipeline.sink(), Sink::ClickHouse(_)) {
        way.push(decoder(pipeline));
    }
    way.extend(pipeline.fold.as_ref().map(fold));
    way.push(sink(pipeline));
    way
}

/// The name of a choice, as it is in the file.
fn lower(choice: impl std::fmt::Debug) -> String {
    format!("{choice:?}").to_lowercase()
}

fn decoder(pipeline: &Pipeline) -> Part {
    let objects = match (pipeline.format, pipeline.json.objects) {
        (Format::Csv, _) => "an object a line",
        (_, Objects::One) => "one object a record",
        (_, Objects::Many) => "any number of objects a record",
    };
    let registry = pipeline.registry.as_ref().map(|registry| format!("registry {}", registry.urls.shown()));
    let columns = pipeline.columns.iter().map(|(name, column)| match &column.path {
        _ if column.leave_out => format!("{name} is left to the server"),
        Some(path) => format!("{name} from {}", path.iter().collect::<Vec<_>>().join(".")),
        None => String::new(),
    });
    let named = &pipeline.record_columns;
    let of_record =
        [&named.topic, &named.partition, &named.offset, &named.timestamp, &named.key, &named.headers];
    let of_record: Vec<&str> = of_record.into_iter().flatten().map(Text::shown).collect();
    let of_record = match of_record[..] {
        [] => String::new(),
        _ => format!("of the record: {}", of_record.join(", ")),
    };
    let values = [objects.to_owned()].into_iter().chain(registry).chain(columns).chain([of_record]);
    Part::new(pipeline.format.name(), values)
}

fn fold(fold: &Fold) -> Part {
    let dotted = |path: &Texts| path.iter().collect::<Vec<_>>().join(".");
    let key = |KeyEntry(key): &KeyEntry| {
        let column = key.column.shown();
        let from = key.path.as_ref().map(dotted);
        match (key.bucket, from) {
            (Some(width), from) => {
                format!("{column}: buckets of {width} of {}", from.as_deref().unwrap_or("the timestamp"))
            }
            (None, Some(from)) => format!("{column} from {from}"),
            (None, None) => column.to_owned(),
        }
    };
    let value = |(column, folded): (&String, &FoldedColumn)| {
        let FoldedColumn { function, path } = folded;
        match (function, path) {
            (Function::Count, None) => format!("{column}: count"),
            (function, path) => {
                let from = path.as_ref().map_or_else(|| column.clone(), dotted);
                format!("{column}: {} of {from}", lower(function))
            }
        }
    };
    let keys = fold.by.iter().map(key).map(|key| format!("by {key}"));
    Part::new("fold", keys.chain(fold.values.iter().map(value)))
}

fn sink(pipeline: &Pipeline) -> Part {
    let batch = &pipeline.batch;
    let limits = format!("batch: {} rows, {}, {}", batch.max_rows, batch.max_bytes, batch.max_age);
    let guarantee = if pipeline.exactly_once { "exactly once" } else { "at least once" };
    match pipeline.sink() {
        Sink::ClickHouse(clickhouse) => {
            let database = clickhouse.database.as_ref().map(|name| format!("{}.", name.shown()));
            let table = format!("table {}{}", database.unwrap_or_default(), clickhouse.table.shown());
            Part::new("clickhouse", [table, clickhouse.urls.shown(), limits, guarantee.to_owned()])
        }
        Sink::Kafka(kafka) => {
            let brokers = kafka.brokers.as_ref().unwrap_or(&pipeline.source.brokers);
            let topic = format!("topic {}", kafka.topic.shown());
            Part::new("kafka", [topic, format!("brokers {}", brokers.shown()), limits, guarantee.to_owned()])
        }
        Sink::Stdout => Part::new("stdout", [limits, guarantee.to_owned()]),
    }
}

/// What stands beside the way of a record.
fn beside(pipeline: &Pipeline) -> Vec<Part> {
    let topic = pipeline.dead_letters.topic.as_ref();
    let topic = topic.map_or("standard error".to_owned(), |topic| format!("topic {}", topic.shown()));
    let mut parts = vec![Part::new("dead letters", [topic])];
    if let Some(address) = &pipeline.status.address {
        let actions = if pipeline.status.token_file.is_some() { "with actions" } else { "without actions" };
        parts.push(Part::new("status", [format!("http://{}/", address.shown()), actions.to_owned()]));
    }
    parts
}

fn text(file: &File) -> String {
    let mut text = String::new();
    for (name, pipeline) in file {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name}");
        for part in way(pipeline).iter().chain(&beside(pipeline)) {
            for (at, value) in part.values.iter().enumerate() {
                let _ = writeln!(text, "  {:14}{value}", if at == 0 { part.name } else { "" });
            }
        }
    }
    text
}

fn mermaid(file: &File) -> String {
    let mut text = "flowchart LR\n".to_owned();
    for (at, (name, pipeline)) in file.iter().enumerate() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  subgraph p{at}[\"{}\"]", escaped(name));
        let (way, beside) = (way(pipeline), beside(pipeline));
        let id = |part: &Part| format!("p{at}_{}", part.name.replace(' ', "_"));
        for part in way.iter().chain(&beside) {
            let values: Vec<String> = part.values.iter().map(|value| escaped(value)).collect();
            let _ = writeln!(text, "    {}[\"<b>{}</b><br/>{}\"]", id(part), part.name, values.join("<br/>"));
        }
        for pair in way.windows(2) {
            let _ = writeln!(text, "    {} --> {}", id(&pair[0]), id(&pair[1]));
        }
        for part in way.iter().skip(1) {
            let _ = writeln!(text, "    {} -. failed .-> p{at}_dead_letters", id(part));
        }
        text.push_str("  end\n");
    }
    text
}

/// A text inside of quotes, without characters that Mermaid or HTML would read.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => escaped.push_str("#quot;"),
            '#' => escaped.push_str("#35;"),
            '<' => escaped.push_str("#lt;"),
            '>' => escaped.push_str("#gt;"),
            '\n' | '\r' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load::parse;
    use super::*;

    const FILE: &str = r#"
[orders]
exactly_once = true
[orders.source]
brokers = ["a:9092", "b:9092"]
topics = "orders"
group = "g"
password = "s3cret"
[orders.filter]
path = ["kind"]
equals = "sale"
[orders.columns.env]
path = ["tags", "env"]
[orders.clickhouse]
urls = "http://c:8123"
table = "orders"
database = "shop"
[orders.record_columns]
offset = "_offset"
[orders.dead_letters]
topic = "orders.dead"
[orders.status]
address = "127.0.0.1:9464"
[copy]
source = { brokers = "a:9092", topics = "^x", group = "h" }
stdout = {}
"#;

    #[test]
    fn the_text_has_all_parts_and_no_secret() {
        let file = parse(Path::new("kmr.toml"), FILE).unwrap();
        let expected = "\
copy
  source        topics ^x
                brokers a:9092
                group h, cooperative from earliest
                memory budget 64MiB
  stdout        batch: 32768 rows, 8MiB, 1s
                at least once
  dead letters  standard error
orders
  source        topics orders
                brokers a:9092, b:9092
                group g, cooperative from earliest
                memory budget 64MiB
  filter        kind equals \"sale\"
  json          one object a record
                env from tags.env
                of the record: _offset
  clickhouse    table shop.orders
                http://c:8123
                batch: 32768 rows, 8MiB, 1s
                exactly once
  dead letters  topic orders.dead
  status        http://127.0.0.1:9464/
                without actions
";
        assert_eq!(text(&file), expected);
    }

    #[test]
    fn a_fold_is_shown_with_its_key_and_its_functions() {
        let fold = "
[orders.fold]
by = [\"page\", { column = \"minute\", bucket = \"1m\" }, { column = \"env\", path = [\"tags\", \"env\"] }]
values.visits.function = \"count\"
values.slowest = { function = \"max\", path = [\"timing\", \"ms\"] }
values.ms.function = \"sum\"
";
        let of_rows = [
            "[orders.columns.env]\npath = [\"tags\", \"env\"]\n",
            "[orders.record_columns]\noffset = \"_offset\"\n",
        ];
        let content = of_rows.iter().fold(format!("{FILE}{fold}"), |content, part| content.replace(part, ""));
        let shown = text(&parse(Path::new("kmr.toml"), &content).unwrap());
        let expected = "
  fold          by page
                by minute: buckets of 60s of the timestamp
                by env from tags.env
                ms: sum of ms
                slowest: max of timing.ms
                visits: count
";
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn the_diagram_connects_the_parts_and_escapes_their_values() {
        let file = parse(Path::new("kmr.toml"), FILE).unwrap();
        let diagram = mermaid(&file);
        for line in [
            "flowchart LR",
            "  subgraph p1[\"orders\"]",
            "    p1_filter[\"<b>filter</b><br/>kind equals #quot;sale#quot;\"]",
            "    p1_source --> p1_filter",
            "    p1_filter --> p1_json",
            "    p1_json --> p1_clickhouse",
            "    p1_clickhouse -. failed .-> p1_dead_letters",
            "    p0_source --> p0_stdout",
        ] {
            assert!(diagram.lines().any(|found| found == line), "{line}\n{diagram}");
        }
        assert_eq!(diagram.matches("subgraph").count(), diagram.matches("  end\n").count());
    }
}
