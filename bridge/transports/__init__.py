"""HTTP over the socket: transports by which an SDK's calls travel to the providers through one bridge.

    client = openai.AsyncOpenAI(http_client=httpx2.AsyncClient(transport=AsyncBridgeTransport("wss://…", token="…")))

`bridge.transports.httpx` and `bridge.transports.httpx2` hold the same two classes, each for the library it is named
after, which is imported with it and not before: BridgeTransport and AsyncBridgeTransport.

routes     which provider and endpoint a URL is: the registry, read backwards
asking     a request of the library, as a step of the bridge
answers    what the bridge says, as status and headers; what goes wrong, as the library's own exceptions
carrier    the way there and back, on an event loop, over one socket that is dialled when it is needed
transport  what the transports for both libraries share, with an event loop and without
"""
