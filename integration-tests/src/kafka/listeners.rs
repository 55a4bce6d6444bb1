//! Brokers with more than one listener.

use anyhow::Result;
use kmr_testkit::{Kafka, KafkaBuilder, free_port};

/// A broker for one test with a second listener, and the address of that one. It advertises
/// `advertised`, where nothing listens.
///
/// # Errors
///
/// When no broker can be started.
pub async fn with_false_listener(advertised: u16) -> Result<(Kafka, String)> {
    let second = free_port()?;
    let kafka = proxied(second, advertised)?.start().await?;
    Ok((kafka, format!("127.0.0.1:{second}")))
}

/// A broker for one test with more listeners, each with a name and a security protocol, and their
/// addresses. `settings`: names as in Kafka's properties.
///
/// # Errors
///
/// When no broker can be started.
pub async fn with_listeners(
    more: &[(&str, &str)],
    settings: &[(&str, String)],
) -> Result<(Kafka, Vec<String>)> {
    let (port, controller) = (free_port()?, free_port()?);
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{port}");
    let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    let mut addresses = Vec::new();
    for (name, protocol) in more {
        let address = format!("127.0.0.1:{}", free_port()?);
        listeners.push_str(&format!(",{name}://{address}"));
        protocols.push_str(&format!(",{name}:{protocol}"));
        addresses.push(address);
    }
    let builder = with_controller(port, controller)
        .setting("listeners", format!("{listeners},CONTROLLER://127.0.0.1:{controller}"))
        .setting("advertised.listeners", listeners)
        .setting("listener.security.protocol.map", protocols)
        .setting("inter.broker.listener.name", "PLAINTEXT");
    let set = settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value.clone()));
    Ok((set.start().await?, addresses))
}

/// A listener for the test itself, and one at `behind` whose advertised address is that of a proxy,
/// or of nothing.
pub(super) fn proxied(behind: u16, proxy: u16) -> Result<KafkaBuilder> {
    let (port, controller) = (free_port()?, free_port()?);
    let own = format!("PLAINTEXT://127.0.0.1:{port}");
    Ok(with_controller(port, controller)
        .setting(
            "listeners",
            format!("{own},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}"),
        )
        .setting("advertised.listeners", format!("{own},PROXIED://127.0.0.1:{proxy}"))
        .setting(
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        ))
}

/// A listener with SASL/SCRAM-SHA-512 at `clients`, and one without authentication for
/// administration. Clients of the latter (`User:ANONYMOUS`) are super users. All others need an
/// ACL.
pub(super) fn secured(clients: u16, admin: &str) -> Result<KafkaBuilder> {
    let (internal, controller) = (free_port()?, free_port()?);
    let listeners = format!("CLIENTS://127.0.0.1:{clients},INTERNAL://127.0.0.1:{internal}");
    let jaas = "listener.name.clients.scram-sha-512.sasl.jaas.config";
    Ok(with_controller(internal, controller)
        .setting("listeners", format!("{listeners},CONTROLLER://127.0.0.1:{controller}"))
        .setting("advertised.listeners", listeners)
        .setting(
            "listener.security.protocol.map",
            "CLIENTS:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        )
        .setting("inter.broker.listener.name", "INTERNAL")
        .setting("sasl.enabled.mechanisms", "SCRAM-SHA-512")
        .setting(jaas, "org.apache.kafka.common.security.scram.ScramLoginModule required;")
        .setting("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .setting("super.users", format!("User:ANONYMOUS;User:{admin}")))
}

fn with_controller(port: u16, controller: u16) -> KafkaBuilder {
    let voters = format!("1@127.0.0.1:{controller}");
    Kafka::builder().port(port).setting("controller.quorum.voters", voters)
}
