"""The MCP handlers of resources: what is listed, and what is read. No I/O but that of what is read."""

from __future__ import annotations

from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from kimi_mcp.core.errors import KimiError, RunNotFound
from kimi_mcp.server.resources import DOCUMENTS, TEMPLATES, templated


async def list_resources(context: Any, params: PaginatedRequestParams | None) -> ListResourcesResult:
    """Every resource with an address of its own."""
    del context, params
    return ListResourcesResult(
        resources=[
            Resource(
                uri=uri,
                name=document.name,
                title=document.title,
                description=document.description,
                mime_type=document.mime_type,
            )
            for uri, document in DOCUMENTS.items()
        ]
    )


async def list_templates(context: Any, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    """Every kind of resource whose address holds a value."""
    del context, params
    return ListResourceTemplatesResult(
        resource_templates=[
            ResourceTemplate(
                uri_template=address,
                name=template.name,
                title=template.title,
                description=template.description,
                mime_type=template.mime_type,
            )
            for address, template in TEMPLATES.items()
        ]
    )


async def read_resource(context: Any, params: ReadResourceRequestParams) -> ReadResourceResult:
    """One resource; an error of the protocol where nothing is there, or it can't be read."""
    uri, house = str(params.uri), context.lifespan_context
    try:
        if document := DOCUMENTS.get(uri):
            mime_type, text = document.mime_type, await document.read(house)
        elif found := templated(uri):
            template, value = found
            mime_type, text = template.mime_type, await template.read(house, value)
        else:
            every = ", ".join((*DOCUMENTS, *TEMPLATES))
            raise MCPError(INVALID_PARAMS, f"There is no such resource; there are {every}.")
    except RunNotFound as error:
        raise MCPError(INVALID_PARAMS, f"{error.message} Read kimi://runs to see the latest.") from None
    except KimiError as error:
        raise MCPError(INTERNAL_ERROR, f"{error.message} {error.fix}") from None
    return ReadResourceResult(contents=[TextResourceContents(uri=params.uri, mime_type=mime_type, text=_utf8(text))])


def _utf8(text: str) -> str:
    """The text without half a character, which a line of the protocol can't carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
