"""The OpenAPI description of the operations of operators: valid, complete, and what is served."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from actors.admin.operations import ADMIN_OPERATIONS, ADMIN_TITLE
from actors.gateway.openapi import openapi
from actors.gateway.operations import OPERATIONS
from tests.fixtures.admin import Operator

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def described() -> Any:
    return json.loads(openapi(ADMIN_OPERATIONS, ADMIN_TITLE))


@pytest.mark.parametrize("operations", [OPERATIONS, ADMIN_OPERATIONS], ids=["v1", "admin"])
def test_a_validator_of_openapi_has_nothing_to_say(operations: Any) -> None:
    reason = "openapi-spec-validator, of the extra dev, is not installed"
    validator = pytest.importorskip("openapi_spec_validator", reason=reason)
    found = validator.OpenAPIV31SpecValidator(json.loads(openapi(operations))).iter_errors()
    assert [(error.message, list(error.absolute_path)) for error in found] == []


def test_each_operation_is_described_once_with_its_method_and_its_scope(described: Any) -> None:
    found = {
        (method.upper(), path): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert found.keys() == {(each.method, each.route) for each in ADMIN_OPERATIONS}
    ids = [operation["operationId"] for operation in found.values()]
    assert len(set(ids)) == len(ids)
    assert all(operation["security"] == [{"key": ["admin"]}] for operation in found.values())
    assert all(operation["responses"] and operation["summary"] for operation in found.values())
    assert described["openapi"] == "3.1.0"


def test_the_parameters_of_a_path_are_those_in_it(described: Any) -> None:
    for path, methods in described["paths"].items():
        assert methods.keys() <= METHODS
        for operation in methods.values():
            parameters = operation.get("parameters", ())
            in_path = {each["name"] for each in parameters if each["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert all(each["required"] for each in parameters if each["in"] == "path")
            assert len({each["name"] for each in parameters}) == len(parameters)


def test_every_schema_is_valid_and_every_reference_leads_somewhere(described: Any) -> None:
    text = json.dumps(described)
    schemas = described["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= schemas.keys()
    parameters = [
        parameter["schema"]
        for methods in described["paths"].values()
        for operation in methods.values()
        for parameter in operation.get("parameters", ())
    ]
    for schema in (*schemas.values(), *parameters):
        Draft202012Validator.check_schema(schema)


async def test_the_gateway_serves_the_description(operator: Operator, described: Any) -> None:
    assert await operator.call("openapi") == described
