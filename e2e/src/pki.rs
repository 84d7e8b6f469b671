//! Keys and certificates of one bed, made by openssl and valid for a month.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::cache::write;
use crate::error::{Error, Result, output_of};
use crate::network::{API_SERVICE, CONTROL};

/// A folder of keys, with the authority that signed them.
#[derive(Debug, Clone)]
pub(crate) struct Pki {
    pub(crate) folder: PathBuf,
}

// An own configuration, since distributions differ in what theirs adds to a certificate.
const SETTINGS: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = stationmaster-testbed
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
[client]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = clientAuth
";

impl Pki {
    /// Makes the authority, the API server's certificate and the key that signs tokens.
    pub(crate) fn found(folder: PathBuf) -> Result<Self> {
        let names = [
            "DNS:kubernetes",
            "DNS:kubernetes.default",
            "DNS:kubernetes.default.svc",
            "DNS:kubernetes.default.svc.cluster.local",
            "DNS:localhost",
            "IP:127.0.0.1",
            &format!("IP:{CONTROL}"),
            &format!("IP:{API_SERVICE}"),
        ];
        let server = format!(
            "[server]\nbasicConstraints = critical, CA:FALSE\nextendedKeyUsage = serverAuth\n\
             subjectAltName = {}\n",
            names.join(",")
        );
        write(&folder.join("openssl.cnf"), format!("{SETTINGS}{server}"))?;
        let pki = Self { folder };
        pki.issue("ca", "/CN=stationmaster-testbed", "authority", false)?;
        pki.issue("apiserver", "/CN=kube-apiserver", "server", true)?;
        let mut key = Command::new("openssl");
        key.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        output_of(key.arg("-out").arg(pki.key("tokens")))?;
        let mut public = Command::new("openssl");
        public.args(["pkey", "-pubout", "-in"]).arg(pki.key("tokens"));
        output_of(public.arg("-out").arg(pki.folder.join("tokens.pub")))?;
        Ok(pki)
    }

    /// Makes a client's certificate: who it is and, optionally, of which group.
    pub(crate) fn client(&self, file: &str, user: &str, group: Option<&str>) -> Result<()> {
        let group = group.map(|group| format!("/O={group}")).unwrap_or_default();
        self.issue(file, &format!("{group}/CN={user}"), "client", true)
    }

    fn issue(&self, file: &str, subject: &str, kind: &str, signed: bool) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-noenc", "-days", "30", "-subj", subject, "-extensions", kind, "-config"]);
        openssl.arg(self.folder.join("openssl.cnf"));
        if signed {
            openssl.arg("-CA").arg(self.certificate("ca")).arg("-CAkey").arg(self.key("ca"));
        }
        openssl.arg("-keyout").arg(self.key(file)).arg("-out").arg(self.certificate(file));
        output_of(&mut openssl).map(|_| ())
    }

    pub(crate) fn key(&self, file: &str) -> PathBuf {
        self.folder.join(format!("{file}.key"))
    }

    pub(crate) fn certificate(&self, file: &str) -> PathBuf {
        self.folder.join(format!("{file}.crt"))
    }

    /// Writes a kubeconfig for a client that was issued before.
    pub(crate) fn kubeconfig(&self, file: &str, to: &Path) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bed",
            "clusters": [{"name": "bed", "cluster": {
                "server": format!("https://{CONTROL}:6443"),
                "certificate-authority": self.certificate("ca"),
            }}],
            "users": [{"name": file, "user": {
                "client-certificate": self.certificate(file),
                "client-key": self.key(file),
            }}],
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": file}}],
        });
        write_json(to, &config)
    }
}

/// Writes a configuration as JSON, which every reader of YAML takes too.
pub(crate) fn write_json(to: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::Refused(format!("{}: {error}", to.display())))?;
    write(to, text)
}
