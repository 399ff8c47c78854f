//! What somebody wants to do, and the patterns by which rules speak of it.

use std::fmt;

use dawn_identity::Role;

use crate::pattern::Pattern;

/// An agent and its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The name of the node that hosts it.
    pub node: &'a str,
    /// The id of that node.
    pub node_id: &'a str,
    /// The agent's name.
    pub agent: &'a str,
}

/// What of a network is administered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Administered {
    /// The policy.
    Policy,
    /// Who is a member: revocations.
    Members,
    /// Where nodes go: orders of a migration.
    Nodes,
}

impl Administered {
    /// Everything that is administered.
    pub const ALL: [Self; 3] = [Self::Policy, Self::Members, Self::Nodes];

    /// Its word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Members => "members",
            Self::Nodes => "nodes",
        }
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Call an agent: a tool or prompt by its name, a resource by its address, or anything of it.
    Call(Target<'a>, Option<&'a str>),
    /// Submit a workload.
    Submit(&'a str),
    /// Have its streams carried to others by the node that is asked.
    Relay,
    /// Invite somebody with this role.
    Invite(Role),
    /// Administer.
    Administer(Administered),
}

/// As the file writes it.
impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(target, None) => write!(f, "call {}:{}", target.node, target.agent),
            Self::Call(target, Some(name)) => write!(f, "call {}:{}/{name}", target.node, target.agent),
            Self::Submit(workload) => write!(f, "submit {workload}"),
            Self::Relay => f.write_str("relay"),
            Self::Invite(role) => write!(f, "invite {role}"),
            Self::Administer(what) => write!(f, "administer {}", what.as_str()),
        }
    }
}

/// Of which actions a rule speaks. In the file `call NODE:AGENT/NAME`, `submit WORKLOAD`, `relay`, `invite ROLE`,
/// `administer policy|members|nodes`, with `*` for any characters; what is left out means anything; `*` alone is everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Actions {
    Everything,
    Call {
        node: Pattern,
        agent: Pattern,
        name: Pattern,
    },
    Submit(Pattern),
    Relay,
    Invite(Pattern),
    Administer(Pattern),
}

/// Why a text speaks of no action, and what to write.
pub(crate) type Why = (String, &'static str);

const VERBS: &str = "begin with call, submit, relay, invite or administer; \"*\" is everything";
const CALLS: &str = "write call NODE:AGENT or call NODE:AGENT/NAME, such as \"call *:notes/read_*\"";

impl Actions {
    pub(crate) fn parse(text: &str) -> Result<Self, Why> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        let some = || {
            if rest.is_empty() {
                Pattern::any()
            } else {
                Pattern::new(rest)
            }
        };
        let one_of = |known: &[&str]| {
            let pattern = some();
            let is_known = known.iter().any(|word| pattern.fits(word));
            is_known
                .then_some(pattern)
                .ok_or_else(|| (format!("{rest:?} is nothing that can be meant by {verb}"), ""))
        };
        match verb {
            "call" if rest.is_empty() || rest == "*" => Ok(Self::Call {
                node: Pattern::any(),
                agent: Pattern::any(),
                name: Pattern::any(),
            }),
            "call" => {
                // Neither nodes nor agents have a slash in their names.
                let (address, name) = rest.split_once('/').unwrap_or((rest, "*"));
                let (node, agent) = address
                    .split_once(':')
                    .ok_or_else(|| (format!("{address:?} names no agent"), CALLS))?;
                if [node, agent, name].iter().any(|part| part.is_empty()) {
                    return Err((format!("a part of {rest:?} is empty"), CALLS));
                }
                Ok(Self::Call {
                    node: Pattern::new(node),
                    agent: Pattern::new(agent),
                    name: Pattern::new(name),
                })
            }
            "submit" => Ok(Self::Submit(some())),
            "relay" if rest.is_empty() => Ok(Self::Relay),
            "relay" => Err(("relay stands alone".to_owned(), "write \"relay\"")),
            "invite" => one_of(&Role::ALL.map(Role::as_str))
                .map(Self::Invite)
                .map_err(|(why, _)| (why, "invite guest, member or admin")),
            "administer" => one_of(&Administered::ALL.map(Administered::as_str))
                .map(Self::Administer)
                .map_err(|(why, _)| (why, "administer policy, members or nodes")),
            _ => Err((format!("{verb:?} is nothing that anybody does"), VERBS)),
        }
    }

    pub(crate) fn fits(&self, action: &Action<'_>) -> bool {
        match (self, action) {
            (Self::Everything, _) | (Self::Relay, Action::Relay) => true,
            (Self::Call { name, .. }, Action::Call(target, called)) => {
                self.fits_agent(target) && called.map_or(name.is_any(), |called| name.fits(called))
            }
            (Self::Submit(pattern), Action::Submit(workload)) => pattern.fits(workload),
            (Self::Invite(pattern), Action::Invite(role)) => pattern.fits(role.as_str()),
            (Self::Administer(pattern), Action::Administer(what)) => pattern.fits(what.as_str()),
            _ => false,
        }
    }

    /// Whether it speaks of an agent, or of something that it has.
    pub(crate) fn fits_agent(&self, target: &Target<'_>) -> bool {
        match self {
            Self::Everything => true,
            Self::Call { node, agent, .. } => {
                (node.fits(target.node) || node.fits(target.node_id)) && agent.fits(target.agent)
            }
            _ => false,
        }
    }

    /// Whose agents it speaks of.
    pub(crate) const fn node(&self) -> Option<&Pattern> {
        match self {
            Self::Call { node, .. } => Some(node),
            _ => None,
        }
    }

    /// Of which names of an agent it speaks, if it speaks of agents.
    pub(crate) fn names(&self) -> Option<Pattern> {
        match self {
            Self::Everything => Some(Pattern::any()),
            Self::Call { name, .. } => Some(name.clone()),
            _ => None,
        }
    }

    /// Whether it speaks of all that the other one speaks of.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, _) | (Self::Relay, Self::Relay) => true,
            (
                Self::Call { node, agent, name },
                Self::Call {
                    node: other_node,
                    agent: other_agent,
                    name: other_name,
                },
            ) => node.covers(other_node) && agent.covers(other_agent) && name.covers(other_name),
            (Self::Submit(wide), Self::Submit(narrow))
            | (Self::Invite(wide), Self::Invite(narrow))
            | (Self::Administer(wide), Self::Administer(narrow)) => wide.covers(narrow),
            _ => false,
        }
    }
}
