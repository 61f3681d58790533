//! The type of a YAML scalar, as kubectl reads it: YAML 1.1 with the extensions of go-yaml 2.
//!
//! kubectl turns YAML into JSON before an API server sees it, so `yes` arrives as a boolean, `08080` as a number, and an
//! API server refuses both where it wants a string. The rules were taken from the behaviour of `sigs.k8s.io/yaml` 1.6
//! with `go.yaml.in/yaml/v2` 2.4; the table in the tests is its output.

use serde_json::Value;

/// A scalar with its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Integer(i64),
    /// An integer above `i64::MAX`.
    Large(u64),
    Float(f64),
    Text(String),
}

/// Why a scalar has no JSON value: `.inf has no form in JSON`.
#[derive(Debug, PartialEq)]
pub(super) struct NoValue(pub(super) String);

/// Tags that change the type of a scalar. Any other tag makes it text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Null,
    Bool,
    Int,
    Float,
    Text,
    Binary,
}

impl Scalar {
    /// `plain`: without quotes, and not a block.
    pub(super) fn of(text: &str, plain: bool, tag: Option<Tag>) -> Result<Self, NoValue> {
        match tag {
            None if plain => Ok(resolve(text)),
            None | Some(Tag::Text) => Ok(Self::Text(text.to_owned())),
            Some(Tag::Binary) => Err(NoValue("!!binary is not read".to_owned())),
            Some(tag) => match (tag, resolve(text)) {
                (Tag::Float, Self::Integer(number)) => Ok(Self::Float(number as f64)),
                (Tag::Float, Self::Large(number)) => Ok(Self::Float(number as f64)),
                (Tag::Null, scalar @ Self::Null)
                | (Tag::Bool, scalar @ Self::Bool(_))
                | (Tag::Int, scalar @ (Self::Integer(_) | Self::Large(_)))
                | (Tag::Float, scalar @ Self::Float(_)) => Ok(scalar),
                (tag, _) => Err(NoValue(format!("{text:?} does not fit its tag {}", tag.as_str()))),
            },
        }
    }

    /// The JSON value. A number that is whole is an integer, however it was written: `8080.0` is 8080.
    pub(super) fn value(self) -> Result<Value, NoValue> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => value.into(),
            Self::Integer(value) => value.into(),
            Self::Large(value) => value.into(),
            Self::Float(value) => Value::Number(
                crate::json::number(value)
                    .ok_or_else(|| NoValue(format!("{} has no form in JSON", special_float(value))))?,
            ),
            Self::Text(text) => text.into(),
        })
    }

    /// The JSON key. kubectl writes one of another type as text: `on: 1` becomes `{"true": 1}`.
    pub(super) fn key(self) -> Result<String, NoValue> {
        Ok(match self {
            Self::Null => return Err(NoValue("null cannot be a key".to_owned())),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Large(value) => return Err(NoValue(format!("{value} cannot be a key"))),
            Self::Float(value) => float_key(value),
            Self::Text(text) => text,
        })
    }
}

impl Tag {
    fn as_str(self) -> &'static str {
        match self {
            Self::Null => "!!null",
            Self::Bool => "!!bool",
            Self::Int => "!!int",
            Self::Float => "!!float",
            Self::Text => "!!str",
            Self::Binary => "!!binary",
        }
    }
}

/// A scalar without quotes and tag.
fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' if has_stray_underscore(text) => None,
        b'.' => float(&text.replace('_', "")),
        b'0'..=b'9' | b'+' | b'-' => number(&text.replace('_', "")),
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

/// Whether an underscore is elsewhere than between two digits.
fn has_stray_underscore(text: &str) -> bool {
    let is_digit = |b: Option<&u8>| b.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    (0..bytes.len()).any(|i| bytes[i] == b'_' && !(i > 0 && is_digit(bytes.get(i - 1)) && is_digit(bytes.get(i + 1))))
}

/// Underscores are gone by now.
fn number(text: &str) -> Option<Scalar> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    integer(sign, digits, text.starts_with(['+', '-'])).or_else(|| float(text)).or_else(|| {
        // go-yaml takes a sign behind the prefix, too: 0b-11.
        let digits = text.strip_prefix("0b").filter(|digits| digits.starts_with(['+', '-']))?;
        i64::from_str_radix(digits, 2).ok().map(Scalar::Integer)
    })
}

/// Go's `ParseInt` with base 0: a leading zero is octal, and `0o`, `0x` and `0b` have their usual bases.
fn integer(sign: &str, digits: &str, signed: bool) -> Option<Scalar> {
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', _, ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', _, ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // Rust's parsers take a sign of their own.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let whole = i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().map(Scalar::Integer);
    whole.or_else(|| u64::from_str_radix(digits, radix).ok().filter(|_| !signed).map(Scalar::Large))
}

/// Digits with a point or an exponent, within the range of a double.
fn float(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    let fits = has_digits && are_digits(whole) && are_digits(fraction);
    if !fits || exponent.is_some_and(|digits| digits.is_empty() || !are_digits(digits)) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Scalar::Float)
}

fn special_float(value: f64) -> &'static str {
    match value {
        value if value.is_nan() => ".nan",
        value if value > 0.0 => ".inf",
        _ => "-.inf",
    }
}

/// The shortest digits of the nearest single-precision number, as Go's `%g` writes them.
fn float_key(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "kubectl loses the same digits")]
    let single = value as f32;
    if !single.is_finite() {
        return special_float(single.into()).to_owned();
    }
    let shortest = format!("{single:e}");
    match shortest.split_once('e').map(|(mantissa, exponent)| (mantissa, exponent.parse::<i32>())) {
        Some((mantissa, Ok(exponent))) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => single.to_string(),
    }
}
