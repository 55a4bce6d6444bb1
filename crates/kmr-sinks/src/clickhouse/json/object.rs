//! Decodes one object into one row: each value straight to its column.
//!
//! A value whose column is next goes to the row itself. Others wait in a buffer until it is their
//! turn.

use super::compound::{duplicate, unknown};
use super::cursor::{Cursor, Raw};
use super::fault::{Fault, Found, Result};
use super::keys::{FoundKey, Keys, Target};
use super::nested::{Nested, array_length};
use super::options::{Duplicates, Nulls, UnknownFields};
use super::plan::Plan;
use super::rules::Rules;
use super::value::{Scratch, Values};
use crate::clickhouse::encode::put_length;
use crate::clickhouse::table::column::Column;

/// The state that the rows of one map task share.
#[derive(Debug)]
pub(super) struct RowState {
    nodes: Vec<NodeState>,
    slots: Vec<Slot>,
    /// The number of the row: a slot with another number is empty.
    row: u64,
    /// Values that wait for their turn.
    waiting: Vec<u8>,
    /// Fields that no column is filled from, as the inside of an object.
    collected: Vec<u8>,
    scratch: Scratch,
}

#[derive(Debug)]
struct NodeState {
    keys: Keys,
    /// The last row that had this object.
    row: u64,
}

/// The value of a column.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The last row that had the field.
    seen: u64,
    /// The last row that has a value of it. A null can be no value.
    row: u64,
    /// Its place in the waiting values. A value that went to the row at once has no length, and its
    /// place is that in the row's buffer.
    at: usize,
    len: usize,
}

impl RowState {
    pub(super) fn new(plan: &Plan) -> Self {
        let nodes = plan.nodes.iter().map(|node| NodeState { keys: node.keys.clone(), row: 0 });
        Self {
            nodes: nodes.collect(),
            slots: vec![Slot::default(); plan.columns.len()],
            row: 0,
            waiting: Vec::new(),
            collected: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Memory of the waiting values and the collected fields, bytes.
    pub(super) fn waiting_capacity(&self) -> usize {
        self.waiting.capacity() + self.collected.capacity() + self.scratch.text.capacity()
    }
}

/// Decodes objects.
pub(super) struct RowDecoder<'a> {
    pub(super) plan: &'a Plan,
    pub(super) rules: &'a Rules,
    pub(super) unknown: &'a UnknownFields,
    pub(super) columns: &'a [Column],
    pub(super) state: &'a mut RowState,
    /// The column whose turn it is.
    pub(super) next: usize,
}

impl RowDecoder<'_> {
    /// Appends the row of the object that is the whole text.
    pub(super) fn row(&mut self, json: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<()> {
        self.state.row += 1;
        self.state.waiting.clear();
        self.state.collected.clear();
        json.skip_space();
        if json.peek() != b'{' {
            return Err(match Found::of(json.peek()) {
                Some(found) => not_an_object(json.at, found),
                None => json.unexpected("an object"),
            });
        }
        self.object(json, 0, out)?;
        json.skip_space();
        if !json.is_at_end() {
            return Err(Fault::new(
                json.at,
                "more text after the object: JsonRow::each() splits such records",
            ));
        }
        self.finish(json.at, out)
    }

    /// Decodes the object that is next, whose keys are those of `node`.
    fn object(&mut self, json: &mut Cursor<'_>, node: usize, out: &mut Vec<u8>) -> Result<()> {
        json.at += 1;
        json.skip_space();
        if json.take(b'}') {
            return Ok(());
        }
        let mut place = 0;
        loop {
            let key = self.state.nodes[node].keys.read(json, place, &mut self.state.scratch.text)?;
            place = key.place;
            match key.target {
                Target::Column(column) => self.column(json, column, &key, out)?,
                Target::None => self.unknown(json, node, &key)?,
                Target::Node(node) => {
                    self.node(json, node, &key, out).map_err(|fault| fault.under(key.raw.bytes))?;
                }
            }
            json.skip_space();
            if json.take(b',') {
                json.skip_space();
            } else if json.take(b'}') {
                return Ok(());
            } else {
                return Err(json.unexpected("a comma or }"));
            }
        }
    }

    #[inline]
    fn column(
        &mut self,
        json: &mut Cursor<'_>,
        column: usize,
        key: &FoundKey<'_>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if self.state.slots[column].seen == self.state.row && !self.replaces(column, key)? {
            return json.skip().map(drop).map_err(|fault| fault.at_column(column));
        }
        let planned = &self.plan.columns[column];
        if json.peek() == b'n' && !planned.accepts_null {
            return self.null(json, column);
        }
        let is_next = column == self.next && self.rules.duplicates != Duplicates::Last;
        let RowState { slots, waiting, scratch, row, .. } = &mut *self.state;
        let mut values = Values { rules: self.rules, unit: planned.unit, scratch };
        let ty = &self.columns[column].ty;
        if is_next {
            let at = out.len();
            values.put(json, ty, out).map_err(|fault| fault.at_column(column))?;
            slots[column] = Slot { seen: *row, row: *row, at, len: 0 };
            self.next += 1;
            self.drain(out);
            return Ok(());
        }
        let at = waiting.len();
        values.put(json, ty, waiting).map_err(|fault| fault.at_column(column))?;
        slots[column] = Slot { seen: *row, row: *row, at, len: waiting.len() - at };
        Ok(())
    }

    /// Whether a repeated value replaces the one before.
    #[cold]
    fn replaces(&self, column: usize, key: &FoundKey<'_>) -> Result<bool> {
        match self.rules.duplicates {
            Duplicates::Reject => Err(duplicate(key.raw.at).at_column(column)),
            Duplicates::First => Ok(false),
            Duplicates::Last => Ok(true),
        }
    }

    /// A null that the column cannot hold.
    #[cold]
    fn null(&mut self, json: &mut Cursor<'_>, column: usize) -> Result<()> {
        let at = json.at;
        json.word().map_err(|fault| fault.at_column(column))?;
        match self.rules.nulls {
            Nulls::Reject => {
                let ty = &self.columns[column].ty;
                Err(super::value::mismatch(at, Found::Null, ty).at_column(column))
            }
            // The value before, if there is one, is replaced as well.
            Nulls::Default => {
                (self.state.slots[column].seen, self.state.slots[column].row) = (self.state.row, 0);
                Ok(())
            }
        }
    }

    /// Appends the waiting values whose turn it is.
    #[inline]
    fn drain(&mut self, out: &mut Vec<u8>) {
        while let Some(slot) = self.state.slots.get(self.next)
            && slot.row == self.state.row
        {
            out.extend_from_slice(&self.state.waiting[slot.at..slot.at + slot.len]);
            self.next += 1;
        }
    }

    /// The value of a key that leads to an object.
    fn node(
        &mut self,
        json: &mut Cursor<'_>,
        node: usize,
        key: &FoundKey<'_>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match json.peek() {
            b'{' | b'n' => {}
            other => {
                return Err(match Found::of(other) {
                    Some(found) => not_an_object(json.at, found),
                    None => json.unexpected("an object"),
                });
            }
        }
        if self.state.nodes[node].row == self.state.row {
            match self.rules.duplicates {
                Duplicates::Reject => return Err(duplicate(key.raw.at)),
                Duplicates::First => return json.skip().map(drop),
                Duplicates::Last => {
                    let columns = &self.plan.nodes[node].columns;
                    for column in columns {
                        (self.state.slots[*column].seen, self.state.slots[*column].row) = (0, 0);
                    }
                }
            }
        }
        self.state.nodes[node].row = self.state.row;
        if json.peek() == b'n' {
            // An object that is null has no fields.
            return json.word().map(drop);
        }
        self.object(json, node, out)
    }

    /// The value of a key that leads nowhere.
    #[inline]
    fn unknown(&mut self, json: &mut Cursor<'_>, node: usize, key: &FoundKey<'_>) -> Result<()> {
        match self.unknown {
            UnknownFields::Ignore => json.skip().map(drop).map_err(|fault| fault.under(key.raw.bytes)),
            UnknownFields::Reject => Err(unknown(key.raw.at).found(json.peek()).under(key.raw.bytes)),
            UnknownFields::Collect(_) => {
                let text = json.skip().map_err(|fault| fault.under(key.raw.bytes))?;
                let prefix = &self.plan.nodes[node].prefix;
                collect(&mut self.state.collected, prefix, &key.raw, text);
                Ok(())
            }
        }
    }

    /// Appends the missing array of a `Nested`, as long as the arrays of the other columns. Without
    /// any, it is empty.
    fn missing_array(&self, nested: &Nested, empty: &[u8], out: &mut Vec<u8>) {
        let RowState { slots, waiting, row, .. } = &*self.state;
        let present = nested.siblings.iter().map(|column| &slots[*column]).find(|slot| slot.row == *row);
        let Some(slot) = present else { return out.extend_from_slice(empty) };
        let values = if slot.len > 0 { &waiting[slot.at..] } else { &out[slot.at..] };
        let length = array_length(values);
        put_length(out, length);
        (0..length).for_each(|_| out.extend_from_slice(&nested.element));
    }

    /// Appends the columns that have no value yet.
    fn finish(&mut self, end: usize, out: &mut Vec<u8>) -> Result<()> {
        self.drain(out);
        while let Some(planned) = self.plan.columns.get(self.next) {
            if self.plan.collect == Some(self.next) {
                if planned.accepts_null {
                    out.push(0);
                }
                let collected = &self.state.collected;
                put_length(out, collected.len() + 2 - usize::from(!collected.is_empty()));
                out.push(b'{');
                // The first comma is left out.
                out.extend_from_slice(collected.get(1..).unwrap_or_default());
                out.push(b'}');
            } else {
                let Some(bytes) = &planned.missing else {
                    return Err(Fault::new(end, "the field is missing").at_column(self.next));
                };
                match &planned.nested {
                    Some(nested) => self.missing_array(nested, bytes, out),
                    None => out.extend_from_slice(bytes),
                }
            }
            self.next += 1;
            self.drain(out);
        }
        Ok(())
    }
}

/// Adds `,"key":value`.
fn collect(collected: &mut Vec<u8>, prefix: &str, key: &Raw<'_>, value: &[u8]) {
    collected.extend_from_slice(b",\"");
    for character in prefix.chars() {
        match character {
            '"' | '\\' => collected.extend_from_slice(&[b'\\', character as u8]), // ASCII
            control if control < ' ' => {
                collected.extend_from_slice(format!("\\u{:04x}", control as u32).as_bytes());
            }
            other => collected.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    collected.extend_from_slice(key.bytes);
    collected.extend_from_slice(b"\":");
    collected.extend_from_slice(value);
}

#[cold]
fn not_an_object(at: usize, found: Found) -> Fault {
    Fault::new(at, format!("{} where an object belongs", found.text())).found_kind(found)
}
