//! The HTTP client as the command line uses it: towards the user's own daemon, past any proxy, one answer per request.

use std::error::Error;
use std::io;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};

use super::failure::Failure;

/// A builder for plain HTTP, which works on machines without any CA certificate.
pub fn plain() -> ClientBuilder {
    encrypted().tls_certs_only([])
}

/// A builder that trusts the machine's own CA certificates.
pub fn encrypted() -> ClientBuilder {
    // The library takes its cryptography from here, even to speak none. A second call changes nothing.
    rustls::crypto::ring::default_provider().install_default().ok();
    Client::builder().no_proxy().redirect(Policy::none()).http1_only()
}

pub fn build(builder: ClientBuilder) -> Result<Client, Failure> {
    builder
        .build()
        .map_err(|error| Failure::refused(format!("the HTTP client cannot be set up: {}", innermost(&error))))
}

/// Kind of the operating system's error at the bottom of a failed request, if it was one.
pub fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// Why a request had no answer, in few words and without what differs from one request to the next.
pub fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    match io_kind(error) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => "connection closed".to_owned(),
        _ => innermost(error),
    }
}

/// The deepest cause: the layers above it only say that there was one.
fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}
