"""The WebSocket transports of the official Python SDK, version 1, against Dawn.

`python_websocket.py client API TOKEN` speaks with one agent and with all agents as one; `python_websocket.py server PORT`
is a server with one tool, for Dawn to be the client of.
"""

import asyncio
import sys
import warnings

warnings.simplefilter("ignore", DeprecationWarning)


async def client(api: str, token: str) -> None:
    from mcp import ClientSession
    from mcp.client.websocket import websocket_client

    for path, tool in (("/ws/b/probe", "echo"), ("/ws", "b__probe__echo")):
        url = f"{api.replace('http', 'ws', 1)}{path}?token={token}"
        async with websocket_client(url) as (read, write):
            async with ClientSession(read, write) as session:
                await session.initialize()
                names = [each.name for each in (await session.list_tools()).tools]
                assert tool in names, f"{tool} is not among {names}"
                for text in ("grüße", "x" * 500_000):
                    result = await session.call_tool(tool, {"text": text})
                    assert result.content[0].text == text, result
                await session.list_resources()
                await session.list_prompts()
    print("all good")


def server(port: int) -> None:
    import uvicorn
    from mcp.server.fastmcp import FastMCP
    from mcp.server.websocket import websocket_server

    board = FastMCP("board")

    @board.tool()
    def greet(name: str) -> str:
        """Greets somebody."""
        return f"hello, {name}"

    async def app(scope, receive, send):
        if scope["type"] != "websocket":
            return
        inner = board._mcp_server
        async with websocket_server(scope, receive, send) as (read, write):
            await inner.run(read, write, inner.create_initialization_options())

    uvicorn.run(app, host="127.0.0.1", port=port, lifespan="off", log_level="warning")


if sys.argv[1] == "client":
    asyncio.run(client(*sys.argv[2:4]))
else:
    server(int(sys.argv[2]))
