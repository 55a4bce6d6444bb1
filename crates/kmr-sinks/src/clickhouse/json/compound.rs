//! Objects and arrays into the types of columns: Array, Map, Tuple, JSON, and texts.

use super::cursor::{Cursor, Raw};
use super::fault::{Fault, Found, Result};
use super::options::{Duplicates, Missing};
use super::type_default::put_default;
use super::value::{Values, mismatch};
use crate::clickhouse::encode::put_length;
use crate::clickhouse::table::types::{Element, Type};

impl Values<'_> {
    /// Appends the object that is next.
    pub(super) fn put_object(&mut self, json: &mut Cursor<'_>, ty: &Type, out: &mut Vec<u8>) -> Result<()> {
        match ty {
            Type::Map(entry) => match &**entry {
                Type::Tuple(pair) if pair.len() == 2 => self.put_map(json, &pair[0].ty, &pair[1].ty, out),
                _ => Err(mismatch(json.at, Found::Object, ty)),
            },
            Type::Tuple(elements) if elements.iter().all(|element| !element.name.is_empty()) => {
                self.put_named(json, elements, out)
            }
            Type::Json | Type::String => Self::put_verbatim(json, out),
            _ => Err(mismatch(json.at, Found::Object, ty)),
        }
    }

    /// Appends the array that is next.
    pub(super) fn put_array(&mut self, json: &mut Cursor<'_>, ty: &Type, out: &mut Vec<u8>) -> Result<()> {
        match ty {
            Type::Array(inner) => self.put_elements(json, inner, out),
            Type::Tuple(elements) => self.put_positional(json, elements, out),
            Type::String => Self::put_verbatim(json, out),
            _ => Err(mismatch(json.at, Found::Array, ty)),
        }
    }

    fn put_elements(&mut self, json: &mut Cursor<'_>, inner: &Type, out: &mut Vec<u8>) -> Result<()> {
        let mark = open_count(out);
        let mut count = 0;
        json.at += 1;
        json.skip_space();
        if !json.take(b']') {
            loop {
                json.skip_space();
                self.put(json, inner, out).map_err(|fault| fault.in_element(count))?;
                count += 1;
                json.skip_space();
                if json.take(b']') {
                    break;
                }
                if !json.take(b',') {
                    return Err(json.unexpected("a comma or ]"));
                }
            }
        }
        close_count(out, mark, count);
        Ok(())
    }

    fn put_positional(
        &mut self,
        json: &mut Cursor<'_>,
        elements: &[Element],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let start = json.at;
        json.at += 1;
        for (index, element) in elements.iter().enumerate() {
            json.skip_space();
            if index > 0 && !json.take(b',') {
                return Err(wrong_count(json, start, elements.len()));
            }
            json.skip_space();
            if json.peek() == b']' {
                return Err(wrong_count(json, start, elements.len()));
            }
            self.put(json, &element.ty, out).map_err(|fault| fault.in_element(index))?;
        }
        json.skip_space();
        if json.take(b']') { Ok(()) } else { Err(wrong_count(json, start, elements.len())) }
    }

    fn put_map(&mut self, json: &mut Cursor<'_>, key: &Type, value: &Type, out: &mut Vec<u8>) -> Result<()> {
        let mark = open_count(out);
        let mut count = 0;
        each_field(json, |json, raw| {
            self.put_key(&raw, key, out).map_err(|fault| fault.in_entry(count))?;
            self.put(json, value, out).map_err(|fault| fault.in_entry(count))?;
            count += 1;
            Ok(())
        })?;
        close_count(out, mark, count);
        Ok(())
    }

    /// A tuple from an object. Its fields have any order, so their places are found first.
    fn put_named(&mut self, json: &mut Cursor<'_>, elements: &[Element], out: &mut Vec<u8>) -> Result<()> {
        let base = self.scratch.elements.len();
        self.scratch.elements.resize(base + elements.len(), None);
        let result = self.find_elements(json, elements, base).and_then(|()| {
            elements.iter().enumerate().try_for_each(|(index, element)| {
                self.put_element(json, element, base + index, out)
                    .map_err(|fault| fault.in_key(&element.name))
            })
        });
        self.scratch.elements.truncate(base);
        result
    }

    fn find_elements(&mut self, json: &mut Cursor<'_>, elements: &[Element], base: usize) -> Result<()> {
        let (rules, scratch) = (self.rules, &mut *self.scratch);
        each_field(json, |json, raw| {
            let at = json.at;
            let key = scratch.text_of(&raw)?;
            let index = elements.iter().position(|element| element.name.as_bytes() == key);
            match index {
                Some(index) => {
                    let place = &mut scratch.elements[base + index];
                    let is_first = place.is_none();
                    if is_first || rules.duplicates == Duplicates::Last {
                        *place = Some(at);
                    } else if rules.duplicates == Duplicates::Reject {
                        return Err(duplicate(raw.at).in_key(&elements[index].name));
                    }
                }
                None if rules.rejects_unknown => {
                    return Err(unknown(raw.at).in_key(&String::from_utf8_lossy(key)));
                }
                None => {}
            }
            json.skip().map(drop)
        })
    }

    fn put_element(
        &mut self,
        json: &Cursor<'_>,
        element: &Element,
        place: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match self.scratch.elements.get(place).copied().flatten() {
            Some(at) => self.put(&mut Cursor { at, ..*json }, &element.ty, out),
            None if self.rules.missing == Missing::Reject => Err(Fault::new(json.at, "the field is missing")),
            None => {
                put_default(&element.ty, out);
                Ok(())
            }
        }
    }
}

/// Calls `each` for each field of the object that is next, with its key, at its value.
pub(super) fn each_field<'j>(
    json: &mut Cursor<'j>,
    mut each: impl FnMut(&mut Cursor<'j>, Raw<'j>) -> Result<()>,
) -> Result<()> {
    json.at += 1;
    json.skip_space();
    if json.take(b'}') {
        return Ok(());
    }
    loop {
        json.skip_space();
        let key = json.key_and_colon()?;
        each(json, key)?;
        json.skip_space();
        if json.take(b'}') {
            return Ok(());
        }
        if !json.take(b',') {
            return Err(json.unexpected("a comma or }"));
        }
    }
}

#[cold]
pub(super) fn duplicate(at: usize) -> Fault {
    Fault::new(at, "the object has this field twice")
}

#[cold]
pub(super) fn unknown(at: usize) -> Fault {
    Fault::new(at, "no column is filled from this field")
}

#[cold]
fn wrong_count(json: &Cursor<'_>, start: usize, len: usize) -> Fault {
    if matches!(json.peek(), b',' | b']') {
        return Fault::new(start, format!("the Tuple has {len} elements, and the array another number"))
            .found(b'[');
    }
    json.unexpected("a comma or ]")
}

/// Leaves room for a count below 128, and returns its place.
fn open_count(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len() - 1
}

/// Writes a count to its place. A larger count moves the elements.
fn close_count(out: &mut Vec<u8>, mark: usize, count: usize) {
    if count < 0x80 {
        out[mark] = count as u8; // below 128
        return;
    }
    let end = out.len();
    put_length(out, count);
    let more = out.len() - end - 1;
    out[mark..].rotate_right(more + 1);
    // The place that was left is the last byte of the elements' old end: it comes after the count.
    out.remove(mark + more + 1);
}
