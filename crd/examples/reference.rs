//! Prints the field reference of both kinds, made from their CRDs: `cargo run -p crd --example
//! reference` prints what stands in `deploy/docs/reference.md`, and with `--write` puts it there.

use std::{error::Error, fmt::Write as _};

use crd::{BootcNode, BootcNodePool};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt as _;

/// Where it is kept.
pub(crate) const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/docs/reference.md");
const HEAD: &str = "<!-- generated: cargo run -p crd --example reference -- --write -->\n
# Fields\n
Both kinds are of the group `node.bootc.dev`, version `v1alpha1`, and belong to no namespace. What the schema can refuse,
the API server refuses with a sentence; what only the operator can see becomes a
[condition](conditions.md).\n";

/// The whole page.
pub(crate) fn page() -> String {
    let mut page = HEAD.to_owned();
    kind(&mut page, &BootcNodePool::crd(), "Written by people.");
    kind(
        &mut page,
        &BootcNode::crd(),
        "The operator writes `spec`, the agent on the node `status`; it is for people to read.",
    );
    page
}

fn kind(page: &mut String, crd: &CustomResourceDefinition, who: &str) {
    let names = &crd.spec.names;
    let short = names.short_names.iter().flatten().next();
    let short = short.map_or("", String::as_str);
    let version = crd.spec.versions.first();
    let schema = version.and_then(|it| it.schema.as_ref()?.open_api_v3_schema.as_ref());
    let Some(schema) = schema else { return };
    let about = schema.description.as_deref().unwrap_or_default();
    let _ = write!(page, "\n## {} (`{short}`)\n\n{about} {who}\n", names.kind);
    for part in ["spec", "status"] {
        let Some(props) = schema.properties.iter().flatten().find(|it| it.0 == part) else {
            continue;
        };
        let _ = write!(
            page,
            "\n### {} {part}\n\n| field | type | meaning |\n|---|---|---|\n",
            names.kind
        );
        rows(page, part, props.1);
    }
}

fn rows(page: &mut String, path: &str, props: &JSONSchemaProps) {
    let required = props.required.as_deref().unwrap_or_default();
    for (name, field) in props.properties.iter().flatten() {
        let is_list = field.items.is_some();
        let path = format!("{path}.{name}{}", if is_list { "[]" } else { "" });
        let meaning = meaning(field, required.contains(name));
        let _ = writeln!(page, "| `{path}` | {} | {meaning} |", type_of(field));
        let inner = match &field.items {
            Some(JSONSchemaPropsOrArray::Schema(item)) => item,
            _ => field,
        };
        // Conditions are Kubernetes' own, and have a page of their own.
        if name != "conditions" {
            rows(page, &path, inner);
        }
    }
}

fn type_of(field: &JSONSchemaProps) -> String {
    if field.x_kubernetes_int_or_string == Some(true) {
        return "integer or string".to_owned();
    }
    let plain = field.type_.as_deref().unwrap_or("any");
    match (&field.items, &field.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(item)), _) => {
            format!("list of {}", item.type_.as_deref().unwrap_or("any"))
        }
        (_, Some(_)) => "map of strings".to_owned(),
        _ => match field.format.as_deref() {
            Some("date-time") => "time".to_owned(),
            _ => plain.to_owned(),
        },
    }
}

/// The sentence of the type, and what the API server insists on.
fn meaning(field: &JSONSchemaProps, required: bool) -> String {
    let mut parts = Vec::new();
    parts.extend(field.description.clone());
    if required {
        parts.push("Required.".to_owned());
    }
    let values = field.enum_.iter().flatten();
    let values: Vec<_> = values
        .map(|value| format!("`{}`", plain(&value.0)))
        .collect();
    if !values.is_empty() {
        parts.push(format!("One of {}.", values.join(", ")));
    }
    if let Some(default) = field.default.as_ref().filter(|it| !it.0.is_object()) {
        parts.push(format!("Default: `{}`.", plain(&default.0)));
    }
    let rules = field.x_kubernetes_validations.iter().flatten();
    let rules = rules.filter_map(|rule| rule.message.clone());
    parts.extend(rules.map(|rule| match rule.strip_prefix("must") {
        Some(rest) => format!("It must{rest}."),
        None => format!("Rule: {rule}."),
    }));
    parts.extend(limits(field));
    // A cell of a table is one line.
    let cell = parts.join(" ").replace('\n', " ");
    cell.replace('|', "\\|").replace('<', "&lt;")
}

fn limits(field: &JSONSchemaProps) -> Option<String> {
    #[expect(clippy::cast_possible_truncation, reason = "limits are whole numbers")]
    match (
        field.minimum.map(|it| it as i64),
        field.maximum.map(|it| it as i64),
    ) {
        (Some(least), Some(most)) => Some(format!("From {least} to {most}.")),
        (Some(least), None) => Some(format!("From {least}.")),
        _ => None,
    }
}

fn plain(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("--write") {
        std::fs::write(FILE, page())?;
    } else {
        print!("{}", page());
    }
    Ok(())
}
