//! The W3C trace context of a record: the headers `traceparent` and `tracestate`.
//!
//! <https://www.w3.org/TR/trace-context/>: a receiver that cannot read `traceparent` ignores both
//! headers, and one that cannot read `tracestate` ignores that one.

use std::fmt;

use crate::record::{OwnedHeader, OwnedRecord, Record};

/// The header with the ids.
const TRACEPARENT: &str = "traceparent";
/// The header with what vendors add.
const TRACESTATE: &str = "tracestate";
/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Longest `tracestate` that is passed on. Every receiver has to accept as much.
const LONGEST_STATE: usize = 512;

/// The W3C trace context of a record: which trace it belongs to, and the span that produced it.
///
/// [`Record::trace_context`] reads it. Its `Display` is a `traceparent` of version 00.
///
/// # Examples
/// ```
/// use kmr_core::TraceContext;
///
/// let context = TraceContext::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
/// assert_eq!(context.trace_id(), 0x4bf92f3577b34da6a3ce929d0e0e4736);
/// assert!(context.is_sampled());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
    state: Option<String>,
}

impl TraceContext {
    /// Reads the value of a header `traceparent`. `None`: it is not one. The digits have to be in
    /// lower case, and neither id may be 0. A later version may have more after the flags.
    pub fn parse(traceparent: &[u8]) -> Option<Self> {
        let (known, more) = traceparent.split_at_checked(LENGTH)?;
        let version = u8::try_from(hex(known.get(..2)?)?).ok()?;
        let has_end = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.first().is_none_or(|next| *next == b'-'),
        };
        let has_dashes = [2, 35, 52].iter().all(|at| known.get(*at) == Some(&b'-'));
        let trace_id = hex(known.get(3..35)?)?;
        let span_id = u64::try_from(hex(known.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(known.get(53..55)?)?).ok()?;
        let is_valid = has_end && has_dashes && trace_id != 0 && span_id != 0;
        is_valid.then_some(Self { trace_id, span_id, flags, state: None })
    }

    /// Adds the value of `tracestate`. A value that is too long, or not printable ASCII, is
    /// ignored.
    #[must_use]
    pub fn with_state(mut self, tracestate: &str) -> Self {
        let is_plain = tracestate.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        let is_valid = is_plain && !tracestate.trim().is_empty() && tracestate.len() <= LONGEST_STATE;
        self.state = is_valid.then(|| tracestate.to_owned());
        self
    }

    /// The id of the trace. Never 0.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The id of the span that produced the record. Never 0.
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// Whether the producer may have recorded its span.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// What vendors added: the value of `tracestate`.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The headers of a message that continues the trace.
    pub fn headers(&self) -> impl Iterator<Item = OwnedHeader> + use<> {
        let header = |key: &str, value: String| OwnedHeader::new(key, Some(value.into_bytes()));
        let state = self.state.clone().map(|state| header(TRACESTATE, state));
        std::iter::once(header(TRACEPARENT, self.to_string())).chain(state)
    }

    /// Whether a header belongs to a trace context.
    pub fn is_header(key: &str) -> bool {
        key == TRACEPARENT || key == TRACESTATE
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Digits in lower case.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

impl Record<'_> {
    /// The W3C trace context of the record's headers. `None`: it has no header `traceparent`, an
    /// invalid one, or several. Several headers `tracestate` are joined, as the standard requires.
    ///
    /// It reads all headers, which librdkafka parses at the first access.
    pub fn trace_context(&self) -> Option<TraceContext> {
        let (mut context, mut state) = (None, String::new());
        for header in self.headers().iter() {
            match (&*header.key, header.value) {
                (TRACEPARENT, _) if context.is_some() => return None,
                (TRACEPARENT, value) => context = Some(TraceContext::parse(value?)?),
                (TRACESTATE, Some(value)) => {
                    let separator = if state.is_empty() { "" } else { "," };
                    state += separator;
                    // A value that is no UTF-8 makes the whole state invalid.
                    state += std::str::from_utf8(value).unwrap_or("\n");
                }
                _ => {}
            }
        }
        let context = context?;
        Some(if state.is_empty() { context } else { context.with_state(&state) })
    }
}

impl OwnedRecord {
    /// The W3C trace context of the record's headers: see [`Record::trace_context`].
    pub fn trace_context(&self) -> Option<TraceContext> {
        self.as_record().trace_context()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn record(headers: &[(&str, Option<&[u8]>)]) -> OwnedRecord {
        headers.iter().fold(OwnedRecord::new("t", 0, 0), |record, (key, value)| {
            record.with_header(*key, value.map(<[u8]>::to_vec)) //
        })
    }

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = TraceContext::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(context.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((context.span_id(), context.is_sampled()), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(context.to_string(), PARENT);
        let later = format!("cc{}-more", PARENT.strip_prefix("00").unwrap());
        assert_eq!(
            TraceContext::parse(later.as_bytes()),
            Some(context),
            "a later version is version 00 here"
        );
    }

    #[test]
    fn what_the_standard_forbids_is_no_traceparent() {
        let zero = |from: usize, to: usize| {
            let mut text = PARENT.to_owned();
            text.replace_range(from..to, &"0".repeat(to - from));
            text
        };
        for wrong in [
            String::new(),
            PARENT[..54].to_owned(),
            format!("{PARENT}-"),
            format!("{PARENT}0"),
            PARENT.to_uppercase(),
            format!("ff{}", &PARENT[2..]),
            format!("01{}x", &PARENT[2..]),
            PARENT.replace('-', "_"),
            PARENT.replace("4b", "4g"),
            PARENT.replace("4b", "+b"),
            zero(3, 35),
            zero(36, 52),
            format!(" {}", &PARENT[1..]),
            PARENT.replace("4bf9", "4büx"),
        ] {
            assert_eq!(TraceContext::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn every_change_of_one_byte_is_rejected_or_read_back() {
        for at in 0..PARENT.len() {
            for byte in 0..=255 {
                let mut bytes = PARENT.as_bytes().to_vec();
                bytes[at] = byte;
                if let Some(context) = TraceContext::parse(&bytes) {
                    let known = if at < 2 { &PARENT.as_bytes()[2..] } else { &bytes[2..] };
                    assert_eq!(&context.to_string().as_bytes()[2..], known);
                }
            }
        }
    }

    #[test]
    fn a_record_has_the_context_of_its_headers() {
        let parent = (TRACEPARENT, Some(PARENT.as_bytes()));
        assert_eq!(record(&[("a", None)]).trace_context(), None);
        let plain = record(&[("a", None), parent]).trace_context().unwrap();
        assert_eq!((plain.to_string().as_str(), plain.state()), (PARENT, None));
        let state = |value: &'static [u8]| (TRACESTATE, Some(value));
        let joined = record(&[state(b"a=1"), parent, state(b"b=2")]).trace_context().unwrap();
        assert_eq!(joined.state(), Some("a=1,b=2"));
        let headers: Vec<_> = joined.headers().map(|header| header.key).collect();
        assert_eq!(headers, [TRACEPARENT, TRACESTATE]);
        for wrong in [&b"a\x1b[2J"[..], b"\xff", &[b'a'; 513]] {
            let context = record(&[parent, (TRACESTATE, Some(wrong))]).trace_context().unwrap();
            assert_eq!(context.state(), None, "only the state is ignored");
        }
        assert_eq!(record(&[parent, parent]).trace_context(), None, "it is not known which one counts");
        assert_eq!(record(&[(TRACEPARENT, None)]).trace_context(), None);
        assert_eq!(record(&[state(b"a=1")]).trace_context(), None);
    }
}
