//! Tells an operator what to enter in new-api: addresses, and where the secret is.
//!
//! The log never shows the secret; only `serve --print-setup`, which was asked to, does.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use secrecy::ExposeSecret;

use crate::config::Settings;

/// The name by which containers reach their host, where the engine is told so.
const DOCKER_HOST: &str = "host.docker.internal";

/// What is needed to point new-api here.
pub struct Setup<'a> {
    pub settings: &'a Settings,
    /// The address that is listened on, with the port that was given.
    pub listen: SocketAddr,
    /// Where a generated secret lies.
    pub secret_file: Option<&'a Path>,
}

impl Setup<'_> {
    /// One line for each fact, without the secret.
    pub fn log(&self) {
        let settings = self.settings;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            address = %self.listen,
            database = %settings.database.url,
            admin_socket = %settings.admin.socket.display(),
            "hookledger is listening"
        );
        if let Some(file) = self.secret_file {
            tracing::info!(file = %file.display(), "the webhook secret is in this file");
        }
    }

    /// What to paste into new-api, the secret included.
    pub fn print(&self) {
        println!("{}", self.text());
    }

    fn text(&self) -> String {
        let events = format!("{}/events", self.settings.server.webhook_path);
        let port = self.listen.port();
        let mut lines = vec![
            "hookledger is running. Enter in new-api (options of the webhook sender):".to_owned(),
            String::new(),
            format!("  webhook_url     {}", url(self.host_on_this_machine(), port, &events)),
        ];
        if let Some(secret) = self.settings.webhook.secrets.first() {
            lines.push(format!("  webhook_secret  {}", secret.expose_secret()));
        }
        lines.push(String::new());
        lines.push("If new-api runs in a container on this machine, its webhook_url is one of:".to_owned());
        lines.push(String::new());
        lines.push(format!("  http://{DOCKER_HOST}:{port}{events}"));
        lines.extend(bridge_addresses().into_iter().map(|address| format!("  {}", url(address, port, &events))));
        if self.listen.ip().is_loopback() {
            lines.push(String::new());
            lines.push(format!(
                "  A container cannot reach {}: start with HOOKLEDGER__SERVER__LISTEN=0.0.0.0:{port}",
                self.listen
            ));
        }
        lines.push(String::new());
        lines.push(format!("Database:       {}", self.settings.database.url));
        if let Some(file) = self.secret_file {
            lines.push(format!("Secret kept in: {}", file.display()));
        }
        let program = std::env::args().next().unwrap_or_else(|| "hookledger".to_owned());
        lines.push(format!("Prove the path: {program} send --ping"));
        lines.join("\n")
    }

    fn host_on_this_machine(&self) -> IpAddr {
        match self.listen.ip() {
            address if address.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            address => address,
        }
    }
}

fn url(address: IpAddr, port: u16, path: &str) -> String {
    format!("http://{}{path}", SocketAddr::new(address, port))
}

/// IPv4 addresses of this machine that are not loopback: the container engine's bridge is among them.
fn bridge_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let addresses = interfaces.into_iter().map(|interface| interface.ip());
    addresses.filter(|address| address.is_ipv4() && !address.is_loopback()).collect()
}
