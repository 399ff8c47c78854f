"""The official Python SDK against Dawn: `python_sdk.py http API TOKEN` or `python_sdk.py stdio DAWN HOME`.

Speaks with one agent and with all agents as one; with version 2 of the SDK in both eras.
"""

import asyncio
import sys

import mcp
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

MODERN_SDK = hasattr(mcp, "Client")


async def exercise(client, tool: str) -> None:
    tools = await client.list_tools()
    names = [each.name for each in tools.tools]
    assert tool in names, f"{tool} is not among {names}"
    result = await client.call_tool(tool, {"text": "grüße"})
    assert result.content[0].text == "grüße", result
    await client.list_resources()
    await client.list_prompts()


async def legacy(transport, tool: str) -> None:
    async with transport as streams:
        async with ClientSession(streams[0], streams[1]) as session:
            await session.initialize()
            await exercise(session, tool)


def over_http(url: str, token: str):
    headers = {"Authorization": f"Bearer {token}"}
    if MODERN_SDK:
        from mcp.client.streamable_http import create_mcp_http_client

        return streamable_http_client(url, http_client=create_mcp_http_client(headers=headers))
    from mcp.client.streamable_http import streamablehttp_client

    return streamablehttp_client(url, headers=headers)


def over_stdio(dawn: str, home: str, arguments: list[str]):
    return StdioServerParameters(command=dawn, args=["--home", home, "mcp", *arguments])


async def main() -> None:
    kind, where, secret = sys.argv[1:4]
    for address, tool in (("b:probe", "echo"), (None, "b__probe__echo")):
        if kind == "http":
            path = "/mcp/" + address.replace(":", "/") if address else "/mcp"
            url = where + path
            await legacy(over_http(url, secret), tool)
            if MODERN_SDK:
                async with mcp.Client(over_http(url, secret), mode="auto") as client:
                    print(address or "all", "spoke", client.protocol_version)
                    await exercise(client, tool)
        else:
            arguments = [address] if address else []
            await legacy(stdio_client(over_stdio(where, secret, arguments)), tool)
            if MODERN_SDK:
                async with mcp.Client(over_stdio(where, secret, arguments), mode="auto") as client:
                    print(address or "all", "spoke", client.protocol_version)
                    await exercise(client, tool)
    print("all good")


asyncio.run(main())
