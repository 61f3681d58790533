//! The hash of an object: SHA-256 of its canonical JSON (RFC 8785), the same for equal objects however they were written.
//!
//! Keys are sorted by UTF-16 code units and numbers are written as ECMAScript does, independently of their order and
//! spelling in the input.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};
use sha2::{Digest as _, Sha256};

use crate::object::ANNOTATION_PREFIX;

/// SHA-256, in lower-case hex, of the canonical JSON (RFC 8785) of the fields that decide: apiVersion, kind,
/// namespace, name, `netverdict.io/*` annotations and spec.
///
/// Defaults that an API server adds (`policyTypes`, `protocol: TCP`) change the hash; labels, status and other metadata do not.
/// Missing fields count as null, so every value has a hash.
pub fn content_hash(value: &Value) -> String {
    let mut annotations = Map::new();
    if let Some(Value::Object(all)) = value.pointer("/metadata/annotations") {
        let ours = all.iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
        annotations.extend(ours.map(|(key, value)| (key.clone(), value.clone())));
    }
    let part = |pointer: &str| value.pointer(pointer).cloned().unwrap_or(Value::Null);
    let metadata = Map::from_iter([
        ("annotations".to_owned(), Value::Object(annotations)),
        ("name".to_owned(), part("/metadata/name")),
        ("namespace".to_owned(), part("/metadata/namespace")),
    ]);
    let matters = Map::from_iter([
        ("apiVersion".to_owned(), part("/apiVersion")),
        ("kind".to_owned(), part("/kind")),
        ("metadata".to_owned(), Value::Object(metadata)),
        ("spec".to_owned(), part("/spec")),
    ]);
    sha256(&Value::Object(matters))
}

/// SHA-256 of the canonical form, in lower-case hex.
fn sha256(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    hex::encode(Sha256::digest(text.as_bytes()))
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(number, text),
        Value::String(value) => write_string(value, text),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_string(key, text);
                text.push(':');
                write(item, text);
            }
            text.push('}');
        }
    }
}

fn write_string(value: &str, text: &mut String) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            c if c < ' ' => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// Whole numbers that a double holds exactly keep their digits; all else is written as the nearest double.
fn write_number(number: &Number, text: &mut String) {
    const EXACT: u64 = 1 << 53;
    let _ = match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) if whole.unsigned_abs() <= EXACT => write!(text, "{whole}"),
        (_, Some(double)) => {
            write_double(double, text);
            Ok(())
        }
        (_, None) => write!(text, "{number}"),
    };
}

/// `Number::toString` of ECMAScript: plain digits from 1e-6 to below 1e21, an exponent otherwise.
fn write_double(double: f64, text: &mut String) {
    if double == 0.0 {
        text.push('0');
        return;
    }
    // Rust prints the shortest digits that read back the same, as ECMAScript asks: `-1.25e-7`.
    let shortest = format!("{double:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    text.push_str(sign);
    let point = exponent + 1;
    let width = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    if (width..=21).contains(&point) {
        text.push_str(&digits);
        text.push_str(&zeros(point - width));
    } else if (1..=21).contains(&point) {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
        let _ = write!(text, "{whole}.{fraction}");
    } else if (-5..=0).contains(&point) {
        let _ = write!(text, "0.{}{digits}", zeros(-point));
    } else {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(text, "{first}{point}{rest}e{sign}{}", exponent.unsigned_abs());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn canonical(value: &Value) -> String {
        let mut text = String::new();
        write(value, &mut text);
        text
    }

    #[test]
    fn keys_are_sorted_by_utf16_units_and_text_is_escaped_least() {
        let value = json!({"\u{20ac}": 1, "\r": 2, "\u{1f600}": 3, "\u{fb33}": 4, "1": "\u{f}\n\"\\/é"});
        let expected = "{\"\\r\":2,\"1\":\"\\u000f\\n\\\"\\\\/é\",\"€\":1,\"😀\":3,\"\u{fb33}\":4}";
        assert_eq!(canonical(&value), expected);
    }

    #[test]
    fn numbers_are_written_as_ecmascript_does() {
        for (number, expected) in [
            (json!(80), "80"),
            (json!(80.0), "80"),
            (json!(-0.0), "0"),
            (json!(333_333_333.333_333_3), "333333333.3333333"),
            (json!(1e30), "1e+30"),
            (json!(4.50), "4.5"),
            (json!(2e-3), "0.002"),
            (json!(1e-27), "1e-27"),
            (json!(1e21), "1e+21"),
            (json!(1e20), "100000000000000000000"),
            (json!(-1.5e-7), "-1.5e-7"),
            (json!(0.000_001), "0.000001"),
            (json!(9_007_199_254_740_993_u64), "9007199254740992"),
        ] {
            assert_eq!(canonical(&number), expected);
        }
    }
}
