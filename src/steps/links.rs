//! Link variables: where a service listens, as variables that Docker's links and Wercker gave the box.
//!
//! `controller` says which services have them, `prepare` writes them. Only services that name their ports have any: who
//! gives ports asks for the variables.
//!
//! **Invariant:** pure. No value of a Secret is in one.

use crate::wire::ServiceLink;

/// How the link variables of a service begin.
#[must_use]
pub fn prefix(service: &str) -> String {
    service.to_ascii_uppercase().replace('-', "_")
}

/// The variables of a service whose address is `127.0.0.1`, as in all containers of a run.
#[must_use]
pub fn variables(link: &ServiceLink) -> Vec<(String, String)> {
    let prefix = prefix(&link.name);
    let mut all = vec![(format!("{prefix}_NAME"), format!("/box/{}", link.name))];
    if let Some(lowest) = link.ports.iter().min() {
        all.push((format!("{prefix}_PORT"), format!("tcp://{ADDRESS}:{lowest}")));
    }
    for port in &link.ports {
        let of_port = format!("{prefix}_PORT_{port}_TCP");
        all.push((format!("{of_port}_ADDR"), ADDRESS.to_owned()));
        all.push((format!("{of_port}_PORT"), port.to_string()));
        all.push((format!("{of_port}_PROTO"), "tcp".to_owned()));
        all.push((of_port, format!("tcp://{ADDRESS}:{port}")));
    }
    all.extend(link.env.iter().map(|(name, value)| (format!("{prefix}_ENV_{name}"), value.clone())));
    all
}

/// All containers of a run share one network.
const ADDRESS: &str = "127.0.0.1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_of_as_docker_did() {
        let env = vec![("POSTGRES_USER".to_owned(), "me".to_owned())];
        let link = ServiceLink { name: "my-db".into(), ports: vec![5433, 5432], env };
        let written: Vec<String> =
            variables(&link).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            written,
            [
                "MY_DB_NAME=/box/my-db",
                "MY_DB_PORT=tcp://127.0.0.1:5432",
                "MY_DB_PORT_5433_TCP_ADDR=127.0.0.1",
                "MY_DB_PORT_5433_TCP_PORT=5433",
                "MY_DB_PORT_5433_TCP_PROTO=tcp",
                "MY_DB_PORT_5433_TCP=tcp://127.0.0.1:5433",
                "MY_DB_PORT_5432_TCP_ADDR=127.0.0.1",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_5432_TCP=tcp://127.0.0.1:5432",
                "MY_DB_ENV_POSTGRES_USER=me",
            ]
        );
    }
}
