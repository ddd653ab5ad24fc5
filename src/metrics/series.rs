//! The kinds of numbers that are counted, and how each reads in the exposition format.
//!
//! **Invariant**: a histogram's count is the sum of its buckets, so that a scrape amid recording agrees with itself.
//! **Thread**: any; relaxed atomics only.
//! **Bounds**: all sizes are fixed when it is compiled.
//! Left out on purpose: which numbers there are (`metrics.rs`).

use std::fmt::{Display, Write};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows.
pub struct Counter(AtomicU64);

/// A number that goes up and down.
pub struct Gauge(AtomicI64);

/// How long things took, in fixed buckets.
pub struct Histogram {
    /// One for each of `BUCKETS`, and one for what took longer. Not cumulative.
    counts: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
}

/// Upper bounds of the buckets: dense where our own work lies (below 10 ms), up to the default call timeout.
const BUCKETS: [Bucket; 15] = [
    Bucket { micros: 250, text: "0.00025" },
    Bucket { micros: 500, text: "0.0005" },
    Bucket { micros: 1_000, text: "0.001" },
    Bucket { micros: 2_500, text: "0.0025" },
    Bucket { micros: 5_000, text: "0.005" },
    Bucket { micros: 10_000, text: "0.01" },
    Bucket { micros: 25_000, text: "0.025" },
    Bucket { micros: 100_000, text: "0.1" },
    Bucket { micros: 250_000, text: "0.25" },
    Bucket { micros: 500_000, text: "0.5" },
    Bucket { micros: 1_000_000, text: "1" },
    Bucket { micros: 5_000_000, text: "5" },
    Bucket { micros: 10_000_000, text: "10" },
    Bucket { micros: 30_000_000, text: "30" },
    Bucket { micros: 120_000_000, text: "120" },
];

struct Bucket {
    micros: u64,
    text: &'static str,
}

/// A closed enum as label: its values, and how each reads.
pub trait Label: Copy + 'static {
    const ALL: &'static [Self];

    fn index(self) -> usize;
    fn text(self) -> &'static str;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($value,)+ }

        impl $name {
            pub const COUNT: usize = <$name as $crate::metrics::series::Label>::ALL.len();
        }

        impl $crate::metrics::series::Label for $name {
            const ALL: &'static [$name] = &[$($name::$value,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                match self { $($name::$value => $text,)+ }
            }
        }
    };
}

pub(super) use label;

impl Counter {
    pub(super) const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub(super) fn write(&self, out: &mut String, name: &str, help: &str) {
        family(out, name, "counter", help);
        sample(out, name, &[], self.0.load(Relaxed));
    }
}

impl Gauge {
    pub(super) const fn new() -> Gauge {
        Gauge(AtomicI64::new(0))
    }

    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Up, or down with a negative number.
    pub fn add(&self, more: i64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub(super) fn write(&self, out: &mut String, name: &str, help: &str) {
        family(out, name, "gauge", help);
        sample(out, name, &[], self.0.load(Relaxed));
    }
}

impl Histogram {
    pub(super) const fn new() -> Histogram {
        Histogram { counts: [const { AtomicU64::new(0) }; BUCKETS.len() + 1], microseconds: AtomicU64::new(0) }
    }

    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|bucket| micros <= bucket.micros).unwrap_or(BUCKETS.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.microseconds.fetch_add(micros, Relaxed);
    }

    pub(super) fn write(&self, out: &mut String, name: &str, help: &str) {
        family(out, name, "histogram", help);
        let bounds = BUCKETS.iter().map(|bucket| bucket.text).chain(["+Inf"]);
        let mut total = 0;
        for (count, bound) in self.counts.iter().zip(bounds) {
            total += count.load(Relaxed);
            sample(out, &format!("{name}_bucket"), &[("le", bound)], total);
        }
        let micros = self.microseconds.load(Relaxed);
        sample(out, &format!("{name}_sum"), &[], format_args!("{}.{:06}", micros / 1_000_000, micros % 1_000_000));
        sample(out, &format!("{name}_count"), &[], total);
    }
}

/// One counter for each value of a label.
pub struct Counters<L, const N: usize> {
    counts: [AtomicU64; N],
    label: PhantomData<fn(L)>,
}

impl<L: Label, const N: usize> Counters<L, N> {
    pub(super) const fn new() -> Counters<L, N> {
        Counters { counts: [const { AtomicU64::new(0) }; N], label: PhantomData }
    }

    pub fn record(&self, label: L) {
        self.add(label, 1);
    }

    pub fn add(&self, label: L, more: u64) {
        self.counts[label.index()].fetch_add(more, Relaxed);
    }

    pub(super) fn write(&self, out: &mut String, name: &str, label: &str, help: &str) {
        family(out, name, "counter", help);
        for (value, count) in L::ALL.iter().zip(&self.counts) {
            sample(out, name, &[(label, value.text())], count.load(Relaxed));
        }
    }
}

pub(super) fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

pub(super) fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    out.push_str(name);
    for (place, (label, text)) in labels.iter().enumerate() {
        let _ = write!(out, "{}{label}=\"", if place == 0 { '{' } else { ',' });
        text.chars().for_each(|character| match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(character),
        });
        out.push('"');
    }
    let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_rise_and_read_as_they_count() {
        for pair in BUCKETS.windows(2) {
            assert!(pair[0].micros < pair[1].micros);
        }
        for bucket in BUCKETS {
            let seconds: f64 = bucket.text.parse().unwrap();
            assert_eq!((seconds * 1e6).round() as u64, bucket.micros);
        }
    }
}
