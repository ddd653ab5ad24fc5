//! Event streams: the same however they come, and the same as a plain reading of the whole text; what is written is
//! read again, and no data or id can end its event early.

use dcc_mcp_server::http::sse::{Decoder, Event, TooLarge, encode};

use super::splits;

/// A bound that inputs reach.
const SMALL: usize = 64;

pub fn stream(input: &[u8]) -> bool {
    for max in [SMALL, usize::MAX] {
        let at_once = decode([input], max);
        assert_eq!(at_once, read_plainly(input, max), "a plain reading says otherwise");
        assert_eq!(decode(input.chunks(1), max), at_once, "byte by byte");
        for parts in splits(input) {
            assert_eq!(decode(parts, max), at_once, "split at {}", parts[0].len());
        }
    }
    let events = decode([input], usize::MAX).expect("there is no bound");
    for event in &events {
        let written = encode(event.id.as_deref(), event.data.as_bytes());
        let again = Event { id: event.id.clone(), data: event.data.clone(), ..Event::default() };
        assert_eq!(decode([&written[..]], usize::MAX), Ok(vec![again]), "written anew");
    }
    let text = String::from_utf8_lossy(input);
    let data = text.replace("\r\n", "\n").replace('\r', "\n");
    let id = text.replace(['\r', '\n', '\0'], "");
    let written = encode(Some(&text), input);
    let expected = Event { id: Some(id), data, ..Event::default() };
    assert_eq!(decode([&written[..]], usize::MAX), Ok(vec![expected]), "the input as an event");
    !events.is_empty()
}

fn decode<'a>(parts: impl IntoIterator<Item = &'a [u8]>, max: usize) -> Result<Vec<Event>, TooLarge> {
    let (mut decoder, mut events) = (Decoder::bounded(max), Vec::new());
    for part in parts {
        decoder.push(part);
        while let Some(event) = decoder.next()? {
            events.push(event);
        }
        assert_eq!(decoder.next(), Ok(None), "no more, and then more");
    }
    Ok(events)
}

/// WHATWG HTML section 9.2.6, for a stream that is there as a whole.
fn read_plainly(input: &[u8], max: usize) -> Result<Vec<Event>, TooLarge> {
    let (mut events, mut event, mut data, mut size) = (Vec::new(), Event::default(), Vec::new(), 0_usize);
    let mut rest = input;
    let mut is_first = true;
    while let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n')) {
        let line = &rest[..end];
        rest = rest[end..].strip_prefix(b"\r\n").unwrap_or(&rest[end + 1..]);
        if size + line.len() > max {
            return Err(TooLarge);
        }
        size += line.len() + 1;
        let line = String::from_utf8_lossy(line);
        let line = if is_first { line.strip_prefix('\u{feff}').unwrap_or(&line) } else { &line };
        is_first = false;
        let (name, value) =
            line.split_once(':').map_or((line, ""), |(name, value)| (name, value.strip_prefix(' ').unwrap_or(value)));
        match name {
            "" if line.is_empty() => {
                event.data = data.join("\n");
                if !data.is_empty() || event.id.is_some() || event.retry.is_some() {
                    events.push(std::mem::take(&mut event));
                }
                (event, data, size) = (Event::default(), Vec::new(), 0);
            }
            "data" => data.push(value.to_owned()),
            "event" => event.event = (!value.is_empty()).then(|| value.to_owned()),
            "id" if !value.contains('\0') => event.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => event.retry = value.parse().ok().or(event.retry),
            _ => {}
        }
    }
    if size.saturating_add(rest.len()) > max { Err(TooLarge) } else { Ok(events) }
}
