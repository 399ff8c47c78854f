//! The texts of UPnP: pure. What is looked for in them is found by its tags; nothing else is understood, or needs to be.

use std::fmt::Write as _;
use std::net::SocketAddrV4;

/// Services that map ports, the newest first.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// The question to everybody on the network who maps ports.
pub(super) const SEARCH: &str = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\
    ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";

/// Something at a server: `http://192.168.1.1:5000/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) server: SocketAddrV4,
    pub(super) path: String,
}

impl Place {
    fn read(url: &str) -> Option<Self> {
        const HTTP: u16 = 80;
        let rest = url.trim().strip_prefix("http://")?;
        let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
        let server = match server.parse() {
            Ok(server) => server,
            Err(_) => SocketAddrV4::new(server.parse().ok()?, HTTP),
        };
        is_clean(path).then(|| Self {
            server,
            path: format!("/{path}"),
        })
    }

    /// What a path or an address in a description of this place means.
    fn beside(&self, path: &str) -> Option<Self> {
        let path = path.trim();
        if path.starts_with("http://") {
            // A description speaks for its own server only.
            return Self::read(path).filter(|place| place.server == self.server);
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        is_clean(path).then(|| Self {
            server: self.server,
            path: format!("/{path}"),
        })
    }
}

/// Nothing that would end a line of a request.
fn is_clean(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Where the description of a gateway is, from its answer to the search.
pub(super) fn location(answer: &str) -> Option<Place> {
    let mut lines = answer.lines();
    if !lines.next()?.contains("200") {
        return None;
    }
    lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("location")
            .then(|| Place::read(value))?
    })
}

/// The text between the first tags of this name.
pub(super) fn value<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let begin = text.find(&format!("<{tag}>"))? + tag.len() + 2;
    let end = text[begin..].find(&format!("</{tag}>"))? + begin;
    Some(text[begin..end].trim())
}

/// The service of a description that maps ports, and where it is controlled.
pub(super) fn service(description: &str, at: &Place) -> Option<(&'static str, Place)> {
    SERVICES.into_iter().find_map(|service| {
        let found = description.find(service)?;
        let rest = &description[found..];
        let whole = &rest[..rest.find("</service>")?];
        Some((service, at.beside(value(whole, "controlURL")?)?))
    })
}

/// A call of an action. The arguments are numbers, addresses and words of this node's own.
pub(super) fn call(service: &str, action: &str, arguments: &[(&str, String)]) -> String {
    let mut body = String::from(
        "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>",
    );
    // Writing to a string does not fail.
    let _ = write!(body, "<u:{action} xmlns:u=\"{service}\">");
    for (name, value) in arguments {
        let _ = write!(body, "<{name}>{value}</{name}>");
    }
    let _ = write!(body, "</u:{action}></s:Body></s:Envelope>\r\n");
    body
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const DESCRIPTION: &str = "<root><device><serviceList>\
        <service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/l3</controlURL></service>\
        <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
        <SCPDURL>/x.xml</SCPDURL><controlURL>ctl/ip</controlURL></service></serviceList></device></root>";

    fn place() -> Place {
        Place::read("http://192.168.1.1:5000/root.xml").unwrap()
    }

    #[test]
    fn an_answer_says_where_the_description_is() {
        let answer = "HTTP/1.1 200 OK\r\nST: x\r\nLocation: http://192.168.1.1:5000/root.xml\r\n\r\n";
        assert_eq!(location(answer), Some(place()));
        assert_eq!(
            Place::read("http://10.0.0.1").unwrap().server,
            "10.0.0.1:80".parse().unwrap()
        );
        for other in [
            "HTTP/1.1 404 Not Found\r\nLocation: http://192.168.1.1:5000/\r\n\r\n",
            "HTTP/1.1 200 OK\r\nLocation: https://192.168.1.1/\r\n\r\n",
            "HTTP/1.1 200 OK\r\nLocation: http://example.org/\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "",
        ] {
            assert_eq!(location(other), None, "{other}");
        }
    }

    #[test]
    fn the_service_that_maps_ports_is_found_and_only_at_the_same_server() {
        let (service, control) = super::service(DESCRIPTION, &place()).unwrap();
        assert!(service.ends_with("WANIPConnection:1"));
        assert_eq!((control.server, control.path.as_str()), (place().server, "/ctl/ip"));
        let elsewhere = DESCRIPTION.replace("ctl/ip", "http://192.168.1.9:5000/ctl");
        assert_eq!(super::service(&elsewhere, &place()), None);
        let split = DESCRIPTION.replace("ctl/ip", "ctl HTTP/1.1\r\nX: y");
        assert_eq!(super::service(&split, &place()), None);
    }

    #[test]
    fn a_call_names_its_service_and_arguments() {
        let body = call("urn:x", "Add", &[("NewPort", "7".into())]);
        assert!(
            body.contains("<u:Add xmlns:u=\"urn:x\"><NewPort>7</NewPort></u:Add>"),
            "{body}"
        );
        assert_eq!(value(&body, "NewPort"), Some("7"));
        assert_eq!(value(&body, "Other"), None);
    }

    proptest! {
        #[test]
        fn whatever_a_gateway_says_is_read_or_not(text in ".{0,200}", tags in "[<>/a-zA-Z:]{0,80}") {
            let _ = (location(&text), value(&text, "errorCode"), value(&tags, "a"));
            let text = format!("{}{tags}</service>", SERVICES[0]);
            let _ = service(&text, &place());
        }
    }
}
