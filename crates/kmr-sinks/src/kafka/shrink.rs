//! How a dead letter that is too large for its topic becomes smaller: the texts of its failure are
//! shortened, then it loses its payload, then also the record's key and headers.

use std::sync::OnceLock;

use kmr_core::OwnedHeader;

use super::added_headers::LargeDeadLetter;
use super::message::KafkaMessage;

/// Size of a text of the failure in a shortened dead letter.
const SHORT_BYTES: usize = 128;
/// The added headers that are texts of the failure. The others are the record's position and what a
/// reader of the topic depends on.
const TEXTS: [&str; 3] = ["stage", "error", "missing"];
/// Ways to make a message smaller, each smaller than the one before.
const STEPS: usize = 3;

/// A message, and the smaller ones that replaced it.
pub(super) struct Shrinking {
    full: KafkaMessage,
    smaller: [OnceLock<Box<KafkaMessage>>; STEPS],
}

impl From<KafkaMessage> for Shrinking {
    fn from(full: KafkaMessage) -> Self {
        Self { full, smaller: Default::default() }
    }
}

impl Shrinking {
    /// The message to send now.
    pub(super) fn message(&self) -> &KafkaMessage {
        self.smaller.iter().rev().find_map(|smaller| smaller.get()).map_or(&self.full, |smaller| smaller)
    }

    /// Replaces the message by a smaller one. Returns whether there is one.
    pub(super) fn shrink(&self) -> bool {
        let bytes = self.message().bytes();
        for (step, place) in self.smaller.iter().enumerate() {
            if place.get().is_some() {
                continue;
            }
            let Some(smaller) = self.full.smaller(step) else { return false };
            let is_smaller = smaller.bytes() < bytes;
            let _ = place.set(Box::new(smaller));
            if is_smaller {
                return true;
            }
        }
        false
    }
}

impl KafkaMessage {
    /// The message made smaller by `step`. `None` for a message that is no dead letter, and for one
    /// that has to keep its content.
    fn smaller(&self, step: usize) -> Option<Self> {
        let added = self.added.as_ref()?;
        if step > 0 && added.large == LargeDeadLetter::Stop {
            return None;
        }
        let mut message = self.clone();
        let is_text = |header: &OwnedHeader| {
            header.key.strip_prefix(&*added.prefix).is_some_and(|name| TEXTS.contains(&name))
        };
        message.headers[added.first..].iter_mut().filter(|header| is_text(header)).for_each(shorten);
        if step > 0 {
            let lost = match (self.bytes(), step) {
                (bytes, 1) => format!("the payload: with it, the dead letter has {bytes} bytes"),
                (bytes, _) => {
                    format!("payload, key and headers: with them, the dead letter has {bytes} bytes")
                }
            };
            let why = format!("too large for the dead letter topic without {lost}").into_bytes();
            message.payload = None;
            message.headers.push(OwnedHeader::new(format!("{}missing", added.prefix), Some(why)));
        }
        if step > 1 {
            message.key = None;
            message.headers.drain(..added.first);
        }
        Some(message)
    }
}

fn shorten(header: &mut OwnedHeader) {
    if let Some(value) = &mut header.value
        && value.len() > SHORT_BYTES
    {
        let end = (0..=SHORT_BYTES).rev().find(|at| value.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80));
        value.truncate(end.unwrap_or(0));
        value.extend_from_slice("…".as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::added_headers::AddedHeaders;
    use super::*;

    fn dead_letter(large: LargeDeadLetter) -> Shrinking {
        let mut message = KafkaMessage::new("p".repeat(1000))
            .with_key("k".repeat(300))
            .with_header("own", "v".repeat(500))
            .with_header("x.topic", "orders")
            .with_header("x.error", "ü".repeat(2000));
        message.added = Some(Box::new(AddedHeaders { first: 1, prefix: "x.".into(), large }));
        message.into()
    }

    fn header<'m>(message: &'m KafkaMessage, name: &str) -> Option<&'m str> {
        let header = message.headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value.as_deref()?).ok()
    }

    #[test]
    fn headers_are_shortened_first_then_the_content_is_left_out() {
        let shrinking = dead_letter(LargeDeadLetter::WithoutContent);
        assert!(shrinking.shrink());
        let message = shrinking.message();
        let error = header(message, "x.error").unwrap();
        assert!(error.ends_with("ü…") && error.len() <= SHORT_BYTES + 3, "{}", error.len());
        assert_eq!(
            (message.payload.as_ref().map(Vec::len), header(message, "x.missing")),
            (Some(1000), None)
        );
        assert!(shrinking.shrink());
        let message = shrinking.message();
        assert_eq!((message.payload.as_ref(), message.key.as_ref().map(Vec::len)), (None, Some(300)));
        assert!(header(message, "x.missing").is_some_and(|why| why.contains("without the payload")));
        assert!(shrinking.shrink());
        let message = shrinking.message();
        assert_eq!((message.key.as_ref(), header(message, "own")), (None, None));
        assert_eq!(header(message, "x.topic"), Some("orders"));
        assert!(!shrinking.shrink());
    }

    #[test]
    fn only_the_texts_of_the_failure_are_shortened() {
        let (topic, target) = ("t".repeat(200), format!("cluster/{}", "d".repeat(200)));
        let mut message = KafkaMessage::new("p".repeat(1000))
            .with_header("x.topic", topic.clone())
            .with_header("x.written_to", target.clone())
            .with_header("x.stage", "map ".repeat(100))
            .with_header("x.missing", "expired ".repeat(100))
            .with_header("x.error", "e".repeat(2000));
        let large = LargeDeadLetter::WithoutContent;
        message.added = Some(Box::new(AddedHeaders { first: 0, prefix: "x.".into(), large }));
        let shrinking = Shrinking::from(message);
        while shrinking.shrink() {
            let message = shrinking.message();
            assert_eq!(header(message, "x.topic"), Some(&*topic));
            assert_eq!(header(message, "x.written_to"), Some(&*target));
            for text in ["x.stage", "x.missing", "x.error"] {
                assert!(header(message, text).is_some_and(|text| text.len() <= SHORT_BYTES + 3), "{text}");
            }
        }
        assert_eq!(shrinking.message().payload, None);
    }

    #[test]
    fn a_dead_letter_that_has_to_keep_its_content_loses_texts_only() {
        let shrinking = dead_letter(LargeDeadLetter::Stop);
        assert!(shrinking.shrink() && !shrinking.shrink());
        assert_eq!(shrinking.message().payload.as_ref().map(Vec::len), Some(1000));
    }

    #[test]
    fn other_messages_stay() {
        assert!(!Shrinking::from(KafkaMessage::new("x").with_header("a", "b".repeat(999))).shrink());
    }
}
