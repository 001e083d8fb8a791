//! An image that wants a password.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crd::BootcNodePool;
use crd::names::node_reason::ERROR;
use crd::names::{NAMESPACE_OPERATOR, condition, pool_reason};
use e2e::images::Image;
use e2e::view;
use e2e::wait::until;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::host_rig::{Rig, SOON};
use crate::trial;

/// The Secret's name.
const SECRET: &str = "fleet-registry";
/// Where bootc looks first.
const AUTH: &str = "/run/ostree/auth.json";
/// Where it looks next: the host's own.
const OWN: &str = "/etc/ostree/auth.json";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "host_secret::a_protected_image_is_pulled_with_the_pools_secret",
        a_protected_image_is_pulled_with_the_pools_secret,
    )]
}

/// Who may pull, and where.
struct Door {
    registry: String,
    user: String,
    password: String,
}

async fn a_protected_image_is_pulled_with_the_pools_secret() -> Result<()> {
    let rig = Rig::new(1).await?;
    let node = "node1";
    let door = Door::find(&rig).await?;
    rig.pool(node).await?;

    // By digest and without a secret: only the host asks the registry.
    let image = door.image(&rig, "2").await?;
    rig.set(node, &image).await?;
    rig.degraded(node, ERROR, "authentication required").await?;

    // A tag of it: the operator asks too, and is refused as well.
    let tagged = format!("{}:2", image.name);
    rig.patch(node, json!({ "spec": { "image": { "ref": tagged } } }))
        .await?;
    pool_says(&rig, node, pool_reason::TAG_RESOLUTION_ERROR, "").await?;

    // A secret that is not there is named; that the tag is unknown is still the worse of the two.
    let reference = json!({ "name": SECRET, "namespace": NAMESPACE_OPERATOR });
    rig.patch(node, json!({ "spec": { "pullSecretRef": reference } }))
        .await?;
    let words = format!("{SECRET} does not exist");
    pool_says(&rig, node, pool_reason::TAG_RESOLUTION_ERROR, &words).await?;

    // One whose password is wrong: the registry's word, and the Secret is on the host.
    door.set_secret(&rig, &door.login("wrong")).await?;
    pool_says(&rig, node, pool_reason::TAG_RESOLUTION_ERROR, "").await?;
    rig.set(node, &image).await?;
    until("the wrong password is on the host", SOON, async || {
        let said = rig.env.bink.ssh(node, &format!("cat {AUTH}")).await?;
        let wrong = door.encoded("wrong");
        Ok(said
            .stdout
            .contains(&wrong)
            .then_some(())
            .ok_or(said.stderr))
    })
    .await?;
    rig.degraded(node, ERROR, "authentication required").await?;

    // It is rotated: the host has the new one, and pulls.
    door.set_secret(&rig, &door.login(&door.password)).await?;
    rig.updated(node, &image).await.context("with a secret")?;
    let auth = rig
        .on(node, &format!("stat -c %a {AUTH} && cat {AUTH}"))
        .await?;
    ensure!(
        auth.starts_with("600") && auth.contains(&door.registry),
        "{AUTH} after the reboot is not the secret's, or readable by others"
    );

    // The host has credentials of its own, for this registry alone, and the Secret knows only another
    // one: each is used where it is needed, and the host's own file stays as it is.
    let other = json!({ "auths": { "elsewhere.example": { "auth": "eDp5" } } });
    let own = door.login(&door.password).to_string();
    rig.on(
        node,
        &format!("mkdir -p /etc/ostree && printf %s '{own}' > {OWN} && chmod 600 {OWN}"),
    )
    .await?;
    door.set_secret(&rig, &other).await?;
    let image = door.image(&rig, "3").await?;
    rig.set(node, &image).await?;
    rig.updated(node, &image)
        .await
        .context("with the host's own credentials")?;
    let auth = rig.on(node, &format!("cat {AUTH}")).await?;
    ensure!(
        auth.contains("elsewhere.example") && auth.contains(&door.registry),
        "{AUTH} has not both the host's own credentials and the secret's"
    );
    let kept = rig.on(node, &format!("cat {OWN}")).await?;
    ensure!(kept == own, "{OWN} was changed");

    // Back to images for everybody: the credentials leave the host, its own stay.
    let open = rig.env.images.push_os("4").await?;
    rig.patch(
        node,
        json!({ "spec": { "pullSecretRef": null, "image": { "ref": open.reference() } } }),
    )
    .await?;
    rig.updated(node, &open).await?;
    rig.on(node, &format!("test ! -e {AUTH} && test -s {OWN}"))
        .await?;
    rig.boots_were(node, &["reboot"; 3]).await
}

impl Door {
    async fn find(rig: &Rig) -> Result<Self> {
        let said = rig.env.bink.bed(["registry-auth"]).await?;
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
                .with_context(|| format!("bink bed registry-auth does not say {name}"))
        };
        Ok(Self {
            registry: value("Registry:")?,
            user: value("User:")?,
            password: value("Password:")?,
        })
    }

    /// An OS image by the name that it has behind the door.
    async fn image(&self, rig: &Rig, version: &str) -> Result<Image> {
        let open = rig.env.images.push_os(version).await?;
        let (_, repository) = open
            .name
            .split_once('/')
            .context("an image without a registry")?;
        Ok(Image {
            name: format!("{}/{repository}", self.registry),
            digest: open.digest,
        })
    }

    /// The user with this password, as registries want it.
    fn encoded(&self, password: &str) -> String {
        STANDARD.encode(format!("{}:{password}", self.user))
    }

    /// The same as a file of credentials.
    fn login(&self, password: &str) -> Value {
        json!({ "auths": { &self.registry: { "auth": self.encoded(password) } } })
    }

    /// Makes the Secret, or changes it.
    async fn set_secret(&self, rig: &Rig, login: &Value) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": SECRET },
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": { ".dockerconfigjson": login.to_string() },
        });
        let params = PatchParams::apply("an-admin").force();
        Api::<Secret>::namespaced(rig.env.client.clone(), NAMESPACE_OPERATOR)
            .patch(SECRET, &params, &Patch::Apply(secret))
            .await?;
        Ok(())
    }
}

/// Waits until a host's pool is Degraded for this reason, with these words.
async fn pool_says(rig: &Rig, node: &str, reason: &str, words: &str) -> Result<()> {
    let pools = Api::<BootcNodePool>::all(rig.env.client.clone());
    until(
        &format!("the pool of {node} is Degraded by {reason}"),
        SOON,
        async || {
            let pool = pools.get(&format!("only-{node}")).await?;
            let status = pool.status.unwrap_or_default();
            let degraded = view::condition(&status.conditions, condition::DEGRADED);
            Ok(match degraded {
                Some(it) if it.reason == reason && it.message.contains(words) => Ok(()),
                other => Err(format!("{other:?}")),
            })
        },
    )
    .await
}
