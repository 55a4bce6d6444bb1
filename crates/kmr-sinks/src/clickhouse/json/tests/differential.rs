//! The scanner against serde_json: mutated documents are accepted or rejected by both, with the
//! same values.

use serde_json::Value;

use super::*;
use crate::clickhouse::json::Duplicates;

const DOCUMENTS: &[&str] = &[
    r#"{"i":-12,"u":18446744073709551615,"f":3.25e-7,"s":"a\u00e4\n\"x\"","l":[1,22,333],"t":{"k":"v","m":"w"},"x":[{},[null,true]]}"#,
    r#"{ "s" : "\ud83d\ude00" , "f" : 0.1 , "i" : 0 , "u" : 1e3 , "l" : [ ] , "y" : false }"#,
    r#"{"t":{"a":"b"},"z":{"i":1,"q":"\\"},"i":7,"f":-0.0,"u":0,"s":""}"#,
];

const COLUMNS: [(&str, &str); 6] = [
    ("i", "Nullable(Int64)"),
    ("u", "Nullable(UInt64)"),
    ("f", "Nullable(Float64)"),
    ("s", "Nullable(String)"),
    ("l", "Array(UInt16)"),
    ("t", "Map(String, String)"),
];

/// Changes a few bytes.
fn mutated(random: &mut fastrand::Rng) -> Vec<u8> {
    const BYTES: &[u8] = b"{}[]:,\"\\ue0.19-+nt \n\x01\xc3";
    let mut text = DOCUMENTS[random.usize(..DOCUMENTS.len())].as_bytes().to_vec();
    for _ in 0..random.usize(..4) {
        let at = random.usize(..text.len());
        let byte = BYTES[random.usize(..BYTES.len())];
        match random.u8(..4) {
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            2 => drop(text.remove(at)),
            _ => {
                let end = random.usize(at..text.len().min(at + 12) + 1);
                let copy = text[at..end].to_vec();
                text.splice(at..at, copy);
            }
        }
    }
    text
}

/// The row that serde_json's values lead to. `None`: a value does not fit.
fn expected(object: &serde_json::Map<String, Value>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut nullable = |value: Option<&Value>, bytes: fn(&Value) -> Option<Vec<u8>>| {
        match value {
            None | Some(Value::Null) => out.push(1),
            Some(value) => {
                out.push(0);
                out.extend(bytes(value)?);
            }
        }
        Some(())
    };
    nullable(object.get("i"), |value| Some(value.as_i64()?.to_le_bytes().to_vec()))?;
    nullable(object.get("u"), |value| Some(value.as_u64()?.to_le_bytes().to_vec()))?;
    nullable(object.get("f"), |value| Some(value.as_f64()?.to_le_bytes().to_vec()))?;
    nullable(object.get("s"), |value| Some(text(value.as_str()?)))?;
    let list = object.get("l").map_or(Some(&[][..]), |list| list.as_array().map(Vec::as_slice))?;
    out.push(list.len() as u8);
    for element in list {
        out.extend(u16::try_from(element.as_u64()?).ok()?.to_le_bytes());
    }
    let empty = serde_json::Map::new();
    let map = object.get("t").map_or(Some(&empty), Value::as_object)?;
    out.push(map.len() as u8);
    for (key, value) in map {
        out.extend(text(key));
        out.extend(text(value.as_str()?));
    }
    Some(out)
}

fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

/// Whether serde_json's default reads a float of the text one unit beside the nearest one, or the
/// order of a map's keys differs: both are no faults of the scanner.
fn is_close(ours: &[u8], theirs: &[u8]) -> bool {
    let differing = ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
    ours.len() == theirs.len() && differing <= 1
}

/// Whether the object has a key twice.
fn has_repeated_key(document: &[u8]) -> bool {
    struct Keys(bool);
    impl<'de> serde::Deserialize<'de> for Keys {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Keys;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                    let (mut seen, mut is_repeated) = (std::collections::BTreeSet::new(), false);
                    while let Some((key, serde::de::IgnoredAny)) = map.next_entry::<String, _>()? {
                        is_repeated |= !seen.insert(key);
                    }
                    Ok(Keys(is_repeated))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    serde_json::from_slice::<Keys>(document).is_ok_and(|keys| keys.0)
}

#[test]
fn mutated_documents_are_read_as_by_serde_json() {
    let mut random = fastrand::Rng::with_seed(15);
    let options = JsonOptions::new().duplicates(Duplicates::Last);
    let mut decoder = Decoder::new(&COLUMNS, &options);
    let (mut accepted, mut rejected, mut lenient, mut close) = (0, 0, 0, 0);
    for _ in 0..100_000 {
        let document = mutated(&mut random);
        let ours = decoder.row(&document);
        let shown = String::from_utf8_lossy(&document);
        let theirs = serde_json::from_slice::<Value>(&document);
        let Ok(Value::Object(object)) = theirs else {
            // serde_json's Value rejects numbers that exceed an f64 and lone surrogates anywhere;
            // the scanner only where a column has the value.
            let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&document).is_ok();
            assert!(is_json && !document.starts_with(b"[") || ours.is_err(), "{shown}");
            rejected += 1;
            continue;
        };
        match (ours, expected(&object)) {
            (Ok(ours), Some(theirs)) if ours == theirs => accepted += 1,
            (Ok(ours), Some(theirs)) if is_close(&ours, &theirs) => close += 1,
            // Values that the scanner accepts by a policy or exactly, such as 1e3 in an integer, a
            // number in a String and repeated keys of a map.
            (Ok(_), _) => lenient += 1,
            // All of the repeated values must fit, and serde_json keeps the last.
            (Err(error), Some(_)) => assert!(has_repeated_key(&document), "{shown}: {error}"),
            (Err(_), None) => rejected += 1,
        }
    }
    assert!(accepted > 20_000 && rejected > 30_000, "{accepted} {rejected} {lenient} {close}");
    assert!(close < 1_000 && lenient < 30_000, "{accepted} {rejected} {lenient} {close}");
}
