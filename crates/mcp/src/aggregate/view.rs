//! What of the network an aggregate shows, and under which names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use dawn_identity::AgentAddress;
use dawn_policy::Pattern;

/// How tools are disclosed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Disclosure {
    /// Every tool is listed.
    #[default]
    Full,
    /// Two tools are listed, `find_tools` and `call_tool`; the others are found and called by them, and a session lists
    /// what it found.
    Search,
}

impl std::str::FromStr for Disclosure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "search" => Ok(Self::Search),
            other => Err(format!("{other:?} is neither \"full\" nor \"search\"")),
        }
    }
}

/// What the one `*` of a pattern stands for in a name.
fn between<'a>(pattern: &str, name: &'a str) -> Option<&'a str> {
    let (before, after) = pattern.split_once('*')?;
    name.strip_prefix(before)?.strip_suffix(after)
}

/// What one endpoint shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// Agents, as `node:agent`; none means all.
    pub agents: Vec<Pattern>,
    /// Tools and prompts that are shown, under their names `node__agent__name`; none means all.
    pub only: Vec<Pattern>,
    /// Tools and prompts that are not shown.
    pub hide: Vec<Pattern>,
    /// Other names for tools and prompts, by `node__agent__name`; a `*` in both stands for the same.
    pub rename: BTreeMap<String, String>,
    /// Other descriptions for tools, by `node__agent__name`.
    pub describe: BTreeMap<String, String>,
    /// How tools are disclosed when the client does not say.
    pub disclosure: Disclosure,
}

impl View {
    /// Whether an agent belongs to the view.
    #[must_use]
    pub fn has_agent(&self, address: &AgentAddress) -> bool {
        let address = address.to_string();
        self.agents.is_empty() || self.agents.iter().any(|pattern| pattern.fits(&address))
    }

    /// Whether a tool or prompt of the full name belongs to the view.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.fits(name));
        (self.only.is_empty() || fits(&self.only)) && !fits(&self.hide)
    }

    /// The name under which a full name is shown. One that would be shown as another already is stays as it is.
    pub(super) fn shown<'a>(&'a self, name: &'a str) -> Cow<'a, str> {
        let exact = self.rename.get(name).map(|other| Cow::Borrowed(other.as_str()));
        let by_pattern = || {
            let mut patterns = self.rename.iter().filter(|(from, _)| from.contains('*'));
            patterns.find_map(|(from, to)| Some(Cow::Owned(to.replacen('*', between(from, name)?, 1))))
        };
        exact
            .or_else(by_pattern)
            .filter(|shown| self.full(shown) == name)
            .unwrap_or(Cow::Borrowed(name))
    }

    /// The full name of what is shown under a name.
    pub(super) fn full<'a>(&'a self, shown: &'a str) -> Cow<'a, str> {
        let exact = self.rename.iter().find(|(_, to)| *to == shown);
        let by_pattern = || {
            let mut patterns = self.rename.iter().filter(|(from, _)| from.contains('*'));
            patterns.find_map(|(from, to)| Some(Cow::Owned(from.replacen('*', between(to, shown)?, 1))))
        };
        exact
            .map(|(from, _)| Cow::Borrowed(from.as_str()))
            .or_else(by_pattern)
            .unwrap_or(Cow::Borrowed(shown))
    }
}

/// Every view of a node: of all agents, and of its groups. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Views(Arc<RwLock<Arc<ByGroup>>>);

type ByGroup = BTreeMap<Option<String>, Arc<View>>;

impl Views {
    /// Replaces all views; `None` is that of `/mcp`, without which it shows everything.
    pub fn set(&self, views: BTreeMap<Option<String>, View>) {
        let views = views.into_iter().map(|(name, view)| (name, Arc::new(view))).collect();
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(views);
    }

    /// The view of a group, or of `/mcp`.
    #[must_use]
    pub fn get(&self, group: Option<&str>) -> Option<Arc<View>> {
        let views = Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        match group {
            None => Some(views.get(&None).cloned().unwrap_or_default()),
            Some(_) => views.get(&group.map(str::to_owned)).cloned(),
        }
    }

    /// The names of the groups.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        let views = Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        views.keys().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_hidden_and_found_again() {
        let view = View {
            only: vec![Pattern::new("lab__*")],
            hide: vec![Pattern::new("*__rm")],
            rename: [("lab__files__read".to_owned(), "read".to_owned())].into(),
            ..View::default()
        };
        assert!(view.has_name("lab__files__read") && !view.has_name("lab__files__rm") && !view.has_name("den__x__y"));
        assert_eq!(view.shown("lab__files__read"), "read");
        assert_eq!(view.full("read"), "lab__files__read");
        assert_eq!(view.full("other"), "other");
    }

    #[test]
    fn a_star_renames_many_and_what_comes_second_keeps_its_name() {
        let rename = [
            ("den__web__*", "web_*"),
            ("lab__files__*", "*"),
            ("other__files__*", "*"),
        ];
        let view = View {
            rename: rename.map(|(from, to)| (from.to_owned(), to.to_owned())).into(),
            ..View::default()
        };
        for (full, shown) in [
            ("lab__files__read", "read"),
            ("den__web__get", "web_get"),
            ("other__files__read", "other__files__read"),
            ("x__y__z", "x__y__z"),
        ] {
            assert_eq!(view.shown(full), shown);
        }
        assert_eq!(view.full("read"), "lab__files__read");
        assert_eq!(view.full("web_get"), "den__web__get");
    }
}
