"""HTTP over the socket: transports that send the calls of an SDK to the providers through one bridge.

    http = httpx2.AsyncClient(transport=AsyncHttpx2BridgeTransport("wss://…", token="…"))
    client = openai.AsyncOpenAI(http_client=http)

`bridge.transports.httpx` has BridgeTransport and AsyncBridgeTransport; `bridge.transports.httpx2` has
Httpx2BridgeTransport and AsyncHttpx2BridgeTransport. Each module imports its library, so import only the one in use.

routes     maps a URL to a provider and an endpoint by means of the registry
requests   converts a request of the library to a step
responses  converts metadata to status and headers, and failures to the library's exceptions
socket     sends requests over one socket that is opened on first use
base       the code that the transports of both libraries share, asynchronous and blocking
"""
