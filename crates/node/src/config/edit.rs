//! Changes of `config.toml` that keep its comments and order.

use dawn_identity::AgentName;
use toml_edit::{DocumentMut, Item, Table};

use super::{AgentConfig, ControlConfig};
use crate::error::NodeError;
use crate::home::Home;

fn read(home: &Home) -> Result<DocumentMut, NodeError> {
    let path = home.config_file();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(NodeError::File { path, source }),
    };
    text.parse()
        .map_err(|error| NodeError::Config(format!("{}: {error}", path.display())))
}

fn agents(document: &mut DocumentMut) -> Result<&mut Table, NodeError> {
    let item = document.entry("agents").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    item.as_table_mut()
        .ok_or_else(|| NodeError::Config("`agents` is no table".into()))
}

/// Writes an agent into the configuration.
///
/// # Errors
/// There is one of that name, or the file cannot be read or written.
pub fn add_agent(home: &Home, name: &AgentName, agent: &AgentConfig) -> Result<(), NodeError> {
    agent.check()?;
    let mut document = read(home)?;
    let agents = agents(&mut document)?;
    if agents.contains_key(name.as_str()) {
        return Err(NodeError::Exists {
            what: "agent",
            name: name.to_string(),
        });
    }
    let written = toml_edit::ser::to_document(agent).map_err(|error| NodeError::Config(error.to_string()))?;
    agents.insert(name.as_str(), Item::Table(written.as_table().clone()));
    home.write_private(&home.config_file(), document.to_string().as_bytes())
}

/// Takes an agent out of the configuration.
///
/// # Errors
/// There is none of that name, or the file cannot be read or written.
pub fn remove_agent(home: &Home, name: &AgentName) -> Result<(), NodeError> {
    let mut document = read(home)?;
    if agents(&mut document)?.remove(name.as_str()).is_none() {
        return Err(NodeError::NotFound {
            what: "agent",
            name: name.to_string(),
        });
    }
    home.write_private(&home.config_file(), document.to_string().as_bytes())
}

/// Writes which control plane this node is registered at, or that it is at none.
///
/// # Errors
/// The file cannot be read or written.
pub fn set_control(home: &Home, control: Option<&ControlConfig>) -> Result<(), NodeError> {
    let mut document = read(home)?;
    match control {
        Some(control) => {
            let written = toml_edit::ser::to_document(control).map_err(|error| NodeError::Config(error.to_string()))?;
            document.insert("control", Item::Table(written.as_table().clone()));
        }
        None => drop(document.remove("control")),
    }
    home.write_private(&home.config_file(), document.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn a_control_plane_is_written_and_taken_out_again() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(folder.path().to_owned()));
        std::fs::write(home.config_file(), "# mine\n[mesh]\nmdns = false\n").unwrap();
        let control = ControlConfig {
            url: "https://control.example".to_owned(),
            ca: Some("/etc/ca.pem".into()),
            issuer: Some(dawn_identity::Keypair::from_seed([1; 32]).node_id()),
            insecure: false,
        };
        set_control(&home, Some(&control)).unwrap();
        let config = Config::load(&home.config_file(), &Overrides::default()).unwrap();
        assert_eq!(config.control, Some(control));
        set_control(&home, None).unwrap();
        let text = std::fs::read_to_string(home.config_file()).unwrap();
        assert_eq!(text, "# mine\n[mesh]\nmdns = false\n");
    }

    #[test]
    fn agents_come_and_go_and_comments_stay() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(folder.path().to_owned()));
        std::fs::write(home.config_file(), "# mine\n[api]\nlisten = \"127.0.0.1:1\" # here\n").unwrap();
        let name: AgentName = "files".parse().unwrap();
        let mut agent = AgentConfig {
            command: Some(vec!["npx".into(), "a \"b\"".into()]),
            ..AgentConfig::default()
        };
        let _none = agent.env.insert("KEY".into(), "value".into());
        add_agent(&home, &name, &agent).unwrap();
        assert!(matches!(add_agent(&home, &name, &agent), Err(NodeError::Exists { .. })));
        let text = std::fs::read_to_string(home.config_file()).unwrap();
        assert!(
            text.starts_with("# mine\n[api]\nlisten = \"127.0.0.1:1\" # here\n"),
            "{text}"
        );
        let config = Config::load(&home.config_file(), &Overrides::default()).unwrap();
        assert_eq!(config.agents[&name], agent);
        remove_agent(&home, &name).unwrap();
        assert!(matches!(remove_agent(&home, &name), Err(NodeError::NotFound { .. })));
        assert_eq!(
            std::fs::read_to_string(home.config_file()).unwrap(),
            "# mine\n[api]\nlisten = \"127.0.0.1:1\" # here\n"
        );
    }
}
