"""The MCP handlers of resources: what is listed, and what is read. No I/O but that of what is read."""

from __future__ import annotations

from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import (
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

from kimi_mcp.documents import DOCUMENTS, TEMPLATES, templated


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
    """One resource."""
    uri = str(params.uri)
    if document := DOCUMENTS.get(uri):
        mime_type, text = document.mime_type, document.read()
    elif found := templated(uri):
        template, value = found
        mime_type, text = template.mime_type, await template.read(context.lifespan_context, value)
    else:
        raise MCPError(INVALID_PARAMS, f"There is no such resource; there are {', '.join((*DOCUMENTS, *TEMPLATES))}.")
    return ReadResourceResult(contents=[TextResourceContents(uri=params.uri, mime_type=mime_type, text=text)])
