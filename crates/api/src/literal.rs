//! Reads mappings as Python writes them: old clients put one into the query (`{'name': 'ns:pod'}`).
//!
//! JSON is read by the same rules, since its `true`, `false` and `null` are understood too.

use serde_json::{Map, Number, Value};

/// How deep mappings and lists may be nested.
const MAX_DEPTH: usize = 16;

/// Parses the text of a mapping; `None` when it is none.
pub(crate) fn mapping(text: &str) -> Option<Map<String, Value>> {
    let mut reader = Reader { rest: text.trim() };
    let value = reader.value(0)?;
    match value {
        Value::Object(members) if reader.rest.trim().is_empty() => Some(members),
        _ => None,
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_blanks();
        match self.rest.chars().next()? {
            '{' => self.object(depth),
            '[' => self.items('[', ']', depth),
            '(' => self.items('(', ')', depth),
            '\'' | '"' => self.text().map(Value::String),
            'u' | 'b' if self.rest[1..].starts_with(['\'', '"']) => {
                self.rest = &self.rest[1..];
                self.text().map(Value::String)
            }
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.take('{')?;
        let mut members = Map::new();
        loop {
            self.skip_blanks();
            if self.take('}').is_some() {
                return Some(Value::Object(members));
            }
            let Value::String(name) = self.value(depth + 1)? else { return None };
            self.skip_blanks();
            self.take(':')?;
            members.insert(name, self.value(depth + 1)?);
            self.skip_blanks();
            if self.take(',').is_none() {
                self.take('}')?;
                return Some(Value::Object(members));
            }
        }
    }

    fn items(&mut self, open: char, close: char, depth: usize) -> Option<Value> {
        self.take(open)?;
        let mut items = Vec::new();
        loop {
            self.skip_blanks();
            if self.take(close).is_some() {
                return Some(Value::Array(items));
            }
            items.push(self.value(depth + 1)?);
            self.skip_blanks();
            if self.take(',').is_none() {
                self.take(close)?;
                return Some(Value::Array(items));
            }
        }
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.rest.chars().next()?;
        self.take(quote)?;
        let mut text = String::new();
        loop {
            let char = self.next()?;
            match char {
                _ if char == quote => return Some(text),
                '\n' => return None,
                '\\' => {
                    let escaped = self.next()?;
                    let code = match escaped {
                        'x' => Some(2),
                        'u' => Some(4),
                        _ => None,
                    };
                    text.push(match (code, escaped) {
                        (Some(digits), _) => {
                            let hex = self.rest.get(..digits)?;
                            self.rest = &self.rest[digits..];
                            char::from_u32(u32::from_str_radix(hex, 16).ok()?)?
                        }
                        (None, 'n') => '\n',
                        (None, 't') => '\t',
                        (None, 'r') => '\r',
                        (None, other) => other,
                    });
                }
                _ => text.push(char),
            }
        }
    }

    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        match word {
            "True" | "true" => Some(Value::Bool(true)),
            "False" | "false" => Some(Value::Bool(false)),
            "None" | "null" => Some(Value::Null),
            _ => match word.parse::<i64>() {
                Ok(number) => Some(Value::from(number)),
                Err(_) if word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => {
                    Number::from_f64(word.parse().ok()?).map(Value::Number)
                }
                Err(_) => None,
            },
        }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    fn next(&mut self) -> Option<char> {
        let char = self.rest.chars().next()?;
        self.rest = &self.rest[char.len_utf8()..];
        Some(char)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mappings_are_read_as_python_and_json_write_them() {
        for (text, value) in [
            ("{'name': 'ns:pod1'}", json!({"name": "ns:pod1"})),
            ("{u'name': u'x',}", json!({"name": "x"})),
            (" {} ", json!({})),
            ("{\"a\": true, \"b\": null}", json!({"a": true, "b": null})),
            (
                "{'a': True, 'b': None, 'c': [1, -2.5], 'd': ('x',), 'e': {}}",
                json!({"a": true, "b": null, "c": [1, -2.5], "d": ["x"], "e": {}}),
            ),
            (r"{'a': 'it\'s \x41\u00e9\n'}", json!({"a": "it's Aé\n"})),
            ("{'ü': \"'\"}", json!({"ü": "'"})),
        ] {
            assert_eq!(mapping(text).map(Value::Object), Some(value), "{text}");
        }
        let deep = format!("{}{}", "{'a': ".repeat(50), "}".repeat(50));
        for text in [
            "",
            "x",
            "[]",
            "'x'",
            "{'a'}",
            "{'a': }",
            "{'a': 1",
            "{'a': 1}}",
            "{1: 2}",
            "{'a': nothing}",
            "{'a': 'b}",
            "{'a': __import__('os')}",
            "{'a' 1}",
            "{'a': '\\xzz'}",
            "{'a': 'ü\\u12'}",
            &deep,
        ] {
            assert_eq!(mapping(text), None, "{text}");
        }
    }
}
