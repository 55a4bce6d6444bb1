//! A schema of Protobuf, compiled.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, DynamicMessage, FileDescriptor, MessageDescriptor};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::json::JsonWriter;
use super::known_files::KnownFiles;
use super::{PROTOBUF, index};
use crate::binary::Binary;
use crate::error::DecodeError;
use crate::registry::RegisteredSchema;

/// The name of the schema itself. Imports have other names.
const ROOT: &str = "kmr-schema.proto";

/// The messages of one file, with all that it imports.
#[derive(Debug)]
pub(crate) struct ProtobufFile(FileDescriptor);

/// The files of a registry by the names of their imports.
struct Files(HashMap<String, String>);

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl ProtobufFile {
    /// Compiles a schema and its references.
    ///
    /// # Errors
    /// The reason, as a text.
    pub(crate) fn compile(schema: &RegisteredSchema) -> Result<Self, String> {
        let references =
            schema.references().map(|reference| (reference.name.clone(), reference.text.clone()));
        let files = references.chain([(ROOT.to_owned(), schema.text().to_owned())]).collect();
        let mut resolver = ChainFileResolver::new();
        resolver.add(Files(files));
        resolver.add(KnownFiles);
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.open_file(ROOT).map_err(|error| error.to_string())?;
        let pool: DescriptorPool = compiler.descriptor_pool();
        pool.get_file_by_name(ROOT).map(Self).ok_or_else(|| "the file has no descriptor".to_owned())
    }

    /// A message with the numbers before it as JSON. `base`: where `body` starts in its record.
    pub(super) fn to_json(&self, binary: Binary, body: &[u8], base: usize) -> Result<Vec<u8>, DecodeError> {
        let (numbers, message, at) = index::split(body, base)?;
        let descriptor = self.message(&numbers).ok_or_else(|| {
            DecodeError::new(PROTOBUF, format!("the schema has no message with the numbers {numbers:?}"))
                .at(base)
        })?;
        let name = descriptor.full_name().to_owned();
        let message = DynamicMessage::decode(descriptor, message)
            .map_err(|error| DecodeError::new(PROTOBUF, format!("no message of {name}: {error}")).at(at))?;
        let mut out = Vec::with_capacity(body.len() * 3 + 64);
        let written = JsonWriter::new(binary, &mut out).message(&message);
        match written {
            Ok(()) => Ok(out),
            Err(problem) => {
                let problem = format!("a message of {name} has no JSON: {problem}");
                Err(DecodeError::new(PROTOBUF, problem).at(at))
            }
        }
    }

    fn message(&self, numbers: &[usize]) -> Option<MessageDescriptor> {
        let (first, rest) = numbers.split_first()?;
        let first = self.0.messages().nth(*first)?;
        rest.iter().try_fold(first, |message, number| message.child_messages().nth(*number))
    }
}
