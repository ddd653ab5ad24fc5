//! `icons` of a tool, prompt, resource or template → what lists show of them.
//!
//! **Invariant**: what leaves this file is an icon that a client may show: MCP has clients reject every URI that is not
//! `https:` or `data:` (basic, icons), so that an author hears of it here. An error names file and line.
//! **Bounds**: `ICONS_MAX`, `ICON_URI_BYTES_MAX`.
//! Left out on purpose: fetching what a URI leads to, and looking into images.

use crate::base64;
use crate::limits::{ICON_URI_BYTES_MAX, ICONS_MAX};
use crate::mcp::{Icon, Theme};
use crate::skills::document::{Document, ManifestError};
use crate::skills::media;
use crate::skills::yaml::Node;

/// The icons of an entry; none where it names none.
pub fn read_all(document: &Document, entry: &Node) -> Result<Vec<Icon>, ManifestError> {
    let Some(given) = document.find(entry, "icons") else { return Ok(Vec::new()) };
    let list = given.list().ok_or_else(|| document.wrong(given, "`icons` must be a list of icons"))?;
    if list.len() > ICONS_MAX {
        return Err(document.wrong(given, &format!("`icons` has more than {ICONS_MAX} icons")));
    }
    list.iter().map(|icon| read(document, icon)).collect()
}

fn read(document: &Document, node: &Node) -> Result<Icon, ManifestError> {
    document.expect_map(node, "an entry of `icons`")?;
    document.mention_unknown_keys(node, &["src", "mime-type", "mimeType", "sizes", "theme"]);
    let at = |key: &str, what: String| document.wrong(document.find(node, key).unwrap_or(node), &what);
    let src =
        document.text(node, "src")?.ok_or_else(|| document.wrong(node, "an icon has no `src`"))?.trim().to_owned();
    check_src(&src).map_err(|what| at("src", format!("`src` of an icon: {what}")))?;
    let mime_type = media::declared(document, node)?;
    if let Some(other) = mime_type.as_ref().filter(|mime_type| !is_image(mime_type)) {
        let key = if document.find(node, "mime-type").is_some() { "mime-type" } else { "mimeType" };
        return Err(at(key, format!("`mime_type` of an icon must be image/…, not {other:?}")));
    }
    let sizes = document.words(node, "sizes")?;
    if let Some(other) = sizes.iter().find(|size| !is_size(size)) {
        return Err(at("sizes", format!("`sizes` of an icon are such as 48x48, or `any`, not {other:?}")));
    }
    let theme = match document.text(node, "theme")?.as_deref() {
        None => None,
        Some("light") => Some(Theme::Light),
        Some("dark") => Some(Theme::Dark),
        Some(_) => return Err(at("theme", "`theme` of an icon must be light or dark".to_owned())),
    };
    Ok(Icon { src, mime_type, sizes, theme })
}

fn check_src(src: &str) -> Result<(), String> {
    if src.len() > ICON_URI_BYTES_MAX {
        return Err(format!("it is longer than {ICON_URI_BYTES_MAX} bytes"));
    }
    if src.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it has a blank or a control character".to_owned());
    }
    match src.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => match rest.strip_prefix("//") {
            Some(host) if !host.is_empty() && !host.starts_with(['/', '?', '#']) => Ok(()),
            _ => Err("there is no host after `https:`".to_owned()),
        },
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("data") => {
            let (media_type, data) = rest.split_once(";base64,").ok_or("a `data:` URI is data:image/…;base64,…")?;
            match is_image(media_type) {
                true => base64::decode(data)
                    .filter(|bytes| !bytes.is_empty())
                    .map(|_| ())
                    .ok_or("what stands after `base64,` is not Base64".to_owned()),
                false => Err("a `data:` URI is data:image/…;base64,…".to_owned()),
            }
        }
        _ => Err("clients take `https:` and `data:` URIs alone".to_owned()),
    }
}

fn is_image(media_type: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    media_type.strip_prefix("image/").is_some_and(|kind| !kind.is_empty() && kind.chars().all(plain))
}

/// `48x48`, or `any` for what scales.
fn is_size(size: &str) -> bool {
    let number = |text: &str| (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    size == "any" || size.split_once('x').is_some_and(|(width, height)| number(width) && number(height))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::jsonrpc;

    fn read_icons(icons: &str) -> Result<String, String> {
        let document = Document::new(PathBuf::from("SKILL.md"));
        let entry = document.read(&format!("name: x\nicons:{icons}\n")).expect("it is YAML");
        let icons = read_all(&document, &entry).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(jsonrpc::to_bytes(&icons)).expect("JSON is text"))
    }

    #[test]
    fn icons_are_shown_as_they_were_given() {
        for (given, expected) in [
            ("", "[]"),
            (" []", "[]"),
            ("\n- src: https://studio.example/i.png", r#"[{"src":"https://studio.example/i.png"}]"#),
            (
                "\n- {src: 'data:image/svg+xml;base64,PHN2Zy8+', mime_type: image/svg+xml, sizes: [any], theme: dark}",
                r#"[{"src":"data:image/svg+xml;base64,PHN2Zy8+","mimeType":"image/svg+xml","sizes":["any"],"theme":"dark"}]"#,
            ),
            (
                "\n- {src: 'HTTPS://x/a', mimeType: image/png, sizes: '48x48, 96x96', theme: light}\n- {src: https://x/b}",
                r#"[{"src":"HTTPS://x/a","mimeType":"image/png","sizes":["48x48","96x96"],"theme":"light"},{"src":"https://x/b"}]"#,
            ),
        ] {
            assert_eq!(read_icons(given).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let icon = |src: &str| format!("\n- sizes: any\n  src: {src}");
        let many = "\n- src: https://x/a".repeat(ICONS_MAX + 1);
        let long = icon(&format!("https://x/{}", "a".repeat(ICON_URI_BYTES_MAX)));
        let scheme = "4: `src` of an icon: clients take `https:` and `data:` URIs alone";
        let data = "4: `src` of an icon: a `data:` URI is data:image/…;base64,…";
        let base64 = "4: `src` of an icon: what stands after `base64,` is not Base64";
        for (given, expected) in [
            (" https://x/a", "2: `icons` must be a list of icons"),
            (" {src: https://x/a}", "2: `icons` must be a list of icons"),
            (many.as_str(), "3: `icons` has more than 8 icons"),
            ("\n- a", "3: an entry of `icons` must be a map of keys and values, not a single value"),
            ("\n- sizes: any", "3: an icon has no `src`"),
            ("\n- src: [a]", "3: `src` must be text, not a list"),
            (&long, "4: `src` of an icon: it is longer than 8192 bytes"),
            (&icon("http://x/a"), scheme),
            (&icon("javascript:alert(1)"), scheme),
            (&icon("file:///etc/passwd"), scheme),
            (&icon("ws://x"), scheme),
            (&icon("icons/a.png"), scheme),
            (&icon("//x/a.png"), scheme),
            (&icon("\" https :x\""), "4: `src` of an icon: it has a blank or a control character"),
            (&icon("\"https://x/\\0\""), "4: `src` of an icon: it has a blank or a control character"),
            (&icon("https:x/a"), "4: `src` of an icon: there is no host after `https:`"),
            (&icon("https:///a"), "4: `src` of an icon: there is no host after `https:`"),
            (&icon("data:text/html;base64,PHN2Zy8+"), data),
            (&icon("data:image/;base64,PHN2Zy8+"), data),
            (&icon("data:image/svg+xml,<svg/>"), data),
            (&icon("data:image/png;x=\"1\";base64,PHN2Zy8+"), data),
            (&icon("data:image/png;base64,?"), base64),
            (&icon("data:image/png;base64,"), base64),
            (
                "\n- src: https://x/a\n  mime_type: text/html",
                "4: `mime_type` of an icon must be image/…, not \"text/html\"",
            ),
            ("\n- src: https://x/a\n  mimeType: png", "4: `mime_type` of an icon must be image/…, not \"png\""),
            ("\n- src: https://x/a\n  sizes: {w: 1}", "4: `sizes` must be a list of words, or words with commas"),
            (
                "\n- src: https://x/a\n  sizes: [any, 48X48]",
                "4: `sizes` of an icon are such as 48x48, or `any`, not \"48X48\"",
            ),
            ("\n- src: https://x/a\n  sizes: 48", "4: `sizes` of an icon are such as 48x48, or `any`, not \"48\""),
            ("\n- src: https://x/a\n  theme: blue", "4: `theme` of an icon must be light or dark"),
        ] {
            assert_eq!(read_icons(given), Err(format!("SKILL.md:{expected}")), "{given}");
        }
    }
}
