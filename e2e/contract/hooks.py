"""Half of the orders that schemathesis makes up are of a journey that there is."""

import json
import os
import re
import urllib.request

import schemathesis


def journeys():
    with urllib.request.urlopen(os.environ["CONTRACT_URL"] + "/v1/runs") as answer:
        runs = json.load(answer)["runs"]
    for run in runs:
        stops = [stop["code"] for stop in run["stops"]]
        for kind in run["classes"]:
            yield {"run": run["run"], "from": stops[0], "to": stops[-1], "class": kind["name"]}


JOURNEYS = list(journeys())
RUN = re.compile(r"[A-Za-z0-9_-]{1,16}/[0-9]{4}-[0-9]{2}-[0-9]{2}")


def is_journey(body):
    """Of the right form: what is wrong on purpose must stay so."""
    texts = all(isinstance(body.get(name), str) for name in ("run", "from", "to", "class"))
    return texts and RUN.fullmatch(body["run"])


@schemathesis.hook
def map_body(context, body):
    place = context.operation is not None and context.operation.label == "POST /v1/orders"
    if place and isinstance(body, dict) and is_journey(body):
        at = len(json.dumps(body))
        if at % 2 == 0:
            body = {**body, **JOURNEYS[at // 2 % len(JOURNEYS)]}
    return body
