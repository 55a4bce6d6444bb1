//! Texts into the types of columns, and the keys of maps.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::cursor::Raw;
use super::escape::unescape;
use super::fault::{Fault, Found, Result};
use super::number::Number;
use super::numeric::{bfloat16, fitted};
use super::time;
use super::value::{Scratch, Values, mismatch, name, out_of_range};
use crate::clickhouse::encode::{Width, put_enum_name, put_fixed_string, put_length, put_uuid};
use crate::clickhouse::table::ranges::{OutOfRange, TimeZone};
use crate::clickhouse::table::types::{EnumValue, Type};

impl Scratch {
    /// The content of a string, valid until the next call.
    #[inline]
    pub(super) fn text_of<'t>(&'t mut self, raw: &Raw<'t>) -> Result<&'t [u8]> {
        if !raw.has_escapes {
            return Ok(raw.bytes);
        }
        self.text.clear();
        unescape(raw, &mut self.text)?;
        Ok(&self.text)
    }
}

impl Values<'_> {
    /// Appends a string as `ty`.
    pub(super) fn put_raw(&mut self, raw: &Raw<'_>, ty: &Type, out: &mut Vec<u8>) -> Result<()> {
        let accepts_numbers = self.accepts_number_as_text();
        self.put_text(raw, ty, accepts_numbers, out)
    }

    /// Appends a key of a `Map`, in which every number is a text.
    pub(super) fn put_key(&mut self, raw: &Raw<'_>, ty: &Type, out: &mut Vec<u8>) -> Result<()> {
        self.put_text(raw, ty, true, out)
    }

    fn put_text(&mut self, raw: &Raw<'_>, ty: &Type, accepts_numbers: bool, out: &mut Vec<u8>) -> Result<()> {
        if !raw.has_escapes {
            return self.put_plain(raw.bytes, raw.at, ty, accepts_numbers, out);
        }
        // The scratch lends its text, so that `self` can be used with it.
        let mut text = std::mem::take(&mut self.scratch.text);
        text.clear();
        let result =
            unescape(raw, &mut text).and_then(|()| self.put_plain(&text, raw.at, ty, accepts_numbers, out));
        self.scratch.text = text;
        result
    }

    fn put_plain(
        &mut self,
        text: &[u8],
        at: usize,
        ty: &Type,
        accepts_numbers: bool,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let wrong = || unreadable(at, ty);
        match ty {
            Type::String => {
                put_length(out, text.len());
                out.extend_from_slice(text);
            }
            Type::FixedString(size) => {
                put_fixed_string(out, *size, text).map_err(|error| Fault::new(at, error.to_string()))?;
            }
            Type::Enum8(values) => put_name(out, values, text, at, Width::Enum8)?,
            Type::Enum16(values) => put_name(out, values, text, at, Width::Enum16)?,
            Type::Uuid => put_uuid(out, &uuid(text).ok_or_else(wrong)?),
            Type::IPv4 => {
                let address: Ipv4Addr = parsed(text).ok_or_else(wrong)?;
                out.extend_from_slice(&u32::from(address).to_le_bytes());
            }
            Type::IPv6 => {
                let mapped = || parsed(text).map(|address: Ipv4Addr| address.to_ipv6_mapped());
                let address: Ipv6Addr = parsed(text).or_else(mapped).ok_or_else(wrong)?;
                out.extend_from_slice(&address.octets());
            }
            Type::Date | Type::Date32(_) => self.put_date(text, at, ty, accepts_numbers, out)?,
            Type::DateTime(zone) => self.put_date_time(text, at, ty, &zone.0, accepts_numbers, out)?,
            Type::DateTime64(range) => {
                self.put_date_time(text, at, ty, range.zone(), accepts_numbers, out)?;
            }
            Type::Time(_) | Type::Time64(_) => self.put_time(text, at, ty, accepts_numbers, out)?,
            Type::Bool if accepts_numbers && matches!(text, b"true" | b"1") => out.push(1),
            Type::Bool if accepts_numbers && matches!(text, b"false" | b"0") => out.push(0),
            Type::Float32 if accepts_numbers && special_float(text).is_some() => {
                out.extend_from_slice(&(special_float(text).unwrap_or_default() as f32).to_le_bytes());
            }
            Type::Float64 if accepts_numbers && special_float(text).is_some() => {
                out.extend_from_slice(&special_float(text).unwrap_or_default().to_le_bytes());
            }
            Type::BFloat16 if accepts_numbers && special_float(text).is_some() => {
                let value = special_float(text).unwrap_or_default() as f32;
                out.extend_from_slice(&bfloat16(value));
            }
            _ => self.put_quoted_number(text, at, ty, accepts_numbers, out)?,
        }
        Ok(())
    }

    fn put_quoted_number(
        &mut self,
        text: &[u8],
        at: usize,
        ty: &Type,
        accepts_numbers: bool,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let holds_numbers = !matches!(
            ty,
            Type::Json | Type::Array(_) | Type::Tuple(_) | Type::Map(_) | Type::Variant(_) | Type::Bool
        );
        if !accepts_numbers || !holds_numbers {
            return Err(mismatch(at, Found::String, ty));
        }
        let number = Number::of_text(text).ok_or_else(|| unreadable(at, ty))?;
        self.put_number(&number, at, ty, out)
    }

    fn put_date(
        &mut self,
        text: &[u8],
        at: usize,
        ty: &Type,
        accepts_numbers: bool,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(days) = time::date(text) else {
            return self.put_quoted_number(text, at, ty, accepts_numbers, out);
        };
        match ty {
            Type::Date32(range) => {
                out.extend_from_slice(&fitted(range, i128::from(days), at, ty)?.to_le_bytes());
            }
            _ => {
                let fits = u16::try_from(days).ok();
                let saturates = self.rules.out_of_range == OutOfRange::Saturate;
                let nearest = saturates.then_some(if days < 0 { 0 } else { u16::MAX });
                let days = fits.or(nearest).ok_or_else(|| out_of_range(at, "1970-01-01 to 2149-06-06"))?;
                out.extend_from_slice(&days.to_le_bytes());
            }
        }
        Ok(())
    }

    fn put_date_time(
        &mut self,
        text: &[u8],
        at: usize,
        ty: &Type,
        zone: &TimeZone,
        accepts_numbers: bool,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(time) = time::DateTime::read(text) else {
            return self.put_quoted_number(text, at, ty, accepts_numbers, out);
        };
        if time.offset.is_none() && !self.rules.allows_local(zone) {
            return Err(Fault::new(
                at,
                "a time without an offset, and the zone of the column is not UTC: add an offset or Z, or set .local_times()",
            ));
        }
        match ty {
            Type::DateTime64(range) => {
                let ticks = time.ticks(range.scale());
                out.extend_from_slice(&fitted(range, ticks, at, ty)?.to_le_bytes());
            }
            _ => {
                let seconds = self.within(time.ticks(0), at, ty, 0, i128::from(u32::MAX))?;
                out.extend_from_slice(&(seconds as u32).to_le_bytes()); // in its range by now
            }
        }
        Ok(())
    }

    fn put_time(
        &mut self,
        text: &[u8],
        at: usize,
        ty: &Type,
        accepts_numbers: bool,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(ticks) = time::time_of_day(text, ty.scale().unwrap_or(0)) else {
            return self.put_quoted_number(text, at, ty, accepts_numbers, out);
        };
        match ty {
            Type::Time(range) => out.extend_from_slice(&fitted(range, ticks, at, ty)?.to_le_bytes()),
            Type::Time64(range) => out.extend_from_slice(&fitted(range, ticks, at, ty)?.to_le_bytes()),
            _ => return Err(unreadable(at, ty)),
        }
        Ok(())
    }
}

fn put_name(out: &mut Vec<u8>, values: &[EnumValue], text: &[u8], at: usize, width: Width) -> Result<()> {
    let name = std::str::from_utf8(text).unwrap_or_default();
    put_enum_name(out, values, name, width).map_err(|error| Fault::new(at, error.to_string()))
}

/// The floats that are no JSON numbers, as the server spells them.
fn special_float(text: &[u8]) -> Option<f64> {
    match text {
        b"nan" => Some(f64::NAN),
        b"inf" => Some(f64::INFINITY),
        b"-inf" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn parsed<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A UUID of 32 hexadecimal digits, with hyphens at their usual places or without any.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let has_hyphens = match text.len() {
        36 => [8, 13, 18, 23].iter().all(|at| text[*at] == b'-'),
        32 => false,
        _ => return None,
    };
    let mut digits = text.iter().enumerate().filter(|(at, _)| !has_hyphens || ![8, 13, 18, 23].contains(at));
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        let mut digit = || char::from(*digits.next()?.1).to_digit(16);
        *byte = (digit()? << 4 | digit()?) as u8; // two hexadecimal digits
    }
    digits.next().is_none().then_some(bytes)
}

#[cold]
fn unreadable(at: usize, ty: &Type) -> Fault {
    Fault::new(at, format!("the text is not {}", name(ty))).found_kind(Found::String)
}
