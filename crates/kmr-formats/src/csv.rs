//! Comma-separated lines, typed or as objects of JSON.

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};
use kmr_core::Record;
use serde::de::DeserializeOwned;

use crate::error::{DecodeError, without_value};
use crate::path::push_key;
use crate::text::{push_string, text};

const CSV: &str = "CSV";

/// Decodes records of comma-separated lines (RFC 4180). A record has any number of lines, and each
/// is a row. A record fails as a whole.
///
/// Every line has as many fields as there are columns. Quotes are doubled inside of a quoted field,
/// which may have line breaks.
///
/// # Examples
/// ```
/// use kmr_core::{OwnedRecord, Strategy};
/// use kmr_formats::Csv;
/// use kmr_sinks::clickhouse::JsonRow;
///
/// let strategy = Strategy::new().flat_map(Csv::with_columns(["id", "name"]).rows::<JsonRow>());
///
/// let record = OwnedRecord::new("readings", 0, 7).with_payload("5,a\n6,\n");
/// let objects = Csv::with_columns(["id", "name"]).rows::<Vec<u8>>()(&record.as_record())?;
/// assert_eq!(objects, [&br#"{"id":"5","name":"a"}"#[..], br#"{"id":"6"}"#]);
/// # Ok::<(), kmr_formats::DecodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Csv {
    /// `None`: the first line of each record names them.
    columns: Option<Vec<String>>,
    delimiter: u8,
}

impl Csv {
    /// Records without a header: the names of their columns.
    pub fn with_columns(columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { columns: Some(columns.into_iter().map(Into::into).collect()), delimiter: b',' }
    }

    /// Records whose first line is a header.
    pub fn with_header() -> Self {
        Self { columns: None, delimiter: b',' }
    }

    /// The byte between two fields, such as `b'\t'` or `b';'`. Default `b','`.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// A `flat_map` stage: an object of JSON for each line. All values are strings, which become
    /// what the column needs. A field without content is left out, so that its column gets what it
    /// gets for a missing field.
    pub fn rows<R: From<Vec<u8>> + Send + 'static>(
        self,
    ) -> impl Fn(&Record<'_>) -> Result<Vec<R>, DecodeError> + Clone + Send + Sync + 'static + use<R> {
        move |record: &Record<'_>| {
            let payload = record.payload().ok_or_else(|| DecodeError::tombstone(CSV))?;
            self.each(payload, |header, line| Ok(object(header, line).into()))
        }
    }

    /// A `flat_map` stage: a value for each line. The fields of `T` are found by the names of the
    /// columns. An empty field is `None` for an `Option`.
    pub fn typed<T: DeserializeOwned + Send + 'static>(
        self,
    ) -> impl Fn(&Record<'_>) -> Result<Vec<T>, DecodeError> + Clone + Send + Sync + 'static + use<T> {
        move |record: &Record<'_>| {
            let payload = record.payload().ok_or_else(|| DecodeError::tombstone(CSV))?;
            self.each(payload, |header, line| {
                line.deserialize(Some(header)).map_err(|error| broken(&error, Some(header), 0))
            })
        }
    }

    /// Calls `decode` with the header and each line.
    fn each<T>(
        &self,
        payload: &[u8],
        mut decode: impl FnMut(&StringRecord, &StringRecord) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let text = text(CSV, payload)?;
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            // The number of fields is compared with that of the columns.
            .flexible(true)
            .delimiter(self.delimiter)
            .from_reader(text.as_bytes());
        let mut line = StringRecord::new();
        let header = match &self.columns {
            Some(columns) => columns.iter().collect(),
            None => {
                read(&mut reader, &mut line)?;
                std::mem::take(&mut line)
            }
        };
        check_header(&header)?;
        let mut values = Vec::new();
        while read(&mut reader, &mut line)? {
            if line.len() != header.len() {
                let problem = format!("{} fields, but {} columns", line.len(), header.len());
                return Err(at_line(DecodeError::new(CSV, problem), &line));
            }
            values.push(decode(&header, &line)?);
        }
        Ok(values)
    }
}

fn check_header(header: &StringRecord) -> Result<(), DecodeError> {
    let mut names: Vec<&str> = header.iter().collect();
    names.sort_unstable();
    let twice = names.windows(2).find_map(|pair| match pair {
        [one, next] if one == next => Some(*one),
        _ => None,
    });
    match twice {
        Some(name) => {
            let mut error = DecodeError::new(CSV, "two columns have this name").at(0);
            push_key(&mut error.path, name);
            Err(error)
        }
        None => Ok(()),
    }
}

fn read(reader: &mut Reader<&[u8]>, line: &mut StringRecord) -> Result<bool, DecodeError> {
    let at = usize::try_from(reader.position().byte()).unwrap_or(usize::MAX);
    reader.read_record(line).map_err(|error| broken(&error, None, at))
}

/// The error of a line. `at`: the offset, if the error has none.
fn broken(error: &csv::Error, header: Option<&StringRecord>, at: usize) -> DecodeError {
    let byte = |position: &csv::Position| usize::try_from(position.byte()).unwrap_or(usize::MAX);
    match error.kind() {
        ErrorKind::Deserialize { pos, err } => {
            let problem = without_value(&err.kind().to_string());
            let at = pos.as_ref().map_or(at, byte);
            let line = pos.as_ref().map_or(0, csv::Position::line);
            let mut decode = DecodeError::new(CSV, format!("line {line}: {problem}")).at(at);
            let field = err.field().and_then(|field| usize::try_from(field).ok());
            if let Some(name) = field.and_then(|field| header?.get(field)) {
                push_key(&mut decode.path, name);
            }
            decode
        }
        _ => DecodeError::new(CSV, without_value(&error.to_string())).at(error.position().map_or(at, byte)),
    }
}

fn at_line(mut error: DecodeError, line: &StringRecord) -> DecodeError {
    if let Some(position) = line.position() {
        error.problem = format!("line {}: {}", position.line(), error.problem);
        error.offset = usize::try_from(position.byte()).ok();
    }
    error
}

fn object(header: &StringRecord, line: &StringRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.as_slice().len() + header.as_slice().len() + 6 * header.len());
    out.push(b'{');
    for (name, value) in header.iter().zip(line).filter(|(_, value)| !value.is_empty()) {
        if out.len() > 1 {
            out.push(b',');
        }
        push_string(&mut out, name);
        out.push(b':');
        push_string(&mut out, value);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use kmr_core::OwnedRecord;
    use serde::Deserialize;

    use super::*;

    fn rows(csv: Csv, payload: impl Into<Vec<u8>>) -> Result<Vec<String>, String> {
        let record = OwnedRecord::new("t", 0, 0).with_payload(payload);
        let rows = csv.rows::<Vec<u8>>()(&record.as_record()).map_err(|error| error.to_string())?;
        Ok(rows.into_iter().map(|row| String::from_utf8(row).unwrap()).collect())
    }

    #[test]
    fn each_line_is_an_object_and_empty_fields_are_left_out() {
        let lines = "5,\"a \"\"b\"\", c\nd\"\r\n6,\r\n,\n";
        let objects = [r#"{"id":"5","name":"a \"b\", c\u000ad"}"#, r#"{"id":"6"}"#, "{}"];
        assert_eq!(rows(Csv::with_columns(["id", "name"]), lines).unwrap(), objects);
        assert_eq!(rows(Csv::with_header(), format!("id,name\n{lines}")).unwrap(), objects);
        assert_eq!(rows(Csv::with_header(), "id\n").unwrap(), [""; 0]);
        assert_eq!(
            rows(Csv::with_header().delimiter(b'\t'), "a\tb\n1\t2").unwrap(),
            [r#"{"a":"1","b":"2"}"#]
        );
    }

    #[test]
    fn lines_are_decoded_into_a_type() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Reading {
            id: u64,
            name: Option<String>,
        }
        let record = OwnedRecord::new("t", 0, 0).with_payload("name,id\n,5\nb,6\n");
        let typed = Csv::with_header().typed::<Reading>();
        assert_eq!(
            typed(&record.as_record()).unwrap(),
            [Reading { id: 5, name: None }, Reading { id: 6, name: Some("b".to_owned()) }]
        );
        let record = OwnedRecord::new("t", 0, 0).with_payload("name,id\na,5\nb,s3cret\n");
        let error = typed(&record.as_record()).unwrap_err().to_string();
        assert!(
            error.starts_with("CSV, path $.id, byte 12: line 3: ") && !error.contains("s3cret"),
            "{error}"
        );
    }

    #[test]
    fn bad_input_names_its_place() {
        for (payload, expected) in [
            (Vec::new(), "CSV, byte 0: the record is empty"),
            (b"\xef\xbb\xbfid\n1".to_vec(), "CSV, byte 0: the text starts with a BOM"),
            (b"1,2\n3,\xff".to_vec(), "CSV, byte 6: the text is not valid UTF-8"),
            (b"\x00\x00\x00\x00\x07a,b".to_vec(), "CSV, byte 0: the text starts with the byte 0"),
            (b"1,2\n3\n".to_vec(), "CSV, byte 4: line 2: 1 fields, but 2 columns"),
            (b"1,2,3\n".to_vec(), "CSV, byte 0: line 1: 3 fields, but 2 columns"),
            (b"1,\"2\n3,4\n".to_vec(), ""),
        ] {
            let result = rows(Csv::with_columns(["a", "b"]), payload);
            match expected {
                // A quote that is not closed: the field goes to the end, as the csv crate reads it.
                "" => assert_eq!(result.unwrap(), ["{\"a\":\"1\",\"b\":\"2\\u000a3,4\\u000a\"}"]),
                _ => assert!(result.clone().unwrap_err().starts_with(expected), "{expected}: {result:?}"),
            }
        }
        let error = rows(Csv::with_header(), "a,b,a\n1,2,3\n").unwrap_err();
        assert_eq!(error, "CSV, path $.a, byte 0: two columns have this name");
    }

    #[test]
    fn a_field_of_a_megabyte_is_read() {
        let payload = format!("{},2", "1".repeat(1 << 20));
        assert_eq!(
            rows(Csv::with_columns(["a", "b"]), payload).unwrap()[0].len(),
            (1 << 20) + "{'a':'','b':'2'}".len()
        );
    }
}
