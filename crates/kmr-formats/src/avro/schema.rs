//! A schema of Avro, compiled into nodes that refer to each other by number.
//!
//! The writer's schema decides how bytes are read. So defaults, aliases and documentation are not
//! needed, and a schema that refers to itself is a node that refers to itself.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::text::push_string;

/// The number of a node.
pub(super) type NodeId = usize;

/// What a value is, and so how its bytes are read.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Date,
    /// A time of day. An `int` of milliseconds, or a `long` of microseconds.
    Time(Precision),
    /// A point in time, or a local one without a zone.
    Timestamp(Precision, Zone),
    Decimal {
        size: Size,
        scale: u32,
    },
    /// 16 bytes. A UUID that is a string is a string.
    Uuid,
    /// Months, days, milliseconds: three numbers of four bytes.
    Duration,
    Fixed(usize),
    Enum(Vec<String>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Vec<Field>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    Millis,
    Micros,
    Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    Utc,
    Local,
}

/// How many bytes a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Their number precedes them.
    Declared,
    Fixed(usize),
}

/// A field of a record.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// `"name":`
    pub(super) key: Vec<u8>,
    pub(super) node: NodeId,
}

/// A compiled schema.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    root: NodeId,
}

impl Nodes {
    /// Compiles a schema. `references` are schemas whose names it uses, each after those that it
    /// uses itself.
    ///
    /// # Errors
    /// The reason, as a text.
    pub(super) fn parse<'t>(
        schema: &str,
        references: impl IntoIterator<Item = &'t str>,
    ) -> Result<Self, String> {
        let mut compiler = Compiler::default();
        for reference in references {
            compiler.add(reference)?;
        }
        let root = compiler.add(schema)?;
        let nodes = compiler.nodes.into_iter().map(|node| node.ok_or("a type without a definition"));
        Ok(Self { nodes: nodes.collect::<Result<_, _>>()?, root })
    }

    pub(super) fn root(&self) -> NodeId {
        self.root
    }

    /// The node of this number. All numbers in nodes are those of nodes.
    pub(super) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id).unwrap_or(&Node::Null)
    }
}

/// The largest `fixed`. It is larger than any record.
const LARGEST_FIXED: u64 = 1 << 30;

#[derive(Default)]
struct Compiler {
    /// `None`: a record whose fields are being read.
    nodes: Vec<Option<Node>>,
    names: HashMap<String, NodeId>,
}

impl Compiler {
    fn add(&mut self, schema: &str) -> Result<NodeId, String> {
        let value: Value = match serde_json::from_str(schema) {
            Ok(value) => value,
            // Some producers register the name of a primitive type without quotes.
            Err(_) if primitive(schema.trim()).is_some() => Value::String(schema.trim().to_owned()),
            Err(error) => return Err(format!("the schema is no JSON: {error}")),
        };
        self.schema(&value, "")
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(Some(node));
        self.nodes.len() - 1
    }

    /// A schema inside of `namespace`.
    fn schema(&mut self, value: &Value, namespace: &str) -> Result<NodeId, String> {
        match value {
            Value::String(name) => match primitive(name) {
                Some(node) => Ok(self.push(node)),
                None => self.named(name, namespace),
            },
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.schema(branch, namespace));
                let branches = branches.collect::<Result<Vec<_>, _>>()?;
                Ok(self.push(Node::Union(branches)))
            }
            Value::Object(object) => self.object(object, namespace),
            _ => Err("a schema is a name, a list or an object".to_owned()),
        }
    }

    fn named(&self, name: &str, namespace: &str) -> Result<NodeId, String> {
        let inside = full_name(name, namespace);
        // Names without a namespace can be used everywhere.
        let found = self.names.get(&inside).or_else(|| self.names.get(name)).copied();
        found.ok_or_else(|| format!("the type {inside:?} is not defined"))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<NodeId, String> {
        let kind = match object.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(nested) => return self.schema(nested, namespace),
            None => return Err("a schema has no \"type\"".to_owned()),
        };
        let logical = object.get("logicalType").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let symbols =
                    list(object, "symbols")?.iter().map(|symbol| symbol.as_str().map(str::to_owned));
                let symbols = symbols.collect::<Option<Vec<_>>>().ok_or("a symbol of an enum is no text")?;
                self.define(object, namespace, Node::Enum(symbols))
            }
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64).filter(|size| *size <= LARGEST_FIXED);
                let size = size.and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or("the size of a fixed is no number of bytes below 1 GiB")?;
                self.define(object, namespace, fixed(size, logical, object))
            }
            "array" => {
                let items =
                    self.schema(object.get("items").ok_or("an array has no \"items\"")?, namespace)?;
                Ok(self.push(Node::Array(items)))
            }
            "map" => {
                let values =
                    self.schema(object.get("values").ok_or("a map has no \"values\"")?, namespace)?;
                Ok(self.push(Node::Map(values)))
            }
            name => match primitive(name) {
                Some(node) => Ok(self.push(with_logical_type(node, logical, object))),
                None => self.named(name, namespace),
            },
        }
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<NodeId, String> {
        let (id, full) = self.declare(object, namespace)?;
        let namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let mut fields = Vec::new();
        for field in list(object, "fields")? {
            let name = field.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| format!("a field of {full:?} has no name"))?;
            let schema = field.get("type").ok_or_else(|| format!("{full:?}.{name:?} has no type"))?;
            let node =
                self.schema(schema, namespace).map_err(|problem| format!("{full:?}.{name:?}: {problem}"))?;
            let mut key = Vec::with_capacity(name.len() + 3);
            push_string(&mut key, name);
            key.push(b':');
            fields.push(Field { name: name.to_owned(), key, node });
        }
        if let Some(slot) = self.nodes.get_mut(id) {
            *slot = Some(Node::Record(fields));
        }
        Ok(id)
    }

    fn define(&mut self, object: &Map<String, Value>, namespace: &str, node: Node) -> Result<NodeId, String> {
        let (id, _) = self.declare(object, namespace)?;
        if let Some(slot) = self.nodes.get_mut(id) {
            *slot = Some(node);
        }
        Ok(id)
    }

    /// Gives a named type its number before it is read, so that it can refer to itself.
    fn declare(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<(NodeId, String), String> {
        let name = object.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or("a record, enum or fixed has no name")?;
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        let id = self.nodes.len();
        if self.names.insert(full.clone(), id).is_some() {
            return Err(format!("the type {full:?} is defined twice"));
        }
        self.nodes.push(None);
        Ok((id, full))
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn list<'o>(object: &'o Map<String, Value>, key: &str) -> Result<&'o Vec<Value>, String> {
    object.get(key).and_then(Value::as_array).ok_or_else(|| format!("{key:?} is no list"))
}

fn primitive(name: &str) -> Option<Node> {
    Some(match name {
        "null" => Node::Null,
        "boolean" => Node::Boolean,
        "int" => Node::Int,
        "long" => Node::Long,
        "float" => Node::Float,
        "double" => Node::Double,
        "bytes" => Node::Bytes,
        "string" => Node::String,
        _ => return None,
    })
}

/// A logical type that does not fit its type, or is not known, is ignored, as Avro's specification
/// demands.
fn with_logical_type(node: Node, logical: &str, object: &Map<String, Value>) -> Node {
    use Precision::{Micros, Millis, Nanos};
    match (node, logical) {
        (Node::Int, "date") => Node::Date,
        (Node::Int, "time-millis") => Node::Time(Millis),
        (Node::Long, "time-micros") => Node::Time(Micros),
        (Node::Long, "timestamp-millis") => Node::Timestamp(Millis, Zone::Utc),
        (Node::Long, "timestamp-micros") => Node::Timestamp(Micros, Zone::Utc),
        (Node::Long, "timestamp-nanos") => Node::Timestamp(Nanos, Zone::Utc),
        (Node::Long, "local-timestamp-millis") => Node::Timestamp(Millis, Zone::Local),
        (Node::Long, "local-timestamp-micros") => Node::Timestamp(Micros, Zone::Local),
        (Node::Long, "local-timestamp-nanos") => Node::Timestamp(Nanos, Zone::Local),
        (Node::Bytes, "decimal") => decimal(Size::Declared, object).unwrap_or(Node::Bytes),
        (node, _) => node,
    }
}

fn fixed(size: usize, logical: &str, object: &Map<String, Value>) -> Node {
    match (logical, size) {
        ("uuid", 16) => Node::Uuid,
        ("duration", 12) => Node::Duration,
        ("decimal", _) => decimal(Size::Fixed(size), object).unwrap_or(Node::Fixed(size)),
        _ => Node::Fixed(size),
    }
}

fn decimal(size: Size, object: &Map<String, Value>) -> Option<Node> {
    let number = |key: &str| object.get(key).map_or(Some(0), Value::as_u64);
    let (precision, scale) = (number("precision")?, number("scale")?);
    let is_valid = precision > 0 && scale <= precision;
    let scale = u32::try_from(scale).ok()?;
    is_valid.then_some(Node::Decimal { size, scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(schema: &str) -> String {
        Nodes::parse(schema, []).unwrap_err()
    }

    #[test]
    fn a_schema_that_refers_to_itself_is_a_node_that_refers_to_itself() {
        let list = r#"{"type": "record", "name": "List", "namespace": "a.b", "fields": [
            {"name": "value", "type": "int"}, {"name": "next", "type": ["null", "List"]}]}"#;
        let nodes = Nodes::parse(list, []).unwrap();
        let Node::Record(fields) = nodes.node(nodes.root()) else { panic!("{nodes:?}") };
        let Node::Union(branches) = nodes.node(fields[1].node) else { panic!("{nodes:?}") };
        assert_eq!(branches[1], nodes.root());
    }

    #[test]
    fn names_are_found_in_their_namespace_and_in_references() {
        let color = r#"{"type": "enum", "name": "x.Color", "symbols": ["RED"]}"#;
        for name in ["x.Color", "Color"] {
            let user = format!(
                r#"{{"type": "record", "name": "x.User", "fields": [{{"name": "c", "type": "{name}"}}]}}"#
            );
            let nodes = Nodes::parse(&user, [color]).unwrap();
            let Node::Record(fields) = nodes.node(nodes.root()) else { panic!("{nodes:?}") };
            assert!(matches!(nodes.node(fields[0].node), Node::Enum(_)));
            assert!(error(&user).contains("\"x.User\".\"c\": the type \"x.Color\" is not defined"));
        }
        assert!(matches!(Nodes::parse("\"string\"", []).unwrap().node(0), Node::String));
        assert!(matches!(Nodes::parse("string", []).unwrap().node(0), Node::String));
    }

    #[test]
    fn logical_types_that_do_not_fit_are_ignored() {
        for (schema, expected) in [
            (r#"{"type": "int", "logicalType": "date"}"#, "Date"),
            (r#"{"type": "string", "logicalType": "date"}"#, "String"),
            (r#"{"type": "string", "logicalType": "uuid"}"#, "String"),
            (r#"{"type": "long", "logicalType": "of-tomorrow"}"#, "Long"),
            (r#"{"type": {"type": "long", "logicalType": "timestamp-micros"}}"#, "Timestamp(Micros, Utc)"),
            (r#"{"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3}"#, "Bytes"),
            (
                r#"{"type": "bytes", "logicalType": "decimal", "precision": 2}"#,
                "Decimal { size: Declared, scale: 0 }",
            ),
            (r#"{"type": "fixed", "name": "f", "size": 4, "logicalType": "duration"}"#, "Fixed(4)"),
            (r#"{"type": "fixed", "name": "f", "size": 16, "logicalType": "uuid"}"#, "Uuid"),
        ] {
            let nodes = Nodes::parse(schema, []).unwrap();
            assert_eq!(format!("{:?}", nodes.node(nodes.root())), expected, "{schema}");
        }
    }

    #[test]
    fn a_wrong_schema_names_its_fault() {
        for (schema, expected) in [
            ("", "no JSON"),
            ("5", "a name, a list or an object"),
            ("{}", "no \"type\""),
            (r#"{"type": "record", "fields": []}"#, "no name"),
            (r#"{"type": "record", "name": "r"}"#, "\"fields\" is no list"),
            (r#"{"type": "record", "name": "r", "fields": [{"name": "a"}]}"#, "\"r\".\"a\" has no type"),
            (r#"{"type": "array"}"#, "no \"items\""),
            (r#"{"type": "fixed", "name": "f", "size": -1}"#, "size of a fixed"),
            (r#"{"type": "fixed", "name": "f", "size": 99999999999}"#, "size of a fixed"),
            (
                r#"[{"type": "enum", "name": "e", "symbols": []}, {"type": "enum", "name": "e", "symbols": []}]"#,
                "defined twice",
            ),
        ] {
            assert!(error(schema).contains(expected), "{schema}: {}", error(schema));
        }
        let deep = format!("{}\"int\"{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(error(&deep).contains("recursion limit"));
    }
}
