//! The contract for programs: OpenAPI 3.1, made from the types that handlers read and write.

use std::sync::OnceLock;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::orders::{OrderBody, OrdersBody, PlaceBody};
use super::payment::{Event, SandboxPayment, Succeeded};
use super::problem::{KINDS, TYPES};
use super::runs::{RunBody, RunsBody};
use super::sale::SaleBody;
use super::{Reply, tagged};

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

/// `GET /openapi.json`
pub(crate) fn reply(request: &Request<Incoming>) -> Reply {
    static TEXT: OnceLock<(String, String)> = OnceLock::new();
    let (text, tag) = TEXT.get_or_init(|| {
        let text = document().to_string();
        let tag = format!("\"{}\"", &blake3::hash(text.as_bytes()).to_hex()[..20]);
        (text, tag)
    });
    let body = || Bytes::from_static(text.as_bytes());
    tagged(request.headers(), tag, CACHE, "application/json", body)
}

/// The whole document.
#[must_use]
pub(crate) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut types = settings.into_generator();
    let paths = paths(&mut types);
    let problem = types.subschema_for::<ProblemBody>();
    let problem = json!({
        "description": "A problem",
        "headers": {"Retry-After": {
            "description": "In how many seconds to try again with the same Idempotency-Key",
            "schema": {"type": "integer", "minimum": 0},
        }},
        "content": {"application/problem+json": {"schema": problem}},
    });
    let schemas: Map<String, Value> = types.take_definitions(true);
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
        "components": {
            "schemas": schemas,
            "responses": {"Problem": problem},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "gateway": {"type": "apiKey", "in": "header", "name": "X-Buyer-Id",
                    "description": "Set by a trusted gateway; its name is that of GET /v1/sale."},
            },
        },
        // Which of the two a sale takes is in GET /v1/sale.
        "security": [{"token": []}, {"gateway": []}],
    })
}

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
        all.insert((*status).to_owned(), answer);
    }
    for status in problems {
        let problem = json!({"$ref": "#/components/responses/Problem"});
        all.insert((*status).to_owned(), problem);
    }
    all.into()
}

fn body(schema: &Value) -> Value {
    json!({"required": true, "content": {"application/json": {"schema": schema}}})
}

fn paths(types: &mut SchemaGenerator) -> Value {
    let of = |schema: schemars::Schema| Value::from(schema);
    let sale = of(types.subschema_for::<SaleBody<'_>>());
    let runs = of(types.subschema_for::<RunsBody<'_>>());
    let run = of(types.subschema_for::<RunBody<'_>>());
    let place = of(types.subschema_for::<PlaceBody<'_>>());
    let order = of(types.subschema_for::<OrderBody<'_>>());
    let orders = of(types.subschema_for::<OrdersBody<'_>>());
    let sandbox = of(types.subschema_for::<SandboxPayment>());
    let event = of(types.subschema_for::<Event>());
    // Named by the event's `data`, which is read only where the type says so.
    let _ = types.subschema_for::<Succeeded>();
    let journey = || {
        vec![
            query("from", "The code of the stop where the journey begins; with `to` or not at all"),
            query("to", "The code of the stop where it ends"),
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
    let signature = |name: &str| {
        json!({"name": name, "in": "header", "required": false,
        "description": "As in Standard Webhooks; required unless the sale is a sandbox",
        "schema": {"type": "string"}})
    };
    let everybody = json!([{}]);
    let plain = |operation: &str, what: &str, status: &[(&str, &str, Option<Value>)]| {
        json!({"get": {"operationId": operation, "summary": what, "security": [{}],
            "responses": answers(status, &[])}})
    };
    json!({
        "/v1/sale": {"get": {
            "operationId": "readSale", "summary": "What is sold here, and how to buy it",
            "security": everybody,
            "responses": answers(
                &[("200", "The sale", Some(sale)), ("304", "As you know it", None)], &["503"]),
        }},
        "/v1/runs": {"get": {
            "operationId": "listRuns", "summary": "Runs, and what is free on a journey of each",
            "security": everybody, "parameters": listed,
            "responses": answers(
                &[("200", "The runs", Some(runs)), ("304", "As you know it", None)],
                &["422", "503"]),
        }},
        "/v1/runs/{train}/{date}": {"get": {
            "operationId": "readRun", "summary": "One run, and what is free on it",
            "security": everybody, "parameters": one,
            "responses": answers(
                &[("200", "The run", Some(run)), ("304", "As you know it", None)],
                &["404", "422", "503"]),
        }},
        "/v1/orders": {
            "get": {
                "operationId": "listOrders", "summary": "The buyer's orders",
                "parameters": [query("run", "Only of this run, TRAIN/DATE")],
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
            "summary": "The payment provider's signed webhook; in a sandbox, the buyer's word",
            "parameters": [id, signature("webhook-id"), signature("webhook-timestamp"),
                signature("webhook-signature")],
            "requestBody": body(&json!({"anyOf": [sandbox, event]})),
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

    #[test]
    fn whatever_the_contract_names_is_in_it() {
        let document = document();
        let mut named = Vec::new();
        references(&document, &mut named);
        assert!(named.len() > 10);
        for name in named {
            let found = document.pointer(name.trim_start_matches('#'));
            assert!(found.is_some(), "{name}");
        }
    }

    #[test]
    fn every_page_of_the_contract_is_one_that_is_routed() {
        let document = document();
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
