//! The end of a stream of which only the end is kept: a script's standard error.
//!
//! **Bounds**: `SCRIPT_STDERR_TAIL_BYTES`, twice that while it is filled.

use crate::limits::SCRIPT_STDERR_TAIL_BYTES;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Tail {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * SCRIPT_STDERR_TAIL_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if let Some(extra) = self.bytes.len().checked_sub(SCRIPT_STDERR_TAIL_BYTES).filter(|extra| *extra > 0) {
            self.bytes.drain(..extra);
            self.is_cut = true;
        }
    }

    /// As text; a cut one begins with `…`.
    pub fn text(mut self) -> String {
        self.cut();
        // A character that the cut went through is left out.
        let start =
            if self.is_cut { self.bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count() } else { 0 };
        let text = String::from_utf8_lossy(&self.bytes[start..]);
        let text = text.trim_end();
        if self.is_cut { format!("…{text}") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_in_whole_characters() {
        let mut tail = Tail::default();
        tail.push(b"short\n");
        assert_eq!(tail.text(), "short");
        for size in [SCRIPT_STDERR_TAIL_BYTES - 1, SCRIPT_STDERR_TAIL_BYTES, SCRIPT_STDERR_TAIL_BYTES * 7 + 1] {
            let mut tail = Tail::default();
            for _ in 0..size {
                tail.push("é".as_bytes());
            }
            let text = tail.text();
            assert!(text.starts_with('…') && text.ends_with('é') && !text.contains('\u{fffd}'), "{size}");
            assert!(text.len() <= SCRIPT_STDERR_TAIL_BYTES + '…'.len_utf8());
        }
    }
}
