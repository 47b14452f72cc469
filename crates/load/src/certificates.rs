//! Which certificates of a server are trusted: those of the system or of `SSL_CERT_FILE`, as curl and Python do it. They
//! take a self-signed certificate that is listed itself, which rustls refuses as one of an authority.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// Verifies the certificate of a server. The signatures of the handshake are always checked, as TLS cannot do without.
#[derive(Debug)]
pub struct Certificates {
    algorithms: WebPkiSupportedAlgorithms,
    trusted: Trusted,
}

#[derive(Debug)]
enum Trusted {
    Any,
    Known { system: Box<Verifier>, listed: Vec<CertificateDer<'static>> },
}

impl Certificates {
    /// Trusts the certificates of the system.
    ///
    /// # Errors
    /// There is none, or none can be read.
    pub fn of_system(provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let algorithms = provider.signature_verification_algorithms;
        let listed = rustls_native_certs::load_native_certs().certs;
        Ok(Self { algorithms, trusted: Trusted::Known { system: Box::new(Verifier::new(provider)?), listed } })
    }

    /// Trusts every certificate.
    pub fn any(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, trusted: Trusted::Any }
    }
}

impl ServerCertVerifier for Certificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trusted::Known { system, listed } = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        match system.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // This is found after the dates of the certificate are checked, and before its name.
            Err(Error::InvalidCertificate(CertificateError::Other(other)))
                if other.to_string().contains("CaUsedAsEndEntity") && listed.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
