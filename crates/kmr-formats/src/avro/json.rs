//! A datum as JSON, without a tree of values.

use std::io::Write as _;

use super::cursor::Cursor;
use super::fault::{Fault, Result};
use super::schema::{Field, Node, NodeId, Nodes, Precision, Zone};
use super::{AvroOptions, Times};
use crate::date::{push_date, push_timestamp};
use crate::decimal;
use crate::text::{push_float, push_string};
use crate::time::push_time;

/// Writes the datum as JSON.
pub(super) fn transcode(nodes: &Nodes, options: AvroOptions, datum: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut writer = JsonWriter { nodes, options, cursor: Cursor::new(datum), out };
    writer.value(nodes.root(), 1)?;
    writer.cursor.end()
}

struct JsonWriter<'a, 'd> {
    nodes: &'a Nodes,
    options: AvroOptions,
    cursor: Cursor<'d>,
    out: &'a mut Vec<u8>,
}

impl<'d> JsonWriter<'_, 'd> {
    fn value(&mut self, node: NodeId, depth: u32) -> Result<()> {
        self.cursor.start_value(depth)?;
        let nodes = self.nodes;
        match nodes.node(node) {
            Node::Null => self.out.extend_from_slice(b"null"),
            Node::Boolean => {
                let text: &[u8] = if self.cursor.boolean()? { b"true" } else { b"false" };
                self.out.extend_from_slice(text);
            }
            Node::Int => self.number(|cursor| cursor.int().map(i64::from))?,
            Node::Long => self.number(Cursor::long)?,
            Node::Float => {
                let number = self.cursor.float()?;
                push_float(self.out, number, number.into());
            }
            Node::Double => {
                let number = self.cursor.double()?;
                push_float(self.out, number, number);
            }
            Node::String => {
                let text = self.cursor.string()?;
                push_string(self.out, text);
            }
            Node::Array(items) => self.array(*items, depth)?,
            Node::Map(values) => self.map(*values, depth)?,
            Node::Record(fields) => self.record(fields, depth)?,
            Node::Enum(symbols) => {
                let choice = self.cursor.choice(symbols.len())?;
                push_string(self.out, symbols.get(choice).map_or("", String::as_str));
            }
            Node::Union(branches) => {
                let choice = self.cursor.choice(branches.len())?;
                // A number below the length has a branch.
                let Some(branch) = branches.get(choice) else { return Ok(()) };
                self.value(*branch, depth + 1)?;
            }
            node => self.bytes_or_time(node)?,
        }
        Ok(())
    }

    fn number(&mut self, read: impl FnOnce(&mut Cursor<'d>) -> Result<i64>) -> Result<()> {
        let number = read(&mut self.cursor)?;
        // Writing to a Vec does not fail.
        let _ = write!(self.out, "{number}");
        Ok(())
    }

    fn bytes_or_time(&mut self, node: &Node) -> Result<()> {
        let start = self.cursor.at;
        match *node {
            Node::Bytes => {
                let bytes = self.cursor.bytes()?;
                self.binary(bytes)
            }
            Node::Fixed(size) => {
                let bytes = self.cursor.take(size)?;
                self.binary(bytes)
            }
            Node::Decimal { size, scale } => {
                let text = decimal::text(self.cursor.sized(size)?, scale);
                let text = text.map_err(|problem| Fault::new(start, problem))?;
                self.out.extend_from_slice(text.as_bytes());
                Ok(())
            }
            Node::Uuid => {
                let bytes = self.cursor.take(16)?;
                self.out.push(b'"');
                for (at, byte) in bytes.iter().enumerate() {
                    let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
                    // Writing to a Vec does not fail.
                    let _ = write!(self.out, "{dash}{byte:02x}");
                }
                self.out.push(b'"');
                Ok(())
            }
            Node::Duration => {
                let [months, days, millis] = self.cursor.duration()?;
                let (seconds, millis) = (millis / 1_000, millis % 1_000);
                // Writing to a Vec does not fail.
                let _ = write!(self.out, "\"P{months}M{days}DT{seconds}.{millis:03}S\"");
                Ok(())
            }
            Node::Date | Node::Time(Precision::Millis) => {
                let number = i64::from(self.cursor.int()?);
                self.time(node, number, start)
            }
            _ => {
                let number = self.cursor.long()?;
                self.time(node, number, start)
            }
        }
    }

    fn time(&mut self, node: &Node, number: i64, start: usize) -> Result<()> {
        if self.options.times == Times::Numbers {
            // Writing to a Vec does not fail.
            let _ = write!(self.out, "{number}");
            return Ok(());
        }
        self.out.push(b'"');
        let written = match node {
            Node::Date => push_date(self.out, number),
            Node::Time(precision) => push_time(self.out, precision.nanos(number), precision.digits()),
            Node::Timestamp(precision, zone) => {
                let written = push_timestamp(self.out, precision.nanos(number), precision.digits());
                if *zone == Zone::Utc {
                    self.out.push(b'Z');
                }
                written
            }
            _ => Err("a value of no known type"),
        };
        self.out.push(b'"');
        written.map_err(|problem| Fault::new(start, problem))
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        let start = self.cursor.at - bytes.len();
        self.options.binary.push(self.out, bytes).map_err(|at| {
            Fault::new(start + at, "the bytes are not valid UTF-8 from here on: Base64 accepts any bytes")
        })
    }

    fn record(&mut self, fields: &[Field], depth: u32) -> Result<()> {
        self.out.push(b'{');
        for (at, field) in fields.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.out.extend_from_slice(&field.key);
            self.value(field.node, depth + 1).map_err(|fault| fault.in_field(&field.name))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn array(&mut self, items: NodeId, depth: u32) -> Result<()> {
        self.out.push(b'[');
        let mut index = 0;
        loop {
            let count = self.cursor.block().map_err(|fault| fault.in_element(index))?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                if index > 0 {
                    self.out.push(b',');
                }
                self.value(items, depth + 1).map_err(|fault| fault.in_element(index))?;
                index += 1;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn map(&mut self, values: NodeId, depth: u32) -> Result<()> {
        self.out.push(b'{');
        let mut index = 0;
        loop {
            let count = self.cursor.block().map_err(|fault| fault.in_entry(index))?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                if index > 0 {
                    self.out.push(b',');
                }
                self.entry(values, depth).map_err(|fault| fault.in_entry(index))?;
                index += 1;
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn entry(&mut self, values: NodeId, depth: u32) -> Result<()> {
        let key = self.cursor.string()?;
        push_string(self.out, key);
        self.out.push(b':');
        self.value(values, depth + 1)
    }
}

impl Precision {
    fn nanos(self, number: i64) -> i128 {
        let nanos = match self {
            Self::Millis => 1_000_000,
            Self::Micros => 1_000,
            Self::Nanos => 1,
        };
        i128::from(number) * nanos
    }

    fn digits(self) -> usize {
        match self {
            Self::Millis => 3,
            Self::Micros => 6,
            Self::Nanos => 9,
        }
    }
}
