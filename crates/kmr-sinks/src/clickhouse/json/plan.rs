//! Which key of the object leads to which column: a tree of paths, built at the start.

use super::keys::{Keys, Target};
use super::nested::Nested;
use super::options::{JsonOptions, Missing, UnknownFields};
use super::type_default::VARIANT_NULL;
use crate::clickhouse::table::column::Column;
use crate::clickhouse::table::types::Type;

/// The tree and its columns.
#[derive(Debug)]
pub(super) struct Plan {
    /// The objects; the first one is the record's own.
    pub(super) nodes: Vec<Node>,
    pub(super) columns: Vec<PlannedColumn>,
    /// The column that collects unknown fields: the last one.
    pub(super) collect: Option<usize>,
}

/// An object with keys that lead to columns.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) keys: Keys,
    /// The columns that it leads to, also by other objects.
    pub(super) columns: Vec<usize>,
    /// The path as a prefix of collected keys: `tags.`
    pub(super) prefix: String,
}

/// How a column is filled.
#[derive(Debug)]
pub(super) struct PlannedColumn {
    pub(super) path: Vec<String>,
    /// Digits after the second of times that are numbers.
    pub(super) unit: i32,
    /// Whether null is a value of the column.
    pub(super) accepts_null: bool,
    /// The value of a missing field; `None` rejects the record.
    pub(super) missing: Option<Box<[u8]>>,
    /// The other columns of the same `Nested`, which decide the length of a missing array.
    pub(super) nested: Option<Nested>,
}

impl Plan {
    /// The plan for these columns, with the DEFAULT of each, encoded.
    ///
    /// # Errors
    /// The text of what is wrong with paths or options.
    pub(super) fn new(
        columns: &[Column],
        options: &JsonOptions,
        defaults: Vec<Vec<u8>>,
    ) -> Result<Self, String> {
        let collect = match &options.unknown {
            UnknownFields::Collect(name) => columns.iter().position(|column| column.name == *name),
            _ => None,
        };
        let mut plan = Self { nodes: vec![Node::default()], columns: Vec::new(), collect };
        for (index, (column, default)) in columns.iter().zip(defaults).enumerate() {
            let explicit = options.paths.iter().find(|(name, _)| *name == column.name);
            let whole = || vec![column.name.clone()];
            let path = explicit.map_or_else(whole, |(_, path)| path.clone());
            if collect != Some(index) {
                plan.add(&path, index, columns)?;
                if explicit.is_none() && column.name.contains('.') {
                    plan.add(&split(&column.name), index, columns)?;
                }
            }
            let accepts_null = matches!(column.ty, Type::Nullable(_) | Type::Variant(_));
            plan.columns.push(PlannedColumn {
                path,
                unit: options.unit_of(&column.name).digits(),
                accepts_null: accepts_null && !column.null_is_default,
                missing: missing(column, options, default)?,
                nested: Nested::of(columns, index),
            });
        }
        Ok(plan)
    }

    fn add(&mut self, path: &[String], column: usize, columns: &[Column]) -> Result<(), String> {
        let name = &columns[column].name;
        let Some((last, keys)) = path.split_last() else {
            return Err(format!("the path of column `{name}` has no keys"));
        };
        let mut node = 0;
        for key in keys {
            self.nodes[node].columns.push(column);
            node = match self.nodes[node].keys.get(key.as_bytes()) {
                Some(Target::Node(next)) => next,
                Some(Target::Column(other)) => return Err(collision(name, path, columns, other)),
                _ => self.add_node(node, key),
            };
        }
        let Node { keys, columns: leads_to, .. } = &mut self.nodes[node];
        match keys.get(last.as_bytes()) {
            Some(Target::Column(other)) => return Err(collision(name, path, columns, other)),
            Some(Target::Node(other)) => {
                let other = self.nodes[other].columns.first().copied().unwrap_or(column);
                return Err(collision(name, path, columns, other));
            }
            _ if keys.is_full() => return Err("the table has too many columns for JSON rows".to_owned()),
            _ => keys.add(last.as_bytes(), Target::Column(column)),
        }
        leads_to.push(column);
        Ok(())
    }

    fn add_node(&mut self, parent: usize, key: &str) -> usize {
        let prefix = format!("{}{key}.", self.nodes[parent].prefix);
        self.nodes.push(Node { prefix, ..Node::default() });
        let added = self.nodes.len() - 1;
        self.nodes[parent].keys.add(key.as_bytes(), Target::Node(added));
        added
    }
}

fn split(name: &str) -> Vec<String> {
    name.split('.').map(str::to_owned).collect()
}

fn collision(name: &str, path: &[String], columns: &[Column], other: usize) -> String {
    let other = &columns[other].name;
    let path = path.join(" → ");
    format!(
        "columns `{name}` and `{other}` would be filled from the same field ({path}); set the path of one of them with \
         .path(), or remove it from the rows with .leave_out()"
    )
}

/// The bytes of a missing field.
fn missing(column: &Column, options: &JsonOptions, default: Vec<u8>) -> Result<Option<Box<[u8]>>, String> {
    let own = options.missing_of.iter().rev().find(|(name, _)| *name == column.name);
    let is_nullable = matches!(column.ty, Type::Nullable(_)) && !column.null_is_default;
    Ok(match own.map_or(options.missing, |(_, policy)| *policy) {
        Missing::Reject => None,
        Missing::Null if is_nullable => Some([1].into()),
        Missing::Null if matches!(column.ty, Type::Variant(_)) => Some([VARIANT_NULL].into()),
        Missing::Null if own.is_some() => {
            return Err(format!(
                "column `{}` {} is not Nullable, so a missing field cannot be NULL",
                column.name, column.type_text
            ));
        }
        Missing::Null | Missing::Default => Some(default.into()),
    })
}
