//! Media types of a skill's files.
//!
//! **Invariant**: pure.
//! Left out on purpose: looking into files; types that neither models nor DCC work meet.

use crate::skills::document::{Document, ManifestError};
use crate::skills::yaml::Node;

pub const TEXT: &str = "text/plain";
pub const BINARY: &str = "application/octet-stream";

const TYPES: [(&str, &str); 34] = [
    ("txt", TEXT),
    ("md", "text/markdown"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("css", "text/css"),
    ("js", "text/javascript"),
    ("py", "text/x-python"),
    ("json", "application/json"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("toml", "application/toml"),
    ("xml", "application/xml"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("svg", "image/svg+xml"),
    ("bmp", "image/bmp"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("wav", "audio/wav"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("flac", "audio/flac"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("obj", "model/obj"),
    ("mtl", "model/mtl"),
    ("stl", "model/stl"),
    ("gltf", "model/gltf+json"),
    ("glb", "model/gltf-binary"),
];

/// The type that the ending of a file's name tells.
pub fn type_of(file: &str) -> Option<&'static str> {
    let (_, ending) = file.rsplit_once('.')?;
    TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(ending)).map(|(_, media_type)| *media_type)
}

/// `mime_type` (or `mimeType`) of an entry.
pub fn declared(document: &Document, node: &Node) -> Result<Option<String>, ManifestError> {
    Ok(match document.text(node, "mime-type")? {
        Some(given) => Some(given),
        None => document.text(node, "mimeType")?,
    })
}
