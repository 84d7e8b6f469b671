//! The contract for programs: OpenAPI 3.1, made from the types that handlers read and write.

use bytes::Bytes;
use hyper::Request;
use hyper::header::HeaderValue;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::identity::{Identity, SUBJECT_BYTES_MAX};
use super::orders::{OrderBody, OrdersBody, PlaceBody};
use super::payment::{Event, Provider, SandboxPayment, Succeeded};
use super::problem::{KINDS, TYPES};
use super::runs::{RunBody, RunsBody};
use super::sale::SaleBody;
use super::{Front, Reply, tag_of, tagged};

/// The contract changes with the program only.
const CACHE: &str = "public, max-age=300";

/// A problem (RFC 9457). Which types there are, what each means, and whether to try again:
/// `docs/problems.md`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
struct ProblemBody {
    /// Names the kind of problem.
    #[serde(rename = "type")]
    #[schemars(transform = kinds)]
    kind: String,
    /// The kind in words.
    title: String,
    /// As in the answer's head.
    status: u16,
    /// What is special this time.
    detail: String,
}

/// The set of types is closed.
fn kinds(schema: &mut schemars::Schema) {
    let kinds = KINDS.iter().map(|kind| format!("{TYPES}{kind}"));
    schema.insert("enum".to_owned(), kinds.collect::<Vec<_>>().into());
}

/// The contract, as it is sent.
#[derive(Debug)]
pub(crate) struct Contract {
    text: Bytes,
    tag: HeaderValue,
}

impl Contract {
    pub(crate) fn of(front: &Front) -> Self {
        let text = document(&front.identity, &front.payment).to_string();
        Self { tag: tag_of(text.as_bytes()), text: text.into() }
    }

    /// `GET /openapi.json`
    pub(crate) fn reply(&self, request: &Request<Bytes>) -> Reply {
        let body = || self.text.clone();
        tagged(request.headers(), &self.tag, CACHE, "application/json", body)
    }
}

/// The whole document. A header that a gateway sets is no proof of anything to who reads this, so
/// it is a parameter and no security scheme.
fn document(identity: &Identity, payment: &Provider) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut types = settings.into_generator();
    let mut paths = paths(&mut types, payment);
    let problem = types.subschema_for::<ProblemBody>();
    let problem = json!({
        "description": "A problem",
        "headers": {"Retry-After": {
            "description": "In how many seconds to try again with the same Idempotency-Key",
            "schema": {"type": "integer", "minimum": 0},
        }},
        "content": {"application/problem+json": {"schema": problem}},
    });
    let mut components = json!({
        "schemas": types.take_definitions(true),
        "responses": {"Problem": problem},
    });
    let buyers = |paths: &mut Value, add: &dyn Fn(&mut Value)| {
        let word = matches!(payment, Provider::Sandbox);
        let of_a_buyer = OF_A_BUYER.iter().filter(|(page, _)| word || !page.ends_with("payment"));
        for (page, method) in of_a_buyer {
            add(&mut paths[page][method]);
        }
    };
    match identity {
        Identity::Token(_) => {
            let scheme = json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"});
            components["securitySchemes"] = json!({ "token": scheme });
            buyers(&mut paths, &|operation| operation["security"] = json!([{"token": []}]));
        }
        Identity::Header { name, .. } => {
            let header = json!({"name": name.as_str(), "in": "header", "required": true,
                "description": "The buyer, as a trusted gateway names them",
                "schema": {"type": "string", "minLength": 1, "maxLength": SUBJECT_BYTES_MAX}});
            buyers(&mut paths, &|operation| {
                if operation["parameters"].is_null() {
                    operation["parameters"] = json!([]);
                }
                if let Value::Array(parameters) = &mut operation["parameters"] {
                    parameters.push(header.clone());
                }
            });
        }
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Stationmaster",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Buys train tickets.",
            "description": "One press is one order: an order is placed with an Idempotency-Key, \
                and whoever does not know how it went asks again with the same one, at any node.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": components,
    })
}

/// What only a buyer may ask.
const OF_A_BUYER: [(&str, &str); 5] = [
    ("/v1/orders", "get"),
    ("/v1/orders", "post"),
    ("/v1/orders/{id}", "get"),
    ("/v1/orders/{id}", "delete"),
    ("/v1/orders/{id}/payment", "post"),
];

fn query(name: &str, what: &str) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": what,
        "schema": {"type": "string"}})
}

fn path(name: &str, what: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": what,
        "schema": {"type": "string", "minLength": 1}})
}

/// An answer of some type, and the problems beside it.
fn answers(good: &[(&str, &str, Option<Value>)], problems: &[&str]) -> Value {
    let mut all = Map::new();
    for (status, what, schema) in good {
        let mut answer = json!({ "description": what });
        if let Some(schema) = schema {
            answer["content"] = json!({"application/json": {"schema": schema}});
        }
        if *status == "201" {
            answer["links"] = links();
        }
        all.insert((*status).to_owned(), answer);
    }
    for status in problems {
        let problem = json!({"$ref": "#/components/responses/Problem"});
        all.insert((*status).to_owned(), problem);
    }
    all.into()
}

/// What can be done with an order that was placed.
fn links() -> Value {
    let link = |operation: &str| json!({"operationId": operation, "parameters": {"id": "$response.body#/id"}});
    json!({"read": link("readOrder"), "pay": link("payOrder"), "end": link("endOrder")})
}

fn body(schema: &Value) -> Value {
    json!({"required": true, "content": {"application/json": {"schema": schema}}})
}

fn paths(types: &mut SchemaGenerator, payment: &Provider) -> Value {
    let of = |schema: schemars::Schema| Value::from(schema);
    let sale = of(types.subschema_for::<SaleBody<'_>>());
    let runs = of(types.subschema_for::<RunsBody<'_>>());
    let run = of(types.subschema_for::<RunBody<'_>>());
    let place = of(types.subschema_for::<PlaceBody<'_>>());
    let order = of(types.subschema_for::<OrderBody<'_>>());
    let orders = of(types.subschema_for::<OrdersBody<'_>>());
    let signature = |name: &str| {
        json!({"name": name, "in": "header", "required": true,
            "description": "As in Standard Webhooks", "schema": {"type": "string"}})
    };
    let (pays, said, signatures) = match payment {
        Provider::Sandbox => {
            let said = of(types.subschema_for::<SandboxPayment>());
            ("Pay, by the buyer's word: this sale is a sandbox", said, Vec::new())
        }
        Provider::Webhook(_) => {
            // Named by the event's `data`, which is read only where the type says so.
            let _ = types.subschema_for::<Succeeded>();
            let said = of(types.subschema_for::<Event>());
            let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
            ("The payment provider's signed webhook", said, names.map(signature).to_vec())
        }
    };
    let pay_parameters: Vec<Value> =
        std::iter::once(path("id", "The order")).chain(signatures).collect();
    let mut of_run = query("run", "Only of this run, TRAIN/DATE");
    of_run["schema"]["pattern"] = json!("^[A-Za-z0-9_-]{1,16}/[0-9]{4}-[0-9]{2}-[0-9]{2}$");
    let journey = || {
        vec![
            query("from", "The code of the stop where the journey begins; the first, if not given"),
            query("to", "The code of the stop where it ends; the last, if not given"),
        ]
    };
    let mut listed = journey();
    listed.push(query("date", "Only runs of this date, YYYY-MM-DD"));
    let mut one = vec![path("train", "The train"), path("date", "The date of its first departure")];
    one.extend(journey());
    let key = json!({"name": "Idempotency-Key", "in": "header", "required": true,
        "description": "Names the order: the same key is the same order, on any node. A UUID.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128}});
    let id = path("id", "The order");
    let plain = |operation: &str, what: &str, status: &[(&str, &str, Option<Value>)]| {
        json!({"get": {"operationId": operation, "summary": what,
            "responses": answers(status, &[])}})
    };
    json!({
        "/v1/sale": {"get": {
            "operationId": "readSale", "summary": "What is sold here, and how to buy it",
            "responses": answers(
                &[("200", "The sale", Some(sale)), ("304", "As you know it", None)], &["503"]),
        }},
        "/v1/runs": {"get": {
            "operationId": "listRuns", "summary": "Runs, and what is free on a journey of each",
            "parameters": listed,
            "responses": answers(
                &[("200", "The runs", Some(runs)), ("304", "As you know it", None)],
                &["422", "503"]),
        }},
        "/v1/runs/{train}/{date}": {"get": {
            "operationId": "readRun", "summary": "One run, and what is free on it",
            "parameters": one,
            "responses": answers(
                &[("200", "The run", Some(run)), ("304", "As you know it", None)],
                &["404", "422", "503"]),
        }},
        "/v1/orders": {
            "get": {
                "operationId": "listOrders", "summary": "The buyer's orders",
                "parameters": [of_run],
                "responses": answers(
                    &[("200", "The orders", Some(orders))], &["401", "403", "404", "422", "503"]),
            },
            "post": {
                "operationId": "placeOrder", "summary": "Hold seats",
                "parameters": [key], "requestBody": body(&place),
                "responses": answers(
                    &[("201", "The seats are held", Some(order.clone())),
                        ("200", "The order that this key has placed before", Some(order.clone()))],
                    &["400", "401", "403", "404", "408", "409", "413", "422", "503"]),
            },
        },
        "/v1/orders/{id}": {
            "get": {
                "operationId": "readOrder", "summary": "One order", "parameters": [id.clone()],
                "responses": answers(
                    &[("200", "The order", Some(order.clone()))], &["401", "403", "404", "503"]),
            },
            "delete": {
                "operationId": "endOrder", "summary": "Cancel a held order, give a paid one back",
                "parameters": [id.clone()],
                "responses": answers(
                    &[("200", "The order, which has ended", Some(order.clone()))],
                    &["401", "403", "404", "503"]),
            },
        },
        "/v1/orders/{id}/payment": {"post": {
            "operationId": "payOrder",
            "summary": pays,
            "parameters": pay_parameters,
            "requestBody": body(&said),
            "responses": answers(
                &[("200", "The order; with `paymentReturned` if it came too late", Some(order)),
                    ("204", "An event that changes nothing here", None)],
                &["400", "401", "403", "404", "408", "413", "422", "503"]),
        }},
        "/livez": plain("isAlive", "Whether the process lives", &[("200", "It does", None)]),
        "/readyz": plain("isReady", "Whether the node sells",
            &[("200", "It does", None), ("503", "It does not, yet or any more", None)]),
        "/openapi.json": plain("readContract", "This document",
            &[("200", "The contract", Some(json!({"type": "object"}))),
                ("304", "As you know it", None)]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                into.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|v| references(v, into));
            }
            Value::Array(items) => items.iter().for_each(|v| references(v, into)),
            _ => {}
        }
    }

    fn header() -> Identity {
        let name = hyper::header::HeaderName::from_static("x-buyer-id");
        Identity::Header { name, from: Vec::new() }
    }

    #[test]
    fn whatever_the_contract_names_is_in_it() {
        let document = document(&header(), &Provider::Sandbox);
        let mut named = Vec::new();
        references(&document, &mut named);
        assert!(named.len() > 10);
        for name in named {
            let found = document.pointer(name.trim_start_matches('#'));
            assert!(found.is_some(), "{name}");
        }
        for (page, method) in OF_A_BUYER {
            let parameters = document["paths"][page][method]["parameters"].as_array();
            let named = parameters.is_some_and(|p| p.iter().any(|p| p["name"] == "x-buyer-id"));
            assert!(named, "{method} {page}");
        }
    }

    #[test]
    fn every_page_of_the_contract_is_one_that_is_routed() {
        let document = document(&header(), &Provider::Sandbox);
        for (page, operations) in document["paths"].as_object().expect("an object") {
            let segments: Vec<&str> = page.split('/').skip(1).collect();
            let takes = super::super::methods(&segments).unwrap_or_else(|| panic!("{page}"));
            for method in operations.as_object().expect("an object").keys() {
                let method = method.to_uppercase();
                assert!(takes.split(", ").any(|m| m == method), "{method} {page}");
            }
        }
    }
}
