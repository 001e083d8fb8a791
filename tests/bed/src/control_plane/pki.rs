//! Keys and certificates of a control plane.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::Addresses;

/// The service address of the API server: the first of the services' range.
pub(super) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Who a client certificate stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub user: String,
    /// The user's group, beside `system:authenticated`.
    pub group: Option<String>,
}

impl Identity {
    /// A user of no group.
    #[must_use]
    pub fn user(name: &str) -> Self {
        Self {
            user: name.to_owned(),
            group: None,
        }
    }

    /// A user of a group.
    #[must_use]
    pub fn member(name: &str, group: &str) -> Self {
        Self {
            user: name.to_owned(),
            group: Some(group.to_owned()),
        }
    }

    /// Who may do everything.
    #[must_use]
    pub fn admin() -> Self {
        Self::member("admin", "system:masters")
    }

    /// The kubelet of a node.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self::member(&format!("system:node:{name}"), "system:nodes")
    }
}

/// A certificate and its key, both in PEM.
#[derive(Clone)]
pub struct KeyedCertificate {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS #8).
    pub key: String,
}

impl std::fmt::Debug for KeyedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedCertificate")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// A certificate authority and what it issues.
pub struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes an authority and the files that the components need, in `dir`.
    pub(super) fn create(dir: &Path, addresses: &Addresses) -> Result<Self> {
        fs::create_dir_all(dir).context("cannot make the directory of the certificates")?;
        let key = KeyPair::generate()?;
        let authority_key = key.serialize_pem();
        let pki = Self {
            authority: CertifiedIssuer::self_signed(authority_params()?, key)?,
        };
        write(
            dir,
            "ca",
            &KeyedCertificate {
                certificate: pki.certificate(),
                key: authority_key,
            },
        )?;
        write(
            dir,
            "api-server",
            &pki.server(&[*addresses.server.ip(), addresses.advertise, API_SERVICE])?,
        )?;
        write(
            dir,
            "kubelet-client",
            &pki.client(&Identity::member("kube-apiserver", "system:masters"))?,
        )?;
        let accounts = KeyPair::generate()?;
        fs::write(dir.join("service-accounts.pub"), accounts.public_key_pem())?;
        write_secret(&dir.join("service-accounts.key"), &accounts.serialize_pem())?;
        Ok(pki)
    }

    /// The authority's own certificate in PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.authority.pem()
    }

    /// A client certificate: the common name is the user, the organisation is
    /// the group.
    pub fn client(&self, who: &Identity) -> Result<KeyedCertificate> {
        let mut params = params(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, &who.user);
        if let Some(group) = &who.group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params)
    }

    /// A server certificate for the addresses, `localhost` and the names of
    /// the service `kubernetes`.
    fn server(&self, addresses: &[Ipv4Addr]) -> Result<KeyedCertificate> {
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let mut params = params(names.map(str::to_owned).to_vec())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        let all = addresses.iter().chain(&[Ipv4Addr::LOCALHOST]);
        params
            .subject_alt_names
            .extend(all.map(|address| SanType::IpAddress(IpAddr::V4(*address))));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Result<KeyedCertificate> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        Ok(KeyedCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn authority_params() -> Result<CertificateParams> {
    let mut params = params(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "bed");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(params)
}

/// Valid for a year around now: a test run is far shorter, a sandbox may stay.
fn params(names: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = OffsetDateTime::now_utc() - Duration::DAY;
    params.not_after = OffsetDateTime::now_utc() + Duration::days(364);
    Ok(params)
}

fn write(dir: &Path, name: &str, pair: &KeyedCertificate) -> Result<()> {
    fs::write(dir.join(format!("{name}.crt")), &pair.certificate)?;
    write_secret(&dir.join(format!("{name}.key")), &pair.key)
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
