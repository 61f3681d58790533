//! The connection to the query service: requests, and errors with a remedy. The service is at a URL, or a Service of a
//! cluster that is asked through its API server.

mod connection;
mod error;
mod options;

use reqwest::StatusCode;
use serde::{Serialize, de::DeserializeOwned};

use self::connection::{Answer, Connection};
pub(crate) use self::{
    error::ServiceError,
    options::{ServiceOptions, USUAL_SERVICE},
};

/// A client of one query service.
pub(crate) struct Service(Connection);

const GIVEN_UP: [StatusCode; 3] =
    [StatusCode::GATEWAY_TIMEOUT, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];

impl Service {
    /// Reads the token; asks the service nothing yet.
    pub(crate) async fn connect(options: &ServiceOptions) -> Result<Self, ServiceError> {
        Connection::open(options.target()).await.map(Self)
    }

    /// Parameters without a value are left out.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, Option<String>)],
    ) -> Result<T, ServiceError> {
        let given: Vec<_> = parameters.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?))).collect();
        self.read(self.0.get(path, &given).await?)
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ServiceError> {
        let body = serde_json::to_vec(body).map_err(|error| self.not_understood(&error))?;
        self.read(self.0.post(path, body).await?)
    }

    fn read<T: DeserializeOwned>(&self, answer: Answer) -> Result<T, ServiceError> {
        let Answer { status, body } = answer;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.not_understood(&error));
        }
        let server = self.0.name();
        if status == StatusCode::UNAUTHORIZED {
            return Err(ServiceError::Unauthorized { server, from: self.0.token_from() });
        }
        match serde_json::from_slice(&body) {
            Ok(answer) => Err(ServiceError::Answer(answer)),
            // A proxy's words, or none.
            Err(_) if GIVEN_UP.contains(&status) => Err(ServiceError::GaveUp { server, status }),
            Err(_) => {
                let beginning = String::from_utf8_lossy(&body).chars().take(200).collect();
                Err(ServiceError::NotAService { server, status, beginning })
            }
        }
    }

    fn not_understood(&self, error: &serde_json::Error) -> ServiceError {
        ServiceError::NotUnderstood { server: self.0.name(), reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests;
