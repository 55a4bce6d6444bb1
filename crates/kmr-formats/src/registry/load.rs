//! Fetches a schema with all that it refers to.

use std::collections::HashSet;

use super::RegistryError;
use super::client::{Client, Reply};
use super::reply::{ReferenceReply, SchemaReply};
use super::schema::{RegisteredSchema, SchemaReference, SchemaType};

/// References of one schema, direct and indirect. Real ones have a few dozen.
pub(super) const MOST_REFERENCES: usize = 1_000;

/// A schema whose references are being fetched.
struct Open {
    reference: SchemaReference,
    left: std::vec::IntoIter<ReferenceReply>,
}

impl Open {
    fn new(reference: ReferenceReply, reply: SchemaReply) -> Self {
        let ReferenceReply { name, subject, version } = reference;
        Self {
            reference: SchemaReference { name, subject, version, text: reply.schema },
            left: reply.references.unwrap_or_default().into_iter(),
        }
    }

    fn is(&self, reference: &ReferenceReply) -> bool {
        self.reference.subject == reference.subject && self.reference.version == reference.version
    }
}

/// The schema of this id.
pub(super) async fn load(client: &Client, id: u32) -> Result<RegisteredSchema, RegistryError> {
    let reply = match client.get(&format!("/schemas/ids/{id}")).await? {
        Reply::Schema(reply) => reply,
        Reply::NotFound { url } => return Err(RegistryError::UnknownSchema { id, url }),
    };
    let schema_type = SchemaType::of(reply.schema_type.as_deref());
    let root = ReferenceReply { name: String::new(), subject: String::new(), version: 0 };
    let mut open = vec![Open::new(root, reply)];
    let mut done: Vec<SchemaReference> = Vec::new();
    // Schemas use each other by name, and the registry resolves each name once: the first reference
    // in this order counts, whatever version later ones have.
    let mut names: HashSet<String> = HashSet::new();
    // The deepest schema first: each is done after those that it uses.
    while let Some(current) = open.last_mut() {
        let Some(reference) = current.left.next() else {
            done.extend(open.pop().map(|open| open.reference));
            continue;
        };
        if let Some(start) = open.iter().position(|open| open.is(&reference)) {
            let cycle =
                open.iter().skip(start).map(|open| (open.reference.subject.as_str(), open.reference.version));
            let cycle = cycle.chain([(reference.subject.as_str(), reference.version)]);
            let cycle: Vec<_> = cycle.map(|(subject, version)| format!("{subject}/{version}")).collect();
            return Err(RegistryError::CyclicReference { id, cycle: cycle.join(", ") });
        }
        if !names.insert(reference.name.clone()) {
            continue;
        }
        if open.len() + done.len() > MOST_REFERENCES {
            return Err(RegistryError::TooManyReferences { id, limit: MOST_REFERENCES });
        }
        let ReferenceReply { subject, version, .. } = &reference;
        // A version that was deleted softly is still in use by the schemas that refer to it.
        let path = format!("/subjects/{}/versions/{version}?deleted=true", encoded(subject));
        match client.get(&path).await? {
            Reply::Schema(reply) => open.push(Open::new(reference, reply)),
            Reply::NotFound { .. } => {
                let ReferenceReply { subject, version, .. } = reference;
                return Err(RegistryError::UnknownReference { id, subject, version });
            }
        }
    }
    // The schema itself was done last.
    let text = done.pop().map(|root| root.text).unwrap_or_default();
    Ok(RegisteredSchema::new(schema_type, text, done))
}

/// A subject as a part of a path.
fn encoded(subject: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    subject.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_encoded() {
        assert_eq!(encoded("a/b c-value.~ü"), "a%2Fb%20c-value.~%C3%BC");
    }
}
