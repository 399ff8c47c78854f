//! Addresses of resources with gaps: RFC 6570 up to `{name}` and `{+name}`, of which most templates of MCP servers are.

use std::collections::BTreeMap;

use dawn_node::client::segment;

/// A piece of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    /// Stands as it is.
    Text(&'a str),
    /// A variable; `is_reserved` leaves `/`, `?` and the like in its value as they are.
    Variable { name: &'a str, is_reserved: bool },
}

/// The pieces; `None` where the template has expressions of other kinds.
fn parts(template: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let (expression, after) = after.split_once('}')?;
        let (name, is_reserved) = match expression.strip_prefix('+') {
            Some(name) => (name, true),
            None => (expression, false),
        };
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '%' | '-');
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        parts.push(Part::Text(text));
        parts.push(Part::Variable { name, is_reserved });
        rest = after;
    }
    parts.push(Part::Text(rest));
    Some(parts)
}

/// The names of a template's variables, each once; `None` where they cannot be filled in here.
pub(super) fn variables(template: &str) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    for part in parts(template)? {
        if let Part::Variable { name, .. } = part
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    Some(names)
}

/// The template with its variables filled in; what has no value is left out.
pub(super) fn expand(template: &str, values: &BTreeMap<String, String>) -> String {
    let expanded = parts(template).unwrap_or_default().into_iter().map(|part| match part {
        Part::Text(text) => text.to_owned(),
        Part::Variable { name, is_reserved } => {
            let value = values.get(name).map(String::as_str).unwrap_or_default();
            if is_reserved { escaped(value) } else { segment(value) }
        }
    });
    expanded.collect()
}

/// A text in which only what no address may hold is escaped.
fn escaped(text: &str) -> String {
    let stays = |c: char| "!#$%&'()*+,/:;=?@[]".contains(c);
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if stays(c) {
            escaped.push(c);
        } else {
            escaped.push_str(&segment(c.encode_utf8(&mut [0; 4])));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_in() {
        let values = BTreeMap::from([
            ("id".to_owned(), "a/b c".to_owned()),
            ("to".to_owned(), "x/ü?y".to_owned()),
        ]);
        for (template, names, expanded) in [
            ("test://{id}/data", vec!["id"], "test://a%2Fb%20c/data"),
            ("file:///{+to}", vec!["to"], "file:///x/%C3%BC?y"),
            ("{id}{id}{none}", vec!["id", "none"], "a%2Fb%20ca%2Fb%20c"),
            ("plain://x", vec![], "plain://x"),
        ] {
            assert_eq!(variables(template), Some(names), "{template}");
            assert_eq!(expand(template, &values), expanded);
        }
        for other in ["{?a,b}", "{/a}", "{a*}", "{a:3}", "{a,b}", "{}", "{a"] {
            assert_eq!(variables(other), None, "{other}");
        }
    }
}
