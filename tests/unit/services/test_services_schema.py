"""Generated requests by the OpenAPI schema of our own routes: no server errors, and every answer fits its schema."""

import os
from unittest import mock

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from services_app import make_parts

from services.app import build_app
from services.auth import ENVIRONMENT, Keys

KEY = "a-key-of-sufficient-length"

with mock.patch.dict(os.environ, {ENVIRONMENT: f"me:{KEY}"}):
    parts = make_parts(keys=Keys(), requests_per_minute=1e9, burst=10**9)
schema = schemathesis.openapi.from_asgi("/openapi.json", build_app(parts, on_serve=False))


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_keeps_to_the_schema(case):
    # A schema does not know tokens: a text with too many is refused although it is valid.
    without = [positive_data_acceptance]
    case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"}, excluded_checks=without)
